"""α_Wald: the maximum over α of the worst exact progress over a range of learning rates (document §3.3).

Progress is concave in η, so the worst η of a range is one of its ends and the inner minimum is exact. The maximum of
the smaller of two curves may lie where they cross, which `maxima` finds like any other change from rising to falling.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geomix_core.compression import compress
from geomix_core.divergences import kl
from geomix_core.geodesics import as_parameter
from geomix_core.policies import PolicyBatch
from geomix_core.solvers.maxima import FLATNESS, Points, on_grid, search
from geomix_core.solvers.snr import Maxima, identical_or_silent
from geomix_core.tilts import TiltFamily, Weights

EtaRange = tuple[float, float]


class _WorstProgress:
    """min over the ends of the η range of Progress(q_α; η), as a share of KL(π_t‖π_θ), the most there is to gain.

    Below zero progress has no floor, so its logarithm is taken there: x for x ≥ 0, −log(1 − x) for x < 0. That keeps
    the order of values and is smooth, and losses of any size remain numbers.
    """

    def __init__(self, batch: PolicyBatch, weights: Weights, eta_range: EtaRange) -> None:
        self.family = TiltFamily(batch, weights)
        self.tokens = 2 * self.family.ell.shape[-1]
        self.ends = as_parameter(np.array(eta_range, dtype=np.float64), batch)[:, None]
        self.scale = kl(self.family.log_target, self.family.log_theta).clamp(min=torch.finfo(batch.theta.dtype).tiny)

    def __call__(self, row: Tensor | slice, alpha: Tensor) -> Points:
        family, scale = self.family.rows(row), self.scale[row]
        progress = family.progress(alpha, self.ends) / scale
        worse = progress.argmin(0)
        share = progress.gather(0, worse[None])[0]
        slope = family.progress_slope(alpha, self.ends[worse, 0]) / scale
        value = torch.where(share < 0, -torch.log1p(-share), share)
        return Points(value, 2.0 * worse - 1, torch.where(share < 0, slope / (1 - share), slope))

    def report(self, row: Tensor, points: Points) -> tuple[Tensor, Tensor]:
        losing = points.value < 0
        share = torch.where(losing, -torch.expm1(-points.value), points.value)
        return self.scale[row] * share, self.scale[row] * torch.where(losing, points.slope * (1 - share), points.slope)


def find_wald_maxima(batch: PolicyBatch, weights: Weights, eta_range: EtaRange) -> Maxima:
    """All local maxima of worst-case progress on [0, 1] for rows that have coverage."""
    small = compress(batch)
    coarse = _WorstProgress(small, weights, eta_range)
    fine = coarse if small is batch else _WorstProgress(batch, weights, eta_range)
    identical, silent = identical_or_silent(coarse.family)
    grid, points = on_grid(coarse, len(batch), batch.theta)
    flat = ~identical & ~silent & (points.value.amax(-1) - points.value.amin(-1) <= FLATNESS)
    return Maxima(search(coarse, fine, grid, points, ~identical & ~silent & ~flat), flat, identical, silent)
