"""The claims engine: what a verdict says, the numbers it compared, and agreement with section 6 of the theory."""

from __future__ import annotations

import math
from itertools import product

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.optimize import golden, minimize
from strategies import WEIGHTS, Exact, draw, draw_reference

from geomix_core import OptionError, PolicyBatch, solve_alpha
from geomix_core.claims import CLAIMS, Outcome, Setting, check_all
from geomix_core.claims.bench import Bench
from geomix_core.claims.conditions import DISTINCT, OVERLAP
from geomix_core.claims.learning import STEPS
from geomix_core.claims.listing import golden_section
from geomix_core.claims.model import Measurement, claim
from geomix_core.claims.work import growth, numbers_written
from geomix_core.scenarios import real_rows

TWO_CONVENTIONS = pytest.mark.parametrize("weights", WEIGHTS)
TRUNCATED = PolicyBatch.from_probs([0.5, 0.3, 0.2], [0.6, 0.4, 0.0])
IDENTICAL = PolicyBatch.from_probs([0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
DISJOINT = PolicyBatch.from_probs([0.5, 0.5, 0.0], [0.0, 0.0, 1.0])


def gaussian(rows: int = 40, vocab: int = 9, referenced: bool = False, seed: int = 0) -> PolicyBatch:
    theta, target = draw("gaussian", rows, vocab, seed)
    return PolicyBatch.from_logits(theta, target, draw_reference(rows, vocab, seed) if referenced else None)


def one(family: str = "gaussian", vocab: int = 6, seed: int = 1, weights: str = "importance", referenced: bool = False):
    theta, target = (x[0] for x in draw(family, 1, vocab, seed))
    reference = draw_reference(1, vocab, seed)[0] if referenced else None
    return PolicyBatch.from_logits(theta, target, reference), Exact(theta, target, reference, weights)


# --- the ledger --------------------------------------------------------------------------------------------------


def test_the_ledger_names_every_claim_once() -> None:
    assert len(CLAIMS) == 33
    assert all(name == c.name for name, c in CLAIMS.items())
    fields = set(Setting.__dataclass_fields__) | {"reference"}
    assert all(c.uses <= fields for c in CLAIMS.values())


@TWO_CONVENTIONS
@pytest.mark.parametrize("referenced", [False, True])
def test_a_claim_sees_nothing_but_what_it_says_it_uses(weights: str, referenced: bool) -> None:
    """Changing a part of the setting that a claim does not name changes nothing; the reference likewise."""
    batch = gaussian(6, referenced=referenced)
    base = Setting(weights=weights)
    other_weights = WEIGHTS[1 - WEIGHTS.index(weights)]
    variants = {
        "weights": Setting(weights=other_weights),
        "alpha": Setting(weights=weights, alpha=0.8),
        "eta_range": Setting(weights=weights, eta_range=(0.1, 5.0)),
        "samples": Setting(weights=weights, samples=400),
    }
    at_base = check_all(batch, base)
    for name, setting in variants.items():
        for claim_name, found in check_all(batch, setting).items():
            if name not in CLAIMS[claim_name].uses:
                assert found.reasons == at_base[claim_name].reasons
                assert torch.equal(found.excess, at_base[claim_name].excess), (claim_name, name)
    without = check_all(PolicyBatch(batch.theta, batch.target), base)
    for claim_name, found in without.items():
        if "reference" not in CLAIMS[claim_name].uses:
            assert torch.equal(found.excess, at_base[claim_name].excess), claim_name


@TWO_CONVENTIONS
def test_a_batch_gives_what_its_rows_give(weights: str) -> None:
    """Every kind of row side by side; work is counted for a whole batch, so those two claims agree only in outcome."""
    rows = [gaussian(1, 3, seed=s) for s in range(4)] + [TRUNCATED, IDENTICAL, DISJOINT]
    batch = PolicyBatch(torch.cat([r.theta for r in rows]), torch.cat([r.target for r in rows]))
    setting = Setting(weights=weights)
    for name, found in check_all(batch, setting).items():
        for i, row in enumerate(rows):
            single, here = CLAIMS[name].check(row, setting), found.verdict(i)
            assert (single.outcome, single.reason) == (here.outcome, here.reason), (name, i)
            if single.residual is not None and name not in ("section_4_1_gradient", "section_5_1_complexity"):
                assert single.residual == pytest.approx(here.residual, rel=1e-6, abs=1e-9), (name, i)
                assert single.numbers == pytest.approx(here.numbers, rel=1e-6, abs=1e-9, nan_ok=True), (name, i)


def test_long_batches_are_checked_in_chunks_with_the_same_answer() -> None:
    batch = gaussian(3, 200_000)
    assert len(list(batch.chunks())) == 3
    found = CLAIMS["theorem_4_identity"].rows(batch)
    assert len(found) == 3
    for i in range(3):
        assert found.verdict(i) == CLAIMS["theorem_4_identity"].check(batch.rows(i))


def test_float32_policies_are_checked_in_double_precision() -> None:
    """As on a device without float64: their sums are off by 1e-7, which would break every identity."""
    batch = gaussian(4)
    single = PolicyBatch(batch.theta.float(), batch.target.float())
    for name, found in check_all(single).items():
        if name in ALWAYS:
            assert found.summary().outcome is Outcome.HOLDS, name


def test_a_verdict_on_many_rows_is_that_of_all_or_of_most() -> None:
    @claim(needs=(OVERLAP, DISTINCT))
    def every(bench: Bench) -> Measurement:
        return Measurement(torch.arange(len(bench), dtype=torch.float64), 0.5, {"x": 7.0})

    @claim(needs=(OVERLAP, DISTINCT), most=True)
    def most(bench: Bench) -> Measurement:
        return Measurement(torch.arange(len(bench), dtype=torch.float64), 1.5, {})

    batch = gaussian(3)
    assert every.check(batch.rows(slice(0, 1))).outcome is Outcome.HOLDS
    verdict = every.check(batch)
    assert (verdict.outcome, verdict.rows, verdict.held) == (Outcome.FAILS, 3, 1)
    assert (verdict.residual, verdict.tolerance, verdict.numbers) == (2.0, 0.5, {"x": 7.0})  # the worst row
    assert (most.check(batch).outcome, most.check(batch).held) == (Outcome.HOLDS, 2)
    assert every.check(IDENTICAL).reason == "identical"
    mixed = PolicyBatch(torch.cat([IDENTICAL.theta, DISJOINT.theta]), torch.cat([IDENTICAL.target, DISJOINT.target]))
    assert (every.check(mixed).outcome, every.check(mixed).reason) == (Outcome.DOES_NOT_APPLY, "no_rows")


def test_a_residual_that_is_no_number_decides_nothing() -> None:
    @claim()
    def broken(bench: Bench) -> Measurement:
        return Measurement(torch.full((len(bench),), torch.nan), 1.0, {})

    assert broken.check(gaussian(2)).reason == "out_of_range"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"weights": "w"}, "weights is 'w'"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"eta_range": (2.0, 1.0)}, "eta_range"),
        ({"samples": 0}, "samples is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: dict, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        Setting(**kind)


# --- section 6 of the theory -------------------------------------------------------------------------------------

ALWAYS = (
    "theorem_1",
    "theorem_2_step",
    "theorem_3_equivalence",
    "theorem_3_sign",
    "section_3_6_dimensionless",
    "section_4_2_log_linear",
    "section_4_2_geodesic",
    "section_4_2_pareto",
    "section_4_3_ends",
    "section_5_1_complexity",
    "theorem_4_identity",
    "theorem_4_exists",
    "theorem_4_unique",
    "section_6_5_off_policy",
)
"""On distinct policies with equal supports and the default reference."""
NEVER = (
    "section_3_6_scaling",
    "section_4_1_infeasible",
    "section_4_1_gradient",
    "section_4_2_shortest",
    "section_6_1_composition",
)


@TWO_CONVENTIONS
@pytest.mark.parametrize("family", ["gaussian", "dirichlet", "zipf", "near"])
def test_verdicts_are_those_of_the_theory(family: str, weights: str) -> None:
    batch = PolicyBatch.from_logits(*draw(family, 30, 12, 3))
    found = {name: v.summary() for name, v in check_all(batch, Setting(weights=weights)).items()}
    assert {name for name in ALWAYS if found[name].held != 30} == set()
    # The e-geodesic of near-identical policies (σ = 0.01) is longer than the arc by less than the margin.
    never = [n for n in NEVER if not (family == "near" and n == "section_4_2_shortest")]
    assert {name for name in never if found[name].held != 0} == set()
    # With w = q/π_θ the family comes within a millionth where policies nearly agree or two tokens hold all the mass.
    if weights == "importance" and family != "near":
        assert found["theorem_5_optimal"].held == 0
    if weights == "inverse":
        assert found["theorem_5_optimal"].held == (30 if family == "near" else pytest.approx(0, abs=5))
    assert found["section_3_6_intuition"].reason == "interpretation"
    if weights == "importance":  # α_SNR = 1 on every random draw
        assert found["section_5_4_alpha"].held == 0
        assert found["section_5_4_alpha"].numbers["alpha_snr"] == 1
        assert found["theorem_5_equivalent"].outcome is Outcome.HOLDS if family == "near" else Outcome.FAILS


def test_section_5_4_on_the_real_rows() -> None:
    """w = π_θ/q: α_SNR = 1 on every row. w = q/π_θ: near α_KL on the nearly identical pair."""
    for pair in ("privileged", "int8"):
        rows = real_rows(pair)
        batch = PolicyBatch.from_logits(rows.theta, rows.target)
        importance = CLAIMS["section_5_4_alpha"].rows(batch)
        assert importance.fails.all()
        assert (importance.numbers["alpha_snr"] == 1).all()
        if pair == "int8":
            assert CLAIMS["section_5_4_alpha"].check(batch, Setting(weights="inverse")).held == 8


def test_truncated_targets_break_existence_and_nothing_else_of_theorem_4() -> None:
    found = {n: v.summary() for n, v in check_all(TRUNCATED).items()}
    assert found["theorem_4_identity"].outcome is Outcome.HOLDS
    assert found["theorem_4_exists"].outcome is Outcome.FAILS
    assert found["section_4_3_ends"].outcome is Outcome.FAILS
    assert found["section_4_3_ends"].numbers["off_theta"] == pytest.approx(0.2)  # π_θ's mass off the support
    assert found["theorem_1"].reason == "uncovered"
    assumed = {n: v.summary() for n, v in check_all(TRUNCATED, assume=True).items()}
    assert assumed["theorem_4_exists"].reason == "supports"


def test_identical_policies_break_uniqueness() -> None:
    found = {n: v.summary() for n, v in check_all(IDENTICAL).items()}
    assert found["theorem_4_exists"].outcome is Outcome.HOLDS
    assert found["theorem_4_unique"].outcome is Outcome.FAILS
    assert CLAIMS["theorem_4_unique"].check(IDENTICAL, assume=True).reason == "identical"


def test_disjoint_policies_have_no_family_to_speak_of() -> None:
    for name, found in check_all(DISJOINT).items():
        expected = {"section_6_5_uniform": "", "section_3_6_intuition": "interpretation"}.get(name, "disjoint")
        assert found.reasons == (expected,), name


# --- the numbers that were compared, against the definitions -----------------------------------------------------


@TWO_CONVENTIONS
@pytest.mark.parametrize("referenced", [False, True])
def test_numbers_of_theorems_1_and_2(weights: str, referenced: bool) -> None:
    batch, exact = one(weights=weights, referenced=referenced, seed=4)
    setting = Setting(weights=weights, alpha=0.3)
    first = CLAIMS["theorem_1"].check(batch, setting).numbers
    phi1, phi2, kappa3 = exact.phi1(0.3), exact.cumulant(0.3, 2), exact.cumulant(0.3, 3)
    eta = mp.mpf(first["eta"])
    h = exact.tilt(0.3)
    assert min(abs(float(eta * (max(h) - min(h))) / step - 1) for step in STEPS) < 1e-9
    remainder = exact.progress(0.3, eta) - eta * phi1 + eta**2 * phi2 / 2
    assert first["remainder"] == pytest.approx(float(remainder), rel=1e-7)
    assert first["predicted"] == pytest.approx(float(-(eta**3) * kappa3 / 6), rel=1e-9)
    if phi1 > 0:
        second = CLAIMS["theorem_2_gain"].check(batch, setting).numbers
        assert second["promised"] == pytest.approx(float(phi1**2 / phi2 / 2), rel=1e-9)
        assert second["actual"] == pytest.approx(float(exact.progress(0.3, phi1 / phi2)), rel=1e-9, abs=1e-12)
        assert second["ceiling"] >= second["best"] >= second["actual"]
    else:
        assert CLAIMS["theorem_2_gain"].check(batch, setting).reason == "negative"


@TWO_CONVENTIONS
def test_worst_cases_that_the_minimax_label_compares(weights: str) -> None:
    batch, exact = one(weights=weights, seed=2)
    found = CLAIMS["theorem_3_minimax"].check(batch, Setting(weights=weights, eta_range=(0.3, 3.0))).numbers

    def worst(alpha: float) -> float:
        return float(min(exact.progress(alpha, eta) for eta in (0.3, 1.0, 3.0)))

    assert found["at_wald"] == pytest.approx(worst(found["alpha_wald"]), rel=1e-9)
    assert found["at_snr"] == pytest.approx(worst(found["alpha_snr"]), rel=1e-9)
    assert found["at_wald"] >= max(worst(a) for a in np.linspace(0, 1, 101)) - 1e-9


def test_pareto_front_by_minimising_the_weighted_sum() -> None:
    """SLSQP over the simplex, started elsewhere, ends at what the claim calls the least."""
    batch, exact = one(vocab=4, seed=7)
    theta, target = (np.array([float(x) for x in p]) for p in (exact.theta, exact.target))
    alpha = 0.35

    def objective(logits: np.ndarray) -> float:
        q = np.exp(logits - logits.max())
        q /= q.sum()
        return float(alpha * (q * np.log(q / theta)).sum() + (1 - alpha) * (q * np.log(q / target)).sum())

    least = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).fun
    found = CLAIMS["section_4_2_pareto"].check(batch, Setting(alpha=alpha)).numbers
    assert found["least"] == pytest.approx(least, abs=1e-9)
    assert found["least"] == pytest.approx(float(-exact.log_z(alpha)), rel=1e-9)
    assert found["nearest"] > 0


