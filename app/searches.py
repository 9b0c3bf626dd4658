"""A search for a counterexample that runs beside the page: the page asks where it stands, and may stop it."""

from __future__ import annotations

import threading
import time

import torch

from geomix_core.claims import Claim, SearchProgress, SearchResult, Setting, find_counterexample

SECONDS = 10.0
"""Time that a search has, once it runs."""
AT_ONCE = 2
"""Searches that run at the same time, of all readers together; others wait for their turn."""

_SLOTS = threading.BoundedSemaphore(AT_ONCE)


class Search:
    """One search in a thread of its own. `about` says what for: a claim's name or a statement."""

    def __init__(self, claim: Claim, setting: Setting, about: str, seconds: float = SECONDS) -> None:
        self.claim, self.setting, self.about, self.seconds = claim, setting, about, seconds
        self.progress: SearchProgress | None = None
        """None until it is its turn."""
        self.result: SearchResult | None = None
        """None until it has ended; also if it broke down."""
        self._began: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"search {about}")

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it does so within a few hundred policies."""
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended."""
        self._thread.join(seconds)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def elapsed(self) -> float:
        """Seconds since its turn came."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _run(self) -> None:
        torch.set_num_threads(1)  # as main.py does for the page's own thread
        with _SLOTS:
            self._began = time.monotonic()
            self.result = find_counterexample(
                self.claim, self.setting, seconds=self.seconds, on_progress=self._on_progress
            )

    def _on_progress(self, progress: SearchProgress) -> bool:
        self.progress = progress
        return not self._stopped.is_set()
