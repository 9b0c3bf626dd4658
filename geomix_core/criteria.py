"""Ways to choose α: `solve_alpha(batch, criterion=…)` for whole batches, and the document's own listing, corrected.

To add a criterion, write a function `(batch, weights) -> AlphaResult` for rows with a common support and enter it
in `CRITERIA`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from geomix_core.errors import DisjointSupportError, OptionError
from geomix_core.geodesics import e_geodesic, tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import WEIGHTS, Weights
from geomix_core.solvers.kl_symmetry import find_roots
from geomix_core.solvers.snr import LocalMaximum, find_maxima
from geomix_core.status import Status


@dataclass(frozen=True, eq=False)
class AlphaResult:
    """α for every row, and what to think of it. Never NaN: read `status`, or the mask `solved`, before using α."""

    criterion: str
    weights: Weights
    alpha: Tensor
    """`[B]`, float64: the weight of π_θ in q_α. 1/2 is a placeholder where `status` says so."""
    status: tuple[Status, ...]
    residual: Tensor
    """`[B]`: Δ(α) in nats for KL symmetry; d log SNR/dα for SNR (nonzero at an end point)."""
    bracket: Tensor
    """`[B, 2]`: an interval that contains the solution: Δ changes sign on it, or SNR has its maximum in it."""
    maxima: tuple[tuple[LocalMaximum, ...], ...] = ()
    """For SNR: every local maximum of each row, highest first."""

    @property
    def solved(self) -> Tensor:
        """Boolean `[B]`: α is an answer, not a placeholder or an end point."""
        return torch.tensor([s.is_solution for s in self.status], device=self.alpha.device)


def solve_alpha(batch: PolicyBatch, criterion: str = "kl_symmetry", weights: Weights = "importance") -> AlphaResult:
    """Choose α for every row.

    Args:
        batch: policies `[B, V]`.
        criterion: "kl_symmetry", the root of Δ (document §5.2; the Chernoff point); or "snr", the global maximum
            of |Φ₁|/√Φ₂ on [0, 1] (document §5.1).
        weights: "importance", w = π_θ/q, or "inverse", w = q/π_θ. KL symmetry does not depend on it.

    Raises OptionError for an unknown criterion or weight convention. Rows that have no answer get a status, not an
    exception.
    """
    if criterion not in CRITERIA:
        raise OptionError(f"criterion is {criterion!r}: expected one of {', '.join(CRITERIA)}.")
    if weights not in WEIGHTS:
        raise OptionError(f"weights is {weights!r}: expected one of {', '.join(WEIGHTS)}.")
    parts = [_solve_chunk(chunk, criterion, weights) for chunk in batch.chunks()]
    return AlphaResult(
        criterion=criterion,
        weights=weights,
        alpha=torch.cat([p.alpha for p in parts]),
        status=sum((p.status for p in parts), ()),
        residual=torch.cat([p.residual for p in parts]),
        bracket=torch.cat([p.bracket for p in parts]),
        maxima=sum((p.maxima for p in parts), ()),
    )


def chernoff_information(batch: PolicyBatch) -> Tensor:
    """C = −min_α log Z(α), nats `[B]`: the value that both KLs share at α_KL (Cover & Thomas, ch. 11).

    Raises DisjointSupportError. Where Δ has no interior root the minimum lies at an end point.
    """
    alpha = solve_alpha(batch, "kl_symmetry").alpha
    return (-tilted_moments(batch, alpha.to(batch.theta)).log_partition).clamp(min=0)


def optimal_sampling_distribution(pi_theta: Tensor, pi_t: Tensor, method: str = "kl_symmetry") -> tuple[Tensor, Tensor]:
    """The document's listing (§6.2) without its errors: in log space, no eps, batched, global for SNR.

    Args:
        pi_theta: current policy, probabilities `[batch, vocab]`.
        pi_t: target policy, probabilities `[batch, vocab]`.
        method: "kl_symmetry" or "snr".

    Returns:
        (q_star, alpha_star): probabilities `[batch, vocab]` in pi_theta's dtype, and α `[batch]` (float64).

    Raises DisjointSupportError, PolicyError, ShapeError or OptionError.
    """
    batch = PolicyBatch.from_probs(pi_theta, pi_t)
    result = solve_alpha(batch, method)
    if Status.DISJOINT in result.status:
        raise DisjointSupportError(
            f"{result.status.count(Status.DISJOINT)} of {len(batch)} rows have no common support: "
            "no sampling distribution exists there."
        )
    q_star = e_geodesic(batch, result.alpha.to(batch.theta)).exp()
    return q_star.to(torch.as_tensor(pi_theta).dtype), result.alpha


def _solve_chunk(chunk: PolicyBatch, criterion: str, weights: Weights) -> AlphaResult:
    """Rows that the criterion can treat go to it; the others get their status and placeholder."""
    criterion_of = CRITERIA[criterion]
    undefined = {Status.DISJOINT: chunk.support.common_size == 0}
    if criterion_of.needs_coverage:
        undefined[Status.NO_COVERAGE] = ~chunk.covered & ~undefined[Status.DISJOINT]
    good = ~torch.stack(list(undefined.values())).any(0)
    if good.all():
        return criterion_of.solve(chunk, weights)

    alpha = _double([0.5] * len(chunk), chunk)
    residual, bracket = _double([0.0] * len(chunk), chunk), _double([(0.0, 1.0)] * len(chunk), chunk)
    status = [next((s for s, rows in undefined.items() if rows[i]), Status.SOLVED) for i in range(len(chunk))]
    maxima: list[tuple[LocalMaximum, ...]] = [()] * len(chunk)
    if good.any():
        part = criterion_of.solve(chunk.rows(good), weights)
        alpha[good], residual[good], bracket[good] = part.alpha, part.residual, part.bracket
        for j, i in enumerate(good.nonzero().squeeze(-1).tolist()):
            status[i] = part.status[j]
            if part.maxima:
                maxima[i] = part.maxima[j]
    return AlphaResult(criterion, weights, alpha, tuple(status), residual, bracket, tuple(maxima))


def _kl_symmetry(batch: PolicyBatch, weights: Weights) -> AlphaResult:
    roots = find_roots(batch)
    equal = batch.support.equal.tolist()

    def status(i: int) -> Status:
        if roots.identical[i]:
            return Status.IDENTICAL
        if not roots.crosses[i]:
            return Status.NO_INTERIOR_ROOT
        if not roots.converged[i]:
            return Status.NOT_CONVERGED
        return Status.SOLVED if equal[i] else Status.SOLVED_ON_COMMON_SUPPORT

    return AlphaResult(
        "kl_symmetry",
        weights,
        _double(roots.alpha, batch),
        tuple(status(i) for i in range(len(batch))),
        _double(roots.delta, batch),
        _double(roots.bracket, batch),
        ((),) * len(batch),
    )


def _snr(batch: PolicyBatch, weights: Weights) -> AlphaResult:
    maxima = find_maxima(batch, weights)
    equal = batch.support.equal.tolist()

    def status(i: int) -> Status:
        if maxima.identical[i]:
            return Status.IDENTICAL
        if maxima.silent[i]:
            return Status.NO_SIGNAL
        if maxima.flat[i]:
            return Status.FLAT
        if not maxima.rows[i]:
            return Status.OUT_OF_RANGE
        return Status.SOLVED if equal[i] else Status.SOLVED_ON_COMMON_SUPPORT

    best = [row[0] if row else LocalMaximum(0.5, 0.0, 0, (0.0, 1.0), 0.0) for row in maxima.rows]
    return AlphaResult(
        "snr",
        weights,
        _double([m.alpha for m in best], batch),
        tuple(status(i) for i in range(len(batch))),
        _double([m.log_slope for m in best], batch),
        _double([m.bracket for m in best], batch),
        maxima.rows,
    )


def _double(values: Any, batch: PolicyBatch) -> Tensor:
    """As float64 on the batch's device, or on the CPU if that device has no float64 (MPS)."""
    device = batch.theta.device if batch.theta.dtype == torch.float64 else "cpu"
    return torch.as_tensor(values, dtype=torch.float64).to(device=device)


@dataclass(frozen=True, slots=True)
class Criterion:
    """A way to choose α and whether it needs the reward to be finite on all that π_θ can produce."""

    solve: Callable[[PolicyBatch, Weights], AlphaResult]
    needs_coverage: bool


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {"kl_symmetry": Criterion(_kl_symmetry, needs_coverage=False), "snr": Criterion(_snr, needs_coverage=True)}
)
