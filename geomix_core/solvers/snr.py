"""α_SNR: every local maximum of SNR on [0, 1], and the highest of them (document §5.1).

|Φ₁|/√Φ₂ can have several local maxima, and touches 0 where Φ₁ changes sign; `maxima` searches for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from geomix_core.compression import compress
from geomix_core.policies import PolicyBatch
from geomix_core.solvers.maxima import FLATNESS, GRID, LocalMaximum, Points, on_grid, search
from geomix_core.tilts import TiltFamily, Weights

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
    """log SNR along the family, its slope, and the sign of Φ₁."""

    def __init__(self, family: TiltFamily) -> None:
        self.family = family
        self.tokens = family.ell.shape[-1]

    def __call__(self, row: Tensor | slice, alpha: Tensor) -> Points:
        signal = self.family.rows(row).signal(alpha, normalised=False)
        return Points(signal.log_snr, signal.sign, signal.log_slope)

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
    return Maxima(search(coarse, fine, grid, points, searched), flat, identical, silent)
