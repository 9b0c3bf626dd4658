"""A search beside the page: it ends, it stops when told to, and no more than so many run at once."""

from __future__ import annotations

import threading

import pytest

from geomix_app import searches
from geomix_app.searches import AT_ONCE, Search
from geomix_core.claims import CLAIMS, SearchStatus, Setting, find_counterexample

LONG = 600.0
"""Seconds that no test waits for: a search that ends sooner was stopped, or found something."""


def started(name: str, seconds: float = LONG) -> Search:
    search = Search(CLAIMS[name], Setting(), name, seconds)
    assert not search.running
    search.start()
    return search


def test_a_search_finds_what_the_engine_finds() -> None:
    search = started("section_4_2_shortest")
    search.wait(LONG)
    assert not search.running
    found = find_counterexample("section_4_2_shortest", seconds=LONG)
    assert search.result is not None
    assert (search.result.status, search.result.counterexample) == (SearchStatus.FOUND, found.counterexample)
    assert search.progress is not None
    assert search.progress.tried == found.tried


def test_a_search_says_where_it_stands_and_stops() -> None:
    seen = threading.Event()
    search = Search(CLAIMS["theorem_4_identity"], Setting(), "theorem_4_identity", LONG)
    listen = search._on_progress
    search._on_progress = lambda progress: (listen(progress), seen.set())[0]  # type: ignore[method-assign]
    search.start()
    assert seen.wait(LONG)
    assert search.running
    assert search.progress is not None
    assert search.progress.tried > 0
    assert search.elapsed > 0
    search.stop()
    search.wait(LONG)
    assert search.result is not None
    assert search.result.status is SearchStatus.STOPPED


def test_a_search_ends_with_its_time() -> None:
    search = started("theorem_4_identity", 0.2)
    search.wait(LONG)
    assert search.result is not None
    assert search.result.status is SearchStatus.SURVIVED


def test_others_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "_SLOTS", threading.BoundedSemaphore(AT_ONCE))
    running = [started("theorem_4_identity") for _ in range(AT_ONCE)]
    for search in running:
        while search.progress is None:
            search.wait(0.01)
    waiting = started("theorem_4_identity")
    waiting.wait(0.05)
    assert waiting.running
    assert waiting.progress is None
    assert waiting.elapsed == 0
    waiting.stop()  # also one that waits: it ends with its first look
    for search in running:
        search.stop()
    for search in (*running, waiting):
        search.wait(LONG)
        assert search.result is not None
        assert search.result.status is SearchStatus.STOPPED


def test_a_search_that_breaks_down_ends_without_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", caught.append)

    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr(searches, "find_counterexample", broken)
    search = started("theorem_1")
    search.wait(LONG)
    assert not search.running
    assert search.result is None
    assert len(caught) == 1
