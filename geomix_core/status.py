"""What a solver says of a row: one word, and for a person the symptom, its cause and the remedy."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is seen, why, and what to do about it."""

    symptom: str
    cause: str
    remedy: str


class Status(StrEnum):
    """Outcome of a row. `is_solution` says whether α is an answer; `explanation` says the rest in words."""

    SOLVED = "solved"
    SOLVED_ON_COMMON_SUPPORT = "solved_on_common_support"
    IDENTICAL = "identical"
    FLAT = "flat"
    NO_SIGNAL = "no_signal"
    NO_ASCENT = "no_ascent"
    NO_INTERIOR_ROOT = "no_interior_root"
    NO_COVERAGE = "no_coverage"
    DISJOINT = "disjoint"
    OUT_OF_RANGE = "out_of_range"
    NOT_CONVERGED = "not_converged"

    @property
    def is_solution(self) -> bool:
        """True where the reported α satisfies the criterion."""
        return self in _SOLUTIONS

    @property
    def explanation(self) -> Explanation:
        """Symptom, cause and remedy in English (the app translates by the status's value)."""
        return _EXPLANATIONS[self]


RowStatus = Status | Literal["invalid"]
"""A solver's word on a row, or "invalid" where the input is no policy."""

_SOLUTIONS = frozenset({Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT, Status.IDENTICAL, Status.FLAT})

_EXPLANATIONS = {
    Status.SOLVED: Explanation("One α in [0, 1] solves the criterion.", "Both policies cover the same tokens.", "—"),
    Status.SOLVED_ON_COMMON_SUPPORT: Explanation(
        "Solved on the tokens that both policies can produce.",
        "The supports differ: the geometric mixture gives no mass to a token that either policy excludes.",
        "If the missing tokens were cut by top-k or top-p, solve on the uncut logits, or smooth explicitly.",
    ),
    Status.IDENTICAL: Explanation(
        "Every α solves the criterion; α = 1/2 is reported.",
        "The policies are equal to rounding (on the tokens that π_θ can produce), so the family is a single point.",
        "Nothing to choose: sample from either policy.",
    ),
    Status.FLAT: Explanation(
        "Every α is optimal; α = 1/2 is reported.",
        "The criterion is constant along the family (with two tokens SNR always equals √χ²).",
        "Choose α by another criterion.",
    ),
    Status.NO_SIGNAL: Explanation(
        "SNR is undefined, 0/0, for every α; α = 1/2 is only a placeholder.",
        "The reward is zero on every token that π_θ can produce: the reference equals the target there.",
        "Choose another reference, or choose α by KL symmetry.",
    ),
    Status.NO_ASCENT: Explanation(
        "No α has Φ₁ > 0; α = 1/2 is only a placeholder.",
        "On average the reward pushes away from the target for every q in the family, so no step η > 0 makes progress.",
        "Choose another reference (with π_ref = π_θ the signal is never negative), or choose α by KL symmetry.",
    ),
    Status.NO_INTERIOR_ROOT: Explanation(
        "No α in (0, 1) solves the criterion; the nearer end point is reported.",
        "On the common support Δ keeps one sign: truncation removed the tokens that would balance it.",
        "Solve on the uncut logits, or smooth both policies explicitly.",
    ),
    Status.NO_COVERAGE: Explanation(
        "The criterion is undefined on this row; α = 1/2 is only a placeholder.",
        "A token that the update reaches has an infinite reward or importance weight: one policy (or the "
        "reference) gives it zero probability.",
        "Use untruncated logits, or smooth explicitly: (1 − ε)π + ε/V.",
    ),
    Status.DISJOINT: Explanation(
        "No geometric mixture exists; α = 1/2 is only a placeholder.",
        "No token has positive probability under both policies.",
        "Check that both rows belong to the same prompt and vocabulary, or smooth both policies.",
    ),
    Status.OUT_OF_RANGE: Explanation(
        "SNR is beyond the range of double precision; α = 1/2 is only a placeholder.",
        "The policies differ by hundreds of nats: the noise Φ₂ vanishes beside the signal.",
        "Choose α by KL symmetry, which stays exact, or smooth both policies explicitly.",
    ),
    Status.NOT_CONVERGED: Explanation(
        "The iteration stopped before it met its tolerance; the bracket still contains a solution.",
        "The iteration limit was too low for this row.",
        "Raise max_iterations and report the row: this should not happen.",
    ),
}
