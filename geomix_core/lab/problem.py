"""One row prepared for sampling experiments."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from geomix_core.divergences import kl
from geomix_core.errors import ShapeError
from geomix_core.numerics import NEG_INF
from geomix_core.policies import PolicyBatch
from geomix_core.tilts import TiltFamily, Weights


class Problem:
    """One row `[1, V]`: where an update starts, where it should go, and the reward.

    No update reaches a token outside the support of π_θ, so progress is measured on that support: `log_target` is π_t
    conditioned on it.
    """

    def __init__(self, batch: PolicyBatch, weights: Weights = "importance") -> None:
        """`weights`: the document's w = π_θ/q, or "inverse", w = q/π_θ; α_SNR, α_Wald and the seed's tilt depend on it.

        Raises ShapeError for more than one row, DisjointSupportError, and CoverageError where π_θ can produce a token
        that π_t (or the reference) cannot.
        """
        if len(batch) != 1:
            raise ShapeError(f"The lab takes one row at a time, but got {len(batch)}: choose one with batch.rows(i).")
        family = TiltFamily(batch, weights)
        self.batch, self.weights = batch, weights
        self.log_theta: Tensor = family.log_theta[0]
        self.log_target: Tensor = family.log_target[0].masked_fill(family.log_theta[0] == NEG_INF, NEG_INF)

    @cached_property
    def ceiling(self) -> float:
        """KL(π_t‖π_θ) on the support of π_θ, nats: no update gains more."""
        return float(kl(self.log_target, self.log_theta))

    @cached_property
    def order(self) -> Tensor:
        """Tokens by ℓ `[V]`: in this order a uniform number draws tokens of like ℓ from every distribution."""
        ell = (self.log_target - self.log_theta).masked_fill(self.log_theta == NEG_INF, NEG_INF)
        return ell.argsort(stable=True)
