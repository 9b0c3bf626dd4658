"""The derivation page: ask, reveal, prove, step on; and verdicts that are the claims engine's."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest
from apptest import address, assert_readable, explorers, figures, has, open_app, run, scenario, words
from streamlit.testing.v1 import AppTest

from geomix_app import compute
from geomix_app.learn.questions import QUESTIONS, Choice
from geomix_app.learn.steps import ORDER, STEPS
from geomix_app.notation import number
from geomix_app.scenario import from_query
from geomix_core.claims import CLAIMS, Outcome, Setting
from geomix_core.criteria import chernoff_information

SCENARIOS: dict[str, dict[str, str]] = {
    "real": {},
    "inverse": {"weights": "inverse", "alpha": "0.4"},
    "gaussian": {"source": "gaussian", "seed": "3", "alpha": "0.2"},
    "far": {"source": "gaussian", "distance": "4"},
    "two tokens": {"source": "two_tokens"},
    "three tokens": {"source": "three_tokens", "alpha": "0.7"},
    "zipf": {"source": "zipf"},
    "own reference": {"source": "gaussian", "reference": "uniform"},
    "near": {"source": "near_identical"},
    "cut": {"source": "top_k"},
}


def press(at: AppTest, key: str) -> AppTest:
    return run(at.button(key=key).click())


def at_step(name: str, **query: str) -> AppTest:
    """The page at a step, its question skipped."""
    at = open_app("derivation", step=name, **query)
    return press(at, "skip") if has(at, "button", "skip") else at


def said(at: AppTest) -> str:
    return "\n".join(str(e.value) for e in at.markdown)


@pytest.mark.parametrize("query", SCENARIOS.values(), ids=SCENARIOS)
def test_every_verdict_is_the_engine_s(query: dict[str, str]) -> None:
    current, _ = from_query(query)
    batch = compute.row(current, None).batch
    setting = Setting(weights="inverse" if current.weights == "inverse" else "importance", alpha=current.alpha)
    for step in STEPS:
        at = at_step(step.name, **query)
        assert_readable(at)
        text = said(at)
        for claim in step.claims:
            found = CLAIMS[claim].check(batch, setting)
            told = words(at)(f"claim.{claim}.says")
            card = next(e.value for e in at.markdown if told in str(e.value))
            assert words(at)(f"claim.{found.outcome}") in card, claim
            others = {o for o in Outcome if o is not found.outcome}
            assert not [o for o in others if f": {words(at)(f'claim.{o}')}]" in card], claim
        assert words(at)(f"learn.{step.name}.what") in text


@pytest.mark.parametrize("name", [n for n, q in QUESTIONS.items() if isinstance(q, Choice)])
def test_a_choice_is_revealed_only_when_it_was_made(name: str) -> None:
    at = open_app("derivation", step=name, source="gaussian")
    assert at.button(key="reveal").disabled
    assert not at.latex
    assert not figures(at)
    assert not explorers(at)
    assert not [e for e in at.markdown if words(at)("claim.computed") in str(e.value)]
    radio = at.radio[0]
    run(radio.set_value(radio.options and QUESTIONS[name].options[0]))  # type: ignore[union-attr]
    press(at, "reveal")
    assert at.latex
    verdict = words(at)("learn.asking.right"), words(at)("learn.asking.wrong")
    assert any(v in said(at) for v in verdict)
    # Another pair of policies is asked about afresh.
    before = scenario(at)
    press(at, "redraw")
    assert scenario(at).policies_key != before.policies_key
    assert has(at, "button", "reveal")


def test_a_mark_is_judged_by_its_distance() -> None:
    at = open_app("derivation", step="kl_symmetry", source="gaussian")
    row = compute.row(scenario(at), None)
    truth = compute.family(row.key, row.batch).alpha_kl
    assert truth is not None
    for placed, right in ((round(truth, 2), True), (0.05, False), (0.95, False)):
        at = open_app("derivation", step="kl_symmetry", source="gaussian")
        run(at.slider[0].set_value(placed))
        press(at, "reveal")
        assert (words(at)("learn.asking.right") in said(at)) is right
        assert f"{truth:.4f}" in said(at)
    low, high = (words(at)(f"learn.question.kl_symmetry.{k}") for k in ("low", "high"))
    assert high in said(at)
    assert low not in said(at)


def test_steps_follow_each_other_and_travel_in_the_link() -> None:
    at = open_app("derivation")
    assert at.button(key="step.back").disabled
    for name in ORDER[1:]:
        press(at, "step.next")
        assert address(at)["step"] == name
        assert words(at)(f"learn.{name}.title") in said(at)
    assert at.button(key="step.next").disabled
    press(at, "step.back")
    assert address(at)["step"] == ORDER[-2]
    again = open_app("derivation", step="no such step")
    assert words(again)(f"learn.{ORDER[0]}.title") in said(again)


def test_a_proof_opens_step_by_step() -> None:
    at = at_step("kl_symmetry")
    proof = [words(at)(f"learn.kl_symmetry.proof_{i}") for i in range(1, 5)]
    for shown in range(1, 5):
        assert [p in said(at) for p in proof] == [i < shown for i in range(4)]
        if shown < 4:
            press(at, "proof.next")
    assert not has(at, "button", "proof.next")


def test_the_roadmap_counts_the_verdicts() -> None:
    at = at_step("budget")
    assert not has(at, "button", "to.summary")  # closed, and nothing computed for it
    at.session_state["roadmap"] = True
    run(at)
    row, setting = compute.row(scenario(at), None), Setting(alpha=scenario(at).alpha)
    found = [CLAIMS[c].check(row.batch, setting).outcome for c in STEPS[7].claims]
    fails = sum(o is Outcome.FAILS for o in found)
    assert 0 < fails < len(found)
    badge = f":red-badge[{fails} {words(at)('page.derivation.tally_fails')}]"
    assert any(badge in str(e.value) for e in at.markdown)
    press(at, "to.theorem_3")
    assert address(at)["step"] == "theorem_3"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_undefined_steps_say_why(lang: str) -> None:
    at = at_step("theorem_1", lang=lang, source="top_k")
    assert any(words(at)("notice.smooth_now") == b.label for b in at.button)
    assert at.latex  # the formula stands in symbols alone
    assert_readable(at)


def test_the_script_to_take_away_prints_the_numbers_of_the_formulas() -> None:
    at = at_step("kl_symmetry", source="gaussian", alpha="0.3", eta="0.7")
    at.session_state["view.reproduce"] = True
    run(at)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(next(c.value for c in at.code), "script", "exec"), {})
    told = dict(line.split(": ", 1) for line in printed.getvalue().splitlines() if ": " in line)
    batch = compute.row(scenario(at), None).batch
    chernoff = float(told["Chernoff information, nats"])
    assert chernoff == pytest.approx(chernoff_information(batch).item(), rel=1e-9)
    assert number(chernoff) in at.latex[0].value
    for claim in ("theorem_4_identity", "theorem_4_exists", "theorem_4_unique"):
        assert told[claim].split()[0] == CLAIMS[claim].check(batch).outcome