def test_composition_by_writing_out_every_sequence() -> None:
    """Two tokens: after the likeliest first one the same policies again, after any other π_θ under both."""
    batch, exact = one(vocab=3, seed=5)
    alpha = mp.mpf("0.4")
    first = exact.q(alpha)
    top = first.index(max(first))
    weight = {}
    for y, z in product(range(3), repeat=2):
        after = exact.target[z] if y == top else exact.theta[z]
        weight[y, z] = (exact.theta[y] * exact.theta[z]) ** alpha * (exact.target[y] * after) ** (1 - alpha)
    share = mp.fsum(w for (y, _), w in weight.items() if y == top) / mp.fsum(weight.values())
    found = CLAIMS["section_6_1_composition"].check(batch, Setting(alpha=0.4))
    assert found.numbers["per_token"] == pytest.approx(float(first[top]), rel=1e-12)
    assert found.numbers["sequence"] == pytest.approx(float(share), rel=1e-12)
    assert found.residual == pytest.approx(abs(float(share - first[top])), rel=1e-9)


def test_noise_that_knows_no_number_of_samples() -> None:
    batch = gaussian(5)
    few, many = (CLAIMS["section_2_3_noise"].rows(batch, Setting(samples=n)) for n in (4, 400))
    assert torch.allclose(few.numbers["variance"], 100 * many.numbers["variance"])
    assert torch.equal(few.numbers["phi2"], many.numbers["phi2"])


