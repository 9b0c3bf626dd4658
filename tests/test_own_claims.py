"""A claim of one's own: the grammar, what every quantity is, what a relation allows, and that nothing else is run."""

from __future__ import annotations

import ast
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar

import geomix_core.claims
from geomix_core.claims import Outcome, SearchStatus, Setting, Table, find_counterexample
from geomix_core.claims.bench import Bench
from geomix_core.claims.expressions import DEEPEST, LONGEST, Call, Number, Operation, Statement, parse
from geomix_core.claims.own import MARGIN, OWN, claim_of
from geomix_core.claims.quantities import BY_SPELLING, LARGEST_STEP, QUANTITIES, Kind, evaluate
from geomix_core.claims.words import LANGUAGES, problem
from geomix_core.errors import ExpressionError
from geomix_core.policies import PolicyBatch

EXAMPLES = int(os.environ.get("GEOMIX_FUZZ_EXAMPLES", "700"))
"""Of each of the three fuzzers."""
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
PAIR = PolicyBatch.from_probs([0.5, 0.3, 0.2], [0.2, 0.2, 0.6])


def holds(text: str, batch: PolicyBatch = PAIR, **setting: Any) -> bool:
    verdict = claim_of(text).check(batch, Setting(**setting))
    assert verdict.claim == OWN
    assert verdict.outcome is not Outcome.DOES_NOT_APPLY, verdict.reason
    return verdict.outcome is Outcome.HOLDS


# --- the grammar -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sum_", "value"),
    [
        ("1 + 2*3^2", 19),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^-1", 0.5),
        ("2**3**2", 512),
        ("2^3²", 512),
        ("6/2/3", 1),
        ("6 − 2 − 3", 1),
        ("2·3 × 4", 24),
        ("(1 + 2) * 3", 9),
        ("√4 + 1", 3),
        ("√(4)²", 4),
        ("2³", 8),
        ("--3", 3),
        ("3 - -3", 6),
        ("1e3 + .5 + 2.", 1002.5),
        ("min(2, 3) + max(2, 3)", 5),
        ("abs(-2)", 2),
        ("log(exp(2))", 2),
        ("LN(exp(1))", 1),
        ("（1 ＋ 2）× 3", 9),
        ("min(2，3)", 2),
    ],
)
def test_arithmetic_is_the_usual_one(sum_: str, value: float) -> None:
    verdict = claim_of(f"{sum_} = 0").check(PAIR)
    assert verdict.numbers["left"] == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "code", "position"),
    [
        ("", "empty", 0),
        ("   ", "empty", 0),
        ("α_KL", "ends", 4),
        ("α_KL <", "ends", 6),
        ("α_KL < 1 < 2", "unexpected", 9),
        ("α_KL 2 = 1", "unexpected", 5),
        ("1 + = 2", "unexpected", 4),
        ("(1 + 2 = 3", "unexpected", 7),
        ("1) = 2", "unexpected", 1),
        ("1 # 2 = 3", "unexpected", 2),
        ("1.2.3 = 1", "unexpected", 3),
        ("x = 1", "unknown", 0),
        ("1 + alpha_kll = 2", "unknown", 4),
        ("π_θ < 1", "policy", 0),
        ("1 + q(1) < 1", "policy", 4),
        ("KL(1, 2) < 1", "number", 3),
        ("KL(π_θ‖1) < 1", "number", 7),
        ("TV(π_θ π_t) < 1", "unexpected", 7),
        ("SNR < 1", "brackets", 0),
        ("SNR() < 1", "unexpected", 4),
        ("SNR(1, 2) < 1", "unexpected", 5),
        ("α_KL(1) = 1", "unexpected", 4),
        ("1e7 > 1", "large", 0),
        ("1 < " + "(" * 40 + "1" + ")" * 40, "deep", 4 + DEEPEST),
        ("1 < " + "-" * 40 + "1", "deep", 4 + DEEPEST),
        ("1 < " + "√" * 40 + "1", "deep", 4 + DEEPEST),
        ("1 + " * 100 + "1 = 1", "long", 0),
        ("__import__('os') = 1", "unexpected", 11),
        ("theta.shape = 1", "unexpected", 5),
        ("lambda = 1", "unknown", 0),
        ("[1] = 1", "unexpected", 0),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(text: str, code: str, position: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        claim_of(text)
    error = caught.value
    assert (error.code, error.position) == (code, position)
    for language in LANGUAGES:
        said = problem(error.code, error.position, error.values, language)
        assert "{" not in said
        assert said
        if code not in ("empty", "long", "ends"):
            assert str(position + 1) in said
    assert str(error) == problem(error.code, error.position, error.values, "en")
    if code == "unexpected":
        assert text[position] in str(error)


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(ExpressionError, match=r"“alpha_kll”.*nearest name is alpha_kl\."):
        claim_of("alpha_kll = 1")


def test_every_spelling_means_one_quantity() -> None:
    spelled = [s.casefold() for q in QUANTITIES.values() for s in dict.fromkeys((q.name, q.symbol))]
    assert len({*spelled}) == len(BY_SPELLING)
    assert all(BY_SPELLING[s.casefold()] is q for q in QUANTITIES.values() for s in (q.name, q.symbol))
    for quantity in QUANTITIES.values():
        arguments = {Kind.POLICY: "π_t", Kind.PARAMETER: "0.3", Kind.STEP: "2", Kind.NUMBER: "0.7"}
        brackets = f"({', '.join(arguments[k] for k in quantity.takes)})" if quantity.takes else ""
        for spelling in (quantity.name, quantity.name.upper(), quantity.symbol):
            said = f"{spelling}{brackets}"
            statement = parse(f"H({said}) = 1" if quantity.gives is Kind.POLICY else f"{said} = 1")
            assert quantity in statement.quantities


# --- what every quantity is --------------------------------------------------------------------------------------

THETA, TARGET, REFERENCE = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.15, 0.65]), np.array([0.3, 0.6, 0.1])
ROW = PolicyBatch.from_probs(THETA, TARGET, REFERENCE)
ELL = np.log(TARGET / THETA)


