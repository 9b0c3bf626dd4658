"""The sampling distributions that maximise SNR over the whole simplex, in closed form (document §4.1 calls this
infeasible).

Φ₁ = Cov_θ(π_t/π_θ, h), so SNR(q) ≤ √χ²(π_t‖π_θ) for every q by Cauchy–Schwarz, with equality iff h is affine in
π_t/π_θ. With the default reference h = w·ℓ, and w = π_θ/q reaches h = π_t/π_θ − 1 at q ∝ π_θ²/L(π_θ, π_t), w = q/π_θ
at q ∝ L(π_θ, π_t), L the logarithmic mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geomix_core.errors import CoverageError, OptionError
from geomix_core.geodesics import require_overlap
from geomix_core.numerics import log_logarithmic_mean
from geomix_core.policies import PolicyBatch
from geomix_core.tilts import WEIGHTS, Weights


def simplex_optimum(batch: PolicyBatch, weights: Weights = "importance") -> Tensor:
    """log q `[B, V]` of the distribution with SNR(q) = √χ²(π_t‖π_θ), the most that any distribution reaches.

    Args:
        batch: policies `[B, V]` with equal supports and the default reference.
        weights: "importance": q ∝ π_θ²/L(π_θ, π_t); "inverse": q ∝ L(π_θ, π_t).

    Raises OptionError for an independent reference (the bound need not be reached there) or an unknown convention,
    CoverageError where the supports differ, DisjointSupportError where they have nothing in common.
    """
    if weights not in WEIGHTS:
        raise OptionError(f"weights is {weights!r}: expected one of {', '.join(WEIGHTS)}.")
    if batch.reference is not None:
        raise OptionError("The closed form needs the default reference π_ref = π_θ: leave the reference out.")
    require_overlap(batch)
    unequal = ~batch.support.equal
    if unequal.any():
        raise CoverageError(
            f"{int(unequal.sum())} of {len(batch)} rows have a token that only one of the policies can produce "
            f"(first: row {int(unequal.nonzero()[0])}); the closed form needs equal supports. Use uncut logits, or "
            "smooth explicitly with geomix_core.transforms.smooth."
        )
    mean = log_logarithmic_mean(batch.theta, batch.target)
    logits = mean if weights == "inverse" else (2 * batch.theta - mean).masked_fill(~batch.common, -torch.inf)
    return logits - torch.logsumexp(logits, -1, keepdim=True)