def test_rejection_from_the_uniform_distribution_by_simulation() -> None:
    """Accept y ~ uniform with probability π_t(y)/max π_t: the share within five standard errors of what is claimed."""
    batch, exact = one(vocab=6, seed=3)
    target = np.array([float(p) for p in exact.target])
    rng, draws = np.random.default_rng(0), 200_000
    tokens = rng.integers(6, size=draws)
    accepted = (rng.random(draws) < target[tokens] / target.max()).mean()
    expected = CLAIMS["section_6_5_uniform"].check(batch).numbers["accepted"]
    assert abs(accepted - expected) < 5 * math.sqrt(expected * (1 - expected) / draws)


# --- the document's algorithms, and counted work -----------------------------------------------------------------


def test_golden_section_is_golden_section() -> None:
    """SciPy's golden section on the same unimodal functions; two evaluations to start and one for each shrinking."""
    peaks = torch.tensor([0.123, 0.5, 0.987], dtype=torch.float64)
    found, evaluations = golden_section(lambda a: -((a - peaks) ** 2), peaks, 1e-6)
    for got, peak in zip(found.tolist(), peaks.tolist(), strict=True):
        assert got == pytest.approx(
            golden(lambda a, p=peak: (a - p) ** 2, brack=(0, peak - 0.002, 1), tol=1e-9), abs=1e-6
        )
    assert evaluations == 2 + math.ceil(math.log(1e-6) / math.log((5**0.5 - 1) / 2))


