"""α_KL from raw logits in plain torch, on any device: one pass for a start of high order, then one or two tilted ones.

With u, v the rows less their maxima and a = v − u, pass 1 sums w·aʲ, j = 0..3, for the weights e^u, e^((u+v)/2), e^v
of β = 1 − α = 0, ½, 1, from two exponentials and two roots a token: K(β) = log Σ e^(u+βa) and three derivatives at
three nodes, both log-sum-exps, and a quintic through K' whose root is the start. A pass at β gives Δ = K' − c and two
more derivatives, and a bracketed Halley step follows. Sums are over blocks of a row, in pass 1 each with maxima of its
own, so that a pass reads the row once; blocks are put together in float64, and all that follows is float64 on `[B]`
tensors.

The bound. The j-th derivative of K is at most a multiple of R^(j−2)·K″, R being the range of a: so Taylor's polynomial
from one point says how large Δ can be a step away, and |K‴| ≤ R·K″ how far the root is from there.

Near-identical policies: Δ as a difference of log-sum-exps is lost in rounding. At β = ½ it is also
−K‴/24 − K⁽⁵⁾/1920 − …, if the supports are equal, and centred moments keep their relative precision.

On CUDA `solvers.fused` does the same in four kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from geomix_core.numerics import NEG_INF
from geomix_core.policies import MASK_GAP

SOLVED, COMMON, IDENTICAL, NO_ROOT, DISJOINT, NAN, INFINITE, EMPTY, HARD = range(9)
"""What became of a row, as in `solvers.kernel`; HARD: not to be decided in this precision."""
ACTIVE = -1

BLOCK = 2048
"""Tokens that are summed in the working precision."""
TILE_BYTES = 1 << 19
"""Of one array of terms in an uncompiled pass: few enough for the cache, and enough to outweigh the calls."""
LARGE_TILE_BYTES = 1 << 26
"""The same where the terms are not on the CPU."""

COARSE = 2e-5
"""What |α − α*|·√Var may be where float64 cannot do better."""
EPS = 2.0**-52
SLACK = 1.001
"""Room for the rounding of the variance."""
NEAR = 0.8
"""Range of a, in nats, up to which the search starts at β = ½: Δ is a series there."""
TRUNCATION = 0.1
"""Share of the tolerance that is left to what the last step leaves out."""
ROUNDING, REST = 0.5, 0.25
"""Shares that are left to the rounding of log-sum-exps, which need not be random, and to what the series leaves out."""
REACH = 0.1
"""R·|step| beyond which a step is not the last one: the variance is carried along by its first derivative."""
RESOLVED = 1e-9
"""nats²: with a smaller variance float32 leaves it to float64 whether two near policies are identical."""
STEPS = 3
"""Newton steps on the quintic."""
PASSES = 60
PADDING = -1e30
"""A logit of no weight that may be subtracted from itself."""

_DEEPEST = {torch.float32: -86.0, torch.float64: -707.0}
"""Exponents whose exponential is still a normal number."""

Result = tuple[np.ndarray, np.ndarray]


@torch.inference_mode()
def solve(
    theta: Tensor,
    target: Tensor,
    tolerance: float,
    dtype: torch.dtype,
    rows: Tensor | None = None,
    fused: bool | None = None,
) -> Result:
    """Codes `[B]`, and columns alpha, delta, variance, low, high, bound, passes `[B, 7]`, as `solvers.kernel.solve`.

    Args:
        theta, target: logits `[B, V]` of any float dtype on one device; tokens are widened to `dtype` as they are read.
        tolerance: what |α − α*|·√Var may be, in a Fisher–Rao length.
        dtype: float32 or float64 (not on MPS); the rows must be exact in it.
        rows: which rows to solve, `[B']` on that device; by default all.
        fused: whether to use the kernels of `solvers.fused` where possible; by default on CUDA.
    """
    index = torch.arange(len(theta), device=theta.device) if rows is None else rows
    precision = Precision(_rounding(theta.device, dtype), tolerance, dtype)
    if theta.is_cuda if fused is None else fused:
        table = _in_kernels(theta, target, index, precision)
        if table is not None:
            return _result(table)
    passes = _Passes(theta, target, dtype)
    table = _start(passes.three_nodes(index), precision)
    for _ in range(PASSES):
        active = (table[_CODE] == ACTIVE).nonzero().squeeze(-1)
        if active.numel() == 0:
            break
        state = table[:, active]
        table[:, active] = _step(state, passes.tilted(index[active.to(index.device)], state), precision)
    return _result(table)


def _in_kernels(theta: Tensor, target: Tensor, index: Tensor, precision: Precision) -> Tensor | None:
    """The table by `solvers.fused`, or None where that cannot be used."""
    if theta.device.type in _NO_COMPILER:
        return None
    try:
        # Only imported here: triton comes with torch for CUDA, and with no other.
        return import_module("geomix_core.solvers.fused").solve(theta, target, index, precision)  # type: ignore[no-any-return]
    except torch.OutOfMemoryError:
        raise
    except (ImportError, RuntimeError):  # no triton, or no compiler for this device or this Python: in many guises
        _NO_COMPILER.add(theta.device.type)
        return None


_NO_COMPILER: set[str] = set()
"""Types of device for which a compilation has failed."""


def _result(table: Tensor) -> Result:
    """Codes and columns; what is still active is HARD."""
    numbers = table[: len(_COLUMNS) + 1].cpu().numpy()
    codes = numbers[-1].astype(np.int64)
    codes[codes == ACTIVE] = HARD
    return codes, np.ascontiguousarray(numbers[:-1].T)


def _rounding(device: torch.device, dtype: torch.dtype) -> float:
    """Error of Δ, in the units of `_delta`. CUDA's exponential is off by two units in the last place."""
    if dtype == torch.float64:
        return 2e-14
    return 5e-7 if device.type == "cpu" else 1e-6


