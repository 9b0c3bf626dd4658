"""A solution's certificates checked: every row's claim recomputed in float64 NumPy, by none of the solvers' code."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geomix_core.errors import OptionError, PolicyError, ShapeError
from geomix_core.policies import MASK_GAP
from geomix_core.status import Status

if TYPE_CHECKING:
    from geomix_core.logits import LogitSolution

DIGEST_BYTES = 16
IDENTICAL = 1e-12
"""Nats: Δ no larger than this at both ends is rounding of log-probabilities, and every α a root."""
ROUNDINGS = 8
"""Rounding allowed for in a recomputed Δ, in float64 roundings of what its terms are made of."""
VARIANCE = 1.01
"""Factor by which the recomputed variance may differ: float32 sums."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row of which the solution claims what the logits do not bear out."""

    row: int
    reasons: tuple[str, ...]
    """In words: what was claimed, and what was found."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of checking a solution."""

    rows: tuple[int, ...]
    """The rows that were checked."""
    differences: tuple[Difference, ...]
    """Those of them that do not hold, in the same order."""
    digested: int
    """How many of them carried a digest: without one, nothing ties α to the row but Δ."""

    @property
    def holds(self) -> bool:
        """True if every row that was checked is as claimed."""
        return not self.differences


def row_digests(theta: Any, target: Any) -> tuple[str, ...]:
    """BLAKE2b of each row of two arrays `[B, V]`, in hexadecimal: of θ's dtype and bytes, then of the target's.

    Bytes are in the machine's order, so that the same numbers give the same digest wherever they lie.
    """
    rows = [(dtype_name(x).encode(), _bytes_of(x)) for x in (theta, target)]
    digests = []
    for i in range(len(theta)):
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for name, x in rows:
            digest.update(name)
            digest.update(x[i].data)
        digests.append(digest.hexdigest())
    return tuple(digests)


def dtype_name(x: Any) -> str:
    """ "float32" and the like, for NumPy and torch, whatever the byte order."""
    return str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else str(x.dtype.name)


def verify(theta: Any, target: Any, solution: LogitSolution, rows: Sequence[int] | None = None) -> Verification:
    """Check what a solution says of rows: digest, status, Δ(low) ≥ 0 ≥ Δ(high), |Δ(α)|, variance and bound.

    Δ is recomputed in float64 and may be off by `ROUNDINGS` roundings of its terms, as the solution's may.

    Args:
        theta, target: the logits that were solved, `[B, V]` (or `[V]`), NumPy (memory-mapped too) or torch.
        solution: what `solve_logits` returned.
        rows: which rows to check; by default all that the solution holds.

    Raises ShapeError if the arrays do not have the solution's number of rows, OptionError for a row it does not hold.
    """
    shapes = [tuple(x.shape) for x in (theta, target)]
    if shapes[0] != shapes[1] or len(shapes[0]) not in (1, 2) or 0 in shapes[0]:
        raise ShapeError(
            f"theta has shape {list(shapes[0])} and target {list(shapes[1])}: expected equal [rows, tokens]."
        )
    if len(shapes[0]) == 1:
        theta, target = theta[None], target[None]
    if len(theta) != solution.rows:
        raise ShapeError(
            f"theta has {len(theta)} rows but the solution is of {solution.rows}: expected the same input."
        )
    chosen = tuple(range(len(solution))) if rows is None else tuple(int(i) for i in rows)
    for i in chosen:
        if not 0 <= i < len(solution):
            raise OptionError(f"rows names row {i}: expected indices from 0 to {len(solution) - 1}.")
    found = ((i, _check(theta[i : i + 1], target[i : i + 1], solution, i)) for i in chosen)
    return Verification(
        rows=chosen,
        differences=tuple(Difference(i, tuple(reasons)) for i, reasons in found if reasons),
        digested=sum(solution.digest[i] != "" for i in chosen),
    )


def _bytes_of(rows: Any) -> np.ndarray:
    """`[B, bytes of a row]`."""
    if isinstance(rows, Tensor):
        array = rows.detach().cpu().contiguous().view(torch.uint8).numpy()
        return array
    native = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("="))
    return native.view(np.uint8)


def _logits(row: Any) -> np.ndarray:
    values = row.detach().cpu().double().numpy() if isinstance(row, Tensor) else np.asarray(row, np.float64)
    flat: np.ndarray = values.reshape(-1)
    return flat


def _check(theta: Any, target: Any, solution: LogitSolution, i: int) -> list[str]:
    """What is wrong with row i; the arrays are `[1, V]`."""
    reasons = []
    if solution.digest[i] and solution.digest[i] != row_digests(theta, target)[0]:
        reasons.append("the digest is that of other logits")
    try:
        family = _Family(_logits(theta), _logits(target))
    except PolicyError as error:
        return reasons if solution.status[i] == "invalid" else [*reasons, str(error)]
    alpha, low, high, bound = (float(x[i]) for x in (solution.alpha, solution.low, solution.high, solution.bound))
    numbers = (alpha, low, high, bound, float(solution.delta[i]), float(solution.variance[i]))
    if not all(map(math.isfinite, numbers)) or not 0 <= low <= alpha <= high <= 1:
        return [*reasons, "α, low and high are not in order within [0, 1]"]
    if abs(bound - max(high - alpha, alpha - low)) > 1e-12:
        reasons.append("the bound is not the distance from α to the farther of low and high")
    return reasons + family.differs(solution.status[i], alpha, low, high, bound, float(solution.variance[i]))


