"""Every local maximum on [0, 1] of a function of α whose slope is known, row by row; so the global one, too.

Neither SNR(α) nor worst-case progress is unimodal, so a unimodal search (golden section, as the document proposes)
can end on the wrong maximum. Here the exact slope is evaluated on a grid; cells that may hide more than their ends
show are split; every change from rising to falling then brackets one maximum, which a bracketing root finder
polishes. Large vocabularies are searched on their compressed form, and what is found there is polished and ranked on
all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import elementwise
from torch import Tensor

GRID = 65
"""Grid points on [0, 1] before any cell is split."""

SPLIT, DEPTH = 8, 4
"""A suspicious cell is cut into this many, at most this many times over."""

FLATNESS = 1e-9
"""A scale-free value that varies by less than this along the family counts as constant."""

ROUNDING = 1e-12
"""A maximum must rise above both ends of its bracket by more than this."""

LEVEL = 1e-10
"""An end point is a maximum if the value falls away from it with more than this slope: less is rounding."""

CHUNK = 1 << 18
"""Logits at most in one evaluation."""

REACHES = (1e-4, 1e-3, 1 / 128)
"""Half-widths of the intervals in which a maximum of the compressed row is sought on all tokens."""


@dataclass(frozen=True, slots=True)
class LocalMaximum:
    """One local maximum: where, how high, and the interval that brackets it."""

    alpha: float
    value: float
    """SNR, or worst-case progress in nats."""
    sign: int
    """For SNR that of Φ₁; for worst-case progress −1 where the lower end of the η range is the worse, 1 the upper."""
    bracket: tuple[float, float]
    slope: float
    """d log SNR/dα, or dProgress/dα at the worse end: about 0 inside, of one sign at an end point or a crossing."""


@dataclass(frozen=True, eq=False)
class Points:
    """A scale-free value (log SNR, or progress in units of KL), its slope in α, and a sign that marks the branch."""

    value: Tensor
    sign: Tensor
    slope: Tensor

    def __getitem__(self, index: Tensor | slice) -> Points:
        return Points(self.value[index], self.sign[index], self.slope[index])


class Objective(Protocol):
    """What is maximised."""

    tokens: int
    """Tokens (or atoms) a row: how much one evaluation costs."""

    def __call__(self, row: Tensor | slice, alpha: Tensor) -> Points:
        """At the pairs (row, α), both `[n]`."""

    def report(self, row: Tensor, points: Points) -> tuple[Tensor, Tensor]:
        """Value and slope in the units of `LocalMaximum`."""


def on_grid(objective: Objective, rows: int, like: Tensor, grid_points: int = GRID) -> tuple[Tensor, Points]:
    """(grid `[A]`, values on it `[B, A]`)."""
    grid = torch.linspace(0, 1, grid_points, dtype=like.dtype, device=like.device)
    if rows * grid_points * objective.tokens <= CHUNK:
        # A few small rows: all at once, for one α at a time would cost more in calls than in sums.
        row = torch.arange(rows, device=like.device).repeat_interleave(grid_points)
        at = _evaluate(objective, row, grid.repeat(rows))
        return grid, Points(*(x.reshape(rows, grid_points) for x in (at.value, at.sign, at.slope)))
    step = max(1, CHUNK // objective.tokens)
    chunks = [slice(i, min(i + step, rows)) for i in range(0, rows, step)]
    parts = [[objective(chunk, a.expand(chunk.stop - chunk.start)) for a in grid] for chunk in chunks]
    columns = ([torch.stack([getattr(p, n) for p in part], -1) for part in parts] for n in ("value", "sign", "slope"))
    return grid, Points(*map(torch.cat, columns))


def search(
    coarse: Objective, fine: Objective, grid: Tensor, points: Points, searched: Tensor
) -> tuple[tuple[LocalMaximum, ...], ...]:
    """Every local maximum of the rows `searched` (boolean `[B]`), highest first; `fine` is `coarse` on all tokens."""
    found: list[list[LocalMaximum]] = [[] for _ in range(len(searched))]
    cells = _split(coarse, _cells(points, grid, searched))
    cells = cells[cells.hides_maximum]
    peaks = _zero_of_slope(coarse, cells.row, cells.low, cells.high)
    height = _evaluate(coarse, cells.row, peaks).value
    real = height - torch.maximum(cells.left.value, cells.right.value) > ROUNDING
    row, low, high, peaks = cells.row[real], cells.low[real], cells.high[real], peaks[real]
    if fine is not coarse:
        low, high = _bracket_around(fine, row, peaks, low, high)
        peaks = torch.where(low < high, _zero_of_slope(fine, row, low, high), peaks)

    at_zero = (_falls_inward(points.value, -points.slope[:, 0]) & searched).nonzero()[:, 0]
    at_one = (_falls_inward(points.value.flip(-1), points.slope[:, -1]) & searched).nonzero()[:, 0]
    rows = torch.cat([row, at_zero, at_one])
    alphas = torch.cat([peaks, grid.new_zeros(len(at_zero)), grid.new_ones(len(at_one))])
    lows = torch.cat([low, grid.new_zeros(len(at_zero)), grid[-2].expand(len(at_one))])
    highs = torch.cat([high, grid[1].expand(len(at_zero)), grid.new_ones(len(at_one))])
    there = _evaluate(fine, rows, alphas)
    values, slopes = fine.report(rows, there)
    for i, a, lo, hi, value, s, d in zip(
        *(x.tolist() for x in (rows, alphas, lows, highs, values, there.sign, slopes)), strict=True
    ):
        if isfinite(value):
            found[i].append(LocalMaximum(a, value, int(s), (lo, hi), d))
    _add_plateaus(fine, found, grid, points, searched)
    return tuple(tuple(sorted(m, key=lambda p: -p.value)) for m in found)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Intervals [low, high] of α in given rows, with what is known at their ends; all `[cells]`."""

    row: Tensor
    low: Tensor
    high: Tensor
    left: Points
    right: Points

    def __getitem__(self, index: Tensor) -> _Cells:
        return _Cells(self.row[index], self.low[index], self.high[index], self.left[index], self.right[index])

    @property
    def hides_maximum(self) -> Tensor:
        """Rising at the left end, falling at the right."""
        return (self.left.slope > 0) & (self.right.slope < 0)

    @property
    def suspicious(self) -> Tensor:
        """The branch changes inside, the value falls and rises again (SNR touches 0 there, and a short stretch of the
        other sign may lie between), or it does not change by what the slopes at the ends say."""
        width = self.high - self.low
        steep = width * (self.left.slope.abs() + self.right.slope.abs())
        change = self.right.value - self.left.value
        error = (change - width * (self.left.slope + self.right.slope) / 2).nan_to_num(nan=torch.inf).abs()
        valley = (self.left.slope < 0) & (self.right.slope > 0)
        return valley | (self.left.sign != self.right.sign) | (error > 1e-3 + 0.05 * steep)


