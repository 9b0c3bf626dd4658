"""The study in words: one page of conclusions, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

Case = dict[str, Any]

ESTIMATORS = {
    "seed_tilt": "the document's update",
    "natural_gradient": "natural policy gradient",
    "softmax_gradient": "softmax policy gradient (what a learner's logits receive)",
}
NAMES = {
    "on_policy": "on-policy, π_θ", "off_policy": "off-policy, π_t", "uniform": "uniform", "kl_symmetry": "q at α_KL",
    "wald": "q at α_Wald", "optimum": "π_θ²/L (largest SNR, w = π_θ/q)",
    "logarithmic_mean": "L(π_θ, π_t) (largest SNR, w = q/π_θ)", "defensive": "0.9 q at α_KL + 0.1 π_θ",
}  # fmt: skip
PROMISE = 2.0
"""§7.3: at least so many times fewer samples."""
RESAMPLES = 4000
FEW = 5
"""Fewer rows than this have no median worth an interval."""


def page(found: dict[str, Any]) -> str:
    """The page, as Markdown."""
    cases = list(found["cases"].values())
    lines = [
        "# How many samples does each distribution need?",
        "",
        _provenance(found, cases),
        "",
        "![On-policy's N over α_KL's, row by row](../../docs/lab_study_rows.svg)",
        "",
        "## Does α_KL need two to five times fewer samples than on-policy (§7.3)?",
        "",
        *(_promise(cases, estimator) for estimator in ESTIMATORS),
        "",
        *_by_group(cases),
        "",
        "## Is SNR's choice borne out?",
        "",
        *_snr(cases),
        "",
        "## Which distribution needs the fewest samples?",
        "",
        "![Medians](../../docs/lab_study_medians.svg)",
        "",
        "Median over rows of on-policy's N over this distribution's N (above 1: fewer samples), with the 95 % interval "
        "of the median; in brackets on how many rows it needs clearly fewer, clearly more than on-policy.",
        "",
        *_medians(cases),
        "",
        *_gone(cases),
        "",
        "## Several updates in a row",
        "",
        *_sequences(list(found["sequences"].values())),
        "",
    ]
    return "\n".join(lines)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What `geomix_core.claims.study` reads: the ratio of N to on-policy's, by distribution and estimator."""
    cases = list(found["cases"].values())

    def finding(estimator: str, name: str) -> dict[str, Any]:
        there = comparable(cases, estimator)
        middle, low, high = median(factors(there, name))
        fewer, more = clear(there, name)
        counts = {"rows": len(there), "fewer": fewer, "more": more}
        return {"estimator": estimator, "median": middle, "low": low, "high": high, **counts}

    others = [name for name in NAMES if name != "on_policy"]
    return {"taken": found["taken"], "findings": {name: [finding(e, name) for e in ESTIMATORS] for name in others}}


def comparable(cases: Iterable[Case], estimator: str, where: Callable[[Case], bool] = lambda case: True) -> list[Case]:
    """Cases of an estimator on which on-policy gained enough to compare, and did so in an orderly way."""
    return [c for c in cases if c["estimator"] == estimator and where(c) and c["efficiency"] and not erratic(c)]


def erratic(case: Case) -> bool:
    """With more samples on-policy fell by more than half of the most it gained: rare disasters rule its mean."""
    means = np.array(case["trials"]["on_policy"]["mean"])
    return bool((np.maximum.accumulate(means) - means > means.max() / 2).any())


def factors(cases: Sequence[Case], name: str) -> np.ndarray:
    """On-policy's N over this distribution's N; at its bound where only that is known."""
    entries = (c["efficiency"].get(name) for c in cases)
    return np.array([e["factor"] for e in entries if e and e["status"] != "undetermined"])


def clear(cases: Sequence[Case], name: str) -> tuple[int, int]:
    """On how many rows the distribution needs clearly fewer, and clearly more samples than on-policy."""
    entries = [e for c in cases if (e := c["efficiency"].get(name))]
    return sum(float(e["low"]) > 1 for e in entries), sum(float(e["high"]) < 1 for e in entries)