def mixture(alpha: float) -> np.ndarray:
    weights = THETA**alpha * TARGET ** (1 - alpha)
    return weights / weights.sum()


def tilt(alpha: float, weights: str) -> np.ndarray:
    q, r = mixture(alpha), np.log(TARGET / REFERENCE)
    return (THETA / q if weights == "importance" else q / THETA) * r


def np_kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def np_delta(alpha: float) -> float:
    return float((mixture(alpha) * ELL).sum())


def np_progress(alpha: float, eta: float, weights: str) -> float:
    moved = THETA * np.exp(eta * tilt(alpha, weights))
    return float((TARGET * np.log(moved / moved.sum() / THETA)).sum())


def np_signal(alpha: float, weights: str) -> tuple[float, float]:
    h = tilt(alpha, weights)
    return float(((TARGET - THETA) * h).sum()), float((THETA * h**2).sum() - (THETA * h).sum() ** 2)


def best(function: Any, low: float, high: float) -> float:
    found = minimize_scalar(lambda x: -function(x), bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return float(found.x)


def np_snr(alpha: float, weights: str) -> float:
    signal, noise = np_signal(alpha, weights)
    return abs(signal) / math.sqrt(noise)


def peak(weights: str) -> float:
    grid = np.linspace(0, 1, 2001)
    return float(grid[np.argmax([np_snr(a, weights) for a in grid])])


def np_lengths(path: str) -> float:
    def e_speed(a: float) -> float:
        q = mixture(a)
        return math.sqrt((q * ELL**2).sum() - (q * ELL).sum() ** 2)

    def m_speed(s: float) -> float:
        return math.sqrt(((TARGET - THETA) ** 2 / (s * THETA + (1 - s) * TARGET)).sum())

    return float(quad(e_speed if path == "e" else m_speed, 0, 1, epsabs=1e-12)[0])


ROOT = float(brentq(np_delta, 0, 1, xtol=1e-15))


def expected(weights: str) -> dict[str, float]:
    """Every quantity from its definition, with NumPy and SciPy."""
    signal, noise = np_signal(0.3, weights)
    step = best(lambda e: np_progress(0.3, e, weights), 0, 50)
    h = tilt(0.3, weights)
    return {
        "kl(theta, target)": np_kl(THETA, TARGET),
        "kl(q(0.3), reference)": np_kl(mixture(0.3), REFERENCE),
        "kl(m(0.3), uniform)": np_kl(0.3 * THETA + 0.7 * TARGET, np.full(3, 1 / 3)),
        "tv(theta, target)": 0.45,
        "chi2(target, theta)": float(((TARGET - THETA) ** 2 / THETA).sum()),
        "entropy(target)": -float((TARGET * np.log(TARGET)).sum()),
        "largest(target)": 0.65,
        "alpha": 0.25,
        "alpha_kl": ROOT,
        "chernoff": np_kl(mixture(ROOT), THETA),
        "bhattacharyya": -math.log(np.sqrt(THETA * TARGET).sum()),
        "fisher_rao": 2 * math.acos(np.sqrt(THETA * TARGET).sum()),
        "e_length": np_lengths("e"),
        "m_length": np_lengths("m"),
        "delta(0.3)": np_kl(mixture(0.3), THETA) - np_kl(mixture(0.3), TARGET),
        "z(0.3)": float((THETA**0.3 * TARGET**0.7).sum()),
        "variance(0.3)": float((mixture(0.3) * ELL**2).sum() - np_delta(0.3) ** 2),
        "ess(0.3)": 1 / float((THETA**2 / mixture(0.3)).sum()),
        "phi1(0.3)": signal,
        "phi2(0.3)": noise,
        "snr(0.3)": abs(signal) / math.sqrt(noise),
        "kappa3(0.3)": float((THETA * (h - (THETA * h).sum()) ** 3).sum()),
        "eta_star(0.3)": signal / noise,
        "progress(0.3, 1.5)": np_progress(0.3, 1.5, weights),
        "eta_exact(0.3)": step,
        "best_progress(0.3)": np_progress(0.3, step, weights),
        "alpha_snr": peak(weights),
        "alpha_wald": best(lambda a: min(np_progress(a, e, weights) for e in (0.5, 2.0)), 0, 1),
    }


@pytest.mark.parametrize("weights", ["importance", "inverse"])
def test_every_quantity_is_its_definition(weights: str) -> None:
    found = expected(weights)
    named = {quantity for text in found for quantity in parse(f"{text} = 0").quantities}
    assert named >= {q for q in QUANTITIES.values() if not q.is_function}
    for text, value in found.items():
        verdict = claim_of(f"{text} = 0").check(ROW, Setting(weights=weights, alpha=0.25))  # type: ignore[arg-type]
        # Maxima found on a grid, or by a search that stops at √eps, are good to a few digits only.
        rough = {"alpha_snr": 5e-4, "alpha_wald": 1e-5, "eta_exact(0.3)": 1e-6}
        assert verdict.numbers["left"] == pytest.approx(value, rel=1e-8, abs=rough.get(text, 1e-9)), text


def test_a_batch_gives_what_its_rows_give() -> None:
    rows = [
        ([0.5, 0.3, 0.2], [0.2, 0.15, 0.65]),
        ([0.9, 0.05, 0.05], [0.1, 0.6, 0.3]),
        ([0.4, 0.4, 0.2], [0.4] * 2 + [0.2]),
    ]
    batch = PolicyBatch.from_probs(*(np.array(column) for column in zip(*rows, strict=True)))
    for text in ("SNR(α_KL) ≤ Progress_max(0.5) + α_SNR", "L_e = KL(q(α_KL)‖m(0.3))"):
        claim = claim_of(text)
        together = claim.rows(batch)
        for i, row in enumerate(rows):
            alone = claim.check(PolicyBatch.from_probs(*row))
            assert together.verdict(i).outcome == alone.outcome
            assert together.verdict(i).numbers == pytest.approx(dict(alone.numbers), rel=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "1/0 = 1",
        "√(-1) = 1",
        "log(0) < 1",
        "(-2)^0.5 = 1",
        "1e6^100 > 1",
        "SNR(1.5) = 1",
        "KL(q(-0.1)‖π_θ) = 1",
        f"Progress(0.5, {LARGEST_STEP + 1:g}) = 1",
        "Progress(0.5, -1) = 1",
        "SNR(log(0)) = 1",
    ],
)
def test_what_is_not_defined_is_not_decided(text: str) -> None:
    verdict = claim_of(text).check(PAIR)
    assert (verdict.outcome, verdict.reason) == (Outcome.DOES_NOT_APPLY, "undefined")


