"""The Sampling lab's bench: what to measure, the guess, and the experiment that runs beside the page."""

from __future__ import annotations

import random
from dataclasses import dataclass

import streamlit as st

from geomix_app import compute, shell, snippets, state
from geomix_app.experiments import Experiment, Setup
from geomix_app.shell import View
from geomix_core.claims import Setting
from geomix_core.lab import (
    ESTIMATORS,
    PROPOSALS,
    SHARES,
    Plan,
    Problem,
    Proposal,
    Trial,
    attained,
)

BASELINE = "on_policy"
CHOSEN = ("kl_symmetry", "off_policy", "uniform", "optimum")
"""Distributions that are measured beside on-policy unless the reader chooses others."""
SIZES = (4, 16, 64, 256, 1024, 4096, 16384)
BUDGET = 4096
REPETITIONS = (50, 100, 200, 400, 800)
LOOK_EVERY = 0.6
"""Seconds between two looks at a running experiment."""
SKIPPED = "skipped"
CLAIMS = (
    "section_7_3_efficiency", "section_6_5_on_policy", "section_6_5_off_policy", "section_6_5_mixture",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bench:
    """What is to be measured, and what of it is."""

    experiment: Experiment
    problem: Problem
    proposals: tuple[Proposal, ...]
    sizes: tuple[int, ...]
    trials: tuple[Trial, ...]

    @property
    def complete(self) -> bool:
        """Whether all is measured."""
        return len(self.trials) == len(self.proposals) * len(self.sizes)

    @property
    def measured(self) -> tuple[int, ...]:
        """The N at which all distributions are measured."""
        return tuple(dict.fromkeys(t.samples for t in self.trials))


def require_distance(view: View) -> None:
    """End the page where there is nothing to gain."""
    if _problem(view).ceiling <= 0:
        st.info(view.words("nothing"), icon=":material/remove:")
        st.stop()


def controls(view: View) -> Bench:
    """Estimator, budget and distributions; what was measured with these stays."""
    left, middle, right = st.columns([6, 4, 2], gap="medium", vertical_alignment="bottom")
    estimator = left.segmented_control(
        view.words("estimator"),
        ESTIMATORS,
        format_func=lambda e: view.words(f"estimator_{e}"),
        required=True,
        help=view.words("estimator_help"),
        **state.bind_view("lab_estimator", "softmax_gradient"),
    )
    budget = middle.select_slider(
        view.words("budget"),
        SIZES[1:],
        format_func=lambda n: f"{n:,}",
        help=view.words("budget_help"),
        **state.bind_view("lab_budget", BUDGET),
    )
    with right.popover(view.words("more"), icon=":material/tune:", width="stretch"):
        repetitions = st.select_slider(
            view.words("repetitions"),
            REPETITIONS,
            help=view.words("repetitions_help"),
            **state.bind_view("lab_repetitions", 200),
        )
        seed = st.number_input(view.words("seed"), 0, 9999, step=1, **state.bind_view("lab_seed", 0))
    others = st.pills(
        view.words("distributions"),
        [name for name in PROPOSALS if name != BASELINE],
        selection_mode="multi",
        format_func=lambda name: view.text(f"lab.short_{name}"),
        help=view.words("distributions_help"),
        **state.bind_view("lab_names", list(CHOSEN)),
    )
    names = (BASELINE, *(name for name in PROPOSALS if name in others))
    found = compute.proposals(view.row.key, view.weights, names, view.scenario.alpha, view.row.batch)
    for name, reason in found.missing.items():
        why = f"claim.reason.{reason}" if f"claim.reason.{reason}" in view.text else f"status.{reason}"
        st.caption(f"{label(view, name)}: {view.text(why)}")
    setup = Setup(view.row.key, view.weights, Plan(estimator or ESTIMATORS[-1], repetitions, int(seed)))
    experiment = state.experiment(setup)
    sizes = tuple(n for n in SIZES if n <= budget)
    return Bench(experiment, _problem(view), found.found, sizes, experiment.trials(found.found, sizes))


def guess(view: View, bench: Bench) -> None:
    """Before the first result: which distribution will need the fewest samples?"""
    if guessed(view) is not None or bench.trials or bench.experiment.running:
        return
    names = [p.name for p in bench.proposals]
    random.Random(f"{view.row.key} {' '.join(names)}").shuffle(names)
    with st.container(border=True, key="question"):
        st.markdown(f":primary-badge[:material/psychology: {view.text('learn.asking.title')}] **{view.words('ask')}**")
        chosen = st.radio(
            view.words("ask"), names, index=None, format_func=lambda name: view.text(f"lab.{name}"),
            label_visibility="collapsed", horizontal=True, key="w.lab_guess",
        )  # fmt: skip
        with st.container(horizontal=True):
            st.button(
                view.words("measure"), on_click=_answer, args=(view, bench, chosen), disabled=chosen is None,
                type="primary", icon=":material/science:", key="b.lab_reveal",
            )  # fmt: skip
            st.button(
                view.words("skip"), on_click=_answer, args=(view, bench, SKIPPED), type="tertiary", key="b.lab_skip"
            )


def running(view: View, bench: Bench) -> None:
    """Where a running experiment stands, and a button that stops it; otherwise one that measures what is missing."""
    if bench.experiment.running:
        _progress(view, bench)
    elif not bench.complete and (bench.trials or guessed(view) is not None):
        done, wanted = bench.experiment.done(bench.proposals, bench.sizes), len(bench.proposals) * len(bench.sizes)
        st.button(
            view.words("resume" if done else "measure", done=str(done), all=str(wanted)),
            on_click=_start,
            args=(bench,),
            type="primary",
            icon=":material/play_arrow:",
            key="b.lab_run",
        )


@st.fragment(run_every=LOOK_EVERY)
def _progress(view: View, bench: Bench) -> None:
    """Looks at the experiment on its own; the page runs when an N is complete, and at the end."""
    experiment = bench.experiment
    if not experiment.running or len(experiment.trials(bench.proposals, bench.sizes)) > len(bench.trials):
        st.rerun()
    done, wanted = experiment.done(bench.proposals, bench.sizes), len(bench.proposals) * len(bench.sizes)
    bar, stop = st.columns([8, 1.6], vertical_alignment="center")
    bar.progress(done / wanted, view.words("measuring", done=str(done), all=str(wanted)))
    stop.button(view.words("stop"), on_click=experiment.stop, icon=":material/stop:", width="stretch", key="b.lab_stop")


def settings(bench: Bench) -> snippets.Lab:
    """What a script must do to measure the same."""
    names = tuple(p.name for p in bench.proposals)
    return snippets.Lab(names, bench.sizes, bench.experiment.setup.plan, goal_of(bench))


def verdicts(view: View) -> None:
    """§7.3, measured, and §6.5, by formula, on this row."""
    st.markdown(f"**{view.words('claims')}**")
    shell.verdicts(view, CLAIMS)
    st.caption(view.words("claims_note", samples=str(Setting().samples)))


def label(view: View, name: str) -> str:
    """A distribution with its symbol, in Markdown."""
    return view.text(f"lab.{name}")


def focus(bench: Bench) -> int:
    """The N looked at: the reader's, or the middle one measured."""
    wanted = state.view_setting("lab_here", 64)
    return int(wanted) if wanted in bench.measured else bench.measured[len(bench.measured) // 2]


def goal_key(bench: Bench) -> str:
    """Where the reader's goal is kept: one for each row and estimator."""
    return f"lab_goal.{bench.experiment.setup.plan.estimator}.{bench.experiment.setup.row}"


def goal_of(bench: Bench) -> float:
    """The share of KL(π_t‖π_θ) to reach: the reader's, or the largest that on-policy reached."""
    reached = attained(bench.trials) or SHARES[0]
    return float(state.view_setting(goal_key(bench), reached))


def _problem(view: View) -> Problem:
    found: Problem = compute.problem(view.row.key, view.weights, view.row.batch)
    return found


def guessed(view: View) -> str | None:
    """The reader's guess for these policies, or `SKIPPED`; None before."""
    given: str | None = state.view_setting(f"lab_guess.{view.row.key}", None)
    return given


def _answer(view: View, bench: Bench, given: str) -> None:
    state.set_view(f"lab_guess.{view.row.key}", given)
    _start(bench)


def _start(bench: Bench) -> None:
    bench.experiment.start(bench.problem, bench.proposals, bench.sizes)
