"""Parts of the home page."""

import streamlit as st

from geomix_app import state
from geomix_app.shell import View, plain

WAYS = {"learn": "derivation", "explore": "choosing", "validate": "validate"}
"""The ways in, and the page that each leads to."""

ICONS = {"learn": ":material/school:", "explore": ":material/explore:", "validate": ":material/fact_check:"}


def answer(view: View) -> str:
    """What one is looking at, in one sentence."""
    if view.row.prompt is None:
        return view.words("answer")
    return view.words("answer_prompt", prompt=plain(view.row.prompt.prompt))


def ways_in(view: View) -> None:
    """Learn, explore, validate."""
    for column, (way, page) in zip(st.columns(len(WAYS), gap="medium"), WAYS.items(), strict=True):
        label = f"**{view.words(way)}** · {view.words(f'{way}_about')}"
        column.page_link(state.page(page), label=label, icon=ICONS[way])
