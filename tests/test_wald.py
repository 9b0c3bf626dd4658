"""α_Wald, the best worst case over a range of learning rates: against dense grids in NumPy and values in mpmath."""

from __future__ import annotations

from functools import partial

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
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
    np_progress,
)

from geomix_core import PolicyBatch, Status, exact_progress, solve_alpha
from geomix_core.scenarios import reference_policy, synthetic
from geomix_core.tilts import TiltFamily

INF = np.inf
GRID = np.linspace(0, 1, 501)
FAMILY = pytest.mark.parametrize("family", FAMILIES)
CONVENTION = pytest.mark.parametrize("weights", WEIGHTS)
REFERENCE = pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
RANGES = [(0.5, 2.0), (0.1, 10.0), (0.9, 1.3)]


class Rows:
    """Rows of a family: the core's batch, and each row's worst progress as a NumPy function of α."""

    def __init__(self, family: str, weights: str, referenced: bool, rows: int = 4, seed: int = 5, vocab: int = 9):
        self.given = [*draw(family, rows, vocab, seed), *([draw_reference(rows, vocab, seed)] if referenced else [])]
        self.weights = weights
        self.batch = PolicyBatch.from_logits(*self.given)

    def logs(self, i: int) -> list[np.ndarray | None]:
        return [np_log_softmax(x[i]) for x in self.given] + [None] * (3 - len(self.given))

    def progress(self, i: int):
        """(α, η) ↦ progress of row i."""
        return partial(np_progress, *self.logs(i), weights=self.weights)

    def worst(self, i: int, eta_range: tuple[float, float]):
        at = self.progress(i)
        return lambda alphas: np.minimum(at(alphas, eta_range[0]), at(alphas, eta_range[1]))

    def kl(self, i: int) -> float:
        theta, target, _ = self.logs(i)
        return float((np.exp(target) * (target - theta)).sum())

    def exact(self, i: int) -> Exact:
        return Exact(*(x[i] for x in self.given), *([None] if len(self.given) == 2 else []), self.weights)

    def delta(self, i: int) -> float:
        return log_prob_error(*(x[i] for x in self.given))


def progress_error(exact: Exact, delta: float, alpha: float, eta: float) -> float:
    """As in test_learning_progress: η·max δh, and a few ulp of log-probabilities."""
    return float(8 * delta * (1 + eta * max(exact.reach_from(exact.q(alpha)))))


def best(worst) -> float:
    """The highest value on the grid, or that SciPy finds around it."""
    values = worst(GRID)
    k = int(values.argmax())
    bounds = (GRID[max(k - 1, 0)], GRID[min(k + 1, 500)])
    inside = minimize_scalar(lambda a: -worst(a)[0], bounds=bounds, method="bounded", options={"xatol": 1e-11})
    return max(float(values[k]), -float(inside.fun))


# --- the answer --------------------------------------------------------------------------------------------------


@FAMILY
@CONVENTION
@REFERENCE
def test_no_alpha_has_a_better_worst_case(family: str, weights: str, referenced: bool) -> None:
    rows = Rows(family, weights, referenced, rows=3)
    for eta_range in RANGES:
        result = solve_alpha(rows.batch, "wald", weights, eta_range=eta_range)
        assert result.status == (Status.SOLVED,) * 3
        for i, maxima in enumerate(result.maxima):
            alpha, (low, high) = result.alpha[i].item(), result.bracket[i].tolist()
            top = rows.worst(i, eta_range)(alpha)[0]
            assert top >= best(rows.worst(i, eta_range)) - 1e-9 * max(1, rows.kl(i))
            assert alpha == maxima[0].alpha
            assert low <= alpha <= high
            assert result.residual[i].item() == maxima[0].slope
            assert [m.value for m in maxima] == sorted((m.value for m in maxima), reverse=True)


@FAMILY
@CONVENTION
@REFERENCE
def test_reported_value_is_the_worst_progress(family: str, weights: str, referenced: bool) -> None:
    """In mpmath, at every local maximum; the sign says which end of the range is the worse."""
    rows = Rows(family, weights, referenced, rows=2)
    for eta_range in RANGES[:2]:
        result = solve_alpha(rows.batch, "wald", weights, eta_range=eta_range)
        for i, maxima in enumerate(result.maxima):
            exact, delta = rows.exact(i), rows.delta(i)
            for m in maxima:
                ends = [float(exact.progress(m.alpha, x)) for x in eta_range]
                error = [progress_error(exact, delta, m.alpha, x) for x in eta_range]
                assert m.value == pytest.approx(min(ends), abs=max(error), rel=8 * EPS)
                if abs(ends[1] - ends[0]) > sum(error):
                    assert m.sign == (-1 if ends[0] < ends[1] else 1)


