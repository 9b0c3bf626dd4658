"""Signed SNR and the other KL symmetry, against NumPy grids and mpmath; options and statuses of solve_alpha."""

from __future__ import annotations

from functools import partial

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import minimize_scalar
from strategies import (
    EPS,
    FAMILIES,
    WEIGHTS,
    Exact,
    assert_numbers,
    draw,
    draw_reference,
    log_prob_error,
    logit_pairs,
    mp_kl,
    np_log_softmax,
    np_snr,
)

from geomix_core import OptionError, PolicyBatch, Status, learning_signal, solve_alpha
from geomix_core.criteria import CRITERIA

INF = np.inf
GRID = np.linspace(0, 1, 501)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
CONVENTION = pytest.mark.parametrize("weights", WEIGHTS)


def signed(given: list[np.ndarray], i: int, weights: str):
    """Signed SNR of row i as a NumPy function of α."""
    return partial(np_snr, *(np_log_softmax(x[i]) for x in given), *([None] * (3 - len(given))), weights=weights)


def best(snr) -> float:
    """The highest signed SNR on the grid, or that SciPy finds around it."""
    values = snr(GRID)
    k = int(values.argmax())
    bounds = (GRID[max(k - 1, 0)], GRID[min(k + 1, 500)])
    inside = minimize_scalar(lambda a: -snr(a)[0], bounds=bounds, method="bounded", options={"xatol": 1e-10})
    return max(float(values[k]), -float(inside.fun))


# --- signed SNR --------------------------------------------------------------------------------------------------


@FAMILY
@CONVENTION
def test_default_reference_needs_no_sign(family: str, weights: str) -> None:
    """Φ₁ ≥ 0 throughout there, so both criteria have the same maxima."""
    batch = PolicyBatch.from_logits(*draw(family, 10, 9, 3))
    plain, with_sign = solve_alpha(batch, "snr", weights), solve_alpha(batch, "signed_snr", weights)
    assert with_sign.criterion == "signed_snr"
    for name in ("alpha", "residual", "bracket"):
        assert torch.equal(getattr(with_sign, name), getattr(plain, name))
    assert with_sign.maxima == plain.maxima
    assert with_sign.status == plain.status == (Status.SOLVED,) * 10


@CONVENTION
def test_signed_maximum_is_the_highest_with_a_rising_signal(weights: str) -> None:
    """Against the grid; equal to plain SNR where its maximum has Φ₁ > 0, and no answer where Φ₁ ≤ 0 throughout."""
    kinds = {"same": 0, "other": 0, "none": 0}
    for family in ("gaussian", "peaked", "zipf", "dirichlet"):
        theta, target = draw(family, 30, 9, 1)
        # Every third reference leans towards π_t, every third beyond it.
        lean = (np.arange(30) % 3)[:, None]
        given = [theta, target, theta + 0.5 * (draw_reference(30, 9, 1) - theta) + lean * (target - theta)]
        batch = PolicyBatch.from_logits(*given)
        plain, result = solve_alpha(batch, "snr", weights), solve_alpha(batch, "signed_snr", weights)
        assert_numbers(result)
        for i, status in enumerate(result.status):
            snr = signed(given, i, weights)
            height, alpha = best(snr), result.alpha[i].item()
            if height <= 0:
                kinds["none"] += 1
                assert status is Status.NO_ASCENT
                assert alpha == 0.5
                assert result.maxima[i] == ()
                continue
            assert status is Status.SOLVED
            assert snr(alpha)[0] == pytest.approx(height, rel=1e-9)
            assert result.maxima[i][0].value == pytest.approx(height, rel=1e-9)
            assert {m.sign for m in result.maxima[i]} == {1}
            if plain.maxima[i][0].sign > 0:
                kinds["same"] += 1
                assert alpha == plain.alpha[i].item()
                assert result.bracket[i].tolist() == plain.bracket[i].tolist()
            else:
                kinds["other"] += 1
                assert result.maxima[i][0].value <= plain.maxima[i][0].value
    assert min(kinds.values()) >= 2, kinds


