"""Section 2 of the theory (document §1–3): learning progress, its expansion, step sizes and SNR.

The oracle is `strategies.Exact`: mpmath, from the definitions J(π') − J(π), Σ(π_t − π_θ)wr and Var_θ[wr].
"""

from __future__ import annotations

from dataclasses import dataclass

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from strategies import (
    EPS,
    WEIGHTS,
    Exact,
    draw,
    draw_reference,
    log_prob_error,
    logit_pairs,
    mp_kl,
    mp_softmax,
    np_log_softmax,
)

from geomix_core import (
    CoverageError,
    DisjointSupportError,
    OptionError,
    PolicyBatch,
    exact_progress,
    exact_step,
    learning_signal,
    solve_alpha,
    updated_policy,
)
from geomix_core.divergences import chi2, kl
from geomix_core.progress import (
    exact_progress_from,
    expansion_remainder,
    learning_signal_from,
    third_cumulant,
)

ALPHAS = (0.0, 0.3, 0.5, 1.0, 1.5)
INF = np.inf


@dataclass
class Row:
    """One row: its logits, the core's batch, the oracle, and the error δ of its float64 log-probabilities."""

    theta: np.ndarray
    target: np.ndarray
    reference: np.ndarray | None
    weights: str

    def __post_init__(self) -> None:
        given = [x for x in (self.theta, self.target, self.reference) if x is not None]
        self.batch = PolicyBatch.from_logits(*given)
        self.exact = Exact(self.theta, self.target, self.reference, self.weights)
        self.delta = log_prob_error(*given)

    def reach(self, where: float | list[mp.mpf]) -> list[mp.mpf]:
        """What δ is multiplied by in h, per token, at α or at a sampling distribution q."""
        return self.exact.reach_from(where if isinstance(where, list) else self.exact.q(where))

    def phi1_error(self, where: float | list[mp.mpf]) -> float:
        e = self.exact
        masses = zip(e.theta, e.target, self.reach(where), strict=True)
        return float(8 * self.delta * mp.fsum((p + t) * x for p, t, x in masses))

    def phi2_error(self, where: float | list[mp.mpf]) -> float:
        masses = zip(self.exact.theta, self.reach(where), strict=True)
        return float(16 * self.delta * mp.fsum(p * x**2 for p, x in masses))

    def third_error(self, alpha: float) -> float:
        """∂κ₃/∂h is 3π_θ(c² − Φ₂), c = h − E_θ[h], and ∂κ₃/∂log π_θ at most π_θ(|c|³ + 3Φ₂|c|)."""
        e, h = self.exact, self.exact.tilt(alpha)
        mean = mp.fsum(p * x for p, x in zip(e.theta, h, strict=True))
        second = e.cumulant_of(h, 2)
        terms = (
            p * (3 * (c**2 + second) * x + abs(c) ** 3 + 3 * second * abs(c))
            for p, c, x in zip(e.theta, [x - mean for x in h], self.reach(alpha), strict=True)
        )
        return float(8 * self.delta * mp.fsum(terms))

    def progress_error(self, where: float | list[mp.mpf], eta: float) -> float:
        """η E_t[h] is off by η·Σπ_t·δh, the log-sum-exp by at most η·max δh, both by a few ulp of their own size."""
        return float(8 * self.delta * (1 + eta * max(self.reach(where))))


def make(family: str, weights: str, referenced: bool, seed: int = 0, vocab: int = 7) -> Row:
    theta, target = draw(family, 1, vocab, seed)
    reference = draw_reference(1, vocab, seed)[0] if referenced else None
    return Row(theta[0], target[0], reference, weights)


