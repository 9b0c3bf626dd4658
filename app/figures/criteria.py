"""How α is chosen: Δ and its root, the crossing KLs, log Z and its minimum, SNR and its maxima."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import HELPER, Style
from geomix_app.notation import SYMBOLS, number, parameter
from geomix_core.curves import FamilyCurves, SignalCurves
from geomix_core.solvers.maxima import LocalMaximum

HEIGHT = 400


def delta(style: Style, curves: FamilyCurves, here: float, alpha_kl: float | None) -> go.Figure:
    """Δ(α), strictly decreasing, with its root."""
    figure = style.figure(
        style.words("figure.delta.title"), style.words("axis.alpha"), style.words("axis.nats"), HEIGHT
    )
    figure.add_hline(y=0, line={"color": HELPER, "width": 1})
    style.curve(figure, curves.alpha, curves.delta, "delta")
    _finish(style, figure, here)
    if alpha_kl is not None:
        label = f"{SYMBOLS['alpha_kl'].html} = {parameter(alpha_kl)}"
        style.mark(figure, alpha_kl, 0.0, "alpha_kl", label=label, position="top right")
    return figure


def crossing(
    style: Style, curves: FamilyCurves, here: float, alpha_kl: float | None, chernoff: float | None
) -> go.Figure:
    """KL to each end along α: they cross at the Chernoff information."""
    figure = style.figure(
        style.words("figure.crossing.title"), style.words("axis.alpha"), style.words("axis.nats"), HEIGHT
    )
    for symbol in ("kl_to_theta", "kl_to_target"):
        style.curve(figure, curves.alpha, getattr(curves, symbol), symbol)
    top = max(curves.kl_to_theta[0], curves.kl_to_target[-1])
    style.label(figure, 0.02, curves.kl_to_theta[0], "kl_to_theta", xshift=22)
    style.label(figure, 0.98, curves.kl_to_target[-1], "kl_to_target", xanchor="right", xshift=-22)
    _finish(style, figure, here)
    if alpha_kl is not None and chernoff is not None:
        style.mark(figure, alpha_kl, chernoff, "alpha_kl")
        style.callout(figure, alpha_kl, chernoff, f"C = {number(chernoff)}", "alpha_kl", at=0.62 * top)
    figure.layout.yaxis.range = [-0.04 * top, 1.12 * top]
    return figure


def log_partition(style: Style, curves: FamilyCurves, here: float, alpha_kl: float | None) -> go.Figure:
    """log Z(α), convex, with its minimum at the same α."""
    figure = style.figure(
        style.words("figure.log_partition.title"), style.words("axis.alpha"), style.words("axis.nats"), HEIGHT
    )
    style.curve(figure, curves.alpha, curves.log_partition, "log_partition")
    _finish(style, figure, here)
    if alpha_kl is not None:
        low = float(np.interp(alpha_kl, curves.alpha, curves.log_partition))
        figure.layout.yaxis.range = [1.32 * low, -0.06 * low]
        style.mark(figure, alpha_kl, low, "alpha_kl", label=f"−C = {number(low)}", position="bottom center")
    return figure


def snr(style: Style, curves: SignalCurves, here: float, maxima: tuple[LocalMaximum, ...], ceiling: float) -> go.Figure:
    """SNR(α) with every local maximum and the ceiling √χ²; drawn dashed where Φ₁ < 0."""
    figure = style.figure(
        style.words("figure.snr.title"), style.words("axis.alpha"), style.words("figure.snr.y"), HEIGHT
    )
    size = np.abs(curves.signed_snr)
    positive, negative = np.where(curves.signed_snr >= 0, size, np.nan), np.where(curves.signed_snr < 0, size, np.nan)
    style.curve(figure, curves.alpha, positive, "snr")
    if np.isfinite(negative).any():
        style.curve(figure, curves.alpha, negative, "snr", name=style.words("figure.snr.negative"), width=1.5)
        figure.data[-1].line.dash = "dash"
        figure.data[-1].showlegend = True
        figure.data[0].showlegend = False
        figure.layout.showlegend = True
    top = float(np.nanmax(size)) if np.isfinite(size).any() else 1.0
    if np.isfinite(ceiling) and ceiling < 4 * top:
        figure.add_hline(y=ceiling, line={"color": style.colour("snr_ceiling"), "dash": "dot", "width": 1.5})
        # At the end away from the highest maximum, which has a label of its own.
        left = not maxima or maxima[0].alpha > 0.5
        at, anchor = (0.01, "left") if left else (0.99, "right")
        style.label(figure, at, ceiling, "snr_ceiling", xanchor=anchor, yanchor="bottom")
        top = max(top, ceiling)
    _finish(style, figure, here)
    for rank, peak in enumerate(maxima):
        label = f"{SYMBOLS['alpha_snr'].html} = {parameter(peak.alpha)}" if rank == 0 else parameter(peak.alpha)
        side = "left" if peak.alpha > 0.6 else "right" if peak.alpha < 0.4 else "center"
        shape = None if rank == 0 else "diamond-open"
        style.mark(figure, peak.alpha, peak.value, "alpha_snr", label=label, shape=shape, position=f"top {side}")
    figure.layout.yaxis.range = [-0.04 * top, 1.18 * top]
    return figure


def signal_and_noise(style: Style, curves: SignalCurves, here: float) -> go.Figure:
    """|Φ₁| and √Φ₂ along α on a log scale: SNR is the distance between them."""
    figure = style.figure(
        style.words("figure.signal.title"), style.words("axis.alpha"), style.words("figure.signal.y"), HEIGHT
    )
    for symbol, values in (("phi1", np.abs(curves.phi1)), ("phi2", np.sqrt(curves.phi2))):
        shown = np.where((values > 0) & np.isfinite(values), values, np.nan)
        style.curve(figure, curves.alpha, shown, symbol, name=SYMBOLS[symbol].html)
    # Each beside the end of its curve, on the side away from the other's.
    ends = {"phi1": float(np.abs(curves.phi1[-1])), "phi2": float(np.sqrt(curves.phi2[-1]))}
    lower = min(ends, key=lambda s: ends[s])
    for symbol, end in ends.items():
        if 0 < end < np.inf:
            anchor = "top" if symbol == lower else "bottom"
            shift = -4 if symbol == lower else 4
            style.label(figure, 1.0, float(np.log10(end)), symbol, xanchor="right", yanchor=anchor, yshift=shift)
    style.log_axis(figure.layout.yaxis, np.concatenate([np.abs(curves.phi1), np.sqrt(curves.phi2)]))
    _finish(style, figure, here)
    return figure


def _finish(style: Style, figure: go.Figure, here: float) -> None:
    style.here(figure, here)
    figure.layout.xaxis.range = [-0.02, 1.02]