@pytest.mark.parametrize(
    ("text", "theta", "target", "reason"),
    [
        ("α_SNR ≥ 0", [0.5, 0.5], [0.9, 0.1], "undefined"),  # SNR is constant
        ("α_KL ≥ 0", [0.5, 0.5], [0.5, 0.5], "undefined"),
        ("α_KL ≥ 0", [0.5, 0.5], [1.0, 0.0], "undefined"),  # Δ has no zero
        ("α_KL ≥ 0", [1.0, 0.0], [0.0, 1.0], "disjoint"),
        ("SNR(1) ≥ 0", [0.5, 0.5], [1.0, 0.0], "uncovered"),
        ("KL(π_θ‖π_t) ≥ 0", [0.5, 0.5], [1.0, 0.0], "undefined"),  # infinite
        ("TV(π_θ, π_t) ≥ 0", [1.0, 0.0], [0.0, 1.0], ""),
    ],
)
def test_why_nothing_is_decided(text: str, theta: list[float], target: list[float], reason: str) -> None:
    assert claim_of(text).check(PolicyBatch.from_probs(theta, target)).reason == reason


def test_the_reward_s_reference_is_used_where_it_matters() -> None:
    assert claim_of("SNR(1) < KL(π_ref‖π_t)").uses == {"weights", "reference"}
    assert claim_of("α_Wald = α").uses == {"weights", "reference", "eta_range", "alpha"}
    assert claim_of("KL(π_θ‖π_t) = α_KL").uses == frozenset()
    assert holds("KL(π_ref‖π_θ) = 0")  # by default π_ref is π_θ
    assert not holds("KL(π_ref‖π_θ) = 0", ROW)


