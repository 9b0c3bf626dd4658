"""Bringing rows: an uploader, files on the server, the bundled example. What was read is kept; the uploads are not."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from geomix_app import shell, state
from geomix_app.catalogue import Catalogue
from geomix_app.scenario import UPLOAD
from geomix_core.errors import FileError, GeomixError
from geomix_core.file_words import show
from geomix_core.files import EXTENSIONS, open_arrays, read_bytes
from geomix_core.found import Found, example, find
from geomix_core.prompts import read_rows, rows_path
from geomix_core.scenarios import Prompt
from geomix_core.served_files import inside, listed
from geomix_core.spool import open_stream
from geomix_core.token_names import read_token_names
from geomix_core.topk import TopKPair, pair_topk, read_topk

FOLDER = "GEOMIX_FILES"
"""The environment variable that names the folder whose files visitors may read; without it there is none."""
TEXTS = (".json", ".jsonl")
"""Names of tokens or descriptions of rows, beside logits; alone, in two files, top-k log-probabilities."""

Opened = tuple[dict[str, Any], tuple[Any, ...]]


def begin(text: Catalogue) -> None:
    """The Validate page before anything was brought: what it takes, and an example that is solved at once."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown(text("page.validate.intro"))
        bring(text, "validate")
        limit = f"{st.get_option('server.maxUploadSize'):,}"
        st.caption(f"{text('page.validate.privacy')} {text('page.validate.larger', limit=limit)}")
    with right:
        st.button(text("page.validate.example"), type="primary", on_click=_use_example, icon=":material/play_arrow:")
        st.caption(text("page.validate.example_says"))


def bring(text: Catalogue, key: str) -> None:
    """An uploader, and files on the server where the operator shares some. A bad file is refused in words."""
    limit = st.get_option("server.maxUploadSize")
    types = [extension.removeprefix(".") for extension in (*EXTENSIONS, *TEXTS)]
    files = st.file_uploader(
        text("upload.label"), type=types, accept_multiple_files=True, key=f"upload.{key}",
        help=text("upload.help", limit=limit),
    )  # fmt: skip
    if files:
        _take(text, key, [f.name for f in files], lambda: _uploaded(text, files))
    if os.environ.get(FOLDER):
        _served(text, key, os.environ[FOLDER])


def panel(text: Catalogue, key: str) -> None:
    """The same on a page that only wants a row to show: what was brought is named, and can be replaced."""
    brought = state.found()
    if brought is None and state.topk() is None:
        bring(text, key)
        st.caption(text("page.validate.privacy"))
        return
    if brought is None or brought.dataset is None:
        st.warning(text("upload.elsewhere"), icon=":material/help:")
    else:
        st.markdown(described(text, brought))
    with st.container(horizontal=True):
        st.page_link(state.page("validate"), label=text("nav.validate"), icon=":material/fact_check:")
        replace_button(text, key)


def described(text: Catalogue, brought: Found) -> str:
    """What was found, in a sentence."""
    assert brought.pair is not None
    rows, tokens = brought.pair.theta.shape
    said = text(
        "page.validate.found",
        rows=f"{rows:,}",
        tokens=f"{tokens:,}",
        kind=text(f"page.validate.kind_{brought.kind or 'unclear'}"),
        dtype=str(brought.pair.theta.dtype).removeprefix("torch."),
        theta=name_of(brought.roles["theta"]),
        target=name_of(brought.roles["target"]),
    )
    if "reference" in brought.roles:
        said += f" {text('page.validate.found_reference', reference=name_of(brought.roles['reference']))}"
    return said


def name_of(label: str) -> str:
    """A stranger's name for an array, safe in Markdown and without control characters."""
    return f"**{shell.plain(show(label))}**"


def replace_button(text: Catalogue, key: str) -> None:
    """Forget what was brought."""
    st.button(text("page.validate.replace"), on_click=_forget, key=f"replace.{key}", icon=":material/upload_file:")