def test_work_is_counted_by_what_it_writes() -> None:
    """A sum of products writes V numbers, an outer product V²."""
    x = torch.ones(100, dtype=torch.float64)
    assert numbers_written(lambda: x * x) == 100
    assert numbers_written(lambda: x[:, None] * x) == 10_000 + 100  # the view counts too
    batch = gaussian(1, 400)
    assert growth(lambda b: b.theta * b.target, batch) == pytest.approx(1, abs=1e-9)
    assert growth(lambda b: b.theta[:, :, None] * b.target[:, None, :], batch) == pytest.approx(2, abs=0.01)


def test_gradient_by_reverse_mode_is_linear_in_the_vocabulary() -> None:
    found = CLAIMS["section_4_1_gradient"].check(gaussian(1, 5000))
    assert found.numbers["exponent"] == pytest.approx(1, abs=0.01)


@TWO_CONVENTIONS
def test_several_maxima_and_where_golden_section_ends(weights: str) -> None:
    """On rows where it fails, there are several maxima, and the value it reached is SNR at the α it found."""
    batch = gaussian(300, 4, referenced=True, seed=11)
    setting = Setting(weights=weights)
    found = CLAIMS["section_5_1_search"].rows(batch, setting)
    assert found.fails.any()
    assert (found.numbers["maxima"][found.fails] > 1).all()
    snr = solve_alpha(batch, "snr", weights)
    assert torch.equal(found.numbers["maxima"], torch.tensor([float(len(m)) for m in snr.maxima]))


