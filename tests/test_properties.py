"""What must hold for every pair of policies (Hypothesis): logits up to ±50, ties, duplicates, masks, few tokens.

Inequalities are exact in theory; the slack is the rounding of log-probabilities (`strategies.log_prob_error`).
"""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strategies import (
    ALPHAS,
    EPS,
    ETAS,
    WEIGHTS,
    log_prob_error,
    logit_pairs,
    moment_error,
)

from geomix_core import (
    PolicyBatch,
    Status,
    chernoff_information,
    e_geodesic,
    exact_progress,
    exact_step,
    fisher_rao_arc,
    learning_signal,
    m_geodesic,
    path_lengths,
    solve_alpha,
    tilted_moments,
    updated_policy,
)
from geomix_core.compression import compress
from geomix_core.divergences import chi2, ess_fraction, kl, log_chi2, renyi

properties = settings(
    max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
CONVENTION = st.sampled_from(WEIGHTS)
GRID = torch.linspace(0, 1, 17, dtype=torch.float64)[:, None]


def slack(pair: tuple[np.ndarray, ...], order: int) -> float:
    return 4 * max(moment_error(t, g, order) for t, g in zip(pair[0], pair[1], strict=True))


# --- the family --------------------------------------------------------------------------------------------------


@properties
@given(logit_pairs(masks="overlap"))
def test_gap_decreases_and_log_partition_is_convex(pair) -> None:
    moments = tilted_moments(PolicyBatch.from_logits(*pair), GRID)
    assert (moments.delta.diff(dim=0) <= slack(pair, 1)).all()
    assert (moments.log_partition.diff(n=2, dim=0) >= -slack(pair, 0)).all()
    assert (moments.log_partition <= slack(pair, 0)).all()
    assert (moments.variance >= 0).all()


@properties
@given(logit_pairs(masks="overlap"))
def test_divergences_of_q_are_monotone(pair) -> None:
    moments = tilted_moments(PolicyBatch.from_logits(*pair), GRID)
    assert (moments.kl_to_theta.diff(dim=0) <= slack(pair, 1)).all()
    assert (moments.kl_to_target.diff(dim=0) >= -slack(pair, 1)).all()
    assert (moments.kl_to_theta >= 0).all()
    assert (moments.kl_to_target >= 0).all()


@properties
@given(logit_pairs(masks="overlap"), ALPHAS, ALPHAS)
def test_the_e_geodesic_is_a_straight_line_of_log_probabilities(pair, a: float, b: float) -> None:
    """The point at b between q_a and π_t is q_{ab}, on any support."""
    batch = PolicyBatch.from_logits(*pair)
    on_support = batch.target.masked_fill(~batch.common, -torch.inf)
    inner = PolicyBatch(e_geodesic(batch, a), on_support - torch.logsumexp(on_support, -1, keepdim=True))
    assert torch.allclose(e_geodesic(inner, b).exp(), e_geodesic(batch, a * b).exp(), rtol=0, atol=slack(pair, 1))


@properties
@given(logit_pairs(masks="overlap"), ALPHAS)
def test_every_path_is_made_of_policies(pair, s: float) -> None:
    batch = PolicyBatch.from_logits(*pair)
    for path in (e_geodesic, m_geodesic, fisher_rao_arc):
        log_p = path(batch, s)
        assert not log_p.isnan().any()
        assert torch.allclose(log_p.exp().sum(-1), torch.ones(1, dtype=torch.float64), rtol=0, atol=64 * EPS)


@settings(properties, max_examples=20)
@given(logit_pairs(min_vocab=2))
def test_no_path_is_shorter_than_the_distance(pair) -> None:
    lengths = path_lengths(PolicyBatch.from_logits(*pair))
    assert (lengths.e_geodesic >= lengths.fisher_rao - 1e-6).all()
    assert (lengths.m_geodesic >= lengths.fisher_rao - 1e-6).all()


@properties
@given(logit_pairs(masks="covered"), ALPHAS)
def test_effective_sample_size_is_a_fraction(pair, alpha: float) -> None:
    batch = PolicyBatch.from_logits(*pair)
    ess = ess_fraction(batch, alpha)
    assert ((ess >= 0) & (ess <= 1)).all()
    by_renyi = (-renyi(batch.theta, e_geodesic(batch, alpha), 2.0)).exp()
    assert torch.allclose(ess, by_renyi, rtol=slack(pair, 1), atol=1e-300)


# --- learning progress -------------------------------------------------------------------------------------------


@properties
@given(st.one_of(logit_pairs(), logit_pairs(reference=True)), ALPHAS, ETAS, CONVENTION)
def test_progress_never_exceeds_the_divergence(policies, alpha: float, eta: float, weights: str) -> None:
    batch = PolicyBatch.from_logits(*policies)
    gain = exact_progress(batch, alpha, eta, weights)
    assert not gain.isnan().any()
    bound = kl(batch.target, batch.theta)
    # ηh enters with the relative error of its exponent: δ times its own size and that of ℓ.
    span = float(batch.log_ratio.abs().max()) + 1
    log_w = (1 - alpha) * span + float(batch.reward.abs().max().clamp(min=1e-300).log())
    size = min(eta * np.exp(min(log_w, 650.0)), 1e300)
    assert (gain <= bound + 8 * log_prob_error(*policies) * span * (1 + size)).all()
    if eta == 0:
        assert (gain == 0).all()


@properties
@given(st.one_of(logit_pairs(), logit_pairs(reference=True)), ALPHAS, CONVENTION)
def test_snr_never_exceeds_the_root_of_chi_square(policies, alpha: float, weights: str) -> None:
    """|Φ₁| ≤ √χ²·√Φ₂ (Cauchy–Schwarz), up to max|h| times the rounding of Σ(π_t − π_θ) = 0."""
    batch = PolicyBatch.from_logits(*policies)
    signal = learning_signal(batch, alpha, weights)
    log_w = (1 - alpha) * batch.log_ratio * (-1 if weights == "importance" else 1)
    log_z = tilted_moments(batch, alpha).log_partition
    log_w = log_w + (log_z if weights == "importance" else -log_z)[:, None]
    largest = (log_w.exp() * batch.reward.abs()).max()
    ceiling = (0.5 * (log_chi2(batch.target, batch.theta) + signal.log_phi2)).exp()
    assert (signal.phi1.abs() <= ceiling * (1 + 1e-9) + 16 * log_prob_error(*policies) * largest).all()
    assert not signal.snr.isnan().any()
    assert not signal.log_slope.isnan().any()


@properties
@given(logit_pairs(), ALPHAS, CONVENTION)
def test_default_reference_has_no_negative_signal(pair, alpha: float, weights: str) -> None:
    assert (learning_signal(PolicyBatch.from_logits(*pair), alpha, weights).sign >= 0).all()


@settings(properties, max_examples=40)
@given(logit_pairs(reference=True), ALPHAS, CONVENTION)
@example((np.zeros((1, 3)), np.array([[0.0, 13.0, 33.0]]), np.array([[0.0, 0.0, 1.0]])), 0.0, "importance")
def test_progress_is_concave_in_the_step(policies, alpha: float, weights: str) -> None:
    """No step beats η_exact, half and twice of it least of all; and no η > 0 gains where Φ₁ < 0."""
    batch = PolicyBatch.from_logits(*policies)
    step = exact_step(batch, alpha, weights)
    assert (step >= 0).all()
    assert not step.isnan().any()
    signal = learning_signal(batch, alpha, weights)
    if not step.isfinite().all() or (step > 1e250).any():
        return
    best = exact_progress(batch, alpha, step, weights)
    rounding = 1e3 * log_prob_error(*policies) * (1 + best.abs() + kl(batch.target, batch.theta))
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert (exact_progress(batch, alpha, step * factor, weights) <= best + rounding).all()
    if (signal.sign < 0).all():
        assert (step == 0).all()
        eta = signal.quadratic_step.abs().clamp(max=1e6)
        assert (exact_progress(batch, alpha, eta, weights) <= rounding).all()


@properties
@given(st.one_of(logit_pairs(masks="covered"), logit_pairs(reference=True)), ALPHAS, ETAS, CONVENTION)
def test_updated_policy_is_a_policy_on_the_same_support(policies, alpha: float, eta: float, weights: str) -> None:
    batch = PolicyBatch.from_logits(*policies)
    log_p = updated_policy(batch, alpha, eta, weights)
    assert not log_p.isnan().any()
    assert (log_p[batch.theta == -torch.inf] == -torch.inf).all()
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(1, dtype=torch.float64), rtol=0, atol=64 * EPS)


