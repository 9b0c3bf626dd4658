"""Intervals over the unreported tail: they contain every admissible tail, and some tail comes up to their ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, differential_evolution, minimize, minimize_scalar
from topk_files import distributions, openai, pair_of, rows_of

from geomix_core import OptionError, PolicyBatch, chernoff_information, solve_alpha
from geomix_core.divergences import kl
from geomix_core.tails import TailBounds, TailStatus, bound_chunks, bound_rows, naive_kl
from geomix_core.topk import TopKRow

NAMES = ("alpha_kl", "kl_theta_target", "kl_target_theta", "chernoff_information")
STEP = 2.0**-17
"""α_KL is bracketed to this."""


def exact(p: np.ndarray, t: np.ndarray) -> tuple[float, float, float, float]:
    """The four quantities of whole distributions (probabilities), by the package's solvers for whole rows."""
    with np.errstate(divide="ignore"):
        batch = PolicyBatch.from_logits(np.log(p)[None], np.log(t)[None])
    return (
        solve_alpha(batch).alpha.item(),
        kl(batch.theta, batch.target).item(),
        kl(batch.target, batch.theta).item(),
        chernoff_information(batch).item(),
    )


def sum_of_signs(alpha: float, p: np.ndarray, t: np.ndarray) -> float:
    both = (p > 0) & (t > 0)
    p, t = p[both], t[both]
    return float((p**alpha * t ** (1 - alpha) * np.log(t / p)).sum())


def root(p: np.ndarray, t: np.ndarray) -> float:
    """α_KL of two vectors of probabilities, by SciPy; an end point where there is no root."""
    if sum_of_signs(0.0, p, t) <= 0:
        return 0.0
    if sum_of_signs(1.0, p, t) >= 0:
        return 1.0
    return float(brentq(lambda a: sum_of_signs(a, p, t), 0, 1, xtol=1e-12))


def contains(bounds: TailBounds, i: int, found: tuple[float, ...], slack: float = 1e-9) -> None:
    for name, value in zip(NAMES, found, strict=True):
        low, high = getattr(bounds, name)[i]
        assert low - slack <= value <= high + slack, (name, low, value, high)


def parts(row: TopKRow) -> tuple[np.ndarray, ...]:
    """Known p and t; p that θ alone reports; t that the target alone does."""
    both, ours, theirs = row.in_theta & row.in_target, row.in_theta & ~row.in_target, row.in_target & ~row.in_theta
    p, t = np.exp(row.log_theta), np.exp(row.log_target)
    return p[both], t[both], p[ours], t[theirs]


def spread(rng: np.random.Generator, mass: float, cap: float, count: int) -> np.ndarray:
    """A random way to lay a mass on tokens, at most `cap` on each: near uniform, or on few of them."""
    assert mass <= cap * count * (1 + 1e-9)
    weights = rng.exponential(size=count) ** rng.choice([0.1, 1, 5, 20])
    out = np.zeros(count)
    left = mass
    # What goes over the cap is laid on the others.
    while left > 1e-15 * mass and (free := out < cap).any():
        room = cap - out
        share = np.where(free, weights + 1e-300, 0)
        out = np.minimum(out + left * share / share.sum(), cap)
        left = mass - out.sum()
        if room[free].sum() <= left:
            return np.where(free, cap, out)
    return out


