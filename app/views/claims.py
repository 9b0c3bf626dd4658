"""Parts of the Claims page: the ledger of the document's claims, and one of them opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from geomix_app import compute, shell, state
from geomix_app.learn.steps import STEPS
from geomix_app.notation import number, percent
from geomix_app.shell import View
from geomix_app.views import breaking
from geomix_core.claims import CLAIMS, Outcome, Setting, Verdict
from geomix_core.claims.ledger import GROUPS, Record, Share
from geomix_core.claims.ledger import ledger as known
from geomix_core.claims.study import CITED, findings

_LEDGER = "ledger"
FILTERS = ("all", "holds", "fails", "depends")
_CLAIM, _OWN, _STEP, _FILTER, _PART = "claim", "own", "step", "claims_filter", "claims_part"
_HEIGHT = 560
_PARTS = tuple(str(part) for part in range(2, 8))


def answer(view: View) -> str:
    """How the claims stand, in one sentence."""
    outcomes = [v.outcome for v in _verdicts(view).values()]
    counts = {str(o): str(outcomes.count(o)) for o in Outcome}
    return view.words("answer", count=str(len(outcomes)), **counts)


def tabs(view: View) -> Sequence[DeltaGenerator]:
    """The document's claims, and one's own; a link to a statement opens the second."""
    labels = [view.words("document"), view.words("own")]
    linked = state.view_setting(_OWN, "") and not state.view_setting(_CLAIM, "")
    return st.tabs(labels, default=labels[1] if linked else labels[0])


def ledger(view: View) -> str:
    """The list, a line a claim, that filters shorten; returns the claim that is opened."""
    shown = _filtered(view)
    chosen: str = state.view_setting(_CLAIM, "")
    if chosen not in CLAIMS:
        if chosen:
            st.warning(view.words("unknown", name=shell.plain(chosen)), icon=":material/link_off:")
        failing = [n for n in shown if _verdicts(view)[n].outcome is Outcome.FAILS]
        chosen = next(iter(failing or shown), next(iter(CLAIMS)))
    if not shown:
        st.info(view.words("none"))
        return chosen
    key = f"ledger.{'.'.join(shown)}.{view.text.language}"
    # The table's own toolbar would cover the filters as long as a claim is selected, which is always.
    st.html(f"<style>.st-key-{_LEDGER} [data-testid='stElementToolbar'] {{display: none}}</style>")
    st.container(key=_LEDGER).dataframe(
        _table(view, shown),
        hide_index=True,
        height=min(_HEIGHT, 38 + 35 * len(shown)),
        key=key,
        on_select=state.on_row(key, _CLAIM, shown),
        selection_mode="single-cell",
        selection_default={"selection": {"cells": [(shown.index(chosen), "says")]}} if chosen in shown else None,
        placeholder="—",
        column_config=_columns(view),
    )
    depends = state.view_setting(_FILTER, "") == "depends"
    values = {"rows": f"{known().rows:,}", "weights": view.text(f"weights.{view.weights}")}
    st.caption(view.words("hint_depends" if depends else "hint", **values))
    return chosen


def opened(view: View, name: str) -> None:
    """One claim: the verdict, how often it holds, and what breaks it."""
    shell.verdict(view.text, _verdicts(view)[name])
    _step(view, name)
    record = known().of(name, view.weights)
    if CLAIMS[name].measure is None:
        return
    _counterexample(view, name, record)
    _study(view, name)
    _census(view, name, record)


def _verdicts(view: View) -> dict[str, Verdict]:
    return compute.verdicts(Setting(weights=view.weights, alpha=view.scenario.alpha), view.row)


def _part(view: View, name: str) -> str:
    """The part of the document that a claim stands in: that of the first section it names."""
    section = re.search(r"§(\d)", view.text.plain(f"claim.{name}.where"))
    return section[1] if section else ""


def _filtered(view: View) -> list[str]:
    left, right = st.columns([5, 3], gap="small", vertical_alignment="center")
    how = left.segmented_control(
        view.words("filter"),
        FILTERS,
        format_func=lambda f: view.words(f"filter_{f}"),
        label_visibility="collapsed",
        required=True,
        **state.bind_view(_FILTER, FILTERS[0]),
    )
    part = right.selectbox(
        view.words("part"),
        ("", *_PARTS),
        format_func=lambda p: f"{p} · {view.text.plain(f'learn.part.part_{p}')}" if p else view.words("every_part"),
        label_visibility="collapsed",
        **state.bind_view(_PART, ""),
    )

    def passes(name: str, found: Verdict) -> bool:
        if how == "depends":
            return known().of(name, view.weights).total.depends
        return how == "all" or str(found.outcome) == how

    return [n for n, v in _verdicts(view).items() if passes(n, v) and part in ("", _part(view, n))]


def _table(view: View, names: Sequence[str]) -> pd.DataFrame:
    verdicts = _verdicts(view)
    totals = [known().of(name, view.weights).total for name in names]
    return pd.DataFrame(
        {
            "where": [view.text.plain(f"claim.{name}.where") for name in names],
            "says": [view.text.plain(f"claim.{name}.says") for name in names],
            "here": [[view.words(f"here_{verdicts[name].outcome}")] for name in names],
            "share": [None if t.rate is None else 100 * t.rate for t in totals],
        }
    ).astype({"share": "float64"})


def _columns(view: View) -> dict[str, Any]:
    outcomes = (Outcome.HOLDS, Outcome.FAILS, Outcome.DOES_NOT_APPLY)
    config = st.column_config
    return {
        "where": config.TextColumn(view.words("column_where"), width=112),
        "says": config.TextColumn(view.words("column_says"), width=270),
        "here": config.MultiselectColumn(
            view.words("column_here"),
            width=80,
            options=[view.words(f"here_{o}") for o in outcomes],
            color=[shell.BADGES[o][0] for o in outcomes],
        ),
        "share": config.ProgressColumn(
            view.words("column_share"),
            help=view.words("share_help"),
            width=118,
            min_value=0,
            max_value=100,
            format="%.0f %%",
        ),
    }


def _step(view: View, name: str) -> None:
    """The way to the step of the derivation that makes the claim."""
    step = next((step.name for step in STEPS if name in step.claims), None)
    if step is None:
        return
    label = view.words("step", step=view.text(f"learn.{step}.title"))
    if st.button(label, icon=":material/school:", type="tertiary", key=f"b.step.{name}"):
        state.set_view(_STEP, step)
        st.switch_page(state.page("derivation"))


def _census(view: View, name: str, record: Record) -> None:
    st.markdown(f"**{view.words('census')}** · {view.words('census_of', rows=f'{known().rows:,}')}")
    shares = [(view.words(f"group_{g}"), record.groups[g]) for g in GROUPS if g in record.groups]
    shares.append((view.words("group_all"), record.total))
    if record.assumed is not None:
        shares.append((view.words("group_assumed"), record.assumed))
    head = " | ".join(view.words(f"census_{column}") for column in ("kind", "held", "interval", "rows"))
    lines = [f"| {head} |", "|---|---:|:---:|---:|", *(_line(label, share) for label, share in shares)]
    st.markdown("\n".join(lines))


def _study(view: View, name: str) -> None:
    """What the sampling lab measured over many rows, for a claim on sampling; and the way to the lab."""
    if name not in CITED:
        return
    proposal = CITED[name]
    st.markdown(f"**{view.words('study')}** · {view.words('study_of', q=view.text(f'lab.{proposal}'))}")
    head = " | ".join(view.words(f"study_{column}") for column in ("estimator", "ratio", "fewer", "more"))
    lines = [f"| {head} |", "|---|:---:|---:|---:|"]
    for found in findings()[proposal]:
        ratio = f"{number(found.median, 2)} [{number(found.low, 2)}, {number(found.high, 2)}]"
        of = view.text(f"page.lab.estimator_{found.estimator}")
        lines.append(f"| {of} | {ratio} | {found.fewer} / {found.rows} | {found.more} / {found.rows} |")
    st.markdown("\n".join(lines))
    st.page_link(state.page("lab"), label=view.words("study_lab"), icon=":material/science:")


def _line(label: str, share: Share) -> str:
    if share.rate is None:
        return f"| {label} | — | — | {share.decided} |"
    low, high = share.interval
    # No line breaks within a number.
    cells = (percent(share.rate), f"{100 * low:.1f}–{percent(high)}", f"{share.decided:,}")
    return f"| {label} | {' | '.join(cells)} |".replace(" %", "\u00a0%")


def _counterexample(view: View, name: str, record: Record) -> None:
    """What the search just run found, or else what the census knows; and the search."""
    claim = CLAIMS[name]
    live = breaking.found(breaking.latest(view, claim, name))
    shown, heading = live or _known(view, name, record), view.words("smallest" if live is None else "broken")
    if shown is None:
        st.markdown(f"**{view.words('standing')}** · {view.words('standing_about', tried=f'{record.tried:,}')}")
    else:
        tried = view.words("tried", tried=f"{shown.tried:,}")
        st.markdown(f"**{heading}** ({tried}) · {view.text(f'claim.{name}.fails', **shell.written(shown.verdict))}")
    breaking.show(view, claim, name, shown)
    if shown is not None and claim.quantifier == "most":
        st.caption(view.words("most"))


def _known(view: View, name: str, record: Record) -> breaking.Counterexample | None:
    table, verdict = record.counterexample, compute.known_counterexample(name, view.weights)
    if table is None or verdict is None:
        return None
    return breaking.Counterexample(table, verdict, record.setting, record.tried)
