"""The sampling lab against every outcome of the draw, dense computation, and the central limit theorem.

Tests that draw have fixed seeds and a bound of `Z` standard errors, at which a right answer fails once in two million.
"""

from __future__ import annotations

from itertools import product

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import WEIGHTS, Exact, draw, draw_reference, mp_softmax

from geomix_core import PolicyBatch
from geomix_core.divergences import ess_fraction, kl
from geomix_core.errors import CoverageError, OptionError, ShapeError
from geomix_core.lab import ESTIMATORS, PROPOSALS, Plan, Problem, Proposal, Trial, efficiency, play, propose, run
from geomix_core.lab.bootstrap import Interval, mean_interval
from geomix_core.lab.draws import Draws, draw_in_turn, uniforms
from geomix_core.lab.draws import draw as draw_tokens
from geomix_core.lab.efficiency import crossing
from geomix_core.lab.experiment import best_step, draw_estimates, sorted_uniforms
from geomix_core.lab.sequence import run_in_sequence
from geomix_core.lab.updates import Estimates, OwnDrift, SharedDrift, drift_of, estimate, updated
from geomix_core.progress import exact_progress
from geomix_core.scenarios import synthetic
from geomix_core.tilts import Weights

Z = 5.1
ROUNDING = 1e-11
CASES = [(e, w) for e in ESTIMATORS for w in WEIGHTS if e == "seed_tilt" or w == "importance"]


def problem_of(vocab: int, weights: Weights = "importance", *, referenced: bool = False, seed: int = 3) -> Problem:
    theta, target = draw("gaussian", 1, vocab, seed)
    reference = draw_reference(1, vocab, seed) if referenced else None
    return Problem(PolicyBatch.from_logits(theta, target, reference), weights)


def at_alpha(problem: Problem, alpha: float) -> Proposal:
    return propose(problem, ("alpha",), alpha=alpha).found[0]


def outcomes(tokens: list[tuple[int, ...]]) -> Draws:
    """Given outcomes as repetitions, counted here."""
    seen = [sorted(set(outcome)) for outcome in tokens]
    return Draws(
        len(tokens[0]),
        torch.tensor([y for s in seen for y in s]),
        torch.tensor([float(o.count(y)) for o, s in zip(tokens, seen, strict=True) for y in s], dtype=torch.float64),
        torch.tensor([len(s) for s in seen]),
    )


def estimates(problem: Problem, proposal: Proposal, draws: Draws, estimator: str) -> Estimates:
    drift = drift_of(estimator, problem.log_theta)
    target, reward = problem.log_target.exp(), problem.batch.reward[0]
    return estimate(problem.log_theta, target, reward, proposal.log_q, draws, estimator, problem.weights, drift)


# --- against every outcome ---------------------------------------------------------------------------------------


def by_definition(
    exact: Exact, q: list[mp.mpf], outcome: tuple[int, ...], estimator: str, weights: str
) -> tuple[list[mp.mpf], list[mp.mpf]]:
    """(ĥ, its mean over the draw) token by token, as the mathematics (section 7) defines them."""
    theta, tokens, n = exact.theta, range(len(q)), len(outcome)
    reward = [
        mp.log(t / (p if exact.reference is None else r))
        for t, p, r in zip(exact.target, theta, exact.reference or theta, strict=True)
    ]
    w = [p / x if weights == "importance" else x / p for p, x in zip(theta, q, strict=True)]
    if estimator == "softmax_gradient":
        mean = mp.fsum(p * r for p, r in zip(theta, reward, strict=True))
        advantage = [r - mean for r in reward]
        average = mp.fsum(w[y] * advantage[y] for y in outcome) / n
        h = [outcome.count(y) * w[y] * advantage[y] / n - theta[y] * average for y in tokens]
        return h, [p * a for p, a in zip(theta, advantage, strict=True)]
    value = [w[y] * reward[y] if estimator == "seed_tilt" else reward[y] for y in tokens]
    return [outcome.count(y) / (n * q[y]) * value[y] for y in tokens], value