def is_bundled(brought: Found | None) -> bool:
    """Whether the rows are the bundled ones as they are, which the Explore pages know by themselves."""
    plain = brought is not None and brought.assigned_by == "name" and brought.kind_by == "numbers"
    return plain and not state.upload_files()


def take_names(text: Catalogue, brought: Found, file: UploadedFile) -> None:
    """The names of tokens, or descriptions of rows, from an uploaded file."""
    try:
        state.set_names(_named(brought, file.name, file.getvalue()))
    except GeomixError as error:
        _refuse(text, [file.name], error)
        return
    state.drop_files([file])
    st.rerun()


def _uploaded(text: Catalogue, files: Sequence[UploadedFile]) -> Found | TopKPair:
    twice = next((f.name for f in files if [g.name for g in files].count(f.name) > 1), None)
    if twice is not None:
        raise FileError(text.plain("upload.twice", name=show(twice)))
    texts = [f for f in files if PurePath(f.name).suffix.lower() in TEXTS]
    if len(texts) == len(files):
        if len(texts) != 2:
            raise FileError(text.plain("upload.texts_alone"))
        brought: Found | TopKPair = pair_topk(*(read_topk(f.name, f.getvalue()) for f in texts))
    else:
        brought = _found({f.name: open_stream(f.name, f) for f in files if f not in texts})
        for file in texts:
            brought = _named(brought, file.name, file.getvalue())
    # Parsed once; the uploader, which would hold copies of the bytes, is not shown again.
    state.drop_files(files)
    return brought


def _named(brought: Found, name: str, data: bytes) -> Found:
    if PurePath(name).suffix.lower() == ".jsonl":
        return brought.with_names(prompts=[Prompt(row.prompt, row.response) for row in read_rows(name, data)])
    vocabulary = None if brought.pair is None else brought.pair.theta.shape[-1]
    return brought.with_names(tokens=read_token_names(name, data, vocabulary=vocabulary).names)


def _found(opened: dict[str, Opened]) -> Found:
    return find(
        {name: arrays for name, (arrays, _) in opened.items()}, tuple(m for _, maps in opened.values() for m in maps)
    )


def _served(text: Catalogue, key: str, folder: str) -> None:
    """Files in the operator's folder, by their names in it."""
    chosen = st.multiselect(
        text("page.validate.server"),
        listed(folder),
        format_func=lambda name: show(name),
        max_selections=3,
        accept_new_options=True,
        placeholder=text("page.validate.server_hint"),
        help=text("page.validate.server_help"),
        key=f"served.{key}",
    )
    if chosen and st.button(text("page.validate.server_read"), key=f"read.{key}", icon=":material/folder_open:"):
        _take(text, key, chosen, lambda: _opened(folder, chosen))


def _opened(folder: str, names: Sequence[str]) -> Found:
    """Files of the folder, and the descriptions of their rows that lie beside the first of them."""
    brought = _found({n: open_arrays(inside(folder, n), name=n) for n in names})
    beside = rows_path(names[0]).as_posix()
    if (Path(folder) / beside).is_file():
        brought = _named(brought, beside, read_bytes(inside(folder, beside)))
    return brought


def _take(text: Catalogue, key: str, names: Sequence[str], read: Callable[[], Found | TopKPair]) -> None:
    """Read files and keep what was found, or say why not."""
    try:
        with st.spinner(text("upload.reading")):
            brought = read()
    except GeomixError as error:
        _refuse(text, names, error)
        return
    if isinstance(brought, TopKPair):
        state.set_topk(brought)
    else:
        state.set_found(brought, names)
        if key == "policies" and brought.dataset is not None:
            state.show_row(UPLOAD, 0)
    st.rerun()


def _refuse(text: Catalogue, names: Sequence[str], error: GeomixError) -> None:
    shown = ", ".join(shell.plain(show(name)) for name in names)
    st.error(text("upload.rejected", name=shown, message=shell.message(text, error)), icon=":material/error:")


def _use_example() -> None:
    state.set_found(example(), ())
    state.set_flag("solving", True)


def _forget() -> None:
    state.set_found(None, ())
    state.set_topk(None)
    if state.scenario().source == UPLOAD:
        state.reset()
