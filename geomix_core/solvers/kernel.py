"""α_KL of one row after another, compiled (numba): one pass for a start of high order, then one or two tilted passes.

Row by row, with u, v the two rows less their maxima and a = v − u (so ℓ = a + const): pass 1 sums w·aʲ, j = 0..3, for
the weights e^u, e^((u+v)/2), e^v of β = 1 − α = 0, ½, 1, from two exponentials a token. K(β) = log Σ e^(u+βa) has its
first three derivatives at three nodes then, and both log-sum-exps: c = K(1) − K(0) is what E_q[a] must equal. The
quintic through K' on the half where K' − c changes sign gives the start; pass 2 evaluates K' − c = Δ and two more
derivatives there, and a bracketed step to the root of their quadratic follows.

The bound needs no bracket of evaluations: |K‴| ≤ R·K″ with R the range of a, so Var falls at most as e^(−R|δ|), and
from Δ and Var at one point the root lies within −log(1 − R|Δ|/Var)/R of it. |K⁗| ≤ R²K″ likewise bounds how far it is
from the root of the quadratic through Δ, Var and K‴, so no further evaluation has to confirm a step.

Terms are in the rows' own precision, float32 or float64. What Δ rests on (both log-sum-exps, Σw and Σw·(a − c)) is
summed in float64: float32 lanes round the same way each time where tokens share a logit, which showed as ten times the
bound. The other sums run in lanes over blocks of tokens, and in float64 over the blocks.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from geomix_core.policies import MASK_GAP
from geomix_core.solvers.lanes import BLOCK, exp2, extent, float_of, in_lanes, larger, scratch, summed
from geomix_core.solvers.onepass import (
    COARSE,
    COMMON,
    DISJOINT,
    EMPTY,
    EPS,
    HARD,
    IDENTICAL,
    INFINITE,
    NAN,
    NO_ROOT,
    SOLVED,
)

FINE = 1e-10
"""What float64 solves to, unless something finer is asked for."""
REACH = 0.1
"""R·|step| beyond which a step is not the last one: the variance is carried to the root by its first derivative."""
TRUNCATION = 0.2
"""Share of the tolerance that is left to what the last step leaves out; the rest is for rounding."""
SLACK, DRIFT = 1.001, 1e-3
"""Room for the rounding of the variance, and of the third moment."""
MASK = -MASK_GAP

REFINE = HARD + 1
"""A code of `solve_row` beside those of `onepass`: not to be decided in this precision, but α is near."""

ALPHA, DELTA, VARIANCE, LOW, HIGH, BOUND, PASSES = range(7)
"""Columns of what `solve_row` writes."""


@in_lanes
def _three_nodes(u, v, most_u, most_v, masked, k, out):
    """Pass 1. masked: whether a token may lie below the mask; given as a literal, so that the rest is not compiled.

    out[0:12]: Σ w aʲ at β = 0, ½, 1, on the common support; [12:14]: Σ e^u, Σ e^v on each policy's own; [14:17]: sizes
    of the common support and of both; [17:19]: the range of a.
    """
    zero, one, half, mask = k[0], k[1], k[2], k[4]
    all_u, all_v = carray(scratch(zero), BLOCK), carray(scratch(one), BLOCK)
    out[:] = 0.0
    high = fall = zero  # the range of a contains 0: a ≥ 0 at the maximum of v, a ≤ 0 at that of u
    for start in range(0, u.shape[0], BLOCK):
        s0 = s1 = s2 = s3 = h0 = h1 = h2 = h3 = t0 = t1 = t2 = t3 = zero
        both = in_both_u = in_both_v = zero
        # Sliced, and indexed from 0: of start + j the compiler cannot tell that it is not negative, and would gather.
        part_u, part_v = u[start : start + BLOCK], v[start : start + BLOCK]
        count = part_u.shape[0]
        for j in range(count):
            x, y = part_u[j] - most_u, part_v[j] - most_v
            a = y - x
            e, f = exp2(x, half), exp2(y, half)
            ee, ff, ef = e * e, f * f, e * f
            if masked:
                here_u, here_v = one if x >= mask else zero, one if y >= mask else zero
                here = here_u * here_v
                a = a if here > zero else zero
                ee, ff, ef = ee * here_u, ff * here_v, ef * here
                both += here
                in_both_u += here_u
                in_both_v += here_v
            all_u[j], all_v[j] = ee, ff
            high, fall = larger(a, high), larger(-a, fall)
            if masked:
                ee, ff = ee * here, ff * here
            aa = a * a
            aaa = aa * a
            s0 += ee
            s1 += ee * a
            s2 += ee * aa
            s3 += ee * aaa
            h0 += ef
            h1 += ef * a
            h2 += ef * aa
            h3 += ef * aaa
            t0 += ff
            t1 += ff * a
            t2 += ff * aa
            t3 += ff * aaa
        out[0] += s0
        out[1] += s1
        out[2] += s2
        out[3] += s3
        out[4] += h0
        out[5] += h1
        out[6] += h2
        out[7] += h3
        out[8] += t0
        out[9] += t1
        out[10] += t2
        out[11] += t3
        out[12] += summed(all_u, count)
        out[13] += summed(all_v, count)
        out[14] += both
        out[15] += in_both_u
        out[16] += in_both_v
    if not masked:
        out[14] = out[15] = out[16] = u.shape[0]
    out[17], out[18] = -fall, high


@in_lanes
def _log_sums(u, v, most_u, most_v, k, out):
    """out[0:2]: Σ e^u, Σ e^v on each policy's own support."""
    zero, one, log2e, mask = k[0], k[1], k[3], k[4]
    out[:] = 0.0
    for start in range(0, u.shape[0], BLOCK):
        part_u, part_v = u[start : start + BLOCK], v[start : start + BLOCK]
        all_u = all_v = zero
        for j in range(part_u.shape[0]):
            x, y = part_u[j] - most_u, part_v[j] - most_v
            all_u += exp2(x, log2e) * (one if x >= mask else zero)
            all_v += exp2(y, log2e) * (one if y >= mask else zero)
        out[0] += all_u
        out[1] += all_v