# --- relations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "below", "same", "above"),
    [("=", 0, 1, 0), ("≤", 1, 1, 0), ("<=", 1, 1, 0), ("<", 1, 0, 0), ("≥", 0, 1, 1), (">=", 0, 1, 1), (">", 0, 0, 1)],
)
def test_relations_mean_what_they_say(relation: str, below: int, same: int, above: int) -> None:
    for left, expected_ in (("2", below), ("3", same), ("4", above)):
        assert holds(f"{left} {relation} 3") == bool(expected_)


def test_equality_allows_a_millionth_and_no_more() -> None:
    for relation in ("=", "≤"):
        assert holds(f"1 + 2e-6 {relation} 1")
        assert not holds(f"1 + 4e-6 {relation} 1")
    assert MARGIN == 1e-6
    assert not holds("1 < 1 - 1e-13")
    assert holds("1 - 1e-11 < 1")
    assert holds("0 < 1e-300*1e-20")  # however small, it is more than nothing
    assert not holds("0 < 0")


# --- attacked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("KL(π_t‖π_θ) = KL(π_θ‖π_t)", Table((1, 1), (2, 1))),
        ("α_SNR = α_KL", Table((2, 1, 1), (1, 2, 1))),
        ("L_e ≤ L_m", Table((2, 1, 1), (1, 2, 1))),
        ("KL(π_θ‖π_t) > 0", Table((1, 1), (1, 1))),
        ("KL(π_ref‖π_θ) = 0", Table((1, 1), (1, 1), (2, 1))),
        ("Progress(1, η*(1)) = SNR(1)²/2", Table((1, 1), (2, 1))),
    ],
)
def test_false_statements_fall_to_the_smallest_policies(text: str, table: Table) -> None:
    claim = claim_of(text)
    found = find_counterexample(claim, seconds=60)
    assert found.status is SearchStatus.FOUND
    assert found.counterexample == table
    assert found.verdict == claim.check(table.batch)
    assert found.verdict is not None
    assert set(found.verdict.numbers) == {"left", "right"}