def column(*values: float) -> torch.Tensor:
    """Parameters `[A, 1]`, which broadcast against rows."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


FAMILY = pytest.mark.parametrize("family", ["dirichlet", "gaussian", "zipf", "peaked", "near", "tied"])
CONVENTION = pytest.mark.parametrize("weights", WEIGHTS)
REFERENCE = pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])


@pytest.fixture
def row(family: str, weights: str, referenced: bool) -> Row:
    return make(family, weights, referenced)


def every_row(test):
    return FAMILY(CONVENTION(REFERENCE(test)))


# --- Φ₁, Φ₂ and what follows from them ---------------------------------------------------------------------------


@every_row
def test_signal_and_noise_are_the_documents_sums(row: Row) -> None:
    signal = learning_signal(row.batch, column(*ALPHAS), row.weights)
    for i, alpha in enumerate(ALPHAS):
        assert float(signal.phi1[i, 0]) == pytest.approx(float(row.exact.phi1(alpha)), abs=row.phi1_error(alpha), rel=0)
        noise = float(row.exact.cumulant(alpha, 2))
        assert float(signal.phi2[i, 0]) == pytest.approx(noise, abs=row.phi2_error(alpha), rel=0)


@every_row
def test_snr_step_and_gain_follow_from_the_sums(row: Row) -> None:
    for alpha in (0.0, 0.5, 1.0):
        signal = learning_signal(row.batch, alpha, row.weights)
        phi1, phi2 = row.exact.phi1(alpha), row.exact.cumulant(alpha, 2)
        rel = row.phi1_error(alpha) / abs(float(phi1)) + row.phi2_error(alpha) / float(phi2)
        assert float(signal.snr) == pytest.approx(float(abs(phi1) / mp.sqrt(phi2)), rel=rel)
        assert float(signal.signed_snr) == pytest.approx(float(phi1 / mp.sqrt(phi2)), rel=rel)
        assert float(signal.quadratic_step) == pytest.approx(float(phi1 / phi2), rel=rel)
        assert float(signal.quadratic_gain) == pytest.approx(float(phi1**2 / (2 * phi2)), rel=2 * rel)
        assert float(signal.quadratic_gain) == pytest.approx(float(signal.snr) ** 2 / 2, rel=4 * EPS)
        assert float(signal.sign) == mp.sign(phi1)


@every_row
def test_slope_of_log_snr_is_its_derivative(row: Row) -> None:
    for alpha in (0.0, 0.4, 1.0):
        truth = mp.diff(lambda a: mp.log(row.exact.snr(a)), alpha)
        got = float(learning_signal(row.batch, alpha, row.weights).log_slope)
        phi1, phi2 = abs(float(row.exact.phi1(alpha))), float(row.exact.cumulant(alpha, 2))
        span = 2 * float(max(abs(x) for x in row.exact.ell.values())) + 1
        # Both logarithmic derivatives are ratios whose numerators carry one more factor ℓ than Φ₁ and Φ₂.
        tolerance = span * (row.phi1_error(alpha) / phi1 + row.phi2_error(alpha) / phi2)
        assert got == pytest.approx(float(truth), abs=2 * tolerance, rel=0)


@CONVENTION
@pytest.mark.parametrize("gap", [20.0, 30.0, 34.0, 38.0, 60.0, 1200.0])
def test_slope_of_log_snr_on_near_one_hot_rows(gap: float, weights: str) -> None:
    """Both policies within e^(−gap) of one token: the derivative must not be cancellation noise of that token."""
    theta, target = np.array([gap, 0.0, 0.0, 1.0]), np.array([0.0, 0.0, gap, -1.0])
    batch = PolicyBatch.from_logits(theta, target)
    with mp.workdps(1200 if gap > 100 else 120):
        exact = Exact(theta, target, None, weights)
        for alpha in (0.0, 0.5, 63 / 64, 1.0):
            truth = float(mp.diff(lambda a: mp.log(exact.snr(a)), alpha))
            got = float(learning_signal(batch, alpha, weights).log_slope)
            # δ·gap in the exponent of every term, times ℓ ≤ 2·gap in the derivative.
            assert got == pytest.approx(truth, abs=8 * log_prob_error(theta, target) * (1 + 2 * gap) ** 2, rel=0)


@CONVENTION
@pytest.mark.parametrize(
    ("theta", "target"),
    [
        ([800.0, -800.0, 0.0, 1.0], [-800.0, 800.0, 0.0, 3.0]),
        ([800.0, 0.0, 0.0], [0.0, 0.0, 800.0]),
        ([0.0, -800.0, 800.0, 800.0], [-800.0, 800.0, 0.0, 799.0]),
        # At α = 0 a token whose probabilities underflow in both policies dominates: w = e^830.
        ([0.0, -760.0, -5.0, 1.0], [1.0, -1590.0, -3.0, 0.0]),
    ],
)
def test_signal_and_noise_of_logits_800_apart(theta: list[float], target: list[float], weights: str) -> None:
    """Compared as logarithms, because Φ₂ itself (e^±1600) is outside float64."""
    batch, delta = PolicyBatch.from_logits(theta, target), log_prob_error(np.array(theta), np.array(target))
    with mp.workdps(1600):
        exact = Exact(theta, target, None, weights)
        for alpha in (0.0, 0.5, 0.9, 1.0):
            signal = learning_signal(batch, alpha, weights)
            # A log of products of e^(±1600·…): its error is δ times a few, and relative rounding of the log.
            tolerance = 64 * delta
            assert float(signal.log_abs_phi1) == pytest.approx(float(mp.log(exact.phi1(alpha))), abs=tolerance)
            assert float(signal.log_phi2) == pytest.approx(float(mp.log(exact.cumulant(alpha, 2))), abs=tolerance)
            assert float(signal.log_snr) == pytest.approx(float(mp.log(exact.snr(alpha))), abs=tolerance)


@CONVENTION
def test_target_is_conditioned_on_what_theta_can_produce(weights: str) -> None:
    """No update can move a token that π_θ lacks: Φ₁, Φ₂ and progress are those of π_t given the others."""
    theta, target = np.array([0.0, 1.0, -INF, 2.0]), np.array([1.0, 0.5, 2.0, -1.0])
    batch = PolicyBatch.from_logits(theta, target)
    p, t = (np.exp(x - np.logaddexp.reduce(x)) for x in (theta, target))
    kept = [0, 1, 3]
    conditioned = t[kept] / t[kept].sum()
    reward = np.log(t[kept] / p[kept])
    for alpha in ALPHAS:
        q = p[kept] ** alpha * t[kept] ** (1 - alpha)
        q /= q.sum()
        h = reward * (p[kept] / q if weights == "importance" else q / p[kept])
        signal = learning_signal(batch, alpha, weights)
        assert float(signal.phi1) == pytest.approx(((conditioned - p[kept]) * h).sum(), rel=1e-12)
        assert float(signal.phi2) == pytest.approx((p[kept] * h**2).sum() - (p[kept] * h).sum() ** 2, rel=1e-12)
        for eta in (0.01, 1.0):
            direct = eta * (conditioned * h).sum() - np.log((p[kept] * np.exp(eta * h)).sum())
            assert float(exact_progress(batch, alpha, eta, weights)) == pytest.approx(direct, rel=1e-9)
        assert updated_policy(batch, alpha, 1.0, weights)[0, 2] == -INF


@CONVENTION
def test_default_reference_never_has_a_negative_signal(weights: str) -> None:
    for family in ("dirichlet", "gaussian", "peaked", "near", "tied"):
        batch = PolicyBatch.from_logits(*draw(family, 50, 9, 5))
        assert (learning_signal(batch, torch.linspace(0, 1, 11)[:, None], weights).sign > 0).all()


# --- exact progress ----------------------------------------------------------------------------------------------


@every_row
def test_exact_progress_is_the_change_of_J(row: Row) -> None:
    for alpha in (0.0, 0.5, 1.0):
        for eta in (0.0, 1e-3, 0.3, 1.0, 4.0):
            got = float(exact_progress(row.batch, alpha, eta, row.weights))
            truth = float(row.exact.progress(alpha, eta))
            assert got == pytest.approx(truth, abs=row.progress_error(alpha, eta), rel=8 * EPS)


@every_row
def test_updated_policy_is_the_exponential_tilt(row: Row) -> None:
    for alpha, eta in ((0.0, 0.3), (0.5, 1.0), (1.0, 2.0)):
        log_p = updated_policy(row.batch, alpha, eta, row.weights)[0]
        assert float(log_p.exp().sum()) == pytest.approx(1, abs=16 * EPS)
        for got, p in zip(log_p.tolist(), row.exact.updated(alpha, eta), strict=True):
            truth = mp.log(p)
            assert got == pytest.approx(float(truth), abs=2 * row.progress_error(alpha, eta), rel=8 * EPS)


@CONVENTION
@FAMILY
def test_on_policy_unit_step_with_the_default_reference_reaches_the_target(family: str, weights: str) -> None:
    """q = π_θ makes w = 1 and h = ℓ, so π_θ' = π_θ e^ℓ = π_t, and progress is KL(π_t‖π_θ)."""
    row = make(family, weights, referenced=False)
    log_p = updated_policy(row.batch, 1.0, 1.0, weights)
    assert torch.allclose(log_p, row.batch.target, rtol=0, atol=8 * row.delta)
    truth = float(mp_kl(row.exact.target, row.exact.theta))
    assert float(exact_progress(row.batch, 1.0, 1.0, weights)) == pytest.approx(
        truth, abs=row.progress_error(1.0, 1.0), rel=0
    )


