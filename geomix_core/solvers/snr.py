"""α_SNR: every local maximum of SNR on [0, 1], and the highest of them (document §5.1).

|Φ₁|/√Φ₂ can have several local maxima, and touches 0 where Φ₁ changes sign; `maxima` searches for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geomix_core.compression import compress
from geomix_core.policies import PolicyBatch
from geomix_core.solvers.maxima import FLATNESS, GRID, LocalMaximum, Points, on_grid, search
from geomix_core.tilts import TiltFamily, Weights

ASIDE = 1e-6
"""How far from an α where SNR is 0/0 its limit is read, and a maximum there is reported."""

EQUAL = 1e-13
"""Total variation below which two policies are equal to rounding; and |r| below which there is no reward."""


@dataclass(frozen=True, eq=False)
class Maxima:
    """Per row: all local maxima, highest first (empty where there is nothing to search, or a value is out of range)."""

    rows: tuple[tuple[LocalMaximum, ...], ...]
    flat: Tensor
    identical: Tensor
    silent: Tensor
    """Boolean `[B]`: the reward is zero wherever π_θ > 0, so SNR is 0/0."""


class _LogSnr:
    """log SNR along the family, its slope, and the sign of Φ₁.

    Where h is constant (at α = 1, if r is constant on π_θ's tokens) SNR is 0/0, and its limit is taken.
    """

    def __init__(self, family: TiltFamily) -> None:
        self.family = family
        self.tokens = family.ell.shape[-1]

    def __call__(self, row: Tensor | slice, alpha: Tensor) -> Points:
        family = self.family.rows(row)
        signal = family.signal(alpha, normalised=False)
        points = Points(signal.log_snr, signal.sign, signal.log_slope)
        hole = signal.log_phi2 == -torch.inf
        if hole.any():
            near = family.signal(torch.where(alpha > 0.5, alpha - ASIDE, alpha + ASIDE), normalised=False)
            beside = Points(near.log_snr, near.sign, near.log_slope)
            pairs = zip(vars(points).values(), vars(beside).values(), strict=True)
            points = Points(*(torch.where(hole, limit, value) for value, limit in pairs))
        return points

    def report(self, row: Tensor, points: Points) -> tuple[Tensor, Tensor]:
        return points.value.exp(), points.slope


def identical_or_silent(family: TiltFamily) -> tuple[Tensor, Tensor]:
    """Boolean `[B]` each: the policies are equal to rounding; or they differ but the reward is zero throughout."""
    identical = family.log_abs_gap.exp().sum(-1) / 2 <= EQUAL
    reward = (family.log_abs_reward.exp() * (family.log_theta.exp() > 0)).amax(-1)
    return identical, ~identical & reward.le(EQUAL)


def find_maxima(batch: PolicyBatch, weights: Weights = "importance", grid_points: int = GRID) -> Maxima:
    """All local maxima of SNR(α) on [0, 1] for rows that have coverage; global up to the resolution of the search."""
    small = compress(batch)
    coarse = _LogSnr(TiltFamily(small, weights))
    fine = coarse if small is batch else _LogSnr(TiltFamily(batch, weights))
    identical, silent = identical_or_silent(coarse.family)
    grid, points = on_grid(coarse, len(batch), batch.theta, grid_points)
    value = points.value
    flat = ~identical & ~silent & (value.amax(-1) - value.amin(-1) <= FLATNESS)
    searched = ~identical & ~silent & ~flat & value.amax(-1).isfinite()
    rows = search(coarse, fine, grid, points, searched)
    holes = [(coarse.family.signal(end).log_phi2 == -torch.inf).tolist() for end in (0.0, 1.0)]
    if any(map(any, holes)):
        rows = tuple(tuple(_aside(m, holes[0][i], holes[1][i]) for m in row) for i, row in enumerate(rows))
    return Maxima(rows, flat, identical, silent)


def _aside(maximum: LocalMaximum, at_zero: bool, at_one: bool) -> LocalMaximum:
    """A maximum at an end where SNR itself is 0/0, moved to where it is defined."""
    if at_one and maximum.alpha == 1:
        return replace(maximum, alpha=1 - ASIDE)
    return replace(maximum, alpha=ASIDE) if at_zero and maximum.alpha == 0 else maximum