@pytest.mark.parametrize(
    "text",
    [
        "KL(π_t‖π_θ) ≥ 2·TV(π_t, π_θ)²",  # Pinsker
        "SNR(α_KL) ≤ √χ²(π_t, π_θ)",  # Cauchy–Schwarz
        "C ≥ B",
        "Δ(α_KL) = 0",
        "KL(q(α_KL)‖π_θ) = C",
        "Z(0.5) = exp(-B)",
        "Progress_max(0.5) ≤ KL(π_t‖π_θ)",  # Donsker–Varadhan
        "KL(π_t‖π_θ) ≤ log(1 + χ²(π_t, π_θ))",
        "d_FR ≤ L_m",
        "SNR(α)² = Φ₁(α)²/Φ₂(α)",
    ],
)
def test_theorems_survive(text: str) -> None:
    found = find_counterexample(claim_of(text), tries=4_000, seconds=600)
    assert found.status is SearchStatus.SURVIVED, (found.counterexample, found.verdict)
    assert found.tried >= 4_000


# --- nothing else is run -----------------------------------------------------------------------------------------


def test_no_module_of_the_language_can_run_text() -> None:
    folder = Path(geomix_core.claims.__file__).parent
    for name in ("expressions", "quantities", "own"):
        tree = ast.parse((folder / f"{name}.py").read_text("utf-8"))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        assert not names & {"eval", "exec", "compile", "getattr", "setattr", "globals", "locals", "vars", "__import__"}
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert imported <= {"re", "math", "torch"}


def assert_only_the_language(node: Any) -> None:
    """A tree of numbers, the five operations and quantities of the table."""
    if isinstance(node, Operation):
        assert node.mark in {"+", "-", "*", "/", "^"}
        assert_only_the_language(node.left)
        assert_only_the_language(node.right)
    elif isinstance(node, Call):
        assert QUANTITIES[node.quantity.name] is node.quantity
        assert len(node.arguments) == len(node.quantity.takes)
        for argument in node.arguments:
            assert_only_the_language(argument)
    else:
        assert type(node) is Number
        assert math.isfinite(node.value)


STRANGE = [
    "__import__",
    "os.system",
    "lambda",
    "{x}",
    "'",
    '"',
    "\\",
    "\n",
    "\0",
    "π",
    "_",
    "𝟙",
    "٣",
    "é",
    "[",
    "]",
    ";",
    ":=",
]
MARKS = [*"()+-*/^=<>≤≥‖,²³√|.−×（）", "**", "||", "<=", "==", " ", "1", "0.5", "2e3", "1e999", "9" * 30]
PIECES = st.sampled_from([*BY_SPELLING, *MARKS, *STRANGE])
TEXT = st.one_of(st.text(max_size=LONGEST + 20), st.lists(PIECES, max_size=60).map("".join))


def read(text: str) -> tuple[Statement | None, ExpressionError | None]:
    """The statement, or the only error that there may be."""
    try:
        return parse(text), None
    except ExpressionError as error:
        return None, error