@every_row
def test_no_update_gains_more_than_the_divergence(row: Row) -> None:
    """Donsker–Varadhan: Progress ≤ KL(π_t‖π_θ) for every α and η."""
    bound = float(mp_kl(row.exact.target, row.exact.theta))
    alpha = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None, None]
    eta = column(0.01, 0.1, 1.0, 3.0, 10.0, 1e3)
    gain = exact_progress(row.batch, alpha, eta, row.weights)
    assert not gain.isnan().any()
    # Progress is a small difference of numbers as large as ηh: that much rounding, no more.
    size = torch.tensor([float(max(row.reach(float(a)))) for a in alpha.flatten()], dtype=torch.float64)[:, None, None]
    assert (gain <= bound + 8 * row.delta * (1 + eta * size)).all()


@CONVENTION
def test_progress_of_logits_800_apart(weights: str) -> None:
    theta, target = [800.0, -800.0, 0.0, 1.0], [-800.0, 800.0, 0.0, 3.0]
    batch = PolicyBatch.from_logits(theta, target)
    eta = column(0.0, 0.3, 1.0, 2.0)
    gain = exact_progress(batch, 1.0, eta, weights)[:, 0]
    with mp.workdps(1600):
        exact = Exact(theta, target, None, weights)
        truth = [float(exact.progress(1.0, float(x))) for x in eta.flatten()]
    assert gain.tolist() == pytest.approx(truth, rel=64 * EPS, abs=64 * log_prob_error(np.array(theta)))


@CONVENTION
@REFERENCE
def test_progress_is_a_number_where_the_tilt_overflows(weights: str, referenced: bool) -> None:
    """h reaches e^1600: no NaN, no step without a gain of zero, and never above the divergence of 1600 nats."""
    theta, target = [800.0, -800.0, 0.0, 1.0], [-800.0, 800.0, 0.0, 3.0]
    batch = PolicyBatch.from_logits(theta, target, [0.0, 1.0, 2.0, 3.0] if referenced else None)
    alpha = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None, None]
    gain = exact_progress(batch, alpha, column(0.0, 1e-300, 1e-6, 0.3, 1.0, 2.0, 1e10, 1e300), weights)
    assert not gain.isnan().any()
    assert (gain <= 1600 * (1 + 16 * EPS)).all()
    assert (gain[:, 0] == 0).all()
    assert not updated_policy(batch, alpha.squeeze(-1), 1.0, weights).isnan().any()
    assert not exact_step(batch, alpha.squeeze(-1), weights).isnan().any()


