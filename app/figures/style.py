"""One look for all figures: fonts, axes, direct labels, hover, margins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from geomix_app.catalogue import Catalogue
from geomix_app.notation import SYMBOLS, Theme

HEIGHT = 300
HELPER = "#8a949c"
"""Helper lines (axes through zero, the current α): a grey that both themes bear."""


@dataclass(frozen=True)
class Style:
    """What every figure needs to know of its reader: the language's catalogue and the theme."""

    text: Catalogue
    theme: Theme

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

    def figure(self, title: str, x: str, y: str, height: int = HEIGHT, **layout: Any) -> go.Figure:
        """An empty figure with a title and labelled axes.

        Text has no colour of its own: it then follows the reader's theme, also when the theme is switched in the menu,
        which runs no script. Sizes are set one by one, because Streamlit's theme overrides a common one.
        """
        axis = {
            "gridcolor": self.faint,
            "zerolinecolor": self.faint,
            "linecolor": self.faint,
            "ticks": "outside",
            "tickcolor": self.faint,
            "tickfont": {"size": 13},
            "automargin": True,
        }
        figure = go.Figure()
        figure.update_layout(
            title={
                "text": f"<b>{title}</b>",
                "x": 0,
                "xref": "container",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 6, "l": 4},
                "font": {"size": 16},
            },
            height=height,
            margin={"l": 8, "r": 14, "t": 42, "b": 8},
            xaxis={**axis, "title": {"text": x, "standoff": 6, "font": {"size": 14}}},
            yaxis={**axis, "title": {"text": y, "standoff": 6, "font": {"size": 14}}},
            showlegend=False,
            legend={
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": 1.0,
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
                "font": {"size": 14},
                "title": {"text": ""},
            },
            **layout,
        )
        return figure

    def curve(
        self,
        figure: go.Figure,
        x: np.ndarray,
        y: np.ndarray,
        symbol: str,
        *,
        name: str | None = None,
        hover: str = "%{y:.4g}",
        width: float = 2.5,
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
        shape: str = "circle",
        position: str = "top center",
        size: int = 11,
    ) -> None:
        """Add one marked point with a direct label."""
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers+text" if label else "markers",
            text=[label],
            textposition=position,
            marker={
                "color": self.colour(symbol),
                "size": size,
                "symbol": shape,
                "line": {"color": self.paper, "width": 1.5},
            },
            textfont={"color": self.colour(symbol), "size": 14},
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
            font={"color": self.colour(symbol), "size": 14},
        )

    def here(self, figure: go.Figure, x: float, label: str = "") -> None:
        """The vertical line at the current value of the abscissa."""
        figure.add_vline(x=x, line={"color": HELPER, "width": 1.2, "dash": "dot"})
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
                font={"size": 13},
            )


def thin(*arrays: np.ndarray, limit: int = 400) -> tuple[np.ndarray, ...]:
    """At most `limit` evenly spaced points of each array: nothing over 2 000 points goes to a browser."""
    step = max(1, int(np.ceil(len(arrays[0]) / limit)))
    return tuple(a[::step] for a in arrays)