@CONVENTION
@pytest.mark.parametrize("factor", [1.5, 3.0])
def test_reference_beyond_the_target_leaves_no_ascent(factor: float, weights: str) -> None:
    """π_ref lies further from π_θ than π_t does, so that r falls where ℓ rises: every q pushes away from π_t."""
    rng = np.random.default_rng(2)
    theta = rng.normal(size=(5, 8))
    target = theta + 0.3 * rng.normal(size=(5, 8))
    given = [theta, target, theta + factor * (target - theta)]
    for i in range(5):
        assert signed(given, i, weights)(GRID).max() < 0
    result = solve_alpha(PolicyBatch.from_logits(*given), "signed_snr", weights)
    assert result.status == (Status.NO_ASCENT,) * 5
    assert not result.solved.any()
    assert result.alpha.tolist() == [0.5] * 5
    assert result.maxima == ((),) * 5
    assert_numbers(result)
    assert solve_alpha(PolicyBatch.from_logits(*given), "snr", weights).status == (Status.SOLVED,) * 5


@pytest.mark.parametrize("seed", [54, 505, 2559])
def test_short_ascent_between_two_grid_points_is_found(seed: int) -> None:
    """Φ₁ > 0 on less than a hundredth of [0, 1]: rewards 3x + sℓ, with s just above where max Φ₁ = 0 (bisection)."""
    theta, target, noise = _rewards(seed)
    fine = np.linspace(0, 1, 4001)

    def reference(s: float) -> np.ndarray:
        return np_log_softmax(target - (3 * noise + s * (target - theta)))

    def phi1(s: float) -> np.ndarray:
        w = np.exp(-(1 - fine)[:, None] * (target - theta))
        return ((np.exp(target) - np.exp(theta)) * w * (target - reference(s))).sum(-1)

    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if phi1(middle).max() < 0 else (low, middle)
    rising = phi1(high + 1e-6) > 0
    assert 0 < rising.mean() < 0.01
    result = solve_alpha(PolicyBatch.from_logits(theta, target, reference(high + 1e-6)), "signed_snr")
    assert result.status == (Status.SOLVED,)
    assert fine[rising].min() - 1e-3 <= result.alpha.item() <= fine[rising].max() + 1e-3