@CONVENTION
@REFERENCE
def test_near_identical_policies_keep_their_digits(weights: str, referenced: bool) -> None:
    """σ = 1e-6: Φ's and progress are ~1e-12 (or 1e-6), yet their relative error is only δ/σ."""
    rng = np.random.default_rng(3)
    theta = 2 * rng.normal(size=8)
    target = theta + 1e-6 * rng.normal(size=8)
    row = Row(theta, target, 2 * rng.normal(size=8) if referenced else None, weights)
    rel = 64 * row.delta / 1e-6
    for alpha in (0.0, 0.5, 1.0):
        signal = learning_signal(row.batch, alpha, weights)
        assert float(signal.phi1) == pytest.approx(float(row.exact.phi1(alpha)), rel=rel, abs=0)
        assert float(signal.phi2) == pytest.approx(float(row.exact.cumulant(alpha, 2)), rel=rel, abs=0)
        assert float(signal.snr) == pytest.approx(float(row.exact.snr(alpha)), rel=rel, abs=0)
        # Independent reference: h = O(1), so only a small step has a progress that is not Var_θ[h]-dominated.
        for eta in (1e-7, 1e-6) if referenced else (0.3, 1.0, 3.0):
            gain = float(exact_progress(row.batch, alpha, eta, weights))
            assert gain == pytest.approx(float(row.exact.progress(alpha, eta)), rel=rel, abs=0)
    assert float(kl(row.batch.target, row.batch.theta)) == pytest.approx(
        float(mp_kl(row.exact.target, row.exact.theta)), rel=rel, abs=0
    )


# --- Theorem 1: the expansion ------------------------------------------------------------------------------------


@every_row
def test_expansion_against_autograd(row: Row) -> None:
    """dP/dη = Φ₁ and d²P/dη² = −Φ₂ at η = 0, for P = Σπ_t log softmax(log π_θ + ηh) written anew in torch."""
    log_theta, log_target = (torch.tensor(np_log_softmax(x)) for x in (row.theta, row.target))
    log_reference = log_theta if row.reference is None else torch.tensor(np_log_softmax(row.reference))
    for alpha in (0.0, 0.6, 1.0):
        log_q = torch.log_softmax(alpha * log_theta + (1 - alpha) * log_target, -1)
        log_w = log_theta - log_q if row.weights == "importance" else log_q - log_theta
        h = log_w.exp() * (log_target - log_reference)
        eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        j = (log_target.exp() * torch.log_softmax(log_theta + eta * h, -1)).sum()
        (first,) = torch.autograd.grad(j, eta, create_graph=True)
        (second,) = torch.autograd.grad(first, eta)
        signal = learning_signal(row.batch, alpha, row.weights)
        # The oracle is itself float64: twice the rounding.
        assert float(signal.phi1) == pytest.approx(first.item(), abs=2 * row.phi1_error(alpha), rel=0)
        assert float(signal.phi2) == pytest.approx(-second.item(), abs=2 * row.phi2_error(alpha), rel=0)


@every_row
def test_remainder_is_the_third_cumulant(row: Row) -> None:
    """Progress − quadratic = −η³κ₃/6 up to η⁴R⁴/192 (Lagrange; |κ₄| ≤ R⁴/8 for a variable of range R)."""
    for alpha in (0.3, 1.0):
        h = row.exact.tilt(alpha)
        span = float(max(h) - min(h))
        signal = learning_signal(row.batch, alpha, row.weights)
        for eta in (0.3 / span, 0.03 / span):
            remainder = float(exact_progress(row.batch, alpha, eta, row.weights) - signal.quadratic_progress(eta))
            cubic = -(eta**3) * float(row.exact.cumulant(alpha, 3)) / 6
            rounding = row.progress_error(alpha, eta) + eta * row.phi1_error(alpha) + eta**2 * row.phi2_error(alpha)
            assert remainder == pytest.approx(cubic, abs=(eta * span) ** 4 / 192 + rounding, rel=0)


@CONVENTION
@REFERENCE
def test_remainder_falls_with_slope_three(weights: str, referenced: bool) -> None:
    row = make("gaussian", weights, referenced, seed=2)
    h = row.exact.tilt(0.5)
    span, third = float(max(h) - min(h)), abs(float(row.exact.cumulant(0.5, 3)))
    # Here the quartic is at most 2 % of the cubic, so a slope over a factor 8 is 3 ± 2·0.02/log 8.
    top = 0.02 * 32 * third / span**4
    eta = top / 2.0 ** np.arange(4)
    signal = learning_signal(row.batch, 0.5, weights)
    remainder = [abs(float(exact_progress(row.batch, 0.5, e, weights) - signal.quadratic_progress(e))) for e in eta]
    slope = np.log(remainder[0] / remainder[-1]) / np.log(eta[0] / eta[-1])
    # Φ's and progress share their h, so only the rounding of ηΦ₁ stands against the remainder: below 0.1 % of it.
    assert remainder[-1] > 1e3 * 4 * EPS * eta[-1] * float(abs(row.exact.phi1(0.5)))
    assert slope == pytest.approx(3, abs=0.025)


@every_row
def test_third_cumulant_is_the_central_moment(row: Row) -> None:
    got = third_cumulant(row.batch, column(*ALPHAS), row.weights)
    for i, alpha in enumerate(ALPHAS):
        truth = float(row.exact.cumulant(alpha, 3))
        assert float(got[i, 0]) == pytest.approx(truth, abs=row.third_error(alpha), rel=0)


@CONVENTION
def test_third_cumulant_of_logits_800_apart(weights: str) -> None:
    """π_θh³ is in range where h³ is not (e^1600); beyond float64 it is ±inf, never NaN."""
    theta, target = np.array([800.0, -800.0, 0.0, 1.0]), np.array([-800.0, 800.0, 0.0, 3.0])
    batch, delta = PolicyBatch.from_logits(theta, target), log_prob_error(theta, target)
    with mp.workdps(2400):
        exact = Exact(theta, target, None, weights)
        for alpha in (0.0, 0.5, 0.6, 0.9, 1.0):
            truth = float(exact.cumulant(alpha, 3))  # mpmath rounds what is out of range to ±inf and 0
            got = float(third_cumulant(batch, alpha, weights))
            # Three factors h, each an exponential of numbers of size 1600.
            assert got == pytest.approx(truth, rel=64 * delta, abs=1e-300)


