"""What a claim is: a statement of the document that computes, row by row, how far the input is from breaking it.

A measurement is a residual with a tolerance: the claim fails where the residual exceeds it. Residuals are continuous
where they can be, so that a search can climb them (`search`). The words of each claim, in both languages, are in
words.toml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench
from geomix_core.claims.conditions import Condition
from geomix_core.claims.setting import Setting
from geomix_core.policies import PolicyBatch


class Outcome(StrEnum):
    """Whether a claim holds on the input at hand."""

    HOLDS = "holds"
    FAILS = "fails"
    DOES_NOT_APPLY = "does_not_apply"


Numbers = Mapping[str, Tensor | float]
"""`[B]`, or one number for all rows, by name."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a claim's formula gives on rows that it speaks of, all `[B]`."""

    residual: Tensor
    """How far the claim is from holding, in units of its own; it fails where this exceeds the tolerance."""
    tolerance: Tensor | float
    """What the claim allows: rounding for an identity, the document's own margin for an estimate."""
    numbers: Numbers
    """What was compared, by the names that the claim's words use."""
    silent: Mapping[str, Tensor] = field(default_factory=dict)
    """Boolean masks of rows that turn out to decide nothing, by reason."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one claim on one input, and the numbers that were compared. Agreement is not a proof."""

    claim: str
    outcome: Outcome
    residual: float | None = None
    tolerance: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Of the row that is farthest from holding, where there are several."""
    reason: str = ""
    """Why the claim does not apply: a key of words.toml."""
    rows: int = 1
    """Rows on which the claim was decided."""
    held: int = 0
    """On how many of them it held."""


@dataclass(frozen=True, eq=False)
class RowVerdicts:
    """One claim on every row of a batch, on the CPU."""

    claim: Claim
    residual: Tensor
    """`[B]`, NaN where the claim does not apply."""
    tolerance: Tensor
    numbers: Mapping[str, Tensor]
    reasons: tuple[str, ...]
    """Per row: "" where the claim is decided, else why it does not apply."""

    @property
    def applies(self) -> Tensor:
        """Boolean `[B]`: the claim is decided on this row."""
        return torch.tensor([not r for r in self.reasons])

    @property
    def excess(self) -> Tensor:
        """Residual beyond the tolerance `[B]`: positive where the claim fails, −∞ where it does not apply."""
        return torch.where(self.applies, self.residual - self.tolerance, -torch.inf)

    @property
    def fails(self) -> Tensor:
        """Boolean `[B]`."""
        return self.excess > 0

    def __len__(self) -> int:
        return len(self.reasons)

    def verdict(self, row: int = 0) -> Verdict:
        """The verdict on one row."""
        if self.reasons[row]:
            return Verdict(self.claim.name, Outcome.DOES_NOT_APPLY, reason=self.reasons[row], rows=0)
        failed = bool(self.fails[row])
        return Verdict(
            self.claim.name,
            Outcome.FAILS if failed else Outcome.HOLDS,
            float(self.residual[row]),
            float(self.tolerance[row]),
            {name: float(values[row]) for name, values in self.numbers.items()},
            held=int(not failed),
        )

    def summary(self) -> Verdict:
        """One verdict on all rows: every row must hold; or most of them, where that is what the claim says."""
        decided = int(self.applies.sum())
        if not decided:
            reason = self.reasons[0] if len(set(self.reasons)) == 1 else "no_rows"
            return Verdict(self.claim.name, Outcome.DOES_NOT_APPLY, reason=reason, rows=0)
        held = decided - int(self.fails.sum())
        worst = self.verdict(int(self.excess.argmax()))
        enough = held == decided if self.claim.quantifier == "every" else held > decided / 2
        return Verdict(
            self.claim.name,
            Outcome.HOLDS if enough else Outcome.FAILS,
            worst.residual,
            worst.tolerance,
            worst.numbers,
            rows=decided,
            held=held,
        )


@dataclass(frozen=True, eq=False)
class Claim:
    """A statement of the document. `check` it on policies; `find_counterexample` attacks it."""

    name: str
    measure: Callable[[Bench], Measurement] | None
    """None for a statement that compares no two quantities."""
    needs: tuple[Condition, ...]
    """Where one of these is missing, the claim's quantities are not defined and it says nothing."""
    assumes: tuple[Condition, ...]
    """What the document does not state but the claim needs to be true; as stated, the claim is held to all rows."""
    uses: frozenset[str]
    """Fields of `Setting` that the verdict depends on; "reference" where it depends on the reward."""
    quantifier: Literal["every", "most"]
    per_batch: bool = False
    """Measured once for all rows of a batch, which then are one observation."""

    def check(self, batch: PolicyBatch, setting: Setting | None = None, *, assume: bool = False) -> Verdict:
        """The verdict on a batch: on all of its rows (or most of them, where that is what the claim says).

        Args:
            batch: policies `[B, V]`.
            setting: weights, α, η range and N where the claim depends on them.
            assume: leave out rows that lack an unstated hypothesis (`assumes`): the claim as it should have been put.
        """
        return self.rows(batch, setting, assume=assume).summary()

    def rows(self, batch: PolicyBatch, setting: Setting | None = None, *, assume: bool = False) -> RowVerdicts:
        """`check`, row by row."""
        setting = setting or Setting()
        return _join([self.on(Bench(part, setting), assume=assume) for part in batch.chunks()])

    def on(self, bench: Bench, *, assume: bool = False) -> RowVerdicts:
        """The same on a bench, which other claims share: nothing that two of them need is computed twice."""
        count = len(bench)
        residual, tolerance = (torch.full((count,), torch.nan, dtype=torch.float64) for _ in range(2))
        if self.measure is None:
            return RowVerdicts(self, residual, tolerance, {}, ("interpretation",) * count)
        reasons = [""] * count
        good = torch.ones(count, dtype=torch.bool)
        for condition in self.needs + (self.assumes if assume else ()):
            if good.any():
                met = good.clone()
                met[good] = condition.test(bench.select(good)).cpu()
                _mark(reasons, condition.reason, good & ~met)
                good = met
        numbers: dict[str, Tensor] = {}
        if good.any():
            part = bench.select(good)
            found = self.measure(part)

            def spread(values: Tensor | float) -> Tensor:
                column = torch.full((count,), torch.nan, dtype=torch.float64)
                column[good] = torch.as_tensor(values, dtype=torch.float64).detach().cpu().expand(len(part))
                return column

            residual, tolerance = spread(found.residual), spread(found.tolerance)
            numbers = {name: spread(values) for name, values in found.numbers.items()}
            for reason, mask in found.silent.items():
                rows = torch.zeros(count, dtype=torch.bool)
                rows[good] = mask.cpu()
                _mark(reasons, reason, rows)
            _mark(reasons, "out_of_range", good & ~(residual - tolerance).isfinite())
        return RowVerdicts(self, residual, tolerance, numbers, tuple(reasons))


