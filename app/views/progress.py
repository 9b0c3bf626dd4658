"""Parts of the Learning progress page."""

from geomix_app import compute, shell
from geomix_app.figures import progress as figures
from geomix_app.notation import number, parameter, percent
from geomix_app.shell import View
from geomix_core.curves import ExpansionError
from geomix_core.summary import LearningPoint


def answer(view: View) -> str:
    """The page's answer in one sentence."""
    point, now, ceiling = _point(view), _now(view), view.pair.kl_target_theta
    if point.phi1 == 0:
        return view.words("answer_zero")
    share = now / ceiling
    return view.words(
        "answer" if now >= 0 else "answer_harm",
        eta=number(view.scenario.eta),
        alpha=parameter(view.scenario.alpha),
        progress=number(abs(now)),
        share=percent(share),
        exact=number(point.exact_step),
        quadratic=number(point.quadratic_step),
    )


def eta_marks(view: View) -> dict[str, float]:
    """Where the η buttons go."""
    point = _point(view)
    return {"snap_eta_exact": point.exact_step, "snap_eta_star": point.quadratic_step}


def against_step(view: View) -> None:
    """Progress against η: exact, first and second order, with both optima and the ceiling."""
    point, s = _point(view), view.scenario
    curves = compute.step_curves(view.row.key, s.alpha, compute.step_range(point, s.eta), view.weights, view.row.batch)
    figure = figures.against_step(view.style, curves, point, s.eta, _now(view), view.pair.kl_target_theta)
    shell.figure(figure, "step", view.text.plain("figure.step.title"))


def progress_map(view: View) -> None:
    """Exact progress over (α, η)."""
    s = view.scenario
    reach = compute.map_range(view.row.key, view.weights, s.eta, view.row.batch)
    grid = compute.progress_map(view.row.key, reach, view.weights, view.row.batch)
    figure = figures.progress_map(view.style, grid, s.alpha, s.eta, view.pair.kl_target_theta)
    shell.figure(figure, "map", view.text.plain("figure.map.title"))


def progress_numbers(view: View) -> None:
    """Φ₁, Φ₂, SNR and the two best steps."""
    point, words = _point(view), view.words
    shell.numbers(
        [
            (words("phi1"), number(point.phi1), None),
            (words("phi2"), number(point.phi2), None),
            (words("snr"), number(point.signed_snr), None),
            (words("eta_star"), number(point.quadratic_step), None),
            (words("eta_exact"), number(point.exact_step), None),
            (words("step_now"), number(_now(view)), None),
            (words("ceiling"), number(view.pair.kl_target_theta), None),
        ]
    )


def expansion_error(view: View) -> None:
    """The error of the expansion, log–log."""
    shell.figure(figures.expansion_error(view.style, _error(view)), "error", view.text.plain("figure.error.title"))


def progress_verdicts(view: View) -> None:
    """Theorems 1 and 2 at this α."""
    shell.verdicts(view, ("theorem_1",), abreast=1)
    shell.verdicts(view, ("theorem_2_step", "theorem_2_gain"))


def _point(view: View) -> LearningPoint:
    point: LearningPoint = compute.learning_point(view.row.key, view.scenario.alpha, view.weights, view.row.batch)
    return point


def _now(view: View) -> float:
    s = view.scenario
    return float(compute.progress(view.row.key, s.alpha, s.eta, view.weights, view.row.batch))


def _error(view: View) -> ExpansionError:
    # The expansion is in ηh, so the range of η that shows its order scales with the quadratic's own step.
    point = _point(view)
    step = abs(point.quadratic_step) or 1.0
    error: ExpansionError = compute.expansion_error(
        view.row.key, view.scenario.alpha, step, view.weights, view.row.batch
    )
    return error
