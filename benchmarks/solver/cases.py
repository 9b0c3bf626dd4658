"""The inputs, and their answers in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geomix_core import PolicyBatch, solve_alpha, tilted_moments
from geomix_core.scenarios import REAL_PAIRS, real_rows

SHAPES = ((8, 50_257), (64, 50_257), (16, 151_936))
FAMILIES = ("easy", "hard", "near-identical")


@dataclass(frozen=True, eq=False)
class Case:
    """Two float32 logit arrays `[B, V]`; per row, α and √Var at it by the float64 solver."""

    family: str
    theta: np.ndarray
    target: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray

    @property
    def name(self) -> str:
        rows, vocabulary = self.theta.shape
        return f"{self.family} {rows}×{vocabulary}"


def logits(family: str, rows: int, vocabulary: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Seeded float32 logits `[rows, vocabulary]` of both policies.

    easy: 2z, and standard normal differences. hard: 8z, twice independently, so both are nearly one-hot.
    near-identical: 2z, and normal differences of standard deviation 0.05.
    """
    first, second = np.random.default_rng(seed).standard_normal((2, rows, vocabulary), dtype=np.float32)
    if family == "hard":
        return 8 * first, 8 * second
    spread = {"easy": 1.0, "near-identical": 0.05}[family]
    return 2 * first, 2 * first + np.float32(spread) * second


def all_cases() -> list[Case]:
    """Every family in every shape, and the bundled rows of a language model."""
    synthetic = [_case(family, *logits(family, *shape)) for family in FAMILIES for shape in SHAPES]
    real = [(pair, real_rows(pair)) for pair in REAL_PAIRS]
    return synthetic + [_case(f"real, {pair}", r.theta.float().numpy(), r.target.float().numpy()) for pair, r in real]


def _case(family: str, theta: np.ndarray, target: np.ndarray) -> Case:
    batch = PolicyBatch.from_logits(theta.astype(np.float64), target.astype(np.float64))
    result = solve_alpha(batch)
    if not result.solved.all():
        raise RuntimeError(f"{family}: the float64 reference solved {int(result.solved.sum())} of {len(batch)} rows.")
    sigma = tilted_moments(batch, result.alpha).variance.sqrt()
    return Case(family, theta, target, result.alpha.numpy(), sigma.numpy())