@dataclass(frozen=True, slots=True)
class _Point:
    """Δ and Var at one α, and how far rounding may have moved Δ."""

    delta: float
    variance: float
    allowance: float


class _Family:
    """q_α of one row: π_θ and π_t as log-probabilities on their common support."""

    def __init__(self, theta: np.ndarray, target: np.ndarray) -> None:
        log_theta, log_target = _log_probs(theta, "theta"), _log_probs(target, "target")
        has_theta, has_target = np.isfinite(log_theta), np.isfinite(log_target)
        common = has_theta & has_target
        self.disjoint = not common.any()
        self.equal = bool(np.array_equal(has_theta, has_target))
        self.theta, self.target = log_theta[common], log_target[common]
        self.ell = self.target - self.theta
        self.span = 0.0 if self.disjoint else float(np.ptp(self.ell))

    def at(self, alpha: float) -> _Point:
        """Δ(α) = E_q[ℓ] and Var_q[ℓ]."""
        log_q = alpha * self.theta + (1 - alpha) * self.target
        q = np.exp(log_q - log_q.max())
        q /= q.sum()
        delta = float(np.sum(q * self.ell))
        away = self.ell - delta
        # An error ε(|log π_θ| + |log π_t|) of ℓ moves Δ by as much, and of log q by Cov_q(error, ℓ).
        size = 1 + np.abs(self.theta) + np.abs(self.target)
        allowance = ROUNDINGS * np.finfo(np.float64).eps * float(np.sum(q * size * (1 + np.abs(away))))
        return _Point(delta, float(np.sum(q * away * away)), allowance)

    def differs(
        self, status: object, alpha: float, low: float, high: float, bound: float, variance: float
    ) -> list[str]:
        """What of the claims does not hold."""
        if self.disjoint or status == Status.DISJOINT:
            agreed = self.disjoint and status == Status.DISJOINT
            return [] if agreed else [f"the status is {status} but the supports {self._supports}"]
        if status == "invalid":
            return ["the status is invalid but both rows are policies"]
        zero, one = self.at(0.0), self.at(1.0)
        apart = zero.delta - one.delta
        slack = zero.allowance + one.allowance
        if status == Status.IDENTICAL:
            same = apart <= IDENTICAL + slack and abs(zero.delta) <= IDENTICAL + slack
            return [] if same else [f"the status is identical but Δ falls from {zero.delta:.3g} to {one.delta:.3g}"]
        if status == Status.NO_INTERIOR_ROOT:
            outside = (alpha == 0 and zero.delta <= zero.allowance) or (alpha == 1 and one.delta >= -one.allowance)
            return [] if outside and low == high else ["the status is no_interior_root but Δ changes sign on (0, 1)"]
        reasons = []
        if status == Status.SOLVED and not self.equal:
            reasons.append(f"the status is solved but the supports {self._supports}")
        if status == Status.SOLVED_ON_COMMON_SUPPORT and self.equal:
            reasons.append(f"the status is solved_on_common_support but the supports {self._supports}")
        if max(apart, abs(zero.delta)) + slack < IDENTICAL:
            reasons.append("the status is solved but the policies are identical: every α is a root")
        if zero.delta < -zero.allowance or one.delta > one.allowance:
            reasons.append("the status is solved but Δ has no root in [0, 1]")
        at_low, at_high, here = self.at(low), self.at(high), self.at(alpha)
        if at_low.delta < -at_low.allowance:
            reasons.append(f"Δ(low) is {at_low.delta:.3g}: expected at least 0")
        if at_high.delta > at_high.allowance:
            reasons.append(f"Δ(high) is {at_high.delta:.3g}: expected at most 0")
        # |d log Var/dα| ≤ R, the range of ℓ: between α and the root Var is at most e^(R·bound) times what it is at α.
        reach = math.exp(min(self.span * bound, 300.0))
        if abs(here.delta) > here.variance * bound * reach + here.allowance:
            reasons.append(f"|Δ(α)| is {abs(here.delta):.3g}: more than the bound on α allows")
        # `variance` was evaluated at most twice the bound away from α.
        if not here.variance / (reach**2 * VARIANCE) <= variance <= here.variance * reach**2 * VARIANCE:
            reasons.append(f"the variance is {here.variance:.3g}, not {variance:.3g}")
        return reasons

    @property
    def _supports(self) -> str:
        return "are disjoint" if self.disjoint else "are equal" if self.equal else "overlap in part"


def _log_probs(logits: np.ndarray, name: str) -> np.ndarray:
    """Log-probabilities, −inf for what is masked. Raises PolicyError."""
    top = float(logits.max())
    if not math.isfinite(top):
        raise PolicyError(f"{name} has NaN, +inf or no token, but the row is not reported as invalid")
    x = logits - top
    x[x < -MASK_GAP] = -np.inf
    log_probs: np.ndarray = x - np.log(np.sum(np.exp(x)))
    return log_probs
