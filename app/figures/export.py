"""What a reader takes away from a page: each figure's data as CSV, and the figure as one self-contained file."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from geomix_app.figures.style import Style
from geomix_core.curves import ExpansionError, FamilyCurves, Path, ProgressMap, SignalCurves, StepCurves
from geomix_core.lab import Played, Trial
from geomix_core.summary import RatioHistogram


class Slices(Protocol):
    """Progress `[E, A]` along α at some η, and the best gains `[A]`, as `compute.slices` makes them."""

    @property
    def alpha(self) -> np.ndarray: ...
    @property
    def eta(self) -> tuple[float, ...]: ...
    @property
    def progress(self) -> np.ndarray: ...
    @property
    def best_gain(self) -> np.ndarray: ...


Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""Columns of equal length by name: symbol, then unit."""

IMAGE_FORMATS = ("svg", "png")
PIXELS = 3
"""Pixels of a PNG for one on the screen: sharp in print and on a projector."""
WIDTH = 900
"""Width of an image drawn on the server, where there is no screen to measure."""


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One figure to take away; figure and columns are made when they are asked for."""

    key: str
    title: str
    figure: Callable[[], go.Figure]
    columns: Callable[[], Columns] | None = None


@dataclass(eq=False)
class Shown:
    """What a page has shown so far in its run: figures by key, and the names of claims."""

    exhibits: dict[str, Exhibit] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)


# --- data --------------------------------------------------------------------------------------------------------

CURVES: Mapping[type, Mapping[str, str]] = {
    FamilyCurves: {
        "alpha": "alpha",
        "log_partition": "log_Z_nats",
        "delta": "delta_nats",
        "variance": "var_ell_nats2",
        "kl_to_theta": "kl_q_theta_nats",
        "kl_to_target": "kl_q_target_nats",
        "ess": "ess_share",
    },
    SignalCurves: {
        "alpha": "alpha",
        "phi1": "phi1_nats",
        "phi2": "phi2_nats2",
        "signed_snr": "snr_signed",
        "quadratic_step": "eta_star",
    },
    StepCurves: {
        "eta": "eta",
        "exact": "progress_nats",
        "first_order": "first_order_nats",
        "second_order": "second_order_nats",
    },
    ExpansionError: {
        "eta": "eta",
        "first_order": "error_first_order_nats",
        "second_order": "error_second_order_nats",
    },
}
"""The column of every array of a set of curves."""


def curves(result: FamilyCurves | SignalCurves | StepCurves | ExpansionError) -> Columns:
    """One column an array."""
    return {column: getattr(result, name) for name, column in CURVES[type(result)].items()}


def progress_map(grid: ProgressMap) -> Columns:
    """One line for each (α, η); the best η of an α stands on all of its lines."""
    alpha, eta = (axis.reshape(-1) for axis in np.meshgrid(grid.alpha, grid.eta, indexing="ij"))
    best = np.repeat(grid.best_eta, len(grid.eta))
    return {"alpha": alpha, "eta": eta, "progress_nats": grid.progress.reshape(-1), "best_eta": best}


def along_alpha(found: Slices) -> Columns:
    """Progress along α at one η, and at the best η of each α."""
    return {"alpha": found.alpha, "progress_nats": found.progress[0], "best_gain_nats": found.best_gain}


def worst(found: Slices) -> Columns:
    """Progress along α at both ends of a range of η, and the lower of them."""
    low, high = found.progress
    ends = {f"eta_{name}": np.full(len(found.alpha), eta) for name, eta in zip(("low", "high"), found.eta, strict=True)}
    gains = {"progress_low_nats": low, "progress_high_nats": high, "worst_nats": np.minimum(low, high)}
    return {"alpha": found.alpha, **ends, **gains}


def planes(paths: Mapping[str, Path]) -> Columns:
    """The paths below each other; s runs from 0 at π_t to 1 at π_θ."""
    return {
        "path": np.repeat(list(paths), [len(p.parameter) for p in paths.values()]),
        "s": np.concatenate([p.parameter for p in paths.values()]),
        "kl_theta_nats": np.concatenate([p.kl_to_theta for p in paths.values()]),
        "kl_target_nats": np.concatenate([p.kl_to_target for p in paths.values()]),
    }


def simplex(paths: Mapping[str, np.ndarray]) -> Columns:
    """Probabilities `[points, 3]` of the paths below each other; s runs from 0 at π_t to 1 at π_θ."""
    points = np.concatenate(list(paths.values()))
    return {
        "path": np.repeat(list(paths), [len(p) for p in paths.values()]),
        "s": np.concatenate([np.linspace(0, 1, len(p)) for p in paths.values()]),
        **{f"p_token{i}": points[:, i] for i in range(points.shape[1])},
    }


def histogram(found: RatioHistogram) -> Columns:
    """One line a bin of ℓ."""
    return {
        "ell_low_nats": found.edges[:-1],
        "ell_high_nats": found.edges[1:],
        "mass_theta": found.theta,
        "mass_target": found.target,
    }


def tokens(index: np.ndarray, names: Sequence[str], probabilities: Mapping[str, np.ndarray]) -> Columns:
    """One line a token. Its text is JSON: white space shows, and no spreadsheet takes it for a formula."""
    return {
        "token_id": index,
        "token_json": [json.dumps(name, ensure_ascii=False) for name in names],
        **{f"p_{name}": values for name, values in probabilities.items()},
    }


def rows(table: Mapping[str, Sequence[Any]]) -> Columns:
    """α of each row by every criterion, and how far apart its policies are, of a table of results."""
    names = {"row": "row", "kl_target_theta": "kl_target_theta_nats"}
    alphas = ("alpha_kl", "alpha_snr", "alpha_wald")
    return {column: table[name] for name, column in {**names, **{a: a for a in alphas}}.items()}


def trials(measured: Sequence[Trial]) -> Columns:
    """One line a repetition of the sampling lab."""
    repetitions = [len(t.progress) for t in measured]
    about = {"samples_of": "proposal", "N": "samples", "estimator": "estimator", "eta": "step"}
    return {
        **{column: np.repeat([getattr(t, name) for t in measured], repetitions) for column, name in about.items()},
        "repetition": np.concatenate([np.arange(1, n + 1) for n in repetitions]),
        "progress_nats": np.concatenate([t.progress for t in measured]),
        "share_of_kl": np.concatenate([t.progress / t.ceiling for t in measured]),
    }


def moved(repetition: Played, at: int, names: Sequence[str], target: np.ndarray) -> Columns:
    """The watched tokens of one repetition after some of its samples."""
    drawn = [int((repetition.token[:at] == token).sum()) for token in repetition.watched]
    policies = {"theta": repetition.policies[0], "target": target, "updated": repetition.policies[at]}
    return {**tokens(repetition.watched, names, policies), "drawn": drawn}


def played(repetition: Played, ceiling: float) -> Columns:
    """Progress of one repetition after each sample, and the token drawn; none at first."""
    return {
        "samples": np.arange(len(repetition.progress)),
        "token_id": [None, *repetition.token.tolist()],
        "progress_nats": repetition.progress,
        "share_of_kl": repetition.progress / ceiling,
    }


def to_csv(columns: Columns) -> str:
    """A header and one line an entry, numbers to full precision; what is undefined is an empty field."""
    text: str = pd.DataFrame(dict(columns)).to_csv(index=False, lineterminator="\n")
    return text


# --- figures -----------------------------------------------------------------------------------------------------


def file_name(key: str) -> str:
    """What a figure's files are called, without an extension."""
    return f"geomix_{key}"


