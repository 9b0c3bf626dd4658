"""α_KL on CUDA: `onepass` as kernels (triton), two for the passes over the tokens and two for what is made of them.

A program sums SPLIT tokens of one row, so a pass reads both rows once, whatever it sums. Lanes meet once, at the end:
in float64, as are all sums that Δ rests on. Where a token may be masked, or a program's largest logits are far from
those of its first tokens, the program is left to a second kernel, which reads them once more.

What follows a pass is float64 on one lane a row, and the host is asked only every other step whether all rows are done.
`onepass` says what is computed and why; a change there is to be made here too (tests compare them, where CUDA is).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from geomix_core.policies import MASK_GAP
from geomix_core.solvers import onepass

LANES = 64
"""Of a program over tokens; each takes LOAD bytes at a time, of consecutive tokens."""
LOAD = 16
SPLIT = 1 << 16
"""Tokens of a program; a row's sums must not depend on how many rows there are."""
STEPS = 2
"""Between two questions whether all rows are done."""
NODES, TILTED = 23, 4
"""How many sums a pass has."""
TABLE = len(onepass.State._fields)

_GAP = tl.constexpr(MASK_GAP)
_FAR = tl.constexpr(8.0)
"""Nats by which a program's largest logit may differ from that of its first tokens: more costs float32 its digits."""
_FIRST = tl.constexpr(8)
"""Blocks that are the first tokens."""
_LOG2E, _LOW = (
    tl.constexpr(1.4426950408889634),
    tl.constexpr(1.4426950408889634 - float(np.float32(1.4426950408889634))),
)
"""log₂e, and what float32 leaves out of it."""
_HALF_LOG2E, _HALF_LOW = tl.constexpr(_LOG2E.value / 2), tl.constexpr(_LOW.value / 2)


def solve(theta: Tensor, target: Tensor, rows: Tensor, precision: onepass.Precision) -> Tensor:
    """The table `[23, B']` (an `onepass.State`) of these rows of logits `[B, V]`, when all are done.

    Raises RuntimeError where a kernel cannot be compiled.
    """
    theta, target = (x if x.stride(-1) == 1 else x.contiguous() for x in (theta, target))
    tokens = theta, target, rows.contiguous()
    sums = nodes(*tokens, precision.dtype)
    table = torch.empty((TABLE, len(rows)), dtype=torch.float64, device=theta.device)
    _launch_rows(_start, sums, table, precision)
    sums = sums[:TILTED]
    for _ in range(0, onepass.PASSES, STEPS):
        for _ in range(STEPS):
            tilted(*tokens, table, sums, precision.dtype)
            _launch_rows(_step, sums, table, precision)
        if not (table[onepass._CODE] == onepass.ACTIVE).any():
            break
    return table


