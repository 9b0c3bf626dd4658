"""A deck as one HTML document: no server, no network, nothing outside itself.

Its Content-Security-Policy allows the deck's own scripts by their hashes and forbids all connections, so that a lesson
from a stranger can bring words, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from geomix_app.catalogue import Catalogue, catalogue
from geomix_app.deck.lesson import Lesson
from geomix_app.deck.slides import Assets, Page, pages
from geomix_app.explorer.component import script
from geomix_app.figures.style import Style
from geomix_core.datasets import Dataset
from geomix_core.errors import GeomixError

LIMIT = 12_000_000
"""Bytes of a deck."""

BUTTONS = {
    "back": ("M10 3 5 8l5 5", "PageUp"),
    "next": ("m6 3 5 5-5 5", "PageDown"),
    "list": ("M3 4h10M3 8h10M3 12h10", "G"),
    "black": ("M3 4h10v7H3zM6 14h4", "B"),
    "timer": ("M8 5v4l2.5 1.5M8 2.5a6 6 0 1 0 .01 0", "T"),
    "notes": ("M3 13l.6-3L10.5 3l2.5 2.5L6 12.4 3 13", "N"),
    "full": ("M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3", "F"),
    "keys": ("M5.6 6a2.4 2.4 0 1 1 3.4 2.2c-.7.4-1 .8-1 1.6M8 12.6v.1", "?"),
    "leave": ("M4 4l8 8M12 4l-8 8", "Q"),
}
"""What can be done with a press: its sign, as a path in a square of 16, and its key."""
KEYS = ("step", "slide", "ends", "list", "black", "timer", "reset", "notes", "full", "keys", "slider", "leave")
"""Lines of the help, each with its keys."""
WORDS = (
    "untitled",
    "now",
    "coming",
    "end",
    "note_none",
    "blocked",
    "start",
    "pause",
    "reset",
    "stage",
    "undrawn",
)
"""Strings that the script writes, by their name in the catalogue's section "deck"."""


class DeckError(GeomixError):
    """The deck would be too large to be one file."""


def document(lesson: Lesson, upload: Dataset | None = None, at: str = "", embedded: bool = False) -> str:
    """The deck, opened at a slide and stage ("theorem_2.3") unless its address says otherwise.

    `embedded`: within the app, which keeps the address and can be gone back to. Raises DeckError.
    """
    text, assets = catalogue(lesson.language), Assets()
    shown = pages(lesson, assets, upload)
    title = lesson.title or text.plain("deck.title")
    scripts = [_asset("deck.js")]
    if assets.plots:
        scripts.insert(0, _plotly())
    written = "\n".join(
        (
            f'<!doctype html>\n<html lang="{lesson.language}" data-theme="{lesson.theme}"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_asset('math.css')}{_asset('deck.css')}{_theme(lesson)}</style></head><body>",
            _body(text, title, shown, embedded),
            *_data(text, title, shown, assets, at, embedded),
            *(f"<script>{source}</script>" for source in scripts),
            "</body></html>\n",
        )
    )
    size = len(written.encode("utf-8"))
    if size > LIMIT:
        raise DeckError(f"the deck has {size:,} bytes, and {LIMIT:,} are allowed: show fewer slides")
    return written


def _body(text: Catalogue, title: str, shown: Sequence[Page], embedded: bool) -> str:
    slides = "\n".join(_section(page, i, len(shown)) for i, page in enumerate(shown, 1))
    do = {name: html.escape(text.plain(f"deck.do_{name}")) for name in BUTTONS}
    buttons = "".join(
        f'<button type="button" data-do="{name}" title="{do[name]} ({key})" aria-label="{do[name]}">'
        f'<svg viewBox="0 0 16 16" aria-hidden="true"><path d="{path}"/></svg></button>'
        for name, (path, key) in BUTTONS.items()
        if embedded or name != "leave"
    )
    entries = "".join(
        f'<li><button type="button" data-go="{i}"><span class="number">{i + 1}</span>{page.title}'
        f"<small>{page.where}</small></button></li>"
        for i, page in enumerate(shown)
    )
    keys = "".join(
        f'<tr><th scope="row">{html.escape(text.plain(f"deck.key_{name}"))}</th>'
        f"<td>{html.escape(text.plain(f'deck.about_{name}'))}</td></tr>"
        for name in KEYS
        if embedded or name != "leave"
    )
    heading = html.escape(title)
    return f"""<main aria-label="{heading}">
{slides}
</main>
<p class="announced" role="status" aria-live="polite"></p>
<div class="where-now"><span class="place"></span><span class="dots" aria-hidden="true"></span>
<span class="clock"></span></div>
<div class="bar" role="toolbar" aria-label="{html.escape(text.plain("deck.toolbar"))}">{buttons}</div>
<p class="toast" role="alert" hidden></p>
<dialog class="list" aria-label="{do["list"]}"><h2>{heading}</h2><ol>{entries}</ol></dialog>
<dialog class="keys" aria-label="{do["keys"]}"><h2>{do["keys"]}</h2><table>{keys}</table></dialog>
<div class="black" role="img" aria-label="{do["black"]}" hidden></div>"""


def _section(page: Page, place: int, count: int) -> str:
    screens = "".join(
        f'<div class="screen {screen.kind}" data-stages="{screen.stages}" hidden>{screen.body}</div>'
        for screen in page.screens
    )
    return (
        f'<section class="slide" id="{page.name}" aria-roledescription="slide" aria-label="{place} / {count}" hidden>'
        f'<header><h2>{page.title}</h2><span class="where">{page.where}</span></header>{screens}</section>'
    )


def _data(text: Catalogue, title: str, shown: Sequence[Page], assets: Assets, at: str, embedded: bool) -> Iterable[str]:
    """What the script reads, in elements that no browser runs."""
    yield _json(
        "deck",
        {
            "title": title,
            "at": at,
            "embedded": embedded,
            "notes": [page.note for page in shown],
            "words": {name: text.plain(f"deck.{name}") for name in WORDS},
            "explorer": {"script": script(), "css": _explorer_css()} if assets.messages else None,
        },
    )
    for message, name in assets.messages.items():
        yield f'<script type="text/plain" id="{name}">{message}</script>'
    for i, plot in enumerate(assets.plots):
        yield _json(f"plot-{i}", json.loads(plot))


def _json(name: str, content: Any) -> str:
    # No "<": nothing in a string can end the element.
    written = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{written}</script>'


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    # The explorer is a module, which a document without a server can only load from a blob of its own.
    return (
        f"default-src 'none'; script-src {hashes} blob:; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
    )


def _theme(lesson: Lesson) -> str:
    """The app's own colours, under the names that the explorer knows too."""
    paper = Style(catalogue(lesson.language), lesson.theme).paper
    ink, accent = ("#e5eaee", "#86c5dc") if lesson.theme == "dark" else ("#1d2730", "#1f6f8b")
    return (
        f":root {{color-scheme: {lesson.theme}; --st-background-color: {paper}; --st-text-color: {ink}; "
        f"--st-primary-color: {accent}}}"
    )


@cache
def _plotly() -> str:
    # As an HTML parser reads it, or its hash would be another.
    source: str = get_plotlyjs()
    return source.replace("\r\n", "\n").replace("\r", "\n")


@cache
def _asset(name: str) -> str:
    return (files("geomix_app") / "deck" / name).read_text("utf-8")


@cache
def _explorer_css() -> str:
    return (files("geomix_app") / "explorer" / "explorer.css").read_text("utf-8")
