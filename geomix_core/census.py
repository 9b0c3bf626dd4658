"""How often does each claim hold? Every claim on families × distances × vocabularies, and on the real rows.

A rate is a share of the rows on which the claim is decided, with Wilson's 95 % interval. It speaks of the families
that were drawn, not of policies in general; the real rows are sixteen.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from geomix_core.claims import CLAIMS, Bench, Claim, RowVerdicts, SearchResult, Setting, find_counterexample
from geomix_core.divergences import kl
from geomix_core.errors import OptionError
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import REAL_PAIRS, real_rows, reference_policy, synthetic
from geomix_core.tilts import WEIGHTS, Weights

DISTANCES = (0.003, 0.03, 0.1, 0.3, 1.0, 2.0)
"""KL(π_t‖π_θ) in nats, for the families that take a distance."""
DRAWS = {10: 24, 1_000: 12, 50_257: 2}
"""Seeds of each cell by vocabulary."""
BINS = (0.0, 0.01, 0.1, 0.3, 1.0, float("inf"))
"""Mean KL, (KL(π_t‖π_θ) + KL(π_θ‖π_t))/2 in nats, by which §5.4 is counted."""
SEARCH_SECONDS = 120.0
"""Budget of one search; the number of tries ends it long before."""
BINNED = ("section_5_4_alpha", "section_5_4_snr")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a batch of the census came from."""

    family: str
    reference: str

    @property
    def group(self) -> str:
        """synthetic, truncated, reference (one that is not π_θ) or real."""
        if self.family.startswith("real"):
            return "real"
        if self.family == "top_k":
            return "truncated"
        return "synthetic" if self.reference == "theta" else "reference"


@dataclass
class Count:
    """Rows of one kind: on how many a claim was decided, on how many it held, and why it did not apply."""

    decided: int = 0
    held: int = 0
    silent: Counter[str] = field(default_factory=Counter)

    def add(self, verdicts: RowVerdicts, rows: torch.Tensor | None = None) -> None:
        """Count the rows that the boolean mask selects (all by default)."""
        chosen = torch.ones(len(verdicts), dtype=torch.bool) if rows is None else rows
        if verdicts.claim.per_batch and verdicts.applies.any():
            chosen = torch.arange(len(verdicts)) == int(verdicts.applies.to(torch.int8).argmax())
        self.decided += int((verdicts.applies & chosen).sum())
        self.held += int((verdicts.applies & ~verdicts.fails & chosen).sum())
        self.silent.update(r for r, c in zip(verdicts.reasons, chosen.tolist(), strict=True) if c and r)

    def record(self) -> dict[str, Any]:
        """Plain values, with the rate and its 95 % interval (None where nothing was decided)."""
        if not self.decided:
            return {"decided": 0, "held": 0, "rate": None, "low": None, "high": None, "silent": dict(self.silent)}
        interval = binomtest(self.held, self.decided).proportion_ci(0.95, "wilson")
        return {
            "decided": self.decided,
            "held": self.held,
            "rate": self.held / self.decided,
            "low": float(interval.low),
            "high": float(interval.high),
            "silent": dict(self.silent),
        }


@dataclass(frozen=True)
class Census:
    """The whole count. Keys: (claim, weights, group), and for §5.4 (claim, weights, group, bin)."""

    seed: int
    rows: int
    seconds: float
    as_stated: dict[tuple[str, str, str], Count]
    assumed: dict[tuple[str, str, str], Count]
    """Counted only where the hypotheses hold that the document leaves out."""
    by_distance: dict[tuple[str, str, str, int], Count]
    searches: dict[tuple[str, str], SearchResult]
    """By (claim, weights): the search for a counterexample to the claim as stated."""


