"""Sections 3, 4 and 5 of the theory (document §4–5): the geometric family, supports, and the two ways to choose α.

Oracles: `strategies.Exact` (mpmath, from the definitions), SciPy on NumPy formulas, and dense grids.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.integrate import quad
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
    moment_error,
    mp_kl,
    np_delta,
    np_log_softmax,
    np_snr,
)

from geomix_core import (
    DisjointSupportError,
    OptionError,
    PolicyBatch,
    Status,
    chernoff_information,
    criteria,
    e_geodesic,
    fisher_rao_arc,
    m_geodesic,
    path_lengths,
    solve_alpha,
    tilted_moments,
)
from geomix_core.divergences import bhattacharyya, chi2, entropy, ess_fraction, kl, log_chi2, renyi, total_variation
from geomix_core.geodesics import fisher_rao_distance
from geomix_core.solvers.kl_symmetry import find_roots
from geomix_core.solvers.snr import find_maxima

INF = np.inf
ALPHAS = (-0.5, 0.0, 0.2, 0.5, 1.0, 1.5)
FAMILY = pytest.mark.parametrize("family", sorted(FAMILIES))
CONVENTION = pytest.mark.parametrize("weights", WEIGHTS)
CRITERION = pytest.mark.parametrize("criterion", ["kl_symmetry", "snr"])


def one_row(family: str, seed: int = 0, vocab: int = 8) -> tuple[np.ndarray, np.ndarray, PolicyBatch, Exact]:
    theta, target = (x[0] for x in draw(family, 1, vocab, seed))
    return theta, target, PolicyBatch.from_logits(theta, target), Exact(theta, target)


def close(got: torch.Tensor, truth: mp.mpf, error: float) -> bool:
    return float(got) == pytest.approx(float(truth), abs=error, rel=0)


# --- §3: log Z, Δ, Var and their derivatives ---------------------------------------------------------------------


@FAMILY
def test_log_partition_gap_and_variance(family: str) -> None:
    theta, target, batch, exact = one_row(family)
    for alpha in ALPHAS:
        moments = tilted_moments(batch, alpha)
        assert close(moments.log_partition, exact.log_z(alpha), moment_error(theta, target, 0))
        assert close(moments.delta, exact.delta(alpha), moment_error(theta, target, 1))
        assert close(moments.variance, exact.variance(alpha), moment_error(theta, target, 2))
        assert moments.mean is moments.delta


@FAMILY
def test_both_divergences_of_q(family: str) -> None:
    theta, target, batch, exact = one_row(family)
    error = 3 * moment_error(theta, target, 1)
    for alpha in (0.0, 0.2, 0.5, 1.0):
        moments, log_q = tilted_moments(batch, alpha), e_geodesic(batch, alpha)
        assert close(moments.kl_to_theta, exact.kl_to_theta(alpha), error)
        assert close(moments.kl_to_target, exact.kl_to_target(alpha), error)
        assert close(kl(log_q, batch.theta), exact.kl_to_theta(alpha), error)
        assert close(kl(log_q, batch.target), exact.kl_to_target(alpha), error)


@FAMILY
def test_derivatives_along_the_family(family: str) -> None:
    """Δ' = −Var, (log Z)' = −Δ, KL(q‖π_θ)' = −(1−α)Var, KL(q‖π_t)' = αVar: mpmath's derivatives of the definitions."""
    theta, target, batch, exact = one_row(family, seed=1)
    for alpha in (0.1, 0.5, 0.8):
        moments = tilted_moments(batch, alpha)
        variance, error = moments.variance, moment_error(theta, target, 2)
        assert close(-variance, mp.diff(exact.delta, alpha), error)
        assert close(-moments.delta, mp.diff(exact.log_z, alpha), error)
        assert close(variance, mp.diff(exact.log_z, alpha, 2), error)
        assert close(-(1 - alpha) * variance, mp.diff(exact.kl_to_theta, alpha), error)
        assert close(alpha * variance, mp.diff(exact.kl_to_target, alpha), error)


@FAMILY
def test_mixture_is_the_normalised_product_of_powers(family: str) -> None:
    _, _, batch, exact = one_row(family)
    for alpha in ALPHAS:
        q = e_geodesic(batch, alpha)[0].exp()
        assert q.tolist() == pytest.approx([float(x) for x in exact.q(alpha)], rel=1e-12, abs=1e-300)
    assert torch.allclose(e_geodesic(batch, 0.0), batch.target, rtol=0, atol=1e-12)
    assert torch.allclose(e_geodesic(batch, 1.0), batch.theta, rtol=0, atol=1e-12)


def test_logits_1600_nats_apart() -> None:
    """±800: weights down to e^−1600 must not underflow into a wrong log Z."""
    theta, target = np.array([800.0, -800.0, 0.0, 1.0]), np.array([-800.0, 800.0, 0.0, 3.0])
    batch = PolicyBatch.from_logits(theta, target)
    with mp.workdps(1500):
        exact = Exact(theta, target)
        for alpha in (0.0, 0.3, 0.5, 1.0):
            moments = tilted_moments(batch, alpha)
            assert close(moments.log_partition, exact.log_z(alpha), moment_error(theta, target, 0))
            assert close(moments.delta, exact.delta(alpha), moment_error(theta, target, 1))
            assert close(moments.variance, exact.variance(alpha), moment_error(theta, target, 2))
        result = solve_alpha(batch)
        assert result.status == (Status.SOLVED,)
        assert close(result.alpha, exact.alpha_kl(), 1e-9)


def test_grids_of_alpha_broadcast_against_rows() -> None:
    batch = PolicyBatch.from_logits(*draw("gaussian", 3, 6, 0))
    grid = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
    moments = tilted_moments(batch, grid)
    assert moments.mean.shape == moments.kl_to_theta.shape == moments.alpha.shape == (4, 3)
    for path in (e_geodesic, m_geodesic, fisher_rao_arc):
        assert path(batch, grid).shape == (4, 3, 6)
    assert ess_fraction(batch, grid).shape == (4, 3)
    for i in range(3):
        alone = tilted_moments(batch.rows(i), grid)
        assert torch.allclose(alone.variance[:, 0], moments.variance[:, i], rtol=1e-14, atol=0)