@every_row
def test_remainder_is_what_the_quadratic_leaves(row: Row) -> None:
    for alpha in (0.0, 0.5, 1.0):
        phi1, phi2 = row.exact.phi1(alpha), row.exact.cumulant(alpha, 2)
        for eta in (0.0, 1e-3, 0.3, 1.0, 4.0):
            truth = row.exact.progress(alpha, eta) - (eta * phi1 - mp.mpf(eta) ** 2 / 2 * phi2)
            rounding = row.progress_error(alpha, eta) + eta * row.phi1_error(alpha) + eta**2 * row.phi2_error(alpha)
            got = float(expansion_remainder(row.batch, alpha, eta, row.weights))
            assert got == pytest.approx(float(truth), abs=rounding, rel=8 * EPS)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.one_of(logit_pairs(), logit_pairs(reference=True)),
    st.floats(0, 1),
    st.floats(1e-3, 20),
    st.sampled_from(WEIGHTS),
)
def test_remainder_is_the_cubic_up_to_a_quartic(policies, alpha: float, reach: float, weights: str) -> None:
    """|remainder + η³κ₃/6| ≤ (ηM)⁴/192, M the range of h, for a step of any size (`reach` = ηM)."""
    row = Row(*(x[0] for x in policies), *([None] if len(policies) == 2 else []), weights)
    h = row.exact.tilt(alpha)
    span = float(max(h) - min(h))
    eta = reach / span if span > 0 else 1.0
    rounding = row.progress_error(alpha, eta) + eta * row.phi1_error(alpha) + eta**2 * row.phi2_error(alpha)
    remainder = expansion_remainder(row.batch, alpha, eta, weights).item()
    cubic = -(eta**3) / 6 * third_cumulant(row.batch, alpha, weights).item()
    slack = rounding + eta**3 * row.third_error(alpha)
    assert abs(remainder - cubic) <= (eta * span) ** 4 / 192 + slack


@CONVENTION
@REFERENCE
def test_expansion_is_a_number_where_the_tilt_overflows(weights: str, referenced: bool) -> None:
    """Φ₁ and Φ₂ reach e^1600: the quadratic is then ±inf, by the larger term; progress never is; nothing is NaN."""
    theta, target = [800.0, -800.0, 0.0, 1.0], [-800.0, 800.0, 0.0, 3.0]
    reference = [0.0, 1.0, 2.0, 3.0] if referenced else None
    batch = PolicyBatch.from_logits(theta, target, reference)
    alphas, etas = (0.0, 0.25, 0.5, 1.0), (0.0, 1e-300, 1e-6, 1.0, 1e10)
    remainder = expansion_remainder(batch, torch.tensor(alphas)[:, None, None], column(*etas), weights)
    assert not third_cumulant(batch, torch.tensor(alphas)[:, None], weights).isnan().any()
    assert not remainder.isnan().any()
    assert (remainder[:, 0] == 0).all()
    with mp.workdps(1600):
        exact = Exact(theta, target, reference, weights)
        for i, alpha in enumerate(alphas):
            phi1, phi2 = exact.phi1(alpha), exact.cumulant(alpha, 2)
            for j, eta in enumerate(etas):
                quadratic = eta * phi1 - mp.mpf(eta) ** 2 / 2 * phi2
                if abs(quadratic) > 1e309:
                    assert remainder[i, j].item() == float(-mp.sign(quadratic) * mp.inf)


# --- Theorems 2 and 3: step sizes --------------------------------------------------------------------------------


@every_row
def test_quadratic_step_maximises_the_quadratic(row: Row) -> None:
    signal = learning_signal(row.batch, 0.5, row.weights)
    phi1, phi2 = float(row.exact.phi1(0.5)), float(row.exact.cumulant(0.5, 2))
    best = minimize_scalar(lambda x: -(x * phi1 - x * x * phi2 / 2), bracket=(0, phi1 / phi2 / 3))
    # A maximum is located to √ε by comparing values; its height to ε.
    assert float(signal.quadratic_step) == pytest.approx(best.x, rel=1e-6)
    assert float(signal.quadratic_gain) == pytest.approx(-best.fun, rel=1e-9)
    step = signal.quadratic_step
    assert float(signal.quadratic_progress(step)) == pytest.approx(float(signal.quadratic_gain), rel=16 * EPS)
    for factor in (0.9, 1.1):
        assert float(signal.quadratic_progress(step * factor)) < float(signal.quadratic_gain)


def test_quadratic_can_promise_more_than_any_update_gives() -> None:
    batch = PolicyBatch.from_logits(*draw("gaussian", 50, 8, 0))
    promise = learning_signal(batch, 1.0).quadratic_gain
    bound = torch.tensor([float(mp_kl(e.target, e.theta)) for e in map(Exact, *draw("gaussian", 50, 8, 0))])
    assert (promise > 1.1 * bound).any()
    assert (promise < 0.9 * bound).any()