def take_census(
    seed: int = 0,
    scale: float = 1.0,
    sources: Sequence[tuple[Source, Callable[[], PolicyBatch]]] | None = None,
    tries: int = 20_000,
    on_progress: Callable[[int, int], object] | None = None,
) -> Census:
    """Count every claim, and search for a counterexample to it.

    Args:
        seed: first seed of every cell.
        scale: multiplies the number of draws in each cell (at least one).
        sources: what to count over, in place of `all_sources(seed, scale)`.
        tries: policies that each search for a counterexample may try.
        on_progress: told (batches done, batches in all).
    """
    started = time.perf_counter()
    batches = list(all_sources(seed, scale)) if sources is None else sources
    as_stated: dict[tuple[str, str, str], Count] = defaultdict(Count)
    assumed: dict[tuple[str, str, str], Count] = defaultdict(Count)
    by_distance: dict[tuple[str, str, str, int], Count] = defaultdict(Count)
    rows = 0
    for done, (source, make) in enumerate(batches):
        whole = make()
        rows += len(whole)
        for batch in whole.chunks():
            bins = _bins(batch)
            for weights in WEIGHTS:
                bench = Bench(batch, Setting(weights=weights))
                for claim in CLAIMS.values():
                    if not _counted(claim, weights, source):
                        continue
                    verdicts = claim.on(bench)
                    key = (claim.name, weights, source.group)
                    as_stated[key].add(verdicts)
                    if claim.assumes:
                        assumed[key].add(claim.on(bench, assume=True))
                    if claim.name in BINNED and source.group in ("synthetic", "real"):
                        for k in range(len(BINS) - 1):
                            by_distance[*key, k].add(verdicts, bins == k)
        if on_progress is not None:
            on_progress(done + 1, len(batches))
    searches: dict[tuple[str, str], SearchResult] = {
        (claim.name, weights): find_counterexample(
            claim, Setting(weights=weights), seed=seed, seconds=SEARCH_SECONDS, tries=tries
        )
        for claim in CLAIMS.values()
        for weights in _conventions(claim)
    }
    seconds = time.perf_counter() - started
    return Census(seed, rows, seconds, dict(as_stated), dict(assumed), dict(by_distance), searches)


def _counted(claim: Claim, weights: str, source: Source) -> bool:
    """A claim is counted once for what it does not depend on."""
    return weights in _conventions(claim) and (source.group != "reference" or "reference" in claim.uses)


def _conventions(claim: Claim) -> tuple[Weights, ...]:
    return WEIGHTS if "weights" in claim.uses else WEIGHTS[:1]


def _shown(name: str, weights: str) -> str:
    return weights if "weights" in CLAIMS[name].uses else "any"


def _bins(batch: PolicyBatch) -> torch.Tensor:
    """Index into `BINS` of each row's mean KL."""
    mean = (kl(batch.target, batch.theta) + kl(batch.theta, batch.target)) / 2
    return torch.bucketize(mean.cpu(), torch.tensor(BINS[1:-1], dtype=mean.dtype))