def _rewards(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log π_θ, log π_t, noise) of the given draw of a seeded search."""
    theta, target, noise = np.random.default_rng(0).normal(size=(seed + 1, 3, 6))[-1] * 2
    return np_log_softmax(theta), np_log_softmax(target), noise


@CONVENTION
def test_flat_rows_keep_their_sign(weights: str) -> None:
    """Two tokens: |SNR| ≡ √χ², and Φ₁ has the sign of (r₁ − r₂)(π_t₁ − π_θ₁)."""
    theta, target, reference = 2 * np.random.default_rng(0).normal(size=(3, 20, 2))
    rising = [signed([theta, target, reference], i, weights)(0.3)[0] > 0 for i in range(20)]
    assert 3 < sum(rising) < 17
    result = solve_alpha(PolicyBatch.from_logits(theta, target, reference), "signed_snr", weights)
    assert result.status == tuple(Status.FLAT if up else Status.NO_ASCENT for up in rising)
    assert result.alpha.tolist() == [0.5] * 20


@pytest.mark.parametrize("swap", [False, True])
@CONVENTION
def test_flat_row_whose_signal_changes_sign(weights: str, swap: bool) -> None:
    """The reference has mass on a third token, so both rewards can be positive, and w decides which tilt is larger."""
    given = [[0.5, 0.5, 0.0], [0.8, 0.2, 0.0], [0.3, 0.1, 0.6] if not swap else [0.4, 0.09, 0.51]]
    batch = PolicyBatch.from_probs(*given)
    with np.errstate(divide="ignore"):
        theta, target, reference = (np.log(x)[:2] for x in np.array(given))
    ends = np_snr(theta, target, reference, np.array([0.0, 1.0]), weights)
    result = solve_alpha(batch, "signed_snr", weights)
    assert solve_alpha(batch, "snr", weights).status == (Status.FLAT,)
    if (ends > 0).all():
        assert result.status == (Status.FLAT,)
    elif (ends < 0).all():
        assert result.status == (Status.NO_ASCENT,)
    else:
        assert result.status == (Status.SOLVED,)
        assert result.alpha.item() == float(ends[1] > 0)
        assert result.maxima[0][0].value == pytest.approx(ends.max(), rel=64 * EPS)
        assert learning_signal(batch, result.alpha, weights).sign.item() == 1
    assert_numbers(result)


# --- KL(π_θ‖q) = KL(π_t‖q) ---------------------------------------------------------------------------------------


@FAMILY
def test_reverse_kl_symmetry_makes_the_two_divergences_equal(family: str) -> None:
    theta, target = draw(family, 5, 8, 2)
    result = solve_alpha(PolicyBatch.from_logits(theta, target), "reverse_kl_symmetry")
    assert result.status == (Status.SOLVED,) * 5
    assert_numbers(result)
    for i in range(5):
        exact = Exact(theta[i], target[i])
        there, back = mp_kl(exact.theta, exact.target), mp_kl(exact.target, exact.theta)

        def gap(alpha: float, exact: Exact = exact) -> mp.mpf:
            q = exact.q(alpha)
            return mp_kl(exact.theta, q) - mp_kl(exact.target, q)

        # Each KL is known to δ·E(1 + |ℓ|), and the gap falls with slope J = KL(π_θ‖π_t) + KL(π_t‖π_θ).
        delta, total = log_prob_error(theta[i], target[i]), float(there + back)
        masses = zip(exact.theta, exact.target, exact.ell.values(), strict=True)
        error = 4 * delta * float(mp.fsum((p + t) * (1 + abs(x)) for p, t, x in masses))
        assert abs(gap(result.alpha[i].item())) <= error
        assert result.alpha[i].item() == pytest.approx(float(there) / total, abs=error / total)
        assert abs(result.residual[i].item()) <= 4 * EPS * total


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(logit_pairs())
def test_reverse_kl_symmetry_of_any_pair(pair) -> None:
    """α ∈ [0, 1], and the policies' exchange turns α into 1 − α."""
    theta, target = pair
    there = solve_alpha(PolicyBatch.from_logits(theta, target), "reverse_kl_symmetry")
    back = solve_alpha(PolicyBatch.from_logits(target, theta), "reverse_kl_symmetry")
    assert_numbers(there)
    assert there.status == back.status
    assert there.alpha.item() == pytest.approx(1 - back.alpha.item(), abs=8 * EPS)


def test_the_two_kl_symmetries_differ() -> None:
    """On rows whose policies differ in shape; on mirrored ones both are 1/2."""
    theta, target = draw("gaussian", 20, 9, 0)
    batch = PolicyBatch.from_logits(theta, target)
    forward, reverse = solve_alpha(batch).alpha, solve_alpha(batch, "reverse_kl_symmetry").alpha
    assert ((forward - reverse).abs() > 0.01).sum() >= 15
    mirrored = PolicyBatch.from_logits([0.0, 1.0, 3.0], [3.0, 1.0, 0.0])
    for criterion in ("kl_symmetry", "reverse_kl_symmetry"):
        assert solve_alpha(mirrored, criterion).alpha.item() == pytest.approx(0.5, abs=1e-12)


def test_reverse_kl_symmetry_of_logits_800_apart() -> None:
    theta, target = np.array([800.0, -800.0, 0.0, 1.0]), np.array([-800.0, 3.0, 0.0, 800.0])
    with mp.workdps(1600):
        exact = Exact(theta, target)
        there, back = mp_kl(exact.theta, exact.target), mp_kl(exact.target, exact.theta)
    alpha = solve_alpha(PolicyBatch.from_logits(theta, target), "reverse_kl_symmetry").alpha.item()
    assert alpha == pytest.approx(float(there / (there + back)), rel=16 * EPS)