def camera(key: str, image_format: str) -> dict[str, Any]:
    """Plotly's settings for the button that saves a figure as an image in the browser."""
    return {"format": image_format, "filename": file_name(key), "scale": PIXELS if image_format == "png" else 1}


def standalone(style: Style, figure: go.Figure) -> go.Figure:
    """A copy with the colours that the page would lend it."""
    alone = go.Figure(figure)
    alone.layout.template = "plotly_dark" if style.theme == "dark" else "plotly_white"
    alone.layout.paper_bgcolor = alone.layout.plot_bgcolor = style.paper
    alone.layout.font.color = style.colour("here")
    return alone


def to_html(style: Style, exhibit: Exhibit) -> str:
    """One file of about 5 MB that needs no network: the figure with hover, zoom and image export."""
    config = {"displaylogo": False, "responsive": True, "toImageButtonOptions": camera(exhibit.key, "png")}
    body = standalone(style, exhibit.figure()).to_html(config, include_plotlyjs=True, full_html=False)
    return (
        f'<!doctype html>\n<html lang="{style.text.language}"><head><meta charset="utf-8">'
        f"<title>{html.escape(exhibit.title)}</title></head>\n"
        f'<body style="max-width:64rem;margin:1rem auto;background:{style.paper}">{body}</body></html>\n'
    )


def draws_images() -> bool:
    """Whether this server can draw images itself: with kaleido, which brings or finds a Chromium."""
    return find_spec("kaleido") is not None


def to_image(style: Style, exhibit: Exhibit, image_format: str) -> bytes:
    """The figure as PNG or SVG, drawn on the server."""
    figure = standalone(style, exhibit.figure())
    scale = PIXELS if image_format == "png" else 1
    image: bytes = figure.to_image(image_format, width=WIDTH, height=figure.layout.height, scale=scale)
    return image
