"""What the probability that a server did not report can do to an answer: intervals over every admissible tail.

    bounds = bound_rows(pair.rows)                          # intervals for α_KL, both KLs and Chernoff information

A tail gives every token that a side did not report a probability of at most that side's cap, so that they sum to its
missing mass. Every quantity here follows from sums F = Σ f(p, t) over tokens (p = π_θ, t = π_t), with f homogeneous:
f(sp, st) = s f(p, t), f(p, t) = p φ(t/p). What both sides report is known; P are the tokens that θ alone reports (t is
free), T those that the target alone reports (p is free), U the others, as many as one likes.

*Upper bounds.* For any prices λ, μ of probability, weak duality gives
    F ≤ λ m_θ + μ m_t + Σ_known f + Σ_P max_t (f(p, t) − μt) + Σ_T max_p (f(p, t) − λp) + Σ_U sup (f − λp − μt),
and the last is 0 if φ(r) ≤ λ + μr for all r ≥ 0, else ∞. So the best prices lie on or above a tangent of φ: at r = e^x
it has μ = φ′(r) and λ = φ(r) − rφ′(r), with dλ = −r dμ. At these prices the best t for a token of P is pe^x and the
best p for one of T is te^(−x), or an end of what is allowed. The bound is convex in (λ, μ), and along the curve its
slope in λ is P_U − e^(−x) T_U, with P_U and T_U what is left of the missing masses for U: a bisection. Where T_U < 0
there, μ lies above the curve, where the tokens of P use up m_t. Whatever x it ends at, the bound is sound; where f is
concave it is the supremum, else the gap is at most what one token of P and one of T can make (Shapley and Folkman).
*Lower bounds* are upper bounds of −f with the sides exchanged.

    α_KL            f = p^α t^(1−α) log(t/p), whose sum has the sign of α_KL − α. φ is convex below x = L and concave
                    above; its concave envelope leaves 0 along a line up to x = 1/α, so x ≥ 1/α (and λ ≥ 0).
    KL(π_θ‖π_t)     −f = p log(t/p), concave: its infimum. Its supremum is ∞ as soon as some token may have t = 0 < p.
    Chernoff        f = p^α t^(1−α), concave. inf over tails of max over α of −log Σf equals max over α of −log sup Σf,
                    since −log Σf is convex in the tail and concave in α (Sion). The supremum has f = 0 in the tail.

That U has no end is exact unless the vocabulary is so small that its tokens cannot hold both missing masses apart from
each other; then, and where every token is reported by one side, the intervals are sound and may be wider than need be.
Reported numbers are taken as exact, but for what single precision hides (`topk.ROUNDED`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from geomix_core.errors import OptionError
from geomix_core.topk import ROUNDED, TopKRow

WIDTH = 0.01
"""An interval for α_KL that is narrower determines it."""
WIDE = 0.5
"""One that is wider says too little to be called an answer."""
CHUNK = 256
"""Rows at a time."""
CHUNK_ELEMENTS = 1 << 18
"""Tokens at a time, at most."""

_ENDS = 2.0**-9
"""α nearer to 0 or 1 than this is not told from the end point."""
_ALPHA_STEPS = 18
_PRICE_STEPS = 32
_REACH = 60.0
"""log(t/p) of tokens in U, beyond which their share cannot be seen in float64."""
_FAR = 600.0
_ROUNDING = 1e-12
_GOLDEN = (math.sqrt(5) - 1) / 2
_GOLDEN_STEPS = 30
_SHRINK_STEPS = 5
_SHRINK = 0.95
"""Aimed at: a little narrower than the width."""
_LONGEST = 10
"""A decay slower than rank^(−1.1) says nothing of where it ends."""
_MOST = 1_000_000
_FEWEST: Final = 4
"""Reported probabilities from which a decay is read."""


class TailStatus(StrEnum):
    """What a row of top-k log-probabilities says of α_KL."""

    DETERMINED = "determined"
    INTERVAL = "interval"
    NOT_DETERMINED = "not_determined"
    IDENTICAL = "identical"
    INVALID = "invalid"

    @property
    def words(self) -> str:
        """What it means, in English (the app translates by the status's value)."""
        return _WORDS[self]


_WORDS = {
    TailStatus.DETERMINED: "α_KL lies in an interval narrower than the width asked for, whatever the tail.",
    TailStatus.INTERVAL: "α_KL lies in the interval given, whatever the tail; ask for more logprobs to narrow it.",
    TailStatus.NOT_DETERMINED: "This file does not determine α_KL: the tail decides. Ask for more logprobs.",
    TailStatus.IDENTICAL: "Both models report the same, and nothing is missing: every α solves the criterion.",
    TailStatus.INVALID: "The row cannot be used.",
}


@dataclass(frozen=True, eq=False)
class TailBounds:
    """Intervals `[B, 2]` in float64 over all admissible tails, and what to think of them; NaN in invalid rows alone."""

    status: tuple[TailStatus, ...]
    alpha_kl: np.ndarray
    """The weight of π_θ. 0 or 1: up to that end point."""
    kl_theta_target: np.ndarray
    """Nats. The upper end is ∞ where some tail gives π_t = 0 to a token that π_θ can produce: nearly always."""
    kl_target_theta: np.ndarray
    chernoff_information: np.ndarray
    """Nats; ∞ where no token is reported by both, so that they may have none in common."""
    missing_enough: np.ndarray
    """`[B]`, an estimate: the interval of α_KL would be as narrow as `width` if both sides listed the same tokens and
    left at most this much probability unreported. The larger of today's missing masses where it is as narrow already;
    NaN where no such mass was found."""
    k_enough: tuple[int | None, ...]
    """An extrapolation: how many logprobs would leave so little if the reported probabilities fall on as a power of
    their rank. None where they do not say."""
    width: float


def bound_rows(rows: Sequence[TopKRow], *, width: float = WIDTH) -> TailBounds:
    """Bound every row. Raises OptionError for a width that is none."""
    return _joined(list(bound_chunks(rows, width=width)), width)


def bound_chunks(rows: Sequence[TopKRow], *, width: float = WIDTH, chunk: int = CHUNK) -> Iterator[TailBounds]:
    """`bound_rows` of `chunk` rows after another, for a progress bar."""
    check_width(width)
    longest = max((len(row.tokens) for row in rows), default=0)
    step = max(1, min(chunk, CHUNK_ELEMENTS // max(longest, 1)))
    for start in range(0, len(rows), step):
        yield _bound(rows[start : start + step], width)


def check_width(width: float) -> None:
    """Raises OptionError for a width that is none."""
    if not 0 < width < 1:
        raise OptionError(f"the width is {width:g}: expected a number between 0 and 1.")


def naive_kl(row: TopKRow) -> float:
    """Σ π_θ log(π_θ/π_t) over the tokens that both sides reported, which is no divergence and can be negative."""
    both = row.in_theta & row.in_target & np.isfinite(row.log_theta)
    p, t = row.log_theta[both], row.log_target[both]
    return float((np.exp(p) * (p - t)).sum())


# --- rows as arrays ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tails:
    """Rows padded to one length: `[B, n]`, `[B, 1]` for what a side is missing."""

    log_p: np.ndarray
    log_t: np.ndarray
    known: np.ndarray
    only_p: np.ndarray
    only_t: np.ndarray
    missing_p: np.ndarray
    missing_t: np.ndarray
    log_cap_p: np.ndarray
    log_cap_t: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[TopKRow]) -> _Tails:
        size = max(len(row.tokens) for row in rows)

        def padded(values: Sequence[np.ndarray], fill: float | bool) -> np.ndarray:
            out = np.full((len(rows), size), fill)
            for i, x in enumerate(values):
                out[i, : len(x)] = x
            return out

        def column(values: Sequence[float | bool]) -> np.ndarray:
            return np.array(values)[:, None]

        in_p, in_t = padded([x.in_theta for x in rows], False), padded([x.in_target for x in rows], False)
        with np.errstate(divide="ignore"):
            cap_p, cap_t = (np.log(column([getattr(x, f"cap_{side}") for x in rows])) for side in ("theta", "target"))
        return cls(
            padded([x.log_theta for x in rows], -math.inf),
            padded([x.log_target for x in rows], -math.inf),
            in_p & in_t,
            in_p & ~in_t,
            in_t & ~in_p,
            column([x.missing_theta for x in rows]),
            column([x.missing_target for x in rows]),
            cap_p,
            cap_t,
        )

    @property
    def exchanged(self) -> _Tails:
        """θ and target exchanged."""
        return _Tails(
            self.log_t, self.log_p, self.known, self.only_t, self.only_p, self.missing_t, self.missing_p,
            self.log_cap_t, self.log_cap_p,
        )  # fmt: skip

    def take(self, index: np.ndarray) -> _Tails:
        """Some of the rows."""
        return _Tails(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def agreeing(self, share: np.ndarray) -> _Tails:
        """As if both sides listed the tokens that both list now, and so much of both missing masses, `[B, 1]`."""
        nothing = np.zeros_like(self.known)
        return replace(
            self,
            only_p=nothing,
            only_t=nothing,
            missing_p=self.missing_p * share,
            missing_t=self.missing_t * share,
        )


# --- sums of f ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sum:
    """One f: its value from logarithms, and the prices on its tangent at log(t/p) = x. All `[B, …]`."""

    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    price_p: Callable[[np.ndarray], np.ndarray]
    price_t: Callable[[np.ndarray], np.ndarray]
    lowest: np.ndarray
    """f is concave above this x."""
    tangent: np.ndarray
    """Tangents at this x and above lie above all of φ."""


def _signed(alpha: np.ndarray) -> _Sum:
    """p^α t^(1−α) log(t/p), 0 < α < 1, `[B, 1]`."""
    beta = 1 - alpha

    def value(log_p: np.ndarray, log_t: np.ndarray) -> np.ndarray:
        some = np.isfinite(log_p) & np.isfinite(log_t)
        p, t = np.where(some, log_p, 0.0), np.where(some, log_t, 0.0)
        return np.where(some, np.exp(alpha * p + beta * t) * (t - p), 0.0)

    return _Sum(
        value,
        # At x = 1/α it is 0, which rounding would not make it.
        lambda x: np.exp(beta * x) * np.maximum(alpha * x - 1, 0.0),
        lambda x: np.exp(-alpha * x) * (beta * x + 1),
        (1 - 2 * alpha) / (alpha * beta),
        1 / alpha,
    )


def _affinity(alpha: np.ndarray) -> _Sum:
    """p^α t^(1−α), 0 < α < 1, `[B, 1]`."""
    beta = 1 - alpha

    def value(log_p: np.ndarray, log_t: np.ndarray) -> np.ndarray:
        some = np.isfinite(log_p) & np.isfinite(log_t)
        return np.where(some, np.exp(np.where(some, alpha * log_p + beta * log_t, 0.0)), 0.0)

    return _Sum(
        _quiet(value),
        lambda x: alpha * np.exp(beta * x),
        lambda x: beta * np.exp(-alpha * x),
        np.full_like(alpha, -_FAR),
        np.full_like(alpha, -_REACH),
    )


def _negative_kl(count: int) -> _Sum:
    """p log(t/p)."""

    def value(log_p: np.ndarray, log_t: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(log_p), np.exp(log_p) * (log_t - log_p), 0.0)

    return _Sum(
        _quiet(value),
        lambda x: x - 1,
        lambda x: np.exp(-x),
        np.full((count, 1), -_FAR),
        np.full((count, 1), -_REACH),
    )


def _quiet(value: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Without warnings for −∞ − −∞, whose place is overwritten."""

    def quiet(log_p: np.ndarray, log_t: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return value(log_p, log_t)

    return quiet


def _supremum(f: _Sum, tails: _Tails) -> np.ndarray:
    """A number that no admissible tail's Σf exceeds, `[B, 1]`."""
    low, high = f.tangent, f.tangent + 2 * _REACH
    steps = _PRICE_STEPS
    if not (tails.only_p | tails.only_t).any():
        # All of the missing masses is left for U.
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.log(tails.missing_t) - np.log(tails.missing_p)
        high, steps = np.clip(np.where(np.isnan(x), low, x), low, high), 0
    for _ in range(steps):
        x = (low + high) / 2
        rises = _left_p(f, tails, x) >= np.exp(-x) * np.maximum(_left_t(f, tails, x), 0.0)
        low, high = np.where(rises, low, x), np.where(rises, x, high)
    x_t = high
    if (_left_t(f, tails, high) < 0).any():
        x_t = np.where(_left_t(f, tails, high) < 0, _using_up_t(f, tails, high), high)
    # The end of the curve, too: steps of x from there can be steep in λ.
    bound: np.ndarray = np.minimum(_dual(f, tails, high, x_t), _dual(f, tails, f.tangent, f.tangent))
    return bound


def _dual(f: _Sum, tails: _Tails, x_p: np.ndarray, x_t: np.ndarray) -> np.ndarray:
    """The bound at the price λ of x_p and μ of x_t, where x_p ≥ x_t."""
    known = np.where(tails.known, f.value(tails.log_p, tails.log_t), 0.0)
    total = known + _best_t(f, tails, x_t)[1] + _best_p(f, tails, x_p)[1]
    prices = f.price_p(x_p) * tails.missing_p + f.price_t(x_t) * tails.missing_t
    bound: np.ndarray = prices + total.sum(-1, keepdims=True)
    return bound


def _best_t(f: _Sum, tails: _Tails, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """t of each token of P at the price of x, and what it is worth: max f − μt. 0 for other tokens."""
    log_t = np.minimum(tails.log_cap_t, tails.log_p + x)
    worth = f.value(tails.log_p, log_t) - f.price_t(x) * np.exp(log_t)
    nothing = f.value(tails.log_p, np.full_like(tails.log_p, -math.inf))
    takes = tails.only_p & (worth > nothing)
    return np.where(takes, np.exp(log_t), 0.0), np.where(tails.only_p, np.maximum(worth, nothing), 0.0)


def _best_p(f: _Sum, tails: _Tails, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p of each token of T, and what it is worth: max f − λp. f(0, t) = 0; beyond its concave part f may rise again."""
    price = f.price_p(x)
    log_p = np.minimum(tails.log_cap_p, tails.log_t - x)
    worth = f.value(log_p, tails.log_t) - price * np.exp(log_p)
    cap = np.broadcast_to(tails.log_cap_p, log_p.shape)
    at_cap = f.value(cap, tails.log_t) - price * np.exp(cap)
    p = np.exp(np.where(at_cap > worth, cap, log_p))
    worth = np.maximum(worth, at_cap)
    return np.where(tails.only_t & (worth > 0), p, 0.0), np.where(tails.only_t, np.maximum(worth, 0.0), 0.0)


def _left_p(f: _Sum, tails: _Tails, x: np.ndarray) -> np.ndarray:
    """Of the missing mass of π_θ, what the tokens of T do not take at the price of x."""
    left: np.ndarray = tails.missing_p - _best_p(f, tails, x)[0].sum(-1, keepdims=True)
    return left


def _left_t(f: _Sum, tails: _Tails, x: np.ndarray) -> np.ndarray:
    left: np.ndarray = tails.missing_t - _best_t(f, tails, x)[0].sum(-1, keepdims=True)
    return left


def _using_up_t(f: _Sum, tails: _Tails, high: np.ndarray) -> np.ndarray:
    """The x at whose price P takes all of the missing mass of π_t: it takes more the higher x."""
    low = np.minimum(f.lowest, high)
    for _ in range(_PRICE_STEPS):
        x = (low + high) / 2
        much = _left_t(f, tails, x) < 0
        low, high = np.where(much, low, x), np.where(much, x, high)
    return high


# --- the intervals -----------------------------------------------------------------------------------------------


def _bound(rows: Sequence[TopKRow], width: float) -> TailBounds:
    count = len(rows)
    status = [TailStatus.INVALID] * count
    intervals = np.full((4, count, 2), math.nan)
    enough = np.full(count, math.nan)
    k_enough: list[int | None] = [None] * count
    usable = [i for i, row in enumerate(rows) if not row.problem]
    if usable:
        tails = _Tails.of([rows[i] for i in usable])
        alpha = _alpha(tails)
        intervals[0, usable] = alpha
        intervals[1, usable] = _kl(tails)
        intervals[2, usable] = _kl(tails.exchanged)
        intervals[3, usable] = _chernoff(tails)
        needed = _missing_enough(tails, alpha, width)
        enough[usable] = needed
        for i, (low, high), mass in zip(usable, alpha.tolist(), needed.tolist(), strict=True):
            status[i] = _status(rows[i], high - low, width)
            k_enough[i] = _k_enough(rows[i], mass)
    return TailBounds(
        tuple(status), intervals[0], intervals[1], intervals[2], intervals[3], enough, tuple(k_enough), width
    )


def _status(row: TopKRow, size: float, width: float) -> TailStatus:
    whole = max(row.missing_theta, row.missing_target) <= ROUNDED and (row.in_theta & row.in_target).all()
    if whole and np.array_equal(row.log_theta, row.log_target):
        return TailStatus.IDENTICAL
    if size <= width:
        return TailStatus.DETERMINED
    return TailStatus.INTERVAL if size <= WIDE else TailStatus.NOT_DETERMINED


def _alpha(tails: _Tails) -> np.ndarray:
    """The interval of α_KL, `[B, 2]`: Δ falls in α for every tail, so that Σf < 0 for all of them bounds all roots."""
    return np.stack([1 - _highest_root(tails.exchanged), _highest_root(tails)], -1)


def _highest_root(tails: _Tails) -> np.ndarray:
    """An α at which Σf < 0 for every tail, as low as it is found, `[B]`; 1 where there is none."""
    count = len(tails.log_p)
    out = np.ones(count)
    some = np.flatnonzero(_is_negative(tails, np.full(count, 1 - _ENDS)))
    tails = tails.take(some)
    low, high = np.full(some.size, _ENDS), np.full(some.size, 1 - _ENDS)
    if some.size:
        high = np.where(_is_negative(tails, low), low, high)
        for _ in range(_ALPHA_STEPS):
            alpha = (low + high) / 2
            negative = _is_negative(tails, alpha)
            low, high = np.where(negative, low, alpha), np.where(negative, alpha, high)
    out[some] = high
    return out


def _is_negative(tails: _Tails, alpha: np.ndarray) -> np.ndarray:
    negative: np.ndarray = _supremum(_signed(alpha[:, None]), tails)[:, 0] < -_ROUNDING
    return negative


def _kl(tails: _Tails) -> np.ndarray:
    """The interval of KL(p‖t), `[B, 2]`."""
    low = np.maximum(-_supremum(_negative_kl(len(tails.log_p)), tails)[:, 0], 0.0) + 0.0
    # π_t has no tail, and that of π_θ does not find room on the tokens that the target reports.
    room = tails.only_t.sum(-1) * np.exp(tails.log_cap_p[:, 0])
    low[(tails.missing_t[:, 0] == 0) & (tails.missing_p[:, 0] > room * (1 + _ROUNDING))] = math.inf
    # Every token with p > 0 has its t known: nothing is open.
    known = (tails.missing_p[:, 0] == 0) & ~(tails.only_p & (tails.log_p > -math.inf)).any(-1)
    return np.stack([low, np.where(known, low, math.inf)], -1)


def _chernoff(tails: _Tails) -> np.ndarray:
    """The interval of −log min over α of Z(α), `[B, 2]`."""

    def least(alpha: np.ndarray) -> np.ndarray:
        return np.asarray(-np.log(_supremum(_affinity(alpha[:, None]), tails)[:, 0]))

    def most(alpha: np.ndarray) -> np.ndarray:
        known = np.where(tails.known, _affinity(alpha[:, None]).value(tails.log_p, tails.log_t), 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(-np.log(known.sum(-1)))

    count = len(tails.log_p)
    low = _maximum(least, np.full(count, _ENDS), np.full(count, 1 - _ENDS))
    high = _maximum(most, np.zeros(count), np.ones(count))
    return np.stack([np.maximum(low, 0.0) + 0.0, np.maximum(high, 0.0) + 0.0], -1)


def _maximum(f: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The maximum of concave functions, `[B]`, by golden section."""
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = f(a), f(b)
    best = np.maximum(np.maximum(f(low), f(high)), np.maximum(at_a, at_b))
    for _ in range(_GOLDEN_STEPS):
        left = at_a >= at_b
        low, high = np.where(left, low, a), np.where(left, b, high)
        new = np.where(left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_new = f(new)
        a, b = np.where(left, new, b), np.where(left, a, new)
        at_a, at_b = np.where(left, at_new, at_b), np.where(left, at_a, at_new)
        best = np.maximum(best, at_new)
    return np.asarray(best)


# --- how much would be enough ------------------------------------------------------------------------------------


def _missing_enough(tails: _Tails, alpha: np.ndarray, width: float) -> np.ndarray:
    """As `TailBounds.missing_enough`. The width is about proportional to the missing mass; a few steps correct it."""
    size = alpha[:, 1] - alpha[:, 0]
    missing = np.maximum(tails.missing_p, tails.missing_t)[:, 0]
    enough = np.where(size <= width, missing, math.nan)
    some = np.flatnonzero((size > width) & (missing > 0))
    if not some.size:
        return enough
    tails, share = tails.take(some), np.ones(some.size)
    found, now = np.full(some.size, math.nan), size[some]
    for _ in range(_SHRINK_STEPS):
        share = np.minimum(share * np.clip(_SHRINK * width / np.maximum(now, _ROUNDING), 0.01, 2.0), 1.0)
        ends = _alpha(tails.agreeing(share[:, None]))
        now = ends[:, 1] - ends[:, 0]
        found = np.where(now <= width, np.fmax(found, share), found)
    enough[some] = found * missing[some]
    return enough


def _k_enough(row: TopKRow, mass: float) -> int | None:
    """As `TailBounds.k_enough`."""
    if math.isnan(mass):
        return None
    needed = [
        _reach(row.log_theta[row.in_theta], row.missing_theta, row.cap_theta, mass),
        _reach(row.log_target[row.in_target], row.missing_target, row.cap_target, mass),
    ]
    found = [k for k in needed if k is not None]
    if len(found) < len(needed):
        return None
    size = None if row.unreported is None else row.unreported + len(row.tokens)
    return max(found) if size is None else min(max(found), size)


def _reach(log_probs: np.ndarray, missing: float, cap: float, mass: float) -> int | None:
    """How many logprobs of one side leave so little, if its probabilities fall on as a power of their rank."""
    if missing <= mass:
        return len(log_probs)
    with np.errstate(divide="ignore"):
        top = np.sort(log_probs[np.isfinite(log_probs) & (log_probs >= np.log(cap) - _ROUNDING)])[::-1]
    if top.size < _FEWEST:
        return None
    ranks = np.log(np.arange(1, top.size + 1))
    slope = float(np.polyfit(ranks, top, 1)[0])
    if slope > -1 - 1 / _LONGEST:
        return None
    reach = len(log_probs) * (missing / mass) ** (1 / (-slope - 1))
    return math.ceil(reach) if reach <= _MOST else None


def _joined(parts: Sequence[TailBounds], width: float) -> TailBounds:
    def together(name: str, *shape: int) -> np.ndarray:
        return np.concatenate([np.empty(shape), *(getattr(part, name) for part in parts)])

    return TailBounds(
        status=tuple(word for part in parts for word in part.status),
        alpha_kl=together("alpha_kl", 0, 2),
        kl_theta_target=together("kl_theta_target", 0, 2),
        kl_target_theta=together("kl_target_theta", 0, 2),
        chernoff_information=together("chernoff_information", 0, 2),
        missing_enough=together("missing_enough", 0),
        k_enough=tuple(k for part in parts for k in part.k_enough),
        width=width,
    )