# --- α -----------------------------------------------------------------------------------------------------------


def spread(batch: PolicyBatch, alpha: torch.Tensor) -> torch.Tensor:
    return tilted_moments(batch, alpha).variance


@properties
@given(logit_pairs(masks="overlap"))
def test_kl_symmetry_is_certified(pair) -> None:
    batch = PolicyBatch.from_logits(*pair)
    result = solve_alpha(batch)
    (status,), (alpha,), (low, high) = result.status, result.alpha.tolist(), result.bracket[0].tolist()
    assert 0 <= low <= alpha <= high <= 1
    assert result.residual.isfinite().all()
    error = slack(pair, 1)
    if status in {Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT}:
        assert (status is Status.SOLVED) == bool(batch.support.equal)
        moments = tilted_moments(batch, torch.tensor([[low], [alpha], [high]], dtype=torch.float64))
        assert moments.delta[0] >= -error
        assert moments.delta[2] <= error
        assert abs(moments.delta[1]) <= error + 1e-11 * moments.variance[1]
        assert abs(moments.kl_to_theta[1] - moments.kl_to_target[1]) <= 2 * error + 1e-11 * moments.variance[1]
        assert (tilted_moments(batch, GRID).log_partition >= moments.log_partition[1] - error).all()
    elif status is Status.IDENTICAL:
        assert tilted_moments(batch, GRID).delta.abs().max() <= 1e-11
    else:
        assert status is Status.NO_INTERIOR_ROOT
        delta = tilted_moments(batch, GRID).delta
        assert (delta <= error).all() or (delta >= -error).all()
        assert alpha == (0.0 if (delta[1:-1] <= error).all() else 1.0)