def claim(
    *,
    needs: Iterable[Condition] = (),
    assumes: Iterable[Condition] = (),
    uses: str = "",
    most: bool = False,
    per_batch: bool = False,
) -> Callable[[Callable[[Bench], Measurement]], Claim]:
    """Make a claim of a function that measures it; the function's name is the claim's."""

    def decorate(measure: Callable[[Bench], Measurement]) -> Claim:
        quantifier: Literal["every", "most"] = "most" if most else "every"
        return Claim(
            measure.__name__, measure, tuple(needs), tuple(assumes), frozenset(uses.split()), quantifier, per_batch
        )

    return decorate


def _mark(reasons: list[str], reason: str, rows: Tensor) -> None:
    """Give the reason to those rows that have none yet."""
    for i in rows.nonzero().squeeze(-1).tolist():
        reasons[i] = reasons[i] or reason


def _join(parts: list[RowVerdicts]) -> RowVerdicts:
    if len(parts) == 1:
        return parts[0]
    names = {name for p in parts for name in p.numbers}

    def column(part: RowVerdicts, name: str) -> Tensor:
        return part.numbers.get(name, torch.full((len(part),), torch.nan, dtype=torch.float64))

    return RowVerdicts(
        parts[0].claim,
        torch.cat([p.residual for p in parts]),
        torch.cat([p.tolerance for p in parts]),
        {name: torch.cat([column(p, name) for p in parts]) for name in names},
        sum((p.reasons for p in parts), ()),
    )