# --- rows on which a claim was once misjudged --------------------------------------------------------------------


def check(name: str, theta: list, target: list, reference: list | None = None, **setting):
    """From weights."""

    def share(weights: list | None) -> np.ndarray | None:
        return None if weights is None else np.array(weights, float) / sum(weights)

    batch = PolicyBatch.from_probs(share(theta), share(target), share(reference))
    return CLAIMS[name].check(batch, Setting(**setting))


@pytest.mark.parametrize("target", [[1, 1], [1, 1, 2]])
def test_a_gap_that_is_constant_but_not_zero_has_no_root_and_so_not_two(target: list) -> None:
    theta = [1, 0] if len(target) == 2 else [1, 1, 0]
    assert check("theorem_4_unique", theta, target).outcome is Outcome.HOLDS
    assert check("theorem_4_exists", theta, target).outcome is Outcome.FAILS


def test_a_root_at_an_end_is_none_inside() -> None:
    found = check("theorem_4_exists", [1, 4, 0], [2, 2, 1])
    assert found.numbers["at_zero"] == pytest.approx(0, abs=1e-15)
    assert found.outcome is Outcome.FAILS


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_pareto_claim_is_silent_at_the_ends_of_unequal_supports(alpha: float) -> None:
    assert check("section_4_2_pareto", [5, 3, 2], [6, 4, 0], alpha=alpha).reason == "supports"
    assert check("section_4_2_pareto", [5, 3, 2], [6, 3, 1], alpha=alpha).outcome is Outcome.HOLDS


def test_numbers_out_of_range_decide_nothing() -> None:
    batch = PolicyBatch.from_logits([0.0, -400.0, -800.0], [-800.0, -400.0, 0.0])
    assert CLAIMS["section_7_3_efficiency"].check(batch, Setting(weights="inverse")).reason == "out_of_range"
    for name, found in check_all(batch, Setting(weights="inverse")).items():
        assert not (found.excess.isnan()).any(), name


def test_half_accepted_is_half_rejected() -> None:
    """V max π_t = 2: exactly half of the proposals are accepted, but for rounding."""
    assert check("section_6_5_uniform", [1] * 6, [5, 2, 2, 2, 2, 2]).outcome is Outcome.HOLDS


def test_constant_snr_loses_nothing_at_alpha_kl() -> None:
    found = check("section_5_4_snr", [7, 3], [4, 6])
    assert found.outcome is Outcome.HOLDS
    assert found.residual == pytest.approx(0, abs=1e-12)


def test_the_off_policy_row_needs_an_alpha_to_compare_with() -> None:
    assert check("section_6_5_off_policy", [1, 0], [1, 1]).reason == "no_answer"
    assert check("section_6_5_off_policy", [2, 1, 1], [1, 2, 1]).outcome is Outcome.HOLDS
