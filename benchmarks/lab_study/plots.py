"""Two plots for docs/: α_KL against on-policy row by row, and every distribution's median."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.lab_study.report import ESTIMATORS, NAMES, comparable, factors, median

TITLES = ("document's update", "natural gradient", "softmax gradient")
COLOURS = {10: "#4a90d9", 100: "#1d4e89", 1_000: "#0b6e4f", 50_257: "#e07a1f", 0: "#c1121f"}
"""By vocabulary; 0 stands for the real rows."""
INK, GRID = "#222222", "#e6e6e6"
FLOOR, TOP = 0.01, 40.0
"""Ratios beyond are drawn at the edge."""
RATIO = {
    "type": "log",
    "tickvals": [0.01, 0.1, 0.5, 1, 2, 5, 20],
    "ticktext": ["0.01", "0.1", "½", "1", "2", "5", "20"],
}
"""An axis of ratios."""
PROMISED: dict[str, Any] = {"fillcolor": "#0b6e4f", "opacity": 0.12, "line_width": 0}
EQUAL: dict[str, Any] = {"line": {"color": INK, "width": 1}}


def draw(found: dict[str, Any], folder: Path) -> list[str]:
    """Write lab_study_rows.svg and lab_study_medians.svg; returns lines that say what was done."""
    browser = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    if importlib.util.find_spec("kaleido") is None or browser is None:
        return ["No plots: they need kaleido (pip install -e '.[bench]') and a Chromium."]
    os.environ["BROWSER_PATH"] = browser
    cases = list(found["cases"].values())
    written = []
    for name, figure in (("rows", rows(cases)), ("medians", medians(cases))):
        path = folder / f"lab_study_{name}.svg"
        figure.write_image(path)
        written.append(f"Wrote {path.name}")
    return written


def rows(cases: list[dict[str, Any]]) -> go.Figure:
    """On-policy's N over α_KL's N against KL(π_t‖π_θ), a dot a row, with its interval; 2–5 is what §7.3 promises."""
    figure = _panels()
    for column, estimator in enumerate(ESTIMATORS, 1):
        figure.add_hrect(
            y0=2, y1=5, fillcolor="#0b6e4f", opacity=0.12, line_width=0, row=1, col=column, exclude_empty_subplots=False
        )
        figure.add_hline(y=1, line={"color": INK, "width": 1}, row=1, col=column, exclude_empty_subplots=False)
        for vocabulary, colour in COLOURS.items():
            there = comparable(cases, estimator, lambda c, v=vocabulary: _group(c) == v)
            entries = [(c["kl"], c["efficiency"]["kl_symmetry"]) for c in there]
            entries = [(x, e) for x, e in entries if e["status"] != "undetermined"]
            y = np.array([e["factor"] for _, e in entries]).clip(FLOOR, TOP)
            low, high = (np.array([float(e[k]) for _, e in entries]).clip(FLOOR, TOP) for k in ("low", "high"))
            figure.add_scatter(
                x=[x for x, _ in entries], y=y, mode="markers",
                name=f"V = {vocabulary:,}" if vocabulary else "real rows",
                marker={"color": colour, "size": 8}, showlegend=column == 1, legendgroup=str(vocabulary),
                error_y={"type": "data", "symmetric": False, "array": high - y, "arrayminus": y - low, "width": 0,
                         "thickness": 1.2},
                row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(type="log", dtick=1, title="KL(π<sub>t</sub>‖π<sub>θ</sub>), nats", row=1, col=column)
    figure.update_yaxes(**RATIO, range=[math.log10(FLOOR), math.log10(TOP) + 0.05])
    figure.update_yaxes(title="on-policy's N ÷ N at α<sub>KL</sub>", row=1, col=1)
    figure.update_layout(legend={"orientation": "h", "y": -0.22, "x": 0.5, "xanchor": "center"})
    return figure


def medians(cases: list[dict[str, Any]]) -> go.Figure:
    """The median of on-policy's N over each distribution's N, with its interval over rows."""
    names = [n for n in NAMES if n != "on_policy"]
    figure = _panels(shared_yaxes=True)
    for column, estimator in enumerate(ESTIMATORS, 1):
        found = {n: factors(comparable(cases, estimator), n) for n in names}
        measured = [(n, *median(values)) for n, values in found.items() if len(values)]
        x, low, high = (np.array([m[k] for m in measured]).clip(FLOOR, TOP) for k in (1, 2, 3))
        figure.add_vline(x=1, line={"color": INK, "width": 1}, row=1, col=column, exclude_empty_subplots=False)
        figure.add_vrect(
            x0=2, x1=5, fillcolor="#0b6e4f", opacity=0.12, line_width=0, row=1, col=column, exclude_empty_subplots=False
        )
        figure.add_scatter(
            x=x, y=[_html(NAMES[m[0]].split(" (")[0]) for m in measured], mode="markers", showlegend=False,
            marker={"color": "#1d4e89", "size": 11},
            error_x={"type": "data", "symmetric": False, "array": high - x, "arrayminus": x - low, "width": 4},
            row=1, col=column,
        )  # fmt: skip
        figure.update_xaxes(**RATIO, range=[-2, 1], title="on-policy's N ÷ its N", row=1, col=column)
        figure.update_yaxes(type="category", autorange="reversed", row=1, col=column)
    figure.update_layout(margin={"l": 150})
    return figure


def _panels(**options: Any) -> go.Figure:
    options = {"shared_yaxes": True} | options
    figure = make_subplots(1, 3, subplot_titles=TITLES, horizontal_spacing=0.03, **options)
    figure.update_layout(
        width=1000, height=460, margin={"l": 80, "r": 20, "t": 40, "b": 60},
        paper_bgcolor="white", plot_bgcolor="white",
        font={"family": "Arial, Helvetica, sans-serif", "size": 14, "color": INK},
    )  # fmt: skip
    axis = {"gridcolor": GRID, "zeroline": False, "ticks": "outside"}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _html(name: str) -> str:
    return re.sub("_(θ|t|KL|Wald)", r"<sub>\1</sub>", name)


def _group(case: dict[str, Any]) -> int:
    return 0 if case["kind"].startswith("real") else int(case["vocabulary"])
