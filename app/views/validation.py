"""Parts of the Validate page: solve all rows with progress, summarise, check, download, open a row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from geomix_app import shell, state
from geomix_app.catalogue import Catalogue
from geomix_app.figures import export
from geomix_app.figures import rows as figures
from geomix_app.notation import number, parameter
from geomix_app.scenario import REAL, UPLOAD
from geomix_app.views.uploads import is_bundled
from geomix_core.claims.rows import section_5_4_alpha_from_reports
from geomix_core.crosscheck import CrossCheck
from geomix_core.crosscheck import cross_check as check_rows
from geomix_core.files import LogitPair
from geomix_core.reports import RowReport, solve_rows, summarise, to_csv
from geomix_core.status import Status

SAMPLE = 16
"""Rows that the cross-check solves again."""


def solve(text: Catalogue, pair: LogitPair) -> Sequence[RowReport]:
    """The solved rows; while they are being solved, progress with a stop button. A stopped run keeps what it has."""
    reports, rows = state.reports(), len(pair.theta)
    if state.flag("solving"):
        _run(text, pair, reports)
    if not reports:
        st.button(
            text("page.validate.solve", rows=f"{rows:,}"), type="primary", on_click=_start, icon=":material/play_arrow:"
        )
    elif len(reports) < rows:
        st.info(text("page.validate.partial", done=f"{len(reports):,}", rows=f"{rows:,}"))
        st.button(
            text("page.validate.solve", rows=f"{rows:,}"), type="primary", on_click=_start, icon=":material/play_arrow:"
        )
    return reports


def summary(text: Catalogue, reports: Sequence[RowReport]) -> None:
    """How many rows were solved, and where α_KL lies."""
    found = summarise(reports)
    low, middle, high = (found.alpha_kl.get(q) for q in (0.05, 0.5, 0.95))
    shell.numbers(
        [
            (text("page.validate.solved"), f"{found.solved:,} / {found.rows:,}", None),
            (text("page.validate.median"), "—" if middle is None else parameter(middle), None),
            (
                text("page.validate.spread"),
                "—" if low is None or high is None else f"{parameter(low)} – {parameter(high)}",
                None,
            ),
        ]
    )
    for name, counts in (("kl", found.status_kl), ("snr", found.status_snr)):
        for status, count in counts.items():
            if status != Status.SOLVED:
                st.caption(f"{text(f'page.validate.{name}_statuses')}: **{count:,}** × {text(f'status.{status}')}")
    if found.solved == 0:
        st.warning(text("page.validate.nothing"))
    agree = section_5_4_alpha_from_reports(reports)
    shell.verdict(text, agree, text("page.validate.agree", **shell.written(agree)) if agree.numbers else "")


def distributions(text: Catalogue, reports: Sequence[RowReport]) -> None:
    """Histogram of α*(x), and α*(x) against the distance of the row."""
    shown = [r for r in reports if r.alpha_kl is not None and r.alpha_snr is not None and r.kl_target_theta]
    if not shown:
        return
    alpha_kl, alpha_snr = [r.alpha_kl or 0.0 for r in shown], [r.alpha_snr or 0.0 for r in shown]
    left, right = st.columns(2, gap="medium")
    with left:
        shell.figure(
            figures.alpha_histogram(state.style(), alpha_kl, alpha_snr),
            "alpha_histogram",
            text.plain("figure.rows.title"),
            lambda: export.rows(shown),
        )
    with right:
        distance = [r.kl_target_theta or 0.0 for r in shown]
        shell.figure(
            figures.alpha_against_distance(state.style(), distance, alpha_kl, alpha_snr),
            "alpha_distance",
            text.plain("figure.scatter.title"),
            lambda: export.rows(shown),
        )


def rows(text: Catalogue, pair: LogitPair, reports: Sequence[RowReport]) -> None:
    """The table; a selected row opens in the Explore pages."""
    st.markdown(f"**{text('page.validate.table')}** · {text('page.validate.table_hint')}")
    table = _table(text, reports)
    event = st.dataframe(
        table,
        hide_index=True,
        height=300,
        on_select="rerun",
        selection_mode="single-row",
        key="rows",
        placeholder="—",
        column_config=_columns(text, table),
    )
    chosen = event.selection.rows
    with st.container(horizontal=True):
        if chosen:
            row = reports[chosen[0]].row
            if st.button(text("page.validate.open", row=row), type="primary", icon=":material/open_in_new:"):
                state.show_row(REAL if is_bundled(pair) else UPLOAD, row)
                st.switch_page(state.page("choosing"))
        st.download_button(
            text("page.validate.download"),
            lambda: to_csv(reports),
            "geomix_alpha.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
        )


def cross_check(text: Catalogue, pair: LogitPair, reports: Sequence[RowReport]) -> None:
    """Solve a random sample again with code that shares nothing with the solver, and show the worst difference."""
    solved = [r for r in reports if r.status_kl in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)]
    if solved and st.button(text("page.validate.crosscheck"), icon=":material/rule:"):
        found: CrossCheck = check_rows(
            pair.theta, pair.target, [r.alpha_kl or 0.0 for r in solved], [r.row for r in solved], sample=SAMPLE
        )
        st.success(
            text("page.validate.crosscheck_result", count=found.checked, worst=number(found.worst, 2)),
            icon=":material/verified:",
        )


def _start() -> None:
    state.clear_reports()
    state.set_flag("solving", True)


def _stop() -> None:
    state.set_flag("solving", False)


def _run(text: Catalogue, pair: LogitPair, reports: list[RowReport]) -> None:
    """Solve chunk by chunk. Any click reruns the page, which ends this loop and keeps the rows solved so far."""
    total, started = len(pair.theta), time.perf_counter()
    state.set_flag("solving", False)
    bar = st.progress(0.0)
    stop = st.empty()
    stop.button(text("page.validate.stop"), on_click=_stop, icon=":material/stop:")
    for chunk in solve_rows(pair.theta, pair.target, pair.reference, weights=state.weights()):
        reports.extend(chunk)
        rate = len(reports) / max(time.perf_counter() - started, 1e-9)
        bar.progress(
            len(reports) / total,
            text("page.validate.solving", done=f"{len(reports):,}", rows=f"{total:,}", rate=number(rate)),
        )
    bar.empty()
    stop.empty()


def _table(text: Catalogue, reports: Sequence[RowReport]) -> pd.DataFrame:
    names = [
        "row", "status_kl", "alpha_kl", "delta", "status_snr", "alpha_snr", "snr", "kl_target_theta", "chernoff", "ess",
        "problem",
    ]  # fmt: skip
    frame = pd.DataFrame([{name: getattr(r, name) for name in names} for r in reports])
    if not frame["problem"].any():
        frame = frame.drop(columns="problem")
    for status in ("status_kl", "status_snr"):
        frame[status] = [text.plain(f"status_name.{s}") for s in frame[status]]
    return frame


def _columns(text: Catalogue, frame: pd.DataFrame) -> dict[str, Any]:
    """Headings, and numbers to four decimals; the residual, which is rounding, in scientific notation."""
    formats = dict.fromkeys(frame.select_dtypes("number").columns.drop("row"), "%.4f") | {"delta": "scientific"}
    return {
        name: st.column_config.NumberColumn(text.plain(f"column.{name}"), format=formats[name])
        if name in formats
        else st.column_config.Column(text.plain(f"column.{name}"))
        for name in frame.columns
    }
