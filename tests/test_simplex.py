"""The distributions of largest SNR: they reach √χ²(π_t‖π_θ), and nothing exceeds it (theory, section 2)."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from strategies import EPS, FAMILIES, WEIGHTS, Exact, draw, draw_reference, log_prob_error, logit_pairs, np_log_softmax

from geomix_core import CoverageError, DisjointSupportError, OptionError, PolicyBatch, learning_signal
from geomix_core.progress import learning_signal_from
from geomix_core.simplex import simplex_optimum

INF = np.inf
FAMILY = pytest.mark.parametrize("family", FAMILIES)
CONVENTION = pytest.mark.parametrize("weights", WEIGHTS)


def np_snr_of(log_q: np.ndarray, log_theta: np.ndarray, log_target: np.ndarray, weights: str) -> np.ndarray:
    """|Φ₁|/√Φ₂ of sampling distributions log q `[..., V]`, default reference."""
    lq, lt, lg = (x.astype(np.longdouble) for x in (log_q, log_theta, log_target))
    h = np.exp(lt - lq if weights == "importance" else lq - lt) * (lg - lt)
    theta = np.exp(lt)
    centred = h - (theta * h).sum(-1, keepdims=True)
    return np.abs(((np.exp(lg) - theta) * h).sum(-1)) / np.sqrt((theta * centred**2).sum(-1))


def mp_optimum(exact: Exact) -> list[mp.mpf]:
    """The closed form: π_θ²/L or L, normalised."""
    pairs = list(zip(exact.theta, exact.target, strict=True))
    mean = [p if p == t else (t - p) / mp.log(t / p) for p, t in pairs]
    raw = [p * p / m for (p, _), m in zip(pairs, mean, strict=True)] if exact.weights == "importance" else mean
    total = mp.fsum(raw)
    return [x / total for x in raw]


def snr_error(theta: np.ndarray, target: np.ndarray) -> float:
    """Relative error of SNR: an error δ of a log-probability moves w, ℓ and π_t − π_θ by δ(2 + 1/|ℓ|) of themselves.

    Near-identical policies lose the digits that ℓ has lost: 1/|ℓ| is taken at its root mean square, which is what the
    sums see.
    """
    lt, lg = np_log_softmax(theta), np_log_softmax(target)
    ell = np.sqrt((np.exp(lt) * (lg - lt) ** 2).sum())
    return 16 * log_prob_error(theta, target) * (2 + 1 / ell)


# --- the bound is reached ----------------------------------------------------------------------------------------


@FAMILY
@CONVENTION
def test_optimum_reaches_the_bound(family: str, weights: str) -> None:
    for seed in range(3):
        theta, target = (x[0] for x in draw(family, 1, 7, seed))
        batch = PolicyBatch.from_logits(theta, target)
        log_q = simplex_optimum(batch, weights)
        exact = Exact(theta, target, None, weights)
        assert log_q.exp().sum().item() == pytest.approx(1, abs=16 * EPS)
        truth = [float(mp.log(q)) for q in mp_optimum(exact)]
        assert log_q[0].tolist() == pytest.approx(truth, abs=4 * log_prob_error(theta, target), rel=4 * EPS)
        bound = float(mp.sqrt(exact.chi2()))
        assert learning_signal_from(batch, log_q, weights).snr.item() == pytest.approx(
            bound, rel=snr_error(theta, target)
        )
        # The q that the core returned, in mpmath: that it is the optimum does not rest on the core's own SNR. SNR is
        # stationary there, so errors of log q count squared, and what is left is χ² of the rounded q's own scale.
        h = exact.tilt_from([mp.exp(mp.mpf(x)) for x in log_q[0].tolist()])
        reached = abs(exact.phi1_of(h)) / mp.sqrt(exact.cumulant_of(h, 2))
        assert float(reached) == pytest.approx(bound, rel=4 * EPS)


@CONVENTION
def test_optimum_of_logits_800_apart(weights: str) -> None:
    theta, target = np.array([800.0, -800.0, 0.0, 1.0]), np.array([-800.0, 800.0, 0.0, 3.0])
    batch, delta = PolicyBatch.from_logits(theta, target), log_prob_error(theta, target)
    log_q = simplex_optimum(batch, weights)
    assert log_q.isfinite().all()
    with mp.workdps(1600):
        exact = Exact(theta, target, None, weights)
        truth = [float(mp.log(q)) for q in mp_optimum(exact)]
        log_bound = float(mp.log(exact.chi2()) / 2)
    assert log_q[0].tolist() == pytest.approx(truth, abs=4 * delta, rel=4 * EPS)
    # As a logarithm, because √χ² = e^1600 is beyond float64.
    assert learning_signal_from(batch, log_q, weights).log_snr.item() == pytest.approx(log_bound, abs=8 * delta)


@CONVENTION
def test_optimum_of_tokens_that_neither_policy_has(weights: str) -> None:
    theta, target = np.array([0.0, -INF, 1.0, -1.0]), np.array([1.0, -INF, -1.0, 0.3])
    kept = [0, 2, 3]
    log_q = simplex_optimum(PolicyBatch.from_logits(theta, target), weights)[0]
    without = simplex_optimum(PolicyBatch.from_logits(theta[kept], target[kept]), weights)[0]
    assert log_q[1].item() == -INF
    assert log_q[kept].tolist() == pytest.approx(without.tolist(), rel=8 * EPS)


@pytest.mark.parametrize("where", [[], [1], [0, 1, 2, 3]])
@CONVENTION
def test_equal_probabilities_have_the_limit(weights: str, where: list[int]) -> None:
    """ℓ = 0: L(a, a) = a and a²/L = a, so identical policies are their own optimum."""
    theta = np.log([0.1, 0.2, 0.3, 0.4])
    target = np.log([0.15, 0.2, 0.4, 0.25])
    target[where] = theta[where]
    log_q = simplex_optimum(PolicyBatch.from_logits(theta, target), weights)[0]
    truth = [float(mp.log(q)) for q in mp_optimum(Exact(theta, target, None, weights))]
    assert log_q.tolist() == pytest.approx(truth, abs=4 * log_prob_error(theta, target))


# --- nothing exceeds it ------------------------------------------------------------------------------------------


@FAMILY
@CONVENTION
def test_no_random_distribution_beats_the_bound(family: str, weights: str) -> None:
    theta, target = (x[0] for x in draw(family, 1, 7, 4))
    batch, exact = PolicyBatch.from_logits(theta, target), Exact(theta, target, None, weights)
    rng = np.random.default_rng(0)
    spread = np.repeat([0.01, 0.1, 1.0, 10.0], 1000)[:, None]
    anywhere = np_log_softmax(spread * rng.normal(size=(4000, 7)))
    nearby = np_log_softmax(simplex_optimum(batch, weights).numpy() + spread * rng.normal(size=(4000, 7)))
    log_q = torch.tensor(np.concatenate([anywhere, nearby]))[:, None]
    snr = learning_signal_from(batch, log_q, weights).snr
    bound = float(mp.sqrt(exact.chi2()))
    assert snr.shape == (8000, 1)
    assert (snr <= bound * (1 + snr_error(theta, target))).all()
    # Each h moves by at most 5 % of itself (five sigma), so its angle in L²(π_θ), whose cosine is SNR/√χ², by 0.05.
    assert (snr[4000:5000] >= 0.99 * bound).all()
    assert (snr[:1000] < 0.9999 * bound).all()


@pytest.mark.parametrize("seed", range(3))
@CONVENTION
def test_brute_force_over_the_simplex(weights: str, seed: int) -> None:
    """Three tokens, all q on a grid of 1/300 (NumPy); then SciPy climbs from the best of them up to the bound."""
    theta, target = (np_log_softmax(x[0]) for x in draw("gaussian", 1, 3, seed))
    i, j = np.meshgrid(np.arange(1, 300), np.arange(1, 300), indexing="ij")
    inside = i + j < 300
    q = np.stack([i[inside], j[inside], 300 - i[inside] - j[inside]], -1) / 300
    heights = np_snr_of(np.log(q), theta, target, weights)
    bound = float(mp.sqrt(Exact(theta, target).chi2()))
    assert heights.max() <= bound * (1 + 64 * EPS)
    climbed = minimize(
        lambda x: -float(np_snr_of(np_log_softmax(x), theta, target, weights)) / bound,
        np.log(q[heights.argmax()]),
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-14, "maxiter": 2000},
    )
    log_q = simplex_optimum(PolicyBatch.from_logits(theta, target), weights).numpy()[0]
    closed_form = float(np_snr_of(log_q, theta, target, weights))
    assert closed_form >= heights.max() * (1 - 64 * EPS)
    # Comparing values locates a maximum's height to ε.
    assert -climbed.fun * bound == pytest.approx(closed_form, rel=1e-9)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    st.one_of(logit_pairs(), logit_pairs(reference=True)),
    st.sampled_from(WEIGHTS),
    st.lists(st.floats(-20, 20), min_size=12, max_size=12),
)
def test_snr_of_any_distribution_is_bounded(policies, weights: str, logits: list[float]) -> None:
    """|Φ₁| ≤ √(χ²Φ₂) for every q and every reward (Cauchy–Schwarz), up to the rounding of the three."""
    batch = PolicyBatch.from_logits(*policies)
    theta, target, *reference = (np_log_softmax(x[0]) for x in policies)
    log_q = np_log_softmax(np.array(logits[: len(theta)]))
    signal = learning_signal_from(batch, torch.tensor(log_q)[None], weights)
    chi2 = float(Exact(policies[0][0], policies[1][0]).chi2())

    w = np.exp(theta - log_q if weights == "importance" else log_q - theta)
    reward = target - (reference[0] if reference else theta)
    delta = log_prob_error(*(x[0] for x in policies))
    error = delta * w * (1 + 2 * np.abs(reward))  # of h
    gap = np.abs(np.exp(target) - np.exp(theta))
    phi1_error = (gap * error + delta * (np.exp(theta) + np.exp(target)) * np.abs(w * reward)).sum()
    root_error = np.sqrt((np.exp(theta) * error**2).sum())
    limit = np.sqrt(chi2 * signal.phi2.item())
    assert abs(signal.phi1.item()) <= limit * (1 + 16 * delta) + 4 * (phi1_error + np.sqrt(chi2) * root_error)


# --- where it lies -----------------------------------------------------------------------------------------------


@FAMILY
@CONVENTION
def test_optimum_lies_near_a_geometric_mixture(family: str, weights: str) -> None:
    """α = 3/2 (importance), beyond π_θ, or 1/2 (inverse): log q differs by log(sinh(ℓ/2)/(ℓ/2)) ≤ ℓ²/24, normalised."""
    theta, target = draw(family, 5, 9, 2)
    lt, lg = np_log_softmax(theta), np_log_softmax(target)
    log_q = simplex_optimum(PolicyBatch.from_logits(theta, target), weights).numpy()
    alpha = 1.5 if weights == "importance" else 0.5
    furthest = np.abs(log_q - np_log_softmax(alpha * lt + (1 - alpha) * lg)).max(-1)
    ell = np.abs(lg - lt).max(-1)
    assert (furthest <= ell**2 / 24 + 8 * log_prob_error(theta, target)).all()
    if family == "near":  # 0.01 nat apart: no other whole or half α comes as close
        for other in {-0.5, 0.0, 0.5, 1.0, 1.5, 2.0} - {alpha}:
            assert (np.abs(log_q - np_log_softmax(other * lt + (1 - other) * lg)).max(-1) > 50 * furthest).all()


@FAMILY
def test_inverse_optimum_averages_the_whole_family(family: str) -> None:
    """L(π_θ, π_t) = ∫₀¹ π_θ^α π_t^(1−α) dα, token by token (SciPy's quadrature)."""
    theta, target = (np_log_softmax(x[0]) for x in draw(family, 1, 8, 6))
    average = np.array(
        [
            quad(lambda a, p=p, t=t: np.exp(a * p + (1 - a) * t - max(p, t)), 0, 1, epsabs=0, epsrel=1e-12)[0]
            for p, t in zip(theta, target, strict=True)
        ]
    )
    logs = np.log(average) + np.maximum(theta, target)
    got = simplex_optimum(PolicyBatch.from_logits(theta, target), "inverse").numpy()[0]
    # 1e-12 asked of each integral and of their sum.
    assert got == pytest.approx(logs - np.logaddexp.reduce(logs), abs=2e-12 + 8 * log_prob_error(theta, target), rel=0)


@FAMILY
@CONVENTION
def test_optimum_is_at_least_as_good_as_the_family(family: str, weights: str) -> None:
    theta, target = draw(family, 20, 9, 7)
    batch = PolicyBatch.from_logits(theta, target)
    best = learning_signal_from(batch, simplex_optimum(batch, weights), weights).snr
    family_snr = learning_signal(batch, torch.linspace(-1, 2, 61)[:, None], weights).snr
    slack = max(snr_error(p, t) for p, t in zip(theta, target, strict=True))
    assert (family_snr <= best * (1 + slack)).all()
    assert (family_snr.amax(0) < best).any()


# --- batches and refusals ----------------------------------------------------------------------------------------


@CONVENTION
def test_batch_is_a_loop(weights: str) -> None:
    theta, target = (np.concatenate([draw(f, 4, 9, 1)[k] for f in FAMILIES]) for k in (0, 1))
    together = simplex_optimum(PolicyBatch.from_logits(theta, target), weights)
    for i in range(len(theta)):
        alone = simplex_optimum(PolicyBatch.from_logits(theta[i], target[i]), weights)
        assert together[i].tolist() == pytest.approx(alone[0].tolist(), rel=4 * EPS, abs=4 * EPS)


def test_refusals() -> None:
    good = PolicyBatch.from_logits([0.0, 1.0, 2.0], [1.0, 0.0, -1.0])
    with pytest.raises(OptionError, match=r"weights is 'w': expected one of importance, inverse"):
        simplex_optimum(good, "w")
    referenced = PolicyBatch.from_logits(*draw("gaussian", 1, 5, 0), draw_reference(1, 5, 0))
    with pytest.raises(OptionError, match="needs the default reference"):
        simplex_optimum(referenced)
    for weights in WEIGHTS:
        for theta, target in (([-INF, 1.0, 2.0], [1.0, 0.0, -1.0]), ([1.0, 0.0, -1.0], [-INF, 1.0, 2.0])):
            rows = PolicyBatch.from_logits([[0.0, 1.0, 2.0], theta], [[1.0, 0.0, -1.0], target])
            with pytest.raises(CoverageError, match=r"1 of 2 rows .*first: row 1.*smooth"):
                simplex_optimum(rows, weights)
    with pytest.raises(DisjointSupportError, match="1 of 1 rows"):
        simplex_optimum(PolicyBatch.from_logits([0.0, -INF], [-INF, 0.0]))
