"""What the study of the sampling lab found, over many rows: how many samples a distribution needs beside on-policy.

Read from data/lab_study.json, which `make study` writes (benchmarks/lab_study). Claims on sampling cite it: a verdict
speaks of one row, the study of many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

CITED: Mapping[str, str] = MappingProxyType(
    {
        "section_6_5_on_policy": "kl_symmetry",
        "section_6_5_off_policy": "off_policy",
        "section_6_5_uniform": "uniform",
        "section_6_5_mixture": "optimum",
        "section_7_3_efficiency": "kl_symmetry",
    }
)
"""Claims to which the study has something to say, and the distribution it compares with on-policy for them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """On-policy's N over a distribution's, for the same progress with one estimator: above 1, it needs fewer."""

    estimator: str
    rows: int
    median: float
    low: float
    high: float
    """The bootstrap interval of the median, 95 %."""
    fewer: int
    """Rows on which the interval of the ratio lies above 1."""
    more: int
    """Rows on which it lies below 1."""


@cache
def findings() -> Mapping[str, tuple[Finding, ...]]:
    """By distribution, one finding an estimator."""
    told = json.loads((files("geomix_core") / "data" / "lab_study.json").read_text("utf-8"))
    return MappingProxyType({name: tuple(Finding(**f) for f in found) for name, found in told["findings"].items()})
