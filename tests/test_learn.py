"""The derivation: its words, formulas with today's numbers, and questions whose answers are computed."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from geomix_app import compute
from geomix_app.catalogue import LANGUAGES, catalogue, entries
from geomix_app.figures.style import Style
from geomix_app.glossary import BY_SYMBOL
from geomix_app.learn import figures, formulas, questions
from geomix_app.learn.facts import Facts
from geomix_app.learn.figures import Live
from geomix_app.learn.formulas import FORMULAS, latex_number
from geomix_app.learn.questions import QUESTIONS, Choice, Mark
from geomix_app.learn.steps import STEPS, place
from geomix_app.learn.symbols import chips
from geomix_app.notation import SYMBOLS
from geomix_app.scenario import Scenario, from_query, to_query
from geomix_app.shell import View
from geomix_core.claims import CLAIMS

SCENARIOS = {
    "real": {},
    "inverse": {"weights": "inverse"},
    "gaussian": {"source": "gaussian", "seed": "3"},
    "far": {"source": "gaussian", "distance": "4"},
    "two tokens": {"source": "two_tokens"},
    "three tokens": {"source": "three_tokens"},
    "zipf": {"source": "zipf"},
    "own reference": {"source": "gaussian", "reference": "uniform"},
    "near": {"source": "near_identical"},
    "cut": {"source": "top_k"},
}


def facts(lang: str = "en", alpha: float = 0.3, **query: str) -> Facts:
    """Facts of a scenario, as a page would have them."""
    scenario, problems = from_query({**query, "alpha": str(alpha)})
    assert not problems
    row = compute.row(scenario, None)
    text = catalogue(lang)
    weights = "inverse" if scenario.weights == "inverse" else "importance"
    view = View("derivation", text, Style(text, "light"), scenario, weights, row, compute.pair(row.key, row.batch))
    return Facts(view)


def probabilities(found: Facts) -> tuple[np.ndarray, np.ndarray]:
    batch = found.view.row.batch
    return batch.theta[0].exp().double().numpy(), batch.target[0].exp().double().numpy()


# --- steps -------------------------------------------------------------------------------------------------------


def test_steps_cover_the_document_in_its_order() -> None:
    assert [s.part for s in STEPS] == sorted(s.part for s in STEPS)
    assert set(FORMULAS) == set(figures.FIGURES) == {s.name for s in STEPS}
    assert set(QUESTIONS) <= {s.name for s in STEPS}
    assert len(QUESTIONS) >= 8
    told = {claim for s in STEPS for claim in s.claims}
    assert told <= set(CLAIMS)
    # All that compare two quantities; those of §6.5 and §6.1 stand where the derivation first speaks of them.
    assert set(CLAIMS) - told == {"section_3_6_intuition"}
    assert [place(s.name) for s in STEPS] == list(range(len(STEPS)))
    assert place("no such step") == 0


def test_every_step_has_its_words_and_no_others() -> None:
    keys = entries("en").keys()
    for s in STEPS:
        wanted = {"title", "where", "what", "note"} | {f"proof_{i}" for i in range(1, s.proofs + 1)}
        assert {k.removeprefix(f"learn.{s.name}.") for k in keys if k.startswith(f"learn.{s.name}.")} == wanted
    steps = {k.split(".")[1] for k in keys if k.startswith("learn.")}
    assert steps == {s.name for s in STEPS} | {"part", "asking", "question"}
    assert {k for k in keys if k.startswith("learn.part.")} == {f"learn.part.part_{s.part}" for s in STEPS}


def test_every_question_has_its_words_and_no_others() -> None:
    keys = entries("en").keys()
    for name, question in QUESTIONS.items():
        if isinstance(question, Choice):
            wanted = {"ask"} | {f"option_{o}" for o in question.options} | {f"if_{o}" for o in question.options}
            truths = {f"truth_{o}" for o in question.options}
        else:
            wanted, truths = {"ask", "truth", "low", "high"}, set()
        found = {k.removeprefix(f"learn.question.{name}.") for k in keys if k.startswith(f"learn.question.{name}.")}
        # A truth that can never be the case has no words, and nobody can be wrong who says what always is.
        certain = {k for k in truths | wanted if k not in found}
        assert found <= wanted | truths
        always = {k.removeprefix("if_") for k in certain if k.startswith("if_")}
        assert len(always) <= 1, (name, certain)
        if always:
            assert {k for k in found if k.startswith("truth_")} == {f"truth_{always.pop()}"}
        else:
            assert not certain, (name, certain)


NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
GIVEN = re.compile(
    r"§\d+(?:\.\d+)?(?:[–-]\d+(?:\.\d+)?)?|(?:Theorem|定理) \d"
    # Formulas: the ends of the family, the exact on-policy step, and terms.
    r"|[αηw] [=>] [01](?!\.?\d)|[<>] 0(?!\.?\d)|1−α|1?/?√2|Φ₁²/\(2Φ₂\)|π_t/π_θ − 1"
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_measured_number_stands_in_the_words(language: str) -> None:
    """Every number in the text comes from the core at render time."""
    for key, raw in entries(language).items():
        if key.startswith(("learn.", "page.derivation.")):
            left = GIVEN.sub("", re.sub(r"\{\w+\}", "", raw))
            assert not NUMBER.search(left), (key, left)


# --- formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", SCENARIOS.values(), ids=SCENARIOS)
def test_every_formula_can_be_written_and_explained(query: dict[str, str]) -> None:
    found = facts(**query)
    for s in STEPS:
        formula = formulas.of(s.name, found)
        assert formula.lines
        assert "<" not in formula.latex.replace("&<", "")
        assert not re.search(r"\b(nan|inf|None)\b", formula.latex)
        assert formula.latex.count("{") == formula.latex.count("}")
        assert [n for n in formula.symbols if n not in BY_SYMBOL] == []
        for colour in re.findall(r"\\textcolor\{(#\w+)\}", formula.latex):
            assert colour in {symbol.light for symbol in SYMBOLS.values()}


def plain(latex: str) -> str:
    """A line without colours and spacing."""
    while (shorter := re.sub(r"\\textcolor\{#\w+\}\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", r"\1", latex)) != latex:
        latex = shorter
    return re.sub(r"\\[,;!]|\\q?quad|&", " ", latex)


def numbers_of(line: str) -> list[float]:
    return [
        float(mantissa) * 10.0 ** int(power or 0)
        for mantissa, power in re.findall(
            r"(?<![\w{^])(-?\d+\.\d+|-?\d+)(?:\\times10\^\{(-?\d+)\})?(?![\w}])", plain(line)
        )
    ]


def test_the_numbers_of_theorem_1_are_those_of_its_terms() -> None:
    found = facts(alpha=0.3, source="gaussian", eta="0.7")
    theta, target = probabilities(found)
    ell = np.log(target / theta)
    q = theta**0.3 * target**0.7
    q /= q.sum()
    h = theta / q * ell
    exact = 0.7 * (target @ h) - np.log(theta @ np.exp(0.7 * h))
    phi1, phi2 = (target - theta) @ h, theta @ h**2 - (theta @ h) ** 2
    gained, first, second, left = numbers_of(formulas.of("theorem_1", found).lines[1])
    np.testing.assert_allclose([gained, first, second], [exact, 0.7 * phi1, 0.49 / 2 * phi2], rtol=5e-3)
    assert left == pytest.approx(abs(exact - 0.7 * phi1 + 0.49 / 2 * phi2), rel=5e-3)


def test_the_numbers_of_kl_symmetry_are_two_divergences() -> None:
    found = facts(alpha=0.3, source="gaussian")
    theta, target = probabilities(found)
    q = theta**0.3 * target**0.7
    q /= q.sum()
    to_theta, to_target = (q @ np.log(q / p) for p in (theta, target))
    lines = formulas.of("kl_symmetry", found).lines
    delta, first, second, alpha = numbers_of(lines[1])
    np.testing.assert_allclose(
        [delta, first, second, alpha], [to_theta - to_target, to_theta, to_target, 0.3], rtol=5e-3
    )

    def difference(a: float) -> float:
        mixed = theta**a * target ** (1 - a)
        return float(mixed @ np.log(target / theta))

    assert numbers_of(lines[2])[-1] == pytest.approx(brentq(difference, 0, 1), abs=6e-5)


def test_the_numbers_of_progress_are_two_cross_entropies() -> None:
    found = facts(alpha=1.0, source="gaussian", eta="0.5")
    theta, target = probabilities(found)
    after = theta * np.exp(0.5 * np.log(target / theta))
    after /= after.sum()
    gained, there, here = numbers_of(formulas.of("progress", found).lines[2].replace("(", " ").replace(")", " "))
    np.testing.assert_allclose(
        [gained, there, here],
        [target @ np.log(after / theta), target @ np.log(after), target @ np.log(theta)],
        rtol=5e-3,
    )


@pytest.mark.parametrize(
    ("x", "written"),
    [(0.5, "0.500"), (-2.5e-7, r"-2.50\times10^{-7}"), (np.inf, r"\infty"), (123456.0, r"1.23\times10^{5}")],
)
def test_numbers_are_written_in_latex(x: float, written: str) -> None:
    assert latex_number(x) == written


# --- figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", SCENARIOS.values(), ids=SCENARIOS)
def test_every_step_has_a_figure_where_it_is_defined(query: dict[str, str]) -> None:
    found = facts(**query)
    for s in STEPS:
        figure = figures.of(s.name, found)
        if figure is None:
            assert s.reward
            assert not found.learns
        elif not isinstance(figure, Live):
            assert figure.figure().data
            assert figure.columns is not None
            lengths = {len(column) for column in figure.columns().values()}
            assert len(lengths) == 1
            assert lengths.pop() > 0


# --- questions ---------------------------------------------------------------------------------------------------


def test_a_question_is_asked_only_where_it_has_an_answer() -> None:
    asked = Counter(
        name for query in SCENARIOS.values() for name, question in QUESTIONS.items() if question.find(facts(**query))
    )
    assert set(asked) == set(QUESTIONS)
    cut = facts(source="top_k")
    assert not cut.learns
    assert [n for n in ("update", "progress", "wald", "theorem_2") if QUESTIONS[n].find(cut)] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("query", SCENARIOS.values(), ids=SCENARIOS)
def test_every_answer_gets_a_reply_that_speaks_of_it(query: dict[str, str], language: str) -> None:
    found = facts(language, **query)
    for name, question in QUESTIONS.items():
        answers: list[Any] = list(question.options) if isinstance(question, Choice) else [0.0, 0.25, 0.5, 0.75, 1.0]
        replies = [questions.reply(name, given, found, found.view.text) for given in answers]
        if question.find(found) is None:
            assert replies == [None] * len(answers)
            continue
        told = [r for r in replies if r is not None]
        assert len(told) == len(answers)
        assert not any(re.search(r"\b(nan|None)\b|[{}]", re.sub(r"\$[^$]*\$", "", r.truth + r.about)) for r in told)
        assert all(bool(r.about) != r.right for r in told)
        if isinstance(question, Choice):
            assert sum(r.right for r in told) == 1
            wrong = [r.about for r in told if not r.right]
            # Each wrong answer is spoken to; two may share a word only where both are off in the same way.
            assert len(set(wrong)) >= len(wrong) - 1


def test_the_truth_of_a_mark_is_what_others_compute() -> None:
    found = facts(alpha=0.5, source="gaussian", seed="5")
    theta, target = probabilities(found)
    ell = np.log(target / theta)
    kl = target @ ell

    def snr(a: float) -> float:
        tilt = np.exp(-(1 - a) * ell) * ell
        return float(abs((target - theta) @ tilt) / np.sqrt(theta @ tilt**2 - (theta @ tilt) ** 2))

    def worst(a: float) -> float:
        q = theta**a * target ** (1 - a)
        h = theta / (q / q.sum()) * ell
        return min(eta * (target @ h) - np.log(theta @ np.exp(eta * h)) for eta in (0.5, 2.0))

    grid = np.linspace(0, 1, 2001)
    half = theta * np.exp(0.5 * ell)
    alpha_kl = brentq(lambda a: float((theta**a * target ** (1 - a)) @ ell), 0, 1)
    expected = {
        "progress": (target @ np.log(half / half.sum() / theta)) / kl,
        "wald": grid[np.argmax([worst(a) for a in grid])],
        "one_dimension": grid[np.argmax([snr(a) for a in grid])],
        "kl_symmetry": alpha_kl,
        "snr_vs_kl": snr(alpha_kl) / max(snr(a) for a in grid),
    }
    marks = {name: q for name, q in QUESTIONS.items() if isinstance(q, Mark)}
    assert marks.keys() == expected.keys()
    for name, question in marks.items():
        truth = question.find(found)
        assert truth is not None
        assert truth[0] == pytest.approx(expected[name], abs=6e-4), name


def test_the_right_option_is_what_others_compute() -> None:
    found = facts(alpha=0.5, source="gaussian", seed="5")
    theta, target = probabilities(found)
    ell = np.log(target / theta)
    s = np.linspace(0, 1, 4001)
    family = theta[None] ** s[:, None] * target[None] ** (1 - s[:, None])
    family /= family.sum(1, keepdims=True)
    mixed = s[:, None] * theta + (1 - s[:, None]) * target

    def length(path: np.ndarray) -> float:
        return 2 * float(np.arccos(np.minimum((np.sqrt(path[1:]) * np.sqrt(path[:-1])).sum(1), 1)).sum())

    lengths = {
        "e_geodesic": length(family),
        "m_geodesic": length(mixed),
        "fisher_rao": 2 * float(np.arccos(np.sqrt(theta * target).sum())),
    }
    h = np.exp(-0.5 * ell) * ell * float((theta**0.5 * target**0.5).sum())
    phi1, phi2 = (target - theta) @ h, theta @ h**2 - (theta @ h) ** 2
    uniform = theta / np.full_like(theta, 1 / len(theta)) * ell

    def ratio(tilt: np.ndarray) -> float:
        return float(abs((target - theta) @ tilt) / np.sqrt(theta @ tilt**2 - (theta @ tilt) ** 2))

    alpha_kl = brentq(lambda a: float((theta**a * target ** (1 - a)) @ ell), 0, 1)
    ratios = {
        "theta": ratio(ell),
        "target": ratio(np.exp(-ell) * ell),
        "uniform": ratio(uniform),
        "kl": ratio(np.exp(-(1 - alpha_kl) * ell) * ell),
    }
    expected = {
        "update": "target",
        "theorem_1": "eight",
        "signal_noise": "same",
        "theorem_2": "yes" if phi1**2 / (2 * phi2) > target @ ell else "no",
        "full_space": "formula",
        "family": min(lengths, key=lambda name: lengths[name]),
        "comparison": max(ratios, key=lambda name: ratios[name]),
    }
    for name, option in expected.items():
        truth = QUESTIONS[name].find(found)
        assert truth is not None
        assert truth[0] == option, name


def test_the_right_answer_is_not_always_in_one_place() -> None:
    for name in ("update", "family", "full_space", "signal_noise"):
        question = QUESTIONS[name]
        assert isinstance(question, Choice)
        places = set()
        for seed in range(24):
            found = facts(source="gaussian", seed=str(seed))
            truth = question.find(found)
            assert truth is not None
            order = question.shuffled(name, found)
            assert sorted(order) == sorted(question.options)
            assert order == question.shuffled(name, found)
            places.add(order.index(truth[0]))
        assert places == set(range(len(question.options)))


@pytest.mark.parametrize("query", [*SCENARIOS.values(), {"source": "custom"}])
def test_another_draw_brings_other_policies(query: dict[str, str]) -> None:
    scenario, _ = from_query(query)
    changes = questions.redrawn(scenario)
    after = Scenario(**{**{f: getattr(scenario, f) for f in Scenario.__dataclass_fields__}, **changes})
    assert after.policies_key != scenario.policies_key
    assert from_query(to_query(after)) == (after, ())
    assert compute.row(after, None).batch.vocab_size > 1


# --- symbols -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_symbol_says_what_it_means(lang: str) -> None:
    view = facts(lang).view
    found = chips(view, ("snr", "progress"))
    assert found.count('tabindex="0"') == 2
    for name in ("snr", "progress"):
        assert view.text.html(f"glossary.{name}.name") in found
        assert view.text.html(f"glossary.{name}.means") in found
    # As the formula writes it, not as the figures' key does.
    assert f">{view.text.html('explorer.progress')}<" in found
    assert f">{SYMBOLS['progress'].html}<" not in found
