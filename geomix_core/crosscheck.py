"""α_KL of a few rows by other means: NumPy and SciPy from the raw logits, no code shared with the solvers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from geomix_core.errors import DisjointSupportError, OptionError, PolicyError, ShapeError
from geomix_core.overview import ANSWERED, groups
from geomix_core.policies import MASK_GAP

if TYPE_CHECKING:
    from geomix_core.datasets import Dataset
    from geomix_core.results import Columns

SAMPLE = 16
"""Rows of a table that are solved again."""
IDENTICAL = 1e-12
"""|Δ| below this at both ends, in nats: every α is a root, and 1/2 is taken."""


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """Two α_KL for each of the rows checked, in the rows' order."""

    rows: tuple[int, ...]
    alpha: tuple[float, ...]
    """As given."""
    alpha_independent: tuple[float, ...]
    """By Brent's method; the end point of smaller |Δ| where Δ does not change sign on [0, 1]."""
    bounds: tuple[float, ...] = ()
    """How far each α may be off by its certificate, if it has one."""

    @property
    def checked(self) -> int:
        """Number of rows checked."""
        return len(self.rows)

    @property
    def differences(self) -> tuple[float, ...]:
        return tuple(abs(a - b) for a, b in zip(self.alpha, self.alpha_independent, strict=True))

    @property
    def worst(self) -> float:
        """The largest difference."""
        return max(self.differences, default=0.0)

    @property
    def within(self) -> int:
        """How many differences are within their bounds."""
        return sum(d <= bound for d, bound in zip(self.differences, self.bounds, strict=True))


def cross_check(
    theta: Any, target: Any, alphas: Sequence[float], rows: Sequence[int], sample: int = 16, seed: int = 0
) -> CrossCheck:
    """Recompute α_KL on a random sample of solved rows.

    Δ comes from float64 log-softmaxes of the logits, so for near-identical policies, whose Var at the root is
    small, the two may differ by 1e-15/Var without either being wrong.

    Args:
        theta, target: logits `[B, V]` (or `[V]`: one row), NumPy or torch.
        alphas: α_KL of the rows in `rows`, in the same order.
        rows: indices of rows that have one solution.
        sample: at most this many rows are checked.
        seed: of the choice of rows.

    Raises ShapeError, OptionError, PolicyError or DisjointSupportError.
    """
    if len(alphas) != len(rows):
        raise ShapeError(f"There are {len(alphas)} values of alpha but {len(rows)} rows: expected one for each.")
    if sample < 1:
        raise OptionError(f"sample is {sample}: expected at least 1.")
    size = _size(theta)
    if size != _size(target):
        raise ShapeError(f"target has shape {list(_size(target))} but theta has shape {list(size)}: expected equal.")
    if any(not 0 <= row < size[0] for row in rows):
        raise ShapeError(f"rows names a row that is not there: expected indices from 0 to {size[0] - 1}.")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:sample]
    picked = sorted((int(rows[i]), float(alphas[i])) for i in chosen)
    return CrossCheck(
        rows=tuple(row for row, _ in picked),
        alpha=tuple(alpha for _, alpha in picked),
        alpha_independent=tuple(_root(_row(theta, row), _row(target, row), row) for row, _ in picked),
    )


def check_sample(data: Dataset, table: Columns, sample: int = SAMPLE, seed: int = 0) -> CrossCheck:
    """`cross_check` on a random sample of the rows of a table of results that have one α_KL."""
    known = [i for i, group in enumerate(groups(table)) if group in ANSWERED]
    chosen = sorted(known[k] for k in np.random.default_rng(seed).permutation(len(known))[:sample])
    if not chosen:
        return CrossCheck((), (), ())
    rows = [table["row"][i] for i in chosen]
    given, _ = data.logits(rows)
    data.pair.release()
    places = range(len(chosen))
    found = cross_check(given["theta"], given["target"], [table["alpha_kl"][i] for i in chosen], places, len(chosen))
    bounds = tuple(table["bound"][i] for i in chosen)
    return replace(found, rows=tuple(rows), bounds=bounds)


def _size(x: Any) -> tuple[int, int]:
    shape = tuple(x.shape)
    if len(shape) not in (1, 2) or 0 in shape:
        raise ShapeError(f"An array has shape {list(shape)}: expected [rows, tokens] with at least one of each.")
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def _row(x: Any, row: int) -> np.ndarray:
    """One row of logits in float64, masks as −inf."""
    values = x if x.ndim == 1 else x[row]
    logits = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
    top = logits.max()
    if not np.isfinite(top):
        raise PolicyError(f"Row {row} has NaN, +inf or no token: expected a row that was solved.")
    return np.where(logits < top - MASK_GAP, -np.inf, logits)


def _root(theta: np.ndarray, target: np.ndarray, row: int) -> float:
    """The α in [0, 1] with E_q[ℓ] = 0, q ∝ π_θ^α π_t^(1−α) on the common support."""
    log_theta, log_target = log_softmax(theta), log_softmax(target)
    common = np.isfinite(log_theta) & np.isfinite(log_target)
    if not common.any():
        raise DisjointSupportError(f"Row {row} has no token with positive probability under both policies.")
    log_theta, log_target = log_theta[common], log_target[common]

    def delta(alpha: float) -> float:
        log_q = alpha * log_theta + (1 - alpha) * log_target
        return float(np.exp(log_q - logsumexp(log_q)) @ (log_target - log_theta))

    at_zero, at_one = delta(0.0), delta(1.0)
    if max(abs(at_zero), abs(at_one)) <= IDENTICAL:
        return 0.5
    if at_zero * at_one > 0:
        return 0.0 if abs(at_zero) < abs(at_one) else 1.0
    return float(brentq(delta, 0.0, 1.0, xtol=1e-15, rtol=4 * np.finfo(np.float64).eps, maxiter=200))
