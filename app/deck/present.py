"""A deck over the whole app: the same document as the offline deck, with its place in the app's address."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

import streamlit as st

from geomix_app import state
from geomix_app.deck.lesson import Lesson, default, to_link
from geomix_app.deck.page import document
from geomix_app.scenario import to_query
from geomix_core.datasets import Dataset

SLIDE = "slide"
"""Where one is, as a link has it: "theorem_2.3"; empty while nothing is presented."""


def present(lesson: Lesson, upload: Dataset | None, label: str) -> None:
    """Show the deck until the lecturer leaves it. Raises DeckError."""
    html = document(lesson, upload, state.view_setting(SLIDE, ""), embedded=True)
    _component()(
        key="deck",
        data={"html": html, "links": links(lesson), "label": label},
        on_leave_change=lambda: state.set_view(SLIDE, ""),
    )


def links(lesson: Lesson) -> list[str]:
    """The query of each slide, without its place: its scenario, and the lesson unless it is every step on that."""
    usual = lesson == default(lesson.slides[0].scenario, lesson.language, lesson.theme)
    whole = "" if usual else to_link(lesson)
    every = {"lang": lesson.language} | ({"lesson": whole} if whole else {})
    return [urlencode(to_query(slide.scenario) | every, quote_via=quote) for slide in lesson.slides]


@cache
def _component() -> Any:
    js = (files("geomix_app") / "deck" / "present.js").read_text("utf-8")
    version = hashlib.blake2b(js.encode("utf-8"), digest_size=4).hexdigest()
    return st.components.v2.component(f"geomix.deck-{version}", js=js, isolate_styles=False)
