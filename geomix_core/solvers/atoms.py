"""One row of logits as a few hundred atoms in a single pass, compiled (numba): what curves and searches run on.

With u, v the two rows less their maxima, ℓ = (v − u) − c, where c is the difference of the log-sum-exps. Tokens fall
into cells of ℓ, and each cell collects the moments Σ p·dʲ, j = 0..7, of the distance d from its middle. Weights at
eight Chebyshev nodes a cell match them all, so that for its part of E_θ[e^(sℓ)]

    |Σ p e^(sℓ) − its sum over the nodes| ≤ 2·(|s|·width/4)⁸/8! · e^(|s|·width) · Σ p e^(sℓ),

2e-11 of it for |s| ≤ 2 and cells of 0.3 nats: the sum is exact for polynomials of degree 7 in d, of which the Chebyshev
interpolant of e^(sd) is that near. c is made of the same sums at s = 1, and off by as much. A reward of its own makes
two more measures, p·r and p·r², which go to the same nodes. Those atoms may be negative, but sums that are linear in
them are as exact, of the sum of magnitudes.

For a search fewer will do (`coarsen`): from the first four moments two Gauss nodes a cell, all positive, off by
(s·width)⁴/1536 (the remainder of two-point Gauss quadrature is f⁗/4!·∫π₂², and of all monic π₂ the orthogonal one has
the least ∫π₂², so no more than Chebyshev's, (width²/8)²), or with a reward of its own four Chebyshev nodes, off by
(s·width)⁴/3072 of the sum of magnitudes.

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

MOST, FINE_MOST, FINE_WIDTH = 768, 2800, 0.125
"""Cells at most: the cache is small; where they shrink, enough for FINE_WIDTH nats each, beyond EDGE, up to WIDEST."""
LEAST = 24
"""Cells at least, of one width."""
EDGE, FINEST, PARTS = 0.5, 2.0**-25, 8
"""Nats from the top token's ℓ within which an octave has PARTS cells, down to FINEST, where cells are fine."""
INNER = PARTS * 24
"""Cells up to EDGE, of which the first reaches from 0 to INNERMOST."""
INNERMOST = FINEST * (1 + 1 / PARTS)
SHIFTED = 49
EXPONENT, KEPT = 0x7FF << 52, -(1 << SHIFTED)
RECIPROCAL, MAGIC = 2046 << 52, 0x433 << 52
FIRST = float((1023 - 25) * PARTS)
"""For the bits of a float64: those below a cell; its exponent, and what leads to a cell; the exponent of 1/2ᵉ, and of
numbers whose last bit is 1; FINEST's place."""
STEP = 512
"""Tokens that are weighed before they are added to cells: what they are is still in the first-level cache."""
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

MOST_U, MOST_V, MOST_R, LOW, HIGH, LOG_U, LOG_V, LOG_R, LOST, UNEQUAL, SHIFT, MASKED = range(12)
"""Of a row: maxima of the logits (target first is V; R: reference); the range of v − u where π_θ > 0; log Σ e^u, e^v,
e^r above their maxima; log of π_t's mass where π_θ > 0; whether π_t has mass elsewhere; c; whether a token is masked.
"""
MIDDLE, ABOVE, COUNT, SIZE = range(12, 16)
"""Of its cells: v − u of the top token, cells above it, all of them, their width where it is the same."""
FACTS = 16

SHARP = 1e-12
"""Squares of a cell's width below which the spread in it is rounding, to a third moment."""
MOMENTS = 8
"""Of a cell, j = 0..7, and nodes that match them."""