def all_sources(seed: int, scale: float) -> Iterator[tuple[Source, Callable[[], PolicyBatch]]]:
    """Every batch of the census, to be made when its turn comes."""
    cells: list[tuple[str, dict[str, float]]] = [("three_tokens", {"spread": s}) for s in (0.5, 1.0, 2.0, 4.0)]
    for vocabulary in DRAWS:
        cells += [("gaussian", {"vocabulary": vocabulary, "distance": d}) for d in DISTANCES]
        cells += [("zipf", {"vocabulary": vocabulary, "distance": d}) for d in DISTANCES]
        cells += [("dirichlet", {"vocabulary": vocabulary, "concentration": c}) for c in (0.2, 1.0, 5.0)]
        cells += [("peaked", {"vocabulary": vocabulary, "top_mass": m}) for m in (0.5, 0.9, 0.999)]
        cells += [("near_identical", {"vocabulary": vocabulary, "sigma": s}) for s in (0.1, 0.01, 1e-3)]
        top_k = {"vocabulary": vocabulary, "keep": min(max(2, vocabulary // 20), 1_000)}
        cells += [("top_k", top_k | {"distance": d}) for d in (0.1, 1.0)]
    for family, parameters in cells:
        count = max(1, round(scale * DRAWS[int(parameters.get("vocabulary", 10))]))
        for reference in ("theta", "earlier", "flattened"):
            if family != "top_k" or reference == "theta":
                yield Source(family, reference), _drawn(family, parameters, reference, seed, count)
    for pair in REAL_PAIRS:
        yield Source(f"real_{pair}", "theta"), partial(_real, pair)


def _real(pair: str) -> PolicyBatch:
    rows = real_rows(pair)
    return PolicyBatch.from_logits(rows.theta, rows.target)


def _drawn(
    family: str, parameters: dict[str, float], reference: str, seed: int, count: int
) -> Callable[[], PolicyBatch]:
    def make() -> PolicyBatch:
        drawn: list[PolicyBatch] = []
        number = seed
        while len(drawn) < count:
            try:
                drawn.append(synthetic(family, **parameters, seed=number))
            except OptionError:
                # Some seeds draw a direction that never gets as far as the distance asked for. Not all of them do.
                if number > seed + 50 * count:
                    raise
            number += 1
        theta, target = torch.cat([b.theta for b in drawn]), torch.cat([b.target for b in drawn])
        return PolicyBatch(theta, target, reference_policy(theta, reference))  # type: ignore[arg-type]

    return make


def to_record(census: Census, command: str) -> dict[str, Any]:
    """The census as plain values for JSON; `command` is what took it."""
    return {
        "command": command,
        "taken": date.today().isoformat(),
        "seconds": round(census.seconds),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "seed": census.seed,
        "rows": census.rows,
        "claims": {
            name: {
                weights: {
                    group: {
                        "as_stated": census.as_stated[name, weights, group].record(),
                        **(
                            {"assumed": census.assumed[name, weights, group].record()}
                            if (name, weights, group) in census.assumed
                            else {}
                        ),
                    }
                    for group in _groups(census, name, weights)
                }
                for weights in WEIGHTS
                if _groups(census, name, weights)
            }
            for name in CLAIMS
        },
        "counterexamples": [
            {"claim": name, "weights": weights, **_found(result)} for (name, weights), result in census.searches.items()
        ],
        "section_5_4_by_mean_kl": [
            {
                "claim": name,
                "weights": weights,
                "group": group,
                "from": BINS[k],
                "to": None if np.isinf(BINS[k + 1]) else BINS[k + 1],
                **count.record(),
            }
            for (name, weights, group, k), count in sorted(census.by_distance.items())
        ],
    }


def to_markdown(record: dict[str, Any]) -> str:
    """The record as two tables: every claim, and §5.4 by distance."""
    lines = [
        "# How often each claim holds",
        "",
        f"`{record['command']}`: {record['rows']:,} rows in {record['seconds']} s on {record['cores']} cores, "
        f"torch {record['torch']}, {record['taken']}. A rate is a share of the rows on which the claim is decided, "
        "with Wilson's 95 % interval. It speaks of the families drawn, not of policies in general; the real rows are "
        "sixteen. Last column: all rows that meet the hypotheses which the document leaves out.",
        "",
        "| claim | weights | synthetic | other reference | truncated target | real rows | hypotheses met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, by_weights in record["claims"].items():
        for weights, groups in by_weights.items():
            cells = [_rate(groups[g]["as_stated"]) if g in groups else "" for g in _COLUMNS]
            assumed = [groups[g]["assumed"] for g in groups if "assumed" in groups[g]]
            total = Count(sum(a["decided"] for a in assumed), sum(a["held"] for a in assumed)) if assumed else None
            lines.append(
                f"| {name} | {_shown(name, weights)} | {' | '.join(cells)} | {_rate(total.record()) if total else ''} |"
            )
    lines += ["", "Mean KL is (KL(π_t‖π_θ) + KL(π_θ‖π_t))/2, default reference.", ""]
    lines += ["| §5.4 by mean KL, nats | weights | rows | holds |", "| --- | --- | --- | --- |"]
    for entry in record["section_5_4_by_mean_kl"]:
        to = "∞" if entry["to"] is None else f"{entry['to']:g}"
        where = f"{entry['claim']}, {entry['from']:g} to {to}"
        lines.append(f"| {where} | {entry['weights']} | {entry['group']} | {_rate(entry)} |")
    lines += ["", "Smallest policies that break a claim as stated, as weights π_θ / π_t / π_ref.", ""]
    lines += ["| claim | weights | found | tried | policies |", "| --- | --- | --- | --- | --- |"]
    for entry in record["counterexamples"]:
        shown = _shown(entry["claim"], entry["weights"])
        policies = [":".join(map(str, entry[p])) for p in ("theta", "target", "reference") if p in entry]
        found = f"{entry['tokens']} tokens" if "tokens" in entry else entry["status"].replace("_", " ")
        lines.append(f"| {entry['claim']} | {shown} | {found} | {entry['tried']:,} | {' / '.join(policies)} |")
    return "\n".join(lines) + "\n"


def _found(result: SearchResult) -> dict[str, Any]:
    table, verdict = result.counterexample, result.verdict
    found: dict[str, Any] = {"status": str(result.status), "tried": result.tried}
    if table is not None and verdict is not None:
        policies = {name: list(counts) for name, counts in table.named.items()}
        found |= {"tokens": table.tokens, **policies, "residual": verdict.residual, "tolerance": verdict.tolerance}
    return found


_COLUMNS = ("synthetic", "reference", "truncated", "real")


def _groups(census: Census, name: str, weights: str) -> list[str]:
    return [g for g in _COLUMNS if (name, weights, g) in census.as_stated]


def _rate(record: dict[str, Any]) -> str:
    if not record["decided"]:
        reasons = ", ".join(sorted(record["silent"]))
        return f"— ({reasons})" if reasons else "—"
    rate, low, high = (100 * record[k] for k in ("rate", "low", "high"))
    return f"{rate:.1f} % [{low:.1f}, {high:.1f}] of {record['decided']}"