@FAMILY
@CONVENTION
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_exact_step_solves_its_equation(family: str, weights: str, alpha: float) -> None:
    """E_{π_θ'}[h] = E_t[h], against brentq on NumPy (root in log η)."""
    row = make(family, weights, referenced=False)
    lt, lg = np_log_softmax(row.theta), np_log_softmax(row.target)
    log_w = (1 - alpha) * (lt - lg) * (1 if weights == "importance" else -1)
    log_z = np.log(np.sum(np.exp(alpha * lt + (1 - alpha) * lg)))
    h = np.exp(log_w + (log_z if weights == "importance" else -log_z)) * (lg - lt)
    aim = np.sum(np.exp(lg) * h)

    def slope(log_eta: float) -> float:
        p = np.exp(np_log_softmax(lt + np.exp(log_eta) * h))
        return aim - np.sum(p * h)

    got = float(exact_step(row.batch, alpha, weights))
    expected = np.exp(brentq(slope, np.log(1e-12 / np.ptp(h)), np.log(1e6 / np.ptp(h)), xtol=1e-14, rtol=1e-14))
    p = np.exp(np_log_softmax(lt + expected * h))
    curvature = np.sum(p * (h - np.sum(p * h)) ** 2)
    # An error e of the slope moves its root by e/curvature.
    tolerance = row.phi1_error(alpha) * (1 + expected * float(max(row.reach(alpha)))) / curvature
    assert got == pytest.approx(expected, rel=1e-9, abs=tolerance)


@CONVENTION
@REFERENCE
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_exact_step_maximises_exact_progress(alpha: float, weights: str, referenced: bool) -> None:
    for seed in range(4):
        row = make("gaussian", weights, referenced, seed)
        got = float(exact_step(row.batch, alpha, weights))
        if row.exact.phi1(alpha) <= 0:
            assert got == 0
            continue
        scale = float(row.exact.phi1(alpha) / row.exact.cumulant(alpha, 2))
        best = minimize_scalar(
            lambda x, row=row: -float(row.exact.progress(alpha, np.exp(x))),
            bracket=(np.log(scale) - 1, np.log(scale)),
            tol=1e-9,
        )
        assert float(row.exact.progress(alpha, got)) >= -best.fun - row.progress_error(alpha, got)
        assert got == pytest.approx(np.exp(best.x), rel=1e-6)


def test_exact_step_that_takes_the_policy_far() -> None:
    """h spans −2e15 … 0.2, and π_θ' sits on the small values: they must not drown in E_θ[h] ≈ −1e15."""
    row = Row(np.zeros(3), np.array([0.0, 13.0, 33.0]), np.array([0.0, 0.0, 1.0]), "importance")
    h = row.exact.tilt(0.0)
    aim = mp.fsum(t * x for t, x in zip(row.exact.target, h, strict=True))

    def slope(log_eta: mp.mpf) -> mp.mpf:
        return aim - mp.fsum(p * x for p, x in zip(row.exact.updated(0.0, mp.exp(log_eta)), h, strict=True))

    truth = mp.exp(mp.findroot(slope, (mp.log(5e-9), mp.log(8e-9)), solver="ridder"))
    # π_θ'(h − E_t h) are numbers of order 10, known to δ·33: nine digits are there to be had.
    assert float(exact_step(row.batch, 0.0)) == pytest.approx(float(truth), rel=1e-9)


@CONVENTION
def test_on_policy_exact_step_is_one(weights: str) -> None:
    batch = PolicyBatch.from_logits(*draw("gaussian", 20, 9, 1))
    assert torch.allclose(exact_step(batch, 1.0, weights), torch.ones(20, dtype=torch.float64), rtol=1e-9, atol=0)


@CONVENTION
def test_negative_signal_moves_away_from_the_target(weights: str) -> None:
    """An independent reference that likes what π_t avoids: |Φ₁|/√Φ₂ is large, and every step loses."""
    row = Row(np.array([0.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]), np.array([4.0, 0.0, 1.0]), weights)
    for alpha in (0.0, 0.5, 1.0):
        signal = learning_signal(row.batch, alpha, weights)
        assert row.exact.phi1(alpha) < 0
        assert float(signal.sign) == -1
        assert float(signal.signed_snr) == -float(signal.snr) < 0
        assert float(signal.quadratic_step) < 0
        assert float(exact_step(row.batch, alpha, weights)) == 0
        gains = exact_progress(row.batch, alpha, column(1e-3, 0.1, 1.0, 5.0), weights)
        assert (gains < 0).all()


def test_identical_policies_have_nothing_to_learn() -> None:
    x = np.array([0.3, -1.0, 2.0])
    batch = PolicyBatch.from_logits(x, x)
    signal = learning_signal(batch, 0.5)
    for value in (signal.phi1, signal.phi2, signal.snr, signal.quadratic_step, signal.quadratic_gain):
        assert value.item() == 0
    assert exact_step(batch, 0.5).item() == 0
    assert exact_progress(batch, 0.5, 3.0).item() == 0
    assert signal.log_slope.item() == 0


# --- any sampling distribution -----------------------------------------------------------------------------------


def any_q(vocab: int) -> list[np.ndarray]:
    """log q: uniform, three at random, and one that all but excludes a token."""
    rng = np.random.default_rng(vocab)
    logits = [np.zeros(vocab), *(s * rng.normal(size=vocab) for s in (0.5, 2.0, 5.0)), np.eye(vocab)[2] * -30]
    return [np_log_softmax(x) for x in logits]


