"""α_KL on every bundled row and family against a reference in extended precision, for every input dtype.

The reference shares nothing with the solver: NumPy long double (80 bits on x86), plain bisection on Δ.
"""

import numpy as np
import pytest
import torch

from geomix_core.criteria import solve_alpha
from geomix_core.geodesics import tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import FAMILIES, real_rows, synthetic, target_at_distance
from geomix_core.status import Status

SIZES = (10, 1_000, 50_257, 152_000)


def reference_alpha(theta: np.ndarray, target: np.ndarray) -> float:
    """The root of Δ on the common support, by bisection in long double."""
    log_p, log_t = (np.asarray(x, np.longdouble) for x in (theta, target))
    log_p, log_t = (x - x.max() - np.log(np.exp(x - x.max()).sum()) for x in (log_p, log_t))
    both = np.isfinite(log_p) & np.isfinite(log_t)
    log_p, ell = log_p[both], log_t[both] - log_p[both]
    low, high = np.longdouble(0), np.longdouble(1)
    for _ in range(50):
        middle = (low + high) / 2
        x = log_p + (1 - middle) * ell
        weights = np.exp(x - x.max())
        low, high = (middle, high) if (weights * ell).sum() > 0 else (low, middle)
    return float((low + high) / 2)


def families() -> list[tuple[str, dict[str, float]]]:
    """Every family at its defaults, and at each size for those that have one."""
    cases: list[tuple[str, dict[str, float]]] = []
    for name, family in FAMILIES.items():
        cases.append((name, {}))
        if any(p.name == "vocabulary" for p in family.parameters):
            cases += [(name, {"vocabulary": float(size)}) for size in SIZES]
    return cases


def solvable(batch: PolicyBatch, alpha: torch.Tensor, status: Status) -> bool:
    """Whether α is determined at all: a unique root with Var ≥ 1e-6 there."""
    if status not in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT):
        return False
    return tilted_moments(batch, alpha).variance.item() >= 1e-6


@pytest.mark.parametrize(("name", "parameters"), families(), ids=lambda x: str(x))
def test_families(name: str, parameters: dict[str, float]) -> None:
    batch = synthetic(name, **parameters)
    result = solve_alpha(batch)
    if solvable(batch, result.alpha, result.status[0]):
        truth = reference_alpha(batch.theta[0].numpy(), batch.target[0].numpy())
        assert abs(result.alpha.item() - truth) <= 1e-6
        single = PolicyBatch.from_logits(batch.theta.float(), batch.target.float())
        double = PolicyBatch.from_logits(batch.theta.float().double(), batch.target.float().double())
        assert abs(solve_alpha(single).alpha.item() - solve_alpha(double).alpha.item()) <= 1e-5
    else:
        # Only where the family is made so: the target cut to top-k, or noise too small to tell α by.
        assert name in ("top_k", "near_identical")


def test_bundled_rows() -> None:
    rows = real_rows()
    batch = PolicyBatch.from_logits(rows.theta, rows.target)
    result = solve_alpha(batch)
    assert result.status == (Status.SOLVED,) * 8
    assert float(tilted_moments(batch, result.alpha).variance.min()) >= 1e-6
    truth = [reference_alpha(a, b) for a, b in zip(rows.theta.numpy(), rows.target.numpy(), strict=True)]
    assert np.abs(result.alpha.numpy() - truth).max() <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_bundled_rows_in_lower_precision(dtype: torch.dtype) -> None:
    """Every dtype is widened before anything is computed: the answer is that of the rounded input, exactly."""
    rows = real_rows()
    theta, target = rows.theta.to(dtype), rows.target.to(dtype)
    rounded = solve_alpha(PolicyBatch.from_logits(theta, target)).alpha
    widened = solve_alpha(PolicyBatch.from_logits(theta.double(), target.double())).alpha
    assert (rounded - widened).abs().max() <= 1e-12


def test_bundled_rows_say_what_the_page_says() -> None:
    """§5.4 on real rows: with w = π_θ/q SNR chooses on-policy on every row, far from α_KL."""
    rows = real_rows()
    batch = PolicyBatch.from_logits(rows.theta, rows.target)
    kl, snr = solve_alpha(batch), solve_alpha(batch, "snr", "importance")
    assert (snr.alpha == 1).all()
    assert ((snr.alpha - kl.alpha).abs() > 0.1).all()
    assert (solve_alpha(batch, "snr", "inverse").alpha - kl.alpha).abs().max() < 0.2


@pytest.mark.parametrize("distance", [0.001, 0.1, 4.0])
def test_target_at_distance_is_at_that_distance(distance: float) -> None:
    rng = np.random.default_rng(5)
    theta = rng.standard_normal(300)
    target = target_at_distance(theta, rng.standard_normal(300), distance)
    log_p, log_t = (x - np.logaddexp.reduce(x) for x in (theta, target))
    assert (np.exp(log_t) * (log_t - log_p)).sum() == pytest.approx(distance, rel=1e-8)
