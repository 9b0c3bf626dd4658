"""Policies over tokens: bars of the tokens that matter, and the distribution of ℓ."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import HELPER, MARGIN, Style
from geomix_app.notation import SYMBOLS
from geomix_core.summary import RatioHistogram

Array = np.ndarray


def token_label(token: str, limit: int = 18) -> str:
    """A token as text: white space made visible, shortened, escaped (Plotly would parse tags)."""
    visible = token.replace("\n", "⏎").replace("\t", "⇥")
    if visible.startswith(" ") and visible.strip():
        visible = "␣" + visible[1:]
    elif not visible.strip():
        visible = "␣" * len(visible)
    shown = visible if len(visible) <= limit else visible[: limit - 1] + "…"
    return html.escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown), quote=False)


def token_bars(
    style: Style, tokens: Sequence[str], probabilities: Mapping[str, np.ndarray], *, log_scale: bool, height: int = 420
) -> go.Figure:
    """Horizontal bars, one group a token, one bar a policy; dots on a log scale, where bars have no zero."""
    labels = [token_label(t) for t in tokens]
    # Two tokens may look alike; their rank keeps their rows apart.
    rows = np.arange(len(labels))
    text = style.words
    figure = style.figure(
        text("figure.tokens.title", count=len(labels)),
        text("figure.tokens.x_log" if log_scale else "figure.tokens.x"),
        "",
        height,
        legend={"traceorder": "normal", "x": 0.94},  # left of the button that saves the figure
        # A narrow figure has no room for title and legend side by side.
        margin=MARGIN | {"l": 8, "t": 64 if height < 300 else 42},
        barmode="group",
        bargap=0.28,
    )
    for symbol, values in probabilities.items():
        name = SYMBOLS[symbol].html
        hover = "%{customdata}: %{x:.4g}<extra>" + name + "</extra>"
        shared = {"y": rows, "name": name, "customdata": labels, "hovertemplate": hover, "orientation": "h"}
        if log_scale:
            shown = np.where(values > 0, values, np.nan)
            figure.add_scatter(
                **shared,
                x=shown,
                mode="markers",
                marker={"color": style.colour(symbol), "size": 9, "line": {"color": style.paper, "width": 1}},
            )
        else:
            figure.add_bar(**shared, x=values, marker={"color": style.colour(symbol)})
    if log_scale:
        style.log_axis(figure.layout.xaxis, np.concatenate(list(probabilities.values())))
    axis = figure.layout.yaxis
    axis.tickmode, axis.tickvals, axis.ticktext = "array", rows, labels
    axis.range, axis.showgrid, axis.zeroline = [len(labels) - 0.45, -0.55], False, False
    axis.automargin = True  # names of tokens may be long
    return figure


def ratio_histogram(style: Style, histogram: RatioHistogram, *, log_scale: bool, height: int = 400) -> go.Figure:
    """The distribution of ℓ under each policy, as two outlines."""
    figure = style.figure(
        style.words("figure.ratio.title"), style.words("figure.ratio.x"), style.words("figure.ratio.y"), height
    )
    floor = 1e-5 if log_scale else 0.0
    for symbol, mass in (("theta", histogram.theta), ("target", histogram.target)):
        figure.add_scatter(
            x=histogram.edges,
            y=np.append(mass, mass[-1]).clip(min=floor),
            mode="lines",
            line={"color": style.colour(symbol), "shape": "hv", "width": 2},
            fill="tozeroy",
            opacity=0.9,
            name=SYMBOLS[symbol].html,
            hovertemplate="ℓ ≈ %{x:.3g}: %{y:.3g}<extra>" + SYMBOLS[symbol].html + "</extra>",
        )
    figure.add_vline(x=0, line={"color": HELPER, "width": 1, "dash": "dot"})
    if log_scale:
        style.log_axis(figure.layout.yaxis, np.array([floor, 1.0]))
        figure.layout.yaxis.range = [np.log10(floor), 0.1]
    figure.layout.showlegend = True
    return figure