class Precision(NamedTuple):
    """What a solver may rely on, and what it is to reach."""

    rounding: float
    tolerance: float
    dtype: torch.dtype

    @property
    def fine(self) -> bool:
        """float64 has the last word."""
        return self.dtype == torch.float64

    @property
    def least(self) -> float:
        """Sums of weights below this may have lost terms to underflow."""
        return 1e-270 if self.fine else 1e-20

    def cast(self, x: Tensor) -> Tensor:
        """Rounded to a number of the working dtype, as float64."""
        return x.to(self.dtype).double()


class State(NamedTuple):
    """What is known of each row, float64 `[B]`: the answer, then where the search stands, then the row itself."""

    alpha: Tensor
    delta: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor
    bound: Tensor
    passes: Tensor
    code: Tensor
    beta: Tensor
    left: Tensor
    """Δ(left) ≤ 0 ≤ Δ(right), as functions of β and up to rounding."""
    right: Tensor
    c: Tensor
    """K(1) − K(0), what E_q[a] must be, for rows less their maxima."""
    span: Tensor
    """R, the range of a."""
    equal: Tensor
    masked: Tensor
    log_zero: Tensor
    """K at the nodes."""
    log_half: Tensor
    log_one: Tensor
    near: Tensor
    """c as a number of the working dtype: pass 2 sums powers of d = a − near."""
    top_theta: Tensor
    top_target: Tensor
    cut_theta: Tensor
    """Logits below are masked."""
    cut_target: Tensor


_COLUMNS = State._fields[:7]
_CODE = State._fields.index("code")


# --- passes over the tokens --------------------------------------------------------------------------------------

Sums = tuple[Tensor, Tensor]
"""Of one block each: `[k, B, blocks]` in the working precision, `[2, B, blocks]` of what Δ rests on (`_exactly`)."""


