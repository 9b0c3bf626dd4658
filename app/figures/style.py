"""One look for all figures: fonts, axes, direct labels, hover, margins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from geomix_app.catalogue import Catalogue
from geomix_app.notation import SYMBOLS, Theme

HEIGHT = 420
MARGIN = {"l": 84, "r": 16, "t": 52, "b": 62}
"""Fixed, because Plotly draws a figure twice to fit its margins to the labels."""
PLAIN_FONT = "Arial, Helvetica, sans-serif"
"""Legends are as wide as their words in the font at hand, and a saved image does not carry the page's web font."""
TITLE, LABEL, TICK = 20, 17, 16
"""Sizes of type, in pixels, that the last row of a lecture room can read."""
HELPER = "#8a949c"
"""Helper lines (axes through zero, the current α): a grey that both themes bear."""


@dataclass(frozen=True)
class Style:
    """What every figure needs to know of its reader: the language's catalogue and the theme."""

    text: Catalogue
    theme: Theme

    def words(self, key: str, **values: Any) -> str:
        """A string of the catalogue, as HTML."""
        return self.text.html(key, **values)

    @property
    def faint(self) -> str:
        """Grid and helper lines: a grey that both themes bear."""
        return "rgba(128,140,150,0.25)"

    @property
    def paper(self) -> str:
        """The page's background, for halos around markers."""
        return "#12181d" if self.theme == "dark" else "#ffffff"

    def colour(self, symbol: str) -> str:
        """The colour of a symbol."""
        return SYMBOLS[symbol].colour(self.theme)

    def figure(
        self, title: str, x: str, y: str, height: int = HEIGHT, legend: Mapping[str, Any] | None = None, **layout: Any
    ) -> go.Figure:
        """An empty figure with a title and labelled axes; `legend` shows one, with these settings over the common ones.

        Text has no colour of its own: it then follows the reader's theme, also when the theme is switched in the menu,
        which runs no script. Sizes are set one by one, because Streamlit's theme overrides a common one. The layout is
        given at once, because each `update_layout` of a figure costs ten times as much as its construction.
        """
        axis = {
            "gridcolor": self.faint,
            "zerolinecolor": self.faint,
            "linecolor": self.faint,
            "ticks": "outside",
            "tickcolor": self.faint,
            "tickfont": {"size": TICK},
        }
        return go.Figure(
            layout={
                "title": {
                    "text": f"<b>{title}</b>",
                    "x": 0,
                    "xref": "container",
                    "y": 1,
                    "yref": "container",
                    "yanchor": "top",
                    "pad": {"t": 6, "l": 4},
                    "font": {"size": TITLE},
                },
                "height": height,
                "margin": MARGIN,
                "xaxis": {**axis, "title": {"text": x, "standoff": 8, "font": {"size": LABEL}}},
                "yaxis": {**axis, "title": {"text": y, "standoff": 14, "font": {"size": LABEL}}},
                "showlegend": legend is not None,
                "legend": {
                    "orientation": "h",
                    "x": 1,
                    "xanchor": "right",
                    "y": 1.0,
                    "yanchor": "bottom",
                    "bgcolor": "rgba(0,0,0,0)",
                    "font": {"size": LABEL, "family": PLAIN_FONT},
                    "title": {"text": ""},
                    **(legend or {}),
                },
                **layout,
            }
        )

    def curve(
        self,
        figure: go.Figure,
        x: np.ndarray,
        y: np.ndarray,
        symbol: str,
        *,
        name: str | None = None,
        hover: str = "%{y:.4g}",
        width: float = 3.0,
        **options: Any,
    ) -> None:
        """Add a curve in the symbol's colour and dash."""
        s = SYMBOLS[symbol]
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            name=name or s.html,
            hovertemplate=f"{hover}<extra>{name or s.html}</extra>",
            line={"color": self.colour(symbol), "dash": s.dash, "width": width},
            **options,
        )

    def mark(
        self,
        figure: go.Figure,
        x: float,
        y: float,
        symbol: str,
        *,
        label: str = "",
        shape: str | None = None,
        position: str = "top center",
        size: int = 13,
    ) -> None:
        """Add one marked point with a direct label, in the symbol's shape."""
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers+text" if label else "markers",
            text=[label],
            textposition=position,
            marker={
                "color": self.colour(symbol),
                "size": size,
                "symbol": shape or SYMBOLS[symbol].shape,
                "line": {"color": self.paper, "width": 1.5},
            },
            textfont={"color": self.colour(symbol), "size": LABEL},
            hovertemplate="%{x:.4f}, %{y:.4g}<extra></extra>",
            showlegend=False,
            cliponaxis=False,
        )

    def label(
        self,
        figure: go.Figure,
        x: float,
        y: float,
        symbol: str,
        *,
        text: str | None = None,
        xanchor: str = "left",
        yanchor: str = "middle",
        xshift: int = 0,
        yshift: int = 0,
    ) -> None:
        """Write a symbol beside its curve, in the curve's colour."""
        figure.add_annotation(
            x=x,
            y=y,
            text=text or SYMBOLS[symbol].html,
            showarrow=False,
            xanchor=xanchor,
            yanchor=yanchor,
            xshift=xshift,
            yshift=yshift,
            font={"color": self.colour(symbol), "size": LABEL},
        )

    def callout(self, figure: go.Figure, x: float, y: float, text: str, symbol: str, *, at: float) -> None:
        """A label away from its point, at height `at`, with a thin line to it: for points between curves."""
        figure.add_annotation(
            x=x,
            y=y,
            ax=x,
            ay=at,
            axref="x",
            ayref="y",
            text=text,
            showarrow=True,
            arrowhead=0,
            arrowwidth=1,
            arrowcolor=HELPER,
            standoff=7,
            bgcolor=self.paper,
            font={"color": self.colour(symbol), "size": LABEL},
        )

    def log_axis(self, axis: go.layout.XAxis | go.layout.YAxis, values: np.ndarray) -> None:
        """A logarithmic axis with readable ticks: whole decades, or 1-2-5 where the values span less than two."""
        shown = values[np.isfinite(values) & (values > 0)]
        axis.type, axis.exponentformat = "log", "power"
        if not len(shown):
            return
        low, high = np.log10(shown.min()), np.log10(shown.max())
        if high - low >= 2:
            axis.dtick = max(1, int(np.ceil((high - low) / 6)))
            return
        decades = range(int(np.floor(low)) - 1, int(np.ceil(high)) + 1)
        ticks = [m * 10.0**d for d in decades for m in (1, 2, 5) if low - 0.3 <= np.log10(m) + d <= high + 0.3]
        axis.tickvals, axis.ticktext = ticks, [f"{t:g}" for t in ticks]

    def here(self, figure: go.Figure, x: float, label: str = "") -> None:
        """The vertical line at the current value of the abscissa."""
        figure.add_shape(
            type="line", x0=x, x1=x, y0=0, y1=1, yref="y domain", line={"color": HELPER, "width": 1.2, "dash": "dot"}
        )
        if label:
            figure.add_annotation(
                x=x,
                y=0,
                yref="y domain",
                text=label,
                showarrow=False,
                yanchor="bottom",
                xanchor="left" if x < 0.8 else "right",
                xshift=3 if x < 0.8 else -3,
                font={"size": TICK},
            )


def thin(*arrays: np.ndarray, limit: int = 400) -> tuple[np.ndarray, ...]:
    """At most `limit` evenly spaced points of each array: nothing over 2 000 points goes to a browser."""
    step = max(1, int(np.ceil(len(arrays[0]) / limit)))
    return tuple(a[::step] for a in arrays)