# --- options, statuses, batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(
    "eta_range", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, INF), (np.nan, 1.0), (1.0, np.nan), (np.nan, np.nan)]
)
def test_range_that_is_none_is_refused(criterion: str, eta_range: tuple[float, float]) -> None:
    batch = PolicyBatch.from_logits([0.0, 1.0], [1.0, 0.0])
    with pytest.raises(OptionError, match=rf"eta_range is \({eta_range[0]:g}, .*expected 0 < low ≤ high < ∞"):
        solve_alpha(batch, criterion, eta_range=eta_range)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_unknown_convention_is_refused(criterion: str) -> None:
    with pytest.raises(OptionError, match=r"weights is 'w': expected one of importance, inverse"):
        solve_alpha(PolicyBatch.from_logits([0.0, 1.0], [1.0, 0.0]), criterion, "w")


# (θ, target, status of reverse_kl_symmetry, of signed_snr)
CASES = {
    "plain": ([0.0, 1.0, 3.0, -2.0], [1.0, 3.0, 0.0, 0.5], Status.SOLVED, Status.SOLVED),
    "identical": ([0.0, 1.0, 3.0, -2.0], [5.0, 6.0, 8.0, 3.0], Status.IDENTICAL, Status.IDENTICAL),
    "neither has a token": ([0.0, 1.0, 3.0, -INF], [1.0, 3.0, 0.0, -INF], Status.SOLVED, Status.SOLVED),
    "target knows more": (
        [0.0, 1.0, 3.0, -INF],
        [0.0, 3.0, 0.0, -3.0],
        Status.NO_COVERAGE,
        Status.SOLVED_ON_COMMON_SUPPORT,
    ),
    "truncated target": ([0.0, 1.0, 3.0, -2.0], [0.0, 3.0, 0.0, -INF], Status.NO_COVERAGE, Status.NO_COVERAGE),
    "disjoint": ([0.0, 1.0, -INF, -INF], [-INF, -INF, 0.0, 0.0], Status.DISJOINT, Status.DISJOINT),
    "two tokens": ([0.0, 1.0, -INF, -INF], [1.0, -1.0, -INF, -INF], Status.SOLVED, Status.FLAT),
}


@pytest.mark.parametrize("name", CASES)
def test_status(name: str) -> None:
    theta, target, *expected = CASES[name]
    for criterion, status in zip(("reverse_kl_symmetry", "signed_snr"), expected, strict=True):
        result = solve_alpha(PolicyBatch.from_logits(theta, target), criterion)
        assert result.status == (status,)
        assert result.solved.tolist() == [status.is_solution]
        assert_numbers(result)
        if status not in {Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT}:
            assert result.alpha.item() == 0.5


@CONVENTION
def test_reward_that_vanishes_has_no_signal(weights: str) -> None:
    target = [1.3, 0.2, 0.7, -1.1]
    result = solve_alpha(PolicyBatch.from_logits([0.1, 1.7, -2.3, 3.1], target, target), "signed_snr", weights)
    assert result.status == (Status.NO_SIGNAL,)
    assert not result.solved.any()


@CONVENTION
@pytest.mark.parametrize("criterion", ["signed_snr", "reverse_kl_symmetry"])
def test_batch_is_a_loop(criterion: str, weights: str) -> None:
    cases = [np.array([case[k] for case in CASES.values()]) for k in (0, 1)]
    rng = np.random.default_rng(5)
    theta = np.concatenate([cases[0], 2 * rng.normal(size=(12, 4))])
    target = np.concatenate([cases[1], 2 * rng.normal(size=(12, 4))])
    for policies in ([theta, target], [theta, target, 2 * rng.normal(size=theta.shape)]):
        together = solve_alpha(PolicyBatch.from_logits(*policies), criterion, weights)
        assert_numbers(together)
        for i in range(len(theta)):
            alone = solve_alpha(PolicyBatch.from_logits(*(x[i] for x in policies)), criterion, weights)
            assert together.status[i] is alone.status[0]
            assert together.alpha[i].item() == pytest.approx(alone.alpha.item(), abs=1e-9)
            assert together.maxima[i] == alone.maxima[0]