@properties
@given(logit_pairs())
def test_swapping_the_policies_mirrors_alpha(pair) -> None:
    one, other = PolicyBatch.from_logits(*pair), PolicyBatch.from_logits(pair[1], pair[0])
    a, b = solve_alpha(one), solve_alpha(other)
    assert a.status == b.status
    assert ((a.alpha + b.alpha - 1).abs() * spread(one, a.alpha) <= slack(pair, 1)).all()
    assert torch.allclose(chernoff_information(one), chernoff_information(other), rtol=1e-9, atol=slack(pair, 0))


def assert_same_answers(one: PolicyBatch, other: PolicyBatch, error: float, weights: str = "importance") -> None:
    """Equal up to `error` in Δ: α to error/Var, SNR relative to its size."""
    a, b = solve_alpha(one), solve_alpha(other)
    assert a.status == b.status
    assert ((a.alpha - b.alpha).abs() * spread(one, a.alpha) <= error).all()
    c, d = solve_alpha(one, "snr", weights), solve_alpha(other, "snr", weights)
    for i, (s, t) in enumerate(zip(c.status, d.status, strict=True)):
        same = {s, t} <= {Status.IDENTICAL, Status.FLAT} or s is t
        assert same, (s, t)
        if c.maxima[i]:
            assert np.isclose(c.maxima[i][0].value, d.maxima[i][0].value, rtol=max(1e-9, error), atol=error)


@properties
@given(logit_pairs(masks="overlap", max_rows=2), st.randoms(use_true_random=False), CONVENTION)
def test_order_of_tokens_does_not_matter(pair, random, weights: str) -> None:
    order = list(range(pair[0].shape[1]))
    random.shuffle(order)
    one = PolicyBatch.from_logits(*pair)
    assert_same_answers(one, PolicyBatch.from_logits(*(x[:, order] for x in pair)), slack(pair, 1), weights)


@properties
@given(logit_pairs(masks="overlap", max_rows=2), st.floats(-500, 500), st.floats(-500, 500), CONVENTION)
def test_shifts_of_logits_do_not_matter(pair, a: float, b: float, weights: str) -> None:
    moved = (pair[0] + a, pair[1] + b)
    error = slack(pair, 1) * (1 + abs(a) + abs(b))  # the shifted logits are themselves rounded
    one, other = PolicyBatch.from_logits(*pair), PolicyBatch.from_logits(*moved)
    first, second = solve_alpha(one), solve_alpha(other)
    assert ((first.alpha - second.alpha).abs() * spread(one, first.alpha) <= error).all()
    assert torch.allclose(one.theta.exp(), other.theta.exp(), rtol=0, atol=error)
    finite = one.covered
    if finite.any():
        one, other = one.rows(finite), other.rows(finite)
        x, y = (learning_signal(batch, 0.5, weights).snr for batch in (one, other))
        # SNR is a mean over the weights e^ℓ − 1: its error is that of ℓ times 1 + √χ².
        ceiling = 1 + float(chi2(one.target, one.theta).max().sqrt())
        assert torch.allclose(x, y, rtol=100 * error, atol=error * ceiling)


@properties
@given(logit_pairs(max_rows=1), CONVENTION)
def test_splitting_a_token_changes_nothing(pair, weights: str) -> None:
    """Two tokens of equal ℓ are one token of their joint mass: everything depends on ℓ under π_θ alone."""
    split = [np.concatenate([x, x[:, :1]], 1) for x in pair]
    for x in split:
        x[:, 0] -= np.log(2)
        x[:, -1] -= np.log(2)
    one, other = PolicyBatch.from_logits(*pair), PolicyBatch.from_logits(*split)
    m, n = tilted_moments(one, GRID), tilted_moments(other, GRID)
    for name in ("log_partition", "mean", "variance"):
        assert torch.allclose(getattr(m, name), getattr(n, name), rtol=0, atol=slack(pair, 2))
    x, y = (learning_signal(b, 0.5, weights) for b in (one, other))
    assert torch.allclose(x.snr, y.snr, rtol=1e-6, atol=slack(pair, 1))