def nodes(theta: Tensor, target: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Pass 1: `onepass.Nodes` as `[23, B', splits]`, float64."""
    out = torch.empty((NODES, *_grid(theta, rows)), dtype=torch.float64, device=theta.device)
    left = torch.empty(out.shape[1:], dtype=torch.int32, device=theta.device)
    _launch(_plain_nodes, theta, target, rows, (out, left), dtype)
    _launch(_masked_nodes, theta, target, rows, (out, left), dtype)
    return out


def tilted(theta: Tensor, target: Tensor, rows: Tensor, table: Tensor, out: Tensor, dtype: torch.dtype) -> None:
    """Pass 2 of the rows that `table` has as active: Σ w dʲ, j = 2, 3, 0, 1, into out `[4, B', splits]`."""
    _launch(_tilted, theta, target, rows, (table, out), dtype)


def _grid(theta: Tensor, rows: Tensor) -> tuple[int, int]:
    return len(rows), triton.cdiv(theta.shape[1], SPLIT)


def _launch(
    kernel: Any, theta: Tensor, target: Tensor, rows: Tensor, others: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    """One program for each of `rows` and each of its splits."""
    given = theta, target, rows, *others, theta.shape[1], theta.stride(0), target.stride(0)
    wide = tl.float64 if dtype == torch.float64 else tl.float32
    _run(kernel, _grid(theta, rows), given, WIDE=wide, SPLIT=SPLIT, LANES=LANES, EACH=LOAD // theta.element_size())


def _launch_rows(kernel: Any, sums: Tensor, table: Tensor, precision: onepass.Precision) -> None:
    """One lane for each row."""
    _, count, splits = sums.shape
    given = sums, table, count, splits, precision.tolerance
    options: Any = {"ROUNDING": precision.rounding, "LEAST": precision.least, "FINE": precision.fine}
    _run(kernel, (triton.cdiv(count, LANES),), given, LANES=LANES, **options)


def _run(kernel: Any, grid: tuple[int, ...], given: tuple[Any, ...], **options: Any) -> None:
    try:
        kernel[grid](*given, **options, num_warps=LANES // 32)
    except triton.TritonError as error:
        raise RuntimeError(str(error)) from error


# --- passes over the tokens --------------------------------------------------------------------------------------


@triton.jit
def _larger(a, b):
    """max that hands on NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _exp2(x, SCALE: tl.constexpr, LOW: tl.constexpr):
    """2^(x·scale); neither the product nor the scale is rounded (LOW is its rest): the errors would grow with |x|."""
    scale = tl.full(x.shape, SCALE, x.dtype)
    rounded = x * scale
    rest = tl.fma(x, scale, -rounded)
    if x.dtype == tl.float32:
        rest = tl.fma(x, tl.full(x.shape, LOW, x.dtype), rest)
    power = tl.exp2(rounded)
    return power + power * (rest * 0.6931471805599453)


@triton.jit
def _shifted(s0, s1, s2, s3, shift):
    """Σ w (a + shift)ʲ, j = 0..3, of Σ w aʲ."""
    first = s1 + shift * s0
    second = s2 + shift * (s1 + first)
    third = s3 + shift * (2 * s2 + second + shift * s1)
    return s0, first, second, third


@triton.jit
def _powers(weight, a, s0, s1, s2, s3):
    """Σ w aʲ, j = 0..3, with the tokens of each lane added."""
    aa = a * a
    return (
        s0 + tl.sum(weight, 1).to(s0.dtype),
        s1 + tl.sum(weight * a, 1),
        s2 + tl.sum(weight * aa, 1),
        s3 + tl.sum(weight * (aa * a), 1),
    )


@triton.jit
def _absorbed(
    x, y, here, start_u, start_v, top_u, top_v, floor_u, floor_v, low, high,
    z0, z1, z2, z3, h0, h1, h2, h3, o0, o1, o2, o3, PART: tl.constexpr,
):  # fmt: skip
    """What `_plain_nodes` knows after a block of tokens, or after PART of one: those that are `here`."""
    # Of −x, as triton fails on the maximum of what it has just loaded.
    top_u, top_v = tl.maximum(top_u, -tl.min(-x, 1)), tl.maximum(top_v, -tl.min(-y, 1))
    u, v = x - start_u, y - start_v
    a = v - u
    least_u, least_v, least, most = u, v, a, a
    if PART:
        least_u, least_v = tl.where(here, u, float("inf")), tl.where(here, v, float("inf"))
        least, most = tl.where(here, a, float("inf")), tl.where(here, a, float("-inf"))
        u, v, a = tl.where(here, u, 0.0), tl.where(here, v, 0.0), tl.where(here, a, 0.0)
    floor_u, floor_v = tl.minimum(floor_u, tl.min(least_u, 1)), tl.minimum(floor_v, tl.min(least_v, 1))
    low, high = tl.minimum(low, tl.min(least, 1)), tl.maximum(high, tl.max(most, 1))
    e, f = _exp2(u, _HALF_LOG2E, _HALF_LOW), _exp2(v, _HALF_LOG2E, _HALF_LOW)
    if PART:
        e, f = tl.where(here, e, 0.0), tl.where(here, f, 0.0)
    z0, z1, z2, z3 = _powers(e * e, a, z0, z1, z2, z3)
    h0, h1, h2, h3 = _powers(e * f, a, h0, h1, h2, h3)
    o0, o1, o2, o3 = _powers(f * f, a, o0, o1, o2, o3)
    return top_u, top_v, floor_u, floor_v, low, high, z0, z1, z2, z3, h0, h1, h2, h3, o0, o1, o2, o3


@triton.jit
def _finite(x):
    """x, or 0 where that is a mask or no number."""
    return tl.where(tl.abs(x) < 1e30, x, 0.0)


@triton.jit
def _store_powers(out, size, s0, s1, s2, s3, scale, shift):
    """scale·Σ w (a + shift)ʲ, j = 0..3, in float64, of the lanes' Σ w aʲ; returns the first."""
    s0, s1 = tl.sum(s0.to(tl.float64), 0) * scale, tl.sum(s1.to(tl.float64), 0) * scale
    s2, s3 = tl.sum(s2.to(tl.float64), 0) * scale, tl.sum(s3.to(tl.float64), 0) * scale
    s0, s1, s2, s3 = _shifted(s0, s1, s2, s3, shift)
    tl.store(out, s0)
    tl.store(out + size, s1)
    tl.store(out + 2 * size, s2)
    tl.store(out + 3 * size, s3)
    return s0


@triton.jit
def _plain_nodes(
    theta, target, rows, out, left, vocab, theta_stride, target_stride,
    WIDE: tl.constexpr, SPLIT: tl.constexpr, LANES: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """Weights are relative to the largest logits of the first tokens, and are scaled at the end.

    `left` says which programs have met what this is not made for: a mask, or tops far from those of the first tokens.
    """
    number, split = tl.program_id(0), tl.program_id(1)
    row = tl.load(rows + number)
    theta += row * theta_stride
    target += row * target_stride
    start = split * SPLIT
    stop = tl.minimum(start + SPLIT, vocab)
    token = start + tl.arange(0, LANES)[:, None] * EACH + tl.arange(0, EACH)[None, :]
    here = token < stop
    lowest = float("-inf")
    first_u, first_v = tl.zeros([LANES], WIDE) + lowest, tl.zeros([LANES], WIDE) + lowest
    for i in tl.static_range(_FIRST):
        soon = token + i * LANES * EACH
        x = tl.load(theta + soon, mask=soon < stop, other=lowest).to(WIDE)
        y = tl.load(target + soon, mask=soon < stop, other=lowest).to(WIDE)
        first_u, first_v = tl.maximum(first_u, -tl.min(-x, 1)), tl.maximum(first_v, -tl.min(-y, 1))
    start_u, start_v = _finite(tl.max(first_u, 0)), _finite(tl.max(first_v, 0))

    none = tl.zeros([LANES], WIDE)
    wide = tl.zeros([LANES], tl.float64)
    top_u, top_v, high = none + lowest, none + lowest, none + lowest
    floor_u, floor_v, low = none + float("inf"), none + float("inf"), none + float("inf")
    z0, z1, z2, z3 = wide, none, none, none
    h0, h1, h2, h3 = none, none, none, none
    o0, o1, o2, o3 = wide, none, none, none
    whole = (stop - start) // (LANES * EACH)
    for _ in range(whole):
        x = tl.load(theta + token).to(WIDE)
        y = tl.load(target + token).to(WIDE)
        token += LANES * EACH
        top_u, top_v, floor_u, floor_v, low, high, z0, z1, z2, z3, h0, h1, h2, h3, o0, o1, o2, o3 = _absorbed(
            x, y, here, start_u, start_v, top_u, top_v, floor_u, floor_v, low, high,
            z0, z1, z2, z3, h0, h1, h2, h3, o0, o1, o2, o3,
            PART=False,
        )  # fmt: skip
    if start + whole * LANES * EACH < stop:
        here = token < stop
        x = tl.load(theta + token, mask=here, other=lowest).to(WIDE)
        y = tl.load(target + token, mask=here, other=lowest).to(WIDE)
        top_u, top_v, floor_u, floor_v, low, high, z0, z1, z2, z3, h0, h1, h2, h3, o0, o1, o2, o3 = _absorbed(
            x, y, here, start_u, start_v, top_u, top_v, floor_u, floor_v, low, high,
            z0, z1, z2, z3, h0, h1, h2, h3, o0, o1, o2, o3,
            PART=True,
        )  # fmt: skip

    highest_u, highest_v = tl.max(top_u, 0), tl.max(top_v, 0)
    fall_u, fall_v = tl.min(floor_u, 0), tl.min(floor_v, 0)
    rise_u, rise_v = highest_u - start_u, highest_v - start_v
    size = tl.num_programs(0) * tl.num_programs(1)
    place = number * tl.num_programs(1) + split
    out += place
    by_u, by_v = start_u.to(tl.float64) - highest_u, start_v.to(tl.float64) - highest_v
    shift = by_v - by_u
    all_theta = _store_powers(out, size, z0, z1, z2, z3, tl.exp(by_u), shift)
    _store_powers(out + 4 * size, size, h0, h1, h2, h3, tl.exp((by_u + by_v) / 2), shift)
    all_target = _store_powers(out + 8 * size, size, o0, o1, o2, o3, tl.exp(by_v), shift)
    fits = (fall_u >= rise_u - _GAP) & (fall_v >= rise_v - _GAP) & (tl.abs(rise_u) <= _FAR) & (tl.abs(rise_v) <= _FAR)
    fits &= (all_theta + all_target) < float("inf")  # false for NaN
    tl.store(left + place, tl.where(fits, 0, 1))
    tl.store(out + 12 * size, 1.0)
    tl.store(out + 13 * size, 0.0)
    tl.store(out + 14 * size, 0.0)
    tl.store(out + 15 * size, tl.min(low, 0).to(tl.float64) + shift)
    tl.store(out + 16 * size, tl.max(high, 0).to(tl.float64) + shift)
    tl.store(out + 17 * size, start_u.to(tl.float64) + fall_u)
    tl.store(out + 18 * size, start_v.to(tl.float64) + fall_v)
    tl.store(out + 19 * size, highest_u.to(tl.float64))
    tl.store(out + 20 * size, highest_v.to(tl.float64))
    tl.store(out + 21 * size, all_theta)
    tl.store(out + 22 * size, all_target)


@triton.jit
def _masked_nodes(
    theta, target, rows, out, left, vocab, theta_stride, target_stride,
    WIDE: tl.constexpr, SPLIT: tl.constexpr, LANES: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """The programs that are `left`: weights are relative to their tops, and tokens may be masked."""
    number, split = tl.program_id(0), tl.program_id(1)
    place = number * tl.num_programs(1) + split
    if tl.load(left + place) == 0:
        return
    row = tl.load(rows + number)
    theta += row * theta_stride
    target += row * target_stride
    start = split * SPLIT
    stop = tl.minimum(start + SPLIT, vocab)
    first = start + tl.arange(0, LANES)[:, None] * EACH + tl.arange(0, EACH)[None, :]
    lowest = float("-inf")
    none = tl.zeros([LANES], WIDE)
    wide = tl.zeros([LANES], tl.float64)
    size = tl.num_programs(0) * tl.num_programs(1)
    out += place
    highest_u, highest_v = tl.load(out + 19 * size).to(WIDE), tl.load(out + 20 * size).to(WIDE)
    zero_u = tl.where(tl.abs(highest_u) < float("inf"), highest_u, 0.0)
    zero_v = tl.where(tl.abs(highest_v) < float("inf"), highest_v, 0.0)

    floor_u, floor_v, low, high = none + float("inf"), none + float("inf"), none + float("inf"), none + lowest
    common, uneven, nan_u, nan_v = none, none, none, none
    all_u, all_v = wide, wide
    z0, z1, z2, z3 = wide, none, none, none
    h0, h1, h2, h3 = none, none, none, none
    o0, o1, o2, o3 = wide, none, none, none
    for i in range(0, stop - start, LANES * EACH):
        token = first + i
        here = token < stop
        u = tl.load(theta + token, mask=here, other=lowest).to(WIDE)
        v = tl.load(target + token, mask=here, other=lowest).to(WIDE)
        has_u, has_v = u - zero_u >= -_GAP, v - zero_v >= -_GAP
        both = has_u & has_v
        fall_u, fall_v = tl.where(has_u, u - zero_u, 0.0), tl.where(has_v, v - zero_v, 0.0)
        a = tl.where(both, fall_v - fall_u, 0.0)
        e = tl.where(has_u, _exp2(fall_u, _HALF_LOG2E, _HALF_LOW), 0.0)
        f = tl.where(has_v, _exp2(fall_v, _HALF_LOG2E, _HALF_LOW), 0.0)
        all_u += tl.sum(e * e, 1).to(tl.float64)
        all_v += tl.sum(f * f, 1).to(tl.float64)
        e, f = tl.where(both, e, 0.0), tl.where(both, f, 0.0)
        z0, z1, z2, z3 = _powers(e * e, a, z0, z1, z2, z3)
        h0, h1, h2, h3 = _powers(e * f, a, h0, h1, h2, h3)
        o0, o1, o2, o3 = _powers(f * f, a, o0, o1, o2, o3)
        common += tl.sum(tl.where(both, 1.0, 0.0), 1)
        uneven += tl.sum(tl.where(has_u != has_v, 1.0, 0.0), 1)
        nan_u += tl.sum(tl.where(u != u, 1.0, 0.0), 1)
        nan_v += tl.sum(tl.where(v != v, 1.0, 0.0), 1)
        floor_u = tl.minimum(floor_u, tl.min(tl.where(has_u, u, float("inf")), 1))
        floor_v = tl.minimum(floor_v, tl.min(tl.where(has_v, v, float("inf")), 1))
        low = tl.minimum(low, tl.min(tl.where(both, a, float("inf")), 1))
        high = tl.maximum(high, tl.max(tl.where(both, a, lowest), 1))

    _store_powers(out, size, z0, z1, z2, z3, 1.0, 0.0)
    _store_powers(out + 4 * size, size, h0, h1, h2, h3, 1.0, 0.0)
    _store_powers(out + 8 * size, size, o0, o1, o2, o3, 1.0, 0.0)
    tl.store(out + 12 * size, tl.sum(common, 0).to(tl.float64))
    tl.store(out + 13 * size, tl.sum(uneven, 0).to(tl.float64))
    tl.store(out + 14 * size, 1.0)
    tl.store(out + 15 * size, tl.min(low, 0).to(tl.float64))
    tl.store(out + 16 * size, tl.max(high, 0).to(tl.float64))
    tl.store(out + 17 * size, tl.min(floor_u, 0).to(tl.float64))
    tl.store(out + 18 * size, tl.min(floor_v, 0).to(tl.float64))
    tl.store(out + 19 * size, tl.where(tl.sum(nan_u, 0) > 0, float("nan"), highest_u).to(tl.float64))
    tl.store(out + 20 * size, tl.where(tl.sum(nan_v, 0) > 0, float("nan"), highest_v).to(tl.float64))
    tl.store(out + 21 * size, tl.sum(all_u, 0))
    tl.store(out + 22 * size, tl.sum(all_v, 0))


@triton.jit
def _tilted(
    theta, target, rows, table, out, vocab, theta_stride, target_stride,
    WIDE: tl.constexpr, SPLIT: tl.constexpr, LANES: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    number, split, count = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    table += number
    if tl.load(table + _CODE * count) != _ACTIVE:
        return
    row = tl.load(rows + number)
    theta += row * theta_stride
    target += row * target_stride
    beta, near = tl.load(table + _BETA * count), tl.load(table + _NEAR_C * count)
    chord = _chord(
        beta, tl.load(table + _LOG_ZERO * count), tl.load(table + _LOG_HALF * count), tl.load(table + _LOG_ONE * count)
    )
    shift = (chord - beta * near).to(WIDE)
    beta, near = beta.to(WIDE), near.to(WIDE)
    top_theta, top_target = tl.load(table + _TOP_THETA * count), tl.load(table + _TOP_TARGET * count)
    cut_theta, cut_target = (top_theta - _GAP).to(WIDE), (top_target - _GAP).to(WIDE)
    top_theta, top_target = top_theta.to(WIDE), top_target.to(WIDE)
    start = split * SPLIT
    stop = tl.minimum(start + SPLIT, vocab)
    token = start + tl.arange(0, LANES)[:, None] * EACH + tl.arange(0, EACH)[None, :]
    lowest = float("-inf")
    s0, s1 = tl.zeros([LANES], tl.float64), tl.zeros([LANES], tl.float64)
    s2, s3 = tl.zeros([LANES], WIDE), tl.zeros([LANES], WIDE)
    whole = (stop - start) // (LANES * EACH)
    for _ in range(whole):
        x = tl.load(theta + token).to(WIDE)
        y = tl.load(target + token).to(WIDE)
        token += LANES * EACH
        s0, s1, s2, s3 = _weighed(x, y, top_theta, top_target, near, shift, beta, cut_theta, cut_target, s0, s1, s2, s3)
    if start + whole * LANES * EACH < stop:
        here = token < stop
        x = tl.load(theta + token, mask=here, other=lowest).to(WIDE)
        y = tl.load(target + token, mask=here, other=lowest).to(WIDE)
        s0, s1, s2, s3 = _weighed(x, y, top_theta, top_target, near, shift, beta, cut_theta, cut_target, s0, s1, s2, s3)
    size = count * tl.num_programs(1)
    out += number * tl.num_programs(1) + split
    tl.store(out, tl.sum(s2.to(tl.float64), 0))
    tl.store(out + size, tl.sum(s3.to(tl.float64), 0))
    tl.store(out + 2 * size, tl.sum(s0, 0))
    tl.store(out + 3 * size, tl.sum(s1, 0))


@triton.jit
def _weighed(x, y, top_theta, top_target, near, shift, beta, cut_theta, cut_target, s0, s1, s2, s3):
    """Σ w dʲ with a block's tokens added."""
    both = (x >= cut_theta) & (y >= cut_target)
    u = tl.where(both, x - top_theta, 0.0)
    d = tl.where(both, ((y - top_target) - u) - near, 0.0)
    w = tl.where(both, _exp2((u - shift) + beta * d, _LOG2E, _LOW), 0.0)
    wd = w * d
    wdd = wd * d
    return (
        s0 + tl.sum(w, 1).to(tl.float64),
        s1 + tl.sum(wd, 1).to(tl.float64),
        s2 + tl.sum(wdd, 1),
        s3 + tl.sum(wdd * d, 1),
    )


# --- what is made of the sums: float64, one lane a row ------------------------------------------------------------

_CODE, _ACTIVE = tl.constexpr(onepass._CODE), tl.constexpr(onepass.ACTIVE)
_BETA, _NEAR_C = (tl.constexpr(onepass.State._fields.index(name)) for name in ("beta", "near"))
_LOG_ZERO, _LOG_HALF, _LOG_ONE = (
    tl.constexpr(onepass.State._fields.index(name)) for name in ("log_zero", "log_half", "log_one")
)
_TOP_THETA, _TOP_TARGET = (tl.constexpr(onepass.State._fields.index(name)) for name in ("top_theta", "top_target"))
_SOLVED, _COMMON, _IDENTICAL = (tl.constexpr(x) for x in (onepass.SOLVED, onepass.COMMON, onepass.IDENTICAL))
_NO_ROOT, _DISJOINT, _HARD = (tl.constexpr(x) for x in (onepass.NO_ROOT, onepass.DISJOINT, onepass.HARD))
_NAN, _INFINITE, _EMPTY = (tl.constexpr(x) for x in (onepass.NAN, onepass.INFINITE, onepass.EMPTY))
_NEAR, _RESOLVED, _STEPS = (tl.constexpr(x) for x in (onepass.NEAR, onepass.RESOLVED, onepass.STEPS))
_COARSE, _EPS, _SLACK = (tl.constexpr(x) for x in (onepass.COARSE, onepass.EPS, onepass.SLACK))
_TRUNCATION, _ROUNDING, _REST, _REACH = (
    tl.constexpr(x) for x in (onepass.TRUNCATION, onepass.ROUNDING, onepass.REST, onepass.REACH)
)


@triton.jit
def _chord(beta, log_zero, log_half, log_one):
    return log_half + tl.abs(2 * beta - 1) * (tl.where(beta < 0.5, log_zero, log_one) - log_half)


@triton.jit
def _cumulants(s0, s1, s2, s3):
    """Mean, variance and third cumulant from Σ w aʲ."""
    mean, second = s1 / s0, s2 / s0
    return mean, tl.maximum(second - mean * mean, 0.0), s3 / s0 - mean * (3 * second - 2 * mean * mean)


@triton.jit
def _cast(x, FINE: tl.constexpr):
    """Rounded to a number of the working precision, as float64."""
    if FINE:
        return x
    return x.to(tl.float32).to(tl.float64)


@triton.jit
def _added(place, size, counts, scale, shift, s0, s1, s2, s3):
    """Sums with those of one split added: of what counts."""
    m0 = tl.load(place, mask=counts, other=0.0)
    m1 = tl.load(place + size, mask=counts, other=0.0)
    m2 = tl.load(place + 2 * size, mask=counts, other=0.0)
    m3 = tl.load(place + 3 * size, mask=counts, other=0.0)
    m0, m1, m2, m3 = _shifted(m0, m1, m2, m3, shift)
    # Where nothing is left of the weights there may be an infinity.
    some = counts & (scale > 0)
    return (
        s0 + tl.where(some, m0 * scale, 0.0),
        s1 + tl.where(some, m1 * scale, 0.0),
        s2 + tl.where(some, m2 * scale, 0.0),
        s3 + tl.where(some, m3 * scale, 0.0),
    )


@triton.jit
def _quintic_root(f0, f1, d0, d1, c0, c1):
    rise, half = f1 - f0, c0 / 2
    bend, turn, gain = rise - d0 - half, d1 - d0 - c0, c1 - c0
    p3 = 10 * bend - 4 * turn + gain / 2
    p4 = 7 * turn - 15 * bend - gain
    p5 = bend - p3 - p4
    low, high = tl.zeros_like(f0), tl.zeros_like(f0) + 1.0
    t = -f0 / rise
    for _ in tl.static_range(_STEPS):
        value = f0 + t * (d0 + t * (half + t * (p3 + t * (p4 + t * p5))))
        slope = d0 + t * (c0 + t * (3 * p3 + t * (4 * p4 + t * 5 * p5)))
        low, high = tl.where(value <= 0, t, low), tl.where(value >= 0, t, high)
        step = t - value / slope
        t = tl.where((low <= step) & (step <= high), step, (low + high) / 2)
    return t


@triton.jit
def _start(
    sums, table, count, splits, tolerance,
    LANES: tl.constexpr, ROUNDING: tl.constexpr, LEAST: tl.constexpr, FINE: tl.constexpr,
):  # fmt: skip
    """The table after pass 1: `onepass._row`, `_start`, `_code_of`, `_start_of`."""
    number = tl.program_id(0) * LANES + tl.arange(0, LANES)
    here = number < count
    size = count * splits
    zero = tl.zeros([LANES], tl.float64)
    lowest = float("-inf")
    top_u, top_v = zero + lowest, zero + lowest
    for split in range(splits):
        place = sums + number * splits + split
        top_u = _larger(top_u, tl.load(place + 19 * size, mask=here, other=lowest))
        top_v = _larger(top_v, tl.load(place + 20 * size, mask=here, other=lowest))

    z0, z1, z2, z3 = zero, zero, zero, zero
    h0, h1, h2, h3 = zero, zero, zero, zero
    o0, o1, o2, o3 = zero, zero, zero, zero
    all_u, all_v = zero, zero
    most, lower = zero + lowest, zero - lowest
    found, uneven, masked, unclear = zero != 0, zero != 0, zero != 0, zero != 0
    for split in range(splits):
        place = sums + number * splits + split
        fall_u = tl.load(place + 19 * size, mask=here, other=0.0) - top_u
        fall_v = tl.load(place + 20 * size, mask=here, other=0.0) - top_v
        has_u, has_v = fall_u >= -_GAP, fall_v >= -_GAP
        both = has_u & has_v & here
        counts = both & (tl.load(place + 12 * size, mask=here, other=0.0) > 0)
        shift = tl.where(counts, fall_v - fall_u, 0.0)
        z0, z1, z2, z3 = _added(place, size, counts, tl.exp(fall_u), shift, z0, z1, z2, z3)
        h0, h1, h2, h3 = _added(place + 4 * size, size, counts, tl.exp((fall_u + fall_v) / 2), shift, h0, h1, h2, h3)
        o0, o1, o2, o3 = _added(place + 8 * size, size, counts, tl.exp(fall_v), shift, o0, o1, o2, o3)
        lower = tl.minimum(lower, tl.where(counts, tl.load(place + 15 * size, mask=here, other=0.0) + shift, -lowest))
        most = tl.maximum(most, tl.where(counts, tl.load(place + 16 * size, mask=here, other=0.0) + shift, lowest))
        all_u += tl.load(place + 21 * size, mask=here, other=1.0) * tl.exp(fall_u)
        all_v += tl.load(place + 22 * size, mask=here, other=1.0) * tl.exp(fall_v)
        found |= counts
        uneven |= (has_u != has_v) | (both & (tl.load(place + 13 * size, mask=here, other=0.0) > 0))
        masked |= (tl.load(place + 14 * size, mask=here, other=0.0) > 0) | ~both
        unclear |= has_u & (tl.load(place + 17 * size, mask=here, other=0.0) < top_u - _GAP)
        unclear |= has_v & (tl.load(place + 18 * size, mask=here, other=0.0) < top_v - _GAP)

    c = tl.log(all_v) - tl.log(all_u)
    span = tl.where(found, most - lower, 0.0)
    mean0, variance0, third0 = _cumulants(z0, z1, z2, z3)
    mean1, variance1, third1 = _cumulants(h0, h1, h2, h3)
    mean2, variance2, third2 = _cumulants(o0, o1, o2, o3)
    low, middle, high = mean0 - c, mean1 - c, mean2 - c
    near = ~uneven & (span < _NEAR)
    lost = (z0 < LEAST) | (h0 < LEAST) | (o0 < LEAST)
    if FINE:
        same = (high - low <= 1e-12) & (tl.abs(high) <= 1e-12)
        outside, hard = (low >= 0) | (high <= 0), lost
    else:
        noise = 4 * ROUNDING * (1 + tl.abs(c) + span)
        same = zero != 0
        outside = ~near & ((low >= noise) | (high <= -noise))
        unsure = (low > -noise) | (high < noise)
        largest = tl.maximum(tl.maximum(variance0, variance1), variance2)
        flat = ROUNDING * (1 + tl.abs(c)) > tolerance * tl.sqrt(largest)
        hard = lost | tl.where(near, variance1 < _RESOLVED, (unsure | flat) & ~outside)
    code = zero + _ACTIVE
    code = tl.where(outside, _NO_ROOT, code)
    code = tl.where(same, _IDENTICAL, code)
    code = tl.where(hard | unclear, _HARD, code)
    code = tl.where(~found & ~unclear, _DISJOINT, code)
    code = tl.where((top_u == lowest) | (top_v == lowest), _EMPTY, code)
    code = tl.where((top_u == -lowest) | (top_v == -lowest), _INFINITE, code)
    code = tl.where((top_u != top_u) | (top_v != top_v), _NAN, code)

    first = middle > 0
    t = _quintic_root(
        tl.where(first, low, middle), tl.where(first, middle, high),
        0.5 * tl.where(first, variance0, variance1), 0.5 * tl.where(first, variance1, variance2),
        0.25 * tl.where(first, third0, third1), 0.25 * tl.where(first, third1, third2),
    )  # fmt: skip
    beta = _cast(tl.where(near, 0.5, 0.5 * (t + tl.where(first, 0.0, 1.0))), FINE)

    ends, at_zero = code == _NO_ROOT, high <= 0
    edge = tl.where(at_zero, 0.0, 1.0)
    table += number
    tl.store(table, tl.where(ends, edge, 0.5), mask=here)
    tl.store(table + count, tl.where(ends, tl.where(at_zero, high, low), 0.0), mask=here)
    tl.store(table + 2 * count, tl.where(ends, tl.where(at_zero, variance2, variance0), 0.0), mask=here)
    tl.store(table + 3 * count, tl.where(ends, edge, 0.0), mask=here)
    tl.store(table + 4 * count, tl.where(ends, edge, 1.0), mask=here)
    tl.store(table + 5 * count, tl.where(ends, 0.0, 0.5), mask=here)
    tl.store(table + 6 * count, zero + 1, mask=here)
    tl.store(table + 7 * count, code, mask=here)
    tl.store(table + 8 * count, beta, mask=here)
    tl.store(table + 9 * count, zero, mask=here)
    tl.store(table + 10 * count, zero + 1, mask=here)
    tl.store(table + 11 * count, c, mask=here)
    tl.store(table + 12 * count, span, mask=here)
    tl.store(table + 13 * count, tl.where(uneven, zero, zero + 1), mask=here)
    tl.store(table + 14 * count, tl.where(masked, zero + 1, zero), mask=here)
    tl.store(table + 15 * count, tl.log(z0), mask=here)
    tl.store(table + 16 * count, tl.log(h0), mask=here)
    tl.store(table + 17 * count, tl.log(o0), mask=here)
    tl.store(table + 18 * count, _cast(c, FINE), mask=here)
    tl.store(table + 19 * count, top_u, mask=here)
    tl.store(table + 20 * count, top_v, mask=here)
    tl.store(table + 21 * count, top_u - _GAP, mask=here)
    tl.store(table + 22 * count, top_v - _GAP, mask=here)


@triton.jit
def _step(
    sums, table, count, splits, tolerance,
    LANES: tl.constexpr, ROUNDING: tl.constexpr, LEAST: tl.constexpr, FINE: tl.constexpr,
):  # fmt: skip
    """The table after pass 2, in place: `onepass._step`, `_delta`, `_bound`."""
    number = tl.program_id(0) * LANES + tl.arange(0, LANES)
    size = count * splits
    table += number
    here = number < count
    here &= tl.load(table + _CODE * count, mask=here, other=0.0) == _ACTIVE
    beta = tl.load(table + 8 * count, mask=here, other=0.5)
    left = tl.load(table + 9 * count, mask=here, other=0.0)
    right = tl.load(table + 10 * count, mask=here, other=1.0)
    c = tl.load(table + 11 * count, mask=here, other=0.0)
    span = tl.load(table + 12 * count, mask=here, other=1.0)
    equal = tl.load(table + 13 * count, mask=here, other=1.0) > 0
    chord = _chord(
        beta, tl.load(table + 15 * count, mask=here, other=0.0), tl.load(table + 16 * count, mask=here, other=0.0),
        tl.load(table + 17 * count, mask=here, other=0.0),
    )  # fmt: skip
    near = tl.load(table + 18 * count, mask=here, other=0.0)
    zero = tl.zeros([LANES], tl.float64)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for split in range(splits):
        place = sums + number * splits + split
        s2 += tl.load(place, mask=here, other=1.0)
        s3 += tl.load(place + size, mask=here, other=0.0)
        s0 += tl.load(place + 2 * size, mask=here, other=1.0)
        s1 += tl.load(place + 3 * size, mask=here, other=0.0)

    mean, variance, third = _cumulants(s0, s1, s2, s3)
    sigma = tl.sqrt(variance)
    sunk = tl.maximum(-chord - tl.log(s0), 0.0)
    delta = mean + (near - c)
    error = ROUNDING * (1 + tl.abs(c) + sunk / 4 + sigma * (1 + span / 4))
    rest = 1.53 / 1920 * span * span * span * tl.exp(span / 2) * variance
    rounded = ROUNDING * (span * span / 2 + span * variance / 8 + tl.abs(mean) * (variance + mean * mean) / 8)
    series = equal & (beta == 0.5) & (rest + rounded < error)
    doubtful = tl.where(series, rest / _REST, ROUNDING / _ROUNDING) > tolerance * sigma
    delta, error = tl.where(series, -third / 24, delta), tl.where(series, rest + rounded, error)

    left = tl.where(delta <= 0, tl.maximum(left, beta), left)
    right = tl.where(delta >= 0, tl.minimum(right, beta), right)
    curve = 2 * variance * variance - delta * third
    new = beta - tl.where(curve > 0, 2 * delta * variance / curve, delta / variance)

    step = new - beta
    away = span * tl.abs(step)
    growth = tl.exp(tl.minimum(away, 1.0))
    there = tl.abs(delta + step * (variance + step * third / 2))
    there += variance * tl.abs(step) * away * away * growth / 6
    reach = _SLACK * span * (there + error + ROUNDING * variance * tl.abs(step)) * growth / variance
    inside = tl.log(1 - tl.minimum(reach, 1 - 1e-9)) / tl.maximum(span, 1e-300)
    # log(1 − x) loses the digits of a small x: −x − x² bounds it below.
    inside = tl.where(reach < 1e-4, -(reach + reach * reach) / tl.maximum(span, 1e-300), inside)
    bound = tl.where(reach < 1, _EPS - inside, 1.0)
    carried = variance + step * third
    carried = tl.where(carried > 0, carried, variance)
    left_out = there * growth / tl.sqrt(variance)

    left_end = tl.maximum(tl.where(delta < -error, beta, 0.0), new - bound)
    right_end = tl.minimum(tl.where(delta > error, beta, 1.0), new + bound)
    root = tl.minimum(tl.maximum(new, left_end), right_end)
    within = tl.maximum(right_end - root, root - left_end)
    length = within * tl.sqrt(carried) * tl.exp(tl.minimum(span * (right_end - left_end) / 2, 100.0))

    unmoved, lost = tl.abs(delta) <= error, ~(s0 > LEAST)
    last = (variance > 0) & (away <= _REACH)
    enough = (length <= tolerance) & (left_out <= _TRUNCATION * tolerance)
    if FINE:
        enough |= unmoved & (length <= _COARSE)
    else:
        lost |= (variance <= _RESOLVED) & (span < _NEAR)
        lost |= last & doubtful
        enough &= variance * s0 > 1e-3 * s2
    done = last & enough & ~lost

    new = _cast(tl.where((left < new) & (new < right), new, (left + right) / 2), FINE)
    stuck = lost | unmoved | (new == beta) | (right - left < 1e-15)
    code = tl.where(stuck, _HARD, zero + _ACTIVE)
    code = tl.where(done, tl.where(equal, _SOLVED, _COMMON), code)
    answered = here & done
    tl.store(table, 1 - root, mask=answered)
    tl.store(table + count, delta, mask=answered)
    tl.store(table + 2 * count, carried, mask=answered)
    tl.store(table + 3 * count, 1 - right_end, mask=answered)
    tl.store(table + 4 * count, 1 - left_end, mask=answered)
    tl.store(table + 5 * count, within, mask=answered)
    passes = tl.load(table + 6 * count, mask=here, other=0.0)
    tl.store(table + 6 * count, passes + 1, mask=here)
    tl.store(table + 7 * count, code, mask=here)
    tl.store(table + 8 * count, new, mask=here)
    tl.store(table + 9 * count, left, mask=here)
    tl.store(table + 10 * count, right, mask=here)
