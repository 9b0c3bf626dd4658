"""The logarithmic mean and what it is made of, against mpmath."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EPS

from geomix_core.numerics import log_logarithmic_mean, log_sinhc

INF = np.inf


def mp_log_mean(log_a: float, log_b: float) -> float:
    """log[(a − b)/(log a − log b)] with the digits that e^(−800) and ℓ = 1e-18 take."""
    with mp.workdps(800):
        a, b = mp.mpf(log_a), mp.mpf(log_b)
        return float(a if a == b else mp.log((mp.exp(a) - mp.exp(b)) / (a - b)))


def computed(log_a, log_b) -> np.ndarray:
    return log_logarithmic_mean(torch.tensor(log_a, dtype=torch.float64), torch.tensor(log_b, dtype=torch.float64))


def rounding(log_a: float, log_b: float) -> float:
    """A few operations on numbers as large as log a, log b and log(2·half)."""
    return 4 * EPS * (1 + abs(log_a) + abs(log_b))


@pytest.mark.parametrize("ell", [1e-18, 1e-15, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.05, 0.1999, 0.2, 0.2001, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_logarithmic_mean_of_near_equal_numbers(ell: float, sign: int) -> None:
    # a = 1: log b = ±ℓ is the ratio itself, nothing is rounded away.
    truth = mp_log_mean(0.0, sign * ell)
    assert truth != 0
    # Here even the relative error of log L = ±ℓ/2 + ℓ²/24 is a few ulp; the series stops at 3e-16.
    tolerance = {"rel": 8 * EPS, "abs": 3e-16 if ell > 0.02 else 0}
    assert computed([0.0], [sign * ell]).item() == pytest.approx(truth, **tolerance)
    assert computed([sign * ell], [0.0]).item() == pytest.approx(truth, **tolerance)


@pytest.mark.parametrize("ell", [2.0, 30.0, 37.0, 300.0, 800.0])
@pytest.mark.parametrize("log_a", [0.0, -3.7, -800.0])
def test_logarithmic_mean_of_numbers_far_apart(ell: float, log_a: float) -> None:
    for log_b in (log_a - ell, log_a + ell):
        expected = pytest.approx(mp_log_mean(log_a, log_b), abs=rounding(log_a, log_b), rel=0)
        assert computed([log_a], [log_b]).item() == expected
        assert computed([log_b], [log_a]).item() == expected


def test_logarithmic_mean_with_zero_is_zero() -> None:
    got = computed([-INF, 0.0, -INF, -2.5], [-1.0, -INF, -INF, -2.5])
    assert got[:3].tolist() == [-INF] * 3
    assert got[3].item() == -2.5


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.floats(-800, 0), st.floats(-800, 0))
def test_logarithmic_mean_lies_between_its_neighbours(log_a: float, log_b: float) -> None:
    """√(ab) ≤ L ≤ (a + b)/2 (Carlson 1972), symmetric, and it scales with its arguments."""
    slack = rounding(log_a, log_b)
    got = computed([log_a], [log_b]).item()
    assert got == computed([log_b], [log_a]).item()
    assert (log_a + log_b) / 2 - slack <= got <= np.logaddexp(log_a, log_b) - np.log(2) + slack
    assert computed([log_a - 10], [log_b - 10]).item() == pytest.approx(got - 10, abs=2 * slack + 80 * EPS, rel=0)


def test_log_sinhc() -> None:
    x = np.concatenate([[1e-18, 1e-9, 1e-3], np.linspace(0.09, 0.11, 21), [1.0, 20.0, 400.0, 1e5]])
    got = log_sinhc(torch.tensor(x)).tolist()
    for value, y in zip(got, x, strict=True):
        # 1e5: sinh does not overflow in mpmath.
        with mp.workdps(50):
            truth = mp.log(mp.sinh(mp.mpf(y)) / mp.mpf(y)) if y > 1e-12 else mp.mpf(y) ** 2 / 6
        # The series' remainder, and the rounding of log(2x) where it ends: 3e-16 and 4 ulp of 1.6.
        assert value == pytest.approx(float(truth), rel=4 * EPS, abs=4 * EPS * 1.7 if y > 0.02 else 0)
    assert log_sinhc(torch.tensor([0.0])).item() == 0
    assert torch.equal(log_sinhc(torch.tensor(-x)), log_sinhc(torch.tensor(x)))