def _nodes(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chebyshev nodes in [−½, ½], and what makes weights at them of moments, in two steps.

    First Chebyshev moments of the moments, then weights. The first step enlarges rounding, but that of a high moment,
    which smooth functions hardly feel.
    """
    order = np.arange(count)
    nodes = np.cos((2 * order + 1) * np.pi / (2 * count))
    to_chebyshev = np.zeros((count, count))
    for k in order:
        powers = np.polynomial.chebyshev.cheb2poly(np.eye(count)[k])
        to_chebyshev[k, : len(powers)] = powers * 2.0 ** np.arange(len(powers))
    to_weights = np.cos(np.outer(np.arccos(nodes), order)) * np.where(order > 0, 2, 1) / count
    return nodes / 2, to_chebyshev, to_weights


_NODES, _TO_CHEBYSHEV, _TO_WEIGHTS = _nodes(MOMENTS)
_NODES_4, _TO_CHEBYSHEV_4, _TO_WEIGHTS_4 = _nodes(4)


def _moments(builder: Any, mass: Any, d: Any) -> Any:
    """mass·(1, d, …, d⁷) in eight lanes."""
    double = mass.type

    def lanes(*values: Any) -> Any:
        out = ir.Constant(ir.VectorType(double, len(values)), ir.Undefined)
        for j, value in enumerate(values):
            out = builder.insert_element(out, value, ir.Constant(ir.IntType(32), j))
        return out

    def joined(low: Any, high: Any, count: int) -> Any:
        order = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(count)))
        return builder.shuffle_vector(low, high, order)

    square = builder.fmul(d, d)
    fourth = builder.fmul(square, square)
    two = lanes(mass, builder.fmul(mass, d))
    four = joined(two, builder.fmul(two, lanes(*2 * [square])), 4)
    return joined(four, builder.fmul(four, lanes(*4 * [fourth])), 8)


def _plus(builder: Any, pointer: Any, moments: Any) -> None:
    """One load, one sum, one store: the pass's narrowest point."""
    pointer = builder.bitcast(pointer, moments.type.as_pointer())
    before = builder.load(pointer)
    before.align = 8
    builder.store(builder.fadd(before, moments), pointer).align = 8


@intrinsic_
def _add_moments(_context: Any, cells: Any, place: Any, mass: Any, d: Any) -> Any:
    """cells[place], of cells `[n, 8]`, += mass·dʲ."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        start = builder.mul(arguments[1], ir.Constant(ir.IntType(64), MOMENTS))
        _plus(builder, builder.gep(array.data, [start]), _moments(builder, *arguments[2:]))
        return context.get_dummy_value()

    return types.void(cells, place, mass, d), generate


@intrinsic_
def _add_rewards(_context: Any, cells: Any, place: Any, mass: Any, d: Any, reward: Any) -> Any:
    """cells[place], of cells `[n, 3, 8]`, += mass·rewardᵏ·dʲ."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        start = builder.mul(arguments[1], ir.Constant(ir.IntType(64), 3 * MOMENTS))
        reward = ir.Constant(ir.VectorType(arguments[4].type, MOMENTS), ir.Undefined)
        for j in range(MOMENTS):
            reward = builder.insert_element(reward, arguments[4], ir.Constant(ir.IntType(32), j))
        moments = _moments(builder, *arguments[2:4])
        for k in range(3):
            moments = moments if k == 0 else builder.fmul(moments, reward)
            place = builder.add(start, ir.Constant(ir.IntType(64), k * MOMENTS))
            _plus(builder, builder.gep(array.data, [place]), moments)
        return context.get_dummy_value()

    return types.void(cells, place, mass, d, reward), generate


@njit(fastmath=FAST, nogil=True, cache=True)
def _extent(u, v, least, largest):
    """(whether neither has NaN or +inf, both lowest, both highest, the lowest and highest v − u)."""
    low_u = low_v = low = high = most_u = most_v = least
    sound = True
    for i in range(u.shape[0]):
        x, y = u[i], v[i]
        a = y - x
        sound &= (x <= largest) & (y <= largest)
        low_u, low_v, low = larger(-x, low_u), larger(-y, low_v), larger(-a, low)
        most_u, most_v, high = larger(x, most_u), larger(y, most_v), larger(a, high)
    return sound, -low_u, -low_v, most_u, most_v, -low, high


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
def _first(u, most):
    """Index of the first that equals `most`, which is among them."""
    for start in range(0, u.shape[0], STEP):
        part = u[start : start + STEP]
        found = False
        for j in range(part.shape[0]):
            found |= part[j] == most
        if found:
            for j in range(part.shape[0]):
                if part[j] == most:
                    return start + j
    return 0


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
    facts[MOST_U], facts[MOST_V], facts[MOST_R] = most_u, most_v, most_r
    facts[MASKED] = facts[UNEQUAL] = 0.0
    if low_u - most_u < mask or low_v - most_v < mask or low_r - most_r < mask:
        wide_low, wide_high, covered, elsewhere = _extent_masked(u, v, r if own else u, most_u, most_v, most_r)
        if not covered:
            return UNCOVERED, 0
        facts[LOW], facts[HIGH] = wide_low, wide_high
        facts[MASKED], facts[UNEQUAL] = 1.0, 1.0 if elsewhere else 0.0
    else:
        facts[LOW], facts[HIGH] = low, high
    # In float32 v − u is off by its rounding, which is large where the logits have large offsets.
    apart, off = np.float64(most_u) - np.float64(most_v), SINGLE_EPS * max(abs(facts[LOW]), abs(facts[HIGH]))
    facts[LOW] += apart - off
    facts[HIGH] += apart + off
    if facts[HIGH] - facts[LOW] > WIDEST:
        return WIDE, 0
    return FINE, _first(u, most_u)


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
    if k == 0:
        return sign, 0.0, INNERMOST
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
    part = size / INNERMOST if inner == 0 else part
    t = (size - EDGE) * per
    floor = np.floor(t)
    within = size < EDGE
    cell = inner if within else INNER + floor
    return cell + (above if d < 0 else 0.0), (part if within else t - floor) - 0.5


@in_lanes
def _collect(u, v, facts, fine, masked, cells):
    """Adds to cells `[n, 8]` the moments of e^u in each; returns Σ e^v where π_θ = 0."""
    mass, offset, cell = carray(scratch(0.0), BLOCK), carray(scratch(1.0), BLOCK), carray(scratch(np.int32(2)), BLOCK)
    most_u, most_v, middle = facts[MOST_U], facts[MOST_V], facts[MIDDLE]
    above, per, last = facts[ABOVE], 1 / facts[SIZE], len(cells) - 1.0
    elsewhere = 0.0
    for start in range(0, u.shape[0], STEP):
        part_u, part_v = u[start : start + STEP], v[start : start + STEP]
        count = part_u.shape[0]
        for j in range(count):
            x, y = np.float64(part_u[j]) - most_u, np.float64(part_v[j]) - most_v
            d, e = y - x - middle, exp2(x, LOG2E)
            if masked:
                here = x >= MASK
                d, e = d if here else 0.0, e if here else 0.0
                elsewhere += 0.0 if here or y < MASK else exp2(y, LOG2E)
            place, away = _find(d, per, above) if fine else _find_even(d, per, above)
            mass[j], offset[j], cell[j] = e, away, np.int32(min(place, last))
        for j in range(count):
            _add_moments(cells, np.int64(cell[j]), mass[j], offset[j])
    return elsewhere


@in_lanes
def _collect_rewards(u, v, r, facts, fine, masked, cells):
    """The same with a reward of its own: cells `[n, 3, 8]` for e^u·(1, ρ, ρ²) with ρ = v − r; and Σ e^r."""
    mass, offset, cell = carray(scratch(0.0), BLOCK), carray(scratch(1.0), BLOCK), carray(scratch(np.int32(2)), BLOCK)
    reward = carray(scratch(3.0), BLOCK)
    most_u, most_v, most_r, middle = facts[MOST_U], facts[MOST_V], facts[MOST_R], facts[MIDDLE]
    above, per, last = facts[ABOVE], 1 / facts[SIZE], len(cells) - 1.0
    elsewhere = all_r = 0.0
    for start in range(0, u.shape[0], STEP):
        part_u, part_v, part_r = u[start : start + STEP], v[start : start + STEP], r[start : start + STEP]
        count = part_u.shape[0]
        for j in range(count):
            x, y = np.float64(part_u[j]) - most_u, np.float64(part_v[j]) - most_v
            z = np.float64(part_r[j]) - most_r
            d, e, g, rho = y - x - middle, exp2(x, LOG2E), exp2(z, LOG2E), y - z
            if masked:
                here = x >= MASK
                d, e, rho = d if here else 0.0, e if here else 0.0, rho if here else 0.0
                elsewhere += 0.0 if here or y < MASK else exp2(y, LOG2E)
                g = g if z >= MASK else 0.0
            place, away = _find(d, per, above) if fine else _find_even(d, per, above)
            mass[j], offset[j], cell[j], reward[j] = e, away, np.int32(min(place, last)), rho
            all_r += g
        for j in range(count):
            _add_rewards(cells, np.int64(cell[j]), mass[j], offset[j], reward[j])
    return elsewhere, all_r


@njit(nogil=True, cache=True)
def _all_but(top, u, v, r, own, facts, fine, cells):
    """Either of them on all tokens but one: (Σ e^v where π_θ = 0, Σ e^r).

    Most rows are plain: for them it is compiled without what the others need.
    """
    elsewhere = all_r = 0.0
    plain = not fine and facts[MASKED] == 0
    some, each = cells[: int(facts[COUNT])], cells.reshape(-1, MOMENTS)[: int(facts[COUNT])]
    for start, stop in ((0, top), (top + 1, len(u))):
        part_u, part_v, part_r = u[start:stop], v[start:stop], r[start:stop]
        if own and plain:
            all_r += _collect_rewards(part_u, part_v, part_r, facts, False, False, some)[1]
        elif own:
            there, rest = _collect_rewards(part_u, part_v, part_r, facts, fine, True, some)
            elsewhere, all_r = elsewhere + there, all_r + rest
        elif plain:
            _collect(part_u, part_v, facts, False, False, each)
        else:
            elsewhere += _collect(part_u, part_v, facts, fine, True, each)
    return elsewhere, all_r


@njit(nogil=True, cache=True)
def _at_nodes(cells, measures, facts, fine, nodes, to_chebyshev, to_weights, ell, sums):
    """Weights at the nodes of each cell that has mass, of cells `[n · measures, 8]`: how many atoms that makes."""
    n, count = 0, len(nodes)
    moments = np.empty(count)
    for k in range(int(facts[COUNT])):
        if cells[k * measures, 0] <= 0:
            continue
        sign, low, size = _extents(k, int(facts[ABOVE]), facts[SIZE], fine)
        for i in range(count):
            ell[n + i] = facts[MIDDLE] + sign * (low + size * (0.5 + nodes[i]))
        for m in range(measures):
            cell, out = cells[k * measures + m], sums[m, n : n + count]
            for i in range(count):
                moments[i] = 0.0
                for j in range(i + 1):
                    moments[i] += to_chebyshev[i, j] * cell[j]
            for i in range(count):
                out[i] = 0.0
                for j in range(count):
                    out[i] += to_weights[i, j] * moments[j]
        n += count
    return n


@njit(nogil=True, cache=True)
def _gauss(cells, facts, fine, ell, mass):
    """Two-point Gauss quadrature of each cell that has mass, of cells `[n, 8]`: how many atoms that makes."""
    n = 0
    for k in range(int(facts[COUNT])):
        m0 = cells[k, 0]
        if m0 <= 0:
            continue
        mean, second, third = cells[k, 1] / m0, cells[k, 2] / m0, cells[k, 3] / m0
        sign, low, size = _extents(k, int(facts[ABOVE]), facts[SIZE], fine)
        centre = facts[MIDDLE] + sign * (low + size * (0.5 + mean))
        variance = second - mean * mean
        if variance <= SHARP:
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


@in_lanes
def _sum_of_exp(ell, mass, top):
    total = 0.0
    for i in range(ell.shape[0]):
        total += mass[i] * exp2(ell[i] - top, LOG2E)
    return total


@in_lanes
def _normalised(top_reward, own, facts, ell, sums):
    """Adds the top token as the first atom; ℓ, p and the reward as the log-sum-exps make them."""
    mass, with_r, with_rr = sums[0], sums[1], sums[2]
    ell[0], mass[0], with_r[0], with_rr[0] = facts[MIDDLE], 1.0, top_reward, top_reward * top_reward
    c, per_u, shift = facts[SHIFT], math.exp(-facts[LOG_U]), facts[LOG_V] - facts[LOG_R]
    for i in range(ell.shape[0]):
        a, p = ell[i] - c, mass[i] * per_u
        q, s = p * a, p * a * a
        if own:  # the reward is v − r, normalised: ρ less the difference of log-sum-exps
            q = with_r[i] * per_u
            s = with_rr[i] * per_u - 2 * shift * q + shift * shift * p
            q -= shift * p
        ell[i], mass[i], with_r[i], with_rr[i] = a, p, q, s


@njit(nogil=True, cache=True)
def _reward_of(token, v, r, own, facts):
    """ρ of a token, 0 without a reference of its own."""
    return (np.float64(v[token]) - facts[MOST_V]) - (np.float64(r[token]) - facts[MOST_R]) if own else 0.0


@njit(nogil=True, cache=True)
def gather(u, v, r, own, k, width, most, fine, cells, facts, ell, sums):
    """Atoms of one row: (a code, how many, the top token's index).

    The first atom is the top token of π_θ. ell `[n]`: ℓ; sums `[3, n]`: Σp, Σp·r, Σp·r² there, p normalised. own:
    whether r is a reference of its own. width, most, fine: of the cells, of which the inner ones may shrink. cells
    `[most, 3, 8]`: scratch, which `coarsen` reads.
    """
    code, top = survey(u, v, r, own, k, facts)
    if code != FINE:
        return code, 0, 0
    if len(u) <= SMALL:
        _all_alone(u, v, r, own, top, facts, ell, sums)
        return FINE, len(u), top
    facts[MIDDLE] = (np.float64(v[top]) - facts[MOST_V]) - (np.float64(u[top]) - facts[MOST_U])
    above, below, facts[SIZE] = layout(facts, facts[MIDDLE], width, most, fine)
    facts[ABOVE], facts[COUNT] = above, above + below
    measures = 3 if own else 1
    flat = cells.reshape(-1, MOMENTS)
    flat[: (above + below) * measures] = 0.0
    elsewhere, all_r = _all_but(top, u, v, r, own, facts, fine, cells)
    n = _at_nodes(flat, measures, facts, fine, _NODES, _TO_CHEBYSHEV, _TO_WEIGHTS, ell[1:], sums[:, 1:])
    # What π_t has where π_θ is, in the measure e^u: the atoms give it to a few units in the last place.
    at_top = math.exp(np.float64(v[top]) - facts[MOST_V])
    both = at_top + _sum_of_exp(ell[1 : n + 1], sums[0, 1:], facts[HIGH]) * math.exp(facts[HIGH])
    facts[LOG_U] = math.log(1 + sums[0, 1 : n + 1].sum())
    facts[LOG_V], facts[LOST] = math.log(both + elsewhere), -math.log1p(elsewhere / both)
    facts[SHIFT] = facts[LOG_V] - facts[LOG_U]
    facts[LOG_R] = math.log(all_r + math.exp(np.float64(r[top]) - facts[MOST_R])) if own else 0.0
    _normalised(_reward_of(top, v, r, own, facts), own, facts, ell[: n + 1], sums)
    return FINE, n + 1, top


@njit(nogil=True, cache=True)
def coarsen(v, r, own, top, fine, cells, facts, ell, sums):
    """Fewer atoms of the row that `gather` has left in cells and facts, for more than SMALL tokens: how many."""
    flat = cells.reshape(-1, MOMENTS)
    if own:
        n = _at_nodes(flat, 3, facts, fine, _NODES_4, _TO_CHEBYSHEV_4, _TO_WEIGHTS_4, ell[1:], sums[:, 1:])
    else:
        n = _gauss(flat, facts, fine, ell[1:], sums[0, 1:])
    _normalised(_reward_of(top, v, r, own, facts), own, facts, ell[: n + 1], sums)
    return n + 1


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
def _all_alone(u, v, r, own, top, facts, ell, sums):
    """`gather` where every token is an atom."""
    normalise(u, v, r, facts)
    spell_out(u, v, r, own, facts, ell, sums)
    ell[0], ell[top] = ell[top], ell[0]
    for k in range(3):
        sums[k, 0], sums[k, top] = sums[k, top], sums[k, 0]


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
        cells[0, place, 0] += p
        cells[0, place, 1] += p * s
        cells[0, place, 2] += p * t
        cells[0, place, 3] += p * s * s
        cells[1, place, 0] += p * s * t
        cells[1, place, 1] += p * t * t
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


def work(tokens: int, most: int = MOST, paired: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scratch for `gather`, or for `pair_up`: (cells, facts, ell of as many atoms as there can be)."""
    room = min(PAIRS, 4 * tokens) if paired else MOMENTS * min(most, tokens)
    cells = np.empty((2, SIDE * SIDE, 4)) if paired else np.empty((most, 3, MOMENTS))
    return cells, np.empty(FACTS), np.empty(room + 1)
