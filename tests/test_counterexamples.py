"""Break it: what falls, what survives, and the smallest policies that break a claim, checked from the definitions."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import WEIGHTS, Exact

from geomix_core import OptionError, PolicyBatch, solve_alpha
from geomix_core.claims import CLAIMS, Outcome, Setting, find_counterexample
from geomix_core.claims.bench import Bench
from geomix_core.claims.model import Measurement, claim
from geomix_core.claims.search import SearchProgress, SearchStatus, _random, _structured
from geomix_core.claims.tables import Table, batch_of

FALSE = {
    "section_2_3_noise",
    "theorem_2_step",
    "theorem_2_gain",
    "theorem_3_minimax",
    "theorem_3_sign",
    "section_3_6_scaling",
    "section_4_1_infeasible",
    "section_4_1_gradient",
    "section_4_2_shortest",
    "section_4_3_ends",
    "section_5_1_search",
    "theorem_4_exists",
    "theorem_4_unique",
    "section_5_4_alpha",
    "section_5_4_snr",
    "theorem_5_optimal",
    "theorem_5_equivalent",
    "section_6_1_composition",
    "section_6_2_stable",
    "section_6_5_on_policy",
    "section_6_5_uniform",
    "section_6_5_mixture",
    "section_7_3_efficiency",
}
"""As the document states them, held to every row: the others are true."""
MENDED = {
    "theorem_2_step",
    "theorem_3_sign",
    "section_4_3_ends",
    "section_5_1_search",
    "theorem_4_exists",
    "theorem_4_unique",
}
"""False as stated, true with the hypotheses that the document leaves out."""
TRUE = set(CLAIMS) - FALSE - {"section_3_6_intuition"}


TRIES = 14_000
"""All structured tables, and then some thousand random policies and mutations."""


def conventions(name: str) -> tuple[str, ...]:
    return WEIGHTS if "weights" in CLAIMS[name].uses else WEIGHTS[:1]


def cases(names: set[str]) -> list:
    return [pytest.param(n, w, id=f"{n}-{w}") for n in CLAIMS if n in names for w in conventions(n)]


@pytest.mark.parametrize(("name", "weights"), cases(FALSE))
def test_false_claims_fall_within_ten_seconds(name: str, weights: str) -> None:
    found = find_counterexample(CLAIMS[name], Setting(weights=weights), seconds=10)
    assert found.status is SearchStatus.FOUND
    assert found.counterexample.tokens <= 4
    assert found.found_tokens <= 4
    verdict = CLAIMS[name].check(found.counterexample.batch, Setting(weights=weights))
    assert verdict == found.verdict
    assert verdict.outcome is Outcome.FAILS
    assert verdict.residual > verdict.tolerance


@pytest.mark.parametrize(("name", "weights"), cases(TRUE))
def test_true_claims_survive(name: str, weights: str) -> None:
    """Small tables, random policies and mutation: every stage is reached."""
    stages = set()
    found = find_counterexample(
        CLAIMS[name],
        Setting(weights=weights),
        seconds=120,
        tries=TRIES,
        on_progress=lambda p: stages.add(p.stage),
    )
    assert found.status is SearchStatus.SURVIVED
    assert found.tried >= TRIES
    assert found.nearest <= 0
    assert stages == {"structured", "random", "mutation"}


@pytest.mark.parametrize(("name", "weights"), cases(MENDED))
def test_claims_survive_with_what_they_leave_unsaid(name: str, weights: str) -> None:
    found = find_counterexample(CLAIMS[name], Setting(weights=weights), assume=True, seconds=120, tries=TRIES)
    assert found.status is SearchStatus.SURVIVED
    assert found.nearest > -np.inf  # some policies did meet the hypotheses


# --- the smallest counterexamples, kept --------------------------------------------------------------------------

KEPT = {
    "section_5_4_alpha, importance": ("section_5_4_alpha", "importance", Table((2, 1, 1), (1, 2, 1))),
    "section_5_4_alpha, inverse": ("section_5_4_alpha", "inverse", Table((2, 1, 1), (1, 30, 1))),
    "section_5_4_snr, importance": ("section_5_4_snr", "importance", Table((2, 1, 1), (1, 3, 1))),
    "section_5_4_snr, inverse": ("section_5_4_snr", "inverse", Table((500, 50, 1), (1, 50, 10))),
    "minimax label, importance": ("theorem_3_minimax", "importance", Table((2, 1, 1), (1, 2, 1))),
    "minimax label, inverse": ("theorem_3_minimax", "inverse", Table((2, 1, 1), (1, 2, 1))),
    "shortest path": ("section_4_2_shortest", "importance", Table((2, 1, 1), (1, 2, 1))),
    "scaling": ("section_3_6_scaling", "importance", Table((1, 1), (2, 1))),
    "truncated support": ("theorem_4_exists", "importance", Table((1, 0), (1, 1))),
    "sign of the signal": ("theorem_3_sign", "importance", Table((2, 1), (1, 1), (1, 2))),
    "several maxima, importance": ("section_5_1_search", "importance", Table((100, 1, 1), (1, 3, 2))),
    "several maxima, inverse": ("section_5_1_search", "inverse", Table((3, 1, 1), (1, 10, 1), (1, 1, 1))),
}


def exact_of(table: Table, weights: str) -> Exact:
    with np.errstate(divide="ignore"):
        logits = [np.log(np.array(p, dtype=float)) for p in table.policies]
    return Exact(*logits, weights=weights)


@pytest.mark.parametrize("case", KEPT)
def test_kept_counterexamples_are_what_the_search_finds(case: str) -> None:
    name, weights, table = KEPT[case]
    assert table.tokens <= 4
    found = find_counterexample(CLAIMS[name], Setting(weights=weights), seconds=60)
    assert found.counterexample == table


@pytest.mark.parametrize("weights", WEIGHTS)
def test_kept_5_4_from_the_definitions(weights: str) -> None:
    """On a fine grid in mpmath the best SNR lies more than 0.1 from the root of the KL difference, or 5 % above it."""
    for which in ("alpha", "snr"):
        _, _, table = KEPT[f"section_5_4_{which}, {weights}"]
        exact = exact_of(table, weights)
        grid = [mp.mpf(k) / 200 for k in range(201)]
        snr = [exact.snr(a) if exact.cumulant(a, 2) > 0 else mp.mpf(0) for a in grid]
        best = snr.index(max(snr))
        alpha_kl = exact.alpha_kl()
        if which == "alpha":
            assert abs(grid[best] - alpha_kl) > 0.1 + 1 / 200
        else:
            assert exact.snr(alpha_kl) < 0.95 * snr[best]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_kept_minimax_from_the_definitions(weights: str) -> None:
    """Some α on a grid has a better worst case over η ∈ [½, 2] than the α of largest SNR."""
    exact = exact_of(KEPT[f"minimax label, {weights}"][2], weights)

    def worst(alpha: float) -> mp.mpf:
        return min(exact.progress(alpha, eta) for eta in (0.5, 1, 2))

    grid = [k / 100 for k in range(101)]
    by_snr = max(grid, key=exact.snr)
    around = [max(0, by_snr - 0.01), by_snr, min(1, by_snr + 0.01)]
    assert max(map(worst, grid)) > max(map(worst, around)) + mp.mpf("1e-3")


def test_kept_shortest_path_by_chords() -> None:
    """The e-geodesic as a polygon on the sphere of √p is longer than the arc: 2·arccos Σ√(π_θ π_t)."""
    exact = exact_of(KEPT["shortest path"][2], "importance")

    def arc(p: list, q: list) -> mp.mpf:
        return 2 * mp.acos(min(mp.mpf(1), mp.fsum(mp.sqrt(a * b) for a, b in zip(p, q, strict=True))))

    points = [exact.q(mp.mpf(k) / 64) for k in range(65)]
    polygon = mp.fsum(arc(a, b) for a, b in pairwise(points))
    assert polygon > arc(exact.theta, exact.target) * (1 + mp.mpf("1e-3"))


def test_kept_truncation_has_no_root_inside() -> None:
    exact = exact_of(KEPT["truncated support"][2], "importance")
    assert all(exact.mean(mp.mpf(k) / 50) < 0 for k in range(51))  # E_q[ℓ]: both KLs never meet


def test_kept_sign_moves_away_from_the_target() -> None:
    """The α of largest |Φ₁|/√Φ₂ makes negative progress with every step."""
    exact = exact_of(KEPT["sign of the signal"][2], "importance")
    alpha = max((k / 20 for k in range(21)), key=exact.snr)
    assert exact.phi1(alpha) < 0
    assert all(exact.progress(alpha, eta) < 0 for eta in (0.01, 0.1, 1, 10))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_kept_rows_have_several_maxima(weights: str) -> None:
    table = KEPT[f"several maxima, {weights}"][2]
    exact = exact_of(table, weights)
    snr = [exact.snr(mp.mpf(k) / 400) for k in range(401)]
    inside = sum(a < b > c for a, b, c in zip(snr, snr[1:], snr[2:], strict=False))
    peaks = inside + (snr[0] > snr[1]) + (snr[-1] > snr[-2])
    assert peaks > 1
    assert len(solve_alpha(table.batch, "snr", weights).maxima[0]) == peaks


# --- how a search behaves ----------------------------------------------------------------------------------------


@claim()
def rare(bench: Bench) -> Measurement:
    """False only far out: needs five tokens or more, with a ratio of probabilities above e⁶ on the third."""
    batch = bench.batch
    gap = batch.log_ratio[:, 2] - 6 if batch.vocab_size >= 5 else torch.full((len(batch),), -1.0)
    return Measurement(gap, 0.0, {"gap": gap})


def test_what_no_small_table_breaks_is_found_by_chance_or_mutation_and_shrunk() -> None:
    found = find_counterexample(rare, seconds=60)
    assert found.status is SearchStatus.FOUND
    assert found.found_by in ("random", "mutation")
    assert found.counterexample.tokens == 5
    assert found.found_tokens >= 5
    assert found.verdict.residual > 0
    # No table that is one step simpler breaks the claim.
    simpler = [t for t in found.counterexample.simpler() if t.reference is None]
    assert simpler
    assert all(rare.check(t.batch).outcome is Outcome.HOLDS for t in simpler)


def test_the_same_seed_finds_the_same() -> None:
    once, twice = (find_counterexample(rare, seed=3, seconds=60) for _ in range(2))
    assert once.counterexample == twice.counterexample
    assert (once.tried, once.found_by, once.nearest) == (twice.tried, twice.found_by, twice.nearest)


def test_a_search_reports_where_it_stands_and_stops_when_told() -> None:
    reports: list[SearchProgress] = []

    def watch(progress: SearchProgress) -> bool:
        reports.append(progress)
        return progress.tried < 1000

    found = find_counterexample(CLAIMS["theorem_4_identity"], seconds=60, on_progress=watch)
    assert found.status is SearchStatus.STOPPED
    assert [p.tried for p in reports] == sorted(p.tried for p in reports)
    assert reports[-1].tried == found.tried >= 1000
    assert found.nearest == max(p.nearest for p in reports)


def test_a_spent_budget_ends_the_search() -> None:
    found = find_counterexample(CLAIMS["theorem_4_identity"], seconds=1e-9)
    assert (found.status, found.tried, found.counterexample) == (SearchStatus.SURVIVED, 0, None)


def test_a_statement_that_compares_nothing_cannot_be_broken() -> None:
    found = find_counterexample(CLAIMS["section_3_6_intuition"])
    assert found.status is SearchStatus.NOTHING_TO_COMPARE


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_budget_must_be_positive(seconds: float) -> None:
    with pytest.raises(OptionError, match="positive"):
        find_counterexample(CLAIMS["theorem_1"], seconds=seconds)


# --- tables ------------------------------------------------------------------------------------------------------

WEIGHT = st.integers(0, 10**9)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    size = draw(st.integers(2, 6))
    policies = draw(st.integers(2, 3))
    column = st.lists(WEIGHT, min_size=size, max_size=size).filter(any)
    return Table(*(tuple(draw(column)) for _ in range(policies)))


@given(tables().filter(lambda t: t.valid))
def test_simpler_tables_are_simpler_and_valid(table: Table) -> None:
    for other in table.simpler():
        assert other.valid
        assert other.complexity() < table.complexity()


@given(tables().filter(lambda t: t.valid))
def test_a_table_is_its_weights_normalised(table: Table) -> None:
    batch = table.batch
    for log_p, weights in zip((batch.theta, batch.target), table.policies, strict=False):
        assert np.allclose(log_p[0].exp().numpy(), np.array(weights) / sum(weights), rtol=1e-12)
    reduced = table.reduced().batch
    assert torch.allclose(reduced.theta.exp(), batch.theta.exp(), rtol=1e-12)


def test_roundings_start_coarse_and_end_near() -> None:
    logits = np.log([0.5, 0.3, 0.2]), np.log([0.1, 0.2, 0.7])
    found = Table.roundings(*logits)
    assert found[0] == Table((1, 1, 0), (0, 0, 1))
    assert np.allclose(found[-1].batch.theta.exp().numpy(), [[0.5, 0.3, 0.2]], atol=1e-9)


def test_structured_tables_are_every_small_one_once() -> None:
    seen = [t for part in _structured(False) for t in part]
    # The lists overlap in tables of ones, tens and hundreds only.
    twice = [t for t, count in Counter(seen).items() if count > 1]
    assert len(twice) < 10
    assert {w for t in twice for policy in t.policies for w in policy} <= {1, 10, 100, 1000}
    assert Table((1, 1), (2, 1)) in seen
    assert [t.tokens for t in seen] == sorted(t.tokens for t in seen)
    assert all(t.reference is None for t in seen)
    assert any(t.reference for part in _structured(True) for t in part)


def test_random_policies_are_policies() -> None:
    for logits in _random(np.random.default_rng(0), 6, True):
        batch = PolicyBatch.from_logits(*logits)
        assert len(batch) == 256
    assert len(batch_of([Table((1, 2), (3, 4)), Table((1, 0), (1, 1))])) == 2


def test_a_claim_may_be_named() -> None:
    assert find_counterexample("section_4_2_shortest", seconds=60).counterexample == Table((2, 1, 1), (1, 2, 1))
    with pytest.raises(OptionError, match="theorem_9"):
        find_counterexample("theorem_9")


def test_a_violation_that_no_table_keeps_is_not_called_found() -> None:
    @claim()
    def narrow(bench: Bench) -> Measurement:
        """Probabilities differ by less than e²¹ > 10⁹: whole weights of nine digits cannot say otherwise."""
        theta = bench.batch.theta
        span = theta.amax(-1) - theta.masked_fill(theta == -torch.inf, torch.inf).amin(-1)
        return Measurement(span, 21.0, {})

    found = find_counterexample(narrow, seconds=60, tries=12_000)
    assert (found.status, found.counterexample) == (SearchStatus.UNCONFIRMED, None)
    assert found.nearest > 0