@in_lanes
def _tilted(u, v, most_u, most_v, masked, beta, c, shift, k, out):
    """Pass 2. out[0:4]: Σ w dʲ, j = 0..3, with w = e^(u + βa − shift) and d = a − c, on the common support."""
    zero, log2e, mask = k[0], k[3], k[4]
    all_w, all_wd = carray(scratch(zero), BLOCK), carray(scratch(log2e), BLOCK)
    out[:] = 0.0
    for start in range(0, u.shape[0], BLOCK):
        s2 = s3 = zero
        # Sliced, and indexed from 0: of start + j the compiler cannot tell that it is not negative, and would gather.
        part_u, part_v = u[start : start + BLOCK], v[start : start + BLOCK]
        count = part_u.shape[0]
        for j in range(count):
            x, y = part_u[j] - most_u, part_v[j] - most_v
            a = y - x
            if masked:
                ok = (x >= mask) & (y >= mask)
                a = a if ok else zero
            w = exp2(x + beta * a - shift, log2e)
            if masked:
                w = w if ok else zero
            d = a - c
            wd = w * d
            wdd = wd * d
            all_w[j], all_wd[j] = w, wd
            s2 += wdd
            s3 += wdd * d
        out[0] += summed(all_w, count)
        out[1] += summed(all_wd, count)
        out[2] += s2
        out[3] += s3


@njit(nogil=True, cache=True)
def _quintic_root(f0, d0, c0, f1, d1, c1):
    """Root in [0, 1] of the quintic with value, slope and curvature f, d, c at 0 and at 1; f0 ≤ 0 ≤ f1."""
    p3 = 10 * (f1 - f0) - 6 * d0 - 4 * d1 - 1.5 * c0 + 0.5 * c1
    p4 = -15 * (f1 - f0) + 8 * d0 + 7 * d1 + 1.5 * c0 - c1
    p5 = 6 * (f1 - f0) - 3 * d0 - 3 * d1 - 0.5 * c0 + 0.5 * c1
    low, high, t = 0.0, 1.0, 0.5
    for _ in range(60):
        value = f0 + t * (d0 + t * (0.5 * c0 + t * (p3 + t * (p4 + t * p5))))
        slope = d0 + t * (c0 + t * (3 * p3 + t * (4 * p4 + t * 5 * p5)))
        if value <= 0:
            low = t
        if value >= 0:
            high = t
        step = t - value / slope if slope > 0 else -1.0
        new = step if low <= step <= high else (low + high) / 2
        if abs(new - t) < 1e-13:
            break
        t = new
    return t