class Nodes(NamedTuple):
    """Pass 1: sums over one block, with weights relative to its own maxima; `[B, blocks]` but for the first."""

    moments: Tensor
    """`[12, B, blocks]`: Σ w aʲ on the common support, j = 0..3, for e^u, then e^((u+v)/2), then e^v."""
    common: Tensor
    """Tokens of the common support; where nothing is masked, some number above 0."""
    uneven: Tensor
    """Tokens that only one policy has."""
    masked: Tensor
    least: Tensor
    """The range of a on the common support."""
    most: Tensor
    floor_theta: Tensor
    """No token that counts lies below."""
    floor_target: Tensor
    top_theta: Tensor
    top_target: Tensor
    all_theta: Tensor
    """Σ e^u on the policy's own support."""
    all_target: Tensor


def _exactly(terms: Tensor) -> Tensor:
    """Σ over the last axis of what Δ rests on.

    In float64 on the CPU: float32 lanes round the same way each time where tokens share a logit. On a GPU sums are
    trees, which do not.
    """
    return terms.sum(-1, dtype=torch.float64) if terms.device.type == "cpu" else terms.sum(-1)


def _exp(x: Tensor) -> Tensor:
    """e^x for x ≤ 0, in place; about the least normal number at least: below it a CPU takes ten times as long."""
    return x.clamp_(min=_DEEPEST[x.dtype]).exp_()


def _powers(weights: Tensor, a: Tensor) -> list[Tensor]:
    """Σ w aʲ, j = 0..3, over the last axis; w is lost."""
    return [weights.sum(-1), *(weights.mul_(a).sum(-1) for _ in range(3))]


def _nodes_plain(theta: Tensor, target: Tensor, floors: Sums) -> Sums:
    """Pass 1 of blocks `[B, blocks, width]` without a masked token; floors: the least logits of both."""
    top_theta, top_target = theta.amax(-1, keepdim=True), target.amax(-1, keepdim=True)
    u, v = theta - top_theta, target - top_target
    a = v - u
    zero, one = _exp(u), _exp(v)
    half = zero.sqrt().mul_(one.sqrt())
    exact = torch.stack([_exactly(zero), _exactly(one)])
    tops = top_theta[..., 0], top_target[..., 0]
    some, none = torch.ones_like(tops[0]), torch.zeros_like(tops[0])
    others = some, none, none, a.amin(-1), a.amax(-1), *(x.expand_as(none) for x in floors), *tops
    return torch.stack([*_powers(zero, a), *_powers(half, a), *_powers(one, a), *others]), exact


def _nodes_masked(theta: Tensor, target: Tensor) -> Sums:
    """The same where tokens may be masked: more than `MASK_GAP` below the block's maximum."""
    top_theta, top_target = theta.amax(-1, keepdim=True), target.amax(-1, keepdim=True)
    u, v = (x - torch.where(top.isfinite(), top, 0.0) for x, top in ((theta, top_theta), (target, top_target)))
    has_theta, has_target = u >= -MASK_GAP, v >= -MASK_GAP
    common = has_theta & has_target
    a = v - u
    ends = torch.where(common, a, torch.inf).amin(-1), torch.where(common, a, NEG_INF).amax(-1)
    a = torch.where(common, a, 0.0)
    zero, one = _exp(u), _exp(v)
    exact = torch.stack([_exactly(zero), _exactly(one)])
    zero, one = torch.where(common, zero, 0.0), torch.where(common, one, 0.0)
    half = zero.sqrt().mul_(one.sqrt())
    counts = common.sum(-1).to(u.dtype), (has_theta ^ has_target).sum(-1).to(u.dtype)
    floors = (torch.where(has, x, torch.inf).amin(-1) for has, x in ((has_theta, theta), (has_target, target)))
    others = *counts, torch.ones_like(counts[0]), *ends, *floors, top_theta[..., 0], top_target[..., 0]
    return torch.stack([*_powers(zero, a), *_powers(half, a), *_powers(one, a), *others]), exact


