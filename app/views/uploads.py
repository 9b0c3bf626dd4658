"""Uploading a pair of policies: read at once, described, and kept for the session."""

from __future__ import annotations

import streamlit as st

from geomix_app import shell, state
from geomix_app.catalogue import Catalogue
from geomix_app.scenario import UPLOAD
from geomix_core.errors import GeomixError
from geomix_core.files import EXTENSIONS, LogitPair, Role, find_policies, read_arrays
from geomix_core.scenarios import real_rows

TYPES = [extension.removeprefix(".") for extension in EXTENSIONS]


def panel(text: Catalogue, key: str, introduction: str = "") -> LogitPair | None:
    """An uploader, or, once a pair was read, what was found in it. A bad file is refused in words; nothing is lost."""
    pair = state.upload()
    if pair is not None:
        _describe(text, pair, key)
        return pair
    if introduction:
        st.markdown(introduction)
    limit = st.get_option("server.maxUploadSize")
    files = st.file_uploader(
        text("upload.label"), type=TYPES, accept_multiple_files=True, key=f"upload.{key}",
        help=text("upload.help", limit=limit),
    )  # fmt: skip
    st.caption(text("page.validate.privacy"))
    if files:
        try:
            found = find_policies({f.name: read_arrays(f.name, f.getvalue()) for f in files})
        except GeomixError as error:
            names = ", ".join(shell.plain(f.name) for f in files)
            st.error(text("upload.rejected", name=names, message=shell.message(text, error)), icon=":material/error:")
            return None
        # Parsed once; the uploader, which would hold copies of the bytes, is not shown again.
        state.set_upload(found, (f.name for f in files))
        if key == "policies":
            state.show_row(UPLOAD, 0)
        st.rerun()
    return None


def example(text: Catalogue) -> None:
    """A button that takes the bundled rows as if they had been uploaded."""
    st.button(text("page.validate.example"), on_click=_use_bundled, icon=":material/dataset:")


def is_bundled(pair: LogitPair) -> bool:
    """Whether the pair is the bundled one: its rows have prompts and token names."""
    return pair.theta is real_rows().theta


def _use_bundled() -> None:
    rows = real_rows()
    names: dict[Role, str] = {"theta": "logits_theta", "target": "logits_t"}
    state.set_upload(LogitPair(rows.theta, rows.target, None, names, "name"))


def _forget() -> None:
    state.set_upload(None)
    if state.scenario().source == UPLOAD:
        state.reset()


def _describe(text: Catalogue, pair: LogitPair, key: str) -> None:
    rows, tokens = pair.theta.shape
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            text(
                "page.validate.found",
                rows=f"{rows:,}",
                tokens=f"{tokens:,}",
                theta=_code(pair.names["theta"]),
                target=_code(pair.names["target"]),
                by=text(f"page.validate.by_{pair.assigned_by}"),
            )
        )
        st.button(text("page.validate.replace"), on_click=_forget, key=f"replace.{key}", icon=":material/swap_horiz:")


def _code(name: str) -> str:
    """A name from a file, safe between back-ticks."""
    return name.replace("`", "'").replace("\n", " ")
