"""Break it: a search for policies that violate a claim, and the smallest such policies.

Tables of small whole numbers first, since what they break needs no shrinking; then random policies of many kinds;
then mutation of those that come nearest to breaking the claim. The order is fixed by the seed, so a search that is
not cut short by its time budget gives the same answer on every machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import combinations_with_replacement, product

import numpy as np
import torch

from geomix_core.claims.model import Claim, Outcome, Verdict
from geomix_core.claims.setting import Setting
from geomix_core.claims.tables import Table, batch_of
from geomix_core.errors import OptionError
from geomix_core.policies import PolicyBatch

Logits = tuple[np.ndarray, ...]
"""(θ, target) or (θ, target, reference), each `[n, V]`, unnormalised."""

SIZES = (2, 3, 4, 6, 12, 40)
"""Vocabularies that random policies are drawn for, in turn."""
ROWS = 256
"""Policies tried at once."""
PARENTS = 16
"""Policies that a round of mutation starts from."""
GENERATIONS = 6
"""Rounds of mutation after each round of random policies."""


class SearchStatus(StrEnum):
    """How a search ended."""

    FOUND = "found"
    SURVIVED = "survived"
    """The claim stood until the budget was spent: evidence, not a proof."""
    UNCONFIRMED = "unconfirmed"
    """Some policies broke it, but only in digits that no table of whole numbers keeps: it may be rounding."""
    STOPPED = "stopped"
    NOTHING_TO_COMPARE = "nothing_to_compare"


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """Where a running search stands."""

    stage: str
    """structured, random, mutation or shrinking."""
    tried: int
    nearest: float
    """Largest residual − tolerance so far: the claim breaks above 0."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found, and how hard it looked."""

    claim: str
    status: SearchStatus
    tried: int
    """Policies tried, those of the shrinking included."""
    seconds: float
    seed: int
    setting: Setting
    counterexample: Table | None = None
    verdict: Verdict | None = None
    """The claim's verdict on the counterexample."""
    found_by: str = ""
    found_tokens: int = 0
    """Tokens of the first violation, before it was shrunk."""
    nearest: float = field(default=-float("inf"))


def find_counterexample(
    claim: Claim | str,
    setting: Setting | None = None,
    *,
    assume: bool = False,
    seed: int = 0,
    seconds: float = 10.0,
    tries: int | None = None,
    on_progress: Callable[[SearchProgress], bool | None] | None = None,
) -> SearchResult:
    """Search for policies on which a claim fails, and shrink them to the fewest tokens and the roundest numbers.

    A claim about "most" cases is not refuted by one row: there the result is a row on which it fails.

    Args:
        claim: one of `CLAIMS`, or its name.
        setting: weights, α, η range and N.
        assume: search only where the hypotheses hold that the document leaves out.
        seed: of the random policies.
        seconds: time budget, wall clock, shrinking included.
        tries: budget in policies, where the answer must not depend on the machine's speed; shrinking is not counted.
        on_progress: told where the search stands every few hundred policies; return False to stop it.

    Raises OptionError for an unknown name or a budget that is not positive.
    """
    if isinstance(claim, str):
        claim = _named(claim)
    if not seconds > 0:
        raise OptionError(f"seconds is {seconds:g}: expected a positive time budget.")
    setting = setting or Setting()
    if claim.measure is None:
        return SearchResult(claim.name, SearchStatus.NOTHING_TO_COMPARE, 0, 0.0, seed, setting)
    run = _Run(claim, setting, assume, seed, seconds, tries, on_progress)
    table = run.search()
    if table is None:
        status = SearchStatus.UNCONFIRMED if run.nearest > 0 else SearchStatus.SURVIVED
        status = SearchStatus.STOPPED if run.stopped else status
        return SearchResult(claim.name, status, run.tried, run.elapsed, seed, setting, nearest=run.nearest)
    found_by, tokens = run.stage, table.tokens
    table = run.shrink(table)
    verdict = claim.check(table.batch, setting, assume=assume)
    return SearchResult(
        claim.name,
        SearchStatus.FOUND,
        run.tried,
        run.elapsed,
        seed,
        setting,
        table,
        verdict,
        found_by,
        tokens,
        run.nearest,
    )