@njit(nogil=True, cache=True)
def _survey(u, v, k):
    """(both maxima in the precision of the constants, whether a token may be masked, whether all is usable)."""
    least = u.dtype.type(-np.inf)
    low_u, high_u, sound_u = extent(u, least, k[5])
    low_v, high_v, sound_v = extent(v, least, k[5])
    most_u, most_v = k[1] * high_u, k[1] * high_v
    masked = low_u - most_u < k[4] or low_v - most_v < k[4]
    return most_u, most_v, masked, sound_u and sound_v


@njit(nogil=True, cache=True)
def solve_row(u, v, k, rounding, tolerance, sums, row):
    """One row `[V]` a policy: returns a code, and writes `row` `[7]` (columns ALPHA … PASSES).

    k: `constants` in the precision that is asked for. tolerance: what |α − α*|·√Var may be. sums `[24]`:
    scratch. rounding: error of Δ in units of 1 + |c| + (−K(β))⁺/4 + σ(1 + R/4), with σ = √Var and R the range
    of a. Exponents are as large as −K and R, so they lose that many roundings, and give them to Δ times σ.
    """
    row[:] = 0.0
    row[ALPHA], row[HIGH], row[BOUND] = 0.5, 1.0, 0.5
    most_u, most_v, masked, sound = _survey(u, v, k)
    if not sound:
        for i in range(u.shape[0]):
            if u[i] != u[i] or v[i] != v[i]:
                return NAN
        return INFINITE
    if most_u == k[6] or most_v == k[6]:
        return EMPTY
    if masked:
        _three_nodes(u, v, most_u, most_v, True, k, sums)
    else:
        _three_nodes(u, v, most_u, most_v, False, k, sums)
    row[PASSES] = 2
    if sums[14] == 0:
        return DISJOINT
    span = sums[18] - sums[17]
    c = math.log(sums[13]) - math.log(sums[12])
    fine = rounding < 1e-12  # float64: the last word
    cast = k.dtype.type
    d, k2, k3 = np.zeros(3), np.zeros(3), np.zeros(3)
    for j in range(3):
        s0 = sums[4 * j]
        if s0 < (1e-290 if fine else 1e-20):
            return HARD
        mean = sums[4 * j + 1] / s0
        second = sums[4 * j + 2] / s0
        d[j] = mean - c
        k2[j] = max(second - mean * mean, 0.0)
        k3[j] = sums[4 * j + 3] / s0 - 3 * mean * second + 2 * mean**3
    noise = 4 * rounding * (1 + abs(c) + span)
    if fine:
        if d[2] - d[0] <= 1e-12 and abs(d[2]) <= 1e-12:
            return IDENTICAL
    elif span < 1e-3 or (d[0] > -noise) or (d[2] < noise):
        return HARD
    if d[0] >= 0 or d[2] <= 0:
        row[ALPHA] = 0.0 if d[2] <= 0 else 1.0
        row[DELTA] = d[2] if d[2] <= 0 else d[0]
        row[VARIANCE] = k2[2] if d[2] <= 0 else k2[0]
        row[LOW] = row[HIGH] = row[ALPHA]
        row[BOUND] = 0.0
        return NO_ROOT
    left = 0 if d[1] > 0 else 1
    right = left + 1
    t = _quintic_root(d[left], k2[left] / 2, k3[left] / 4, d[right], k2[right] / 2, k3[right] / 4)
    beta = float(cast(0.5 * (left + t)))
    if not fine and rounding * (1 + abs(c)) > tolerance * math.sqrt(max(k2[0], k2[1], k2[2])):
        row[ALPHA] = 1 - beta
        return REFINE  # so near to identical that pass 2 would say so
    return _close_in(u, v, most_u, most_v, masked, beta, c, k, rounding, tolerance, sums, row)