@properties
@given(logit_pairs(masks="overlap", max_rows=4), CONVENTION)
def test_batch_equals_loop(pair, weights: str) -> None:
    batch = PolicyBatch.from_logits(*pair)
    for criterion in ("kl_symmetry", "snr"):
        together = solve_alpha(batch, criterion, weights)
        for i in range(len(batch)):
            alone = solve_alpha(PolicyBatch.from_logits(pair[0][i], pair[1][i]), criterion, weights)
            assert together.status[i] is alone.status[0]
            assert together.alpha[i].item() == alone.alpha.item()
            assert together.residual[i].item() == alone.residual.item()
            assert together.bracket[i].tolist() == alone.bracket[0].tolist()
            assert together.maxima[i] == alone.maxima[0]


@properties
@given(logit_pairs(masks="covered", max_rows=4), ALPHAS, ETAS, CONVENTION)
def test_batch_equals_loop_for_progress(pair, alpha: float, eta: float, weights: str) -> None:
    batch = PolicyBatch.from_logits(*pair)
    gain, step = exact_progress(batch, alpha, eta, weights), exact_step(batch, alpha, weights)
    signal = learning_signal(batch, alpha, weights)
    for i in range(len(batch)):
        row = batch.rows(i)
        assert torch.equal(gain[i : i + 1], exact_progress(row, alpha, eta, weights))
        assert torch.allclose(step[i : i + 1], exact_step(row, alpha, weights), rtol=1e-9)
        alone = learning_signal(row, alpha, weights)
        for name in ("sign", "log_abs_phi1", "log_phi2", "log_slope"):
            assert torch.equal(getattr(signal, name)[i : i + 1], getattr(alone, name))


@properties
@given(st.one_of(logit_pairs(masks="overlap", max_rows=3), logit_pairs(reference=True, max_rows=3)), CONVENTION)
def test_answers_are_always_numbers(policies, weights: str) -> None:
    batch = PolicyBatch.from_logits(*policies)
    for criterion in ("kl_symmetry", "snr"):
        result = solve_alpha(batch, criterion, weights)
        for value in (result.alpha, result.residual, result.bracket):
            assert value.isfinite().all()
        assert ((result.bracket[:, 0] <= result.alpha) & (result.alpha <= result.bracket[:, 1])).all()
        for status, maxima in zip(result.status, result.maxima, strict=True):
            for m in maxima:
                assert np.isfinite([m.alpha, m.value, m.slope, *m.bracket]).all()
                assert m.sign in (-1, 0, 1)
            if criterion == "snr" and status in {Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT}:
                assert maxima


@properties
@given(logit_pairs(reference=True), CONVENTION)
def test_snr_maximum_beats_every_grid_point(policies, weights: str) -> None:
    batch = PolicyBatch.from_logits(*policies)
    result = solve_alpha(batch, "snr", weights)
    if not result.maxima[0]:
        return
    # A second maximum inside one cell of the solver's grid is out of its reach: look at that grid.
    grid = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None]
    values = learning_signal(batch, grid, weights).snr
    assert (values <= result.maxima[0][0].value * (1 + 1e-6)).all()
    assert abs(result.maxima[0][0].value) == learning_signal(batch, result.alpha, weights).snr.item() or np.isclose(
        result.maxima[0][0].value, learning_signal(batch, result.alpha, weights).snr.item(), rtol=1e-6
    )


@settings(properties, max_examples=10)
@given(st.integers(0, 10_000), CONVENTION)
def test_compressed_rows_keep_their_curves(seed: int, weights: str) -> None:
    rng = np.random.default_rng(seed)
    theta, target = rng.normal(size=(2, 1, 7000)) * rng.uniform(0.1, 3)
    batch = PolicyBatch.from_logits(theta, target)
    small = compress(batch)
    assert small.vocab_size < 5000
    full, short = tilted_moments(batch, GRID), tilted_moments(small, GRID)
    for name in ("log_partition", "mean", "variance"):
        x, y = getattr(full, name), getattr(short, name)
        assert (x - y).abs().max() <= 1e-6 * x.abs().max()
    x, y = learning_signal(batch, GRID, weights).snr, learning_signal(small, GRID, weights).snr
    assert (x - y).abs().max() <= 1e-6 * x.max()
