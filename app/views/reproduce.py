"""What a reader takes away from a page: Python that recomputes its numbers, the data and the figures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import streamlit as st

from geomix_app import compute, shell, snippets, state
from geomix_app.catalogue import Catalogue
from geomix_app.figures import export
from geomix_app.figures.style import Style
from geomix_app.notation import markdown
from geomix_app.scenario import UPLOAD
from geomix_app.shell import View
from geomix_core.results import Plan
from geomix_core.scenarios import real_rows

_OPEN = "reproduce"


def show(view: View, lab: snippets.Lab | None = None) -> None:
    """At the foot of an Explore page, after all that it shows; `lab` is what the sampling lab measures."""
    _block(view.text, view.name, lambda: snippets.page(view.name, view.scenario, _facts(view, lab), view.text))


def show_rows(text: Catalogue, plan: Plan) -> None:
    """The same on the Validate page."""
    facts = snippets.Facts(0, state.upload_files(), _roles(), plan.kind)
    _block(text, "validate", lambda: snippets.rows(facts, plan, text))


def _block(text: Catalogue, name: str, write: Callable[[], str]) -> None:
    """Closed until it is asked for, and then open on every page; nothing is made while it is closed."""
    place = st.expander(text("reproduce.title"), icon=":material/code:", **state.bind_view(_OPEN, False))
    if not place.open:
        return
    with place:
        left, right = st.columns([5, 3], gap="medium")
        with left:
            _code(text, name, write())
        with right:
            _figures(text)


def _code(text: Catalogue, name: str, code: str) -> None:
    st.markdown(f"**{text('reproduce.code')}**")
    st.caption(text("reproduce.code_intro"))
    st.code(code, "python")
    _download(text("reproduce.download_code"), lambda: code, name, "py")


def _figures(text: Catalogue) -> None:
    """A line for each figure: its name, and what can be downloaded of it."""
    style, exhibits = state.style(), state.shown().exhibits
    if not exhibits:
        return
    st.markdown(f"**{text('reproduce.figures')}**")
    with st.container(gap="xsmall"):
        for exhibit in exhibits.values():
            title, files = st.columns(2, vertical_alignment="center", gap="small")
            title.markdown(markdown(exhibit.title))
            with files.container(horizontal=True, horizontal_alignment="right", gap="small"):
                _files(text, style, exhibit)
    st.caption(text("reproduce.image_hint"))
    st.segmented_control(
        text("reproduce.image_format"),
        export.IMAGE_FORMATS,
        format_func=lambda f: text(f"reproduce.{f}"),
        required=True,
        **state.bind_view(shell.IMAGE, export.IMAGE_FORMATS[0]),
    )


def _files(text: Catalogue, style: Style, exhibit: export.Exhibit) -> None:
    """The files that one figure leaves behind."""
    if exhibit.columns is not None:
        csv = partial(_csv, exhibit.columns)
        _download(text("reproduce.csv"), csv, exhibit.key, "csv", text("reproduce.csv_help"))
    page = partial(export.to_html, style, exhibit)
    _download(text("reproduce.html"), page, exhibit.key, "html", text("reproduce.html_help"))
    if export.draws_images():
        for image_format in export.IMAGE_FORMATS:
            image = partial(export.to_image, style, exhibit, image_format)
            _download(text(f"reproduce.{image_format}"), image, exhibit.key, image_format)


_MIME = {"py": "text/x-python", "csv": "text/csv", "html": "text/html", "svg": "image/svg+xml", "png": "image/png"}


def _download(label: str, make: Callable[[], str | bytes], key: str, kind: str, tip: str | None = None) -> None:
    """A button that makes the file when it is pressed."""
    st.download_button(
        label,
        make,
        f"{export.file_name(key)}.{kind}",
        _MIME[kind],
        on_click="ignore",
        type="tertiary",
        help=tip,
        icon=":material/download:",
        key=f"b.reproduce.{key}.{kind}",
    )


def _csv(columns: Callable[[], export.Columns]) -> str:
    return export.to_csv(columns())


def _roles() -> tuple[tuple[str, str], ...]:
    """Which array is which, where the reader chose it."""
    brought = state.found()
    return tuple(brought.roles.items()) if brought is not None and brought.assigned_by == "reader" else ()


def _facts(view: View, lab: snippets.Lab | None = None) -> snippets.Facts:
    data = state.upload() if view.scenario.source == UPLOAD else None
    rows = len(real_rows().theta) if data is None else len(data)
    maxima = compute.signal(view.row.key, view.weights, view.row.batch).snr.maxima[0] if view.pair.covered else ()
    return snippets.Facts(
        row=min(view.scenario.row, rows - 1),
        files=() if data is None else state.upload_files(),
        roles=() if data is None else _roles(),
        kind="logits" if data is None else data.kind,
        own_reference=view.scenario.own_reference or (data is not None and data.pair.reference is not None),
        disjoint=view.pair.disjoint,
        covered=view.pair.covered,
        shares=bool(maxima) and 0 < maxima[0].value < inf and 0 < view.pair.kl_target_theta < inf,
        claims=tuple(dict.fromkeys(state.shown().claims)),
        lab=lab,
    )