class _Run:
    """One search: its clock, its count, and the claim's answer on a batch."""

    def __init__(
        self,
        claim: Claim,
        setting: Setting,
        assume: bool,
        seed: int,
        seconds: float,
        tries: int | None,
        on_progress: Callable[[SearchProgress], bool | None] | None,
    ) -> None:
        self.claim, self.setting, self.assume = claim, setting, assume
        self.rng = np.random.default_rng(seed)
        self.started, self.seconds, self.tries = time.monotonic(), seconds, tries
        self.on_progress = on_progress
        self.stage, self.tried, self.nearest, self.stopped = "", 0, -float("inf"), False

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def over(self) -> bool:
        """The budget is spent, or the caller asked to stop."""
        spent = self.tries is not None and self.tried >= self.tries and self.stage != "shrinking"
        return self.stopped or spent or self.elapsed > self.seconds

    def excess(self, batch: PolicyBatch) -> torch.Tensor:
        """Residual beyond the tolerance, row by row; counts the rows and reports progress."""
        found = self.claim.rows(batch, self.setting, assume=self.assume).excess
        self.tried += len(batch)
        self.nearest = max(self.nearest, float(found.max()))
        if self.on_progress is not None:
            self.stopped |= self.on_progress(SearchProgress(self.stage, self.tried, self.nearest)) is False
        return found

    def search(self) -> Table | None:
        """The first violation, as a table of whole numbers; the simplest where several are found at once."""
        self.stage = "structured"
        for tables in _structured("reference" in self.claim.uses):
            if self.over:
                return None
            found = self._simplest(tables)
            if found is not None:
                return found
        while True:
            for size in SIZES:
                for logits in _random(self.rng, size, "reference" in self.claim.uses):
                    self.stage = "random"
                    for _ in range(GENERATIONS + 1):
                        if self.over:
                            return None
                        excess = self.excess(PolicyBatch.from_logits(*logits))
                        table = self._as_table(logits, excess)
                        if table is not None:
                            return table
                        if not (excess > -torch.inf).any():
                            break
                        logits, self.stage = _mutated(self.rng, logits, excess), "mutation"

    def shrink(self, table: Table) -> Table:
        """Simpler tables as long as one of them still violates the claim; each is simpler than the one before."""
        self.stage = "shrinking"
        while not self.over:
            found = self._simplest(table.simpler())
            if found is None:
                break
            table = found
        return table

    def _simplest(self, tables: Sequence[Table]) -> Table | None:
        """The simplest of some tables that violates the claim; also when it is checked alone, without the others."""
        failing: list[Table] = []
        for part in _same_shape(tables):
            failing += [t for t, e in zip(part, self.excess(batch_of(part)).tolist(), strict=True) if e > 0]
        for table in sorted(failing, key=Table.complexity):
            if self.claim.check(table.batch, self.setting, assume=self.assume).outcome is Outcome.FAILS:
                return table
        return None

    def _as_table(self, logits: Logits, excess: torch.Tensor) -> Table | None:
        """The violation in fewest digits among the ten worst, or None where none survives rounding to nine digits."""
        for i in excess.topk(min(10, len(excess))).indices.tolist():
            if excess[i] <= 0:
                break
            found = self._simplest(Table.roundings(*(x[i] for x in logits)))
            if found is not None:
                return found
        return None


