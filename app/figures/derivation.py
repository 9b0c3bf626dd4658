"""Figures that only the derivation shows: bars of what several q reach, and what the document's listing computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import HELPER, LABEL, Style
from geomix_app.notation import SYMBOLS, number, parameter


def bars(
    style: Style,
    title: str,
    values: Mapping[str, tuple[str, float]],
    ceiling: tuple[str, float],
    height: int = 400,
) -> go.Figure:
    """One bar for each sampling distribution, {label: (symbol for its colour, value)}; a ceiling (symbol, value)."""
    figure = style.figure(title, "", "", height)
    names, (symbol, most) = list(values), ceiling
    figure.add_bar(
        x=[value for _, value in values.values()],
        y=np.arange(len(names)),
        orientation="h",
        marker={"color": [style.colour(colour) for colour, _ in values.values()]},
        text=[number(value) for _, value in values.values()],
        textposition="auto",
        textfont={"size": LABEL},
        customdata=names,
        hovertemplate="%{customdata}: %{x:.6g}<extra></extra>",
    )
    axis = figure.layout.yaxis
    axis.tickmode, axis.tickvals, axis.ticktext = "array", np.arange(len(names)), names
    axis.range, axis.showgrid, axis.zeroline, axis.automargin = [len(names) - 0.45, -0.95], False, False, True
    top = max(value for _, value in values.values())
    if np.isfinite(most):
        figure.add_vline(x=most, line={"color": style.colour(symbol), "dash": "dot", "width": 2})
        style.label(figure, most, -0.9, symbol, xanchor="right", yanchor="top", xshift=-6)
        top = max(top, most)
    figure.layout.xaxis.range = [0, 1.06 * top]
    return figure


def listed_objective(
    style: Style,
    alpha: np.ndarray,
    exact: np.ndarray,
    listed: np.ndarray,
    roots: tuple[float, float] | None,
    height: int = 400,
) -> go.Figure:
    """Δ(α), what the document's listing computes in its stead, and where each crosses zero (exact, listed)."""
    figure = style.figure(
        style.words("figure.listing.title"), style.words("axis.alpha"), style.words("axis.nats"), height
    )
    figure.add_hline(y=0, line={"color": HELPER, "width": 1})
    named = {"delta": (SYMBOLS["delta"].html, exact), "second_order": (style.words("figure.listing.listed"), listed)}
    for symbol, (name, values) in named.items():
        style.curve(figure, alpha, values, symbol, name=name)
    low = float(min(exact.min(), listed.min()))
    high = float(max(exact.max(), listed.max()))
    # Apart, at the ends, on the side where a falling curve leaves room.
    style.label(figure, 0.0, float(exact[0]), "delta", xanchor="left", xshift=34)
    style.label(
        figure, 1.0, float(listed[-1]), "second_order", text=named["second_order"][0], xanchor="right", yshift=64
    )
    if roots is not None:
        for symbol, root, position in (("delta", roots[0], "top right"), ("second_order", roots[1], "bottom left")):
            style.mark(figure, root, 0.0, symbol, label=parameter(root), position=position, shape="diamond")
    margin = 0.12 * (high - low or 1.0)
    figure.layout.xaxis.range, figure.layout.yaxis.range = [-0.02, 1.02], [low - margin, high + margin]
    return figure
