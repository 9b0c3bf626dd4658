"""Every claim in words, in English and Chinese, from words.toml; what is wrong with one's own, from problems.toml.

words("theorem_4_unique", "zh").says      # the document's statement; .needs, .proof, …
reason("uncovered", "en")                 # why a claim does not apply to a row
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from geomix_core.errors import OptionError

LANGUAGES = ("en", "zh")
_REASONS = "reason"
"""The table of words.toml that is no claim."""


@dataclass(frozen=True, slots=True)
class Words:
    """A claim in one language. `holds` and `fails` have {placeholders}, names of the claim's numbers."""

    where: str
    """Theorem and section of the document."""
    says: str
    """The document's statement; in Chinese as closely to its own words as a line allows."""
    test: str
    """What is compared, and what is allowed."""
    needs: str
    """Hypotheses that the claim needs but the document does not state; "" for none."""
    proof: str
    """A proof of the claim, or of its failure, or a reference; "" where there are numbers only."""
    holds: str
    fails: str
    """The finding; "" for a claim that compares nothing."""


def words(name: str, language: str) -> Words:
    """A claim's words, given its name in `CLAIMS`. Raises OptionError for a name or language that is not there."""
    if name == _REASONS or name not in _entries():
        raise OptionError(f"claim is {name!r}: expected a name in geomix_core.claims.CLAIMS.")
    return Words(**_entries()[name][_known(language)])


def reason(key: str, language: str) -> str:
    """Why a claim does not apply, given `Verdict.reason`. Raises OptionError as `words` does."""
    reasons = _entries()[_REASONS][_known(language)]
    if key not in reasons:
        raise OptionError(f"reason is {key!r}: expected one of {', '.join(reasons)}.")
    return reasons[key]


def reasons() -> tuple[str, ...]:
    """Every reason that has words."""
    return tuple(_entries()[_REASONS][LANGUAGES[0]])


def problem(code: str, position: int, values: Mapping[str, str], language: str) -> str:
    """Why a statement of one's own cannot be read, given what an `ExpressionError` carries. Raises OptionError."""
    said = _problems()
    expected = said["expected"][_known(language)].get(values.get("expected", ""), "")
    return said["problem"][language][code].format_map({**values, "position": position + 1, "expected": expected})


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise OptionError(f"language is {language!r}: expected one of {', '.join(LANGUAGES)}.")
    return language


@cache
def _problems() -> Mapping[str, Mapping[str, dict[str, str]]]:
    return _read("problems.toml")


@cache
def _entries() -> Mapping[str, Mapping[str, dict[str, str]]]:
    return _read("words.toml")


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files("geomix_core.claims") / name).read_text("utf-8"))
