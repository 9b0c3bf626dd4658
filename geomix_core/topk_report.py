"""What is in two files of top-k log-probabilities, before anything is solved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geomix_core.file_words import show
from geomix_core.tails import naive_kl
from geomix_core.topk import Shape, TopKPair

_SHAPES: Mapping[Shape, str] = {
    "openai": "logprobs.content[].top_logprobs (OpenAI's shape)",
    "vllm": "prompt_logprobs (vLLM's shape)",
}


@dataclass(frozen=True, slots=True)
class SideReport:
    """One file. Counts and masses are over the rows that can be used."""

    name: str
    shape: Shape
    k: tuple[int, int]
    """Fewest and most tokens at a position; (0, 0) where no row can be used."""
    missing: tuple[float, float]
    """Median and largest probability that is not reported."""


@dataclass(frozen=True, slots=True)
class TopKReport:
    """Both files together."""

    theta: SideReport
    target: SideReport
    rows: int
    texts: int
    assigned_by: Literal["name", "order"]
    matched_by: Literal["id", "bytes"]
    vocabulary: int | None
    common: tuple[int, int]
    """Fewest and most tokens that both report."""
    negative: int
    """Rows in which Σ π_θ log(π_θ/π_t) over the common tokens is negative, as no KL can be."""
    problems: Mapping[str, int]
    """Why rows cannot be used, and how many."""


def inspect_topk(pair: TopKPair) -> TopKReport:
    """Count what a pair holds."""
    usable = [row for row in pair.rows if not row.problem]
    common = [int((row.in_theta & row.in_target).sum()) for row in usable] or [0]
    ks = ([row.k_theta for row in usable], [row.k_target for row in usable])
    missing = ([row.missing_theta for row in usable], [row.missing_target for row in usable])
    return TopKReport(
        theta=_side(pair, "theta", ks[0], missing[0]),
        target=_side(pair, "target", ks[1], missing[1]),
        rows=len(pair.rows),
        texts=len({row.text for row in pair.rows}),
        assigned_by=pair.assigned_by,
        matched_by=pair.matched_by,
        vocabulary=pair.vocabulary,
        common=(min(common), max(common)),
        negative=sum(naive_kl(row) < 0 for row in usable),
        problems=dict(Counter(row.problem for row in pair.rows if row.problem).most_common()),
    )


def _side(pair: TopKPair, role: Literal["theta", "target"], k: list[int], missing: list[float]) -> SideReport:
    return SideReport(
        pair.names[role],
        pair.shapes[role],
        (min(k, default=0), max(k, default=0)),
        (float(np.median(missing)), max(missing)) if missing else (0.0, 0.0),
    )


def to_text(found: TopKReport) -> str:
    """The report as lines for a terminal."""
    lines = []
    for role, side in (("theta", found.theta), ("target", found.target)):
        lines.append(f"{show(side.name)}: {_SHAPES[side.shape]} → {role}")
        lines.append(f"  reported   {_range(side.k)} tokens a position")
        lines.append(
            f"  missing    {side.missing[0]:.3g} of the probability in the median, {side.missing[1]:.3g} at most"
        )
    by = {"name": "by their names", "order": "by their order, since the names do not settle it"}[found.assigned_by]
    lines.append(f"Roles were given {by}.")
    if found.assigned_by == "order":
        lines.append("• Swapping θ and target turns α into 1 − α: name the files theta and target to be sure.")
    how = {"id": "ids", "bytes": "bytes"}[found.matched_by]
    lines.append(f"{found.rows:,} rows (positions) in {found.texts:,} texts; tokens are matched by their {how}.")
    lines.append(f"Both report {_range(found.common)} tokens of a row.")
    if found.negative:
        lines.append(
            f"{found.negative:,} rows have a negative sum over the tokens that both report, which is therefore no KL: "
            "geomix solve gives intervals instead."
        )
    for words, count in found.problems.items():
        lines.append(f"{count:,} rows cannot be used: {words}")
    if found.vocabulary is None:
        lines.append(
            "• The vocabulary's size is not known: --vocabulary says it, where it is so small that it matters."
        )
    return "\n".join(lines)


def _range(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"
