"""Three paths from π_t (parameter 0) to π_θ (parameter 1): e-geodesic, m-geodesic and Fisher–Rao arc.

The e-geodesic is the document's geometric family q_α ∝ π_θ^α π_t^(1−α) (§4.2): an exponential family with natural
parameter 1 − α and sufficient statistic ℓ. On unequal supports it lives on the common one, end points included
(there it is the limit: the policy restricted to the common support and renormalised).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad_vec
from torch import Tensor

from geomix_core.errors import DisjointSupportError
from geomix_core.numerics import row_max
from geomix_core.policies import PolicyBatch

Scalars = float | Tensor | np.ndarray
"""A number, or an array `[...]` that broadcasts against the rows `[B]` (a grid is `[A, 1]`)."""


@dataclass(frozen=True, eq=False)
class TiltedMoments:
    """log Z(α) and the first two cumulants of ℓ under q_α, all `[..., B]`, in nats."""

    alpha: Tensor
    log_partition: Tensor
    mean: Tensor
    variance: Tensor

    @property
    def delta(self) -> Tensor:
        """Δ(α) = KL(q_α‖π_θ) − KL(q_α‖π_t) = E_q[ℓ] (document §5.3, step 2)."""
        return self.mean

    @property
    def kl_to_theta(self) -> Tensor:
        """KL(q_α‖π_θ) = (1−α)Δ − log Z, nats."""
        return _above_rounding((1 - self.alpha) * self.mean - self.log_partition)

    @property
    def kl_to_target(self) -> Tensor:
        """KL(q_α‖π_t) = −αΔ − log Z, nats."""
        return _above_rounding(-self.alpha * self.mean - self.log_partition)


def _above_rounding(divergence: Tensor) -> Tensor:
    """A difference of numbers of order one carries rounding of 1e-16: what does not exceed it, or is negative, is 0."""
    return torch.where(divergence > 1e-15, divergence, torch.zeros_like(divergence))


def as_parameter(value: Scalars, batch: PolicyBatch) -> Tensor:
    """`value` as a tensor on the batch's device and in its dtype."""
    return torch.as_tensor(value, dtype=batch.theta.dtype, device=batch.theta.device)


def tilted_moments(batch: PolicyBatch, alpha: Scalars) -> TiltedMoments:
    """log Z, Δ and Var_{q_α}[ℓ] at α, which broadcasts against `[B]`; α may lie outside [0, 1].

    Raises DisjointSupportError if a row has no common support. Source: Cover & Thomas, ch. 11; Amari (2016), ch. 2.
    """
    require_overlap(batch)
    return moments_of(*batch.restricted, as_parameter(alpha, batch))


def moments_of(log_theta: Tensor, ell: Tensor, alpha: Tensor) -> TiltedMoments:
    """`tilted_moments` from log π_θ (−inf off the support) and ℓ (0 off the support), nothing checked."""
    x = log_theta + (1 - alpha)[..., None] * ell
    m = row_max(x)
    e = torch.exp(x - m)
    total = e.sum(-1)
    mean = (e * ell).sum(-1) / total
    variance = (e * (ell - mean[..., None]).square()).sum(-1) / total
    return TiltedMoments(alpha.expand(total.shape), total.log() + m.squeeze(-1), mean, variance)


def e_geodesic(batch: PolicyBatch, alpha: Scalars) -> Tensor:
    """log q_α, `[..., B, V]`: the geometric mixture π_θ^α π_t^(1−α)/Z_α (document §4.2).

    Raises DisjointSupportError if a row has no common support.
    """
    require_overlap(batch)
    log_theta, ell = batch.restricted
    x = log_theta + (1 - as_parameter(alpha, batch))[..., None] * ell
    return x - torch.logsumexp(x, -1, keepdim=True)


def m_geodesic(batch: PolicyBatch, s: Scalars) -> Tensor:
    """log of the mixture sπ_θ + (1−s)π_t, `[..., B, V]`."""
    s = as_parameter(s, batch)[..., None]
    return torch.logaddexp(s.log() + batch.theta, (1 - s).log() + batch.target)


