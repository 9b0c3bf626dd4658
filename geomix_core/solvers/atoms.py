"""One row of logits as a few hundred atoms in a single pass, compiled (numba): what curves and searches run on.

With u, v the two rows less their maxima, ℓ = (v − u) − c, where c is the difference of the log-sum-exps. Tokens fall
into cells of ℓ, and each cell collects the moments Σ p·dʲ, j = 0..3, of the distance d from its middle. Two Gauss nodes
a cell match all four, so that for its part of E_θ[e^(sℓ)]

    |Σ p e^(sℓ) − its sum over the nodes| ≤ (s·width)⁴/1536 · e^(|s|·width) · Σ p e^(sℓ),

7e-8 of it for |s| ≤ 2 and cells of WIDTH: the remainder of two-point Gauss quadrature is f⁗/4!·∫π₂², and of all monic
π₂ the orthogonal one has the least ∫π₂², so no more than Chebyshev's, (width²/8)². A reward of its own makes two more
measures, p·r and p·r²; the four moments of each go to four Chebyshev nodes a cell. Those atoms may be negative, but
sums that are linear in them are as exact: (s·width)⁴/3072 of the sum of magnitudes.

The likeliest token of π_θ stays an atom of its own, from which cells are counted: where it has nearly all the mass,
sums over the others lose nothing to it. Cells are of one width, or (fine) shrink with the distance within EDGE of it,
eight to an octave, so that policies which are nearly identical but for a few tokens keep their digits.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import carray, njit, types  # type: ignore[attr-defined]

from geomix_core.policies import MASK_GAP
from geomix_core.solvers.lanes import (
    BLOCK,
    FAST,
    bits_of,
    double_of,
    exp2,
    extent,
    in_lanes,
    intrinsic_,
    larger,
    scratch,
)

WIDTH = 0.05
"""Nats."""
MOST = 1024
"""Cells at most: the cache is small."""
LEAST = 96
"""Cells at least, of one width."""
EDGE, FINEST, PARTS = 0.5, 2.0**-25, 8
"""Nats from the top token's ℓ within which an octave has PARTS cells, down to FINEST, where cells are fine."""
INNER = PARTS * 24
"""Cells between FINEST and EDGE."""
SHIFTED = 49
EXPONENT, KEPT = 0x7FF << 52, -(1 << SHIFTED)
RECIPROCAL, MAGIC = 2046 << 52, 0x433 << 52
FIRST = float((1023 - 25) * PARTS)
"""For the bits of a float64: those below a cell; its exponent, and what leads to a cell; the exponent of 1/2ᵉ, and of
numbers whose last bit is 1; FINEST's place."""
SMALL = 1024
"""Tokens up to which each is an atom of its own."""
SINGLE_EPS = 2.0**-23
SIDE, SINGLE = 32, 1 / 2048
"""Cells along each of ℓ and r, and the probability from which a token is no cell's, where cells are of (ℓ, r)."""
WIDEST = 300.0
"""Nats between the extremes of ℓ beyond which e^(2ℓ) may overflow: left to others."""
MASK = -MASK_GAP
LOG2E = 1 / math.log(2)

FINE, NAN, INFINITE, EMPTY, UNCOVERED, WIDE = range(6)
"""Codes of `survey`: UNCOVERED where a token of π_θ has no finite ℓ or reward, WIDE beyond WIDEST."""

MOST_U, MOST_V, MOST_R, LOW, HIGH, LOG_U, LOG_V, LOG_R, LOST, UNEQUAL, SHIFT = range(11)
"""Of a row: maxima of the logits (target first is V; R: reference); the range of v − u where π_θ > 0; log Σ e^u, e^v,
e^r above their maxima; log of π_t's mass where π_θ > 0; whether π_t has mass elsewhere; c."""
FACTS = 11

_NODES = 0.5 * np.cos((2 * np.arange(4) + 1) * np.pi / 8)
_N0, _N1, _N2, _N3 = _NODES
_LAGRANGE = np.linalg.inv(np.vander(_NODES, increasing=True).T)
"""Weights at the four nodes of a cell that match its moments: their sum is the mass, and so on."""


