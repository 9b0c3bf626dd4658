"""Parts of the Choosing α page."""

from __future__ import annotations

import streamlit as st

from geomix_app import compute, shell
from geomix_app.explorer.component import Parts, explorer
from geomix_app.figures import criteria as figures
from geomix_app.figures import export, progress
from geomix_app.notation import number, parameter, percent
from geomix_app.shell import View
from geomix_app.views.geodesic import offer_family
from geomix_core.curves import SignalCurves


def answer(view: View) -> str:
    """The page's answer in one sentence."""
    family = compute.family(view.row.key, view.row.batch)
    if family.alpha_kl is None:
        return view.words("answer_none", status=view.text(f"status.{family.kl.status[0]}"))
    common = {"alpha_kl": parameter(family.alpha_kl), "chernoff": number(family.chernoff)}
    signal = _signal(view)
    status = signal.snr.status[0] if signal else "no_coverage"
    if signal is None or not signal.snr.maxima[0]:
        return view.words("answer_kl_only", **common, status=view.text(f"status.{status}"))
    choices = {c.name: c for c in compute.choices(view.row.key, view.weights, view.row.batch)}
    by_kl = choices["kl_symmetry"]
    return view.words(
        "answer",
        **common,
        alpha_snr=parameter(signal.snr.maxima[0][0].alpha),
        alpha_wald=parameter(choices["wald"].alpha) if "wald" in choices else "—",
        weights=view.text(f"weights.{view.weights}"),
        snr_share="—" if by_kl.snr_share is None else percent(by_kl.snr_share),
        gain_share="—" if by_kl.ceiling_share is None else percent(by_kl.ceiling_share),
    )


def criteria(view: View) -> None:
    """What each criterion looks at, what it chooses, and what every choice costs in the others' terms."""
    learning = ("snr", "worst") if view.pair.covered else ()
    # Where there is no coverage the notice and its button stand right below.
    below = 24 if view.pair.covered else 170
    explorer(view, ("delta", *learning), Parts(numbers=(), choices=True, below=below))
    offer_family(view)
    if not learning:
        return
    key, weights, batch = view.row.key, view.weights, view.row.batch
    maxima, alpha = compute.signal(key, weights, batch).snr.maxima[0], view.scenario.alpha
    shell.offer(
        "snr",
        view.text.plain("figure.snr.title"),
        lambda: figures.snr(view.style, _curves(view), alpha, maxima, view.pair.snr_ceiling),
        lambda: export.curves(_curves(view)),
    )
    shell.offer(
        "worst",
        view.text.plain("figure.worst.title"),
        lambda: progress.worst(
            view.style,
            compute.slices(key, compute.ETA_RANGE, weights, batch),
            alpha,
            compute.wald(key, weights, batch),
            view.pair.kl_target_theta,
        ),
        lambda: export.worst(compute.slices(key, compute.ETA_RANGE, weights, batch)),
    )


def signal_and_noise(view: View) -> None:
    """|Φ₁| and √Φ₂ along α."""
    curves = _curves(view)
    figure = figures.signal_and_noise(view.style, curves, view.scenario.alpha)
    shell.figure(figure, "signal", view.text.plain("figure.signal.title"), lambda: export.curves(curves))
    point = compute.learning_point(view.row.key, view.scenario.alpha, view.weights, view.row.batch)
    shell.said(
        view.words(
            "says_signal",
            alpha=parameter(point.alpha),
            phi1=number(abs(point.phi1)),
            noise=number(point.phi2**0.5),
            snr=number(abs(point.signed_snr)),
        )
    )


def snr_remarks(view: View) -> None:
    """Several maxima, or a negative signal at the best one: what the figure alone might not say."""
    signal = _signal(view)
    if signal is None:
        return
    maxima = signal.snr.maxima[0]
    if len(maxima) > 1:
        alphas = ", ".join(parameter(m.alpha) for m in maxima)
        st.info(view.words("maxima", count=str(len(maxima)), alphas=alphas), icon=":material/landscape:")
    if maxima and maxima[0].sign < 0:
        st.warning(view.words("negative"), icon=":material/trending_down:")


def choice_verdicts(view: View) -> None:
    """Theorem 4, §5.4, and whether the largest SNR is the robust choice, on this row."""
    shell.verdicts(view, ("theorem_4_exists", "theorem_4_unique"))
    if view.pair.covered:
        shell.verdicts(view, ("section_5_4_alpha", "section_5_4_snr", "theorem_3_minimax"), abreast=3)


def _curves(view: View) -> SignalCurves:
    curves: SignalCurves = compute.signal_curves(view.row.key, view.weights, view.row.batch)
    return curves


def _signal(view: View) -> compute.Signal | None:
    return compute.signal(view.row.key, view.weights, view.row.batch) if view.pair.covered else None
