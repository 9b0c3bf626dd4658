"""Parts of the Learning progress page."""

from __future__ import annotations

from math import isfinite, isnan

from geomix_app import compute, shell
from geomix_app.explorer.component import Parts, explorer
from geomix_app.figures import export
from geomix_app.figures import progress as figures
from geomix_app.notation import number, percent
from geomix_app.shell import View
from geomix_core.curves import ExpansionError, StepCurves
from geomix_core.summary import LearningPoint


def answer(view: View) -> str:
    """The page's answer in one sentence: what one update can reach from three places."""
    key, batch, ceiling = view.row.key, view.row.batch, view.pair.kl_target_theta
    if ceiling == 0 or _point(view).phi1 == 0:
        return view.words("answer_zero")
    places = {"on_policy": 1.0, "kl": compute.family(key, batch).alpha_kl, "off_policy": 0.0}

    def reached(alpha: float | None) -> str:
        if alpha is None:
            return "—"
        found = compute.learning_point(key, alpha, view.weights, batch)
        return percent(found.exact_gain / ceiling) if isfinite(ceiling) else f"{number(found.exact_gain)} nat"

    shares = {name: reached(alpha) for name, alpha in places.items()}
    return view.words("answer" if isfinite(ceiling) else "answer_endless", ceiling=number(ceiling), **shares)


def slices(view: View) -> None:
    """Progress against η at this α, where η is dragged, and against α at this η."""
    explorer(view, ("progress", "slice"), Parts(numbers=("snr", "eta_star", "progress", "ess"), below=40))
    key, weights, batch, s = view.row.key, view.weights, view.row.batch, view.scenario
    ceiling = view.pair.kl_target_theta

    def steps() -> StepCurves:
        reach = compute.step_range(_point(view), s.eta)
        found: StepCurves = compute.step_curves(key, s.alpha, reach, weights, batch)
        return found

    def now() -> float:
        return float(compute.progress(key, s.alpha, s.eta, weights, batch))

    shell.offer(
        "step",
        view.text.plain("figure.step.title"),
        lambda: figures.against_step(view.style, steps(), _point(view), s.eta, now(), ceiling),
        lambda: export.curves(steps()),
    )
    shell.offer(
        "slice",
        view.text.plain("figure.slice.title"),
        lambda: figures.along_alpha(view.style, compute.slices(key, (s.eta,), weights, batch), s.alpha, now(), ceiling),
        lambda: export.along_alpha(compute.slices(key, (s.eta,), weights, batch)),
    )


def progress_map(view: View) -> None:
    """Exact progress over (α, η)."""
    s = view.scenario
    reach = compute.map_range(view.row.key, view.weights, s.eta, view.row.batch)
    grid = compute.progress_map(view.row.key, reach, view.weights, view.row.batch)
    figure = figures.progress_map(view.style, grid, s.alpha, s.eta, view.pair.kl_target_theta)
    shell.figure(figure, "map", view.text.plain("figure.map.title"), lambda: export.progress_map(grid))
    ends = {"target": grid.best_eta[0], "theta": grid.best_eta[-1]}
    if not any(isnan(eta) for eta in ends.values()):
        shell.said(view.words("says_map", **{name: number(float(eta)) for name, eta in ends.items()}))


def expansion_error(view: View) -> None:
    """The error of the expansion, log–log."""
    error = _error(view)
    figure = figures.expansion_error(view.style, error)
    shell.figure(figure, "error", view.text.plain("figure.error.title"), lambda: export.curves(error))
    slopes = (error.first_slope, error.second_slope)
    if not any(map(isnan, slopes)):
        shell.said(view.words("says_error", first=f"{slopes[0]:.2f}", second=f"{slopes[1]:.2f}"))


def progress_verdicts(view: View) -> None:
    """Theorems 1 and 2 at this α."""
    shell.verdicts(view, ("theorem_1", "theorem_2_step", "theorem_2_gain"), abreast=3)


def _point(view: View) -> LearningPoint:
    point: LearningPoint = compute.learning_point(view.row.key, view.scenario.alpha, view.weights, view.row.batch)
    return point


def _error(view: View) -> ExpansionError:
    # The expansion is in ηh, so the range of η that shows its order scales with the quadratic's own step.
    point = _point(view)
    step = abs(point.quadratic_step) or 1.0
    error: ExpansionError = compute.expansion_error(
        view.row.key, view.scenario.alpha, step, view.weights, view.row.batch
    )
    return error
