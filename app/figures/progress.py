"""Progress against η: exact beside its expansion, the expansion's error, and the map over (α, η)."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import HELPER, Style
from geomix_app.notation import SYMBOLS
from geomix_core.curves import ExpansionError, ProgressMap, StepCurves
from geomix_core.summary import LearningPoint

HEIGHT = 340


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
            shape="square",
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
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": [-1, -0.5, 0, 0.5, 1],
            "ticktext": [style.words("figure.map.harm"), "−50%", "0", "50%", "100%"],
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