def _tilted(theta: Tensor, target: Tensor, scalars: Tensor, masked: bool) -> Sums:
    """Pass 2 of blocks `[B, blocks, width]`, for w = e^(u − shift + βd): Σ w dʲ, j = 2 and 3, and j = 0 and 1."""
    top_theta, top_target, near, shift, beta, cut_theta, cut_target = scalars[..., None, None].unbind()
    u = theta - top_theta
    d = (target - top_target).sub_(u).sub_(near)
    if masked:
        common = (theta >= cut_theta) & (target >= cut_target)
        d = torch.where(common, d, 0.0)
    w = _exp(u.sub_(shift).add_(d * beta))
    if masked:
        w = torch.where(common, w, 0.0)
    exact = torch.stack([_exactly(w), _exactly(w.mul_(d))])
    second = w.mul_(d).sum(-1)
    return torch.stack([second, w.mul_(d).sum(-1)]), exact


def _blocks(theta: Tensor, target: Tensor, width: int, value: float) -> tuple[Tensor, Tensor]:
    """Two `[B, n]` as `[B, blocks, width]`, their ends filled with `value`."""
    missing = -theta.shape[-1] % width
    if missing:
        theta, target = (pad(x, (0, missing), value=value) for x in (theta, target))
    shape = theta.shape[0], -1, width
    return theta.view(shape), target.view(shape)


def _nodes_of_tile(theta: Tensor, target: Tensor, width: int) -> Sums:
    """Pass 1 of logits `[B, n]`, whichever way they need it."""
    ends = torch.stack([*torch.aminmax(theta), *torch.aminmax(target)])
    low_theta, high_theta, low_target, high_target = ends.tolist()
    if (
        min(low_theta, low_target) > PADDING / 2
        and low_theta >= high_theta - MASK_GAP
        and low_target >= high_target - MASK_GAP
    ):
        return _nodes_plain(*_blocks(theta, target, width, PADDING), (ends[0], ends[2]))
    return _nodes_masked(*_blocks(theta, target, width, NEG_INF))


def _tilted_of_tile(theta: Tensor, target: Tensor, width: int, scalars: Tensor, masked: bool) -> Sums:
    """Pass 2 of logits `[B, n]`."""
    return _tilted(*_blocks(theta, target, width, NEG_INF if masked else PADDING), scalars, masked)