def fisher_rao_arc(batch: PolicyBatch, s: Scalars) -> Tensor:
    """log p(s), `[..., B, V]`: the great-circle arc of √p, the shortest path in the Fisher–Rao metric.

    √p(s) = [sin(sω)√π_θ + sin((1−s)ω)√π_t]/sin ω with ω half the Fisher–Rao distance. Source: Rao (1945).
    """
    s = as_parameter(s, batch)[..., None]
    omega = fisher_rao_distance(batch)[..., None] / 2
    flat = omega < 1e-8
    safe = torch.where(flat, torch.ones_like(omega), omega)
    weight_theta = torch.where(flat, s, torch.sin(s * safe) / torch.sin(safe))
    weight_target = torch.where(flat, 1 - s, torch.sin((1 - s) * safe) / torch.sin(safe))
    root = weight_theta * (batch.theta / 2).exp() + weight_target * (batch.target / 2).exp()
    return 2 * root.log()


def fisher_rao_distance(batch: PolicyBatch) -> Tensor:
    """2ω = 2 arccos Σ√(π_θ π_t), `[B]`, from 0 (equal) to π (disjoint); accurate for near-identical policies."""
    gap = (batch.theta / 2).exp() - (batch.target / 2).exp()
    # Where both are positive, √π_t − √π_θ = √π_θ·(e^(ℓ/2) − 1) loses nothing to cancellation.
    close = batch.common & (batch.log_ratio.abs() < 1)
    fine = (batch.theta / 2).exp() * torch.expm1(batch.log_ratio / 2)
    squared_hellinger = torch.where(close, fine, gap).square().sum(-1) / 2
    return 4 * torch.arcsin((squared_hellinger / 2).sqrt().clamp(max=0.5**0.5))


@dataclass(frozen=True, eq=False)
class PathLengths:
    """Fisher–Rao length of each path between π_θ and π_t, `[B]`. The first is the distance: no path is shorter."""

    fisher_rao: Tensor
    e_geodesic: Tensor
    m_geodesic: Tensor


def path_lengths(batch: PolicyBatch, tolerance: float = 1e-8) -> PathLengths:
    """Lengths in the Fisher–Rao metric: 2ω, ∫√Var_{q_α}[ℓ] dα and ∫√(Σ(π_t−π_θ)²/m_s) ds, to `tolerance`.

    On unequal supports the e-geodesic's length is that of its part on the common support.
    """
    gap = batch.target.exp() - batch.theta.exp()

    def e_speed(alpha: float) -> np.ndarray:
        return tilted_moments(batch, alpha).variance.sqrt().cpu().numpy()

    def m_speed(u: float) -> np.ndarray:
        # s = sin²(u) removes the end-point singularity 1/√s that unequal supports bring.
        s, jacobian = np.sin(u) ** 2, np.sin(2 * u)
        mixture = m_geodesic(batch, s).exp()
        density = torch.where(mixture > 0, (gap / mixture.sqrt()).square(), torch.zeros_like(gap))
        speed: np.ndarray = density.sum(-1).sqrt().cpu().numpy() * jacobian
        return speed

    options = {"epsabs": tolerance, "epsrel": tolerance, "norm": "max"}
    e_length = quad_vec(e_speed, 0.0, 1.0, **options)[0]
    m_length = quad_vec(m_speed, 0.0, np.pi / 2, **options)[0]
    return PathLengths(fisher_rao_distance(batch), as_parameter(e_length, batch), as_parameter(m_length, batch))


def require_overlap(batch: PolicyBatch) -> None:
    """Raise DisjointSupportError if a row of the batch has an empty common support."""
    empty = batch.support.common_size == 0
    if empty.any():
        raise DisjointSupportError(
            f"{int(empty.sum())} of {len(batch)} rows have no token with positive probability under both policies "
            f"(first: row {int(empty.nonzero()[0])}): no geometric mixture exists there."
        )
