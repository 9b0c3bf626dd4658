"""The derivation, step by step, in the document's order: what each step argues, checks, shows and asks. Pure data.

A step's words are in the catalogue under learn.NAME: title, where, what (a sentence), note, and proof_1, proof_2, …
Its formula is `formulas.NAME`, its question `questions.QUESTIONS[NAME]`, its figure `figures.FIGURES[NAME]`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the derivation."""

    name: str
    part: int
    """The document's part, 0 for its opening question."""
    page: str
    """The Explore page that shows the same at leisure."""
    claims: tuple[str, ...] = ()
    """What the document claims in it, by name in the ledger."""
    proofs: int = 0
    """How many steps its proof has."""
    reward: bool = True
    """Whether its formula needs a finite reward."""


STEPS: tuple[Step, ...] = (
    Step("budget", 0, "policies", reward=False),
    Step("update", 1, "policies", proofs=2),
    Step("progress", 1, "progress", proofs=3),
    Step("theorem_1", 2, "progress", ("theorem_1",), proofs=4),
    Step("signal_noise", 2, "choosing", ("section_2_3_noise",), proofs=2),
    Step("wald", 3, "choosing", ("theorem_3_minimax",), proofs=2),
    Step("theorem_2", 3, "progress", ("theorem_2_step", "theorem_2_gain"), proofs=3),
    Step(
        "theorem_3",
        3,
        "choosing",
        ("theorem_3_equivalence", "theorem_3_sign", "section_3_6_dimensionless", "section_3_6_scaling"),
        proofs=3,
    ),
    Step("full_space", 4, "choosing", ("section_4_1_infeasible", "section_4_1_gradient"), proofs=3),
    Step(
        "family",
        4,
        "geodesic",
        ("section_4_2_log_linear", "section_4_2_geodesic", "section_4_2_shortest", "section_4_2_pareto"),
        proofs=3,
        reward=False,
    ),
    Step(
        "one_dimension", 5, "choosing", ("section_5_1_search", "section_5_1_complexity", "section_4_3_ends"), proofs=2
    ),
    Step(
        "kl_symmetry",
        5,
        "geodesic",
        ("theorem_4_identity", "theorem_4_exists", "theorem_4_unique"),
        proofs=4,
        reward=False,
    ),
    Step("snr_vs_kl", 5, "choosing", ("section_5_4_alpha", "section_5_4_snr"), proofs=2),
    Step(
        "algorithm",
        6,
        "geodesic",
        ("section_6_2_stable", "section_6_1_composition", "theorem_5_optimal", "theorem_5_equivalent"),
        proofs=2,
        reward=False,
    ),
    Step(
        "comparison",
        6,
        "choosing",
        ("section_6_5_mixture", "section_6_5_on_policy", "section_6_5_off_policy", "section_6_5_uniform"),
        proofs=2,
    ),
    Step("summary", 7, "lab", ("section_7_3_efficiency",), reward=False),
)

AT_A_POINT = frozenset(
    {"update", "progress", "theorem_1", "signal_noise", "theorem_2", "theorem_3", "family", "kl_symmetry"}
)
"""Steps whose formula is evaluated at the current α and η."""
OF_A_TOKEN = frozenset({"update", "family"})
"""Steps whose formula speaks of one token, ỹ."""

BY_NAME = {step.name: step for step in STEPS}
ORDER = tuple(BY_NAME)


def place(name: str) -> int:
    """A step's place in the order, from 0; the first for a name that is none."""
    return ORDER.index(name) if name in BY_NAME else 0