def gain(exact: Exact, h: list[mp.mpf], eta: float) -> mp.mpf:
    mean = mp.fsum(t * x for t, x in zip(exact.target, h, strict=True))
    return eta * mean - mp.log(mp.fsum(p * mp.exp(eta * x) for p, x in zip(exact.theta, h, strict=True)))


@pytest.mark.parametrize(("estimator", "weights"), CASES)
@pytest.mark.parametrize("referenced", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_every_outcome_of_the_draw(estimator: str, weights: Weights, referenced: bool, samples: int) -> None:
    problem = problem_of(3, weights, referenced=referenced)
    theta, target = (x[0] for x in draw("gaussian", 1, 3, 3))
    exact = Exact(theta, target, draw_reference(1, 3, 3)[0] if referenced else None, weights)
    q = mp_softmax(np.array([0.4, -0.7, 0.1]))
    proposal = Proposal.of("q", problem, torch.tensor([float(mp.log(x)) for x in q], dtype=torch.float64))
    every = list(product(range(3), repeat=samples))
    chance = [mp.fprod(q[y] for y in outcome) for outcome in every]
    found = estimates(problem, proposal, outcomes(every), estimator)

    h = [by_definition(exact, q, outcome, estimator, weights) for outcome in every]
    tilt = found.at(torch.arange(3), problem.log_theta)
    assert tilt.numpy() == pytest.approx(
        np.array([[float(x) for x in estimate] for estimate, _ in h]), rel=1e-11, abs=1e-13
    )
    # Unbiased: averaged over every outcome, ĥ is its mean, whatever q.
    for y in range(3):
        average = mp.fsum(c * estimate[y] for c, (estimate, _) in zip(chance, h, strict=True))
        assert float((torch.tensor([float(c) for c in chance], dtype=torch.float64) @ tilt)[y]) == pytest.approx(
            float(h[0][1][y]), rel=ROUNDING
        )
        assert float(average) == pytest.approx(float(h[0][1][y]), rel=ROUNDING)
    for eta in (0.01, 0.7, 30.0):
        expected = [gain(exact, estimate, eta) for estimate, _ in h]
        progress = found.progress(eta)
        assert progress.tolist() == pytest.approx([float(x) for x in expected], rel=1e-10, abs=1e-14)
        mean = mp.fsum(c * x for c, x in zip(chance, expected, strict=True))
        weight = torch.tensor([float(c) for c in chance], dtype=torch.float64)
        assert float(weight @ progress) == pytest.approx(float(mean), rel=1e-10, abs=1e-14)


@pytest.mark.parametrize(("estimator", "weights"), CASES)
def test_drawn_repetitions_average_to_the_enumeration(estimator: str, weights: Weights) -> None:
    problem, samples, repetitions, eta = problem_of(3, weights), 4, 20_000, 0.5
    proposal = at_alpha(problem, 0.3)
    every = list(product(range(3), repeat=samples))
    progress = estimates(problem, proposal, outcomes(every), estimator).progress(eta)
    chance = proposal.log_q[torch.tensor(every)].sum(-1).exp()
    mean = float(chance @ progress)
    deviation = float(chance @ (progress - mean).square()) ** 0.5
    numbers = sorted_uniforms(5, "report", samples, repetitions)
    drawn = draw_estimates(problem, proposal, numbers, estimator, drift_of(estimator, problem.log_theta)).progress(eta)
    assert abs(float(drawn.mean()) - mean) < Z * deviation / repetitions**0.5


# --- many tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "weights"), CASES)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_unbiased_on_a_large_vocabulary(estimator: str, weights: Weights, alpha: float) -> None:
    problem = problem_of(400, weights)
    proposal = at_alpha(problem, alpha)
    numbers = sorted_uniforms(1, "report", 64, 4000)
    found = draw_estimates(problem, proposal, numbers, estimator, drift_of(estimator, problem.log_theta))
    theta, target, q = (x.exp().numpy() for x in (problem.log_theta, problem.log_target, proposal.log_q))
    reward = problem.batch.reward[0].numpy()
    mean = {
        "seed_tilt": (theta / q if weights == "importance" else q / theta) * reward,
        "natural_gradient": reward,
        "softmax_gradient": theta * (reward - theta @ reward),
    }[estimator]
    error = float(found.rise.std()) / len(found.rise) ** 0.5
    assert abs(float(found.rise.mean()) - target @ mean) < Z * error


@pytest.mark.parametrize(("estimator", "weights"), CASES)
def test_many_samples_give_the_exact_update(estimator: str, weights: Weights) -> None:
    problem, samples, eta, alpha = problem_of(4, weights), 4_000_000, 0.8, 0.6
    proposal = at_alpha(problem, alpha)
    theta, target, q = (x.exp().numpy() for x in (problem.log_theta, problem.log_target, proposal.log_q))
    reward = problem.batch.reward[0].numpy()
    if estimator == "seed_tilt":
        w = theta / q if weights == "importance" else q / theta
        exact, scale = exact_progress(problem.batch, alpha, eta, weights).item(), w * reward / q
        tilt = w * reward
    elif estimator == "natural_gradient":
        exact, scale, tilt = exact_progress(problem.batch, 1.0, eta).item(), reward / q, reward
    else:
        advantage = reward - theta @ reward
        scale = theta / q * advantage
        tilt = theta * advantage
        exact = eta * target @ tilt - np.log(theta @ np.exp(eta * tilt))
    numbers = sorted_uniforms(2, "report", samples, 1)
    found = draw_estimates(problem, proposal, numbers, estimator, drift_of(estimator, problem.log_theta))
    # No count strays by more than Z standard errors; progress moves by its gradient η(π_t − π_θ'), to second order.
    stray = Z * np.abs(scale) * np.sqrt(q * (1 - q) / samples)
    if estimator == "softmax_gradient":
        stray = stray + theta * Z * np.sqrt((q * scale**2).sum() / samples)
    after = theta * np.exp(eta * tilt)
    slope = np.abs(target - after / after.sum())
    assert abs(found.progress(eta).item() - exact) < eta * slope @ stray + eta**2 * stray.max() ** 2
    assert eta * slope @ stray < 0.02 * exact


def dense_progress(problem: Problem, tilt: np.ndarray, eta: float) -> np.ndarray:
    """η E_t[ĥ] − log E_θ[exp(ηĥ)] over all tokens."""
    log_theta, target = problem.log_theta.numpy(), problem.log_target.exp().numpy()
    return eta * tilt @ target - np.logaddexp.reduce(log_theta + eta * tilt, -1)


@pytest.mark.parametrize(("estimator", "weights"), CASES)
@pytest.mark.parametrize("vocabulary", [30, 20_000])
def test_drawn_tokens_alone_give_what_all_tokens_give(estimator: str, weights: Weights, vocabulary: int) -> None:
    problem = Problem(synthetic("zipf", vocabulary=vocabulary), weights)
    proposal = at_alpha(problem, 0.5)
    numbers = sorted_uniforms(0, "report", 50, 7)
    found = draw_estimates(problem, proposal, numbers, estimator, drift_of(estimator, problem.log_theta))
    tokens = torch.arange(vocabulary)
    tilt = found.at(tokens, problem.log_theta).numpy()
    step = found.quadratic_step()
    assert step > 0
    for eta in (0.1 * step, step, 20 * step, 1e4 * step):
        expected = dense_progress(problem, tilt, eta)
        # Logarithms of sums of V terms, each rounded; the drift is on atoms, which agree to 1e-9 here.
        assert found.progress(eta).numpy() == pytest.approx(expected, rel=1e-8, abs=1e-12)
        moved = updated(problem.log_theta, found, eta)
        gained = problem.ceiling - kl(problem.log_target, moved).numpy()
        assert found.progress(eta).numpy() == pytest.approx(gained, rel=1e-7, abs=1e-9 + 1e-8 * abs(gained).max())


def test_the_scale_to_start_from_maximises_the_quadratic() -> None:
    problem = problem_of(30)
    for estimator in ESTIMATORS:
        found = draw_estimates(
            problem, at_alpha(problem, 0.5), sorted_uniforms(0, "tune", 40, 50), estimator,
            drift_of(estimator, problem.log_theta),
        )  # fmt: skip
        tilt = found.at(torch.arange(30), problem.log_theta).numpy()
        theta, target = problem.log_theta.exp().numpy(), problem.log_target.exp().numpy()
        slope = (tilt @ (target - theta)).mean()
        noise = (tilt**2 @ theta - (tilt @ theta) ** 2).mean()
        assert found.quadratic_step() == pytest.approx(slope / noise, rel=1e-9)


def test_atoms_of_the_drift_are_as_good_as_tokens() -> None:
    log_theta = synthetic("zipf", vocabulary=50_257).theta[0]
    s = torch.tensor([-300.0, -2.0, -1e-6, 0.0, 1e-6, 5.0, 1e3, 1e7], dtype=torch.float64)
    shared, own = SharedDrift(log_theta), OwnDrift(log_theta.expand(len(s), -1))
    assert shared.expm1(s).tolist() == pytest.approx(own.expm1(s).tolist(), rel=1e-9)
    assert float(shared.first) == pytest.approx(float(own.first[0]), rel=1e-9)
    assert float(shared.second) == pytest.approx(float(own.second[0]), rel=1e-9)


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from(CASES),
    st.floats(-3, 12),
    st.sampled_from(["dirichlet", "peaked", "near", "zipf"]),
)
@example(48009, ("softmax_gradient", "importance"), 10.0, "peaked")  # a push beyond exp that the drift takes back
def test_no_update_gains_more_than_the_ceiling(
    seed: int, case: tuple[str, Weights], log_step: float, family: str
) -> None:
    estimator, weights = case
    theta, target = draw(family, 1, 12, seed)
    problem = Problem(PolicyBatch.from_logits(theta, target), weights)
    proposal = propose(problem, ("uniform",)).found[0]
    numbers = sorted_uniforms(seed, "report", 20, 5)
    found = draw_estimates(problem, proposal, numbers, estimator, drift_of(estimator, problem.log_theta))
    progress = found.progress(float(np.exp(log_step)))
    assert not progress.isnan().any()
    assert (progress <= problem.ceiling * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("eta", [-800.0, 3.0, 1e4])
def test_pushes_beyond_the_range_of_exp(estimator: str, eta: float) -> None:
    """Against fifty digits: a token that q hardly draws pushes by more than exp can bear."""
    theta, target = np.log([0.5, 0.3, 0.2]), np.log([0.1, 0.2, 0.7])
    problem = Problem(PolicyBatch.from_logits(theta, target))
    q = mp_softmax(np.array([0.0, -9.0, -12.0]))
    proposal = Proposal.of("q", problem, torch.tensor([float(mp.log(x)) for x in q], dtype=torch.float64))
    every = list(product(range(3), repeat=2))
    found = estimates(problem, proposal, outcomes(every), estimator).progress(eta)
    exact = Exact(theta, target)
    expected = [gain(exact, by_definition(exact, q, outcome, estimator, "importance")[0], eta) for outcome in every]
    assert found.tolist() == pytest.approx([float(x) for x in expected], rel=1e-11)


# --- drawing -----------------------------------------------------------------------------------------------------


def test_draws_have_the_distribution() -> None:
    problem, repetitions = problem_of(6), 40_000
    proposal = at_alpha(problem, 0.2)
    found = draw_tokens(proposal.log_q, problem.order, sorted_uniforms(0, "report", 3, repetitions))
    q = proposal.log_q.exp().numpy()
    counts = torch.bincount(found.token, weights=found.count, minlength=6).numpy()
    total = 3 * repetitions
    assert (np.abs(counts - total * q) < Z * np.sqrt(total * q * (1 - q))).all()
    assert found.sum(found.count).tolist() == [3.0] * repetitions


def test_a_token_that_q_excludes_is_never_drawn() -> None:
    problem = Problem(PolicyBatch.from_probs([0.2, 0.3, 0.1, 0.4], [0.4, 0.1, 0.3, 0.2]))
    log_q = torch.tensor([0.0, 0.5, 0.0, 0.5], dtype=torch.float64).log()
    numbers = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1 - 2**-53]], dtype=torch.float64)
    assert set(draw_tokens(log_q, problem.order, numbers).token.tolist()) == {1, 3}
    proposal = Proposal.of("q", problem, log_q)
    assert proposal.uncovered == pytest.approx(0.3)
    assert proposal.largest_weight == pytest.approx(0.8)


