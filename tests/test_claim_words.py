"""The claims in words: complete, the same in both languages, and no number named that a claim does not produce."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from string import Formatter

import pytest

import geomix_core.claims
from geomix_core.claims import CLAIMS, RowVerdicts, Setting, check_all
from geomix_core.claims.conditions import Condition
from geomix_core.claims.words import LANGUAGES, Words, _entries, reason, reasons, words
from geomix_core.errors import OptionError
from geomix_core.policies import PolicyBatch
from geomix_core.progress import WEIGHTS
from geomix_core.scenarios import reference_policy, synthetic

SOURCES = sorted(Path(geomix_core.claims.__file__).parent.glob("*.py"))
FIELDS = tuple(f.name for f in fields(Words))
OPTIONAL = {"needs", "proof"}
"""Fields that a claim may leave empty; one that compares nothing has no finding either."""


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@cache
def samples() -> tuple[PolicyBatch, ...]:
    """Rows on which, between them, every claim is decided."""
    gaussian = synthetic("gaussian", vocabulary=40)
    return (
        gaussian,
        PolicyBatch(gaussian.theta, gaussian.target, reference_policy(gaussian.theta, "uniform")),
        synthetic("three_tokens"),
        synthetic("two_tokens"),
        synthetic("top_k"),
        PolicyBatch.from_probs([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        PolicyBatch.from_probs([1.0, 0.0], [0.0, 1.0]),
    )


@cache
def results() -> tuple[dict[str, RowVerdicts], ...]:
    return tuple(check_all(row, Setting(weights=w)) for row in samples() for w in WEIGHTS)


def reasons_in_code() -> set[str]:
    """Every reason that the sources can give: of conditions, of rows left silent, and the model's own."""
    module = geomix_core.claims.conditions
    found = {c.reason for c in vars(module).values() if isinstance(c, Condition)}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found |= set(_reasons_of(node))
    return found


def _reasons_of(node: ast.AST) -> Iterator[str]:
    masks = isinstance(node, ast.Assign | ast.AnnAssign) and "silent" in ast.unparse(node).split("=")[0]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Measurement":
        for argument in (*node.args[3:], *(k.value for k in node.keywords if k.arg == "silent")):
            yield from _keys(argument)
    elif masks and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        yield from _keys(node.value)
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                yield str(target.slice.value)
    elif isinstance(node, ast.FunctionDef) and node.name == "undecided":
        yield from (k for n in ast.walk(node) if isinstance(n, ast.Return) and n.value for k in _keys(n.value))
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_mark":
        yield from _constants(node.args[1])
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RowVerdicts":
        yield from (s for a in node.args for s in _constants(a))
    elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
        yield from _constants(node.value)


def _keys(node: ast.expr) -> Iterator[str]:
    """The keys of every dict that is written out in an expression."""
    for part in ast.walk(node):
        if isinstance(part, ast.Dict):
            yield from (str(k.value) for k in part.keys if isinstance(k, ast.Constant))


def _constants(node: ast.expr) -> Iterator[str]:
    yield from (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))


# --- complete ----------------------------------------------------------------------------------------------------


def test_every_claim_has_words_and_nothing_else_has() -> None:
    found = _entries()
    assert found.keys() - {"reason"} == CLAIMS.keys()
    assert [k for k in found if k != "reason"] == list(CLAIMS)  # in the document's order
    for name, entry in found.items():
        assert entry.keys() == set(LANGUAGES), name
    for name in CLAIMS:
        for language in LANGUAGES:
            assert tuple(found[name][language]) == FIELDS, name


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", CLAIMS)
def test_words_are_there(name: str, language: str) -> None:
    told = words(name, language)
    decided = CLAIMS[name].measure is not None
    for field in FIELDS:
        text = getattr(told, field)
        assert text == text.strip()
        assert "\n" not in text
        assert text or field in OPTIONAL or (field in ("holds", "fails") and not decided), field
        assert not text or text[-1] in ".。" or field == "where", text
    assert decided or (told.holds, told.fails) == ("", "")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", CLAIMS)
def test_languages_agree(name: str, field: str) -> None:
    en, zh = (getattr(words(name, language), field) for language in LANGUAGES)
    assert bool(en) == bool(zh)
    assert placeholders(en) == placeholders(zh)
    # A bare section number is the same in both.
    assert en != zh or not en or re.fullmatch(r"§[\d.]+", en)
    assert not re.search("[\u4e00-\u9fff]", en)
    assert not zh or field == "where" or len(re.findall("[\u4e00-\u9fff]", zh)) >= 2


def test_a_claim_with_an_unstated_hypothesis_says_so() -> None:
    for name, claim in CLAIMS.items():
        assert not claim.assumes or words(name, "en").needs, name


# --- numbers -----------------------------------------------------------------------------------------------------


def test_samples_decide_every_claim() -> None:
    decided = {name for found in results() for name, rows in found.items() if rows.applies.any()}
    assert decided == {name for name, claim in CLAIMS.items() if claim.measure is not None}


@pytest.mark.parametrize("name", [n for n, claim in CLAIMS.items() if claim.measure is not None])
def test_findings_name_numbers_that_the_claim_produces(name: str) -> None:
    produced = [set(found[name].verdict(0).numbers) for found in results() if found[name].applies.any()]
    told = words(name, "en")
    for sentence in (told.holds, told.fails):
        named = placeholders(sentence)
        assert named, sentence
        assert "" not in named
        for numbers in produced:
            assert named <= numbers
    for field in ("where", "says", "test", "needs", "proof"):
        assert not placeholders(getattr(told, field)), field


# --- reasons -----------------------------------------------------------------------------------------------------


def test_every_reason_has_words_and_no_other() -> None:
    assert set(reasons()) == reasons_in_code()
    assert {"disjoint", "several", "flat", "constant", "out_of_range", "interpretation", "no_rows"} <= reasons_in_code()


def test_reasons_met_have_words() -> None:
    met = {r for found in results() for rows in found.values() for r in rows.reasons if r}
    assert met <= set(reasons())
    assert {"uncovered", "supports", "identical", "reference", "flat", "interpretation"} <= met


@pytest.mark.parametrize("key", reasons())
def test_reasons_are_told_in_both_languages(key: str) -> None:
    en, zh = (reason(key, language) for language in LANGUAGES)
    assert en != zh
    assert (en[-1], zh[-1]) == (".", "。")
    assert not placeholders(en) | placeholders(zh)
    assert re.search("[\u4e00-\u9fff]", zh)
    assert not re.search("[\u4e00-\u9fff]", en)


# --- asking for what is not there --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "language"), [("theorem_9", "en"), ("reason", "en"), ("theorem_1", "fr")])
def test_unknown_words_are_refused(name: str, language: str) -> None:
    with pytest.raises(OptionError, match="expected"):
        words(name, language)


@pytest.mark.parametrize(("key", "language"), [("because", "en"), ("flat", "fr")])
def test_unknown_reasons_are_refused(key: str, language: str) -> None:
    with pytest.raises(OptionError, match="expected"):
        reason(key, language)
