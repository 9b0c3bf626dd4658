"""How many samples each distribution needs to reach the same share of KL(π_t‖π_θ), as a ratio to on-policy (§7.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geomix_core.errors import OptionError
from geomix_core.lab.bootstrap import Interval, between, resampled_means
from geomix_core.lab.experiment import Trial

SHARES = (0.01, 0.02, 0.05, *(k / 10 for k in range(1, 10)))
"""Round shares of KL(π_t‖π_θ) at which distributions are compared."""

ReachStatus = Literal["reached", "not_reached", "at_once"]
FactorStatus = Literal["measured", "at_least", "at_most", "undetermined"]


@dataclass(frozen=True, slots=True)
class Reach:
    """The N at which the mean progress reaches the share, interpolated on log N."""

    status: ReachStatus
    """not_reached: at no N that was tried, and `samples` is the largest; at_once: at the smallest already."""
    samples: float
    interval: Interval
    """From 0 where a resample reaches it at once, to +inf where one does not reach it."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """One distribution against on-policy."""

    proposal: str
    reach: Reach
    status: FactorStatus
    """Whether `factor` is measured, or bounded because one of the two is not reached, or reached at once."""
    factor: float
    """N that on-policy needs, over the N that this distribution needs: above 1 it needs fewer samples."""
    interval: Interval


def efficiency(trials: Sequence[Trial], share: float = 0.5, baseline: str = "on_policy") -> tuple[Efficiency, ...]:
    """Sample efficiency of every distribution in the trials, in order of appearance; itself included, at factor 1.

    Args:
        trials: of several N, the baseline's among them, all with the same repetitions.
        share: of KL(π_t‖π_θ), between 0 and 1.

    Intervals come from resampling repetitions, for all distributions and N alike, at the step sizes as tuned. Raises
    OptionError for a share outside (0, 1), trials that do not belong together, or without the baseline.
    """
    if not 0 < share < 1:
        raise OptionError(f"share is {share:g}: expected a number between 0 and 1, both excluded.")
    by_name = _curves(trials)
    if baseline not in by_name:
        raise OptionError(f"No trial of {baseline} is given: the ratio needs it beside the others, at the same N.")
    crossings = {name: _Crossing.of(curve, share) for name, curve in by_name.items()}
    base = crossings[baseline]
    return tuple(_against(name, crossing, base) for name, crossing in crossings.items())


def attained(trials: Sequence[Trial], baseline: str = "on_policy") -> float | None:
    """The largest of `SHARES` that the baseline's mean progress reaches at some N; None where it reaches none."""
    shares = [t.mean / t.ceiling for t in trials if t.proposal == baseline]
    return max((s for s in SHARES if any(s <= share for share in shares)), default=None)


def _curves(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by distribution, N ascending; each with the N of the first."""
    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial.proposal, []).append(trial)
    for name, curve in by_name.items():
        curve.sort(key=lambda t: t.samples)
        by_name[name] = curve
    sizes = {tuple((t.samples, len(t.progress), t.estimator, t.ceiling) for t in curve) for curve in by_name.values()}
    if len(sizes) != 1:
        raise OptionError("The trials differ in N, repetitions, estimator or row: give trials of one experiment.")
    return by_name


@dataclass(frozen=True, eq=False)
class _Crossing:
    """Bounds of the N needed: of the mean, then of each resample `[1 + RESAMPLES]`; equal where it is interpolated."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, curve: Sequence[Trial], share: float) -> _Crossing:
        values = np.stack([t.progress for t in curve])
        means = np.column_stack([values.mean(-1), resampled_means(values)]) / curve[0].ceiling
        return cls(*crossing(np.array([t.samples for t in curve]), means, share))

    @property
    def reach(self) -> Reach:
        low, high = float(self.low[0]), float(self.high[0])
        status: ReachStatus = "reached" if low == high else "at_once" if low == 0 else "not_reached"
        return Reach(status, low if low > 0 else high, between(self.low[1:], self.high[1:]))


def crossing(samples: np.ndarray, means: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the N at which curves `[N, C]` first reach the share, each `[C]`: (n, n) where it is interpolated,
    (0, the smallest N) where it is reached at once, (the largest N, ∞) where it is not reached.
    """
    log_n = np.log(samples)
    above = means >= share
    first = above.argmax(0)
    column = np.arange(means.shape[1])
    before = np.maximum(first - 1, 0)
    start, end = means[before, column], means[first, column]
    inside = above.any(0) & (first > 0)
    part = np.where(inside, (share - start) / np.where(inside, end - start, 1.0), 0.0)
    n = np.exp(log_n[before] + part * (log_n[first] - log_n[before]))
    low = np.where(inside, n, np.where(above.any(0), 0.0, samples[-1]))
    high = np.where(inside, n, np.where(above.any(0), samples[0], np.inf))
    return low, high


def _against(name: str, own: _Crossing, base: _Crossing) -> Efficiency:
    if own is base:
        return Efficiency(name, own.reach, "measured", 1.0, Interval(1.0, 1.0))
    low = base.low / own.high
    high = np.divide(base.high, own.low, out=np.full_like(base.high, np.inf), where=own.low > 0)
    status: FactorStatus = "undetermined"
    factor = 1.0
    if low[0] == high[0]:
        status, factor = "measured", float(low[0])
    elif low[0] > 0:
        status, factor = "at_least", float(low[0])
    elif high[0] < np.inf:
        status, factor = "at_most", float(high[0])
    return Efficiency(name, own.reach, status, factor, between(low[1:], high[1:]))