# --- §3: divergences ---------------------------------------------------------------------------------------------


@FAMILY
def test_divergences_from_their_definitions(family: str) -> None:
    theta, target, batch, exact = one_row(family, seed=2)
    p, q, error = exact.theta, exact.target, 4 * moment_error(theta, target, 1)
    pairs = list(zip(p, q, strict=True))
    assert close(kl(batch.theta, batch.target), mp_kl(p, q), error)
    assert close(kl(batch.target, batch.theta), mp_kl(q, p), error)
    assert close(entropy(batch.theta), -mp.fsum(a * mp.log(a) for a in p), error)
    assert close(total_variation(batch.theta, batch.target), mp.fsum(abs(a - b) for a, b in pairs) / 2, error)
    # χ² is a sum of e^(2·log-prob …): an error δ of a log-probability is a relative error of a few δ.
    truth = mp.fsum((b - a) ** 2 / a for a, b in pairs)
    assert close(log_chi2(batch.target, batch.theta), mp.log(truth), 8 * log_prob_error(theta, target) / _sigma(exact))
    assert float(chi2(batch.target, batch.theta)) == pytest.approx(float(truth), rel=1e-9)
    for order in (0.3, 0.5, 2.0, 3.0):
        direct = mp.log(mp.fsum(a**order * b ** (1 - order) for a, b in pairs)) / (order - 1)
        bound = (1 + order) * error / abs(order - 1)
        assert close(renyi(batch.theta, batch.target, order), direct, bound)
    assert torch.equal(renyi(batch.theta, batch.target, 1), kl(batch.theta, batch.target))


def _sigma(exact: Exact) -> float:
    """How far the policies differ, at most 1: what relative errors of small divergences are divided by."""
    return min(1.0, float(mp.sqrt(exact.variance(0.5))))


@FAMILY
def test_log_partition_is_renyis_divergence(family: str) -> None:
    """log Z(α) = (α − 1)·D_α(π_θ‖π_t); −log Z(½) is the Bhattacharyya distance."""
    theta, target, batch, exact = one_row(family, seed=3)
    for alpha in (0.2, 0.5, 0.8):
        divergence = float(renyi(batch.theta, batch.target, alpha))
        assert close(exact.log_z(alpha), (alpha - 1) * divergence, moment_error(theta, target, 0))
    truth = -mp.log(mp.fsum(mp.sqrt(a * b) for a, b in zip(exact.theta, exact.target, strict=True)))
    assert close(bhattacharyya(batch), truth, moment_error(theta, target, 0))


@FAMILY
def test_effective_sample_size(family: str) -> None:
    """1/E_q[w²] summed over tokens, w = π_θ/q; and exp(−D₂(π_θ‖q))."""
    _, _, batch, exact = one_row(family)
    for alpha in (0.0, 0.3, 0.5, 1.0):
        q = exact.q(alpha)
        truth = 1 / mp.fsum(b * (a / b) ** 2 for a, b in zip(exact.theta, q, strict=True))
        by_renyi = (-renyi(batch.theta, e_geodesic(batch, alpha), 2.0)).exp()
        assert float(ess_fraction(batch, alpha)) == pytest.approx(float(truth), rel=1e-11)
        assert float(by_renyi) == pytest.approx(float(truth), rel=1e-11)
    assert float(ess_fraction(batch, 1.0)) == pytest.approx(1, rel=1e-12)


def test_divergences_of_policies_with_zeros() -> None:
    batch = PolicyBatch.from_probs([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], [[0.25, 0.25, 0.5], [0.5, 0.5, 0.0]])
    p, q = batch.theta, batch.target
    assert kl(p, q).tolist() == pytest.approx([np.log(2), INF])
    assert kl(q, p).tolist() == pytest.approx([INF, np.log(2)])
    assert renyi(p, q, 2.0).tolist() == pytest.approx([np.log(2), INF])
    assert renyi(p, q, 0.5).tolist() == pytest.approx([np.log(2), np.log(2)])
    assert chi2(p, q).tolist() == pytest.approx([1.0, INF])
    assert total_variation(p, q).tolist() == pytest.approx([0.5, 0.5])
    assert entropy(p).tolist() == pytest.approx([np.log(2), 1.5 * np.log(2)])
    assert chi2(p, p).tolist() == kl(p, p).tolist() == [0.0, 0.0]
    # E_q[w²] = ∞ as soon as q lacks a token of π_θ: no effective samples, except on-policy.
    assert ess_fraction(batch, 0.5).tolist() == pytest.approx([1.0, 0.0])
    assert ess_fraction(batch, 1.0)[0].item() == pytest.approx(1.0)


# --- §3: three paths ---------------------------------------------------------------------------------------------

PATHS = {"e": e_geodesic, "m": m_geodesic, "fisher-rao": fisher_rao_arc}


def np_angle(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """2·arccos Σ√(pq), as 4·arcsin(½‖√p − √q‖), which keeps its digits for near points."""
    return 4 * np.arcsin(np.sqrt(np.sum((np.sqrt(p) - np.sqrt(q)) ** 2, -1)) / 2)


@FAMILY
@pytest.mark.parametrize("path", PATHS)
def test_paths_run_from_target_to_theta_and_stay_normalised(path: str, family: str) -> None:
    _, _, batch, _ = one_row(family)
    points = PATHS[path](batch, torch.linspace(0, 1, 9, dtype=torch.float64)[:, None])
    assert torch.allclose(points[0].exp(), batch.target.exp(), rtol=0, atol=1e-14)
    assert torch.allclose(points[-1].exp(), batch.theta.exp(), rtol=0, atol=1e-14)
    assert torch.allclose(points.exp().sum(-1), torch.ones(9, 1, dtype=torch.float64), rtol=0, atol=1e-14)


@FAMILY
def test_fisher_rao_distance_and_arc(family: str) -> None:
    _, _, batch, exact = one_row(family)
    root_product = mp.fsum(mp.sqrt(a * b) for a, b in zip(exact.theta, exact.target, strict=True))
    omega = mp.acos(root_product)
    assert float(fisher_rao_distance(batch)) == pytest.approx(float(2 * omega), rel=1e-11)
    p, q = np.array(exact.theta, dtype=float), np.array(exact.target, dtype=float)
    for s in (0.0, 0.3, 0.9, 1.0):
        got = fisher_rao_arc(batch, s)[0].exp().numpy()
        w = float(omega)
        expected = ((np.sin(s * w) * np.sqrt(p) + np.sin((1 - s) * w) * np.sqrt(q)) / np.sin(w)) ** 2
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-15)
        # A geodesic at constant speed.
        assert np_angle(got, q) == pytest.approx(s * 2 * w, rel=1e-7, abs=1e-12)