@njit(nogil=True, cache=True)
def refine_row(u, v, k, rounding, tolerance, sums, row):
    """A row of which `solve_row` in float32 said REFINE, given its `sums` and `row`: from its α on in float64."""
    most_u, most_v, masked, _ = _survey(u, v, k)
    _log_sums(u, v, most_u, most_v, k, sums[12:14])
    row[PASSES] += 1
    c = math.log(sums[13]) - math.log(sums[12])
    return _close_in(u, v, most_u, most_v, masked, 1 - row[ALPHA], c, k, rounding, tolerance, sums, row)


@njit(nogil=True, cache=True)
def _remainder(step, error, span):
    """How far the root can be from β ± step, the root of Δ + K″δ + K‴δ²/2; error: that of Δ, over K″.

    |K⁗| ≤ R²K″, so what the quadratic leaves out is at most R²·step³/6 in units of K″, which itself changes at most as
    e^(R·step). K″ and K‴ are known to DRIFT of themselves and of R·K″.
    """
    grown = math.exp(min(span * step, 700.0))
    left = error + DRIFT * step * (1 + span * step / 2) + SLACK * span**2 * step**3 / 6 * grown
    reach = span * left * grown
    return EPS - math.log1p(-reach) / span if reach < 1 else math.inf


@njit(nogil=True, cache=True)
def _close_in(u, v, most_u, most_v, masked, beta, c, k, rounding, tolerance, sums, row):
    """Tilted passes from β on, until the bound is met: a code, and `row`. sums: as `_three_nodes` has left them."""
    span = sums[18] - sums[17]
    equal = sums[14] == sums[15] and sums[14] == sums[16]
    fine = rounding < 1e-12
    cast = k.dtype.type
    near = cast(c)
    low, high = 0.0, 1.0
    for _ in range(60):
        # K lies below its chord, so with the chord as the shift the weights sum to at most 1.
        left = 0 if beta < 0.5 else 1
        t = 2 * beta - left
        shift = math.log(sums[4 * left]) * (1 - t) + math.log(sums[4 * left + 4]) * t
        if masked:
            _tilted(u, v, most_u, most_v, True, cast(beta), near, cast(shift), k, sums[20:24])
        else:
            _tilted(u, v, most_u, most_v, False, cast(beta), near, cast(shift), k, sums[20:24])
        row[PASSES] += 1
        s0 = sums[20]
        if not (s0 > (1e-290 if fine else 1e-20)):
            return HARD
        mean = sums[21] / s0
        second = sums[22] / s0
        variance = second - mean * mean
        third = sums[23] / s0 - 3 * mean * second + 2 * mean**3
        delta = mean + (near - c)
        if not (variance > 0):
            return HARD
        sigma = math.sqrt(variance)
        sunk = max(0.0, -(shift + math.log(s0)))
        error = rounding * (1 + abs(c) + sunk / 4 + sigma * (1 + span / 4))
        reach = SLACK * span * (abs(delta) + error) / variance
        bound = EPS - math.log1p(-reach) / span if reach < 1 else 1.0
        if delta <= 0:
            low = max(low, beta)
        if delta >= 0:
            high = min(high, beta)
        # Where the sign of Δ is certain the root lies on one side of β only.
        left_end = beta if delta < -error else max(0.0, beta - bound)
        right_end = beta if delta > error else min(1.0, beta + bound)
        discriminant = variance * variance - 2 * delta * third
        new, left_out = beta - delta / variance, math.inf
        if discriminant > 0:
            step = -2 * delta / (variance + math.sqrt(discriminant))
            new = beta + step
            if span * abs(step) <= REACH:
                after, left_out = _remainder(abs(step), error / variance, span), _remainder(abs(step), 0.0, span)
                left_end, right_end = max(left_end, new - after), min(right_end, new + after)
        root = min(max(new, left_end), right_end)
        within = max(right_end - root, root - left_end)
        # Either side of β is bounded by its last evaluation, or what the quadratic leaves out is little of the whole.
        sure = min(within, left_out) * sigma <= TRUNCATION * tolerance
        # Where one token has all the weight σ is nearly 0, but need not be so at the root.
        length = within * sigma * math.exp(min(span * (abs(root - beta) + within) / 2, 100.0))
        if (length <= tolerance and sure) or abs(delta) <= error:
            if length > (COARSE if fine else tolerance):
                row[ALPHA] = 1 - root
                return HARD if fine else REFINE
            row[ALPHA], row[DELTA], row[VARIANCE] = 1 - root, delta, max(variance + third * (root - beta), 0.0)
            row[LOW], row[HIGH], row[BOUND] = 1 - right_end, 1 - left_end, within
            return SOLVED if equal else COMMON
        if not (low < new < high):
            new = 0.5 * (low + high)
        new = float(cast(new))
        if new == beta or high - low < 1e-15:
            return HARD
        beta = new
    return HARD