def median(values: np.ndarray) -> tuple[float, float, float]:
    """Median over rows, and its bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, 1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def _share(count: int, total: int) -> str:
    between = binomtest(count, total).proportion_ci(method="wilson")
    return f"{count} of {total} rows ({100 * count / total:.0f} %, [{100 * between.low:.0f}, {100 * between.high:.0f}])"


def _provenance(found: dict[str, Any], cases: Sequence[Case]) -> str:
    rows = {c["row"] for c in cases}
    real = sum(r.startswith("real") for r in rows)
    settings = found["settings"]
    return (
        f"`{found['command']}`: {len(rows)} rows ({real} of them real) × 3 estimators, {found['seconds']:.0f} s of "
        f"processor time on one core, torch {found['torch']}, {found['taken']}. N = 4, 16, …, 65,536, each with "
        f"{settings['repetitions']} repetitions, at a step size tuned for each N and distribution on others. Larger N "
        "are left out once on-policy and α_KL gain less than 2 % by four times the samples. The goal on each row is "
        "half-way between what on-policy gains with N = 4 and the most it gains. A ratio of two N has a 95 % bootstrap "
        "interval over repetitions, at the step sizes as tuned; “clearly” means that this interval lies on one side of "
        "1. Medians and shares speak of the rows drawn here, not of policies in general."
    )


def _promise(cases: Sequence[Case], estimator: str) -> str:
    there = comparable(cases, estimator)
    if not there:
        return f"- **{ESTIMATORS[estimator]}**: nothing to compare."
    values = factors(there, "kl_symmetry")
    middle, low, high = median(values)
    fewer, more = clear(there, "kl_symmetry")
    twice = sum(float(c["efficiency"]["kl_symmetry"]["low"]) >= PROMISE for c in there)
    kept = int((values >= PROMISE).sum())
    return (
        f"- **{ESTIMATORS[estimator]}**: on-policy needs {middle:.2g} times the samples of α_KL (median, "
        f"[{low:.2g}, {high:.2g}]). α_KL needs clearly fewer on {_share(fewer, len(there))}, clearly more on "
        f"{_share(more, len(there))}. At least twice as few on {_share(kept, len(there))}; clearly so on {twice}."
    )


def _by_group(cases: Sequence[Case]) -> list[str]:
    """α_KL against on-policy by vocabulary, by distance, and on the real rows."""
    vocabularies: dict[str, Callable[[Case], bool]] = {
        f"V = {v:,}": lambda c, v=v: c["vocabulary"] == v and not _real(c) for v in (10, 100, 1_000, 50_257)
    }
    distances: dict[str, Callable[[Case], bool]] = {
        f"KL = {d:g}": lambda c, d=d: f"KL={d:g} " in c["row"] for d in (0.03, 0.3, 2.0)
    }
    note = "+ rows where α_KL needs clearly fewer, − clearly more. —: on-policy gained too little to compare."
    real = {"real rows": _real}
    return [*_table(cases, vocabularies | real), "", *_table(cases, distances), "", note]


def _table(cases: Sequence[Case], groups: dict[str, Callable[[Case], bool]]) -> list[str]:
    lines = ["| α_KL against on-policy | " + " | ".join(groups) + " |", "| --- |" + " --- |" * len(groups)]
    for estimator, said in ESTIMATORS.items():
        cells = [_cell(comparable(cases, estimator, where), "kl_symmetry") for where in groups.values()]
        lines.append(f"| {said} | " + " | ".join(cells) + " |")
    return lines


def _cell(cases: Sequence[Case], name: str) -> str:
    """Median factor with its interval, and on how many rows it is clearly above and below 1."""
    values = factors(cases, name)
    if not len(values):
        return "—"
    fewer, more = clear(cases, name)
    if len(values) < FEW:
        return f"too few rows (+{fewer} −{more} of {len(cases)})"
    middle, low, high = median(values)
    return f"{middle:.2g} [{low:.2g}, {high:.2g}] (+{fewer} −{more} of {len(cases)})"


def _snr(cases: Sequence[Case]) -> list[str]:
    rows = {c["row"]: c["alpha_snr"] for c in cases}
    on_policy = sum(a == 1.0 for a in rows.values())
    there = comparable(cases, "seed_tilt")
    lines = [f"With w = π_θ/q, α_SNR is 1, on-policy, on {_share(on_policy, len(rows))}."]
    if there:
        fewer, more = clear(there, "kl_symmetry")
        worse, better = clear(there, "optimum")[1], clear(there, "optimum")[0]
        lines.append(
            f"With N samples of the document's own update, α_KL needs clearly fewer samples than that choice on "
            f"{_share(fewer, len(there))}, clearly more on {_share(more, len(there))}. The distribution of largest SNR "
            f"over the whole simplex, π_θ²/L, needs clearly more samples than on-policy on "
            f"{_share(worse, len(there))}, clearly fewer on {_share(better, len(there))}."
        )
    return lines


def _medians(cases: Sequence[Case]) -> list[str]:
    lines = ["| samples of | " + " | ".join(ESTIMATORS.values()) + " |", "| --- |" + " --- |" * len(ESTIMATORS)]
    for name, said in NAMES.items():
        if name != "on_policy":
            cells = [_cell(comparable(cases, estimator), name) for estimator in ESTIMATORS]
            lines.append(f"| {said} | " + " | ".join(cells) + " |")
    return lines


def _gone(cases: Sequence[Case]) -> list[str]:
    lines = [
        "Not compared are cases in which on-policy gained less than 0.2 % of KL(π_t‖π_θ) at every N, and those in "
        "which with more samples it fell by more than half of the most it gained: rare disasters rule its mean there.",
        "",
    ]
    for estimator, said in ESTIMATORS.items():
        mine = [c for c in cases if c["estimator"] == estimator]
        silent = [c for c in mine if not c["efficiency"]]
        unruly = [c for c in mine if c["efficiency"] and erratic(c)]
        lines.append(
            f"- {said}: {len(silent)} of {len(mine)} gained too little ({sum(map(_real, silent))} of them real rows), "
            f"{len(unruly)} erratic ({sum(map(_real, unruly))} real)."
        )
    trials = [t for c in cases for t in c["trials"].values()]
    repetitions = sum(len(t["diverged"]) for t in trials)
    diverged = sum(sum(t["diverged"]) for t in trials)
    told = (
        f"{diverged:,} repetitions ended more than twice as far from π_t as they began, in {repetitions:,} trials of "
        "fifty; they count in every mean. An interval cannot see a disaster that none of its repetitions met."
    )
    return [*lines, "", told]


def _sequences(rows: Sequence[Case]) -> list[str]:
    if not rows:
        return ["Not measured."]
    lines = [
        f"Softmax policy gradient on {len(rows)} rows with V ≤ 1,000, 256 samples in all, q and r taken anew at the "
        "policy then reached. Median over rows of the share of KL(π_t‖π_θ) gained, with its interval; each row is in "
        "lab_study.json.",
        "",
        "| distribution | 1 update | 4 updates | 16 updates |",
        "| --- | --- | --- | --- |",
    ]
    for name in ("on_policy", "kl_symmetry", "off_policy"):
        gained = [median(np.array([row["gained"][f"{name}, {k}"][0] for row in rows])) for k in (1, 4, 16)]
        lines.append(f"| {NAMES[name]} | " + " | ".join(f"{m:.0%} [{a:.0%}, {b:.0%}]" for m, a, b in gained) + " |")
    ends = [(row["gained"]["on_policy, 16"], row["gained"]["kl_symmetry, 16"]) for row in rows]
    ahead, behind = sum(a[1] > b[2] for a, b in ends), sum(a[2] < b[1] for a, b in ends)
    told = (
        f"After 16 updates on-policy is ahead of α_KL with disjoint intervals on {_share(ahead, len(rows))}, "
        f"behind on {_share(behind, len(rows))}."
    )
    return [*lines, "", told]


def _real(case: Case) -> bool:
    return bool(case["kind"].startswith("real"))