def test_fisher_rao_distance_of_near_identical_policies() -> None:
    """arccos Σ√(pq) loses all digits below 1e-8; the distance must not."""
    rng = np.random.default_rng(5)
    theta = 2 * rng.normal(size=9)
    target = theta + 1e-9 * rng.normal(size=9)
    exact = Exact(theta, target)
    truth = 2 * mp.acos(mp.fsum(mp.sqrt(a * b) for a, b in zip(exact.theta, exact.target, strict=True)))
    got = float(fisher_rao_distance(PolicyBatch.from_logits(theta, target)))
    assert got == pytest.approx(float(truth), rel=16 * log_prob_error(theta) / 1e-9)


def test_fisher_rao_distance_of_disjoint_policies_is_pi() -> None:
    batch = PolicyBatch.from_logits([0.0, -INF], [-INF, 0.0])
    assert float(fisher_rao_distance(batch)) == pytest.approx(np.pi, rel=4 * EPS)
    assert fisher_rao_arc(batch, 0.5).exp().tolist() == [pytest.approx([0.5, 0.5])]
    assert m_geodesic(batch, 0.25).exp().tolist() == [pytest.approx([0.25, 0.75])]


@FAMILY
def test_path_lengths_by_quadrature_and_by_chords(family: str) -> None:
    theta, target, batch, _ = one_row(family)
    lt, lg = np_log_softmax(theta), np_log_softmax(target)
    ell, p, q = lg - lt, np.exp(lt), np.exp(lg)

    def e_speed(alpha: float) -> float:
        w = np.exp(np_log_softmax(alpha * lt + (1 - alpha) * lg))
        return float(np.sqrt(np.sum(w * (ell - np.sum(w * ell)) ** 2)))

    def m_speed(s: float) -> float:
        return float(np.sqrt(np.sum((q - p) ** 2 / (s * p + (1 - s) * q))))

    lengths = path_lengths(batch)
    for got, speed in ((lengths.e_geodesic, e_speed), (lengths.m_geodesic, m_speed)):
        expected, error = quad(speed, 0, 1, epsabs=1e-11, epsrel=1e-11, limit=400)
        assert float(got) == pytest.approx(expected, rel=1e-7, abs=1e-8 + 10 * error)
        # Theory: no path is shorter than 2ω.
        assert float(got) >= float(lengths.fisher_rao) - 1e-8
    # Sums of chords on the core's own points approach each length from below, quadratically in the step.
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
    for path, got in (
        (e_geodesic, lengths.e_geodesic),
        (m_geodesic, lengths.m_geodesic),
        (fisher_rao_arc, lengths.fisher_rao),
    ):
        points = path(batch, grid)[:, 0].exp().numpy()
        chords = float(np.sum(np_angle(points[1:], points[:-1])))
        assert chords <= float(got) * (1 + 1e-7) + 1e-10
        assert chords == pytest.approx(float(got), rel=1e-3)


def test_m_geodesic_length_on_unequal_supports() -> None:
    """The speed is infinite at both ends, the length is finite."""
    batch = PolicyBatch.from_logits([0.0, -INF, 1.0], [1.0, 0.0, -INF])
    p, q = (np.exp(np_log_softmax(np.array(x))) for x in ([0.0, -INF, 1.0], [1.0, 0.0, -INF]))

    def speed(u: float) -> float:  # s = sin²u
        return np.sqrt(np.sum((p - q) ** 2 / (np.sin(u) ** 2 * p + np.cos(u) ** 2 * q))) * np.sin(2 * u)

    assert float(path_lengths(batch).m_geodesic) == pytest.approx(quad(speed, 0, np.pi / 2)[0], abs=1e-7)
    apart = PolicyBatch.from_logits([0.0, -INF], [-INF, 0.0])
    with pytest.raises(DisjointSupportError, match="1 of 1 rows"):
        path_lengths(apart)


# --- §4: supports ------------------------------------------------------------------------------------------------


