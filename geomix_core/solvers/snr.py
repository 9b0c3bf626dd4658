"""α_SNR: every local maximum of SNR on [0, 1], and the highest of them (document §5.1).

|Φ₁|/√Φ₂ can have several local maxima, and touches 0 where Φ₁ changes sign, so a unimodal search (golden section,
as the document proposes) can end on the wrong one. Here the exact slope d log SNR/dα is evaluated on a grid; every
change from rising to falling brackets one maximum, which a bracketing root finder polishes. Large vocabularies are
searched on their compressed form, and what is found there is polished and ranked on all tokens.
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
"""Grid points on [0, 1]. Two maxima inside one cell, 1/64 wide, would be taken for one."""

FLATNESS = 1e-9
"""log SNR that varies by less than this along the family counts as constant."""

NARROW = 1e-4
"""Half-width of the interval in which a maximum of the compressed row is sought on all tokens."""


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
    """Per row: all local maxima, highest first (empty where SNR is flat, zero or out of range)."""

    rows: tuple[tuple[LocalMaximum, ...], ...]
    flat: Tensor
    zero: Tensor
    """Boolean `[B]`: Φ₁ = 0 for every α."""


def find_maxima(batch: PolicyBatch, weights: Weights = "importance", grid_points: int = GRID) -> Maxima:
    """All local maxima of SNR(α) on [0, 1] for rows that have coverage; global up to the grid's resolution."""
    small = compress(batch)
    family = TiltFamily(small, weights)
    grid = torch.linspace(0, 1, grid_points, dtype=batch.theta.dtype, device=batch.theta.device)
    signals = [family.signal(a, normalised=False) for a in grid]
    log_snr = torch.stack([s.log_snr for s in signals], -1)
    slope = torch.stack([s.log_slope for s in signals], -1)
    sign = torch.stack([s.sign for s in signals], -1)
    zero = (sign == 0).all(-1)
    flat = ~zero & (log_snr.amax(-1) - log_snr.amin(-1) <= FLATNESS)
    searched = ~zero & ~flat & log_snr.amax(-1).isfinite()

    rising, falling = slope > 0, slope < 0
    row, cell = (rising[:, :-1] & falling[:, 1:] & searched[:, None]).nonzero(as_tuple=True)
    low, high = grid[cell], grid[cell + 1]
    if small is not batch:
        near = _zero_of_slope(family, row, low, high)
        family = TiltFamily(batch, weights)
        low, high = _bracket_around(family, row, near, low, high)
    peaks = _zero_of_slope(family, row, low, high)

    at_zero, at_one = (falling[:, 0] & searched).nonzero()[:, 0], (rising[:, -1] & searched).nonzero()[:, 0]
    rows = torch.cat([row, at_zero, at_one])
    alphas = torch.cat([peaks, grid.new_zeros(len(at_zero)), grid.new_ones(len(at_one))])
    lows = torch.cat([low, grid.new_zeros(len(at_zero)), grid[-2].expand(len(at_one))])
    highs = torch.cat([high, grid[1].expand(len(at_zero)), grid.new_ones(len(at_one))])
    snr, phi_sign, end_slope = _evaluate(family, rows, alphas)
    found: list[list[LocalMaximum]] = [[] for _ in range(len(batch))]
    for i, a, lo, hi, value, s, d in zip(
        *(x.tolist() for x in (rows, alphas, lows, highs, snr, phi_sign, end_slope)), strict=True
    ):
        if isfinite(value):
            found[i].append(LocalMaximum(a, value, int(s), (lo, hi), d))
    _add_plateaus(found, grid, log_snr, sign, slope, searched)
    return Maxima(tuple(tuple(sorted(maxima, key=lambda m: -m.snr)) for maxima in found), flat, zero)


def _add_plateaus(
    found: list[list[LocalMaximum]], grid: Tensor, log_snr: Tensor, sign: Tensor, slope: Tensor, searched: Tensor
) -> None:
    """Enter the best grid point of each row where no bracketed maximum reaches it (a slope of 0 over a whole cell)."""
    best = log_snr.argmax(-1)
    for i in searched.nonzero().squeeze(-1).tolist():
        k = int(best[i])
        snr = float(log_snr[i, k].exp())
        if isfinite(snr) and snr > max((m.snr for m in found[i]), default=0.0) * (1 + 1e-6):
            bracket = (float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)]))
            found[i].append(LocalMaximum(float(grid[k]), snr, int(sign[i, k]), bracket, float(slope[i, k])))


def _evaluate(family: TiltFamily, row: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SNR, sign of Φ₁ and slope at the pairs (row, α), a few rows at a time."""
    step = max(1, (1 << 18) // family.ell.shape[-1])
    parts = [
        family.rows(row[i : i + step]).signal(alpha[i : i + step], normalised=False) for i in range(0, len(row), step)
    ]
    if not parts:
        return alpha, alpha, alpha
    return (
        torch.cat([p.snr for p in parts]),
        torch.cat([p.sign for p in parts]),
        torch.cat([p.log_slope for p in parts]),
    )


def _bracket_around(family: TiltFamily, row: Tensor, near: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """A narrow interval around `near` where the slope still goes from rising to falling, else the whole cell."""
    left, right = torch.maximum(low, near - NARROW), torch.minimum(high, near + NARROW)
    holds = (_evaluate(family, row, left)[2] > 0) & (_evaluate(family, row, right)[2] < 0)
    return torch.where(holds, left, low), torch.where(holds, right, high)


def _zero_of_slope(family: TiltFamily, row: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The zero of d log SNR/dα inside each bracket (Chandrupatla's method, SciPy)."""
    if len(row) == 0:
        return low

    def slope(alpha: np.ndarray, which: np.ndarray) -> np.ndarray:
        index = torch.as_tensor(which.astype(np.int64), device=row.device)
        return _evaluate(family, index, as_parameter(alpha, family.batch))[2].cpu().numpy()

    ends = (low.cpu().numpy(), high.cpu().numpy())
    tolerances = {"xatol": 1e-11, "xrtol": 0.0, "fatol": 1e-13}
    root = elementwise.find_root(slope, ends, args=(row.cpu().numpy(),), tolerances=tolerances)
    return as_parameter(root.x, family.batch)