@every_row
def test_signal_and_progress_of_any_sampling_distribution(row: Row) -> None:
    log_q = any_q(row.batch.vocab_size)
    together = torch.tensor(np.array(log_q))[:, None]
    signal = learning_signal_from(row.batch, together, row.weights)
    etas = (0.0, 1e-3, 0.3, 1.0, 4.0)
    gains = exact_progress_from(row.batch, together[:, None], column(*etas), row.weights)
    assert signal.phi1.shape == (5, 1)
    assert gains.shape == (5, 5, 1)
    for i, x in enumerate(log_q):
        q = [mp.exp(mp.mpf(float(y))) for y in x]  # as given: its rounding is not the core's
        h = row.exact.tilt_from(q)
        phi1, phi2 = row.exact.phi1_of(h), row.exact.cumulant_of(h, 2)
        assert float(signal.phi1[i]) == pytest.approx(float(phi1), abs=row.phi1_error(q), rel=0)
        assert float(signal.phi2[i]) == pytest.approx(float(phi2), abs=row.phi2_error(q), rel=0)
        assert float(signal.sign[i]) == mp.sign(phi1)
        rel = row.phi1_error(q) / abs(float(phi1)) + row.phi2_error(q) / float(phi2)
        assert float(signal.snr[i]) == pytest.approx(float(abs(phi1) / mp.sqrt(phi2)), rel=rel)
        for j, eta in enumerate(etas):
            truth = float(row.exact.progress_of(h, eta))
            assert float(gains[i, j]) == pytest.approx(truth, abs=row.progress_error(q, eta), rel=8 * EPS)


@every_row
def test_the_family_is_a_special_case(row: Row) -> None:
    lt, lg = np_log_softmax(row.theta), np_log_softmax(row.target)
    for alpha in ALPHAS:
        log_q = torch.tensor(np_log_softmax(alpha * lt + (1 - alpha) * lg))[None]
        along, free = (
            learning_signal(row.batch, alpha, row.weights),
            learning_signal_from(row.batch, log_q, row.weights),
        )
        # Both are float64: twice the rounding.
        assert free.phi1.item() == pytest.approx(along.phi1.item(), abs=2 * row.phi1_error(alpha), rel=0)
        assert free.phi2.item() == pytest.approx(along.phi2.item(), abs=2 * row.phi2_error(alpha), rel=0)
        for eta in (0.0, 0.3, 2.0):
            expected = exact_progress(row.batch, alpha, eta, row.weights).item()
            got = exact_progress_from(row.batch, log_q, eta, row.weights).item()
            assert got == pytest.approx(expected, abs=2 * row.progress_error(alpha, eta), rel=8 * EPS)


@CONVENTION
def test_any_distribution_for_each_row_is_a_loop(weights: str) -> None:
    theta, target = draw("gaussian", 4, 6, 4)
    log_q = np_log_softmax(np.random.default_rng(1).normal(size=(4, 6)))
    batch = PolicyBatch.from_logits(theta, target)
    snr = learning_signal_from(batch, torch.tensor(log_q), weights).snr
    gains = exact_progress_from(batch, torch.tensor(log_q), 0.7, weights)
    for i in range(4):
        one, q = batch.rows(i), torch.tensor(log_q[i : i + 1])
        assert snr[i].item() == pytest.approx(learning_signal_from(one, q, weights).snr.item(), rel=1e-13)
        assert gains[i].item() == pytest.approx(exact_progress_from(one, q, 0.7, weights).item(), rel=1e-13)


FROM = pytest.mark.parametrize("function", [learning_signal_from, lambda b, q, w: exact_progress_from(b, q, 0.5, w)])


@FROM
def test_distribution_that_excludes_a_token_is_refused_where_it_divides(function) -> None:
    batch = PolicyBatch.from_logits([[0.0, 1.0, 2.0]] * 2, [[1.0, 0.0, -1.0]] * 2)
    log_q = torch.tensor(np.log([[0.5, 0.25, 0.25], [0.5, 0.5, 1.0]]))
    log_q[1, 2] = -INF
    with pytest.raises(CoverageError, match=r"excludes a token of the current policy in 1 of 2 rows.*covers it"):
        function(batch, log_q, "importance")
    function(batch, log_q, "inverse")
    with pytest.raises(OptionError, match="expected one of importance, inverse"):
        function(batch, log_q, "sideways")


@CONVENTION
def test_excluded_tokens_that_need_no_weight(weights: str) -> None:
    """q may exclude what π_θ excludes, or what has no reward; and in `inverse` anything: w = 0 there."""
    # Powers of two, so that ℓ of the second token is 0 and not its rounding.
    p, t, q = np.array([0.5, 0.25, 0.25, 0.0]), np.array([0.25, 0.25, 0.5, 0.0]), np.array([0.7, 0.0, 0.3, 0.0])
    reward = np.array([-np.log(2), 0.0, np.log(2), 0.0])
    log_q = np.full(4, -INF)
    log_q[[0, 2]] = np.log(q[[0, 2]])
    h = np.zeros(4)
    h[[0, 2]] = reward[[0, 2]] * (p[[0, 2]] / q[[0, 2]]) ** (1 if weights == "importance" else -1)
    batch = PolicyBatch.from_probs(p, t)
    signal = learning_signal_from(batch, torch.tensor(log_q)[None], weights)
    assert signal.phi1.item() == pytest.approx(((t - p) * h).sum(), rel=64 * EPS)
    assert signal.phi2.item() == pytest.approx((p * h**2).sum() - (p * h).sum() ** 2, rel=64 * EPS)
    gain = exact_progress_from(batch, torch.tensor(log_q)[None], 0.8, weights).item()
    assert gain == pytest.approx(0.8 * (t * h).sum() - np.log((p * np.exp(0.8 * h)).sum()), rel=64 * EPS)


