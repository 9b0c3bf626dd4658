"""The sampling lab: progress against N with its bands, the share that each distribution closes, one repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import plotly.graph_objects as go

from geomix_app.figures.style import HELPER, LABEL, MARGIN, TICK, Style
from geomix_app.figures.tokens import token_label
from geomix_app.notation import SYMBOLS, percent
from geomix_core.lab import Played, Trial

SYMBOL: Mapping[str, str] = MappingProxyType(
    {"on_policy": "theta", "off_policy": "target", "kl_symmetry": "alpha_kl", "snr": "alpha_snr", "wald": "alpha_wald"}
    | {"alpha": "here"}
    | {name: name for name in ("uniform", "optimum", "logarithmic_mean", "defensive")}
)
"""The symbol of every sampling distribution."""

DEEPEST = 0.35
"""How far below zero a figure reaches, as a share of its height above: what diverges is counted, not drawn to scale."""


def against_samples(style: Style, trials: Sequence[Trial], goal: float, here: int) -> go.Figure:
    """Mean progress as a share of KL(π_t‖π_θ) against N, with bootstrap bands; the goal, and the N looked at."""
    figure = style.figure(
        style.words("figure.lab.title"), style.words("figure.lab.x"), style.words("figure.lab.y"), 460,
        margin=MARGIN | {"r": 96},
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": HELPER, "width": 1})
    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial.proposal, []).append(trial)
    low, high = _extent(trials)
    for name, curve in by_name.items():
        _band(style, figure, name, curve, low - (high - low))
    figure.add_hline(y=goal, line={"color": HELPER, "width": 1.5, "dash": "dash"})
    figure.add_annotation(
        x=0, xref="paper", xanchor="left", y=goal, yanchor="bottom", showarrow=False,
        text=style.words("figure.lab.goal", share=percent(goal, 0)), font={"size": TICK},
    )  # fmt: skip
    sizes = sorted({t.samples for t in trials})
    _end_labels(style, figure, by_name, (low, high))
    figure.add_shape(
        type="line", x0=here, x1=here, y0=0, y1=1, yref="y domain", line={"color": HELPER, "width": 1.2, "dash": "dot"}
    )
    figure.layout.xaxis.update(
        type="log", tickvals=sizes, ticktext=[f"{n:,}" for n in sizes],
        range=[np.log10(sizes[0]) - 0.08, np.log10(sizes[-1]) + 0.08],
    )  # fmt: skip
    figure.layout.yaxis.update(tickformat=".0%" if high > 0.04 else ".1%", range=[low, high])
    return figure


def closed(style: Style, trials: Sequence[Trial], names: Mapping[str, str]) -> go.Figure:
    """Bars of the share of KL(π_t‖π_θ) that each distribution closes at one N, with intervals; the longest on top."""
    order = sorted(trials, key=lambda t: -t.mean)
    shares = np.array([t.mean / t.ceiling for t in order])
    ends = np.array([[t.interval.low / t.ceiling, t.interval.high / t.ceiling] for t in order])
    low, high = _extent(trials)
    figure = style.figure(
        style.words("figure.closed.title", samples=f"{order[0].samples:,}"), style.words("figure.lab.y"), "", 460,
        margin=MARGIN | {"l": 8, "r": 24}, bargap=0.42,
    )  # fmt: skip
    figure.add_bar(
        x=shares.clip(min=low),
        y=np.arange(len(order)),
        orientation="h",
        marker={"color": [style.colour(SYMBOL[t.proposal]) for t in order]},
        error_x={
            "type": "data", "symmetric": False, "array": ends[:, 1] - shares, "arrayminus": shares - ends[:, 0],
            "color": HELPER, "thickness": 2, "width": 5,
        },
        customdata=np.column_stack([shares, ends]),
        hovertemplate="%{customdata[0]:.2%} (%{customdata[1]:.2%} – %{customdata[2]:.2%})<extra></extra>",
    )  # fmt: skip
    figure.layout.xaxis.update(tickformat=".0%" if high > 0.04 else ".1%", range=[low, high * 1.02])
    figure.layout.yaxis.update(
        tickmode="array", tickvals=list(range(len(order))), ticktext=[names[t.proposal] for t in order],
        range=[len(order) - 0.4, -0.6], automargin=True, showgrid=False, zeroline=False,
        tickfont={"size": LABEL},
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": HELPER, "width": 1})
    return figure


def tokens_moved(
    style: Style, played: Played, at: int, labels: Sequence[str], target: np.ndarray, name: str
) -> go.Figure:
    """π_θ, π_t and the policy after `at` samples at the watched tokens; how often each was drawn so far."""
    figure = style.figure(
        style.words("figure.moved.title"), style.words("figure.tokens.x_log"), "", 430,
        legend={"traceorder": "normal"}, margin=MARGIN | {"l": 8, "r": 70},
    )  # fmt: skip
    rows = np.arange(len(labels))
    before, after = played.policies[0], played.policies[at]
    for row in rows:
        figure.add_scatter(
            x=[before[row], after[row]], y=[row, row], mode="lines", hoverinfo="skip", showlegend=False,
            line={"color": style.colour("updated"), "width": 4},
        )  # fmt: skip
    for symbol, values, shape in (
        ("theta", before, "circle"), ("target", target, "line-ns"), ("updated", after, "circle"),
    ):  # fmt: skip
        colour = style.colour(symbol)
        edge = {"color": colour, "width": 3.5} if shape == "line-ns" else {"color": style.paper, "width": 1.5}
        figure.add_scatter(
            x=values, y=rows, mode="markers", name=SYMBOLS[symbol].html,
            marker={"color": colour, "size": 14, "symbol": shape, "line": edge},
            customdata=[token_label(t) for t in labels], hovertemplate="%{customdata}: %{x:.4g}",
        )  # fmt: skip
    drawn = [int((played.token[:at] == token).sum()) for token in played.watched]
    for row, count in zip(rows, drawn, strict=True):
        if count:
            figure.add_annotation(
                x=1, xref="x domain", xanchor="left", xshift=8, y=row, text=f"<b>×{count}</b>", showarrow=False,
                font={"size": LABEL, "color": style.colour(SYMBOL[name])},
            )  # fmt: skip
    # Still while samples come: the axis holds every policy of the repetition.
    everything = np.concatenate([played.policies.ravel(), target])
    everything = everything[everything > 0]
    style.log_axis(figure.layout.xaxis, everything)
    low, high = np.log10(everything.min()), np.log10(everything.max())
    figure.layout.xaxis.range = [low - 0.06 * (high - low), high + 0.06 * (high - low)]
    figure.layout.yaxis.update(
        tickmode="array", tickvals=rows, ticktext=[token_label(t) for t in labels],
        range=[len(labels) - 0.45, -0.55], automargin=True, zeroline=False,
    )  # fmt: skip
    return figure


def sample_by_sample(style: Style, played: Played, at: int, ceiling: float, name: str) -> go.Figure:
    """Progress of one repetition as its samples come."""
    figure = style.figure(
        style.words("figure.path.title"), style.words("figure.path.x"), style.words("figure.lab.y"), 430
    )
    figure.add_hline(y=0, line={"color": HELPER, "width": 1})
    symbol = SYMBOL[name]
    shares = played.progress / ceiling
    figure.add_scatter(
        x=np.arange(len(shares)), y=shares, mode="lines", line={"color": style.colour(symbol), "width": 1.5},
        opacity=0.45, hovertemplate="%{x}: %{y:.2%}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=np.arange(at + 1), y=shares[: at + 1], mode="lines", hoverinfo="skip",
        line={"color": style.colour(symbol), "width": 4},
    )  # fmt: skip
    style.mark(figure, at, float(shares[at]), symbol, label=percent(float(shares[at])))
    span = float(shares.max() - shares.min()) or 1.0
    figure.layout.yaxis.update(
        tickformat=".0%" if span > 0.04 else ".1%",
        range=[float(shares.min()) - 0.08 * span, float(shares.max()) + 0.18 * span],
    )
    figure.layout.xaxis.range = [-0.03 * len(shares), 1.05 * len(shares)]
    return figure


def _extent(trials: Sequence[Trial]) -> tuple[float, float]:
    """The range of shares that is drawn."""
    high = 1.12 * max(max(t.interval.high, t.mean) / t.ceiling for t in trials)
    high = min(max(high, 1e-3), 1.05)
    low = min(t.interval.low / t.ceiling for t in trials)
    return max(min(low - 0.04 * high, -0.04 * high), -DEEPEST * high), high


def _band(style: Style, figure: go.Figure, name: str, curve: Sequence[Trial], floor: float) -> None:
    symbol = SYMBOL[name]
    n = np.array([t.samples for t in curve])
    mean, low, high = (
        np.array(values).clip(min=floor)
        for values in zip(*((t.mean / t.ceiling, t.interval.low / t.ceiling, t.interval.high / t.ceiling)
                            for t in curve), strict=True)
    )  # fmt: skip
    red, green, blue = (int(style.colour(symbol)[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_scatter(
        x=np.concatenate([n, n[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines",
        line={"width": 0}, fillcolor=f"rgba({red},{green},{blue},0.18)", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=n, y=mean, mode="lines+markers", name=SYMBOLS[symbol].html,
        line={"color": style.colour(symbol), "dash": SYMBOLS[symbol].dash, "width": 3},
        marker={"color": style.colour(symbol), "size": 7, "symbol": SYMBOLS[symbol].shape},
        customdata=np.column_stack([low, high]),
        hovertemplate="N = %{x:,}: %{y:.2%} (%{customdata[0]:.2%} – %{customdata[1]:.2%})",
    )  # fmt: skip


def _end_labels(
    style: Style, figure: go.Figure, by_name: Mapping[str, Sequence[Trial]], extent: tuple[float, float]
) -> None:
    """A label right of each curve's end, moved apart where they would overlap."""
    low, high = extent
    ends = {name: float(np.clip(curve[-1].mean / curve[-1].ceiling, low, high)) for name, curve in by_name.items()}
    order = sorted(ends, key=lambda name: ends[name])
    gap = 0.062 * (high - low)
    at = [ends[name] for name in order]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + gap)
    over = max(0.0, at[-1] - high)
    at[-1] -= over
    for i in range(len(at) - 2, -1, -1):
        at[i] = min(at[i], at[i + 1] - gap)
    for name, y in zip(order, at, strict=True):
        symbol = SYMBOL[name]
        figure.add_annotation(
            x=1, xref="x domain", xanchor="left", xshift=6, y=y, text=SYMBOLS[symbol].html, showarrow=False,
            font={"color": style.colour(symbol), "size": LABEL},
        )  # fmt: skip
