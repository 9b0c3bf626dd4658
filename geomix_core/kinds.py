"""What rows of numbers are: logits, log-probabilities or probabilities. Found with evidence, never guessed silently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from geomix_core.errors import FileError, OptionError

Kind = Literal["logits", "log_probs", "probs"]
KINDS: tuple[Kind, ...] = ("logits", "log_probs", "probs")

SAMPLE = 32
"""Rows that are looked at, evenly spaced."""

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Finding:
    """What the sampled rows of one array are."""

    kind: Kind | Literal["unclear"]
    evidence: str
    """What was seen, in words, with numbers."""
    looked: int = 0
    """Rows that it was seen in."""
    low: float = 0.0
    high: float = 0.0
    """The range of log Σ exp over them; of their sums for "probs" and "unclear"."""


def tolerance_of(x: Tensor) -> float:
    """By how much a row's probabilities may miss 1: rounding of the dtype over a vocabulary."""
    return 2e-2 if x.dtype in _HALF else 1e-4


def detect(x: Tensor, sample: int = SAMPLE) -> Finding:
    """The kind of an array `[B, V]`, from at most `sample` of its rows; those with NaN or +inf are passed over."""
    index = sorted(set(torch.linspace(0, len(x) - 1, min(sample, len(x)), dtype=torch.float64).round().long().tolist()))
    lowest, highest, sums, logs, seen = torch.inf, -torch.inf, [], [], 0
    for i in index:
        row = x[i].double()
        top = row.amax().item()
        if not -torch.inf < top < torch.inf:
            continue
        seen += 1
        lowest, highest = min(lowest, row.amin().item()), max(highest, top)
        sums.append(row.sum().item())
        logs.append(torch.logsumexp(row, -1).item())
    if not seen:
        return Finding("logits", "no row without NaN or +inf to judge by")
    near = tolerance_of(x)
    rows = f"in {seen} of {len(x):,} rows looked at"
    if max(map(abs, logs)) <= near and highest <= near:
        return Finding(
            "log_probs", f"log Σ exp is within {max(map(abs, logs)):.1g} of 0 {rows}", seen, min(logs), max(logs)
        )
    if lowest >= 0 and highest <= 1 + near:
        worst = max(abs(total - 1) for total in sums)
        if worst <= near:
            words = f"values lie in [0, 1] and sum to 1 within {worst:.1g} {rows}"
            return Finding("probs", words, seen, min(sums), max(sums))
        words = f"values lie in [0, 1] {rows} but their sums run from {min(sums):.4g} to {max(sums):.4g}"
        return Finding("unclear", words, seen, min(sums), max(sums))
    words = f"log Σ exp runs from {min(logs):.4g} to {max(logs):.4g} {rows}"
    return Finding("logits", words, seen, min(logs), max(logs))


def kind_of(findings: Mapping[str, Finding]) -> Kind:
    """The one kind of all arrays, "logits" where some are logits and some log-probabilities (both are solved alike).

    Raises FileError where it is unclear, or where some are probabilities and some are not.
    """
    kinds = {finding.kind for finding in findings.values()}
    if len(kinds) == 1 and "unclear" not in kinds:
        (kind,) = kinds
        return "logits" if kind == "unclear" else kind
    if kinds <= {"logits", "log_probs"}:
        return "logits"
    seen = "; ".join(f"{name}: {finding.kind} ({finding.evidence})" for name, finding in findings.items())
    raise FileError(
        f"It is not clear whether these are logits or probabilities. {seen}. Say --kind {' or --kind '.join(KINDS)}."
    )


def check_kind(kind: str) -> None:
    """Raises OptionError."""
    if kind not in KINDS:
        raise OptionError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}.")


def to_logits(x: Tensor, kind: Kind, name: str) -> tuple[Tensor, dict[int, str]]:
    """(rows as logits, what is wrong with the rows that are no probabilities, by index).

    Logits and log-probabilities are as they were; of probabilities the log is taken, in float64, and rows that are
    none become NaN.
    """
    if kind != "probs":
        return x, {}
    p = x.double()
    total = p.sum(-1)
    checks = (
        (~p.isfinite().all(-1), "has NaN or infinite entries: probabilities lie between 0 and 1."),
        ((p < 0).any(-1), "has negative entries: these are no probabilities. Log-probabilities, perhaps?"),
        ((total - 1).abs() > tolerance_of(x), "has probabilities that do not sum to 1. Normalise the row."),
    )
    problems: dict[int, str] = {}
    for bad, words in checks:
        for i in bad.nonzero().squeeze(-1).tolist():
            problems.setdefault(i, f"{name} {words}")
    logs = p.log()
    logs[list(problems)] = torch.nan
    return logs, problems