def test_counted_tokens_are_those_drawn_in_turn() -> None:
    problem = problem_of(50)
    log_q = at_alpha(problem, 0.5).log_q
    numbers = uniforms(7, "report", 30, 3)
    found = draw_tokens(log_q, problem.order, numbers.sort(-1).values)
    for r, row in enumerate(numbers):
        tokens, counts = np.unique(draw_in_turn(log_q, problem.order, row).numpy(), return_counts=True)
        mine = found.repetition == r
        assert dict(zip(found.token[mine].tolist(), found.count[mine].tolist(), strict=True)) == dict(
            zip(tokens.tolist(), counts.tolist(), strict=True)
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_devices_without_float64_draw_the_same_tokens(estimator: str) -> None:
    """Single precision stands in for them: tokens are drawn in double precision all the same."""
    wide = synthetic("gaussian", vocabulary=50)
    narrow = PolicyBatch(wide.theta.float(), wide.target.float())
    numbers = torch.tensor([[0.1, 0.5, 1 - 2**-53]], dtype=torch.float64)
    order = Problem(wide).order
    assert (
        draw_tokens(narrow.theta[0], order, numbers).token.tolist()
        == draw_tokens(wide.theta[0], order, numbers).token.tolist()
    )
    plan = Plan(estimator, 20)
    ours, theirs = (
        next(run(problem, propose(problem, ("off_policy",)).found, 16, plan))
        for problem in map(Problem, (narrow, wide))
    )
    assert ours.progress.dtype == np.float32
    assert ours.mean == pytest.approx(theirs.mean, rel=0.05)


def test_each_repetition_draws_from_its_own_distribution() -> None:
    problem = problem_of(20)
    rows = torch.stack([at_alpha(problem, a).log_q for a in (0.0, 0.5, 1.0)])
    numbers = sorted_uniforms(0, "report", 10, 3)
    together = draw_tokens(rows, problem.order, numbers)
    for r in range(3):
        alone = draw_tokens(rows[r], problem.order, numbers[r : r + 1])
        assert together.token[together.repetition == r].tolist() == alone.token.tolist()


def test_streams_are_independent_and_repeatable() -> None:
    numbers = uniforms(3, "report", 8, 5)
    assert torch.equal(numbers, uniforms(3, "report", 8, 5))
    assert torch.equal(numbers[:2], uniforms(3, "report", 8, 2))
    for other in (uniforms(4, "report", 8, 5), uniforms(3, "tune", 8, 5), uniforms(3, "report", 9, 5)[:, :8]):
        assert not torch.isin(numbers, other).any()


# --- experiments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_repetition_at_a_time_gives_the_same(estimator: str) -> None:
    problem = Problem(synthetic("gaussian", vocabulary=200))
    proposal, drift = at_alpha(problem, 0.4), drift_of(estimator, problem.log_theta)
    numbers = sorted_uniforms(0, "report", 32, 6)
    together = draw_estimates(problem, proposal, numbers, estimator, drift).progress(0.3)
    for r in range(6):
        alone = draw_estimates(problem, proposal, numbers[r : r + 1], estimator, drift).progress(0.3)
        assert alone.item() == pytest.approx(together[r].item(), rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_result_depends_on_nothing_but_its_plan(estimator: str) -> None:
    problem = problem_of(60)
    proposals, plan = propose(problem, ("on_policy", "kl_symmetry", "off_policy")).found, Plan(estimator, 20, 4)
    together = list(run(problem, proposals, 16, plan))
    for proposal, trial in zip(proposals, together, strict=True):
        (alone,) = run(problem, [proposal], 16, plan)
        assert alone.step == trial.step
        assert np.array_equal(alone.progress, trial.progress)
    (other,) = run(problem, proposals[:1], 16, Plan(estimator, 20, 5))
    assert not np.array_equal(other.progress, together[0].progress)


def test_equal_distributions_have_equal_results() -> None:
    problem = Problem(synthetic("gaussian", vocabulary=50))
    found = propose(problem, ("on_policy", "snr")).found
    assert found[1].alpha == 1.0
    on_policy, snr = run(problem, found, 8, Plan(repetitions=10))
    assert np.array_equal(on_policy.progress, snr.progress)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("samples", [2, 40])
def test_the_step_is_the_best_of_all(estimator: str, samples: int) -> None:
    problem = Problem(synthetic("gaussian", vocabulary=30))
    found = draw_estimates(
        problem, at_alpha(problem, 0.5), sorted_uniforms(0, "tune", samples, 300), estimator,
        drift_of(estimator, problem.log_theta),
    )  # fmt: skip
    step = best_step(found)
    best = float(found.progress(step).mean())
    grid = [float(found.progress(float(eta)).mean()) for eta in np.geomspace(1e-6, 1e4, 2000)]
    assert best > 0
    assert best >= max(grid) * (1 - 2e-3)


def test_no_step_where_every_step_does_harm() -> None:
    # The reference is the target of the target: the reward points away.
    theta, target = np.log([0.6, 0.3, 0.1]), np.log([0.1, 0.3, 0.6])
    reference = np.log([0.01, 0.19, 0.8])
    problem = Problem(PolicyBatch.from_logits(theta, target, reference))
    (trial,) = run(problem, propose(problem, ("on_policy",)).found, 64, Plan(repetitions=50))
    assert trial.step == 0
    assert (trial.progress == 0).all()
    assert trial.away == 0


def test_harm_is_counted() -> None:
    trial = Trial("q", 4, "seed_tilt", 1.0, np.array([0.5, 0.0, -0.5, -1.5, -1e6]), 1.0)
    assert (trial.away, trial.diverged) == (0.6, 2)
    assert trial.mean == pytest.approx(-200_000.3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_repetition_played_ends_where_its_trial_does(estimator: str) -> None:
    problem, plan = Problem(synthetic("gaussian", vocabulary=40)), Plan(estimator, 5, 2)
    proposal = at_alpha(problem, 0.5)
    (trial,) = run(problem, [proposal], 24, plan)
    played = play(problem, proposal, 24, plan, trial.step, 3)
    assert len(played.progress) == 25
    assert played.progress[0] == 0
    assert played.progress[-1] == pytest.approx(trial.progress[3], rel=1e-12)
    assert played.policies[0] == pytest.approx(problem.log_theta[torch.as_tensor(played.watched)].exp().numpy())
    # The policy after all samples, from its definition.
    draws = outcomes([tuple(played.token.tolist())])
    after = updated(problem.log_theta, estimates(problem, proposal, draws, estimator), trial.step)[0].exp().numpy()
    assert played.policies[-1] == pytest.approx(after[played.watched], rel=1e-11)
    with pytest.raises(OptionError, match="expected 0 to 4"):
        play(problem, proposal, 24, plan, trial.step, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"estimator": "magic"}, "expected one of"),
        ({"repetitions": 1}, "at least 2"),
        ({"seed": -1}, "whole number"),
    ],
)
def test_plans_that_make_no_sense(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Plan(**wrong)  # type: ignore[arg-type]


def test_problems_that_make_no_sense() -> None:
    with pytest.raises(ShapeError, match="one row"):
        Problem(PolicyBatch.from_logits(*draw("gaussian", 2, 3, 0)))
    with pytest.raises(CoverageError):
        Problem(PolicyBatch.from_probs([0.5, 0.5], [1.0, 0.0]))
    problem = problem_of(3)
    with pytest.raises(OptionError, match="at least 1"):
        next(run(problem, propose(problem, ("uniform",)).found, 0, Plan()))


def test_tokens_beyond_the_support_are_drawn_in_vain() -> None:
    """π_t has a token that π_θ lacks: progress is that towards π_t on the support of π_θ."""
    problem = Problem(PolicyBatch.from_probs([0.5, 0.5, 0.0], [0.1, 0.4, 0.5]))
    reduced = Problem(PolicyBatch.from_probs([0.5, 0.5], [0.2, 0.8]))
    assert problem.ceiling == pytest.approx(reduced.ceiling)
    for estimator in ESTIMATORS:
        (trial,) = run(problem, propose(problem, ("uniform",)).found, 64, Plan(estimator, 20))
        assert np.isfinite(trial.progress).all()
        assert trial.mean > 0


# --- distributions -----------------------------------------------------------------------------------------------


def test_every_distribution_of_a_row() -> None:
    problem = Problem(synthetic("gaussian", vocabulary=100))
    found = propose(problem, tuple(PROPOSALS), alpha=0.25, defence=0.2)
    assert [p.name for p in found.found] == list(PROPOSALS)
    assert not found.missing
    by_name = {p.name: p for p in found.found}
    theta, target = problem.batch.theta[0], problem.batch.target[0]
    mixture = torch.log_softmax(0.25 * theta + 0.75 * target, -1)
    middle = by_name["kl_symmetry"].log_q
    for name, log_q in {
        "on_policy": theta,
        "off_policy": target,
        "uniform": torch.full_like(theta, 0.01).log(),
        "alpha": mixture,
        "defensive": (0.8 * middle.exp() + 0.2 * theta.exp()).log(),
    }.items():
        assert by_name[name].log_q.numpy() == pytest.approx(log_q.numpy(), abs=1e-12), name
    assert float(kl(middle, theta)) == pytest.approx(float(kl(middle, target)), abs=1e-10)
    assert by_name["defensive"].largest_weight <= 1 / 0.2
    for p in found.found:
        assert p.uncovered == 0
        assert float(p.log_q.exp().sum()) == pytest.approx(1)
        if p.alpha is not None:
            assert p.ess == pytest.approx(float(ess_fraction(problem.batch, p.alpha)), rel=1e-9)


def test_distributions_that_do_not_exist_say_why() -> None:
    names = ("kl_symmetry", "snr", "optimum", "logarithmic_mean", "uniform")
    two = Problem(PolicyBatch.from_probs([0.5, 0.5, 0.0], [0.1, 0.4, 0.5]))
    assert propose(two, names).missing["optimum"] == "supports"
    referenced = problem_of(5, referenced=True)
    assert dict(propose(referenced, names).missing) == {"optimum": "reference", "logarithmic_mean": "reference"}
    silent = Problem(PolicyBatch.from_logits([0.0, 1.0, 2.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]))
    assert propose(silent, ("snr",)).missing == {"snr": "no_signal"}
    with pytest.raises(OptionError, match="expected one of"):
        propose(two, ("best",))
    with pytest.raises(OptionError, match="alpha"):
        propose(two, ("alpha",), alpha=1.5)


# --- intervals and efficiency ------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 4000)
    found = mean_interval(values)
    half = 1.96 * values.std() / len(values) ** 0.5
    # 1000 resamples place a 2.5 % quantile within about 10 % of its distance from the middle.
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert mean_interval(values) == found


def trials(name: str, shares: dict[int, float], noise: float = 0.0) -> list[Trial]:
    """Trials with given mean shares of a ceiling of 2 nats."""
    wobble = np.linspace(-1, 1, 40) * noise
    return [Trial(name, n, "natural_gradient", 1.0, 2 * (s + wobble), 2.0) for n, s in shares.items()]


def test_samples_needed_are_interpolated_on_log_n() -> None:
    base = trials("on_policy", {4: 0.1, 16: 0.3, 64: 0.7})
    fast = trials("fast", {4: 0.3, 16: 0.7, 64: 0.9})
    slow = trials("slow", {4: 0.0, 16: 0.1, 64: 0.4})
    once = trials("once", {4: 0.6, 16: 0.7, 64: 0.9})
    found = {e.proposal: e for e in efficiency([*fast, *base, *slow, *once], 0.5)}
    assert list(found) == ["fast", "on_policy", "slow", "once"]
    assert found["on_policy"].reach.samples == pytest.approx(32)
    assert found["on_policy"].factor == 1
    assert (found["fast"].status, found["fast"].reach.status) == ("measured", "reached")
    assert found["fast"].factor == pytest.approx(4)
    assert found["fast"].interval == Interval(pytest.approx(4), pytest.approx(4))
    assert (found["slow"].status, found["slow"].reach.status) == ("at_most", "not_reached")
    assert found["slow"].reach.samples == 64
    assert found["slow"].factor == pytest.approx(0.5)
    assert found["slow"].interval == Interval(0.0, pytest.approx(0.5))
    assert (found["once"].status, found["once"].reach.status) == ("at_least", "at_once")
    assert found["once"].factor == pytest.approx(8)
    assert found["once"].interval == Interval(pytest.approx(8), np.inf)


def test_nothing_is_said_where_neither_arrives() -> None:
    base, other = trials("on_policy", {4: 0.1, 16: 0.2}), trials("q", {4: 0.1, 16: 0.3})
    found = efficiency([*base, *other], 0.5)[1]
    assert (found.status, found.interval) == ("undetermined", Interval(0.0, np.inf))


def test_the_interval_of_the_ratio_holds_the_truth() -> None:
    """q reaches every share with a third of the samples; both curves are noisy, and the noise is shared."""
    sizes, repetitions = [4, 12, 36, 108, 324], 200
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        both = [[], []]
        for n in sizes:
            shared = rng.normal(0, 0.4, repetitions)
            for name, factor, into in (("on_policy", 1, both[0]), ("q", 3, both[1])):
                mean = 0.2 * np.log(factor * n)
                progress = mean + shared + rng.normal(0, 0.4, repetitions)
                into.append(Trial(name, n, "seed_tilt", 1.0, progress, 1.0))
        found = efficiency([*both[0], *both[1]], 0.7)[1]
        hits += 3.0 in found.interval
    # Of 40 intervals at 95 %, fewer than 32 hold the truth once in 60 000 times.
    assert hits >= 32


def test_the_first_crossing_counts() -> None:
    low, high = crossing(np.array([1, 10, 100]), np.array([[0.0, -1e30], [0.6, 0.1], [0.2, 0.9]]), 0.5)
    assert low.tolist() == high.tolist()
    assert low == pytest.approx([10 ** (0.5 / 0.6), 10**1.5])


def test_trials_that_do_not_belong_together() -> None:
    base = trials("on_policy", {4: 0.1, 16: 0.3})
    with pytest.raises(OptionError, match="differ"):
        efficiency([*base, *trials("q", {4: 0.1})])
    with pytest.raises(OptionError, match="on_policy"):
        efficiency(trials("q", {4: 0.1}))
    with pytest.raises(OptionError, match="share"):
        efficiency(base, 1.0)


# --- several updates in a row ------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", ["on_policy", "kl_symmetry", "off_policy"])
def test_updates_in_a_row_against_one_repetition_at_a_time(estimator: str, name: str) -> None:
    problem = Problem(synthetic("gaussian", vocabulary=25))
    plan = Plan(estimator, 4, 1)
    found = run_in_sequence(problem, name, 60, 3, plan)
    numbers = uniforms(1, "report", 60, 4)
    for r in range(4):
        here, gained = problem, 0.0
        for k, step in enumerate(found.steps):
            (proposal,) = propose(here, (name,)).found
            draws = draw_tokens(proposal.log_q, problem.order, numbers[r : r + 1, 20 * k : 20 * k + 20].sort(-1).values)
            estimated = estimates(here, proposal, draws, estimator)
            gained += estimated.progress(step).item()
            after = updated(here.log_theta, estimated, step)
            here = Problem(PolicyBatch(after, problem.batch.target))
            assert found.progress[k, r] == pytest.approx(gained, rel=1e-7, abs=1e-10)
        # What the steps gain adds up to how much nearer the policy came.
        nearer = problem.ceiling - float(kl(problem.log_target, here.log_theta))
        assert found.progress[-1, r] == pytest.approx(nearer, rel=1e-7, abs=1e-10)


def test_an_independent_reference_stays() -> None:
    problem = problem_of(10, referenced=True)
    found = run_in_sequence(problem, "on_policy", 40, 2, Plan(repetitions=5))
    assert found.progress.shape == (2, 5)
    assert (found.progress <= problem.ceiling).all()


def test_a_budget_that_cannot_be_shared() -> None:
    with pytest.raises(OptionError, match="evenly"):
        run_in_sequence(problem_of(3), "on_policy", 10, 3, Plan())
