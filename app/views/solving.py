"""Solving all rows of what was brought: the options, the run with its progress, and how to stop and go on."""

from __future__ import annotations

import time

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from geomix_app import state
from geomix_app.catalogue import Catalogue
from geomix_app.notation import number
from geomix_core.datasets import Dataset
from geomix_core.errors import OptionError
from geomix_core.fixed_alpha import losses_of, sample_rows
from geomix_core.results import Plan, solve_chunks

OPTIONAL = ("snr", "wald")
"""Criteria that can be left out: α_KL is always solved, and its certificates with it."""
CHUNK_ELEMENTS = 1 << 21
"""Logits of each policy between two looks at the progress bar."""


def options(text: Catalogue) -> DeltaGenerator:
    """Where files and options are shown: open before rows are solved, folded away afterwards."""
    folded = bool(state.runs()) or state.flag("solving")
    return st.expander(
        text("page.validate.options"), icon=":material/tune:", expanded=not folded, key=f"options.{folded}"
    )


def plan(text: Catalogue, data: Dataset | None) -> Plan | None:
    """The options on screen; None where there is nothing to solve yet, or, with a word, where they are none."""
    if data is None:
        return None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        chosen = st.pills(
            text("page.validate.criteria"),
            OPTIONAL,
            selection_mode="multi",
            format_func=lambda c: text(f"page.validate.criterion_{c}"),
            **state.bind_view("criteria", list(OPTIONAL)),
        )
        low, high = (
            st.number_input(
                text(f"page.validate.eta_{end}"), min_value=1e-6, max_value=1e6, format="%g", width=110,
                disabled="wald" not in chosen, **state.bind_view(f"eta_{end}", default),
            )
            for end, default in (("low", 0.5), ("high", 2.0))
        )  # fmt: skip
        st.caption(text("page.validate.weights_note", weights=text.plain(f"weights.{state.weights()}")))
    criteria = ("kl_symmetry", *(c for c in OPTIONAL if c in chosen))
    try:
        return Plan(criteria, state.weights(), (float(low), float(high)), data.kind)
    except OptionError:
        st.error(text("page.validate.eta_bad"), icon=":material/error:")
        return None


def run(text: Catalogue, data: Dataset | None, chosen: Plan | None) -> state.Run | None:
    """What is solved under this plan so far; a button that starts or goes on; while rows are being solved, progress."""
    if data is None or chosen is None:
        return None
    found = state.run(chosen)
    left, solving = len(data) - found.done, state.flag("solving")
    if left:
        label = text(f"page.validate.{'resume' if found.done else 'solve'}", rows=f"{left:,}")
        with st.container(horizontal=True):
            st.button(label, type="primary", on_click=_start, disabled=solving, icon=":material/play_arrow:")
            if solving:
                st.button(text("page.validate.stop"), on_click=_stop, icon=":material/stop:")
    if solving:
        _solve(text, data, found)
        st.rerun()
    if left and found.done:
        words = text("page.validate.partial", done=f"{found.done:,}", rows=f"{len(data):,}")
        st.info(words, icon=":material/pause:")
    return found


def _start() -> None:
    state.set_flag("solving", True)


def _stop() -> None:
    state.set_flag("solving", False)


def _solve(text: Catalogue, data: Dataset, found: state.Run) -> None:
    """Chunk by chunk. Any click reruns the page, which ends this loop; the rows that are solved stay in `found`."""
    total, began, first = len(data), time.perf_counter(), found.done
    state.set_flag("solving", False)
    compared = sample_rows(total)
    bar = st.progress(first / total)
    for columns in solve_chunks(data.pair, found.plan, start=first, chunk_elements=CHUNK_ELEMENTS):
        rows = columns["row"]
        losses = losses_of(data, found.plan, columns, [i for i in compared if rows[0] <= i <= rows[-1]])
        # Together, so that a stop between them leaves no chunk without its losses.
        found.chunks.append(columns)
        found.losses.append(losses)
        rate = (found.done - first) / max(time.perf_counter() - began, 1e-9)
        bar.progress(
            found.done / total,
            text(
                "page.validate.solving",
                done=f"{found.done:,}",
                rows=f"{total:,}",
                rate=number(rate),
                left=_duration(text, (total - found.done) / rate),
            ),
        )


def _duration(text: Catalogue, seconds: float) -> str:
    if seconds < 90:
        return text("page.validate.seconds", count=f"{seconds:.0f}")
    return text("page.validate.minutes", count=f"{seconds / 60:.0f}")
