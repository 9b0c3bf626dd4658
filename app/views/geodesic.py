"""Parts of the Geodesic page."""

import numpy as np

from geomix_app import compute, shell
from geomix_app.figures import geodesic as figures
from geomix_app.notation import number, parameter
from geomix_app.shell import View
from geomix_app.views.policies import tokens
from geomix_core.curves import simplex_path
from geomix_core.summary import FamilyPoint

__all__ = ["answer", "ess_curve", "kl_plane", "log_partition_curve", "origins", "simplex", "tokens"]


def answer(view: View) -> str:
    """The page's answer in one sentence."""
    here = _here(view)
    return view.words(
        "answer",
        alpha=parameter(here.alpha),
        to_theta=number(here.kl_to_theta),
        to_target=number(here.kl_to_target),
        ess=number(100 * here.ess),
    )


def simplex(view: View) -> None:
    """The triangle with the three paths, for three tokens."""
    batch = view.row.batch
    paths = {name: simplex_path(batch, name) for name in ("m_geodesic", "fisher_rao", "e_geodesic")}
    ends = {"theta": batch.theta[0].exp().numpy(), "target": batch.target[0].exp().numpy()}
    here: np.ndarray = compute.mixture(batch, view.scenario.alpha)
    figure = figures.simplex(view.style, paths, ends, here, view.row.tokens)
    shell.figure(figure, "simplex", view.text.plain("figure.simplex.title"))


def kl_plane(view: View) -> None:
    """The plane of the two KLs with the three paths."""
    planes = compute.planes(view.row.key, view.row.batch)
    shell.figure(figures.kl_plane(view.style, planes, _here(view)), "plane", view.text.plain("figure.plane.title"))


def log_partition_curve(view: View) -> None:
    """log Z(α)."""
    _along(view, "log_partition")


def ess_curve(view: View) -> None:
    """Effective sample size along α."""
    _along(view, "ess")


def origins(view: View) -> None:
    """Where the document takes the family from (§4.2): geodesic, shortest path, Pareto front."""
    shell.verdicts(view, ("section_4_2_geodesic", "section_4_2_shortest", "section_4_2_pareto"), abreast=3)


def _here(view: View) -> FamilyPoint:
    point: FamilyPoint = compute.family_point(view.row.key, view.scenario.alpha, view.row.batch)
    return point


def _along(view: View, quantity: str) -> None:
    curves = compute.family(view.row.key, view.row.batch).curves
    figure = figures.along_alpha(view.style, curves, _here(view), quantity)
    shell.figure(figure, quantity, view.text(f"figure.{quantity}.title"))