class _Passes:
    """The two passes over one pair of logits `[B, V]`, and where their sums are worked on."""

    def __init__(self, theta: Tensor, target: Tensor, dtype: torch.dtype) -> None:
        self.theta, self.target, self.dtype = theta, target, dtype
        self.device = theta.device
        # MPS has no float64.
        self.home = torch.device("cpu") if self.device.type == "mps" else self.device
        vocab = theta.shape[1]
        count = math.ceil(vocab / BLOCK)
        self.width = vocab if count == 1 else 16 * math.ceil(vocab / count / 16)
        tile = (TILE_BYTES if self.device.type == "cpu" else LARGE_TILE_BYTES) // dtype.itemsize
        self.rows = max(1, tile // vocab)
        self.columns = max(1, tile // self.width) * self.width

    def three_nodes(self, rows: Tensor) -> Tensor:
        """Pass 1 of these rows: `Nodes` as `[23, B, blocks]`, float64 where the sums are worked on."""
        return self._tiled(rows, lambda theta, target, _: _nodes_of_tile(theta, target, self.width))

    def tilted(self, rows: Tensor, table: Tensor) -> Tensor:
        """Pass 2 of these rows at their β: Σ w dʲ, j = 2, 3, 0, 1, `[4, B, blocks]`, likewise."""
        s = State(*table.unbind())
        scalars = torch.stack([s.top_theta, s.top_target, s.near, _shift(s), s.beta, s.cut_theta, s.cut_target])
        scalars = scalars.to(self.device, self.dtype)
        masked = (s.masked > 0).tolist()

        def tile(theta: Tensor, target: Tensor, at: slice) -> Sums:
            return _tilted_of_tile(theta, target, self.width, scalars[:, at], any(masked[at]))

        return self._tiled(rows, tile)

    def _tiled(self, rows: Tensor, function: Callable[[Tensor, Tensor, slice], Sums]) -> Tensor:
        """function(theta, target, which of `rows`) of one tile after another, put together."""
        tiles: list[Sums] = []
        for at, index in _runs(rows, self.rows):
            theta, target = self.theta[index], self.target[index]
            row_of_tiles = []
            for start in range(0, theta.shape[1], self.columns):
                columns = slice(start, start + self.columns)
                row_of_tiles.append(function(theta[:, columns].to(self.dtype), target[:, columns].to(self.dtype), at))
            tiles.append(_joined(row_of_tiles, -1))
        return self._home(*_joined(tiles, 1))

    def _home(self, sums: Tensor, exact: Tensor) -> Tensor:
        return torch.cat([x.to(self.home, torch.float64) for x in (sums, exact)])


def _joined(tiles: list[Sums], axis: int) -> Sums:
    if len(tiles) == 1:
        return tiles[0]
    sums, exact = zip(*tiles, strict=True)
    return torch.cat(sums, axis), torch.cat(exact, axis)


def _runs(rows: Tensor, size: int) -> Iterator[tuple[slice, slice | Tensor]]:
    """(which of `rows`, the rows): at most `size` at a time, as a slice where they follow each other."""
    numbers = rows.tolist()
    for start in range(0, len(numbers), size):
        at = slice(start, min(start + size, len(numbers)))
        first, last = numbers[at.start], numbers[at.stop - 1]
        yield at, slice(first, last + 1) if last - first == at.stop - 1 - at.start else rows[at]


# --- what is made of the sums: float64 on [B] ---------------------------------------------------------------------


class Row(NamedTuple):
    """Pass 1 with the blocks put together, `[B]` but for the first: weights relative to the row's maxima."""

    moments: Tensor
    """`[4, 3, B]`: Σ w aʲ, j = 0..3, at β = 0, ½, 1."""
    log_theta: Tensor
    """log Σ e^u on the policy's own support."""
    log_target: Tensor
    span: Tensor
    disjoint: Tensor
    equal: Tensor
    masked: Tensor
    unclear: Tensor
    """A token is masked that its block took for none."""
    top_theta: Tensor
    top_target: Tensor


def _row(nodes: Nodes) -> Row:
    tops = torch.stack([nodes.top_theta, nodes.top_target])
    top = tops.amax(-1)
    fall = tops - top[..., None]
    has = fall >= -MASK_GAP
    both = has[0] & has[1]
    counts = both & (nodes.common > 0)
    shift = (fall[1] - fall[0]).masked_fill(~counts, 0.0)
    scale = torch.stack([fall[0], fall.mean(0), fall[1]]).exp().masked_fill(~counts, 0.0)
    floors = torch.stack([nodes.floor_theta, nodes.floor_target])
    most = (nodes.most + shift).masked_fill(~counts, NEG_INF).amax(-1)
    least = (nodes.least + shift).masked_fill(~counts, torch.inf).amin(-1)
    disjoint = ~counts.any(-1)
    totals = (torch.stack([nodes.all_theta, nodes.all_target]) * fall.exp()).sum(-1).log()
    return Row(
        moments=_shifted(nodes.moments.view(3, 4, *nodes.common.shape), scale, shift),
        log_theta=totals[0],
        log_target=totals[1],
        span=(most - least).masked_fill(disjoint, 0.0),
        disjoint=disjoint,
        equal=~((has[0] ^ has[1]) | (both & (nodes.uneven > 0))).any(-1),
        masked=((nodes.masked > 0) | ~both).any(-1),
        unclear=(has & (floors < top[..., None] - MASK_GAP)).any(-1).any(0),
        top_theta=top[0],
        top_target=top[1],
    )


def _shifted(moments: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Σ over the blocks of scale·Σ w (a + shift)ʲ, j = 0..3, `[4, 3, B]`; moments `[3, 4, B, blocks]`."""
    zero, one, two, three = moments.unbind(1)
    first = one + shift * zero
    second = two + shift * (one + first)
    third = three + shift * (2 * two + second + shift * one)
    # Blocks without a common token are left out even where they hold an infinity.
    return (torch.stack([zero, first, second, third]) * scale).masked_fill(scale == 0, 0.0).sum(-1)


def _start(parts: Tensor, precision: Precision) -> Tensor:
    """The table `[22, B]` (a `State`) after pass 1, from `Nodes` as `[23, B, blocks]`."""
    row = _row(Nodes(parts[:12], *parts[12:].unbind()))
    c = row.log_target - row.log_theta
    mass = row.moments[0]
    mean, variance, third = _cumulants(*row.moments.unbind())
    delta = mean - c
    near = row.equal & (row.span < NEAR)
    code = _code_of(row, c, mass, delta, variance, near, precision)

    zero = torch.zeros_like(c)
    log_zero, log_half, log_one = mass.log().unbind()
    rest = (
        precision.cast(_start_of(delta, variance, third).masked_fill(near, 0.5)),
        zero,
        zero + 1,
        c,
        row.span,
        row.equal.double(),
        row.masked.double(),
        log_zero,
        log_half,
        log_one,
        precision.cast(c),
        row.top_theta,
        row.top_target,
        row.top_theta - MASK_GAP,
        row.top_target - MASK_GAP,
    )
    outside, at_zero = code == NO_ROOT, delta[2] <= 0
    edge = (~at_zero).double()
    ends = [edge, *torch.where(at_zero, torch.stack([delta[2], variance[2]]), torch.stack([delta[0], variance[0]]))]
    answer = torch.where(outside, torch.stack([*ends, edge, edge, zero]), _placeholder(c))
    return torch.cat([answer, torch.stack([zero + 1, code, *rest])])


def _placeholder(like: Tensor) -> Tensor:
    """Where no α is known: alpha … bound, `[6, 1]`."""
    return like.new_tensor([0.5, 0.0, 0.0, 0.0, 1.0, 0.5])[:, None]


def _cumulants(s0: Tensor, s1: Tensor, s2: Tensor, s3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and third cumulant from Σ w aʲ."""
    mean, second = s1 / s0, s2 / s0
    return mean, (second - mean * mean).clamp(min=0), s3 / s0 - mean * (3 * second - 2 * mean * mean)


def _code_of(
    row: Row, c: Tensor, mass: Tensor, delta: Tensor, variance: Tensor, near: Tensor, precision: Precision
) -> Tensor:
    """What pass 1 decides, float64 `[B]`; ACTIVE where there is a root to be found."""
    low, _, high = delta
    lost = (mass < precision.least).any(0)
    if precision.fine:
        same = (high - low <= 1e-12) & (high.abs() <= 1e-12)
        outside, hard = (low >= 0) | (high <= 0), lost
    else:
        noise = 4 * precision.rounding * (1 + c.abs() + row.span)
        same = torch.zeros_like(lost)
        outside = ~near & ((low >= noise) | (high <= -noise))
        unsure = (low > -noise) | (high < noise)
        flat = precision.rounding * (1 + c.abs()) > precision.tolerance * variance.amax(0).sqrt()
        hard = lost | torch.where(near, variance[1] < RESOLVED, (unsure | flat) & ~outside)
    top = torch.stack([row.top_theta, row.top_target])
    code = torch.full_like(c, ACTIVE)
    for number, case in (
        (NO_ROOT, outside),
        (IDENTICAL, same),
        (HARD, hard | row.unclear),
        (DISJOINT, row.disjoint & ~row.unclear),
        (EMPTY, (top == NEG_INF).any(0)),
        (INFINITE, (top == torch.inf).any(0)),
        (NAN, top.isnan().any(0)),
    ):
        code = code.masked_fill(case, number)
    return code


def _start_of(delta: Tensor, variance: Tensor, third: Tensor) -> Tensor:
    """β in [0, 1] near the root: the quintic's through Δ `[3, B]`, its slope and curvature, where Δ changes sign."""
    first = delta[1] > 0
    f, d, c = (scale * torch.where(first, x[:2], x[1:]) for x, scale in ((delta, 1), (variance, 0.5), (third, 0.25)))
    return 0.5 * (_quintic_root(f, d, c) + 1 - first.double())


def _quintic_root(f: Tensor, d: Tensor, c: Tensor) -> Tensor:
    """About where in [0, 1] the quintic with values, slopes, curvatures f, d, c `[2, B]` at 0 and 1 vanishes.

    f[0] ≤ 0 ≤ f[1].
    """
    (f0, f1), (d0, d1), (c0, c1) = f.unbind(), d.unbind(), c.unbind()
    rise, half = f1 - f0, c0 / 2
    bend, turn = rise - d0 - half, d1 - d0 - c0
    gain = c1 - c0
    p3 = 10 * bend - 4 * turn + gain / 2
    p4 = 7 * turn - 15 * bend - gain
    p5 = bend - p3 - p4
    # The polynomial and its slope side by side.
    powers = [torch.stack(x) for x in ((p4, 5 * p5), (p3, 4 * p4), (half, 3 * p3), (d0, c0), (f0, d0))]
    low, high = torch.zeros_like(rise), torch.ones_like(rise)
    highest = torch.stack([p5, low])
    t = -f0 / rise
    for _ in range(STEPS):
        both = highest
        for power in powers:
            both = both * t + power
        value, slope = both.unbind()
        low, high = torch.where(value <= 0, t, low), torch.where(value >= 0, t, high)
        step = t - value / slope
        t = torch.where((low <= step) & (step <= high), step, (low + high) / 2)  # at the root step is t
    return t


def _shift(s: State) -> Tensor:
    """What is subtracted in pass 2's exponent: by the chord over K, so that the weights sum to at most 1."""
    return _chord(s) - s.beta * s.near


def _chord(s: State) -> Tensor:
    first = s.beta < 0.5
    t = 2 * s.beta - 1
    far = torch.where(first, s.log_zero, s.log_one)
    return s.log_half + t.abs() * (far - s.log_half)


def _step(table: Tensor, sums: Tensor, precision: Precision) -> Tensor:
    """The table after pass 2 at its β, `sums` being `[4, B, blocks]`, j = 2, 3, 0, 1."""
    s = State(*table.unbind())
    s2, s3, s0, s1 = sums.sum(-1).unbind()
    mean, variance, third = _cumulants(s0, s1, s2, s3)
    delta, error, doubtful = _delta(s, s0, mean, variance, third, precision)
    left = torch.where(delta <= 0, torch.maximum(s.left, s.beta), s.left)
    right = torch.where(delta >= 0, torch.minimum(s.right, s.beta), s.right)
    curve = 2 * variance * variance - delta * third
    new = s.beta - torch.where(curve > 0, 2 * delta * variance / curve, delta / variance)

    step = new - s.beta
    bound, left_out, carried = _bound(s.span, step, delta, variance, third, error, precision.rounding)
    # Where the sign of Δ is certain the root lies on one side of β only.
    left_end = torch.maximum(torch.where(delta < -error, s.beta, s.beta.new_zeros(())), new - bound)
    right_end = torch.minimum(torch.where(delta > error, s.beta, s.beta.new_ones(())), new + bound)
    root = torch.minimum(torch.maximum(new, left_end), right_end)
    within = torch.maximum(right_end - root, root - left_end)
    length = within * carried.sqrt() * (s.span * (right_end - left_end) / 2).clamp(max=100).exp()

    unmoved, lost = delta.abs() <= error, ~(s0 > precision.least)
    last = (variance > 0) & (s.span * step.abs() <= REACH)
    enough = (length <= precision.tolerance) & (left_out <= TRUNCATION * precision.tolerance)
    if precision.fine:
        enough |= unmoved & (length <= COARSE)
    else:
        lost |= (variance <= RESOLVED) & (s.span < NEAR)
        lost |= last & doubtful
        # A variance left over from a far larger square is rounding.
        enough &= variance * s0 > 1e-3 * s2
    done = last & enough & ~lost

    inside = (left < new) & (new < right)
    new = precision.cast(torch.where(inside, new, (left + right) / 2))
    stuck = lost | unmoved | (new == s.beta) | (right - left < 1e-15)
    code = torch.full_like(s.code, ACTIVE).masked_fill(stuck, HARD)
    code = torch.where(done, COMMON - s.equal * (COMMON - SOLVED), code)
    answer = torch.stack([1 - root, delta, carried, 1 - right_end, 1 - left_end, within])
    moved = torch.stack([s.passes + 1, code, new, left, right])
    return torch.cat([torch.where(done, answer, table[:6]), moved, table[11:]])


def _delta(
    s: State, s0: Tensor, mean: Tensor, variance: Tensor, third: Tensor, precision: Precision
) -> tuple[Tensor, Tensor, Tensor]:
    """(Δ at β, how far it may be off, whether that is too much of the tolerance to be taken for random).

    By the log-sum-exps, or by the series where that is better.
    """
    rounding, span, sigma = precision.rounding, s.span, variance.sqrt()
    sunk = (-_chord(s) - s0.log()).clamp(min=0)
    delta = mean + (s.near - s.c)
    # Exponents are as large as −K and R, so they lose that many roundings, and give them to Δ times σ.
    error = rounding * (1 + s.c.abs() + sunk / 4 + sigma * (1 + span / 4))
    # |K⁽⁵⁾| ≤ 1.53·R³K″, by E[(x² − 10K″)x·x²] for x in [−R, R] and K″ ≤ R²/4.
    rest = 1.53 / 1920 * span**3 * (span / 2).exp() * variance
    lost = rounding * (span**2 / 2 + span * variance / 8 + mean.abs() * (variance + mean * mean) / 8)
    series = (s.equal > 0) & (s.beta == 0.5) & (rest + lost < error)
    doubtful = torch.where(series, rest / REST, rounding / ROUNDING) > precision.tolerance * sigma
    return torch.where(series, -third / 24, delta), torch.where(series, rest + lost, error), doubtful


def _bound(
    span: Tensor, step: Tensor, delta: Tensor, variance: Tensor, third: Tensor, error: Tensor, rounding: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(How far the root may be from β + step; how much of it, times √Var, is not rounding; the variance there).

    From one evaluation at β: Δ is Taylor's polynomial but for |K⁗|·|step|³/6, and |K⁗| ≤ R²K″, which grows by
    e^(R·|step|) at most.
    """
    size = span * step.abs()
    growth = size.clamp(max=1).exp()
    there = (delta + step * (variance + step * third / 2)).abs() + variance * step.abs() * size * size * growth / 6
    reach = SLACK * span * (there + error + rounding * variance * step.abs()) * growth / variance
    away = torch.log1p(-reach.clamp(max=1 - 1e-9)) / span.clamp(min=1e-300)
    carried = variance + step * third
    carried = torch.where(carried > 0, carried, variance)
    return torch.where(reach < 1, EPS - away, 1.0), there * growth / variance.sqrt(), carried
