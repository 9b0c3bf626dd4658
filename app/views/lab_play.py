"""One repetition of the Sampling lab, played sample by sample: what was drawn, and how the policy moved."""

from __future__ import annotations

import html

import numpy as np
import streamlit as st

from geomix_app import shell, state
from geomix_app.figures import export
from geomix_app.figures import lab as figures
from geomix_app.figures.tokens import token_label
from geomix_app.notation import percent
from geomix_app.shell import View
from geomix_app.views.lab import Bench, focus, label
from geomix_core.lab import Played, Trial, play

LONGEST = 256
"""The largest N that is played."""


def show(view: View, bench: Bench) -> None:
    """The choice of a repetition, then the two figures, in a fragment of their own: stepping runs nothing else."""
    st.markdown(f"**{view.text('page.lab.play')}**")
    _play(view, bench)


@st.fragment
def _play(view: View, bench: Bench) -> None:
    sizes = [n for n in bench.measured if n <= LONGEST]
    samples = focus(bench) if focus(bench) in sizes else sizes[-1]
    plan = bench.experiment.setup.plan
    left, middle, right = st.columns([4, 2, 5], gap="medium", vertical_alignment="bottom")
    names = [p.name for p in bench.proposals]
    default = "kl_symmetry" if "kl_symmetry" in names else names[0]
    kept = state.view_setting("lab_played", default)
    name = left.selectbox(
        view.text("page.lab.of"), names, format_func=lambda n: view.text.plain(f"lab.{n}"),
        **state.bind_view("lab_played", kept if kept in names else default),
    )  # fmt: skip
    repetition = middle.number_input(
        view.text("page.lab.repetition", count=str(plan.repetitions)), 1, plan.repetitions, step=1,
        **state.bind_view("lab_repetition", 1),
    )  # fmt: skip
    at = right.slider(
        view.text("page.lab.sample", samples=f"{samples:,}"),
        0,
        samples,
        **state.bind_view(f"lab_at.{samples}", samples),
    )
    proposal = next(p for p in bench.proposals if p.name == name)
    trial = next(t for t in bench.trials if t.proposal == name and t.samples == samples)
    played = play(bench.problem, proposal, samples, plan, trial.step, int(repetition) - 1)
    _figures(view, bench, played, trial, at)


def _figures(view: View, bench: Bench, played: Played, trial: Trial, at: int) -> None:
    tokens = view.row.tokens
    target = bench.problem.log_target.exp().cpu().numpy()[played.watched]
    labels = [tokens[i] for i in played.watched]
    left, right = st.columns([7, 5], gap="medium")
    with left:
        figure = figures.tokens_moved(view.style, played, at, labels, target, trial.proposal)
        title = view.text.plain("figure.moved.title")
        shell.figure(figure, "moved", title, lambda: export.moved(played, at, labels, target))
    with right:
        figure = figures.sample_by_sample(view.style, played, at, trial.ceiling, trial.proposal)
        title = view.text.plain("figure.path.title")
        shell.figure(figure, "path", title, lambda: export.played(played, trial.ceiling))
    values = {
        "name": label(view, trial.proposal),
        "samples": f"{trial.samples:,}",
        "end": percent(float(played.progress[-1]) / trial.ceiling),
        "mean": percent(trial.mean / trial.ceiling),
        "distinct": f"{len(np.unique(played.token)):,}",
    }
    if at:
        last = shell.plain(html.unescape(token_label(tokens[played.token[at - 1]])))
        share = percent(float(played.progress[at]) / trial.ceiling)
        shell.said(view.text("page.lab.says_sample", at=str(at), token=last, share=share, **values))
    else:
        shell.said(view.text("page.lab.says_start", **values))