def tail_of(row: TopKRow, rng: np.random.Generator, unreported: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole distributions that agree with a row."""
    p, t, ours, theirs = parts(row)
    p_free = spread(rng, row.missing_theta, row.cap_theta, len(theirs) + unreported)
    t_free = spread(rng, row.missing_target, row.cap_target, len(ours) + unreported)
    if rng.random() < 0.5:
        # Apart from each other in the tokens that neither reports.
        p_free[len(theirs) :] = np.sort(p_free[len(theirs) :])
        t_free[len(ours) :] = np.sort(t_free[len(ours) :])[::-1]
    return (
        np.concatenate([p, ours, p_free[: len(theirs)], p_free[len(theirs) :]]),
        np.concatenate([t, t_free[: len(ours)], theirs, t_free[len(ours) :]]),
    )


def room_for(row: TopKRow) -> int:
    """So many tokens hold both missing masses."""
    sides = ((row.missing_theta, row.cap_theta), (row.missing_target, row.cap_target))
    return sum(math.ceil(missing / cap) for missing, cap in sides if cap)


MANY = 20_000
"""Tails of more tokens are not drawn: where a cap is far below what rounding leaves missing, they have billions."""


# --- soundness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("vocabulary", [None, 400])
@pytest.mark.parametrize("distance", [0.1, 0.7, 3.0])
def test_the_truth_lies_inside(k: int, vocabulary: int | None, distance: float) -> None:
    theta, target = distributions(8, 400, k, distance)
    bounds = bound_rows(rows_of(theta, target, k, vocabulary))
    for i, (p, t) in enumerate(zip(np.exp(theta), np.exp(target), strict=True)):
        contains(bounds, i, exact(p, t))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(4, 60),
    distance=st.sampled_from([0.05, 0.5, 2.0, 6.0, math.inf]),
    known=st.booleans(),
)
@example(seed=0, vocabulary=13, distance=2.0, known=True)  # steep prices, which rounding must not turn
def test_every_admissible_tail_lies_inside(seed: int, vocabulary: int, distance: float, known: bool) -> None:
    rng = np.random.default_rng(seed)
    theta, target = distributions(1, vocabulary, seed, distance)
    ks = sorted({1, 2, 5, 12, vocabulary // 2, vocabulary})
    rows = [rows_of(theta, target, min(k, vocabulary), vocabulary if known else None)[0] for k in ks]
    bounds = bound_rows(rows)
    for i, row in enumerate(rows):
        unreported = vocabulary - len(row.tokens) if known else 10 * vocabulary + room_for(row)
        if unreported > MANY:
            continue
        for _ in range(3):
            p, t = tail_of(row, rng, unreported)
            assert abs(p.sum() - 1) < 1e-9
            assert abs(t.sum() - 1) < 1e-9
            contains(bounds, i, exact(p, t))


# --- tightness ---------------------------------------------------------------------------------------------------


def extreme_root(row: TopKRow, sign: int) -> float:
    """The largest (sign = 1) or smallest α_KL that a global search over structured tails finds.

    The tokens that neither reports are so many equal ones: some with p alone, some with both, some with t alone.
    """
    p, t, ours, theirs = parts(row)
    n, m = len(ours), len(theirs)

    def tail(z: np.ndarray) -> float:
        # The range goes beyond what is allowed, so that the ends of it are found.
        z = np.clip(z, 0, 1)
        t_ours, p_theirs = z[:n] * row.cap_target, z[n : n + m] * row.cap_theta
        left_p, left_t = row.missing_theta - p_theirs.sum(), row.missing_target - t_ours.sum()
        if left_p < 0 or left_t < 0:
            return 2.0
        # A group of many equal tokens counts as one.
        whole_p = np.concatenate([p, ours, p_theirs, [left_p * z[-2]]])
        whole_t = np.concatenate([t, t_ours, theirs, [left_t * z[-1]]])
        return -sign * root(whole_p, whole_t)

    found = differential_evolution(tail, [(-0.4, 1.4)] * (n + m + 2), seed=1, popsize=12, maxiter=100, tol=1e-9)
    return -sign * float(found.fun)


@pytest.mark.parametrize("seed", range(4))
def test_some_tail_comes_up_to_the_ends_of_alpha(seed: int) -> None:
    theta, target = distributions(1, 300, 100 + seed, 0.6)
    (row,) = rows_of(theta, target, 5)
    ((low, high),) = bound_rows([row]).alpha_kl
    assert 0 <= low < high <= 1
    assert extreme_root(row, 1) == pytest.approx(high, abs=1e-4)
    assert extreme_root(row, -1) == pytest.approx(low, abs=1e-4)


def least_over_tails(row: TopKRow, of: str, alpha: float = 0.5) -> float:
    """min KL(p‖t) or −max Σ p^α t^(1−α) over tails, by SLSQP: convex problems, with the other tokens as one."""
    p, t, ours, theirs = parts(row)
    n, m = len(ours), len(theirs)

    def value(z: np.ndarray) -> float:
        z = np.maximum(z, 1e-200)
        x = np.concatenate([p, ours, z[n : n + m], z[-2:-1]])
        y = np.concatenate([t, z[:n], theirs, z[-1:]])
        return float((x * np.log(x / y)).sum()) if of == "kl" else -float((x**alpha * y ** (1 - alpha)).sum())

    best = math.inf
    for start in (0.1, 0.5, 0.9):
        z0 = np.concatenate(
            [np.full(n, start * row.missing_target / (n + 1)), np.full(m, start * row.missing_theta / (m + 1))]
        )
        rest = [row.missing_theta - z0[n:].sum(), row.missing_target - z0[:n].sum()]
        found = minimize(
            value,
            np.concatenate([z0, rest]),
            method="SLSQP",
            bounds=[(1e-14, row.cap_target)] * n + [(1e-14, row.cap_theta)] * m + [(1e-14, 1)] * 2,
            constraints=[
                {"type": "eq", "fun": lambda z: z[n : n + m].sum() + z[-2] - row.missing_theta},
                {"type": "eq", "fun": lambda z: z[:n].sum() + z[-1] - row.missing_target},
            ],
            options={"maxiter": 1000, "ftol": 1e-14},
        )
        if found.success:
            best = min(best, found.fun)
    return best


@pytest.mark.parametrize("seed", range(5))
def test_lower_ends_of_divergences_are_the_least_over_tails(seed: int) -> None:
    theta, target = distributions(1, 300, 200 + seed, 0.8)
    (row,) = rows_of(theta, target, 6)
    bounds = bound_rows([row])
    assert least_over_tails(row, "kl") == pytest.approx(bounds.kl_theta_target[0, 0], abs=1e-6)
    exchanged = replace(
        row, log_theta=row.log_target, log_target=row.log_theta, in_theta=row.in_target, in_target=row.in_theta,
        missing_theta=row.missing_target, missing_target=row.missing_theta, cap_theta=row.cap_target,
        cap_target=row.cap_theta,
    )  # fmt: skip
    assert least_over_tails(exchanged, "kl") == pytest.approx(bounds.kl_target_theta[0, 0], abs=1e-6)
    # min over tails of max over α = max over α of min over tails.
    chernoff = -minimize_scalar(
        lambda a: math.log(-least_over_tails(row, "affinity", a)), bounds=(0.01, 0.99), method="bounded"
    ).fun
    assert chernoff == pytest.approx(bounds.chernoff_information[0, 0], abs=1e-6)


def test_upper_end_of_chernoff_information_is_that_of_tails_apart() -> None:
    theta, target = distributions(1, 300, 7)
    (row,) = rows_of(theta, target, 10)
    p, t, ours, theirs = parts(row)
    n = 1000
    whole_p = np.concatenate([p, ours, 0 * theirs, np.full(n, row.missing_theta / n), np.zeros(n)])
    whole_t = np.concatenate([t, 0 * ours, theirs, np.zeros(n), np.full(n, row.missing_target / n)])
    assert exact(whole_p, whole_t)[3] == pytest.approx(bound_rows([row]).chernoff_information[0, 1], abs=1e-9)


def test_exchanging_the_sides_turns_alpha_into_one_minus_alpha() -> None:
    theta, target = distributions(6, 200, 3)
    one, other = bound_rows(rows_of(theta, target, 8)), bound_rows(rows_of(target, theta, 8))
    np.testing.assert_allclose(other.alpha_kl, 1 - one.alpha_kl[:, ::-1], atol=2 * STEP)
    np.testing.assert_allclose(other.kl_theta_target, one.kl_target_theta, atol=1e-9)
    np.testing.assert_allclose(other.chernoff_information, one.chernoff_information, atol=1e-8)


def test_more_logprobs_never_widen_an_interval() -> None:
    theta, target = distributions(6, 500, 11)
    wide = bound_rows(rows_of(theta, target, 5))
    for k in (10, 40, 160):
        narrow = bound_rows(rows_of(theta, target, k))
        assert (narrow.alpha_kl[:, 0] >= wide.alpha_kl[:, 0] - 2 * STEP).all()
        assert (narrow.alpha_kl[:, 1] <= wide.alpha_kl[:, 1] + 2 * STEP).all()
        assert (narrow.kl_theta_target[:, 0] >= wide.kl_theta_target[:, 0] - 1e-9).all()
        wide = narrow


def test_the_whole_vocabulary_determines_everything() -> None:
    theta, target = distributions(5, 30, 13)
    bounds = bound_rows(rows_of(theta, target, 30, 30))
    assert set(bounds.status) == {TailStatus.DETERMINED}
    for i, (p, t) in enumerate(zip(np.exp(theta), np.exp(target), strict=True)):
        found = exact(p, t)
        for name, value in zip(NAMES, found, strict=True):
            np.testing.assert_allclose(getattr(bounds, name)[i], value, atol=2 * STEP if name == "alpha_kl" else 1e-8)


# --- what a row can be -------------------------------------------------------------------------------------------


def by_hand(theta: dict[str, float], target: dict[str, float], vocabulary: int | None = None) -> TopKRow:
    """A row from reported probabilities."""
    responses = []
    for side in (theta, target):
        entries = [{"token": name, "logprob": math.log(p), "bytes": None} for name, p in side.items()]
        # Nothing was sampled that is listed: every token here is one of the top ones.
        sampled = {"token": "elsewhere", "logprob": -9999.0, "bytes": None}
        responses.append({"content": [{**sampled, "top_logprobs": entries}]})
    (row,) = pair_of(*responses, vocabulary).rows
    assert row.problem == ""
    return row


def test_a_naive_kl_can_be_negative_and_the_interval_is_not() -> None:
    row = by_hand({"a": 0.5, "b": 0.2, "c": 0.1}, {"a": 0.6, "b": 0.25, "c": 0.12})
    assert naive_kl(row) < -0.1
    bounds = bound_rows([row])
    assert bounds.kl_theta_target[0, 0] > 0
    assert bounds.kl_theta_target[0, 1] == math.inf
    assert 0 < bounds.chernoff_information[0, 0] < bounds.chernoff_information[0, 1]


def test_lists_without_a_common_token_determine_nothing() -> None:
    bounds = bound_rows([by_hand({"a": 0.5, "b": 0.3}, {"c": 0.6, "d": 0.2})])
    assert bounds.status == (TailStatus.NOT_DETERMINED,)
    assert bounds.alpha_kl.tolist() == [[0, 1]]
    assert bounds.chernoff_information[0, 1] == math.inf


def test_equal_reports_without_a_tail_are_identical() -> None:
    bounds = bound_rows([by_hand({"a": 0.5, "b": 0.5}, {"b": 0.5, "a": 0.5}, 2)])
    assert bounds.status == (TailStatus.IDENTICAL,)
    np.testing.assert_allclose(bounds.kl_theta_target, 0, atol=1e-12)


def test_equal_reports_with_a_tail_are_not() -> None:
    bounds = bound_rows([by_hand({"a": 0.5, "b": 0.4}, {"b": 0.4, "a": 0.5})])
    assert bounds.status == (TailStatus.NOT_DETERMINED,)
    assert bounds.alpha_kl.tolist() == [[0, 1]]


def test_kl_is_exact_where_one_side_can_have_no_more() -> None:
    """θ gives −∞ to a token that is listed, so that those it does not list have nothing."""
    listed = {"0": math.log(0.5), "1": math.log(0.5), "2": -9999.0}
    row = pair_of([listed], [{"0": math.log(0.6), "1": math.log(0.25), "2": math.log(0.05)}]).rows[0]
    # Without ranks the least likely of the list may lie beyond the top: with them it does not.
    ranked = {key: {"logprob": x, "rank": int(key) + 1} for key, x in listed.items()}
    other = {str(i): {"logprob": math.log(x), "rank": i + 1} for i, x in enumerate((0.6, 0.25, 0.05))}
    assert row.missing_theta > 0
    bounds = bound_rows(pair_of([ranked], [other]).rows)
    expected = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.25)
    np.testing.assert_allclose(bounds.kl_theta_target, [[expected, expected]], atol=1e-9)
    assert bounds.kl_target_theta.tolist() == [[math.inf, math.inf]]


def test_what_rounding_hides_counts_as_missing() -> None:
    (row,) = pair_of([{"0": 0.0, "1": -30.0}], [{"0": -0.5, "1": -2.0}]).rows
    assert 0 < row.missing_theta <= 1e-7
    bounds = bound_rows([row])
    assert bounds.kl_theta_target[0, 1] == math.inf
    assert math.isfinite(bounds.kl_target_theta[0, 0])


def test_invalid_rows_stay_among_the_others() -> None:
    theta, target = distributions(3, 50, 1)
    rows = list(rows_of(theta, target, 5))
    rows[1] = TopKRow(1, 0, 2, problem="why not")
    bounds = bound_rows(rows)
    assert [word == TailStatus.INVALID for word in bounds.status] == [False, True, False]
    assert np.isnan(bounds.alpha_kl[1]).all()
    alone = bound_rows(rows[2:])
    np.testing.assert_array_equal(bounds.alpha_kl[2:], alone.alpha_kl)


def test_chunks_are_what_the_rows_are_together() -> None:
    theta, target = distributions(7, 80, 2)
    rows = rows_of(theta, target, 6)
    together = bound_rows(rows)
    apart = list(bound_chunks(rows, chunk=2))
    assert [len(part.status) for part in apart] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([x.alpha_kl for x in apart]), together.alpha_kl)
    assert bound_rows([]).status == ()


@pytest.mark.parametrize("width", [0.0, 1.0, -0.1, math.nan])
def test_a_width_must_be_one(width: float) -> None:
    with pytest.raises(OptionError, match="the width is"):
        bound_rows([], width=width)


# --- how much would be enough ------------------------------------------------------------------------------------


def test_so_little_missing_would_be_enough() -> None:
    theta, target = distributions(6, 3000, 5)
    rows = rows_of(theta, target, 15)
    bounds = bound_rows(rows)
    assert np.isfinite(bounds.missing_enough).all()
    for row, mass in zip(rows, bounds.missing_enough, strict=True):
        largest = max(row.missing_theta, row.missing_target)
        assert 0 < mass < largest
        both = row.in_theta & row.in_target
        share = mass / largest
        agreeing = replace(
            row, tokens=("x",) * both.sum(), log_theta=row.log_theta[both], log_target=row.log_target[both],
            in_theta=both[both], in_target=both[both], missing_theta=share * row.missing_theta,
            missing_target=share * row.missing_target, cap_theta=share * row.missing_theta,
            cap_target=share * row.missing_target,
        )  # fmt: skip
        ((low, high),) = bound_rows([agreeing]).alpha_kl
        assert high - low <= bounds.width
        assert high - low > bounds.width / 2, "and not much less"


def test_k_enough_extrapolates_a_power_law() -> None:
    ranks = np.arange(1, 200_001)
    rng = np.random.default_rng(0)
    logits = [-1.8 * np.log(ranks) + 0.3 * np.pad(rng.normal(size=20), (0, ranks.size - 20)) for _ in range(2)]
    theta, target = (x - np.logaddexp.reduce(x) for x in logits)
    (row,) = rows_of(theta[None], target[None], 100)
    bounds = bound_rows([row])
    k = bounds.k_enough[0]
    assert k is not None
    left = 1 - np.exp(np.sort(theta)[::-1][:k]).sum()
    assert bounds.missing_enough[0] / 3 < left < 3 * bounds.missing_enough[0]


def test_no_k_where_the_decay_does_not_say() -> None:
    theta, target = (np.log(np.random.default_rng(i).dirichlet(np.full(500, 50.0)))[None] for i in range(2))
    bounds = bound_rows(rows_of(theta, target, 20))
    assert bounds.k_enough == (None,)


def test_today_is_enough_where_it_is_determined() -> None:
    theta, target = distributions(1, 40, 9)
    (row,) = rows_of(theta, target, 40, 40)
    bounds = bound_rows([row])
    assert bounds.k_enough == (40,)
    assert bounds.missing_enough[0] == max(row.missing_theta, row.missing_target)


def test_openai_reports_give_nearly_what_vllm_reports_give() -> None:
    """The sampled token may not lower the cap there, since nothing says how it ranks: never narrower, and close."""
    theta, target = distributions(4, 200, 21)
    tight = bound_rows(rows_of(theta, target, 12))
    loose = bound_rows(pair_of(openai(theta, 12), openai(target, 12, [int(x.argmax()) for x in theta])).rows)
    assert (loose.alpha_kl[:, 0] <= tight.alpha_kl[:, 0] + STEP).all()
    np.testing.assert_allclose(loose.alpha_kl, tight.alpha_kl, atol=0.05)
