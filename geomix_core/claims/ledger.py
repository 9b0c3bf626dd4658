"""What is known of every claim: how often it held in the census, and the smallest policies that break it.

Read from data/census.json, which `geomix census --ledger` writes from the census itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from scipy.stats import binomtest

from geomix_core.claims.setting import Setting
from geomix_core.claims.tables import Table
from geomix_core.tilts import WEIGHTS, Weights

GROUPS = ("synthetic", "reference", "truncated", "real")
"""Kinds of rows that the census counts: drawn ones, those with another reference, truncated targets, real ones."""


@dataclass(frozen=True, slots=True)
class Share:
    """Of so many rows on which a claim was decided, on how many it held."""

    decided: int
    held: int

    @property
    def rate(self) -> float | None:
        """held/decided; None where nothing was decided."""
        return self.held / self.decided if self.decided else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        found = binomtest(self.held, self.decided).proportion_ci(0.95, "wilson")
        return float(found.low), float(found.high)

    @property
    def depends(self) -> bool:
        """The claim held on some of the rows and not on others."""
        return 0 < self.held < self.decided


@dataclass(frozen=True, slots=True)
class Record:
    """One claim under one weight convention."""

    groups: Mapping[str, Share]
    """By kind of row, those where nothing was decided left out."""
    assumed: Share | None
    """Where the hypotheses hold that the document leaves out; None for a claim that needs none."""
    tried: int
    """Policies that the census's search for a counterexample tried."""
    counterexample: Table | None
    setting: Setting
    """What the counterexample was found at."""

    @property
    def total(self) -> Share:
        """Over all kinds of rows."""
        shares = self.groups.values()
        return Share(sum(s.decided for s in shares), sum(s.held for s in shares))


@dataclass(frozen=True, slots=True)
class Ledger:
    """The census, claim by claim."""

    rows: int
    taken: str
    records: Mapping[tuple[str, str], Record]

    def of(self, claim: str, weights: Weights) -> Record:
        """A claim under a weight convention; one that does not depend on it was counted under the first."""
        return self.records.get((claim, weights)) or self.records[claim, WEIGHTS[0]]


def compact(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger needs of a census, given its record (`census.to_record`), as plain values."""
    claims = {
        name: {
            weights: {
                "groups": {g: _pair(c["as_stated"]) for g, c in groups.items() if c["as_stated"]["decided"]},
                **({"assumed": _sum(groups.values())} if any("assumed" in c for c in groups.values()) else {}),
            }
            for weights, groups in by_weights.items()
        }
        for name, by_weights in record["claims"].items()
    }
    for found in record["counterexamples"]:
        policies = [found[policy] for policy in ("theta", "target", "reference") if policy in found]
        claims[found["claim"]][found["weights"]] |= {"tried": found["tried"], "counterexample": policies}
    return {"command": record["command"], "taken": record["taken"], "rows": record["rows"], "claims": claims}


@cache
def ledger() -> Ledger:
    """The ledger that comes with the package."""
    found = json.loads((files("geomix_core") / "data" / "census.json").read_text("utf-8"))
    records = {
        (name, weights): Record(
            MappingProxyType({group: Share(*pair) for group, pair in entry["groups"].items()}),
            Share(*entry["assumed"]) if "assumed" in entry else None,
            entry["tried"],
            Table(*map(tuple, entry["counterexample"])) if entry["counterexample"] else None,
            Setting(weights=weights),
        )
        for name, by_weights in found["claims"].items()
        for weights, entry in by_weights.items()
    }
    return Ledger(found["rows"], found["taken"], MappingProxyType(records))


def _pair(count: Mapping[str, Any]) -> list[int]:
    return [count["decided"], count["held"]]


def _sum(groups: Any) -> list[int]:
    counts = [_pair(c["assumed"]) for c in groups if "assumed" in c]
    return [sum(column) for column in zip(*counts, strict=True)]
