"""Many rows at once: how α*(x) is distributed, and how it depends on the distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import Style, thin

_CRITERIA = {"kl": "q", "snr": "snr"}


def alpha_histogram(style: Style, alpha_kl: Sequence[float], alpha_snr: Sequence[float]) -> go.Figure:
    """Histogram of α over rows for both criteria, counted in bins of 0.02."""
    figure = style.figure(
        style.words("figure.rows.title"),
        style.words("axis.alpha"),
        style.words("figure.rows.y"),
        320,
        legend={},
        barmode="overlay",
    )
    edges = np.linspace(0, 1, 51)
    for name, values in (("kl", alpha_kl), ("snr", alpha_snr)):
        counts, _ = np.histogram(np.asarray(values), edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=0.018,
            name=style.words(f"figure.rows.{name}"),
            marker={"color": style.colour(_CRITERIA[name])},
            opacity=0.8,
            hovertemplate="α ≈ %{x:.2f}: %{y}<extra></extra>",
        )
    figure.layout.xaxis.range = [0, 1]
    return figure


def alpha_against_distance(
    style: Style, distance: Sequence[float], alpha_kl: Sequence[float], alpha_snr: Sequence[float]
) -> go.Figure:
    """α of each row against KL(π_t‖π_θ) of that row."""
    figure = style.figure(style.words("figure.scatter.title"), style.words("figure.scatter.x"), "α", 320)
    for name, values in (("kl", alpha_kl), ("snr", alpha_snr)):
        x, y = thin(np.asarray(distance), np.asarray(values), limit=900)
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            name=style.words(f"figure.rows.{name}"),
            marker={"color": style.colour(_CRITERIA[name]), "size": 6, "opacity": 0.7},
            hovertemplate="KL = %{x:.4g}: α = %{y:.4f}<extra></extra>",
        )
    style.log_axis(figure.layout.xaxis, np.asarray(distance))
    figure.layout.yaxis.range = [-0.03, 1.03]
    figure.layout.showlegend = True
    return figure
