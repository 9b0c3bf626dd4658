"""Top-k log-probabilities of two models: what they say of α_KL whatever the tail, and what they leave open."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from geomix_app import shell, state
from geomix_app.catalogue import Catalogue
from geomix_app.notation import number, percent
from geomix_app.views import uploads
from geomix_app.views.validation import MIME
from geomix_core.intervals import TABLE, solve_chunks
from geomix_core.result_files import EXTENSIONS, encode
from geomix_core.results import Columns
from geomix_core.tails import TailStatus
from geomix_core.topk_report import inspect_topk

SHOWN = 5_000
"""Rows of the table that go to the browser."""
ATTENTION = (
    TailStatus.INVALID, TailStatus.NOT_DETERMINED, TailStatus.INTERVAL, TailStatus.IDENTICAL, TailStatus.DETERMINED,
)  # fmt: skip
"""What is looked at first."""


def show(text: Catalogue, brought: state.TopK) -> None:
    """What is in the files, the intervals, and what to do where they determine nothing."""
    _solve(text, brought)
    table: Columns = {name: [x for chunk in brought.chunks for x in chunk[name]] for name in TABLE.columns}
    counts = Counter(table["status"])
    shell.answer(
        text("page.validate.tail_answer", determined=f"{counts['determined']:,}", rows=f"{len(table['row']):,}")
    )
    _found(text, brought)
    shown = [s for s in reversed(ATTENTION) if counts[s] or s != TailStatus.IDENTICAL]
    shell.numbers([(text(f"tail.{s}"), f"{counts[s]:,}", text(f"tail.{s}_says")) for s in shown])
    _problems(brought)
    enough = [k for k, s in zip(table["k_enough"], table["status"], strict=True) if k and s in ATTENTION[1:3]]
    if enough:
        st.markdown(text("page.validate.tail_enough", k=f"{int(np.median(enough)):,}"))
    _rows(text, table)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(text("page.validate.download"), width="content")
        for extension in EXTENSIONS:
            st.download_button(
                text(f"page.validate.download_{extension[1:]}"),
                partial(encode, extension, brought.chunks, TABLE),
                f"geomix_intervals{extension}",
                MIME[extension],
                on_click="ignore",
                icon=":material/download:",
                key=f"b.intervals{extension}",
            )


def _solve(text: Catalogue, brought: state.TopK) -> None:
    """All rows, once; a click starts again, since there is little to lose."""
    total = len(brought.pair.rows)
    if sum(len(chunk["row"]) for chunk in brought.chunks) == total:
        return
    chunks: list[Columns] = []
    bar = st.progress(0.0)
    for columns in solve_chunks(brought.pair):
        chunks.append(columns)
        done = columns["row"][-1] + 1
        bar.progress(done / total, text("page.validate.tail_solving", done=f"{done:,}", rows=f"{total:,}"))
    brought.chunks = chunks
    bar.empty()


def _found(text: Catalogue, brought: state.TopK) -> None:
    found = inspect_topk(brought.pair)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            text(
                "page.validate.tail_found",
                rows=f"{found.rows:,}",
                theta=uploads.name_of(found.theta.name),
                target=uploads.name_of(found.target.name),
                missing_theta=percent(found.theta.missing[0]),
                missing_target=percent(found.target.missing[0]),
                by=text(f"page.validate.by_{found.assigned_by}"),
            ),
            width="content",
        )
        uploads.replace_button(text, "validate")
    if found.negative:
        st.info(text("page.validate.tail_negative", count=f"{found.negative:,}"), icon=":material/lightbulb:")


def _problems(brought: state.TopK) -> None:
    counts = Counter(row.problem for row in brought.pair.rows if row.problem)
    st.markdown("\n".join(f"- **{count:,}** × {shell.plain(words)}" for words, count in counts.most_common(5)))


def _rows(text: Catalogue, table: Columns) -> None:
    """The intervals, what needs attention first."""
    rank = {str(status): i for i, status in enumerate(ATTENTION)}
    order = sorted(range(len(table["row"])), key=lambda i: (rank[table["status"][i]], i))[:SHOWN]
    columns: dict[str, list[Any]] = {
        "row": [table["row"][i] for i in order],
        "status": [text.plain(f"tail.{table['status'][i]}") for i in order],
        "alpha_kl": [_range(table, "alpha_kl", i) for i in order],
        "kl_theta_target": [_range(table, "kl_theta_target", i) for i in order],
        "kl_target_theta": [_range(table, "kl_target_theta", i) for i in order],
        "chernoff_information": [_range(table, "chernoff_information", i) for i in order],
    }
    tail = ("missing_theta", "missing_target", "k_theta", "k_target", "k_enough")
    columns |= {name: [table[name][i] for i in order] for name in tail}
    if any(table["problem"]):
        columns["problem"] = [table["problem"][i] for i in order]
    heads: dict[str, Any] = {name: text.plain(f"column.{name}") for name in columns}
    heads |= {name: st.column_config.NumberColumn(heads[name], format="percent") for name in tail[:2]}
    st.dataframe(
        pd.DataFrame(columns),
        hide_index=True,
        height=360,
        placeholder="—",
        key="intervals",
        column_config=heads,
    )
    if len(table["row"]) > SHOWN:
        st.caption(text("page.validate.table_cut", shown=f"{SHOWN:,}", rows=f"{len(table['row']):,}"))


def _range(table: Columns, name: str, i: int) -> str:
    low, high = table[f"{name}_low"][i], table[f"{name}_high"][i]
    return "—" if low is None or high is None else f"{number(low)} … {number(high)}"
