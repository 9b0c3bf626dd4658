"""The glossary: every symbol is in it, said in both languages, with places that exist, and the search finds it."""

from __future__ import annotations

import re

import pytest
from apptest import PAGES, open_app, run, shown, words

from geomix_app.catalogue import LANGUAGES, catalogue
from geomix_app.glossary import BY_NAME, ENTRIES, matching
from geomix_app.notation import SYMBOLS
from geomix_core.claims.quantities import QUANTITIES


def test_every_symbol_and_every_quantity_is_there_once() -> None:
    symbols = [s for entry in ENTRIES for s in entry.symbols]
    assert sorted(symbols) == sorted(SYMBOLS)
    assert len(BY_NAME) == len(ENTRIES)
    assert {q.name for q in QUANTITIES.values() if not q.is_function} <= BY_NAME.keys()


@pytest.mark.parametrize("name", BY_NAME)
def test_every_entry_is_complete(name: str) -> None:
    entry = BY_NAME[name]
    assert entry.latex
    assert re.fullmatch(r"(§\d\.\d(, §\d\.\d)*)?", entry.sections)
    assert entry.pages
    assert set(entry.pages) <= {*PAGES, "derivation"}
    assert not entry.formula or entry.formula.startswith(("=", r"\propto", r"\in", ":"))
    assert entry.latex.count("{") == entry.latex.count("}")
    assert entry.formula.count("{") == entry.formula.count("}")
    for language in LANGUAGES:
        text = catalogue(language)
        assert text.plain(f"glossary.{name}.name")[-1] not in ".。"
        assert text.plain(f"glossary.{name}.means")[-1] in ".。"
    names = {catalogue(language).plain(f"glossary.{name}.name") for language in LANGUAGES}
    assert len(names) == len(LANGUAGES)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("信噪比", "snr"),
        ("signal-to-noise", "snr"),
        ("alpha_kl", "alpha_kl"),
        ("Chernoff", "chernoff"),
        ("KL 对称", "alpha_kl"),
        ("GEODESIC mixture", "m"),
        ("学习率", "eta"),
        ("√p", "arc"),
        ("§3.4", "eta_star"),
        (r"\ell", "ell"),
    ],
)
def test_search_finds_by_name_symbol_and_meaning_in_any_language(wanted: str, name: str) -> None:
    found = {entry.name for entry in matching(wanted)}
    assert name in found
    assert len(found) < len(ENTRIES) / 2


def test_search_for_nothing_or_anything() -> None:
    assert matching("") == matching("  ") == ENTRIES
    assert matching("no such word") == ()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_every_entry_in_both_languages(language: str) -> None:
    at = open_app("glossary", lang=language)
    seen = "\n".join(shown(at))
    for entry in ENTRIES:
        assert f"${entry.latex}" in seen
        for code in LANGUAGES:
            assert catalogue(code)(f"glossary.{entry.name}.name") in seen
        assert catalogue(language)(f"glossary.{entry.name}.means") in seen
        assert entry.formula in seen
    assert len(at.get("page_link")) == sum(len(e.pages) for e in ENTRIES)


def test_the_page_searches() -> None:
    at = open_app("glossary")
    run(at.text_input[0].set_value("信噪比"))
    seen = "\n".join(shown(at))
    assert "信噪比" in seen
    assert "测地线" not in seen
    assert len(at.get("page_link")) == sum(len(e.pages) for e in matching("信噪比"))
    run(at.text_input[0].set_value("[x](javascript:alert)"))
    assert at.info[0].value == words(at)("page.glossary.none", words=r"\[x\]\(javascript\:alert\)")