def _cells(points: Points, grid: Tensor, searched: Tensor) -> _Cells:
    """The cells of the grid in the rows to be searched."""
    row, cell = searched[:, None].expand(-1, len(grid) - 1).nonzero(as_tuple=True)
    left = Points(points.value[row, cell], points.sign[row, cell], points.slope[row, cell])
    right = Points(points.value[row, cell + 1], points.sign[row, cell + 1], points.slope[row, cell + 1])
    return _Cells(row, grid[cell], grid[cell + 1], left, right)


def _falls_inward(value: Tensor, steepness: Tensor) -> Tensor:
    """Boolean `[B]`: the first end of `value` `[B, A]` is a maximum, given its slope outwards.

    Where that slope is rounding, the first grid point that differs from the end decides: a plateau that falls at its
    far side is a maximum as well, and is entered at its end.
    """
    drop = value[:, :1] - value
    differs = (drop.abs() > FLATNESS).to(torch.int8)
    first = drop.gather(-1, differs.argmax(-1, keepdim=True))[:, 0]
    return torch.where(steepness.abs() <= LEVEL, first > FLATNESS, steepness > 0)


def _split(objective: Objective, cells: _Cells) -> _Cells:
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
        at = _evaluate(objective, row.reshape(-1), alpha.reshape(-1))
        grid = Points(*(x.reshape(alpha.shape) for x in (at.value, at.sign, at.slope)))

        def flatten(x: Tensor, part: slice) -> Tensor:
            return x[:, part].reshape(-1)

        first, last = slice(None, -1), slice(1, None)
        cells = _Cells(
            flatten(row, first),
            flatten(alpha, first),
            flatten(alpha, last),
            Points(*(flatten(x, first) for x in (grid.value, grid.sign, grid.slope))),
            Points(*(flatten(x, last) for x in (grid.value, grid.sign, grid.slope))),
        )
    return _concatenate([*done, cells])


