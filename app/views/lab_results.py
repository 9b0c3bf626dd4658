"""What the Sampling lab measured: the answer, the reply to a guess, curves, and the table of samples needed."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from geomix_app import shell, state
from geomix_app.figures import export
from geomix_app.figures import lab as figures
from geomix_app.notation import number, percent
from geomix_app.shell import View
from geomix_app.views.lab import BASELINE, SKIPPED, Bench, focus, goal_key, goal_of, guessed
from geomix_core.lab import SHARES, Efficiency, efficiency


def answer(view: View, bench: Bench) -> str:
    """What the measurement says, in one sentence; before it, what is asked."""
    if len(bench.measured) < 2:  # one N says nothing of how many are needed
        return view.text("page.lab.answer_before")
    goal = goal_of(bench)
    found = {e.proposal: e for e in efficiency(bench.trials, goal)}
    base, middle = found[BASELINE], found.get("kl_symmetry")
    between = _ends(base.reach.interval.low, base.reach.interval.high)
    first = view.text("page.lab.answer_on_policy", share=percent(goal, 0), needed=_needed(base), between=between)
    if middle is None:
        return first
    kind = middle.status if middle.status != "measured" else "fewer" if middle.factor >= 1 else "more"
    values = {"needed": _needed(middle), "factor": number(max(middle.factor, 1 / middle.factor), 2)}
    low, high = middle.interval.low, middle.interval.high
    if kind in ("more", "at_most"):
        low, high = 1 / high if high else math.inf, 1 / low if low else math.inf
    values |= {"low": number(low, 2), "high": number(high, 2)}
    clear = "" if middle.status == "undetermined" or 1 not in middle.interval else view.text("page.lab.answer_unclear")
    return f"{first} {view.text(f'page.lab.answer_{kind}', **values)} {clear}"


def reply(view: View, bench: Bench) -> None:
    """What is said to the reader's guess, once all is measured."""
    given = guessed(view)
    if not bench.complete or given in (None, SKIPPED) or given not in {p.name for p in bench.proposals}:
        return
    goal = goal_of(bench)
    arrived = [e for e in efficiency(bench.trials, goal) if e.reach.status != "not_reached"]
    said = f":gray[{view.text('learn.asking.your_answer', answer=view.text(f'lab.{given}'))}]"
    if not arrived:
        st.markdown(f"{said} {view.text('page.lab.nobody', share=percent(goal, 0))}")
        return
    best = min(arrived, key=lambda e: (e.reach.status != "at_once", e.reach.samples)).proposal
    mine = next(e for e in efficiency(bench.trials, goal, best) if e.proposal == given)
    tied = given == best or 1 in mine.interval
    badge = ("green", "check", "right") if tied else ("orange", "close", "wrong")
    about = next(p for p in bench.proposals if p.name == given)
    fewest = view.text("page.lab.fewest", name=view.text(f"lab.{best}"), share=percent(goal, 0))
    told = view.text("page.lab.tied") if tied and given != best else ""
    why = view.text(f"page.lab.about_{given}", weight=number(about.largest_weight), ess=percent(about.ess))
    learner = view.text(f"page.lab.why_{bench.experiment.setup.plan.estimator}")
    colour, icon, word = badge
    mark = f":{colour}-badge[:material/{icon}: {view.text(f'learn.asking.{word}')}]"
    st.markdown(" ".join(filter(None, (said, mark, fewest, told, why, learner))))


def curves(view: View, bench: Bench) -> None:
    """Progress against N, and beside it what each distribution closes at one N."""
    left, right = st.columns([7, 5], gap="medium")
    goal, here = goal_of(bench), focus(bench)
    with left:
        figure = figures.against_samples(view.style, bench.trials, goal, here)
        title = view.text.plain("figure.lab.title")
        shell.figure(figure, "lab", title, lambda: export.trials(bench.trials))
        if not bench.experiment.running:  # until then the goal moves with what is reached
            st.select_slider(
                view.text("page.lab.goal"),
                SHARES,
                format_func=lambda s: percent(s, 0),
                help=view.text("page.lab.goal_help"),
                **state.bind_view(goal_key(bench), goal),
            )
    with right:
        at = [t for t in bench.trials if t.samples == here]
        names = {t.proposal: view.text.html(f"lab.short_{t.proposal}") for t in at}
        figure = figures.closed(view.style, at, names)
        shell.figure(figure, "closed", view.text.plain("figure.closed.title", samples=f"{here:,}"))
        if len(bench.measured) > 1 and not bench.experiment.running:
            st.select_slider(
                view.text("page.lab.here"), bench.measured, format_func=lambda n: f"{n:,}",
                **state.bind_view("lab_here", here),
            )  # fmt: skip


def table(view: View, bench: Bench) -> None:
    """Samples needed, as a ratio to on-policy, with intervals; and how each behaves at the N looked at."""
    goal, here = goal_of(bench), focus(bench)
    st.markdown(f"**{view.text('page.lab.table', share=percent(goal, 0))}**")
    at = {t.proposal: t for t in bench.trials if t.samples == here}
    by_name = {p.name: p for p in bench.proposals}
    lines = []
    for e in efficiency(bench.trials, goal):
        trial, proposal = at[e.proposal], by_name[e.proposal]
        line = [
            view.text.plain(f"lab.short_{e.proposal}"),
            _needed(e),
            "—" if e.reach.status == "at_once" else f"{_ends(e.reach.interval.low, e.reach.interval.high)}",
            _factor(e),
            "—" if e.proposal == BASELINE else _ends(e.interval.low, e.interval.high),
            percent(trial.mean / trial.ceiling),
            percent(trial.away, 0),
            str(trial.diverged),
            percent(proposal.ess),
            number(proposal.largest_weight),
        ]
        lines.append(line)
    names = ("name", "needed", "needed_between", "factor", "factor_between")
    later = ("closed", "away", "diverged", "ess", "weight")
    heads = [view.text(f"page.lab.column_{n}") for n in names] + [
        view.text.plain(f"page.lab.column_{n}", samples=f"{here:,}") for n in later
    ]
    st.dataframe(pd.DataFrame(lines, columns=heads), hide_index=True, width="stretch")
    st.caption(view.text("page.lab.table_note", repetitions=str(bench.experiment.setup.plan.repetitions)))
    same = [p.name for p in bench.proposals if p.name != BASELINE and p.alpha == 1.0]
    for name in same:
        st.caption(view.text("page.lab.same", name=view.text(f"lab.{name}")))


def _needed(e: Efficiency) -> str:
    sign = {"reached": "", "not_reached": "> ", "at_once": "≤ "}[e.reach.status]
    return f"{sign}{e.reach.samples:,.0f}"


def _factor(e: Efficiency) -> str:
    if e.status == "undetermined":
        return "—"
    sign = {"measured": "", "at_least": "≥ ", "at_most": "≤ "}[e.status]
    return f"{sign}{number(e.factor)}"


def _ends(low: float, high: float) -> str:
    return f"{number(low)} – {number(high)}"
