"""What to say of one pair of policies at a glance, and of one point (α, η) on its family: exact, on all tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from geomix_core.divergences import chi2, entropy, ess_fraction, kl, total_variation
from geomix_core.geodesics import tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights, exact_progress, exact_step, learning_signal


@dataclass(frozen=True, slots=True)
class PairSummary:
    """Divergences of one pair, in nats where they have a unit; +inf where a support is exceeded."""

    vocab_size: int
    entropy_theta: float
    entropy_target: float
    kl_target_theta: float
    kl_theta_target: float
    chi2: float
    total_variation: float
    common_size: int
    theta_size: int
    target_size: int
    theta_mass: float
    target_mass: float
    covered: bool
    disjoint: bool

    @property
    def snr_ceiling(self) -> float:
        """√χ²(π_t‖π_θ), the bound on SNR(q) for every q."""
        return float(np.sqrt(self.chi2))


@dataclass(frozen=True, slots=True)
class FamilyPoint:
    """q_α at one α: log Z, Δ, KLs (nats) and ESS (share of N)."""

    alpha: float
    log_partition: float
    delta: float
    kl_to_theta: float
    kl_to_target: float
    ess: float


@dataclass(frozen=True, slots=True)
class LearningPoint:
    """Learning from q_α at one α: Φ₁, Φ₂, signed SNR, both best steps, and what they gain (nats)."""

    alpha: float
    phi1: float
    phi2: float
    signed_snr: float
    quadratic_step: float
    quadratic_gain: float
    exact_step: float
    exact_gain: float
    progress_at_quadratic_step: float


@dataclass(frozen=True, eq=False)
class RatioHistogram:
    """The distribution of ℓ under each policy: bin edges `[n+1]` (nats) and masses `[n]`, common support only."""

    edges: np.ndarray
    theta: np.ndarray
    target: np.ndarray


def pair_summary(row: PolicyBatch) -> PairSummary:
    """Entropies, KLs, χ², TV and overlap of supports of a one-row batch."""
    support = row.support
    return PairSummary(
        vocab_size=row.vocab_size,
        entropy_theta=entropy(row.theta).item(),
        entropy_target=entropy(row.target).item(),
        kl_target_theta=kl(row.target, row.theta).item(),
        kl_theta_target=kl(row.theta, row.target).item(),
        chi2=chi2(row.target, row.theta).item(),
        total_variation=total_variation(row.theta, row.target).item(),
        common_size=int(support.common_size),
        theta_size=int(support.theta_size),
        target_size=int(support.target_size),
        theta_mass=support.theta_mass.item(),
        target_mass=support.target_mass.item(),
        covered=bool(row.covered),
        disjoint=int(support.common_size) == 0,
    )


def family_point(row: PolicyBatch, alpha: float) -> FamilyPoint:
    """q_α at one α for a one-row batch. Raises DisjointSupportError."""
    moments = tilted_moments(row, alpha)
    return FamilyPoint(
        alpha,
        moments.log_partition.item(),
        moments.delta.item(),
        moments.kl_to_theta.item(),
        moments.kl_to_target.item(),
        ess_fraction(row, alpha).item(),
    )


def learning_point(row: PolicyBatch, alpha: float, weights: Weights = "importance") -> LearningPoint:
    """Signal, noise and best steps at one α for a one-row batch. Raises CoverageError, DisjointSupportError."""
    signal = learning_signal(row, alpha, weights)
    step, quadratic = exact_step(row, alpha, weights), signal.quadratic_step
    # An unbounded step approaches its supremum; a million quadratic steps are as good as infinitely many.
    reached = torch.where(step.isfinite(), step, 1e6 * quadratic)
    return LearningPoint(
        alpha,
        signal.phi1.item(),
        signal.phi2.item(),
        signal.signed_snr.item(),
        quadratic.item(),
        signal.quadratic_gain.item(),
        step.item(),
        exact_progress(row, alpha, reached, weights).item(),
        exact_progress(row, alpha, quadratic, weights).item(),
    )


def ratio_histogram(row: PolicyBatch, bins: int = 60, coverage: float = 0.999) -> RatioHistogram:
    """How ℓ is distributed under π_θ and π_t, over the range that holds `coverage` of both masses."""
    common = row.common[0]
    ell = row.log_ratio[0][common].cpu().numpy()
    weights = [x[0][common].exp().cpu().numpy() for x in (row.theta, row.target)]
    order = np.argsort(ell)
    both = (weights[0] + weights[1])[order]
    reach = np.cumsum(both) / both.sum()
    tail = (1 - coverage) / 2
    low, high = ell[order][np.searchsorted(reach, [tail, 1 - tail]).clip(max=len(ell) - 1)]
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    theta, target = (np.histogram(ell.clip(low, high), edges, weights=w)[0] for w in weights)
    return RatioHistogram(edges, theta, target)


def top_tokens(row: PolicyBatch, count: int = 16) -> np.ndarray:
    """Indices of the tokens that matter: the largest by the larger of their two probabilities, in that order."""
    score = torch.maximum(row.theta[0], row.target[0])
    return score.topk(min(count, row.vocab_size)).indices.cpu().numpy()