@FUZZ
@given(TEXT)
@example("(" * 150 + "1")
@example("-" * LONGEST)
@example("√" * LONGEST)
@example("kl(" * 60)
@example("q(" * 100)
@example("2^" * 99 + "2=1")
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    statement, error = read(text)
    if error is not None:
        assert 0 <= error.position <= len(text)
        assert all(problem(error.code, error.position, error.values, language) for language in LANGUAGES)
        return
    assert statement is not None
    assert_only_the_language(statement.left)
    assert_only_the_language(statement.right)


def sums(depth: int) -> st.SearchStrategy[str]:
    """Any sum of the grammar."""
    number = st.one_of(st.integers(0, 9).map(str), st.sampled_from(["0.5", "1e-9", "1000000", "1e-300", "0.3"]))
    if depth == 0:
        return st.one_of(number, st.sampled_from(["α", "α_KL", "C", "B", "d_FR"]))
    inner = sums(depth - 1)
    policy = st.one_of(
        st.sampled_from(["π_θ", "π_t", "π_ref", "uniform"]), st.builds("{}({})".format, st.sampled_from("qm"), inner)
    )
    values = {Kind.POLICY: policy, Kind.PARAMETER: inner, Kind.STEP: inner, Kind.NUMBER: inner}
    calls = [
        st.tuples(*(values[k] for k in q.takes)).map(lambda a, q=q: f"{q.name}({', '.join(a)})" if a else q.name)
        for q in QUANTITIES.values()
        if q.gives is Kind.NUMBER and q.name not in ("alpha_snr", "alpha_wald", "e_length", "m_length")
    ]
    operations = st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "^"]), inner)
    return st.one_of(number, *calls, operations, inner.map("-{}".format), inner.map("√{}".format))


STATEMENTS = st.builds("{} {} {}".format, sums(2), st.sampled_from("=<>≤≥"), sums(1)).filter(
    lambda t: len(t) <= LONGEST
)
HOSTILE = PolicyBatch.from_logits(
    np.array([[0.0, 1.0, -1.0], [0.0, 300.0, -300.0], [0.0, -np.inf, 1.0], [0.0, 0.0, 0.0], [0.0, 1e-9, 0.0]]),
    np.array([[1.0, 0.0, 0.0], [200.0, 0.0, -500.0], [1.0, 2.0, -np.inf], [0.0, 0.0, 0.0], [0.0, 0.0, 1e-9]]),
)


@FUZZ
@given(STATEMENTS)
def test_every_statement_is_decided_or_says_why_not(text: str) -> None:
    claim = claim_of(text)
    found = claim.rows(HOSTILE)
    for i in range(len(HOSTILE)):
        verdict = found.verdict(i)
        if verdict.outcome is Outcome.DOES_NOT_APPLY:
            assert verdict.reason in {"undefined", "disjoint", "uncovered", "out_of_range"}
        else:
            assert all(math.isfinite(x) for x in verdict.numbers.values())


MUTATIONS = st.tuples(STATEMENTS, st.integers(0, LONGEST), st.integers(0, 3), st.one_of(PIECES, st.characters()))


@FUZZ
@given(MUTATIONS)
def test_a_broken_statement_is_refused_or_still_a_statement(mutation: tuple[str, int, int, str]) -> None:
    text, at, cut, piece = mutation
    broken = text[:at] + piece + text[at + cut :]
    if read(broken)[0] is not None:
        claim_of(broken).check(PAIR)


def test_positions_survive_other_ways_to_type_a_mark() -> None:
    for text in ("KL(π_t∥π_θ)⩾2·TV(π_t，π_θ)^2 $", "KL(π_t‖π_θ)≥2*TV(π_t,π_θ)^2 $"):
        with pytest.raises(ExpressionError) as caught:
            parse(text)
        assert (caught.value.code, caught.value.position) == ("unexpected", len(text) - 1)


def test_a_quantity_of_an_undefined_policy_is_undefined() -> None:
    bench = Bench(PAIR, Setting())
    outside = evaluate(QUANTITIES["q"], bench, [bench.batch.theta[:, 0] + 9])
    assert outside.isnan().all()
    assert evaluate(QUANTITIES["entropy"], bench, [outside]).isnan().all()
