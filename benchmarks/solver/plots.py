"""Two plots for docs/: time against accuracy, and time against B·V."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from benchmarks.solver.competitors import BASE, EXP, READ

COLOURS = {
    BASE: "#0b6e4f",
    "geomix, 2 threads": "#2fa37c",
    "geomix, torch": "#7cb518",
    "document's listing": "#c1121f",
    "log-space bisection": "#e07a1f",
    "SciPy brentq": "#1d4e89",
    "SciPy find_root": "#4a90d9",
    "JAX bisection": "#7b3fa0",
    READ: "#8a8a8a",
    EXP: "#8a8a8a",
}
WIDTH, HEIGHT = 900, 560
MARGIN = {"l": 75, "r": 185, "t": 20, "b": 65}
INK, GRID = "#222222", "#e6e6e6"
LABEL_DISTANCE = 19
"""Pixels between the middles of two labels that lie over each other."""
NO_ERROR = 1e-9
"""Where an error of 0 is drawn on a log axis: the torch path runs the code of the float64 reference."""


def draw(outcome: dict[str, Any], folder: Path) -> list[str]:
    """Write bench_accuracy.svg and bench_scaling.svg; returns lines that say what was done."""
    browser = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    if importlib.util.find_spec("kaleido") is None or browser is None:
        return ["No plots: they need kaleido (pip install -e '.[bench]') and a Chromium."]
    os.environ["BROWSER_PATH"] = browser
    written = []
    for name, figure in (("accuracy", accuracy(outcome)), ("scaling", scaling(outcome))):
        path = folder / f"bench_{name}.svg"
        figure.write_image(path)
        written.append(f"Wrote {path.name}")
    return written


def accuracy(outcome: dict[str, Any]) -> go.Figure:
    """ns per element against the worst error · √Var: a small dot a case, a large one for the worst and the median."""
    cases = outcome["cases"]
    ends, dots = {}, []
    for name in cases[0]["competitors"]:
        entries = [case["competitors"][name] for case in cases]
        errors = [max(e["worst_error_times_sigma"], NO_ERROR) for e in entries]
        times = [e["ns_per_element"] for e in entries]
        ends[name] = (max(errors), statistics.median(times))
        dots.append(go.Scatter(x=errors, y=times, mode="markers", marker=_dot(name, 6, 0.4)))
    large = [go.Scatter(x=[x], y=[y], mode="markers", marker=_dot(name, 13, 1.0)) for name, (x, y) in ends.items()]
    figure = _figure(
        "error: worst |α − α in float64| · √Var of a case (small dots), of all (large); 10⁻⁹: none",
        "ns per element of [B, V]",
    )
    figure.add_traces([*dots, *large])
    return _labelled(figure, [x for dot in dots for x in dot.x], [y for dot in dots for y in dot.y], ends)


def scaling(outcome: dict[str, Any]) -> go.Figure:
    """Milliseconds of a call against B·V, at V = 50 257."""
    growth = outcome["growth"]["rows"]
    sizes = [rows * vocabulary for rows, vocabulary in growth["shapes"]]
    times = {name: [1e3 * s for s in seconds] for name, seconds in growth["seconds"].items()}
    (first, vocabulary), (last, _) = growth["shapes"][0], growth["shapes"][-1]
    figure = _figure(f"B·V, of B = {first} … {last} rows with V = {vocabulary:_}".replace("_", " "), "ms")
    for name, line in times.items():
        style = {"color": COLOURS[name], "width": 2, "dash": "dot" if name in (READ, EXP) else "solid"}
        figure.add_scatter(x=sizes, y=line, mode="lines+markers", marker={"size": 6}, line=style)
    ends = {name: (sizes[-1], line[-1]) for name, line in times.items()}
    return _labelled(figure, sizes, [t for line in times.values() for t in line], ends)


def _dot(name: str, size: int, opacity: float) -> dict[str, Any]:
    return {"color": COLOURS[name], "size": size, "opacity": opacity, "line": {"width": 0}}


def _labelled(figure: go.Figure, xs: list[float], ys: list[float], ends: dict[str, tuple[float, float]]) -> go.Figure:
    """Axes that fit the points, and beside each end its name in its colour, moved apart where two would overlap."""
    (left, right), (low, high) = _range(xs), _range(ys)
    figure.update_xaxes(range=[left, right])
    figure.update_yaxes(range=[low, high])
    pixels = (HEIGHT - MARGIN["t"] - MARGIN["b"]) / (high - low)
    placed: list[tuple[float, float]] = []
    for name, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        at = math.log10(y) * pixels
        near = [other + LABEL_DISTANCE for x_other, other in placed if abs(math.log10(x / x_other)) < 1.5]
        shift = max([at, *near]) - at
        placed.append((x, at + shift))
        figure.add_annotation(  # on a log axis it wants the exponent
            x=math.log10(x),
            y=math.log10(y),
            text=name,
            font={"color": COLOURS[name], "size": 14},
            showarrow=False,
            xanchor="left",
            xshift=10,
            yshift=shift,
        )
    return figure


def _range(values: list[float]) -> tuple[float, float]:
    """In decades, with a margin."""
    return math.log10(min(values)) - 0.15, math.log10(max(values)) + 0.15


def _figure(x: str, y: str) -> go.Figure:
    axis = {"type": "log", "dtick": 1, "gridcolor": GRID, "zeroline": False, "ticks": "outside", "tickcolor": GRID}
    return go.Figure(
        layout={
            "width": WIDTH,
            "height": HEIGHT,
            "margin": MARGIN,
            "showlegend": False,
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "font": {"family": "Helvetica, Arial, sans-serif", "size": 14, "color": INK},
            "xaxis": {**axis, "title": {"text": x}, "exponentformat": "power"},
            "yaxis": {**axis, "title": {"text": y}, "tickformat": "~r"},
        }
    )
