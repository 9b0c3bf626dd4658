"""What is drawn along the family, on the atoms of one row, compiled (numba): a few microseconds a value of α."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geomix_core.solvers.atoms import FINE, FINE_MOST, FINE_WIDTH, LOG2E, LOST, MOST, SIZE, SMALL, crowded, gather, work
from geomix_core.solvers.kernel import constants
from geomix_core.solvers.lanes import exp2, in_lanes
from geomix_core.solvers.tilt_kernel import (
    AT,
    LEFT,
    SIGN,
    VALUE,
    decidable,
    ease,
    off_by,
    read,
    sums_of_atoms,
    tilt,
    weighed,
)

CROWD = 0.25
"""Widths that the spread of ℓ must exceed, or cells are made finer."""
EXACT, CHECKS = 3e-8, 5
"""What log SNR may be off by at this many values of α before they are."""
ROUNDING = 1e-7
"""Share of Φ₁ and of Φ₂ that cancelling must leave."""
LOG_Z, DELTA, VARIANCE, ESS, PHI1, PHI2, SNR, STEP = range(8)
"""Columns of `curves`: log Z, E_q[ℓ], Var_q[ℓ], ESS as a share of N, Φ₁, Φ₂, Φ₁/√Φ₂, Φ₁/Φ₂."""


@in_lanes
def _tilted(ell, mass, beta, low, high, weights, out):
    """log Z, E_q[ℓ], Var_q[ℓ] and log Z at −β, of atoms `[n]`; weights `[≥ n]`: scratch."""
    top, other = max(beta * low, beta * high), max(-beta * low, -beta * high)
    centre = 0.5 * (low + high)
    s0 = s1 = s2 = back = 0.0
    for i in range(ell.shape[0]):
        x = beta * ell[i]
        w = mass[i] * exp2(x - top, LOG2E)
        weights[i] = w
        s0 += w
        s1 += w * (ell[i] - centre)
        back += mass[i] * exp2(-x - other, LOG2E)
    centre += s1 / s0
    s1 = 0.0
    for i in range(ell.shape[0]):  # around the mean, so that Var does not cancel
        d = ell[i] - centre
        s1 += weights[i] * d
        s2 += weights[i] * d * d
    mean = s1 / s0
    out[0], out[1] = math.log(s0) + top, centre + mean
    out[2], out[3] = max(s2 / s0 - mean * mean, 0.0), math.log(back) + other


@njit(nogil=True, cache=True)
def _are_exact(atoms, kappa, size, own, width, scratch):
    """Whether atoms from cells of one size are good for every α."""
    if crowded(atoms.ell, atoms.measures, CROWD, width, MOST):
        return False
    worst = 0.0
    for i in range(CHECKS):
        worst = max(worst, off_by(i / (CHECKS - 1), kappa, size, own, atoms, scratch))
    return worst <= EXACT


@njit(nogil=True, cache=True)
def _curves(u, v, r, own, kappa, k, width, alphas, cells, facts, ell, measures, rest, weights, out):
    """Fills out `[A, 8]` for one row; False where others decide."""
    small = len(u) <= SMALL
    for fine in (False, True):
        size, most = (FINE_WIDTH, FINE_MOST) if fine else (width, MOST)
        code, n, _top = gather(u, v, r, own, k, size, most, fine, cells, facts, ell, measures)
        if code != FINE:
            return False
        atoms = weighed(ell[:n], measures, small or not own, facts[LOST], rest)
        if fine or small or _are_exact(atoms, kappa, facts[SIZE], own, width, weights):
            return decidable(atoms) and _fill(atoms, kappa, alphas, weights, out)
    return False


@njit(nogil=True, cache=True)
def _fill(atoms, kappa, alphas, weights, out):
    """Fills out `[A, 8]` from atoms; False where cancelling leaves too little. weights `[≥ n]`: scratch."""
    sums, at, q = np.zeros(8), np.zeros(AT), np.zeros(4)
    for j in range(alphas.shape[0]):
        alpha = alphas[j]
        _tilted(atoms.ell, atoms.measures[0], 1 - alpha, atoms.low, atoms.high, weights, q)
        out[j, LOG_Z], out[j, DELTA], out[j, VARIANCE] = q[0], q[1], q[2]
        out[j, ESS] = math.exp(-q[0] - q[3])
        power, top = ease(alpha, kappa, atoms)
        tilt(atoms.ell, power, top, weights)
        sums_of_atoms(atoms, weights, sums)
        read(sums, kappa, at)
        if not at[LEFT] > ROUNDING:
            return False
        scale = top - kappa * q[0]
        out[j, PHI1] = sums[1] * math.exp(scale)
        out[j, PHI2] = (sums[2] - sums[0] * sums[0]) * math.exp(2 * scale)
        out[j, SNR] = at[SIGN] * math.exp(at[VALUE])
        out[j, STEP] = out[j, PHI1] / out[j, PHI2] if math.isfinite(out[j, PHI2]) else np.nan
    return True


def curves(
    theta: np.ndarray,
    target: np.ndarray,
    reference: np.ndarray | None,
    kappa: float,
    alphas: np.ndarray,
    width: float,
) -> np.ndarray | None:
    """`[A, 8]`, columns LOG_Z … STEP, of one row of logits `[V]`, float32 or float64; None where others must decide.

    That is where a token of π_θ has no reward, the policies are equal to six digits, or what cancels leaves too little.
    """
    cells, facts, ell = work(len(theta), FINE_MOST)
    measures, rest, tilted = np.empty((3, len(ell))), np.empty((3, len(ell))), np.empty_like(ell)
    out = np.empty((len(alphas), 8))
    given = theta if reference is None else reference
    u, v, r = (np.ascontiguousarray(x).view() for x in (theta, target, given))
    for x in (u, v, r):  # numba compiles once for what may be written to and once for what may not
        x.flags.writeable = False
    alphas = np.asarray(alphas, np.float64)
    fine = _curves(
        u, v, r, reference is not None, float(kappa), constants(theta.dtype), width, alphas,
        cells, facts, ell, measures, rest, tilted, out,
    )  # fmt: skip
    return out if fine and np.isfinite(out).all() else None
