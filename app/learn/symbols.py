"""The symbols of a formula, each with what it means, as HTML for a page and for a slide."""

from __future__ import annotations

from collections.abc import Sequence

from geomix_app.glossary import BY_SYMBOL
from geomix_app.notation import SYMBOLS
from geomix_app.shell import View


def chips(view: View, names: Sequence[str]) -> str:
    """The symbols in their colours; each says what it means when it is pointed at, tapped or focused."""
    return f'<div class="gx-symbols">{"".join(_chip(view, name) for name in names)}</div>'


def _chip(view: View, symbol: str) -> str:
    entry = f"glossary.{BY_SYMBOL[symbol].name}"
    meaning = f"<b>{view.text.html(f'{entry}.name')}</b><br>{view.text.html(f'{entry}.means')}"
    return (
        f'<span class="gx-symbol" tabindex="0" role="note" style="color: {view.style.colour(symbol)}">'
        f'{_written(view, symbol)}<span class="gx-meaning">{meaning}</span></span>'
    )


def _written(view: View, symbol: str) -> str:
    """A symbol as HTML; figures write "exact" where a formula writes Progress."""
    return view.text.html("explorer.progress") if symbol == "progress" else SYMBOLS[symbol].html