def masked_rows(rows: int, vocab: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    theta, target = 2 * rng.normal(size=(2, rows, vocab))
    theta[rng.random((rows, vocab)) < 0.3] = -INF
    target[rng.random((rows, vocab)) < 0.3] = -INF
    theta[:, 0], target[:, 0] = rng.normal(size=(2, rows))  # always one common token
    return theta, target


def test_family_on_unequal_supports() -> None:
    """q_α lives on S; log Z(0) = log π_t(S), log Z(1) = log π_θ(S)."""
    theta, target = masked_rows(30, 6, 1)
    batch = PolicyBatch.from_logits(theta, target)
    for i in range(30):
        exact, row = Exact(theta[i], target[i]), batch.rows(i)
        for alpha, policy in ((0.0, exact.target), (1.0, exact.theta)):
            mass = mp.fsum(policy[j] for j in exact.common)
            assert close(tilted_moments(row, alpha).log_partition, mp.log(mass), 1e-13)
        for alpha in (0.0, 0.4, 1.0):
            moments = tilted_moments(row, alpha)
            assert close(moments.delta, exact.delta(alpha), 1e-12)
            assert close(moments.kl_to_theta, exact.kl_to_theta(alpha), 1e-12)
            assert close(moments.kl_to_target, exact.kl_to_target(alpha), 1e-12)
            q = [float(x) for x in exact.q(alpha)]
            assert e_geodesic(row, alpha)[0].exp().tolist() == pytest.approx(q, abs=1e-14)


def test_root_on_the_common_support_exists_iff_the_gap_changes_sign() -> None:
    theta, target = masked_rows(200, 6, 2)
    result = solve_alpha(PolicyBatch.from_logits(theta, target))
    seen = set()
    for i in range(200):
        exact, alpha, status = Exact(theta[i], target[i]), float(result.alpha[i]), result.status[i]
        seen.add(status)
        start, end = exact.delta(0), exact.delta(1)
        equal = bool((np.isfinite(theta[i]) == np.isfinite(target[i])).all())
        if len(exact.common) == 1 and equal:
            assert status is Status.IDENTICAL
        elif start > 0 > end:
            assert status is (Status.SOLVED if equal else Status.SOLVED_ON_COMMON_SUPPORT)
            assert alpha == pytest.approx(float(exact.alpha_kl()), abs=1e-9)
        else:
            assert status is Status.NO_INTERIOR_ROOT
            assert alpha == (1.0 if start > 0 else 0.0)
            # The reported end point is the limiting one: log Z is least and |Δ| is least there.
            assert exact.log_z(alpha) <= exact.log_z(1 - alpha)
            assert close(result.residual[i], exact.delta(alpha), 1e-12)
            assert result.bracket[i].tolist() == [alpha, alpha]
    assert {Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT, Status.NO_INTERIOR_ROOT} <= seen


# --- §5: KL symmetry ---------------------------------------------------------------------------------------------

ADVERSARIAL = {
    "two tokens": ([0.0, 3.0], [1.0, -2.0]),
    "three tokens": ([0.0, 1.0, 5.0], [5.0, 1.0, 0.0]),
    "a hundred nats": ([50.0, -50.0, 0.0], [-50.0, 50.0, 1.0]),
    "near one-hot, same token": ([14.0, 0.0, 1.0, 2.0], [15.0, 2.0, 1.0, 0.0]),
    "near one-hot, other token": ([40.0, 0.0, 1.0, 2.0], [0.0, 45.0, 1.0, 0.0]),
    "one-hot against uniform": ([30.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 5),
    "duplicates": ([1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]),
    "a single token differs": ([0.0] * 9 + [0.01], [0.0] * 10),
    "one token in a hundred": ([0.0] * 99 + [12.0], [0.0] * 99 + [-12.0]),
    "root near 0": ([30.0, 0.0, 0.0], [0.0, 1e-3, 0.0]),
    "−inf in both": ([0.0, -INF, 1.0, 2.0], [1.0, -INF, 5.0, 0.0]),
    "finfo.min as a mask": ([0.0, -3.0e38, 1.0, 2.0], [1.0, -3.4e38, 5.0, 0.0]),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_alpha_on_adversarial_rows(name: str) -> None:
    theta, target = (np.array(x) for x in ADVERSARIAL[name])
    masked = tuple(np.where(x < -1e30, -INF, x) for x in (theta, target))
    result, exact = solve_alpha(PolicyBatch.from_logits(theta, target)), Exact(*masked)
    truth = exact.alpha_kl()
    assert result.status == (Status.SOLVED,)
    # |α − α*| ≤ |error of Δ| / Var, and never worse than the 1e-6 where Var ≥ 1e-6.
    tolerance = min(1e-6, 1e-11 + moment_error(*masked, 1) / float(exact.variance(truth)))
    assert float(result.alpha) == pytest.approx(float(truth), abs=tolerance)
    both = exact.kl_to_theta(truth)
    assert close(chernoff_information(PolicyBatch.from_logits(theta, target)), both, 4 * moment_error(*masked, 0))


def test_policies_equal_to_rounding_are_called_identical() -> None:
    """Two near-one-hot policies 1e-17 apart in total variation: log-probabilities in float64 cannot tell α."""
    result = solve_alpha(PolicyBatch.from_logits([40.0, 0.0, 1.0, 2.0], [45.0, 2.0, 1.0, 0.0]))
    assert result.status == (Status.IDENTICAL,)
    assert result.alpha.item() == 0.5


@FAMILY
def test_alpha_against_mpmath(family: str) -> None:
    theta, target = draw(family, 6, 10, 7)
    batch = PolicyBatch.from_logits(theta, target)
    result = solve_alpha(batch)
    roots = find_roots(batch)
    for i in range(6):
        exact = Exact(theta[i], target[i])
        truth, variance = exact.alpha_kl(), float(exact.variance(exact.alpha_kl()))
        assert variance >= 1e-6
        alpha, error = float(result.alpha[i]), moment_error(theta[i], target[i], 1)
        assert result.status[i] is Status.SOLVED
        assert alpha == pytest.approx(float(truth), abs=min(1e-6, 2e-12 + error / variance))
        # The certificate: residual and bracket say where the root is.
        low, high = result.bracket[i].tolist()
        assert low <= alpha <= high
        assert high - low <= 1e-8
        assert exact.delta(low) >= -error
        assert exact.delta(high) <= error
        assert close(result.residual[i], exact.delta(alpha), error)
        assert close(roots.variance[i], exact.variance(alpha), moment_error(theta[i], target[i], 2))
        least = min(float(exact.variance(low)), float(exact.variance(high)))
        assert abs(alpha - float(truth)) <= (abs(float(result.residual[i])) + error) / (0.99 * least) + EPS


@pytest.mark.parametrize("vocab", [2, 3, 1000, 50257])
@FAMILY
def test_alpha_against_brentq(family: str, vocab: int) -> None:
    rows = 2 if vocab > 10_000 else 5
    theta, target = draw(family, rows, vocab, 8)
    batch = PolicyBatch.from_logits(theta, target)
    result = solve_alpha(batch)
    lt, lg = np_log_softmax(theta), np_log_softmax(target)
    checked = 0
    for i in range(rows):
        if np.array_equal(lt[i], lg[i]):  # possible for a few tied tokens
            assert result.status[i] is Status.IDENTICAL
            continue
        truth = brentq(partial(np_delta, lt[i], lg[i]), 0, 1, xtol=1e-14, rtol=8 * EPS)
        if tilted_moments(batch.rows(i), truth).variance.item() < 1e-6:
            continue
        checked += 1
        assert result.status[i] is Status.SOLVED
        assert float(result.alpha[i]) == pytest.approx(truth, abs=1e-6)
        # A step of the solver's tolerance, 1e-12, moves Δ by Var times as much.
        variance = tilted_moments(batch.rows(i), truth).variance.item()
        allowed = 2 * moment_error(theta[i], target[i], 1) + 2e-12 * variance
        assert abs(np_delta(lt[i], lg[i], float(result.alpha[i]))) <= allowed
    assert checked >= 1


@FAMILY
def test_alpha_is_the_chernoff_point(family: str) -> None:
    """α_KL minimises log Z (found by SciPy, without Δ), and both KLs there are −min log Z."""
    theta, target, batch, exact = one_row(family, seed=4)
    lt, lg = np_log_softmax(theta), np_log_softmax(target)

    def log_z(a: float) -> float:
        x = a * lt + (1 - a) * lg
        return float(np.log(np.sum(np.exp(x - x.max()))) + x.max())

    best = minimize_scalar(log_z, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    result = solve_alpha(batch)
    error = 4 * moment_error(theta, target, 0)
    # A minimum is located to √(ε/Var) by values, its height to ε.
    spread = float(tilted_moments(batch, best.x).variance)
    assert float(result.alpha) == pytest.approx(best.x, abs=4 * np.sqrt(error / spread))
    information = float(chernoff_information(batch))
    assert information == pytest.approx(-best.fun, abs=error)
    moments = tilted_moments(batch, result.alpha)
    assert float(moments.kl_to_theta) == pytest.approx(information, abs=error + abs(float(moments.delta)))
    assert float(moments.kl_to_target) == pytest.approx(information, abs=error + abs(float(moments.delta)))
    assert close(chernoff_information(batch), exact.kl_to_theta(exact.alpha_kl()), error)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@CRITERION
@FAMILY
def test_narrow_dtypes_lose_nothing_after_input(family: str, criterion: str, dtype: torch.dtype) -> None:
    """The rounded input decides: float16, bfloat16 and float32 give what the same numbers give as float64."""
    theta, target = (torch.tensor(x).to(dtype) for x in draw(family, 4, 30, 9))
    narrow = solve_alpha(PolicyBatch.from_logits(theta, target), criterion)
    wide = solve_alpha(PolicyBatch.from_logits(theta.double(), target.double()), criterion)
    assert narrow.alpha.dtype == torch.float64
    assert torch.equal(narrow.alpha, wide.alpha)
    assert torch.equal(narrow.residual, wide.residual)
    assert narrow.status == wide.status


def test_roots_report_their_iterations() -> None:
    batch = PolicyBatch.from_logits(*draw("peaked", 20, 12, 3))
    roots = find_roots(batch)
    assert roots.converged.all()
    assert (roots.iterations <= 60).all()
    starved = find_roots(batch, max_iterations=2)
    assert not starved.converged.all()
    for i in range(20):
        low, high = starved.bracket[i].tolist()
        assert tilted_moments(batch.rows(i), low).mean.item() >= 0 >= tilted_moments(batch.rows(i), high).mean.item()
        assert low <= roots.alpha[i].item() <= high


# --- §5: SNR -----------------------------------------------------------------------------------------------------

GRID = np.linspace(0, 1, 2001)


def dense_best(snr, grid: np.ndarray = GRID) -> tuple[float, float]:
    """(argmax, maximum) of |snr| on [0, 1]: a dense grid, then SciPy around its best point."""
    values = np.abs(snr(grid))
    k, step = int(values.argmax()), grid[1]
    low, high = max(0.0, grid[k] - step), min(1.0, grid[k] + step)
    inside = minimize_scalar(lambda a: -abs(snr(a)[0]), bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    return (float(inside.x), -float(inside.fun)) if -inside.fun > values[k] else (float(grid[k]), float(values[k]))


def golden_section(f) -> float:
    """What the document proposes (§5.1) for the maximum of SNR."""
    ratio = (5**0.5 - 1) / 2
    low, high = 0.0, 1.0
    while high - low > 1e-8:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if f(left) > f(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def snr_row(family: str, seed: int, referenced: bool, weights: str, vocab: int = 12):
    """(batch, signed SNR as a NumPy function of α)."""
    theta, target = draw(family, 1, vocab, seed)
    reference = draw_reference(1, vocab, seed) if referenced else None
    given = [theta, target] + ([reference] if referenced else [])
    logs = [np_log_softmax(x)[0] for x in given] + ([] if referenced else [None])
    return PolicyBatch.from_logits(*given), partial(np_snr, *logs, weights=weights)


@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
@CONVENTION
@FAMILY
def test_snr_maximum_is_global(family: str, weights: str, referenced: bool) -> None:
    for seed in range(3):
        batch, snr = snr_row(family, seed, referenced, weights)
        where, height = dense_best(snr)
        result = solve_alpha(batch, "snr", weights)
        best = result.maxima[0][0]
        assert result.status == (Status.SOLVED,)
        assert best.value == pytest.approx(height, rel=1e-9)
        assert best.sign == np.sign(snr(best.alpha)[0])
        assert float(result.alpha) == best.alpha
        assert float(result.residual) == best.slope
        low, high = result.bracket[0].tolist()
        assert low <= best.alpha <= high
        # Two cells of the search where the maximum is a grid point.
        assert high - low <= 1 / 32
        if np.abs(snr(GRID)).min() < 0.999 * height:  # a plateau has no place to compare
            # Heights within 1e-9 of the top reach √(2e-9/curvature) to either side.
            assert abs(snr(best.alpha)[0]) == pytest.approx(height, rel=1e-9)
            near = np.abs(snr(np.clip([best.alpha - 0.01, best.alpha + 0.01], 0, 1)))
            assert where == pytest.approx(best.alpha, abs=1e-3) or near.max() > height * (1 - 1e-6)


# Rows with an independent reference, found by a seeded search, on which golden section ends on a lower maximum.
MISLEADING = [
    ("gaussian", "importance", 3),
    ("gaussian", "importance", 10),
    ("gaussian", "inverse", 44),
    ("peaked", "importance", 13),
    ("peaked", "inverse", 64),
    ("peaked", "inverse", 111),
    ("zipf", "importance", 46),
]


@pytest.mark.parametrize(("family", "weights", "index"), MISLEADING)
def test_snr_where_golden_section_fails(family: str, weights: str, index: int) -> None:
    theta, target = draw(family, 150, 12, 1)
    reference = draw_reference(150, 12, 1) * (3 if family == "peaked" else 1)
    batch = PolicyBatch.from_logits(theta[index], target[index], reference[index])
    snr = partial(np_snr, *(np_log_softmax(x[index]) for x in (theta, target, reference)), weights=weights)
    _, height = dense_best(snr)
    fooled = golden_section(lambda a: abs(snr(a)[0]))
    assert abs(snr(fooled)[0]) < 0.9 * height
    assert solve_alpha(batch, "snr", weights).maxima[0][0].value == pytest.approx(height, rel=1e-9)


def peaks(values: np.ndarray, prominence: float) -> list[int]:
    """Grid points that are local maxima and stand out of both valleys by the relative `prominence`."""
    padded = np.concatenate([[-1.0], values, [-1.0]])
    tops = [k for k in range(len(values)) if padded[k] < values[k] >= padded[k + 2]]
    out = []
    for k in tops:
        higher_left = [j for j in range(k) if values[j] > values[k]]
        higher_right = [j for j in range(k + 1, len(values)) if values[j] > values[k]]
        valleys = []
        if higher_left:
            valleys.append(values[higher_left[-1] : k].min())
        if higher_right:
            valleys.append(values[k : higher_right[0] + 1].min())
        if not valleys or max(valleys) < values[k] * (1 - prominence):
            out.append(k)
    return out


# Rows with maxima so close to an end point, or to a change of sign of Φ₁, that a coarse grid misses them.
NARROW = [
    ("peaked", "inverse", 50),
    ("peaked", "importance", 81),
    ("zipf", "inverse", 122),
    ("gaussian", "inverse", 0),
]


@pytest.mark.parametrize(("family", "weights", "index"), [*MISLEADING, *NARROW])
def test_every_local_maximum_is_reported(family: str, weights: str, index: int) -> None:
    theta, target = draw(family, 150, 12, 1)
    reference = draw_reference(150, 12, 1) * (3 if family == "peaked" else 1)
    batch = PolicyBatch.from_logits(theta[index], target[index], reference[index])
    snr = partial(np_snr, *(np_log_softmax(x[index]) for x in (theta, target, reference)), weights=weights)
    # Maxima at an end point can be as narrow as a step: look closer there.
    fine = np.sort(np.unique(np.concatenate([GRID, np.geomspace(1e-7, 1e-3, 60), 1 - np.geomspace(1e-7, 1e-3, 60)])))
    values = np.abs(snr(fine))
    expected = sorted(fine[k] for k in peaks(values, 1e-9))
    maxima = solve_alpha(batch, "snr", weights).maxima[0]
    assert sorted(m.alpha for m in maxima) == pytest.approx(expected, abs=1e-3)
    assert [m.value for m in maxima] == sorted((m.value for m in maxima), reverse=True)
    for m in maxima:
        signed = snr(m.alpha)[0]
        assert m.value == pytest.approx(abs(signed), rel=1e-9)
        assert m.sign == np.sign(signed)
        assert m.bracket[0] <= m.alpha <= m.bracket[1]
        around = np.abs(snr(np.clip([m.alpha - 1e-5, m.alpha + 1e-5], 0, 1)))
        assert (around <= m.value * (1 + 1e-10)).all()
        if 0 < m.alpha < 1:
            assert abs(m.slope) <= 1e-6


@pytest.mark.parametrize(
    ("vocab", "scale", "index"),
    [(4, 10, 127), (12, 8, 252), (12, 8, 286), (12, 20, 45), (12, 20, 95), (12, 8, 271), (12, 20, 171)],
)
def test_snr_maximum_that_hides_between_two_grid_points(vocab: int, scale: float, index: int) -> None:
    """SNR rises at both ends of a cell 1/64 wide, with a maximum and a minimum (often Φ₁ = 0) inside.

    About 0.4 % of peaked rows with an independent reference; the last two have no change of sign there.
    """
    rng = np.random.default_rng([vocab, scale])
    spread = np.array([scale, scale, scale * (3 if scale == 8 else 1)])[:, None, None]
    rows = [x[index] for x in rng.normal(size=(3, 300, vocab)) * spread]
    snr = partial(np_snr, *map(np_log_softmax, rows))
    _, height = dense_best(snr)
    result = solve_alpha(PolicyBatch.from_logits(*rows), "snr")
    # The oracle's grid may itself miss the very top: the answer must reach it, and be what it says it is.
    assert result.maxima[0][0].value >= height * (1 - 1e-6)
    assert abs(snr(result.alpha.item())[0]) == pytest.approx(result.maxima[0][0].value, rel=1e-6)


def test_signal_that_changes_sign_has_maxima_of_both_signs() -> None:
    theta, target = draw("peaked", 150, 12, 1)
    reference = 3 * draw_reference(150, 12, 1)
    maxima = solve_alpha(PolicyBatch.from_logits(theta[50], target[50], reference[50]), "snr", "inverse").maxima[0]
    assert {m.sign for m in maxima} == {-1, 1}


@CONVENTION
def test_no_maximum_is_invented_on_a_plateau(weights: str) -> None:
    """A runner-up must stand out of its valley by more than rounding (1e-12 of its height)."""
    theta, target = draw("peaked", 150, 12, 1)
    reference = 3 * draw_reference(150, 12, 1)
    batch = PolicyBatch.from_logits(theta, target, reference)
    for i, maxima in enumerate(solve_alpha(batch, "snr", weights).maxima):
        snr = partial(np_snr, *(np_log_softmax(x[i]) for x in (theta, target, reference)), weights=weights)
        for rank, m in enumerate(maxima[1:], 1):
            higher = min(maxima[:rank], key=lambda other, m=m: abs(other.alpha - m.alpha))
            # Valleys can lie close to a narrow maximum: look there on a logarithmic scale.
            between = np.abs(snr(m.alpha + (higher.alpha - m.alpha) * np.geomspace(1e-9, 1, 200)))
            assert between.min() < m.value * (1 - 1e-12), f"row {i}: maximum at {m.alpha} is not one"


@CONVENTION
@pytest.mark.parametrize("gap", [20.0, 30.0, 38.0, 60.0])
def test_snr_maximum_of_near_one_hot_rows(gap: float, weights: str) -> None:
    """Both policies within e^(−gap) of one token (mpmath): α_SNR is 1 (importance) or a plateau from 0 on (inverse)."""
    theta, target = np.array([gap, 0.0, 0.0, 1.0]), np.array([0.0, 0.0, gap, -1.0])
    with mp.workdps(120):
        exact = Exact(theta, target, None, weights)
        values = [exact.snr(mp.mpf(k) / 64) for k in range(65)]
    rising = [a < b for a, b in pairwise(values)]
    assert all(rising) if weights == "importance" else not any(rising)
    result = solve_alpha(PolicyBatch.from_logits(theta, target), "snr", weights)
    assert result.maxima[0][0].value == pytest.approx(float(max(values)), rel=1e-9)
    assert len(result.maxima[0]) == 1, "SNR is monotone in α: there is one maximum"
    if weights == "importance":
        assert float(result.alpha) == 1
        assert float(result.residual) > 0


def test_snr_maxima_at_end_points() -> None:
    near_one = PolicyBatch.from_logits(*draw("gaussian", 1, 12, 0))
    result = solve_alpha(near_one, "snr")
    assert result.alpha.item() == 1
    assert result.residual.item() > 0
    theta, target = draw("gaussian", 150, 12, 1)
    at_zero = PolicyBatch.from_logits(theta[44], target[44], draw_reference(150, 12, 1)[44])
    result = solve_alpha(at_zero, "snr", "inverse")
    assert result.alpha.item() == 0
    assert result.residual.item() < 0


@CONVENTION
def test_two_tokens_make_snr_flat(weights: str) -> None:
    """SNR ≡ √χ²(π_t‖π_θ) for every α."""
    theta, target = 3 * np.random.default_rng(0).normal(size=(2, 20, 2))
    batch = PolicyBatch.from_logits(theta, target)
    result = solve_alpha(batch, "snr", weights)
    assert set(result.status) == {Status.FLAT}
    assert result.solved.all()
    assert (result.alpha == 0.5).all()
    assert result.maxima == ((),) * 20
    p, q = np.exp(np_log_softmax(theta)), np.exp(np_log_softmax(target))
    bound = np.sqrt(np.sum((q - p) ** 2 / p, -1))
    for i in range(20):
        got = np_snr(np.log(p[i]), np.log(q[i]), None, np.array([0.0, 0.3, 1.0]), weights)
        assert got == pytest.approx(bound[i], rel=1e-9)


@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
@CONVENTION
def test_snr_maximum_on_a_large_vocabulary(weights: str, referenced: bool) -> None:
    """V = 20 000 goes through the compressed row; the oracle uses all tokens."""
    for family in ("zipf", "gaussian"):
        batch, snr = snr_row(family, 11, referenced, weights, vocab=20_000)
        _, height = dense_best(snr, np.linspace(0, 1, 101))
        best = solve_alpha(batch, "snr", weights).maxima[0][0]
        assert best.value == pytest.approx(height, rel=1e-8)
        assert abs(snr(best.alpha)[0]) == pytest.approx(height, rel=1e-8)


def test_snr_grid_can_be_refined() -> None:
    batch, _ = snr_row("peaked", 2, True, "importance")
    coarse, fine = find_maxima(batch), find_maxima(batch, grid_points=513)
    assert coarse.rows[0][0].value == pytest.approx(fine.rows[0][0].value, rel=1e-9)


# --- statuses ----------------------------------------------------------------------------------------------------

# θ, t, status by KL symmetry, status by SNR (importance).
CASES = {
    "ordinary": ([0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 3.0, 1.0], Status.SOLVED, Status.SOLVED),
    "identical": ([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], Status.IDENTICAL, Status.IDENTICAL),
    "identical up to a shift": ([0.1, 1.7, -2.3, 3.1], [7.3, 8.9, 4.9, 10.3], Status.IDENTICAL, Status.IDENTICAL),
    "one token left": ([5.0, -INF, -INF, -INF], [1.0, -INF, -INF, -INF], Status.IDENTICAL, Status.IDENTICAL),
    "two tokens left": ([0.0, 1.0, -INF, -INF], [1.0, -1.0, -INF, -INF], Status.SOLVED, Status.FLAT),
    "target knows more": (
        [0.0, 1.0, 3.0, -INF],
        [0.0, 3.0, 0.0, -3.0],
        Status.SOLVED_ON_COMMON_SUPPORT,
        Status.SOLVED_ON_COMMON_SUPPORT,
    ),
    "truncated target": (
        [0.0, 1.0, 3.0, -2.0],
        [0.0, 3.0, 0.0, -INF],
        Status.SOLVED_ON_COMMON_SUPPORT,
        Status.NO_COVERAGE,
    ),
    "top-1 of itself": ([0.0, 1.0, 3.0, -2.0], [-INF, -INF, 3.0, -INF], Status.NO_INTERIOR_ROOT, Status.NO_COVERAGE),
    "disjoint": ([0.0, 1.0, -INF, -INF], [-INF, -INF, 0.0, 0.0], Status.DISJOINT, Status.DISJOINT),
    "±800": ([800.0, -800.0, 0.0, 1.0], [-800.0, 800.0, 0.0, 3.0], Status.SOLVED, Status.SOLVED),
    "one-hot masks": ([0.0, -1e4, -1e4, -1e4], [-1e4, -1e4, -1e4, 0.0], Status.DISJOINT, Status.DISJOINT),
    "two equal tokens": ([0.0, 0.0, -INF, -INF], [1.0, 1.0, -INF, -INF], Status.IDENTICAL, Status.IDENTICAL),
}


@pytest.mark.parametrize("name", CASES)
def test_status(name: str) -> None:
    theta, target, by_kl, by_snr = CASES[name]
    batch = PolicyBatch.from_logits(theta, target)
    for criterion, expected in (("kl_symmetry", by_kl), ("snr", by_snr)):
        result = solve_alpha(batch, criterion)
        assert result.status == (expected,)
        assert result.solved.tolist() == [expected.is_solution]
        assert_numbers(result)
        if expected in {Status.IDENTICAL, Status.FLAT, Status.DISJOINT, Status.NO_COVERAGE}:
            assert result.alpha.item() == 0.5


def test_one_token_vocabulary() -> None:
    batch = PolicyBatch.from_logits([[3.0], [0.0]], [[1.0], [0.0]])
    for criterion in ("kl_symmetry", "snr"):
        result = solve_alpha(batch, criterion)
        assert result.status == (Status.IDENTICAL, Status.IDENTICAL)
        assert_numbers(result)


@CONVENTION
def test_snr_beyond_double_precision_says_so(weights: str) -> None:
    """√χ² = e^800 cannot be written down; α by KL symmetry still can."""
    batch = PolicyBatch.from_logits([800.0, -800.0, 0.0], [-800.0, 800.0, 0.0])
    result = solve_alpha(batch, "snr", "inverse")
    assert result.status == (Status.OUT_OF_RANGE,)
    assert not result.solved.any()
    assert_numbers(result)
    assert_numbers(solve_alpha(batch, "snr", weights))
    assert solve_alpha(batch).alpha.item() == pytest.approx(0.5, abs=1e-9)


def test_independent_reference_without_the_token_is_no_coverage() -> None:
    batch = PolicyBatch.from_logits([0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [0.0, -INF, 1.0])
    assert solve_alpha(batch, "snr").status == (Status.NO_COVERAGE,)
    assert solve_alpha(batch, "kl_symmetry").status == (Status.SOLVED,)


@CONVENTION
def test_reward_that_vanishes_is_not_called_solved(weights: str) -> None:
    """π_ref = π_t: r = 0 and SNR = 0/0 for every α, also where the two logits differ by a rounded shift."""
    theta, target = np.array([0.1, 1.7, -2.3, 3.1]), np.array([1.3, 0.2, 0.7, -1.1])
    for shift in (0.0, 7.2):
        result = solve_alpha(PolicyBatch.from_logits(theta, target, target + shift), "snr", weights)
        assert result.status == (Status.NO_SIGNAL,)
        assert not result.solved.any()
        assert result.alpha.item() == 0.5


@CONVENTION
@pytest.mark.parametrize("target", [[0.0, 0.0, 0.0], [0.3, 0.0, 0.1], [2.0, -1.0, 0.7]])
def test_theta_that_is_the_target_truncated_has_no_snr_maximum(target: list[float], weights: str) -> None:
    """ℓ is constant on the support of π_θ, so every tilt is constant and no update changes anything."""
    result = solve_alpha(PolicyBatch.from_logits([-INF, *target[1:]], target), "snr", weights)
    assert not {Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT} & set(result.status)
    assert result.maxima == ((),)
    assert_numbers(result)


def test_starved_iteration_is_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria, "find_roots", partial(find_roots, max_iterations=2))
    theta, target = draw("peaked", 20, 12, 3)
    result = solve_alpha(PolicyBatch.from_logits(theta, target))
    assert Status.NOT_CONVERGED in result.status
    assert_numbers(result)
    for i, status in enumerate(result.status):
        low, high = result.bracket[i].tolist()
        root = float(Exact(theta[i], target[i]).alpha_kl())
        assert low <= root <= high, status
        assert result.solved[i].item() == (status is not Status.NOT_CONVERGED)


def test_every_status_explains_itself() -> None:
    elsewhere = {Status.OUT_OF_RANGE, Status.NOT_CONVERGED, Status.NO_SIGNAL, Status.NO_ASCENT}  # tests of their own
    reached = {s for case in CASES.values() for s in case[2:]} | elsewhere
    assert reached == set(Status)
    for status in Status:
        said = status.explanation
        assert said.symptom
        assert said.cause
        assert said.remedy
        assert str(status) == status.value


@pytest.mark.parametrize(("criterion", "weights"), [("kl_symmetry", "importance"), *(("snr", w) for w in WEIGHTS)])
def test_rows_of_every_kind_side_by_side(criterion: str, weights: str) -> None:
    theta, target = (np.array([case[k] for case in CASES.values()]) for k in (0, 1))
    together = solve_alpha(PolicyBatch.from_logits(theta, target), criterion, weights)
    assert_numbers(together)
    assert len(together.maxima) == len(together.status) == len(CASES)
    for i, name in enumerate(CASES):
        alone = solve_alpha(PolicyBatch.from_logits(theta[i], target[i]), criterion, weights)
        assert together.status[i] is alone.status[0], name
        assert together.alpha[i].item() == alone.alpha.item(), name
        assert together.residual[i].item() == pytest.approx(alone.residual.item(), rel=1e-9, abs=1e-12), name
        assert together.bracket[i].tolist() == alone.bracket[0].tolist(), name
        assert together.maxima[i] == alone.maxima[0], name


def test_batches_larger_than_a_chunk() -> None:
    theta, target = draw("gaussian", 6000, 50, 0)
    target[::7] = theta[::7]
    batch = PolicyBatch.from_logits(theta, target)
    assert len(list(batch.chunks())) > 1
    assert sum(len(c) for c in batch.chunks()) == 6000
    result = solve_alpha(batch)
    assert [s is Status.IDENTICAL for s in result.status] == [i % 7 == 0 for i in range(6000)]
    for i in (1, 5242, 5243, 5244, 5999):
        assert result.alpha[i].item() == pytest.approx(solve_alpha(batch.rows(i)).alpha.item(), abs=1e-12)


def test_refusals() -> None:
    batch = PolicyBatch.from_logits([0.0, 1.0], [1.0, 0.0])
    with pytest.raises(
        OptionError,
        match=r"criterion is 'best': expected one of kl_symmetry, reverse_kl_symmetry, snr, signed_snr, wald",
    ):
        solve_alpha(batch, "best")
    with pytest.raises(OptionError, match=r"weights is 'w': expected one of importance, inverse"):
        solve_alpha(batch, "snr", "w")
    apart = PolicyBatch.from_logits([[0.0, 1.0], [0.0, -INF]], [[1.0, 0.0], [-INF, 0.0]])
    for function in (
        chernoff_information,
        bhattacharyya,
        partial(tilted_moments, alpha=0.5),
        partial(e_geodesic, alpha=0.5),
    ):
        with pytest.raises(DisjointSupportError, match=r"1 of 2 rows .*first: row 1"):
            function(apart)
