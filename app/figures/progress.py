"""Progress against η: exact beside its expansion, the expansion's error, and the map over (α, η)."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.export import Slices
from geomix_app.figures.style import HELPER, TICK, Style
from geomix_app.notation import SYMBOLS, number, parameter, percent
from geomix_core.criteria import AlphaResult
from geomix_core.curves import ExpansionError, ProgressMap, StepCurves
from geomix_core.summary import LearningPoint

HEIGHT = 420


def against_step(
    style: Style, curves: StepCurves, point: LearningPoint, eta: float, here: float, ceiling: float
) -> go.Figure:
    """Exact, first- and second-order progress; η* and the exact optimum; the ceiling KL(π_t‖π_θ)."""
    figure = style.figure(style.words("figure.step.title"), style.words("axis.eta"), style.words("axis.nats"), HEIGHT)
    figure.add_hline(y=0, line={"color": HELPER, "width": 1})
    tallest = max(float(curves.exact.max()), min(point.quadratic_gain, 4 * ceiling))
    tallest = tallest if tallest > 1e-15 else 1.0  # identical policies: nothing to gain, nothing to scale by
    if np.isfinite(ceiling) and ceiling < 12 * tallest:
        figure.add_hline(y=ceiling, line={"color": style.colour("ceiling"), "dash": "dot", "width": 2})
        style.label(figure, curves.eta[-1], ceiling, "ceiling", xanchor="right", yanchor="bottom")
        tallest = max(tallest, ceiling)
    for symbol, values in (
        ("first_order", curves.first_order),
        ("second_order", curves.second_order),
        ("progress", curves.exact),
    ):
        name = style.words("figure.step.exact") if symbol == "progress" else SYMBOLS[symbol].html
        style.curve(figure, curves.eta, values, symbol, name=name, width=3.2 if symbol == "progress" else 2.2)
    last = float(curves.eta[-1])
    if 0 < point.quadratic_step <= last:
        style.mark(
            figure,
            point.quadratic_step,
            point.quadratic_gain,
            "second_order",
            label="η*",
            position="top center",
        )
    if 0 < point.exact_step <= last:
        style.mark(
            figure, point.exact_step, point.exact_gain, "progress", label="η<sub>exact</sub>", position="bottom center"
        )
    style.here(figure, eta, f"η = {eta:.3g}")
    style.mark(figure, eta, here, "here", size=8)
    lowest = max(float(min(curves.exact.min(), curves.second_order.min(), 0.0)), -0.8 * tallest)
    figure.layout.yaxis.range = [lowest - 0.05 * tallest, 1.22 * tallest]
    figure.layout.showlegend = True
    return figure


def along_alpha(style: Style, found: Slices, alpha: float, here: float, ceiling: float) -> go.Figure:
    """Progress along α at one η, below what the best η of each α gains."""
    figure = _gains(style, "slice", ceiling)
    style.curve(figure, found.alpha, found.best_gain, "exact_gain", name=style.words("explorer.best_eta"))
    style.curve(figure, found.alpha, found.progress[0], "progress", name=f"η = {number(found.eta[0])}", width=3.2)
    style.here(figure, alpha)
    style.mark(figure, alpha, here, "here", size=8)
    unit = ceiling if np.isfinite(ceiling) and ceiling > 0 else float(np.abs(found.progress[0]).max()) or 1.0
    figure.layout.yaxis.range = [-0.5 * unit, 1.22 * unit]
    return figure


def worst(style: Style, found: Slices, alpha: float, chosen: AlphaResult, ceiling: float) -> go.Figure:
    """Progress along α at both ends of a range of η, the lower of them, and α_Wald where that is highest."""
    figure = _gains(style, "worst", ceiling)
    lower = found.progress.min(0)
    for eta, values in zip(found.eta, found.progress, strict=True):
        style.curve(figure, found.alpha, values, "here", name=f"η = {number(eta, 1)}", width=1.6)
        figure.data[-1].line.dash = "dash" if eta == found.eta[0] else "dot"
    style.curve(figure, found.alpha, lower, "alpha_wald", name=style.words("explorer.worst"), width=3.2)
    style.here(figure, alpha)
    if chosen.status[0].is_solution:
        best = float(chosen.alpha[0])
        label = f"{SYMBOLS['alpha_wald'].html} = {parameter(best)}"
        style.mark(
            figure,
            best,
            float(np.interp(best, found.alpha, lower)),
            "alpha_wald",
            label=label,
            position="bottom center",
        )
    unit = ceiling if np.isfinite(ceiling) and ceiling > 0 else float(np.abs(lower).max()) or 1.0
    figure.layout.yaxis.range = [-0.5 * unit, 1.22 * unit]
    return figure


def _gains(style: Style, name: str, ceiling: float) -> go.Figure:
    title = style.words(f"figure.{name}.title")
    figure = style.figure(title, style.words("axis.alpha"), style.words("axis.nats"), HEIGHT, legend={})
    figure.add_hline(y=0, line={"color": HELPER, "width": 1})
    if np.isfinite(ceiling):
        figure.add_hline(y=ceiling, line={"color": style.colour("ceiling"), "dash": "dot", "width": 2})
        style.label(figure, 0.01, ceiling, "ceiling", yanchor="bottom")
    figure.layout.xaxis.range = [-0.01, 1.01]
    return figure


def expansion_error(style: Style, error: ExpansionError) -> go.Figure:
    """|exact − expansion| against η, both on log scales, with the fitted slopes in the legend."""
    inside = {"orientation": "v", "x": 0.02, "xanchor": "left", "y": 0.98, "yanchor": "top"}
    figure = style.figure(
        style.words("figure.error.title"), style.words("axis.eta"), style.words("axis.nats"), HEIGHT, legend=inside
    )
    for symbol, values, slope in (
        ("first_order", error.first_order, error.first_slope),
        ("second_order", error.second_order, error.second_slope),
    ):
        shown = np.where(values > 1e-17, values, np.nan)
        name = style.words(f"figure.error.{symbol}", slope="—" if np.isnan(slope) else f"{slope:.2f}")
        style.curve(figure, error.eta, shown, symbol, name=name)
    style.log_axis(figure.layout.xaxis, error.eta)
    style.log_axis(figure.layout.yaxis, np.concatenate([error.first_order, error.second_order]).clip(min=1e-17))
    return figure


def progress_map(style: Style, grid: ProgressMap, alpha: float, eta: float, ceiling: float) -> go.Figure:
    """Exact progress over (α, η) as a share of the ceiling; harm is coloured apart; the ridge is the best η."""
    figure = style.figure(style.words("figure.map.title"), style.words("axis.alpha"), style.words("axis.eta"), HEIGHT)
    share = np.clip(grid.progress / ceiling, -1, 1) if np.isfinite(ceiling) and ceiling > 0 else grid.progress
    middle = style.paper
    figure.add_heatmap(
        x=grid.alpha,
        y=grid.eta,
        z=share.T,
        zmin=-1,
        zmax=1,
        zsmooth="fast",
        colorscale=[(0, style.colour("target")), (0.5, middle), (1, style.colour("progress"))],
        colorbar={
            "tickformat": ".0%",
            "thickness": 14,
            "tickfont": {"size": TICK},
            "outlinewidth": 0,
            "tickvals": [-1, -0.5, 0, 0.5, 1],
            "ticktext": [style.words("figure.map.harm"), *(percent(x, 0) for x in (-0.5, 0, 0.5, 1))],
        },
        customdata=grid.progress.T,
        hovertemplate="α = %{x:.3f}, η = %{y:.3g}: %{customdata:.4g} nat<extra></extra>",
    )
    inside = np.where(grid.best_eta <= grid.eta[-1], grid.best_eta, np.nan)
    figure.add_scatter(
        x=grid.alpha,
        y=inside,
        mode="lines",
        line={"color": style.colour("here"), "width": 2.5},
        name=style.words("figure.map.ridge"),
        hovertemplate="α = %{x:.3f}: η = %{y:.3g}<extra>" + style.words("figure.map.ridge") + "</extra>",
    )
    style.mark(figure, alpha, eta, "here", shape="x", size=12)
    for axis, end in ((figure.layout.xaxis, 1.0), (figure.layout.yaxis, float(grid.eta[-1]))):
        axis.range, axis.showgrid = [0, end], False
    return figure