@FAMILY
@CONVENTION
@REFERENCE
def test_no_learning_rate_inside_the_range_is_worse(family: str, weights: str, referenced: bool) -> None:
    """Progress is concave in η, so the inner minimum lies at an end: NumPy and the core on a dense grid of η."""
    rows = Rows(family, weights, referenced, rows=2)
    eta_range = (0.2, 6.0)
    result = solve_alpha(rows.batch, "wald", weights, eta_range=eta_range)
    etas = np.geomspace(*eta_range, 101)
    core = exact_progress(rows.batch, result.alpha, torch.tensor(etas)[:, None], weights).amin(0)
    for i, maxima in enumerate(result.maxima):
        alpha = result.alpha[i].item()
        error = progress_error(rows.exact(i), rows.delta(i), alpha, eta_range[1])
        lowest = min(rows.progress(i)(alpha, eta)[0] for eta in etas)
        assert lowest == pytest.approx(maxima[0].value, abs=error)
        assert core[i].item() == pytest.approx(maxima[0].value, abs=error)


@CONVENTION
def test_kinks_and_smooth_maxima_are_both_found(weights: str) -> None:
    """A crossing of the two curves (brentq), a stationary point of the worse one (SciPy), or an end point."""
    eta_range, kinds = (0.5, 2.0), {"kink": 0, "smooth": 0, "end": 0}
    for family in ("gaussian", "dirichlet", "peaked", "tied"):
        for referenced in (False, True):
            rows = Rows(family, weights, referenced, rows=10)
            result = solve_alpha(rows.batch, "wald", weights, eta_range=eta_range)
            for i, (top, *_) in enumerate(result.maxima):
                at, alpha = rows.progress(i), top.alpha
                gap = lambda a, at=at: float(at(a, eta_range[1])[0] - at(a, eta_range[0])[0])  # noqa: E731
                if alpha in (0.0, 1.0):
                    kinds["end"] += 1
                    assert (top.slope < 0) if alpha == 0 else (top.slope > 0)
                    continue
                low, high = max(alpha - 1e-6, 0), min(alpha + 1e-6, 1)
                if gap(low) * gap(high) < 0:
                    kinds["kink"] += 1
                    # The solver closes its bracket to 1e-11.
                    assert alpha == pytest.approx(brentq(gap, low, high, xtol=1e-15), abs=2e-11)
                    continue
                kinds["smooth"] += 1
                eta = eta_range[(top.sign + 1) // 2]
                assert gap(alpha) * top.sign < 0
                exact = rows.exact(i)
                slope = mp.diff(lambda a, e=exact, eta=eta: e.progress(a, eta), alpha)
                assert abs(slope) <= 1e-8 * max(1, rows.kl(i))
                near = minimize_scalar(
                    lambda a, at=at, eta=eta: -at(a, eta)[0], bounds=(max(alpha - 1e-2, 0), min(alpha + 1e-2, 1))
                )
                assert -near.fun <= at(alpha, eta)[0] + 1e-9 * max(1, rows.kl(i))
    assert min(kinds.values()) >= 8, kinds


def peaks(values: np.ndarray, height: float) -> list[int]:
    """Grid points from which every way to a higher one first falls by more than `height`."""
    out = []
    for k in range(len(values)):
        ways = []
        for side in (values[k::-1], values[k:]):
            above = np.flatnonzero(side > side[0])
            ways.append(side[: above[0]].min() if above.size else -INF)
        if max(ways) < values[k] - height:
            out.append(k)
    return out


@CONVENTION
def test_every_local_maximum_is_reported(weights: str) -> None:
    several = 0
    for family in ("gaussian", "peaked", "dirichlet"):
        rows = Rows(family, weights, True, rows=12, seed=1, vocab=12)
        for eta_range in RANGES[:2]:
            result = solve_alpha(rows.batch, "wald", weights, eta_range=eta_range)
            for i, maxima in enumerate(result.maxima):
                values = rows.worst(i, eta_range)(GRID)
                # A thousandth of KL stands out of what the grid misses of a kink.
                expected = [GRID[k] for k in peaks(values, 1e-3 * max(rows.kl(i), 1))]
                several += len(expected) > 1
                for alpha in expected:
                    assert min(abs(m.alpha - alpha) for m in maxima) <= 4e-3
                for m in maxima:  # and none is invented
                    around = rows.worst(i, eta_range)(np.clip([m.alpha - 1e-6, m.alpha, m.alpha + 1e-6], 0, 1))
                    assert around[1] >= around.max() - 1e-9 * max(1, rows.kl(i))
    assert several >= 5


@FAMILY
@CONVENTION
@REFERENCE
def test_slope_of_progress_is_its_derivative(family: str, weights: str, referenced: bool) -> None:
    rows = Rows(family, weights, referenced, rows=2, vocab=6)
    core = TiltFamily(rows.batch, weights)
    told = 0
    for alpha in (0.0, 0.3, 0.5, 1.0):
        for eta in (0.1, 1.0, 3.0):
            got = core.progress_slope(*(torch.full((2,), x, dtype=torch.float64) for x in (alpha, eta))).tolist()
            for i in range(2):
                exact, delta = rows.exact(i), rows.delta(i)
                truth = float(mp.diff(lambda a, e=exact, eta=eta: e.progress(a, eta), alpha))
                # η Σ(π_t − π_θ')h', h' = ∓h(ℓ − E_q ℓ): h' is off by δ·reach·span, π_θ' by the factor δ(1 + η·reach).
                reach, after = exact.reach_from(exact.q(alpha)), exact.updated(alpha, eta)
                span = 1 + 2 * max(abs(x) for x in exact.ell.values())
                touched = mp.fsum((t + p) * x for t, p, x in zip(exact.target, after, reach, strict=True))
                tolerance = float(8 * delta * eta * span * touched * (1 + eta * max(reach)))
                assert got[i] == pytest.approx(truth, abs=tolerance, rel=0)
                told += tolerance < 1e-6 * abs(truth)
    # Tilts of e^20, and slopes of 1e-6, leave few digits: elsewhere most of the 24 are known to a millionth.
    assert told >= {"peaked": 3, "near": 6}.get(family, 12), "the tolerances hide the slopes"


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.one_of(logit_pairs(masks="covered"), logit_pairs(masks="covered", reference=True)),
    st.sampled_from([(0.5, 2.0), (1e-3, 1e3), (1.0, 1.0)]),
    st.sampled_from(WEIGHTS),
)
def test_every_pair_of_policies_gets_numbers(policies, eta_range: tuple[float, float], weights: str) -> None:
    batch = PolicyBatch.from_logits(*policies)
    result = solve_alpha(batch, "wald", weights, eta_range=eta_range)
    assert_numbers(result)
    if batch.support.equal.all():
        # Donsker–Varadhan; KL of rows that differ by rounding is 0 within the error of log-probabilities.
        exact = Exact(*(x[0] for x in policies[:2]))
        bound = float(mp_kl(exact.target, exact.theta)) + 64 * log_prob_error(policies[0][0], policies[1][0])
        assert all(m.value <= bound for m in result.maxima[0])


