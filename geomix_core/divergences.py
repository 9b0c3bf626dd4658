"""Divergences between policies, given as log-probabilities `[..., V]`; they return `[...]`, in nats."""

import torch
from torch import Tensor

from geomix_core.geodesics import Scalars, as_parameter, tilted_moments
from geomix_core.numerics import NEG_INF, log_expm1_abs, mul_where
from geomix_core.policies import PolicyBatch


def entropy(log_p: Tensor) -> Tensor:
    """H(p) = −Σ p log p."""
    return -mul_where(log_p.exp(), log_p).sum(-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) = Σ p log(p/q); +inf where p > 0 = q.

    Summed as p(u + e^(−u) − 1), u = log(p/q): every term is ≥ 0, so near-identical policies keep their digits.
    """
    p, q = log_p.exp(), log_q.exp()
    u = torch.where(log_p == NEG_INF, torch.zeros_like(log_p), log_p - log_q)
    near = p * (u + torch.expm1(-u.clamp(min=-1)))
    far = p * u + (q - p)
    terms = torch.where(u < -1, far, near)
    return torch.where(log_p == NEG_INF, q, terms).sum(-1)


def renyi(log_p: Tensor, log_q: Tensor, order: float) -> Tensor:
    """Rényi divergence D_order(p‖q) = log Σ p^order q^(1−order) / (order − 1), order > 0; order 1 is KL.

    Source: van Erven & Harremoës (2014).
    """
    if order == 1:
        return kl(log_p, log_q)
    in_p, in_q = log_p != NEG_INF, log_q != NEG_INF
    both = in_p & in_q
    exponent = order * log_p.masked_fill(~both, 0) + (1 - order) * log_q.masked_fill(~both, 0)
    value = torch.logsumexp(exponent.masked_fill(~both, NEG_INF), -1) / (order - 1)
    escapes = (in_p & ~in_q).any(-1) if order > 1 else torch.zeros_like(value, dtype=torch.bool)
    return torch.where(escapes, torch.full_like(value, torch.inf), value)


def log_chi2(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log χ²(p‖q) = log Σ (p − q)²/q, free of overflow; −inf for p = q, +inf where p > 0 = q."""
    in_q = log_q != NEG_INF
    u = torch.where(in_q, log_p - log_q.masked_fill(~in_q, 0), torch.zeros_like(log_p))
    terms = (log_q + 2 * log_expm1_abs(u)).masked_fill(~in_q, NEG_INF)
    value = torch.logsumexp(terms, -1)
    escapes = ((log_p != NEG_INF) & ~in_q).any(-1)
    return torch.where(escapes, torch.full_like(value, torch.inf), value)


def chi2(log_p: Tensor, log_q: Tensor) -> Tensor:
    """χ²(p‖q) = Σ (p − q)²/q (a pure number). √χ²(π_t‖π_θ) bounds SNR(q) for every q."""
    return log_chi2(log_p, log_q).exp()


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """TV(p, q) = ½Σ|p − q|, between 0 and 1."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def bhattacharyya(batch: PolicyBatch) -> Tensor:
    """−log Σ√(π_θ π_t) = −log Z(½), `[B]`."""
    return (-tilted_moments(batch, 0.5).log_partition).clamp(min=0)


def ess_fraction(batch: PolicyBatch, alpha: Scalars) -> Tensor:
    """Effective sample size of q_α for π_θ as a share of N: 1/E_q[(π_θ/q)²] = exp(−D₂(π_θ‖q_α)), `[..., B]`.

    Uses E_q[w²] = Z(α)·Z(2−α). Zero where π_θ has a token that π_t lacks and α < 1. Source: Owen (2013), ch. 9.
    """
    a = as_parameter(alpha, batch)
    log_second_moment = tilted_moments(batch, a).log_partition + tilted_moments(batch, 2 - a).log_partition
    covered = batch.support.common_size == batch.support.theta_size
    ess = torch.exp(-log_second_moment.clamp(min=0))
    return torch.where(covered | (a >= 1), ess, torch.zeros_like(ess))
