"""The one scenario that all pages show: which policies, which row, reference, weights, α, η. Pure data, no screen.

`to_query` and `from_query` are the only place that knows how a scenario is written in a URL. Values at their default
are left out; a value that cannot be read is reported and replaced by its default, never guessed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from geomix_core.claims import Table
from geomix_core.progress import WEIGHTS
from geomix_core.scenarios import FAMILIES, REFERENCES, Parameter

REAL, CUSTOM, UPLOAD = "real", "custom", "upload"
SOURCES: tuple[str, ...] = (REAL, *FAMILIES, CUSTOM, UPLOAD)
MAX_TABLE_ROWS = 64
MAX_TABLE_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class Reshape:
    """What is done to one policy before anything else: temperature, then top-k, then top-p; 0 and 1 mean no cut."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class TableRow:
    """One token of a hand-made pair: its name and its weight under each policy (logit or probability)."""

    token: str
    theta: float
    target: float
    reference: float | None = None
    """Of the reward's reference, in a table that brings its own."""


DEFAULT_TABLE = (
    TableRow("Canberra", 0.35, 0.70),
    TableRow("Sydney", 0.45, 0.10),
    TableRow("Melbourne", 0.15, 0.15),
    TableRow("Perth", 0.05, 0.05),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides what the pages show."""

    source: str = REAL
    parameters: tuple[tuple[str, float], ...] = ()
    """Parameters of a synthetic family that differ from their defaults, in order of their names."""
    row: int = 0
    table: tuple[TableRow, ...] = DEFAULT_TABLE
    table_kind: str = "probs"
    """Whether the table holds "probs" (rescaled to sum 1) or "logits"."""
    theta: Reshape = field(default_factory=Reshape)
    target: Reshape = field(default_factory=Reshape)
    epsilon: float = 0.0
    reference: str = "theta"
    weights: str = "importance"
    alpha: float = 0.5
    eta: float = 1.0

    def __post_init__(self) -> None:
        # One canonical form, so that equal scenarios have equal keys and equal links.
        defaults = {p.name: p.default for p in FAMILIES[self.source].parameters} if self.source in FAMILIES else {}
        chosen = tuple(sorted((name, float(v)) for name, v in self.parameters if v != defaults.get(name)))
        object.__setattr__(self, "parameters", chosen)

    @property
    def own_reference(self) -> bool:
        """Whether the table has a column for the reference policy."""
        return self.source == CUSTOM and all(r.reference is not None for r in self.table)

    @property
    def policies_key(self) -> str:
        """A hash of all that decides the policies (not α, η or the weights): the key under which results are kept."""
        neutral = replace(self, alpha=0.5, eta=1.0, weights="importance")
        return hashlib.blake2b(repr(neutral).encode(), digest_size=12).hexdigest()

    def parameter(self, name: str) -> float:
        """A parameter of the synthetic family, or its default."""
        chosen = dict(self.parameters)
        default = next(p.default for p in FAMILIES[self.source].parameters if p.name == name)
        return float(chosen.get(name, default))


def of_table(scenario: Scenario, table: Table, **changes: Any) -> Scenario:
    """Policies of whole numbers as they are, nothing cut or smoothed; of the rest, only what `changes` names."""
    rows = (
        TableRow(token, *map(float, weights)) for token, *weights in zip(table.letters, *table.policies, strict=True)
    )
    kept = {name: getattr(scenario, name) for name in ("weights", "alpha", "eta")} | changes
    return Scenario(source=CUSTOM, table=tuple(rows), **kept)


def with_parameter(scenario: Scenario, name: str, value: float) -> Scenario:
    """The scenario with one parameter of its family set."""
    return replace(scenario, parameters=tuple({**dict(scenario.parameters), name: value}.items()))


_PLAIN = {"row": int, "reference": str, "weights": str, "alpha": float, "eta": float, "epsilon": float}
_RESHAPE = {"temperature": float, "top_k": int, "top_p": float}
_ALLOWED = {"source": SOURCES, "reference": REFERENCES, "weights": WEIGHTS}
RANGES = {
    "alpha": (0.0, 1.0),
    "eta": (0.0, 1000.0),
    "epsilon": (0.0, 1.0),
    "row": (0, 10**9),
    "temperature": (0.05, 4.0),
    "top_k": (0, 10**9),
    "top_p": (0.01, 1.0),
}
DEFAULT = Scenario()


def to_query(scenario: Scenario) -> dict[str, str]:
    """The scenario as URL parameters; whatever has its default value is left out."""
    query: dict[str, str] = {}
    if scenario.source != DEFAULT.source:
        query["source"] = scenario.source
    for name in _PLAIN:
        if getattr(scenario, name) != getattr(DEFAULT, name):
            query[name] = _write(getattr(scenario, name))
    for policy in ("theta", "target"):
        for name in _RESHAPE:
            value = getattr(getattr(scenario, policy), name)
            if value != getattr(Reshape(), name):
                query[f"{policy}_{name}"] = _write(value)
    query |= {name: _write(value) for name, value in scenario.parameters}
    if scenario.source == CUSTOM:
        own = scenario.own_reference
        rows = [[r.token, r.theta, r.target, *([r.reference] if own else [])] for r in scenario.table]
        query["table"] = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        query["kind"] = scenario.table_kind
    return query


def from_query(query: Mapping[str, str]) -> tuple[Scenario, tuple[str, ...]]:
    """The scenario that a URL names, and the parameters that could not be read (they take their defaults)."""
    problems: list[str] = []

    def read(name: str, kind: type, field_name: str, default: Any) -> Any:
        if name not in query:
            return default
        try:
            value = kind(query[name])
        except ValueError:
            problems.append(name)
            return default
        if field_name in _ALLOWED and value not in _ALLOWED[field_name]:
            problems.append(name)
            return default
        if field_name in RANGES:
            low, high = RANGES[field_name]
            if not (low <= value <= high):
                problems.append(name)
                return default
        return value

    source = read("source", str, "source", DEFAULT.source)
    values = {name: read(name, kind, name, getattr(DEFAULT, name)) for name, kind in _PLAIN.items()}
    shapes = {
        policy: Reshape(
            **{name: read(f"{policy}_{name}", kind, name, getattr(Reshape(), name)) for name, kind in _RESHAPE.items()}
        )
        for policy in ("theta", "target")
    }
    parameters: list[tuple[str, float]] = []
    for p in FAMILIES[source].parameters if source in FAMILIES else ():
        value = read(p.name, float, p.name, p.default)
        if not _fits(p, value):
            problems.append(p.name)
        else:
            parameters.append((p.name, value))
    table, kind = DEFAULT.table, DEFAULT.table_kind
    if source == CUSTOM and "table" in query:
        try:
            table = _read_table(query["table"])
        except (ValueError, TypeError, OverflowError, RecursionError):
            problems.append("table")
        kind = query.get("kind", kind)
        if kind not in ("probs", "logits"):
            problems.append("kind")
            kind = DEFAULT.table_kind
    given: dict[str, Any] = {**shapes, **values}
    scenario = Scenario(source=source, parameters=tuple(parameters), table=table, table_kind=kind, **given)
    return scenario, tuple(problems)


def _fits(parameter: Parameter, value: float) -> bool:
    whole = not parameter.whole or value == int(value) if math.isfinite(value) else False
    return bool(whole and parameter.low <= value <= parameter.high)


def _read_table(text: str) -> tuple[TableRow, ...]:
    if len(text) > MAX_TABLE_TEXT:
        raise ValueError("a table in a link is short")
    rows = json.loads(text)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_TABLE_ROWS:
        raise ValueError("a table has between one row and the limit")
    if len({len(row) for row in rows}) > 1:
        raise ValueError("either every row has a weight of the reference, or none has")
    return tuple(TableRow(str(token)[:80], *map(float, _two_or_three(*weights))) for token, *weights in rows)


def _two_or_three(theta: Any, target: Any, *reference: Any) -> tuple[Any, ...]:
    if len(reference) > 1:
        raise ValueError("a row has two or three weights")
    return (theta, target, *reference)


def _write(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