# --- shapes and refusals -----------------------------------------------------------------------------------------


@CONVENTION
def test_parameters_broadcast_against_rows(weights: str) -> None:
    batch = PolicyBatch.from_logits(*draw("gaussian", 3, 6, 4))
    alpha, eta = column(0.1, 0.9), column(0.2, 1.0, 3.0)
    grid = exact_progress(batch, alpha[:, None], eta, weights)
    assert grid.shape == (2, 3, 3)
    assert updated_policy(batch, alpha, 1.0, weights).shape == (2, 3, 6)
    steps = exact_step(batch, alpha, weights)
    for i, a in enumerate(alpha.flatten().tolist()):
        assert torch.allclose(steps[i], exact_step(batch, a, weights), rtol=1e-10)
        for j, e in enumerate(eta.flatten().tolist()):
            assert torch.allclose(grid[i, j], exact_progress(batch, a, e, weights), rtol=1e-13, atol=1e-15)
    per_row = learning_signal(batch, column(0.1, 0.5, 0.9).flatten(), weights)
    for i, a in enumerate((0.1, 0.5, 0.9)):
        assert per_row.snr[i].item() == pytest.approx(learning_signal(batch.rows(i), a, weights).snr.item(), rel=1e-13)


@pytest.mark.parametrize("function", [learning_signal, exact_step, lambda b, a, w: exact_progress(b, a, 1.0, w)])
def test_refusals(function) -> None:
    good = PolicyBatch.from_logits([0.0, 1.0], [1.0, 0.0])
    with pytest.raises(OptionError, match="expected one of importance, inverse"):
        function(good, 0.5, "sideways")
    uncovered = PolicyBatch.from_logits([[0.0, 1.0], [np.log(0.25), np.log(0.75)]], [[1.0, 0.0], [-INF, 0.0]])
    with pytest.raises(CoverageError, match=r"1 of 2 rows .*first: row 1, 0\.25 of its mass.*smooth"):
        function(uncovered, 0.5, "importance")
    reference = PolicyBatch.from_logits([0.0, 1.0], [1.0, 0.0], [-INF, 0.0])
    with pytest.raises(CoverageError, match="1 of 1 rows"):
        function(reference, 0.5, "importance")
    apart = PolicyBatch.from_logits([0.0, -INF], [-INF, 0.0])
    with pytest.raises(DisjointSupportError, match="1 of 1 rows"):
        function(apart, 0.5, "importance")


# --- where Σ(π_t − π_θ)h is the small difference of large sums ---------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("sigma", [1e-3, 1e-6, 1e-8, 1e-10])
def test_signal_of_a_nearly_constant_tilt(weights: str, sigma: float) -> None:
    """π_θ truncated and π_t near it there: ℓ is log π_t(S) but for σ. The error is an ulp over σ."""
    rng = np.random.default_rng(3)
    theta = rng.standard_normal(5)
    target = theta + sigma * rng.standard_normal(5)
    theta[2] = -np.inf
    signal = learning_signal(PolicyBatch.from_logits(theta, target), 0.5, weights)
    keep = [0, 1, 3, 4]
    p, t = mp_softmax(theta[keep]), mp_softmax(target)
    mass = mp.fsum(t[i] for i in keep)
    ell = [mp.log(t[i] / x) for i, x in zip(keep, p, strict=True)]
    h = [x * mp.exp((-x if weights == "importance" else x) / 2) for x in ell]
    mean = mp.fsum(x * y for x, y in zip(p, h, strict=True))
    phi1 = mp.fsum((t[i] / mass - x) * y for i, x, y in zip(keep, p, h, strict=True))
    phi2 = mp.fsum(x * (y - mean) ** 2 for x, y in zip(p, h, strict=True))
    assert float(signal.snr) == pytest.approx(float(abs(phi1) / mp.sqrt(phi2)), rel=200 * EPS / sigma, abs=0)
    assert int(signal.sign) == mp.sign(phi1)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_constant_tilt_has_neither_signal_nor_noise(weights: str) -> None:
    """target ∝ reference on the tokens of π_θ: at α = 1 h is constant, and SNR is 0/0, not a quotient of roundings."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        theta, reference = rng.standard_normal((2, 5))
        theta[-1] = -np.inf
        target = reference.copy()
        target[-1] += 2
        batch = PolicyBatch.from_logits(theta, target, reference)
        at_one = learning_signal(batch, 1.0, weights)
        assert (at_one.phi1.item(), at_one.phi2.item(), at_one.snr.item()) == (0, 0, 0)
        best = solve_alpha(batch, "snr", weights)
        ceiling = chi2(torch.log_softmax(batch.target[:, :4], -1), batch.theta[:, :4]).sqrt().item()
        assert learning_signal(batch, best.alpha, weights).snr.item() <= ceiling * (1 + 1e-7)
        # The limit at α = 1 is no less than anything the grid saw.
        near = learning_signal(batch, torch.tensor([[0.9], [0.99], [0.9999]]), weights).snr.max().item()
        assert learning_signal(batch, best.alpha, weights).snr.item() >= near * (1 - 1e-6)