# --- the range ---------------------------------------------------------------------------------------------------


@FAMILY
@CONVENTION
def test_one_learning_rate_of_one_is_on_policy(family: str, weights: str) -> None:
    """η = 1 and q = π_θ give π_θ' = π_t: progress is KL(π_t‖π_θ), which nothing exceeds, so α = 1."""
    rows = Rows(family, weights, referenced=False, rows=10)
    result = solve_alpha(rows.batch, "wald", weights, eta_range=(1.0, 1.0))
    assert result.status == (Status.SOLVED,) * 10
    assert result.alpha.tolist() == [1.0] * 10
    for i, (top, *_) in enumerate(result.maxima):
        exact = rows.exact(i)
        truth = float(mp_kl(exact.target, exact.theta))
        assert top.value == pytest.approx(truth, abs=progress_error(exact, rows.delta(i), 1.0, 1.0), rel=0)


@FAMILY
@CONVENTION
@REFERENCE
def test_one_learning_rate_maximises_progress_there(family: str, weights: str, referenced: bool) -> None:
    rows = Rows(family, weights, referenced, rows=2)
    result = solve_alpha(rows.batch, "wald", weights, eta_range=(0.7, 0.7))
    for i in range(2):
        top = rows.progress(i)(result.alpha[i].item(), 0.7)[0]
        assert top >= best(lambda a, i=i: rows.progress(i)(a, 0.7)) - 1e-9 * max(1, rows.kl(i))


