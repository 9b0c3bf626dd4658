"""What the study measures: the rows, and one case, a row with an estimator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from geomix_core.criteria import solve_alpha
from geomix_core.lab import ESTIMATORS, Efficiency, Estimator, Plan, Problem, Trial, efficiency, propose, run
from geomix_core.lab import run_in_sequence as in_sequence
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import real_rows, synthetic

SIZES = tuple(4**k for k in range(1, 9))
REPETITIONS = 50
NAMES = (
    "on_policy", "off_policy", "uniform", "kl_symmetry", "wald", "optimum", "logarithmic_mean", "defensive",
)  # fmt: skip
DISTANCES = (0.03, 0.3, 2.0)
DRAWS = {10: 2, 100: 2, 1_000: 1, 50_257: 1}
"""Seeds of each cell by vocabulary."""
INT8_ROWS = 2
SATURATED = 1.02
"""Where four times the samples gain less than this factor, larger N are not tried."""
NOTICEABLE = 0.002
"""Share of KL(π_t‖π_θ) below which nothing was gained that could be compared."""
HOPELESS = 16_384
"""The N from which on nothing larger is tried where neither on-policy nor α_KL has gained a noticeable share."""
TOTAL, UPDATES = 256, (1, 4, 16)
"""Budget and numbers of updates of the runs with several updates in a row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pair of policies of the study."""

    name: str
    kind: str
    vocabulary: int
    batch: PolicyBatch


def rows() -> Iterator[Row]:
    """All rows, small vocabularies first."""
    for vocabulary, draws in DRAWS.items():
        for family in ("gaussian", "zipf"):
            for distance in DISTANCES:
                for seed in range(draws):
                    batch = synthetic(family, vocabulary=vocabulary, distance=distance, seed=seed)
                    yield Row(f"{family} V={vocabulary} KL={distance:g} #{seed}", family, vocabulary, batch)
        for seed in range(draws):
            batch = synthetic("dirichlet", vocabulary=vocabulary, seed=seed)
            yield Row(f"dirichlet V={vocabulary} #{seed}", "dirichlet", vocabulary, batch)
    for pair, count in (("privileged", 8), ("int8", INT8_ROWS)):
        real = real_rows(pair)
        for i in range(count):
            batch = PolicyBatch.from_logits(real.theta[i], real.target[i])
            yield Row(f"real {pair} #{i}", f"real {pair}", batch.vocab_size, batch)


def cases() -> Iterator[tuple[str, Row, Estimator]]:
    """Every row with every estimator, by a name that identifies it."""
    for row in rows():
        for estimator in ESTIMATORS:
            yield f"{row.name}, {estimator}", row, estimator


def measure(row: Row, estimator: Estimator) -> dict[str, Any]:
    """One case: every distribution at N = 4, 16, … until on-policy and α_KL gain no more, and their efficiency."""
    problem = Problem(row.batch)
    found = propose(problem, NAMES)
    snr = solve_alpha(row.batch, "snr")
    plan = Plan(estimator, REPETITIONS)
    trials: list[Trial] = []
    for n in SIZES:
        trials += run(problem, found.found, n, plan)
        watched = [[t.mean / t.ceiling for t in trials if t.proposal == q] for q in ("on_policy", "kl_symmetry")]
        if all(map(_saturated, watched)) or (n >= HOPELESS and max(map(max, watched)) < NOTICEABLE):
            break
    base = [t.mean / t.ceiling for t in trials if t.proposal == "on_policy"]
    # Half-way up the curve of on-policy: there N matters, and interpolation is safe.
    goal = (max(base[0], 0.0) + max(base)) / 2
    compared = efficiency(trials, goal) if max(base) > NOTICEABLE else ()
    return {
        "row": row.name,
        "kind": row.kind,
        "vocabulary": row.vocabulary,
        "estimator": estimator,
        "kl": problem.ceiling,
        "alpha": {p.name: _short(p.alpha) for p in found.found if p.alpha is not None},
        "alpha_snr": _short(float(snr.alpha[0])) if snr.status[0].is_solution else str(snr.status[0]),
        "goal": _short(goal),
        "sizes": sorted({t.samples for t in trials}),
        "trials": {name: _curve([t for t in trials if t.proposal == name]) for name in NAMES},
        "efficiency": {e.proposal: _efficiency(e) for e in compared},
    }


def measure_in_sequence(row: Row) -> dict[str, Any]:
    """Several updates in a row at the same total budget, with what an RLHF learner receives."""
    problem, plan = Problem(row.batch), Plan("softmax_gradient", REPETITIONS)
    gained = {}
    for name in ("on_policy", "kl_symmetry", "off_policy"):
        for updates in UPDATES:
            found = in_sequence(problem, name, TOTAL, updates, plan)
            ends = (found.mean, found.interval.low, found.interval.high)
            gained[f"{name}, {updates}"] = [_short(x / problem.ceiling) for x in ends]
    return {"row": row.name, "kind": row.kind, "vocabulary": row.vocabulary, "kl": problem.ceiling, "gained": gained}


def _saturated(shares: list[float]) -> bool:
    return len(shares) > 1 and shares[-1] > 0.01 and shares[-1] < SATURATED * shares[-2]


def _curve(curve: list[Trial]) -> dict[str, list[Any]]:
    """Shares of KL(π_t‖π_θ), N by N."""
    return {
        "mean": [_short(t.mean / t.ceiling) for t in curve],
        "low": [_short(t.interval.low / t.ceiling) for t in curve],
        "high": [_short(t.interval.high / t.ceiling) for t in curve],
        "away": [_short(t.away) for t in curve],
        "diverged": [t.diverged for t in curve],
        "step": [_short(t.step) for t in curve],
    }


def _efficiency(e: Efficiency) -> dict[str, Any]:
    numbers = {"needed": e.reach.samples, "factor": e.factor, "low": e.interval.low, "high": e.interval.high}
    return {"reach": e.reach.status, "status": e.status, **{k: _short(v) for k, v in numbers.items()}}


def _short(x: float | None) -> float | str | None:
    """Four significant digits; JSON has no infinity."""
    if x is None or math.isnan(x):
        return None
    return float(f"{x:.4g}") if math.isfinite(x) else "inf"


def settings() -> dict[str, Any]:
    """What decides the results: a file of another study is not continued."""
    plan = asdict(Plan("softmax_gradient", REPETITIONS))
    return {
        "sizes": SIZES,
        "repetitions": REPETITIONS,
        "seed": plan["seed"],
        "names": NAMES,
        "draws": list(DRAWS.items()),
    }