@njit(nogil=True, cache=True)
def solve_rows(theta, target, k, rounding, tolerance, fine_k, fine_rounding, fine_tolerance, codes, rows):
    """`solve_row` for every row of `[B, V]`, into codes `[B]` and rows `[B, 7]`; what is not decided, in float64.

    Rows are not copied for that: what is float64 are the constants, and so all that is computed with them.
    """
    sums = np.zeros(24)
    for i in range(theta.shape[0]):
        u, v, row = theta[i], target[i], rows[i]
        code = solve_row(u, v, k, rounding, tolerance, sums, row)
        if code == REFINE:
            code = refine_row(u, v, fine_k, fine_rounding, fine_tolerance, sums, row)
        if code == HARD and rounding > fine_rounding:
            passes = row[PASSES]
            code = solve_row(u, v, fine_k, fine_rounding, fine_tolerance, sums, row)
            row[PASSES] += passes
        codes[i] = code


@njit(nogil=True, cache=True)
def _widen_float16(bits, out):
    scale = np.float32(2.0**112)  # between the exponents' offsets, which also makes subnormal numbers normal
    for i in range(bits.shape[0]):
        h = np.uint32(bits[i])
        finite = float_of(np.uint32((h & 0x7FFF) << 13)) * scale
        other = float_of(np.uint32(((h & 0x3FF) << 13) | 0x7F800000))
        size = other if h & 0x7C00 == 0x7C00 else finite
        out[i] = -size if h & 0x8000 else size


@njit(nogil=True, cache=True)
def _widen_bfloat16(bits, out):
    for i in range(bits.shape[0]):
        out[i] = float_of(np.uint32(np.uint32(bits[i]) << 16))


def widened(bits: np.ndarray, brain: bool) -> np.ndarray:
    """float32 of float16, or of bfloat16 if `brain`, given as uint16, any shape; several times as fast as NumPy."""
    out = np.empty(bits.shape, np.float32)
    flat = np.ascontiguousarray(bits).reshape(-1)
    flat.flags.writeable = False
    (_widen_bfloat16 if brain else _widen_float16)(flat, out.reshape(-1))
    return out


@cache
def constants(dtype: Any) -> np.ndarray:
    """0, 1, ½·log₂e, log₂e, the mask gap, the largest finite number and −inf, in a dtype."""
    log2e = 1 / math.log(2)
    return np.array([0, 1, log2e / 2, log2e, MASK, np.finfo(dtype).max, -np.inf], dtype=dtype)


ROUNDING = {np.dtype(np.float32): 5e-7, np.dtype(np.float64): 2e-14}
"""`solve_row`'s rounding by the dtype of the rows."""


def solve(theta: np.ndarray, target: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[B]`, and the columns ALPHA … PASSES `[B, 7]`, of logits `[B, V]`, float32 or float64, in C order.

    tolerance: what |α − α*|·√Var may be, in a Fisher–Rao length; float64 solves to FINE if that is less.
    """
    codes, rows = np.empty(len(theta), np.int64), np.empty((len(theta), 7))
    # numba compiles once for what may be written to and once for what may not: nothing may be.
    theta, target = theta.view(), target.view()
    theta.flags.writeable = target.flags.writeable = False
    double, fine = np.dtype(np.float64), min(tolerance, FINE)
    solve_rows(
        theta, target, constants(theta.dtype), ROUNDING[theta.dtype], fine if theta.dtype == double else tolerance,
        constants(double), ROUNDING[double], fine, codes, rows,
    )  # fmt: skip
    return codes, rows
