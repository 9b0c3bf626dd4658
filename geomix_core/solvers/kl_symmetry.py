"""α_KL: the root of Δ on [0, 1], by Newton steps kept inside a sign-changing bracket (document §5.2–5.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomix_core.geodesics import moments_of, tilted_moments
from geomix_core.policies import PolicyBatch

RESOLUTION = 1e-12
"""Δ(0) − Δ(1) below this is rounding of float64 log-probabilities: no α can be told from another."""


@dataclass(frozen=True, eq=False)
class Roots:
    """Per row `[B]`: α, the sign-changing bracket `[B, 2]` around it, Δ and Var there, and how it ended."""

    alpha: Tensor
    bracket: Tensor
    delta: Tensor
    variance: Tensor
    iterations: Tensor
    converged: Tensor
    identical: Tensor
    crosses: Tensor
    """False where Δ keeps one sign on (0, 1): no interior root, α is then the nearer end point."""


def find_roots(batch: PolicyBatch, tolerance: float = 1e-12, max_iterations: int = 100) -> Roots:
    """Solve Δ(α) = 0 for every row; rows need a common support.

    Δ is strictly decreasing with Δ' = −Var, so each evaluation tightens the bracket and gives a Newton step; a step
    that leaves the bracket, or fails to halve |Δ|, is replaced by bisection. At the end the bracket is closed around
    the root by two further evaluations.
    """
    at_zero, at_one = tilted_moments(batch, 0.0).mean, tilted_moments(batch, 1.0).mean
    identical = (at_zero - at_one <= RESOLUTION) & (at_zero.abs() <= RESOLUTION)
    crosses = ((at_zero > 0) & (at_one < 0)) | identical

    low, high = torch.zeros_like(at_zero), torch.ones_like(at_zero)
    alpha = torch.full_like(low, 0.5)
    delta, variance = torch.zeros_like(low), torch.zeros_like(low)
    iterations = torch.zeros_like(low, dtype=torch.long)
    converged = identical | ~crosses
    last = torch.full_like(low, torch.inf)
    log_theta, ell = batch.restricted
    active = (~converged).nonzero().squeeze(-1)
    for _ in range(max_iterations):
        if active.numel() == 0:
            break
        a = alpha[active]
        everyone = active.numel() == len(batch)
        moments = moments_of(*((log_theta, ell) if everyone else (log_theta[active], ell[active])), a)
        delta[active], variance[active] = moments.mean, moments.variance
        iterations[active] += 1
        # Δ decreases: a positive value lies left of the root. ≤ keeps a converged root inside its bracket.
        low[active] = torch.where(moments.mean >= 0, a, low[active])
        high[active] = torch.where(moments.mean <= 0, a, high[active])
        newton = a + moments.mean / moments.variance
        middle = (low[active] + high[active]) / 2
        stalled = moments.mean.abs() > 0.5 * last[active]
        usable = (newton > low[active]) & (newton < high[active]) & ~stalled
        step = torch.where(usable, newton, middle)
        last[active] = moments.mean.abs()
        done = ((newton - a).abs() <= tolerance) | (high[active] - low[active] <= tolerance)
        converged[active] = done
        alpha[active] = torch.where(done, a, step)
        active = active[~done]

    # A root that one-sided Newton steps approached still has a loose far side: close it, checking the sign.
    solved = crosses & ~identical & converged
    if solved.any():
        low, high = _close_bracket(batch, solved, alpha, delta, variance, low, high, tolerance)
    edge = torch.where(at_zero <= 0, torch.zeros_like(alpha), torch.ones_like(alpha))
    alpha = torch.where(crosses, alpha, edge)
    delta = torch.where(crosses, delta, torch.where(at_zero <= 0, at_zero, at_one))
    bracket = torch.where(crosses[:, None], torch.stack([low, high], -1), alpha[:, None])
    return Roots(alpha, bracket, delta, variance, iterations, converged, identical, crosses)


def _close_bracket(
    batch: PolicyBatch,
    solved: Tensor,
    alpha: Tensor,
    delta: Tensor,
    variance: Tensor,
    low: Tensor,
    high: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    rows = solved.nonzero().squeeze(-1)
    sub, a = batch.rows(rows), alpha[rows]
    reach = (2 * delta[rows].abs() / variance[rows]).clamp(min=0) + 4 * tolerance
    left, right = (a - reach).clamp(min=0), (a + reach).clamp(max=1)
    low, high = low.clone(), high.clone()
    low[rows] = torch.where(tilted_moments(sub, left).mean >= 0, torch.maximum(left, low[rows]), low[rows])
    high[rows] = torch.where(tilted_moments(sub, right).mean <= 0, torch.minimum(right, high[rows]), high[rows])
    return low, high
