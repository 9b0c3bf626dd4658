"""Many rows at once: how α*(x) is distributed, how two criteria compare, and how α*(x) depends on the distance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import LABEL, Style, thin
from geomix_app.notation import SYMBOLS, parameter

HEIGHT = 330
BINS = 50
LIMIT = 600
"""Points of each criterion: nothing over 2 000 points goes to a browser."""


def alpha_histograms(style: Style, alphas: Mapping[str, np.ndarray]) -> go.Figure:
    """One histogram a criterion, below each other on one axis, each with its name and its median.

    `alphas` holds α of some rows by the symbol that draws it: "alpha_kl", "alpha_snr", "alpha_wald".
    """
    figure = style.figure(style.words("figure.rows.title"), style.words("axis.alpha"), "", HEIGHT, bargap=0)
    edges = np.linspace(0, 1, BINS + 1)
    room = 1 / len(alphas)
    for i, (symbol, values) in enumerate(alphas.items()):
        counts, _ = np.histogram(values, edges)
        axis = "y" if i == 0 else f"y{i + 1}"
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            name=SYMBOLS[symbol].html,
            yaxis=axis,
            marker={"color": style.colour(symbol), "line": {"width": 0}},
            hovertemplate="α ≈ %{x:.2f}: %{y}<extra></extra>",
        )
        top = 1 - i * room
        figure.layout["yaxis" if i == 0 else f"yaxis{i + 1}"] = {
            "domain": [top - 0.72 * room, top - 0.06 * room],
            "range": [0, max(int(counts.max()), 1)],
            "showticklabels": False,
            "showgrid": False,
            "zeroline": True,
            "zerolinecolor": style.faint,
            "fixedrange": True,
        }
        middle = float(np.median(values))
        _label(style, figure, symbol, top - 0.4 * room)
        figure.add_annotation(
            x=middle,
            y=0,
            yref=axis,
            yanchor="top",
            yshift=-2,
            xanchor="left" if middle < 0.1 else "right" if middle > 0.9 else "center",
            text=style.words("figure.rows.median", value=parameter(middle)),
            showarrow=False,
            font={"color": style.colour(symbol), "size": 14},
        )
    figure.layout.xaxis.range = [0, 1]
    figure.layout.xaxis.anchor = "free"
    figure.layout.xaxis.position = 0
    return figure


def _label(style: Style, figure: go.Figure, symbol: str, y: float) -> None:
    figure.add_annotation(
        x=-0.015,
        xref="paper",
        xanchor="right",
        y=y,
        yref="paper",
        text=SYMBOLS[symbol].html,
        showarrow=False,
        font={"color": style.colour(symbol), "size": LABEL + 2},
    )


def criteria(style: Style, alpha_kl: np.ndarray, alpha_snr: np.ndarray, rows: np.ndarray) -> go.Figure:
    """α_SNR of each row against its α_KL, and the line where they are equal."""
    x_label, y_label = (SYMBOLS[name].html for name in ("alpha_kl", "alpha_snr"))
    figure = style.figure(style.words("figure.criteria.title"), x_label, y_label, HEIGHT)
    figure.add_shape(
        type="line", x0=0, x1=1, y0=0, y1=1, line={"color": style.faint, "width": 1.5, "dash": "dot"}, layer="below"
    )
    figure.add_annotation(
        x=0.06, y=0.06, text=style.words("figure.criteria.equal"), showarrow=False, xanchor="left", yanchor="top",
        yshift=-2, font={"size": 14},
    )  # fmt: skip
    x, y, number = thin(alpha_kl, alpha_snr, rows, limit=LIMIT)
    figure.add_scatter(
        x=x,
        y=y,
        customdata=number,
        mode="markers",
        name="rows",
        marker=_marker(style, "alpha_snr", len(x)),
        hovertemplate="%{customdata}: %{x:.4f}, %{y:.4f}<extra></extra>",
        cliponaxis=False,
    )
    figure.layout.xaxis.range = figure.layout.yaxis.range = [0, 1]
    return figure


def alpha_against_distance(
    style: Style, distance: np.ndarray, alphas: Mapping[str, np.ndarray], rows: np.ndarray
) -> go.Figure:
    """α of each row against KL(π_t‖π_θ) of that row, by every criterion; NaN where a row has none."""
    figure = style.figure(
        style.words("figure.scatter.title"), style.words("figure.scatter.x"), style.words("axis.alpha"), HEIGHT,
        legend={"itemsizing": "constant"},
    )  # fmt: skip
    for symbol, values in alphas.items():
        some = ~np.isnan(values)
        x, y, number = thin(distance[some], values[some], rows[some], limit=LIMIT)
        figure.add_scatter(
            x=x,
            y=y,
            customdata=number,
            mode="markers",
            name=SYMBOLS[symbol].html,
            marker=_marker(style, symbol, len(x)),
            hovertemplate="%{customdata}: KL = %{x:.4g}, α = %{y:.4f}<extra></extra>",
            cliponaxis=False,
        )
    style.log_axis(figure.layout.xaxis, distance)
    figure.layout.yaxis.range = [-0.02, 1.02]
    return figure


def _marker(style: Style, symbol: str, count: int) -> dict[str, object]:
    """Few points are large, many are small and let others through."""
    few = count <= 40
    return {"color": style.colour(symbol), "size": 11 if few else 6, "opacity": 0.9 if few else 0.55}
