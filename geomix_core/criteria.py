"""Ways to choose α: `solve_alpha(batch, criterion=…)` for whole batches, and the document's own listing, corrected.

To add a criterion, write a function `(batch, options) -> AlphaResult` for rows with a common support and enter it in
`CRITERIA`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from geomix_core.divergences import kl
from geomix_core.errors import DisjointSupportError, OptionError
from geomix_core.geodesics import e_geodesic, tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import learning_signal
from geomix_core.solvers.kl_symmetry import RESOLUTION, find_roots
from geomix_core.solvers.maxima import LocalMaximum
from geomix_core.solvers.snr import Maxima, find_maxima
from geomix_core.solvers.wald import EtaRange, find_wald_maxima
from geomix_core.status import Status
from geomix_core.tilts import WEIGHTS, Weights


@dataclass(frozen=True, slots=True)
class Options:
    """What a criterion may depend on beside the policies."""

    weights: Weights = "importance"
    eta_range: EtaRange = (0.5, 2.0)

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise OptionError(f"weights is {self.weights!r}: expected one of {', '.join(WEIGHTS)}.")
        low, high = self.eta_range
        if not 0 < low <= high < float("inf"):
            raise OptionError(f"eta_range is ({low:g}, {high:g}): expected 0 < low ≤ high < ∞.")


@dataclass(frozen=True, eq=False)
class AlphaResult:
    """α for every row, and what to think of it. Never NaN: read `status`, or the mask `solved`, before using α."""

    criterion: str
    weights: Weights
    alpha: Tensor
    """`[B]`, float64: the weight of π_θ in q_α. 1/2 is a placeholder where `status` says so."""
    status: tuple[Status, ...]
    residual: Tensor
    """`[B]`: Δ(α) in nats for KL symmetry (either reading); d log SNR/dα for SNR; dProgress/dα at the worse η for Wald
    (nonzero at an end point, or where the progress at both η is equal)."""
    bracket: Tensor
    """`[B, 2]`: an interval that contains the solution: Δ changes sign on it, or the maximum lies in it."""
    maxima: tuple[tuple[LocalMaximum, ...], ...] = ()
    """For SNR and Wald: every local maximum of each row, highest first."""

    @property
    def solved(self) -> Tensor:
        """Boolean `[B]`: α is an answer, not a placeholder or an end point."""
        return torch.tensor([s.is_solution for s in self.status], device=self.alpha.device)


def solve_alpha(
    batch: PolicyBatch,
    criterion: str = "kl_symmetry",
    weights: Weights = "importance",
    *,
    eta_range: EtaRange = (0.5, 2.0),
) -> AlphaResult:
    """Choose α for every row.

    Args:
        batch: policies `[B, V]`.
        criterion: one of `CRITERIA`:
            "kl_symmetry": KL(q‖π_θ) = KL(q‖π_t), the root of Δ (document §5.2; the Chernoff point).
            "reverse_kl_symmetry": KL(π_θ‖q) = KL(π_t‖q), the other reading, which is a different α:
            KL(π_θ‖π_t)/(KL(π_θ‖π_t) + KL(π_t‖π_θ)).
            "snr": the global maximum of |Φ₁|/√Φ₂ on [0, 1] (document §5.1).
            "signed_snr": that of Φ₁/√Φ₂, so that the step is towards π_t; no answer if Φ₁ ≤ 0 throughout.
            "wald": the maximum over [0, 1] of the worst exact progress over `eta_range` (document §3.3).
        weights: "importance", w = π_θ/q, or "inverse", w = q/π_θ. The KL symmetries do not depend on it.
        eta_range: learning rates (low, high) that "wald" guards against.

    Raises OptionError for an unknown criterion, weight convention or an empty range. Rows that have no answer get a
    status, not an exception.
    """
    if criterion not in CRITERIA:
        raise OptionError(f"criterion is {criterion!r}: expected one of {', '.join(CRITERIA)}.")
    options = Options(weights, eta_range)
    parts = [_solve_chunk(chunk, criterion, options) for chunk in batch.chunks()]
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


def _solve_chunk(chunk: PolicyBatch, criterion: str, options: Options) -> AlphaResult:
    """Rows that the criterion can treat go to it; the others get their status and placeholder."""
    criterion_of, weights = CRITERIA[criterion], options.weights
    undefined = {Status.DISJOINT: chunk.support.common_size == 0}
    undefined[Status.NO_COVERAGE] = ~criterion_of.defined(chunk) & ~undefined[Status.DISJOINT]
    good = ~torch.stack(list(undefined.values())).any(0)
    if good.all():
        return criterion_of.solve(chunk, options)

    alpha = _double([0.5] * len(chunk), chunk)
    residual, bracket = _double([0.0] * len(chunk), chunk), _double([(0.0, 1.0)] * len(chunk), chunk)
    status = [next((s for s, rows in undefined.items() if rows[i]), Status.SOLVED) for i in range(len(chunk))]
    maxima: list[tuple[LocalMaximum, ...]] = [()] * len(chunk)
    if good.any():
        part = criterion_of.solve(chunk.rows(good), options)
        alpha[good], residual[good], bracket[good] = part.alpha, part.residual, part.bracket
        for j, i in enumerate(good.nonzero().squeeze(-1).tolist()):
            status[i] = part.status[j]
            if part.maxima:
                maxima[i] = part.maxima[j]
    return AlphaResult(criterion, weights, alpha, tuple(status), residual, bracket, tuple(maxima))


def _kl_symmetry(batch: PolicyBatch, options: Options) -> AlphaResult:
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
        options.weights,
        _double(roots.alpha, batch),
        tuple(status(i) for i in range(len(batch))),
        _double(roots.delta, batch),
        _double(roots.bracket, batch),
        ((),) * len(batch),
    )


def _reverse_kl_symmetry(batch: PolicyBatch, options: Options) -> AlphaResult:
    """KL(π_θ‖q_α) − KL(π_t‖q_α) = (1−α)KL(π_θ‖π_t) − α KL(π_t‖π_θ), linear in α, by the definition of q_α (§4.2)."""
    from_theta, from_target = kl(batch.theta, batch.target), kl(batch.target, batch.theta)
    total = from_theta + from_target
    identical = total <= RESOLUTION
    alpha = torch.where(identical, 0.5, from_theta / torch.where(identical, 1.0, total))
    return AlphaResult(
        "reverse_kl_symmetry",
        options.weights,
        _double(alpha, batch),
        tuple(Status.IDENTICAL if same else Status.SOLVED for same in identical.tolist()),
        _double((1 - alpha) * from_theta - alpha * from_target, batch),
        _double(torch.stack([alpha, alpha], -1), batch),
        ((),) * len(batch),
    )


def _snr(batch: PolicyBatch, options: Options) -> AlphaResult:
    return _highest("snr", batch, options, find_maxima(batch, options.weights))


def _signed_snr(batch: PolicyBatch, options: Options) -> AlphaResult:
    """The highest maximum of |Φ₁|/√Φ₂ with Φ₁ > 0; where Φ₁ changes sign SNR is 0, so none is lost at the border."""
    found = find_maxima(batch, options.weights)
    rising = [tuple(m for m in row if m.sign > 0) for row in found.rows]
    flat = found.flat.clone()
    if flat.any():
        # |Φ₁|/√Φ₂ is flat where two tokens are left; Φ₁ changes sign at most once there, so the end points tell.
        ends = learning_signal(batch, torch.tensor([[0.0], [1.0]]), options.weights)
        split = flat & (ends.sign[0] != ends.sign[1])
        for i in split.nonzero().squeeze(-1).tolist():
            end = int(ends.sign[1, i] > 0)
            rising[i] = (LocalMaximum(float(end), float(ends.snr[end, i]), 1, (0.0, 1.0), 0.0),)
        flat &= ~split
        falls = (flat & (ends.sign[0] < 0)).tolist()
    else:
        falls = [False] * len(batch)
    result = _highest("signed_snr", batch, options, replace(found, rows=tuple(rising), flat=flat))
    status = tuple(
        Status.NO_ASCENT if falls[i] or (found.rows[i] and not rising[i]) else s for i, s in enumerate(result.status)
    )
    return replace(result, status=status)


def _wald(batch: PolicyBatch, options: Options) -> AlphaResult:
    return _highest("wald", batch, options, find_wald_maxima(batch, options.weights, options.eta_range))


def _highest(name: str, batch: PolicyBatch, options: Options, maxima: Maxima) -> AlphaResult:
    """The result of a criterion that takes the highest of several maxima."""
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
        name,
        options.weights,
        _double([m.alpha for m in best], batch),
        tuple(status(i) for i in range(len(batch))),
        _double([m.slope for m in best], batch),
        _double([m.bracket for m in best], batch),
        maxima.rows,
    )


def _double(values: Any, batch: PolicyBatch) -> Tensor:
    """As float64 on the batch's device, or on the CPU if that device has no float64 (MPS)."""
    device = batch.theta.device if batch.theta.dtype == torch.float64 else "cpu"
    return torch.as_tensor(values, dtype=torch.float64).to(device=device)


def _everywhere(batch: PolicyBatch) -> Tensor:
    return torch.ones(len(batch), dtype=torch.bool, device=batch.theta.device)


@dataclass(frozen=True, slots=True)
class Criterion:
    """A way to choose α, and the rows (`[B]`) on which what it compares is finite."""

    solve: Callable[[PolicyBatch, Options], AlphaResult]
    defined: Callable[[PolicyBatch], Tensor]


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "kl_symmetry": Criterion(_kl_symmetry, _everywhere),
        "reverse_kl_symmetry": Criterion(_reverse_kl_symmetry, lambda batch: batch.support.equal),
        "snr": Criterion(_snr, lambda batch: batch.covered),
        "signed_snr": Criterion(_signed_snr, lambda batch: batch.covered),
        "wald": Criterion(_wald, lambda batch: batch.covered),
    }
)
"""Solvers over whole batches: a row's answer never depends on the other rows."""