def test_range_is_not_rounded_to_single_precision() -> None:
    """0.1 as a float32 is 1.5e-9 too large, and progress at a small step is proportional to it."""
    rows = Rows("gaussian", "importance", False, rows=3)
    result = solve_alpha(rows.batch, "wald", eta_range=(1e-7, 1e-7))
    for i, (top, *_) in enumerate(result.maxima):
        assert top.value == pytest.approx(float(rows.exact(i).progress(top.alpha, 1e-7)), rel=1e-12)


@FAMILY
@CONVENTION
@REFERENCE
def test_extreme_ranges_give_numbers(family: str, weights: str, referenced: bool) -> None:
    rows, eta_range = Rows(family, weights, referenced, rows=2), (1e-3, 1e3)
    result = solve_alpha(rows.batch, "wald", weights, eta_range=eta_range)
    assert_numbers(result)
    assert result.status == (Status.SOLVED,) * 2
    for i in range(2):
        worst, alpha = rows.worst(i, eta_range), result.alpha[i].item()
        top, here = best(worst), worst(alpha)[0]
        # The solver closes its bracket to 1e-11, and at η = 1000 the curve is steep enough to show it.
        steepest = max(abs(worst(np.clip(alpha + x, 0, 1))[0] - here) / 1e-7 for x in (-1e-7, 1e-7))
        # Losses of 1000·h are compared in proportion: so are their roundings.
        assert here >= top - 1e-9 * max(1, rows.kl(i), abs(top)) - 2e-11 * steepest


@CONVENTION
@pytest.mark.parametrize("eta_range", [(1e-300, 1e-200), (1e3, 1e6), (1e-300, 1e300)])
def test_absurd_ranges_give_no_nan(weights: str, eta_range: tuple[float, float]) -> None:
    """A slope may be beyond double precision there, but α, the values and the brackets are numbers."""
    result = solve_alpha(Rows("peaked", weights, True, rows=1).batch, "wald", weights, eta_range=eta_range)
    assert not result.residual.isnan().any()
    assert ((result.alpha >= 0) & (result.alpha <= 1)).all()
    assert result.bracket.isfinite().all()
    assert np.isfinite([m.value for row in result.maxima for m in row]).all()


@CONVENTION
@REFERENCE
@pytest.mark.parametrize("eta_range", [(0.5, 2.0), (1e-3, 1e3), (1.0, 1.0)])
def test_logits_800_apart_give_numbers(weights: str, referenced: bool, eta_range: tuple[float, float]) -> None:
    theta, target = [[800.0, -800.0, 0.0, 1.0], [0.0, 0.0, 800.0, 1.0]], [[-800.0, 800.0, 0.0, 3.0], [800.0, 0, 0, 5]]
    reference = [[0.0, 1.0, 2.0, 3.0]] * 2 if referenced else None
    batch = PolicyBatch.from_logits(theta, target, reference)
    result = solve_alpha(batch, "wald", weights, eta_range=eta_range)
    assert_numbers(result)
    divergence = [1600.0, 800.0]  # nats, to e^(−795)
    for i in range(2):
        assert all(m.value <= divergence[i] * (1 + 16 * EPS) for m in result.maxima[i])
    if not referenced and eta_range == (1.0, 1.0):
        # α = 1 gains all there is; in `inverse` other α do as well, to rounding.
        gains = exact_progress(batch, result.alpha, 1.0, weights).tolist()
        assert gains == pytest.approx(divergence, rel=16 * EPS)
        if weights == "importance":
            assert result.alpha.tolist() == [1.0, 1.0]


# --- large vocabularies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "kind"), [("importance", "theta"), ("inverse", "earlier")])
def test_large_vocabulary_is_solved_on_all_tokens(weights: str, kind: str) -> None:
    """Compression only guides the search: what is reported holds on all 50 257 tokens."""
    row = synthetic("zipf", vocabulary=50_257, distance=0.5, seed=3)
    batch = PolicyBatch(row.theta, row.target, reference_policy(row.theta, kind))
    logs = [x[0].numpy() if x is not None else None for x in (batch.theta, batch.target, batch.reference)]
    at = partial(np_progress, *logs, weights=weights)
    for eta_range in ((0.5, 2.0), (0.3, 0.9)):
        worst = lambda a, r=eta_range: np.minimum(at(a, r[0]), at(a, r[1]))  # noqa: E731
        result = solve_alpha(batch, "wald", weights, eta_range=eta_range)
        assert result.status == (Status.SOLVED,)
        top = float(worst(result.alpha.item())[0])
        assert top >= worst(np.linspace(0, 1, 33)).max() - 1e-9
        assert top >= worst(np.clip(result.alpha.item() + np.array([-1e-3, -1e-5, 1e-5, 1e-3]), 0, 1)).max() - 1e-9
        assert result.maxima[0][0].value == pytest.approx(top, abs=1e-9)
        assert len({m.alpha for m in result.maxima[0]}) == len(result.maxima[0])


