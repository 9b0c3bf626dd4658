"""Parts of the Geodesic page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go

from geomix_app import compute, shell
from geomix_app.explorer.component import Parts, explorer
from geomix_app.figures import criteria, export
from geomix_app.figures import geodesic as figures
from geomix_app.notation import number, parameter
from geomix_app.shell import View
from geomix_app.views.policies import offer_tokens
from geomix_core.curves import FamilyCurves, simplex_path
from geomix_core.summary import FamilyPoint

LISTED = 11
"""Tokens that the page draws."""


def answer(view: View) -> str:
    """The page's answer in one sentence."""
    family = compute.family(view.row.key, view.row.batch)
    if family.alpha_kl is None:
        return view.words("answer_none", status=view.text(f"status.{family.kl.status[0]}"))
    return view.words("answer", alpha_kl=parameter(family.alpha_kl), chernoff=number(family.chernoff))


def between(view: View) -> None:
    """q on its way from π_t to π_θ: its tokens or its place in the simplex, and its distance to both ends."""
    numbers = ("delta", "log_partition", "ess") if view.pair.covered else ("delta", "log_partition")
    explorer(view, ("policies", "kls"), Parts(numbers=numbers, tokens=LISTED, below=40, marks=("alpha_kl",)))
    offer_tokens(view, ("theta", "q", "target"), LISTED)
    if view.row.batch.vocab_size == 3:
        _offer_simplex(view)
    offer_family(view)


def _offer_simplex(view: View) -> None:
    """The triangle with the three paths."""
    batch = view.row.batch

    def paths() -> dict[str, np.ndarray]:
        return {name: simplex_path(batch, name) for name in ("m_geodesic", "fisher_rao", "e_geodesic")}

    ends = {"theta": batch.theta[0].exp().numpy(), "target": batch.target[0].exp().numpy()}
    shell.offer(
        "simplex",
        view.text.plain("figure.simplex.title"),
        lambda: figures.simplex(
            view.style, paths(), ends, compute.mixture(batch, view.scenario.alpha), view.row.tokens
        ),
        lambda: export.simplex(paths()),
    )


def offer_family(view: View) -> None:
    """The curves along α that need no reward: both KLs, Δ, log Z."""
    key, batch, here = view.row.key, view.row.batch, view.scenario.alpha
    family = compute.family(key, batch)

    def crossing(curves: FamilyCurves) -> go.Figure:
        return criteria.crossing(view.style, curves, here, family.alpha_kl, family.chernoff)

    def delta(curves: FamilyCurves) -> go.Figure:
        return criteria.delta(view.style, curves, here, family.alpha_kl)

    def log_partition(curves: FamilyCurves) -> go.Figure:
        return criteria.log_partition(view.style, curves, here, family.alpha_kl)

    for draw in (crossing, delta, log_partition):
        title = view.text.plain(f"figure.{draw.__name__}.title")

        def figure(draw: Callable[[FamilyCurves], go.Figure] = draw) -> go.Figure:
            return draw(compute.family_curves(key, batch))

        shell.offer(draw.__name__, title, figure, lambda: export.curves(compute.family_curves(key, batch)))


def kl_plane(view: View) -> None:
    """The plane of the two KLs with the three paths."""
    planes = compute.planes(view.row.key, view.row.batch)
    figure = figures.kl_plane(view.style, planes, _here(view))
    shell.figure(figure, "plane", view.text.plain("figure.plane.title"), lambda: export.planes(planes))
    lengths = {name: number(path.length) for name, path in planes.items()}
    shell.said(view.words("says_plane", **lengths))


def origins(view: View) -> None:
    """Where the document takes the family from (§4.2): geodesic, shortest path, Pareto front."""
    shell.verdicts(view, ("section_4_2_geodesic", "section_4_2_shortest", "section_4_2_pareto"), abreast=1)


def _here(view: View) -> FamilyPoint:
    point: FamilyPoint = compute.family_point(view.row.key, view.scenario.alpha, view.row.batch)
    return point