def _structured(with_reference: bool) -> Iterator[Sequence[Table]]:
    """Tables with small whole weights in batches: fewer tokens first, then those without a reference."""
    powers = (1, 10, 100, 1_000, 10_000)
    kinds: list[tuple[int, Sequence[int], int]] = [(2, range(5), 2), (2, powers, 2)]
    if with_reference:
        kinds += [(2, range(5), 3)]
    kinds += [(3, range(4), 2), (3, powers[:4], 2)]
    if with_reference:
        kinds += [(3, range(3), 3), (3, powers[:2], 3), (3, (1, 2, 4), 3)]
    kinds += [(4, (0, 1, 3, 10), 2)]
    for kind in kinds:
        ordered = _tables(*kind)
        for start in range(0, len(ordered), 2 * ROWS):
            yield ordered[start : start + 2 * ROWS]


@cache
def _tables(tokens: int, weights: Sequence[int], policies: int) -> tuple[Table, ...]:
    """Every way to give `policies` policies weights from a list, the simplest first; reordered tokens count once."""
    columns = sorted(product(weights, repeat=policies), reverse=True)
    every = (Table(*zip(*rows, strict=True)) for rows in combinations_with_replacement(columns, tokens))
    return tuple(sorted((t for t in every if t.valid and t.reduced() == t), key=Table.complexity))


def _random(rng: np.random.Generator, size: int, with_reference: bool) -> Iterator[Logits]:
    """Policies of one vocabulary: Gaussian, near-identical, truncated, extreme; with and without a reference."""
    scale = _log_uniform(rng, 0.1, 6.0)
    theta = scale * rng.standard_normal((ROWS, size))
    moved = theta + _log_uniform(rng, 1e-3, 6.0) * rng.standard_normal((ROWS, size))
    independent = scale * rng.standard_normal((ROWS, size))
    target = np.where(rng.random((ROWS, 1)) < 0.5, moved, independent)
    yield theta, target
    if with_reference:
        earlier = theta + rng.standard_normal(theta.shape)
        yield theta, target, np.where(rng.random((ROWS, 1)) < 0.5, earlier, independent)
    # Truncation: each policy loses the tokens that are least likely under it.
    keep = rng.integers(1, size + 1, (2, ROWS, 1))
    yield tuple(
        np.where(np.argsort(np.argsort(-x, -1), -1) < k, x, -np.inf) for x, k in zip((theta, target), keep, strict=True)
    )
    # Where rounding is hardest: policies equal to many digits, and logits hundreds of nats apart.
    close = theta + _log_uniform(rng, 1e-10, 1e-3) * rng.standard_normal(theta.shape)
    far = 100 * rng.standard_normal((2, *theta.shape))
    hard = rng.random((ROWS, 1)) < 0.5
    yield np.where(hard, theta, far[0]), np.where(hard, close, far[1])
    if with_reference:
        yield np.where(hard, theta, far[0]), np.where(hard, close, far[1]), np.where(hard, theta + close, target)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """One number a row, `[ROWS, 1]`."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (ROWS, 1)))


def _mutated(rng: np.random.Generator, logits: Logits, excess: torch.Tensor) -> Logits:
    """The best parents themselves, and children whose logits moved by steps of many sizes; −inf stays −inf."""
    parents = excess.topk(min(PARENTS, len(excess))).indices.numpy()
    chosen = rng.choice(parents, ROWS)
    chosen[: len(parents)] = parents
    step = _log_uniform(rng, 1e-2, 3.0)
    step[: len(parents)] = 0
    return tuple(x[chosen] + step * rng.standard_normal(x[chosen].shape) for x in logits)


def _named(name: str) -> Claim:
    from geomix_core.claims import CLAIMS  # the package imports this module

    if name not in CLAIMS:
        raise OptionError(f"claim is {name!r}: expected a name in geomix_core.claims.CLAIMS.")
    return CLAIMS[name]


def _same_shape(tables: Sequence[Table]) -> list[list[Table]]:
    """Grouped by what fits into one batch: as many tokens, with or without a reference."""
    groups: dict[tuple[int, bool], list[Table]] = {}
    for table in tables:
        groups.setdefault((table.tokens, table.reference is None), []).append(table)
    return list(groups.values())
