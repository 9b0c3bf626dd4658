"""Who is timed: float32 logits `[B, V]` of both policies in, α `[B]` out; one thread unless the name says otherwise.

A competitor's preparation is inside the call: softmax or log-softmax, and for ours the validation of the input.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.optimize.elementwise import find_root

from geomix_core.claims import listing as document
from geomix_core.logits import LogitSolution, solve_logits

Solver = Callable[[np.ndarray, np.ndarray], np.ndarray]

BISECTIONS = 20
"""Halvings of [0, 1] until it is shorter than 1e-6, as in the document's listing."""


def solution(theta: np.ndarray, target: np.ndarray, backend: str = "compiled", threads: int = 1) -> LogitSolution:
    """Ours, with bounds."""
    return solve_logits(theta, target, backend=backend, threads=threads)


def ours(theta: np.ndarray, target: np.ndarray, backend: str, threads: int) -> np.ndarray:
    """This project's solver."""
    return np.asarray(solution(theta, target, backend, threads).alpha)


def listing(theta: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The document's listing as written, on float32 probabilities."""
    pi_theta, pi_t = (torch.softmax(torch.from_numpy(x), dim=-1) for x in (theta, target))
    return document.solve_kl_symmetry(pi_theta, pi_t).numpy()


def log_bisection(theta: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The same bisection in log space: what the listing should have been, in plain torch."""
    log_theta, log_t = (torch.log_softmax(torch.from_numpy(x), dim=-1) for x in (theta, target))
    ell = log_t - log_theta
    low, high = torch.zeros(len(theta)), torch.ones(len(theta))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        delta = (torch.softmax(log_t - middle[:, None] * ell, dim=-1) * ell).sum(dim=-1)
        low, high = torch.where(delta > 0, middle, low), torch.where(delta > 0, high, middle)
    return ((low + high) / 2).numpy()


def scipy_brentq(theta: np.ndarray, target: np.ndarray) -> np.ndarray:
    """SciPy's brentq row by row, written well: one exp an evaluation, nothing allocated in the loop."""
    weights = np.empty(theta.shape[1], dtype=np.float32)

    def solve(log_theta: np.ndarray, log_t: np.ndarray) -> float:
        ell = log_t - log_theta

        def delta(alpha: float) -> float:
            np.multiply(ell, -alpha, out=weights)
            np.add(weights, log_t, out=weights)
            np.subtract(weights, weights.max(), out=weights)
            np.exp(weights, out=weights)
            return float(weights @ ell / weights.sum())

        return brentq(delta, 0.0, 1.0, xtol=1e-6)

    return np.array([solve(_log_softmax(u), _log_softmax(v)) for u, v in zip(theta, target, strict=True)])


def scipy_find_root(theta: np.ndarray, target: np.ndarray) -> np.ndarray:
    """SciPy's vectorised bracketing solver (Chandrupatla), all rows at once; it drops rows as they converge."""
    log_t = _log_softmax(target)
    ell = log_t - _log_softmax(theta)

    def delta(alpha: np.ndarray, row: np.ndarray) -> np.ndarray:
        everyone = len(row) == len(theta)
        at, slope = (log_t, ell) if everyone else (log_t[row], ell[row])
        weights = at - alpha.astype(np.float32)[:, None] * slope
        weights -= weights.max(axis=1, keepdims=True)
        np.exp(weights, out=weights)
        return np.einsum("ij,ij->i", weights, slope) / weights.sum(axis=1)

    start = (np.zeros(len(theta)), np.ones(len(theta)))
    return find_root(delta, start, args=(np.arange(len(theta)),), tolerances={"xatol": 1e-6, "xrtol": 0.0}).x


def jax_bisection(theta: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Bisection in log space under jax.jit; compiled once a shape, outside the timing."""
    return np.asarray(_jitted()(theta, target))


@cache
def _jitted() -> Callable[..., object]:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def solve(theta, target):
        log_t = jax.nn.log_softmax(target)
        ell = log_t - jax.nn.log_softmax(theta)

        def halve(_, interval):
            low, high = interval
            middle = (low + high) / 2
            delta = (jax.nn.softmax(log_t - middle[:, None] * ell) * ell).sum(-1)
            return jnp.where(delta > 0, middle, low), jnp.where(delta > 0, high, middle)

        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros(len(theta)), jnp.ones(len(theta))))
        return (low + high) / 2

    return solve


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _read(theta: np.ndarray, target: np.ndarray) -> float:
    return theta.sum() + target.sum()


def _exp(theta: np.ndarray, target: np.ndarray) -> None:
    for row in (*theta, *target):
        np.exp(row, out=_buffer(len(row)))


@cache
def _buffer(size: int) -> np.ndarray:
    return np.empty(size, dtype=np.float32)


BASE = "geomix, compiled"
"""Every other time is given as a multiple of this one."""

OURS: Mapping[str, Solver] = {
    BASE: partial(ours, backend="compiled", threads=1),
    "geomix, 2 threads": partial(ours, backend="compiled", threads=2),
    "geomix, torch": partial(ours, backend="torch", threads=1),
}

OTHERS: Mapping[str, Solver] = {
    "document's listing": listing,
    "log-space bisection": log_bisection,
    "SciPy brentq": scipy_brentq,
    "SciPy find_root": scipy_find_root,
    "JAX bisection": jax_bisection,
}

READ, EXP = "reading both once", "exp of both once"
YARDSTICKS: Mapping[str, Callable[[np.ndarray, np.ndarray], object]] = {READ: _read, EXP: _exp}
"""What the hardware allows: one NumPy sum of both inputs, and one NumPy exp of every number in them."""


def present() -> tuple[dict[str, Solver], list[str]]:
    """(the competitors that can run here, a note for each that cannot)."""
    chosen, notes = {**OURS, **OTHERS}, []
    if importlib.util.find_spec("jax") is None:
        del chosen["JAX bisection"]
        notes.append("JAX bisection left out: jax is not installed (pip install -e '.[bench]').")
    return chosen, notes
