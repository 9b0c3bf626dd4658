"""α_SNR: every local maximum of SNR on [0, 1], and the highest of them (document §5.1).

|Φ₁|/√Φ₂ can have several local maxima, and touches 0 where Φ₁ changes sign, so a unimodal search (golden section,
as the document proposes) can end on the wrong one. Here the exact slope d log SNR/dα is evaluated on a grid; cells
that may hide more than their ends show are split; every change from rising to falling then brackets one maximum,
which a bracketing root finder polishes. Large vocabularies are searched on their compressed form, and what is found
there is polished and ranked on all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from scipy.optimize import elementwise
from torch import Tensor

from geomix_core.compression import compress
from geomix_core.geodesics import as_parameter
from geomix_core.policies import PolicyBatch
from geomix_core.progress import TiltFamily, Weights

GRID = 65
"""Grid points on [0, 1] before any cell is split."""

SPLIT, DEPTH = 8, 4
"""A suspicious cell is cut into this many, at most this many times over."""

FLATNESS = 1e-9
"""log SNR that varies by less than this along the family counts as constant."""

ROUNDING = 1e-12
"""A maximum of log SNR must rise above both ends of its bracket by more than this."""

LEVEL = 1e-10
"""An end point is a maximum if log SNR falls away from it with more than this slope: less is rounding."""

EQUAL = 1e-13
"""Total variation below which two policies are equal to rounding; and |r| below which there is no reward."""

REACHES = (1e-4, 1e-3, 1 / 128)
"""Half-widths of the intervals in which a maximum of the compressed row is sought on all tokens."""


@dataclass(frozen=True, slots=True)
class LocalMaximum:
    """One local maximum of SNR(α): where, how high, the sign of Φ₁ there, and the interval that brackets it."""

    alpha: float
    snr: float
    sign: int
    bracket: tuple[float, float]
    log_slope: float
    """d log SNR/dα: about 0 inside, of one sign at an end point."""


@dataclass(frozen=True, eq=False)
class Maxima:
    """Per row: all local maxima, highest first (empty where there is nothing to search, or SNR is out of range)."""

    rows: tuple[tuple[LocalMaximum, ...], ...]
    flat: Tensor
    identical: Tensor
    silent: Tensor
    """Boolean `[B]`: the reward is zero wherever π_θ > 0, so SNR is 0/0."""


@dataclass(frozen=True, eq=False)
class _Points:
    """log SNR, sign of Φ₁ and d log SNR/dα at some points."""

    value: Tensor
    sign: Tensor
    slope: Tensor

    def __getitem__(self, index: Tensor | slice) -> _Points:
        return _Points(self.value[index], self.sign[index], self.slope[index])


@dataclass(frozen=True, eq=False)
class _Cells:
    """Intervals [low, high] of α in given rows, with what is known at their ends; all `[cells]`."""

    row: Tensor
    low: Tensor
    high: Tensor
    left: _Points
    right: _Points

    def __getitem__(self, index: Tensor) -> _Cells:
        return _Cells(self.row[index], self.low[index], self.high[index], self.left[index], self.right[index])

    @property
    def hides_maximum(self) -> Tensor:
        """Rising at the left end, falling at the right."""
        return (self.left.slope > 0) & (self.right.slope < 0)

    @property
    def suspicious(self) -> Tensor:
        """Φ₁ changes sign inside, or log SNR does not change by what the slopes at the ends say."""
        width = self.high - self.low
        steep = width * (self.left.slope.abs() + self.right.slope.abs())
        change = self.right.value - self.left.value
        error = (change - width * (self.left.slope + self.right.slope) / 2).nan_to_num(nan=torch.inf).abs()
        return (self.left.sign != self.right.sign) | (error > 1e-3 + 0.05 * steep)


def find_maxima(batch: PolicyBatch, weights: Weights = "importance", grid_points: int = GRID) -> Maxima:
    """All local maxima of SNR(α) on [0, 1] for rows that have coverage; global up to the resolution of the search."""
    small = compress(batch)
    family = TiltFamily(small, weights)
    identical = family.log_abs_gap.exp().sum(-1) / 2 <= EQUAL
    silent = ~identical & (family.log_abs_reward.exp() * (family.log_theta.exp() > 0)).amax(-1).le(EQUAL)

    grid = torch.linspace(0, 1, grid_points, dtype=batch.theta.dtype, device=batch.theta.device)
    signals = [family.signal(a, normalised=False) for a in grid]
    points = _Points(*(torch.stack([getattr(s, n) for s in signals], -1) for n in ("log_snr", "sign", "log_slope")))
    value = points.value
    flat = ~identical & ~silent & (value.amax(-1) - value.amin(-1) <= FLATNESS)
    searched = ~identical & ~silent & ~flat & value.amax(-1).isfinite()

    found: list[list[LocalMaximum]] = [[] for _ in range(len(batch))]
    cells = _split(family, _cells(points, grid, searched))
    cells = cells[cells.hides_maximum]
    peaks = _zero_of_slope(family, cells.row, cells.low, cells.high)
    height = _evaluate(family, cells.row, peaks).value
    real = height - torch.maximum(cells.left.value, cells.right.value) > ROUNDING
    row, low, high, peaks = cells.row[real], cells.low[real], cells.high[real], peaks[real]
    if small is not batch:
        family = TiltFamily(batch, weights)
        low, high = _bracket_around(family, row, peaks, low, high)
        peaks = torch.where(low < high, _zero_of_slope(family, row, low, high), peaks)

    at_zero = ((points.slope[:, 0] < -LEVEL) & searched).nonzero()[:, 0]
    at_one = ((points.slope[:, -1] > LEVEL) & searched).nonzero()[:, 0]
    rows = torch.cat([row, at_zero, at_one])
    alphas = torch.cat([peaks, grid.new_zeros(len(at_zero)), grid.new_ones(len(at_one))])
    lows = torch.cat([low, grid.new_zeros(len(at_zero)), grid[-2].expand(len(at_one))])
    highs = torch.cat([high, grid[1].expand(len(at_zero)), grid.new_ones(len(at_one))])
    there = _evaluate(family, rows, alphas)
    for i, a, lo, hi, height_, s, d in zip(
        *(x.tolist() for x in (rows, alphas, lows, highs, there.value.exp(), there.sign, there.slope)), strict=True
    ):
        if isfinite(height_):
            found[i].append(LocalMaximum(a, height_, int(s), (lo, hi), d))
    _add_plateaus(found, grid, points, searched)
    return Maxima(tuple(tuple(sorted(m, key=lambda p: -p.snr)) for m in found), flat, identical, silent)


def _cells(points: _Points, grid: Tensor, searched: Tensor) -> _Cells:
    """The cells of the grid in the rows to be searched."""
    row, cell = searched[:, None].expand(-1, len(grid) - 1).nonzero(as_tuple=True)
    left = _Points(points.value[row, cell], points.sign[row, cell], points.slope[row, cell])
    right = _Points(points.value[row, cell + 1], points.sign[row, cell + 1], points.slope[row, cell + 1])
    return _Cells(row, grid[cell], grid[cell + 1], left, right)


def _split(family: TiltFamily, cells: _Cells) -> _Cells:
    """Cut suspicious cells until none is left or `DEPTH` is reached."""
    done: list[_Cells] = []
    for _ in range(DEPTH):
        doubtful = cells.suspicious
        done.append(cells[~doubtful])
        cells = cells[doubtful]
        if len(cells.row) == 0:
            return _concatenate(done)
        share = torch.arange(SPLIT + 1, dtype=cells.low.dtype, device=cells.low.device) / SPLIT
        alpha = cells.low[:, None] + (cells.high - cells.low)[:, None] * share
        row = cells.row[:, None].expand_as(alpha)
        at = _evaluate(family, row.reshape(-1), alpha.reshape(-1))
        grid = _Points(*(x.reshape(alpha.shape) for x in (at.value, at.sign, at.slope)))

        def flatten(x: Tensor, part: slice) -> Tensor:
            return x[:, part].reshape(-1)

        first, last = slice(None, -1), slice(1, None)
        cells = _Cells(
            flatten(row, first),
            flatten(alpha, first),
            flatten(alpha, last),
            _Points(*(flatten(x, first) for x in (grid.value, grid.sign, grid.slope))),
            _Points(*(flatten(x, last) for x in (grid.value, grid.sign, grid.slope))),
        )
    return _concatenate([*done, cells])


def _concatenate(parts: list[_Cells]) -> _Cells:
    def join(pick: str) -> Tensor:
        owner, _, name = pick.rpartition(".")
        return torch.cat([getattr(getattr(p, owner) if owner else p, name) for p in parts])

    left, right = (_Points(*(join(f"{side}.{n}") for n in ("value", "sign", "slope"))) for side in ("left", "right"))
    return _Cells(join("row"), join("low"), join("high"), left, right)


def _add_plateaus(found: list[list[LocalMaximum]], grid: Tensor, points: _Points, searched: Tensor) -> None:
    """Enter the best grid point of each row where no bracketed maximum reaches it (a slope of 0 over a whole cell)."""
    best = points.value.argmax(-1)
    for i in searched.nonzero().squeeze(-1).tolist():
        k = int(best[i])
        snr = float(points.value[i, k].exp())
        if isfinite(snr) and snr > max((m.snr for m in found[i]), default=0.0) * (1 + 1e-6):
            bracket = (float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)]))
            slope, sign = float(points.slope[i, k]), int(points.sign[i, k])
            found[i].append(LocalMaximum(float(grid[k]), snr, sign, bracket, slope))


def _evaluate(family: TiltFamily, row: Tensor, alpha: Tensor) -> _Points:
    """log SNR, sign of Φ₁ and slope at the pairs (row, α), a few rows at a time."""
    step = max(1, (1 << 18) // family.ell.shape[-1])
    parts = [
        family.rows(row[i : i + step]).signal(alpha[i : i + step], normalised=False) for i in range(0, len(row), step)
    ]
    if not parts:
        return _Points(alpha, alpha, alpha)
    return _Points(*(torch.cat([getattr(p, name) for p in parts]) for name in ("log_snr", "sign", "log_slope")))


def _bracket_around(family: TiltFamily, row: Tensor, near: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The narrowest interval around `near` where the slope on all tokens still goes from rising to falling.

    An empty interval where there is none: the maximum is then left where the compressed row has it.
    """
    best_low, best_high = near.clone(), near.clone()
    for reach in reversed(REACHES):
        left, right = (near - reach).clamp(min=0), (near + reach).clamp(max=1)
        holds = (_evaluate(family, row, left).slope > 0) & (_evaluate(family, row, right).slope < 0)
        best_low, best_high = torch.where(holds, left, best_low), torch.where(holds, right, best_high)
    return best_low, best_high


def _zero_of_slope(family: TiltFamily, row: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The zero of d log SNR/dα inside each bracket (Chandrupatla's method, SciPy); `low` where the bracket is empty."""
    result = low.clone()
    open_ = low < high
    if not open_.any():
        return result

    def slope(alpha: np.ndarray, which: np.ndarray) -> np.ndarray:
        index = torch.as_tensor(which.astype(np.int64), device=row.device)
        return _evaluate(family, index, as_parameter(alpha, family.batch)).slope.cpu().numpy()

    ends = (low[open_].cpu().numpy(), high[open_].cpu().numpy())
    tolerances = {"xatol": 1e-11, "xrtol": 0.0, "fatol": 1e-13}
    root = elementwise.find_root(slope, ends, args=(row[open_].cpu().numpy(),), tolerances=tolerances)
    result[open_] = as_parameter(root.x, family.batch)
    return result