def _concatenate(parts: list[_Cells]) -> _Cells:
    def join(pick: str) -> Tensor:
        owner, _, name = pick.rpartition(".")
        return torch.cat([getattr(getattr(p, owner) if owner else p, name) for p in parts])

    left, right = (Points(*(join(f"{side}.{n}") for n in ("value", "sign", "slope"))) for side in ("left", "right"))
    return _Cells(join("row"), join("low"), join("high"), left, right)


def _add_plateaus(
    fine: Objective, found: list[list[LocalMaximum]], grid: Tensor, points: Points, searched: Tensor
) -> None:
    """Enter the best grid point of each row where no bracketed maximum reaches it (a slope of 0 over a whole cell)."""
    rows = searched.nonzero().squeeze(-1)
    best = points.value[rows].argmax(-1)
    there = _evaluate(fine, rows, grid[best])
    values, slopes = fine.report(rows, there)
    columns = (x.tolist() for x in (rows, best, values, there.sign, slopes))
    for i, k, value, sign, slope in zip(*columns, strict=True):
        top = max((m.value for m in found[i]), default=-torch.inf)
        if isfinite(value) and value > top + 1e-6 * abs(top if isfinite(top) else value):
            bracket = (float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)]))
            found[i].append(LocalMaximum(float(grid[k]), value, int(sign), bracket, slope))


def _evaluate(objective: Objective, row: Tensor, alpha: Tensor) -> Points:
    """The objective at the pairs (row, α), a few rows at a time."""
    step = max(1, CHUNK // objective.tokens)
    parts = [objective(row[i : i + step], alpha[i : i + step]) for i in range(0, len(row), step)]
    if not parts:
        return Points(alpha, alpha, alpha)
    return Points(*(torch.cat([getattr(p, name) for p in parts]) for name in ("value", "sign", "slope")))


def _bracket_around(
    objective: Objective, row: Tensor, near: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """The narrowest interval around `near` where the slope on all tokens still goes from rising to falling.

    An empty interval where there is none: the maximum is then left where the compressed row has it.
    """
    best_low, best_high = near.clone(), near.clone()
    for reach in reversed(REACHES):
        left, right = (near - reach).clamp(min=0), (near + reach).clamp(max=1)
        holds = (_evaluate(objective, row, left).slope > 0) & (_evaluate(objective, row, right).slope < 0)
        best_low, best_high = torch.where(holds, left, best_low), torch.where(holds, right, best_high)
    return best_low, best_high


def _zero_of_slope(objective: Objective, row: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where the slope changes sign in each bracket (Chandrupatla's method, SciPy); `low` where the bracket is empty."""
    result = low.clone()
    open_ = low < high
    if not open_.any():
        return result

    def slope(alpha: np.ndarray, which: np.ndarray) -> np.ndarray:
        index = torch.as_tensor(which.astype(np.int64), device=row.device)
        at = torch.as_tensor(alpha, dtype=low.dtype, device=low.device)
        return _evaluate(objective, index, at).slope.cpu().numpy()

    ends = (low[open_].cpu().numpy(), high[open_].cpu().numpy())
    tolerances = {"xatol": 1e-11, "xrtol": 0.0, "fatol": 1e-13}
    root = elementwise.find_root(slope, ends, args=(row[open_].cpu().numpy(),), tolerances=tolerances)
    result[open_] = torch.as_tensor(root.x, dtype=low.dtype, device=low.device)
    return result