# --- statuses and batches ----------------------------------------------------------------------------------------

# (θ, target, reference or None, status); −inf excludes a token.
ONE = [0.0, 1.0, 2.0, -1.0]
CASES = {
    "plain": (ONE, [1.0, 0.0, -1.0, 0.5], None, Status.SOLVED),
    "independent reference": (ONE, [1.0, 0.0, -1.0, 0.5], [0.0, 0.5, 0.0, 2.0], Status.SOLVED),
    "identical": (ONE, [7.0, 8.0, 9.0, 6.0], None, Status.IDENTICAL),
    "one token": ([-INF, 0.0, -INF, -INF], [1.0, 0.0, -INF, -INF], None, Status.IDENTICAL),
    "no signal": (ONE, [1.0, 0.0, -1.0, 0.5], [3.0, 2.0, 1.0, 2.5], Status.NO_SIGNAL),
    "no coverage": (ONE, [0.0, -INF, 1.0, 2.0], None, Status.NO_COVERAGE),
    "reference lacks a token": (ONE, [0.0, 2.0, 1.0, 2.0], [0.0, 1.0, 1.0, -INF], Status.NO_COVERAGE),
    "target knows more": ([0.0, 1.0, -INF, 2.0], [1.0, 0.5, 2.0, -1.0], None, Status.SOLVED_ON_COMMON_SUPPORT),
    "disjoint": ([0.0, -INF, -INF, 1.0], [-INF, 0.0, 1.0, -INF], None, Status.DISJOINT),
    "two tokens": ([0.0, 1.0, -INF, -INF], [1.0, -1.0, -INF, -INF], None, Status.SOLVED),
}


@CONVENTION
@pytest.mark.parametrize("name", CASES)
def test_status(name: str, weights: str) -> None:
    *policies, expected = CASES[name]
    result = solve_alpha(PolicyBatch.from_logits(*policies), "wald", weights)
    assert result.criterion == "wald"
    assert result.weights == weights
    assert result.status == (expected,)
    assert result.solved.tolist() == [expected.is_solution]
    assert_numbers(result)
    if expected not in {Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT}:
        assert result.alpha.item() == 0.5
        assert result.maxima == ((),)


@CONVENTION
def test_target_that_knows_more_is_conditioned(weights: str) -> None:
    """No update moves a token that π_θ lacks: E_t is taken over the others, while r stays as given."""
    theta, target, *_ = CASES["target knows more"]
    kept = [0, 1, 3]
    lt, lg = np_log_softmax(np.array(theta))[kept], np_log_softmax(np.array(target))[kept]
    conditioned = np_log_softmax(lg)
    at = partial(np_progress, lt, conditioned, conditioned - (lg - lt), weights=weights)
    result = solve_alpha(PolicyBatch.from_logits(theta, target), "wald", weights)
    worst = lambda a: np.minimum(at(a, 0.5), at(a, 2.0))  # noqa: E731
    assert worst(result.alpha.item())[0] >= best(worst) - 1e-9
    assert result.maxima[0][0].value == pytest.approx(worst(result.alpha.item())[0], abs=64 * EPS)


@CONVENTION
@REFERENCE
def test_batch_is_a_loop(weights: str, referenced: bool) -> None:
    if referenced:
        rows = [Rows(f, weights, True, rows=2).given for f in FAMILIES]
        given = [np.concatenate([r[k] for r in rows]) for k in range(3)]
    else:
        given = [np.array([case[k] for case in CASES.values()]) for k in (0, 1)]
    together = solve_alpha(PolicyBatch.from_logits(*given), "wald", weights)
    assert len(together.maxima) == len(together.status) == len(given[0])
    for i in range(len(given[0])):
        alone = solve_alpha(PolicyBatch.from_logits(*(x[i] for x in given)), "wald", weights)
        assert together.status[i] is alone.status[0]
        # Sums may be grouped differently in a batch; a flat top is located to the root of that rounding.
        assert together.alpha[i].item() == pytest.approx(alone.alpha.item(), abs=1e-7)
        assert len(together.maxima[i]) == len(alone.maxima[0])
        for a, b in zip(together.maxima[i], alone.maxima[0], strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-12, abs=1e-14)
