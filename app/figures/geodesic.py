"""The geometric family as a path: in the simplex, in the plane of the two KLs, and along α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import HELPER, LABEL, TICK, Style
from geomix_app.figures.tokens import token_label
from geomix_app.notation import SYMBOLS
from geomix_core.curves import Path
from geomix_core.summary import FamilyPoint


def simplex(
    style: Style,
    paths: Mapping[str, np.ndarray],
    ends: Mapping[str, np.ndarray],
    here: np.ndarray,
    tokens: Sequence[str],
    height: int = 520,
) -> go.Figure:
    """The triangle of three-token policies with the three paths, both ends and q_α."""
    axes = {
        f"{key}axis": {
            "title": {"text": token_label(token), "font": {"size": LABEL}},
            "gridcolor": style.faint,
            "linecolor": HELPER,
            "tickfont": {"size": TICK},
            "nticks": 5,
        }
        for key, token in zip("abc", tokens, strict=True)
    }
    figure = style.figure(
        style.words("figure.simplex.title"),
        "",
        "",
        height,
        legend={"x": 0.5, "xanchor": "center", "y": -0.16, "yanchor": "top"},
        ternary={**axes, "bgcolor": "rgba(0,0,0,0)"},
        margin={"l": 30, "r": 30, "t": 60, "b": 90},
    )
    for name, points in paths.items():
        symbol = SYMBOLS[name]
        figure.add_scatterternary(
            a=points[:, 0],
            b=points[:, 1],
            c=points[:, 2],
            mode="lines",
            name=style.words(f"path.{name}"),
            line={"color": style.colour(name), "dash": symbol.dash, "width": 3},
            hoverinfo="skip",
        )
    positions = {"theta": "top right", "target": "top left", "q": "bottom center"}
    for symbol_name, point in {**ends, "q": here}.items():
        figure.add_scatterternary(
            a=point[:1],
            b=point[1:2],
            c=point[2:],
            mode="markers+text",
            text=[SYMBOLS[symbol_name].html],
            textposition=positions[symbol_name],
            textfont={"color": style.colour(symbol_name), "size": LABEL},
            marker={"color": style.colour(symbol_name), "size": 13, "line": {"color": style.paper, "width": 1.5}},
            hovertemplate="(%{a:.3f}, %{b:.3f}, %{c:.3f})<extra></extra>",
            showlegend=False,
            cliponaxis=False,
        )
    return figure


def kl_plane(style: Style, paths: Mapping[str, Path], here: FamilyPoint, height: int = 560) -> go.Figure:
    """The two KLs against each other: the family is the Pareto front, the other paths lie above it."""
    figure = style.figure(
        style.words("figure.plane.title"),
        style.words("figure.plane.x"),
        style.words("figure.plane.y"),
        height,
        legend={"orientation": "v", "x": 0.98, "y": 0.98, "yanchor": "top"},
    )
    for name, path in reversed(list(paths.items())):
        finite = np.isfinite(path.kl_to_theta) & np.isfinite(path.kl_to_target)
        style.curve(
            figure,
            path.kl_to_theta[finite],
            path.kl_to_target[finite],
            name,
            name=style.words(f"path.{name}"),
            hover="(%{x:.4g}, %{y:.4g})",
            width=3.5 if name == "e_geodesic" else 2.2,
        )
    limit = 1.05 * max(
        (v for p in paths.values() for v in (*p.kl_to_theta, *p.kl_to_target) if np.isfinite(v)), default=1.0
    )
    figure.add_scatter(
        x=[0, 0.66 * limit],
        y=[0, 0.66 * limit],
        mode="lines",
        line={"color": HELPER, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        showlegend=False,
    )
    _mark_ends(style, figure, paths["e_geodesic"])
    style.mark(figure, here.kl_to_theta, here.kl_to_target, "q", label=SYMBOLS["q"].html, position="bottom left")
    return figure


def _mark_ends(style: Style, figure: go.Figure, path: Path) -> None:
    """Mark π_t and π_θ, where the path begins and ends."""
    for symbol, index in (("target", 0), ("theta", -1)):
        x, y = path.kl_to_theta[index], path.kl_to_target[index]
        # On unequal supports the family ends at the policies' restrictions, not at the policies.
        reaches = abs(y if symbol == "target" else x) < 1e-9
        if reaches and np.isfinite([x, y]).all():
            style.mark(figure, float(x), float(y), symbol, label=SYMBOLS[symbol].html, position="top right")