@intrinsic_
def _add(_context: Any, cells: Any, place: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """cells[place], four numbers, += (a, b, c, d), as one load, one sum and one store: the pass's narrowest point."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        four = ir.VectorType(ir.DoubleType(), 4)
        start = builder.mul(arguments[1], ir.Constant(ir.IntType(64), 4))
        pointer = builder.bitcast(builder.gep(array.data, [start]), four.as_pointer())
        moments = ir.Constant(four, ir.Undefined)
        for j in range(4):
            moments = builder.insert_element(moments, arguments[2 + j], ir.Constant(ir.IntType(32), j))
        before = builder.load(pointer)
        before.align = 8
        builder.store(builder.fadd(before, moments), pointer).align = 8
        return context.get_dummy_value()

    return types.void(cells, place, a, b, c, d), generate


@njit(inline="always")
def _add_moments(cells, place, mass, d):
    md = mass * d
    mdd = md * d
    _add(cells, place, mass, md, mdd, mdd * d)


@njit(fastmath=FAST, nogil=True, cache=True)
def _extent(u, v, least, largest):
    """(whether neither has NaN or +inf, both lowest, both highest, the lowest and highest v − u)."""
    low_u = low_v = low = high = most_u = most_v = least
    bad = 0
    for i in range(u.shape[0]):
        x, y = u[i], v[i]
        a = y - x
        bad |= (not (x <= largest)) | (not (y <= largest))
        low_u, low_v, low = larger(-x, low_u), larger(-y, low_v), larger(-a, low)
        most_u, most_v, high = larger(x, most_u), larger(y, most_v), larger(a, high)
    return bad == 0, -low_u, -low_v, most_u, most_v, -low, high


@njit(nogil=True, cache=True)
def _extent_masked(u, v, r, most_u, most_v, most_r):
    """(the range of v − u where π_θ > 0, whether all of that has ℓ and a reward, whether π_t is elsewhere)."""
    low, high, covered, elsewhere = np.inf, -np.inf, True, False
    for i in range(u.shape[0]):
        there = v[i] - most_v >= MASK
        if u[i] - most_u < MASK:
            elsewhere |= there
        elif there and r[i] - most_r >= MASK:
            a = np.float64(v[i]) - np.float64(u[i])
            low, high = min(low, a), max(high, a)
        else:
            covered = False
    return low, high, covered, elsewhere


@njit(nogil=True, cache=True)
def survey(u, v, r, own, k, facts):
    """Maxima, supports and the range of ℓ of one row: (a code, the index of the likeliest token of π_θ).

    r: the reference's logits where it has its `own`, else anything. k: `kernel.constants`. facts `[FACTS]` is written.
    """
    least, mask = k[6], k[4]
    sound, low_u, low_v, most_u, most_v, low, high = _extent(u, v, least, k[5])
    low_r, most_r, sound_r = extent(r, least, k[5]) if own else (low_u, most_u, True)
    if not (sound and sound_r):
        for i in range(u.shape[0]):
            if u[i] != u[i] or v[i] != v[i] or (own and r[i] != r[i]):
                return NAN, 0
        return INFINITE, 0
    if most_u == least or most_v == least or most_r == least:
        return EMPTY, 0
    facts[MOST_U], facts[MOST_V], facts[MOST_R], facts[UNEQUAL] = most_u, most_v, most_r, 0.0
    if low_u - most_u < mask or low_v - most_v < mask or low_r - most_r < mask:
        wide_low, wide_high, covered, elsewhere = _extent_masked(u, v, r if own else u, most_u, most_v, most_r)
        if not covered:
            return UNCOVERED, 0
        facts[LOW], facts[HIGH], facts[UNEQUAL] = wide_low, wide_high, 1.0 if elsewhere else 0.0
    else:
        facts[LOW], facts[HIGH] = low, high
    # In float32 v − u is off by its rounding, which is large where the logits have large offsets.
    apart, off = np.float64(most_u) - np.float64(most_v), SINGLE_EPS * max(abs(facts[LOW]), abs(facts[HIGH]))
    facts[LOW] += apart - off
    facts[HIGH] += apart + off
    if facts[HIGH] - facts[LOW] > WIDEST:
        return WIDE, 0
    top = 0
    while u[top] != most_u:
        top += 1
    return FINE, top


@njit(nogil=True, cache=True)
def layout(facts, middle, width, most, fine):
    """(cells above `middle`, the top token's v − u; cells below it; their width, where it is the same)."""
    span = facts[HIGH] - facts[LOW]
    if fine:
        width, edge, inner = max(width, span / (most - 2 * INNER - 4)), EDGE, INNER
    else:
        width, edge, inner = max(min(width, span / LEAST), span / (most - 8), 1e-9), 0.0, 1
    above, below = max(facts[HIGH] - middle - edge, 0.0), max(middle - facts[LOW] - edge, 0.0)
    return inner + int(above / width) + 2, inner + int(below / width) + 2, width


@njit(nogil=True, cache=True)
def _extents(cell, above, width, fine):
    """(sign, lower end, width) of a cell in |v − u − middle|."""
    sign, k = (1.0, cell) if cell < above else (-1.0, cell - above)
    if not fine:
        return sign, (k - 0.5) * width, width
    if k >= INNER:
        return sign, EDGE + (k - INNER) * width, width
    octave = FINEST * 2.0 ** (k // PARTS)
    return sign, octave * (1 + (k % PARTS) / PARTS), octave / PARTS


@njit(inline="always")
def _find_even(d, per, above):
    """The same where all cells are of one width, and the first straddles the middle."""
    t = abs(d) * per + 0.5
    floor = np.floor(t)
    return floor + (above if d < 0 else 0.0), t - floor - 0.5


@njit(inline="always")
def _find(d, per, above):
    """(cell, offset from its middle in widths) of v − u − middle."""
    size = abs(d)
    near = max(size, FINEST)
    bits = bits_of(near)
    # Exponent and first bits of the fraction count the inner cells; the rest of it says where in the cell.
    inner = double_of((bits >> SHIFTED) | MAGIC) - 2.0**52 - FIRST
    part = (near - double_of(bits & KEPT)) * double_of(RECIPROCAL - (bits & EXPONENT)) * PARTS
    t = (size - EDGE) * per
    floor = np.floor(t)
    within = size < EDGE
    cell = inner if within else INNER + floor
    return cell + (above if d < 0 else 0.0), (part if within else t - floor) - 0.5


@njit(inline="always")
def _weigh(x, y):
    """(1 where π_θ > 0, else 0; e^x and e^y, 0 for masks)."""
    here = 1.0 if x >= MASK else 0.0
    there = 1.0 if y >= MASK else 0.0
    return here, exp2(x, LOG2E) * here, exp2(y, LOG2E) * there


@in_lanes
def _collect(u, v, facts, fine, middle, above, width, cells, exp_u, exp_v, out):
    """Adds to cells `[cells, 4]` the moments of e^u in each; out[0:3] += Σ e^u, Σ e^v, Σ e^v where π_θ > 0.

    exp_u, exp_v `[V]` are filled with e^u, and with e^v where π_θ > 0, unless they are empty.
    """
    mass, offset, cell = carray(scratch(0.0), BLOCK), carray(scratch(1.0), BLOCK), carray(scratch(2.0), BLOCK)
    weight = carray(scratch(3.0), BLOCK)
    most_u, most_v, per, last = facts[MOST_U], facts[MOST_V], 1 / width, len(cells) - 1
    for start in range(0, u.shape[0], BLOCK):
        part_u, part_v = u[start : start + BLOCK], v[start : start + BLOCK]
        keep_u, keep_v = exp_u[start : start + BLOCK], exp_v[start : start + BLOCK]
        count = part_u.shape[0]
        all_u = all_v = both = 0.0
        for j in range(count):
            x, y = np.float64(part_u[j]) - most_u, np.float64(part_v[j]) - most_v
            here, e, f = _weigh(x, y)
            d = y - x - middle if here > 0 else 0.0
            place, away = _find(d, per, above) if fine else _find_even(d, per, above)
            mass[j], weight[j], offset[j], cell[j] = e, f * here, away, place
            all_u += e
            all_v += f
            both += f * here
        out[0] += all_u
        out[1] += all_v
        out[2] += both
        for j in range(keep_u.shape[0]):
            keep_u[j], keep_v[j] = mass[j], weight[j]
        for j in range(count):
            _add_moments(cells, min(np.int64(cell[j]), last), mass[j], offset[j])


@in_lanes
def _collect_rewards(u, v, r, facts, fine, middle, above, width, cells, exp_u, exp_v, out):
    """The same with a reward of its own: cells `[3, cells, 4]` for e^u·(1, ρ, ρ²) with ρ = v − r; out[3] += Σ e^r."""
    mass, offset, cell = carray(scratch(0.0), BLOCK), carray(scratch(1.0), BLOCK), carray(scratch(2.0), BLOCK)
    weight, reward = carray(scratch(3.0), BLOCK), carray(scratch(4.0), BLOCK)
    most_u, most_v, most_r, per = facts[MOST_U], facts[MOST_V], facts[MOST_R], 1 / width
    last = cells.shape[1] - 1
    for start in range(0, u.shape[0], BLOCK):
        part_u, part_v, part_r = u[start : start + BLOCK], v[start : start + BLOCK], r[start : start + BLOCK]
        keep_u, keep_v = exp_u[start : start + BLOCK], exp_v[start : start + BLOCK]
        count = part_u.shape[0]
        all_u = all_v = both = all_r = 0.0
        for j in range(count):
            x, y, z = (
                np.float64(part_u[j]) - most_u,
                np.float64(part_v[j]) - most_v,
                np.float64(part_r[j]) - most_r,
            )
            here, e, f = _weigh(x, y)
            d = y - x - middle if here > 0 else 0.0
            place, away = _find(d, per, above) if fine else _find_even(d, per, above)
            mass[j], weight[j], offset[j], cell[j] = e, f * here, away, place
            reward[j] = y - z if here > 0 else 0.0
            all_u += e
            all_v += f
            both += f * here
            all_r += exp2(z, LOG2E) if z >= MASK else 0.0
        out[0] += all_u
        out[1] += all_v
        out[2] += both
        out[3] += all_r
        for j in range(keep_u.shape[0]):
            keep_u[j], keep_v[j] = mass[j], weight[j]
        for j in range(count):
            place, p, rho, d = min(np.int64(cell[j]), last), mass[j], reward[j], offset[j]
            _add_moments(cells[0], place, p, d)
            _add_moments(cells[1], place, p * rho, d)
            _add_moments(cells[2], place, p * rho * rho, d)


@njit(nogil=True, cache=True)
def _gauss(cells, count, middle, above, width, fine, ell, mass):
    """Two-point Gauss quadrature of each cell that has mass, into ell, mass: how many atoms that makes."""
    n = 0
    for k in range(count):
        m0 = cells[k, 0]
        if m0 <= 0:
            continue
        mean, second, third = cells[k, 1] / m0, cells[k, 2] / m0, cells[k, 3] / m0
        sign, low, size = _extents(k, above, width, fine)
        centre = middle + sign * (low + size * (0.5 + mean))
        variance = second - mean * mean
        if variance <= 1e-16:
            ell[n], mass[n] = centre, m0
            n += 1
            continue
        spread = math.sqrt(variance)
        skew = (third - 3 * mean * second + 2 * mean**3) / (variance * spread)
        root = math.sqrt(skew * skew + 4)
        upper, lower = (skew + root) / 2, (skew - root) / 2
        ell[n], mass[n] = centre + sign * spread * upper * size, m0 * -lower / root
        ell[n + 1], mass[n + 1] = centre + sign * spread * lower * size, m0 * upper / root
        n += 2
    return n


@njit(nogil=True, cache=True)
def _chebyshev(cells, count, middle, above, width, fine, weights, ell, sums):
    """Four nodes a cell that has mass, sums `[3, n]` of its three measures there: how many atoms that makes."""
    n = 0
    for k in range(count):
        if cells[0, k, 0] <= 0:
            continue
        sign, low, size = _extents(k, above, width, fine)
        for i in range(4):
            node = _N0 if i == 0 else _N1 if i == 1 else _N2 if i == 2 else _N3
            ell[n] = middle + sign * (low + size * (0.5 + node))
            for m in range(3):
                total = 0.0
                for j in range(4):
                    total += weights[i, j] * cells[m, k, j]
                sums[m, n] = total
            n += 1
    return n


@njit(nogil=True, cache=True)
def gather(u, v, r, own, k, width, most, fine, weights, cells, facts, ell, sums, exps):
    """Atoms of one row: (a code, how many, the top token's index).

    The first atom is the top token of π_θ. ell `[n]`: ℓ; sums `[3, n]`: Σp, Σp·r, Σp·r² there, p normalised. own:
    whether r is a reference of its own. width, most, fine: of the cells, of which the inner ones may shrink. cells
    `[3, most, 4]`: scratch. exps `[2, V]`: filled with e^u, and with e^v where π_θ > 0, but for the top token, unless
    they are `[2, 0]`.
    """
    code, top = survey(u, v, r, own, k, facts)
    if code != FINE:
        return code, 0, 0
    if len(u) <= SMALL:
        _all_alone(u, v, r, own, top, facts, ell, sums, exps)
        return FINE, len(u), top
    middle = (np.float64(v[top]) - facts[MOST_V]) - (np.float64(u[top]) - facts[MOST_U])
    above, below, width = layout(facts, middle, width, most, fine)
    count = above + below
    out, after, exp_u, exp_v = np.zeros(4), top + 1, exps[0], exps[1]
    used = cells[:, :count] if own else cells[:1, :count]
    used[:] = 0.0
    if own:
        _collect_rewards(
            u[:top], v[:top], r[:top], facts, fine, middle, above, width, used, exp_u[:top], exp_v[:top], out
        )
        _collect_rewards(
            u[after:], v[after:], r[after:], facts, fine, middle, above, width, used, exp_u[after:], exp_v[after:], out
        )
        out[3] += math.exp(np.float64(r[top]) - facts[MOST_R])
        n = _chebyshev(cells, count, middle, above, width, fine, weights, ell[1:], sums[:, 1:])
    else:
        _collect(u[:top], v[:top], facts, fine, middle, above, width, used[0], exp_u[:top], exp_v[:top], out)
        _collect(u[after:], v[after:], facts, fine, middle, above, width, used[0], exp_u[after:], exp_v[after:], out)
        n = _gauss(cells[0], count, middle, above, width, fine, ell[1:], sums[0, 1:])
    at_top = math.exp(np.float64(v[top]) - facts[MOST_V])
    all_u, all_v, both = out[0] + 1, out[1] + at_top, out[2] + at_top
    c = math.log(all_v) - math.log(all_u)
    facts[LOG_U], facts[LOG_V], facts[SHIFT] = math.log(all_u), math.log(all_v), c
    facts[LOST] = math.log(both / all_v) if facts[UNEQUAL] > 0 else 0.0
    ell[0], sums[0, 0] = middle, 1.0
    n += 1
    if own:
        facts[LOG_R] = math.log(out[3])
        # The reward is v − r, normalised: ρ less the difference of log-sum-exps.
        shift = facts[LOG_V] - facts[LOG_R]
        top_reward = (np.float64(v[top]) - facts[MOST_V]) - (np.float64(r[top]) - facts[MOST_R])
        sums[1, 0], sums[2, 0] = top_reward, top_reward * top_reward
        for i in range(n):
            ell[i] -= c
            p, q = sums[0, i] / all_u, sums[1, i] / all_u
            sums[2, i] = sums[2, i] / all_u - 2 * shift * q + shift * shift * p
            sums[1, i] = q - shift * p
            sums[0, i] = p
        return FINE, n, top
    for i in range(n):
        ell[i] -= c
        sums[0, i] /= all_u
        sums[1, i] = sums[0, i] * ell[i]
        sums[2, i] = sums[1, i] * ell[i]
    return FINE, n, top


@njit(nogil=True, cache=True)
def crowded(ell, measures, widths, width, most):
    """Whether most of what is not the top token lies within so many widths of cells that are even, others far away."""
    s0 = s1 = s2 = 0.0
    low = high = ell[0]
    for i in range(1, ell.shape[0]):
        p = measures[0, i]
        s0 += p
        s1 += p * ell[i]
        s2 += p * ell[i] * ell[i]
        low, high = min(low, ell[i]), max(high, ell[i])
    if s0 <= 0:
        return False
    span, mean = high - low, s1 / s0
    size = max(min(width, span / LEAST), span / most)
    return s2 / s0 - mean * mean < (widths * size) ** 2


@in_lanes
def _log_sums(u, v, r, facts, out):
    """out[0:4]: Σ e^u, Σ e^v, Σ e^v where π_θ > 0, Σ e^r."""
    most_u, most_v, most_r = facts[MOST_U], facts[MOST_V], facts[MOST_R]
    all_u = all_v = both = all_r = 0.0
    for i in range(u.shape[0]):
        x, y, z = np.float64(u[i]) - most_u, np.float64(v[i]) - most_v, np.float64(r[i]) - most_r
        here = 1.0 if x >= MASK else 0.0
        f = exp2(y, LOG2E) * (1.0 if y >= MASK else 0.0)
        all_u += exp2(x, LOG2E) * here
        all_v += f
        both += f * here
        all_r += exp2(z, LOG2E) * (1.0 if z >= MASK else 0.0)
    out[0], out[1], out[2], out[3] = all_u, all_v, both, all_r


@in_lanes
def normalise(u, v, r, facts):
    """Writes the log-sum-exps and what follows from them to `facts`."""
    out = np.empty(4)
    _log_sums(u, v, r, facts, out)
    facts[LOG_U], facts[LOG_V], facts[LOG_R] = math.log(out[0]), math.log(out[1]), math.log(out[3])
    facts[SHIFT] = facts[LOG_V] - facts[LOG_U]
    facts[LOST] = math.log(out[2] / out[1]) if facts[UNEQUAL] > 0 else 0.0


@in_lanes
def spell_out(u, v, r, own, facts, ell, sums):
    """Every token as an atom of its own: ell `[V]`, sums `[3, V]` as in `gather`; needs `normalise`d facts."""
    mass, with_r, with_rr = sums[0], sums[1], sums[2]
    most_u, most_v, most_r = facts[MOST_U], facts[MOST_V], facts[MOST_R]
    shift, at_r, per_u = facts[SHIFT], facts[LOG_V] - facts[LOG_R], math.exp(-facts[LOG_U])
    for i in range(u.shape[0]):
        x, y = np.float64(u[i]) - most_u, np.float64(v[i]) - most_v
        here = x >= MASK
        a = y - x - shift if here else 0.0
        reward = a
        if own:
            reward = y - (np.float64(r[i]) - most_r) - at_r if here else 0.0
        p = exp2(x, LOG2E) * (per_u if here else 0.0)
        ell[i], mass[i], with_r[i], with_rr[i] = a, p, p * reward, p * reward * reward


@njit(nogil=True, cache=True)
def _all_alone(u, v, r, own, top, facts, ell, sums, exps):
    """`gather` where every token is an atom."""
    normalise(u, v, r, facts)
    spell_out(u, v, r, own, facts, ell, sums)
    ell[0], ell[top] = ell[top], ell[0]
    for k in range(3):
        sums[k, 0], sums[k, top] = sums[k, top], sums[k, 0]
    for i in range(exps.shape[1]):
        x = np.float64(u[i]) - facts[MOST_U]
        here = x >= MASK
        exps[0, i] = math.exp(x) if here else 0.0
        exps[1, i] = math.exp(np.float64(v[i]) - facts[MOST_V]) if here else 0.0


@njit(nogil=True, cache=True)
def pair_up(ell, sums, cells, atoms, measures):
    """Tokens spelled out, gathered in cells of (ℓ, r) instead: how many atoms, all of them positive.

    What depends on r other than through r and r² (exact progress) needs that. Tokens with SINGLE or more of either
    policy stay as they are; each cell becomes four points that match its mean and its covariance. cells
    `[2, SIDE², 4]`: scratch; atoms `[n]` and measures `[3, n]` are filled as in `gather`.
    """
    mass, with_r = sums[0], sums[1]
    low_x = low_y = np.inf
    high_x = high_y = -np.inf
    for i in range(ell.shape[0]):
        if mass[i] > 0:
            x, y = ell[i], with_r[i] / mass[i]
            low_x, high_x, low_y, high_y = min(low_x, x), max(high_x, x), min(low_y, y), max(high_y, y)
    per_x = (SIDE - 1e-9) / max(high_x - low_x, 1e-300)
    per_y = (SIDE - 1e-9) / max(high_y - low_y, 1e-300)
    cells[:] = 0.0
    n = 0
    for i in range(ell.shape[0]):
        p = mass[i]
        if not p > 0:
            continue
        x, y = ell[i], with_r[i] / p
        if p * max(1.0, math.exp(min(x, 700.0))) >= SINGLE:
            atoms[n], measures[0, n], measures[1, n] = x, p, y
            n += 1
            continue
        s, t = (x - low_x) * per_x, (y - low_y) * per_y
        a, b = math.floor(s), math.floor(t)
        s, t = s - a - 0.5, t - b - 0.5
        place = int(a) * SIDE + int(b)
        _add(cells[0], place, p, p * s, p * t, p * s * s)
        _add(cells[1], place, p * s * t, p * t * t, 0.0, 0.0)
    for place in range(SIDE * SIDE):
        p = cells[0, place, 0]
        if p <= 0:
            continue
        s, t = cells[0, place, 1] / p, cells[0, place, 2] / p
        ss, st, tt = cells[0, place, 3] / p - s * s, cells[1, place, 0] / p - s * t, cells[1, place, 1] / p - t * t
        x, y = low_x + (place // SIDE + 0.5 + s) / per_x, low_y + (place % SIDE + 0.5 + t) / per_y
        a = math.sqrt(2 * max(ss, 0.0))
        b = 2 * st / a if a > 1e-8 else 0.0
        c = math.sqrt(max(2 * tt - b * b, 0.0))
        # Columns of √2 times the covariance's Cholesky factor, both ways.
        for j in range(4):
            sign = 1.0 if j % 2 == 0 else -1.0
            atoms[n] = x + (sign * a / per_x if j < 2 else 0.0)
            measures[0, n] = p / 4
            measures[1, n] = y + sign * (b if j < 2 else c) / per_y
            n += 1
    for i in range(n):
        p, y = measures[0, i], measures[1, i]
        measures[1, i], measures[2, i] = p * y, p * y * y
    return n


PAIRS = 4 * SIDE * SIDE + 2 * math.ceil(1 / SINGLE)
"""Atoms of `pair_up` at most."""


def work(tokens: int, most: int = MOST, paired: bool = False) -> tuple[np.ndarray, ...]:
    """Scratch for `gather`, or for `pair_up`: (weights, cells, facts, ell, sums)."""
    room = min(PAIRS, 4 * tokens) if paired else 4 * min(most, tokens)
    cells = np.empty((2, SIDE * SIDE, 4)) if paired else np.empty((3, most, 4))
    return _LAGRANGE, cells, np.empty(FACTS), np.empty(room + 1), np.empty((3, room + 1))
