"""Parts of the Choosing α page."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from geomix_app import compute, shell
from geomix_app.figures import criteria as figures
from geomix_app.notation import number, parameter, percent
from geomix_app.shell import View
from geomix_core.curves import SignalCurves


def answer(view: View) -> str:
    """The page's answer in one sentence."""
    family = _family(view)
    if family.alpha_kl is None:
        return view.words("answer_none", status=view.text(f"status.{family.kl.status[0]}"))
    common = {"alpha_kl": parameter(family.alpha_kl), "chernoff": number(family.chernoff)}
    signal = _signal(view)
    status = signal.snr.status[0] if signal else "no_coverage"
    if signal is None or not signal.snr.maxima[0]:
        return view.words("answer_kl_only", **common, status=view.text(f"status.{status}"))
    best = parameter(signal.snr.maxima[0][0].alpha)
    return view.words("answer", **common, alpha_snr=best, weights=view.text(f"weights.{view.weights}"))


def delta(view: View) -> None:
    """Δ(α) with its root."""
    family = _family(view)
    figure = figures.delta(view.style, family.curves, view.scenario.alpha, family.alpha_kl)
    shell.figure(figure, "delta", view.text.plain("figure.delta.title"))


def crossing(view: View) -> None:
    """The two KLs, crossing at the Chernoff information."""
    family = _family(view)
    figure = figures.crossing(view.style, family.curves, view.scenario.alpha, family.alpha_kl, family.chernoff)
    shell.figure(figure, "crossing", view.text.plain("figure.crossing.title"))


def log_partition_minimum(view: View) -> None:
    """log Z(α) with its minimum −C."""
    family = _family(view)
    figure = figures.log_partition(view.style, family.curves, view.scenario.alpha, family.alpha_kl)
    shell.figure(figure, "log_partition", view.text.plain("figure.log_partition.title"))


def snr(view: View) -> None:
    """SNR(α) with every local maximum."""
    signal = _signal(view)
    if signal is not None:
        figure = figures.snr(
            view.style, _curves(view), view.scenario.alpha, signal.snr.maxima[0], view.pair.snr_ceiling
        )
        shell.figure(figure, "snr", view.text.plain("figure.snr.title"))


def signal_and_noise(view: View) -> None:
    """|Φ₁| and √Φ₂ along α."""
    figure = figures.signal_and_noise(view.style, _curves(view), view.scenario.alpha)
    shell.figure(figure, "signal", view.text.plain("figure.signal.title"))


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


def choices(view: View) -> None:
    """The table of criteria and what each costs in the others' terms."""
    words = view.words
    st.markdown(f"**{words('table')}**")
    now = compute.choice(view.row.key, "current", view.scenario.alpha, view.weights, view.row.batch)
    rows = [*compute.choices(view.row.key, view.weights, view.row.batch), now]

    def optional(value: float | None, write: Callable[[float], str] = number) -> str:
        return "—" if value is None else write(value)

    names = {"snr": "snr_row"}
    table = pd.DataFrame(
        {
            words("criterion"): [words(names.get(c.name, c.name)) for c in rows],
            words("alpha"): [parameter(c.alpha) for c in rows],
            words("kl_to_theta"): [number(c.kl_to_theta) for c in rows],
            words("kl_to_target"): [number(c.kl_to_target) for c in rows],
            words("ess"): [percent(c.ess) for c in rows],
            words("snr"): [optional(c.snr) for c in rows],
            words("snr_share"): [optional(c.snr_share, percent) for c in rows],
            words("best_progress"): [optional(c.best_progress) for c in rows],
            words("ceiling_share"): [optional(c.ceiling_share, percent) for c in rows],
        }
    )
    st.table(table.set_index(words("criterion")))


def choice_verdicts(view: View) -> None:
    """Theorem 4, §5.4, and whether the largest SNR is the robust choice, on this row."""
    shell.verdicts(view, ("theorem_4_exists", "theorem_4_unique"))
    if view.pair.covered:
        shell.verdicts(view, ("section_5_4_alpha", "section_5_4_snr", "theorem_3_minimax"), abreast=3)


def _family(view: View) -> compute.Family:
    family: compute.Family = compute.family(view.row.key, view.row.batch)
    return family


def _curves(view: View) -> SignalCurves:
    curves: SignalCurves = compute.signal_curves(view.row.key, view.weights, view.row.batch)
    return curves


def _signal(view: View) -> compute.Signal | None:
    return compute.signal(view.row.key, view.weights, view.row.batch) if view.pair.covered else None
