"""Bootstrap intervals over repetitions (percentile method; Efron & Tibshirani 1993, ch. 13)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 0.95
"""Share of resamples that an interval covers."""
RESAMPLES = 1000
_SEED = 8
"""Intervals of the same numbers are the same."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends of an interval; `high` may be +inf where it is open above."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def resampled_means(values: np.ndarray) -> np.ndarray:
    """Means of resamples of the repetitions `[..., R] -> [..., RESAMPLES]`, the same repetitions throughout."""
    means: np.ndarray = values @ _shares(values.shape[-1])
    return means


@lru_cache(maxsize=8)
def _shares(repetitions: int) -> np.ndarray:
    """How much of each resample every repetition makes up `[R, RESAMPLES]`."""
    drawn = np.random.default_rng(_SEED).multinomial(repetitions, [1 / repetitions] * repetitions, RESAMPLES)
    return drawn.T / repetitions


def mean_interval(values: np.ndarray) -> Interval:
    """Interval of the mean over repetitions `[R]`."""
    return interval(resampled_means(values))


def interval(resampled: np.ndarray) -> Interval:
    """The middle `LEVEL` of resampled values `[RESAMPLES]`."""
    return between(resampled, resampled)


def between(low: np.ndarray, high: np.ndarray) -> Interval:
    """The same where each resample only bounds the value: from the lower bounds' low end to the upper bounds' high."""
    tail = (1 - LEVEL) / 2
    # An order statistic, not a mean of two: of two infinities that would be no number.
    return Interval(float(np.quantile(low, tail, method="lower")), float(np.quantile(high, 1 - tail, method="higher")))
