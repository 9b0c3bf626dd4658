"""Parts of the Glossary page."""

from __future__ import annotations

import streamlit as st

from geomix_app import shell, state
from geomix_app.catalogue import LANGUAGES, Catalogue, catalogue
from geomix_app.glossary import ENTRIES, Entry, matching

_COLUMNS = (3, 5, 11, 8)


def answer(text: Catalogue) -> str:
    """How much there is."""
    return text("page.glossary.answer", count=str(len(ENTRIES)))


def entries(text: Catalogue) -> None:
    """The entries that have the words of the search."""
    wanted = st.text_input(
        text.plain("page.glossary.search"),
        max_chars=80,
        placeholder=text.plain("page.glossary.placeholder"),
        icon=":material/search:",
        **state.bind_view("glossary", ""),
    )
    found = matching(wanted)
    if not found:
        st.info(text("page.glossary.none", words=shell.plain(wanted)))
    elif len(found) < len(ENTRIES):
        st.caption(text("page.glossary.found", found=str(len(found)), count=str(len(ENTRIES))))
    with st.container(gap="xsmall"):
        for entry in found:
            _line(text, entry)


def _line(text: Catalogue, entry: Entry) -> None:
    symbol, names, meaning, pages = st.columns(_COLUMNS, gap="small", vertical_alignment="center")
    symbol.markdown(f"${entry.latex}$")
    others = " · ".join(catalogue(code)(f"glossary.{entry.name}.name") for code in LANGUAGES if code != text.language)
    names.markdown(f"**{text(f'glossary.{entry.name}.name')}**  \n:gray[{others}]")
    formula = f"${entry.latex}{entry.formula}$  \n" if entry.formula else ""
    places = text("page.glossary.where", sections=entry.sections) if entry.sections else text("page.glossary.nowhere")
    meaning.markdown(f"{formula}{text(f'glossary.{entry.name}.means')} :gray[{places}]")
    with pages.container(horizontal=True, gap="xsmall"):
        for page in entry.pages:
            st.page_link(state.page(page), label=text(f"nav.{page}"))
