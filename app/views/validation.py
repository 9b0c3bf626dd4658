"""What came of all rows: the answer, the counts, the comparison with a fixed α, the table, and what to take away."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import streamlit as st

from geomix_app import shell, state
from geomix_app.catalogue import Catalogue
from geomix_app.figures import export
from geomix_app.figures import rows as figures
from geomix_app.notation import number, parameter, percent
from geomix_app.scenario import REAL, UPLOAD
from geomix_app.views import uploads
from geomix_core.claims.rows import section_5_4_alpha_over_rows
from geomix_core.crosscheck import check_sample
from geomix_core.datasets import Dataset
from geomix_core.errors import GeomixError
from geomix_core.fixed_alpha import CHOICES, OWN, Losses, merged
from geomix_core.mixture_files import mixtures, rows_that_fit
from geomix_core.overview import (
    ANSWERED,
    CERTIFIED,
    Overview,
    answers,
    by_attention,
    groups,
    joined,
    overview,
    reasons,
)
from geomix_core.result_files import EXTENSIONS, encode
from geomix_core.results import Columns
from geomix_core.status import Status

SHOWN = 5_000
"""Rows of the table that go to the browser."""
COLUMN = {"kl_symmetry": "alpha_kl", "snr": "alpha_snr", "wald": "alpha_wald"}
_WIDTHS: dict[str, Literal["small", "medium", "large"] | int] = {
    "attention": 150,
    "prompt": "large",
    "problem": "large",
}
MIME = {".csv": "text/csv", ".json": "application/json", ".parquet": "application/vnd.apache.parquet"}
HIGH = 0.95


class Solved:
    """A run, put together once for the parts below."""

    def __init__(self, run: state.Run) -> None:
        self.plan = run.plan
        self.chunks = run.chunks
        self.table: Columns = joined(run.chunks)
        self.overview: Overview = overview(self.table)
        self.losses: Losses = merged(run.losses)

    def alphas(self) -> dict[str, np.ndarray]:
        """α of every row by the symbol of its criterion, NaN where there is none; criteria that have any."""
        found = {COLUMN[c]: answers(self.table, COLUMN[c]) for c in COLUMN if c in self.plan.criteria}
        return {name: x for name, x in found.items() if not np.isnan(x).all()}


def answer(text: Catalogue, solved: Solved) -> None:
    """The page's answer, with today's numbers."""
    found = solved.overview
    certified, rows = f"{found.groups['certified']:,}", f"{found.rows:,}"
    middle = found.quantile("alpha_kl", 0.5)
    if middle is None:
        st.warning(text("page.validate.nothing"))
        return
    if found.bound is None:
        said = [text("page.validate.answer_none", rows=rows, median=parameter(middle))]
    else:
        bound = number(found.bound, 1)
        said = [text("page.validate.answer", certified=certified, rows=rows, bound=bound, median=parameter(middle))]
    farther, lost = (solved.losses.quantile(criterion, "half") for criterion in ("kl_symmetry", "snr"))
    if farther is not None and lost is not None:
        said.append(text("page.validate.answer_both", farther=_share(text, farther), lost=_share(text, lost)))
    elif farther is not None:
        said.append(text("page.validate.answer_kl", farther=_share(text, farther)))
    shell.answer("  \n".join(said))


def counts(text: Catalogue, solved: Solved) -> None:
    """How many rows can be trusted, and in words why the others cannot."""
    found = solved.overview
    bound = "—" if found.bound is None else number(found.bound, 2)
    values = {
        "certified": found.groups["certified"],
        **({"loose": found.groups["loose"]} if found.groups["loose"] else {}),
        "degenerate": found.groups["degenerate"],
        "unanswered": found.groups["unanswered"],
        "refused": found.groups["refused"] + found.groups["unfinished"],
    }
    shell.numbers(
        [
            (
                text(f"page.validate.{name}"),
                f"{count:,}",
                text(f"page.validate.{name}_help", threshold=number(CERTIFIED, 1), bound=bound),
            )
            for name, count in values.items()
        ]
    )


def _outcomes(text: Catalogue, found: Overview) -> Iterator[str]:
    """What is wrong with refused rows, and every other status than the ordinary one, with the criteria that say it."""
    for words, count in list(found.problems.items())[:5]:
        yield f"- **{count:,}** × {shell.plain(words)}"
    said: dict[tuple[str, int], list[str]] = {}
    for column, key in (("status", "kl_statuses"), ("status_snr", "snr_statuses"), ("status_wald", "wald_statuses")):
        for status, count in found.statuses.get(column, {}).items():
            if status not in (Status.SOLVED, "invalid"):
                said.setdefault((status, count), []).append(text(f"page.validate.{key}"))
    for (status, count), criteria in said.items():
        yield f"- **{count:,}** × {text(f'status.{status}')} ({', '.join(criteria)})"


def distributions(text: Catalogue, solved: Solved) -> None:
    """Histograms of α*(x), and one criterion against another."""
    alphas = solved.alphas()
    if not alphas:
        return
    known = {name: x[~np.isnan(x)] for name, x in alphas.items()}
    left, right = st.columns(2, gap="medium")
    with left:
        shell.figure(
            figures.alpha_histograms(state.style(), known),
            "alpha_histogram",
            text.plain("figure.rows.title"),
            lambda: export.rows(solved.table),
        )
    with right:
        if {"alpha_kl", "alpha_snr"} <= alphas.keys():
            both = ~np.isnan(alphas["alpha_kl"]) & ~np.isnan(alphas["alpha_snr"])
            row = np.asarray(solved.table["row"])[both]
            shell.figure(
                figures.criteria(state.style(), alphas["alpha_kl"][both], alphas["alpha_snr"][both], row),
                "alpha_criteria",
                text.plain("figure.criteria.title"),
                lambda: export.rows(solved.table),
            )


def comparison(text: Catalogue, solved: Solved, rows: int) -> None:
    """What each choice of α loses in each criterion, and α against distance beside it."""
    left, right = st.columns([11, 9], gap="medium")
    with left:
        _losses(text, solved, rows)
    with right:
        distance = np.array([x if x else np.nan for x in solved.table["kl_target_theta"]], dtype=float)
        shown = np.isfinite(distance)
        alphas = {name: x[shown] for name, x in solved.alphas().items()}
        if shown.any() and alphas:
            shell.figure(
                figures.alpha_against_distance(
                    state.style(), distance[shown], alphas, np.asarray(solved.table["row"])[shown]
                ),
                "alpha_distance",
                text.plain("figure.scatter.title"),
                lambda: export.rows(solved.table),
            )


def _losses(text: Catalogue, solved: Solved, rows: int) -> None:
    losses, criteria = solved.losses, solved.plan.criteria
    if all(losses.quantile(c, "half") is None for c in criteria):
        return
    low, high = solved.plan.eta_range
    st.markdown(
        f"**{text('page.validate.fixed')}**", help=text("page.validate.loss_help", low=f"{low:g}", high=f"{high:g}")
    )
    lines = [
        "| " + " | ".join([text("page.validate.choice"), *(text(f"page.validate.loss_{c}") for c in criteria)]) + " |",
        "| --- |" + " ---: |" * len(criteria),
    ]
    for choice in CHOICES:
        cells = [_loss(text, losses, criterion, choice) for criterion in criteria]
        if any(cell != "—" for cell in cells):
            lines.append("| " + " | ".join([text(f"page.validate.choice_{choice}"), *cells]) + " |")
    st.markdown("\n".join(lines))
    count = max(losses.count(c, "half") for c in criteria)
    key = "fixed_sample" if len(losses.rows) < solved.overview.rows else "fixed_rows"
    st.caption(
        f"{text('page.validate.fixed_says')} {text(f'page.validate.{key}', count=f'{count:,}', rows=f'{rows:,}')}"
    )


def _loss(text: Catalogue, losses: Losses, criterion: str, choice: str) -> str:
    median, high = (losses.quantile(criterion, choice, level) for level in (0.5, HIGH))
    if median is None or high is None:
        return "—"
    if choice == OWN[criterion]:
        return "0"
    return f"**{_share(text, median)}**\u00a0({_share(text, high)})"


def _share(text: Catalogue, x: float) -> str:
    """A loss of more than ten times is no percentage any more. Nothing in it breaks a line."""
    if x >= 10:
        return text("page.validate.loss_times", value=number(x, 2)).replace(" ", "\u00a0")
    return percent(x, 0 if x >= 0.1 or x < 5e-4 else 1).replace(" ", "\u00a0")


def claim(text: Catalogue, solved: Solved) -> None:
    """What the document says of α_SNR and α_KL over rows, and what is so here."""
    agree = section_5_4_alpha_over_rows(solved.table)
    shell.verdict(text, agree, text("page.validate.agree", **shell.written(agree)) if agree.numbers else "")


def rows(text: Catalogue, data: Dataset, solved: Solved) -> None:
    """The table, rows that need attention first; chosen rows open in Explore, or leave their q*."""
    order = by_attention(solved.table)
    st.markdown("\n".join(_outcomes(text, solved.overview)))
    st.markdown(f"**{text('page.validate.table')}** · {text('page.validate.table_hint')}")
    table = _table(text, data, solved, order[:SHOWN])
    event = st.dataframe(
        table,
        hide_index=True,
        height=320,
        on_select="rerun",
        selection_mode="multi-row",
        key="rows",
        placeholder="—",
        column_config=_columns(text, table),
    )
    if len(order) > SHOWN:
        st.caption(text("page.validate.table_cut", shown=f"{SHOWN:,}", rows=f"{len(order):,}"))
    chosen = [order[i] for i in event.selection.rows if i < len(table)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if chosen:
            row = solved.table["row"][chosen[0]]
            if st.button(text("page.validate.open", row=row), type="primary", icon=":material/open_in_new:"):
                state.show_row(REAL if uploads.is_bundled(state.found()) else UPLOAD, row)
                st.switch_page(state.page("choosing"))
            _mixture(text, data, solved, chosen)


def _mixture(text: Catalogue, data: Dataset, solved: Solved, chosen: list[int]) -> None:
    """q* of the chosen rows as a file, at the α of one criterion."""
    names = list(solved.alphas())
    if not names:
        return
    by = st.segmented_control(
        text("page.validate.mixture_alpha"), names, default=names[0], format_func=lambda n: text(f"column.{n}"),
        required=True, key="mixture",
    )  # fmt: skip
    alpha = answers(solved.table, by or names[0])
    some = [i for i in chosen if not np.isnan(alpha[i])][: rows_that_fit(data)]
    if not some:
        st.caption(text("page.validate.mixture_none"))
        return
    st.download_button(
        text("page.validate.mixture", count=f"{len(some):,}"),
        lambda: mixtures(data, [solved.table["row"][i] for i in some], [float(alpha[i]) for i in some]),
        "geomix_q.safetensors",
        "application/octet-stream",
        on_click="ignore",
        help=text("page.validate.mixture_help", most=f"{rows_that_fit(data):,}"),
        icon=":material/download:",
        key="b.mixture",
    )


def take_away(text: Catalogue, data: Dataset, solved: Solved) -> None:
    """The whole table, by the writers of the command line; and a check by other code before one relies on it."""
    checked = False
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(text("page.validate.download"), width="content")
        for extension in EXTENSIONS:
            st.download_button(
                text(f"page.validate.download_{extension[1:]}"),
                partial(encode, extension, solved.chunks),
                f"geomix_alpha{extension}",
                MIME[extension],
                on_click="ignore",
                icon=":material/download:",
                key=f"b.table{extension}",
            )
        if solved.overview.answered:
            checked = st.button(text("page.validate.crosscheck"), icon=":material/rule:")
    if checked:
        _cross_check(text, data, solved)


def _cross_check(text: Catalogue, data: Dataset, solved: Solved) -> None:
    """Solve a random sample again with code that shares nothing with the solver, and show the worst difference."""
    try:
        found = check_sample(data, solved.table)
    except GeomixError as error:
        st.error(shell.message(text, error), icon=":material/error:")
        return
    st.success(
        text("page.validate.crosscheck_result", count=found.checked, worst=number(found.worst, 2), within=found.within),
        icon=":material/verified:",
    )


def _table(text: Catalogue, data: Dataset, solved: Solved, order: list[int]) -> pd.DataFrame:
    """The columns that a person reads, in the order of attention; statuses in words."""
    why = reasons(solved.table)
    names = ["row", "status", "alpha_kl", "bound", "kl_theta_target", "kl_target_theta", "chernoff_information"]
    for criterion, columns in {
        "snr": ["status_snr", "alpha_snr", "snr"],
        "wald": ["status_wald", "alpha_wald"],
    }.items():
        names += columns if criterion in solved.plan.criteria else []
    found: dict[str, list[Any]] = {
        "attention": [text.plain(f"page.validate.attention_{why[i]}") if why[i] else "" for i in order]
    }
    found |= {name: [solved.table[name][i] for i in order] for name in names}
    bounded = [group in ANSWERED for group in groups(solved.table)]
    found["bound"] = [solved.table["bound"][i] if bounded[i] else None for i in order]
    for name in ("status", "status_snr", "status_wald"):
        # Said where a row of the whole table is not simply solved.
        if name in found and all(word == Status.SOLVED for word in solved.table[name]):
            del found[name]
        elif name in found:
            found[name] = [text.plain(f"status_name.{s}") for s in found[name]]
    if data.prompts is not None:
        found["prompt"] = [data.prompts[solved.table["row"][i]].prompt for i in order]
    problems = [solved.table["problem"][i] for i in order]
    if any(problems):
        found["problem"] = problems
    if not any(found["attention"]):
        del found["attention"]
    return pd.DataFrame(found)


def _columns(text: Catalogue, frame: pd.DataFrame) -> dict[str, Any]:
    """Headings, and numbers to four decimals; bounds in scientific notation."""
    formats = dict.fromkeys(frame.select_dtypes("number").columns.drop("row"), "%.4f") | {"bound": "scientific"}
    return {
        name: st.column_config.NumberColumn(text.plain(f"column.{name}"), format=formats[name])
        if name in formats
        else st.column_config.Column(text.plain(f"column.{name}"), width=_WIDTHS.get(name))
        for name in frame.columns
    }
