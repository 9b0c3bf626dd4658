"""What a table of results says as a whole: how many rows can be trusted, and which ones a person should look at first.

found = overview(table)             # columns as `results.solve_chunks` makes them, of all rows or of the first
found.groups["certified"], found.bound, found.quantile("alpha_kl", 0.5)
by_attention(table)                 # places in the table: refused rows first, ordinary ones last
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geomix_core.results import COLUMNS, Columns
from geomix_core.status import Status

CERTIFIED = 1e-4
"""A row counts as certified where its bound is at most this: α is known to the four decimals that are shown."""
UNUSUAL = 3.5
"""An α_KL is unusual where it lies more than this many robust standard deviations from the median of all rows."""
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)

Group = Literal["refused", "unfinished", "unanswered", "loose", "degenerate", "certified"]
GROUPS: tuple[Group, ...] = ("refused", "unfinished", "unanswered", "loose", "degenerate", "certified")
"""Every row is in one of them, by its outcome for α_KL; in order of how much attention it needs.

refused: no policy. unfinished: the search gave up. unanswered: no α to be had. loose: solved, with a bound above
`CERTIFIED`. degenerate: every α is a solution. certified: the others.
"""
ANSWERED: tuple[Group, ...] = ("loose", "certified")
"""Those with one α_KL."""

Reason = Literal["", "refused", "unfinished", "unanswered", "loose", "degenerate", "away", "other_criterion", "unusual"]
"""Why a row needs attention, worst first: its group; Φ₁ < 0 at α_SNR ("away"); no α by SNR or Wald; an unusual α_KL."""
REASONS: tuple[Reason, ...] = (
    "refused", "unfinished", "unanswered", "loose", "away", "degenerate", "other_criterion", "unusual", "",
)  # fmt: skip

_UNANSWERED = frozenset({Status.DISJOINT, Status.NO_COVERAGE, Status.NO_SIGNAL, Status.NO_ASCENT, Status.OUT_OF_RANGE})
_DEGENERATE = frozenset({Status.IDENTICAL, Status.FLAT})
_WITHOUT = _UNANSWERED | {Status.NOT_CONVERGED, "invalid"}


@dataclass(frozen=True, slots=True)
class Overview:
    """A table in a few numbers."""

    rows: int
    groups: Mapping[Group, int]
    statuses: Mapping[str, Mapping[str, int]]
    """Rows by status, the most frequent first, by the name of the column."""
    problems: Mapping[str, int]
    """Refused rows by what is wrong with them."""
    bound: float | None
    """The largest bound of a certified row."""
    quantiles: Mapping[str, Mapping[float, float]]
    """Of each column of α, over the rows where it is one answer: value by level (`LEVELS`); without rows, empty."""

    @property
    def answered(self) -> int:
        """Rows with one α_KL: those of its quantiles."""
        return sum(self.groups[g] for g in ANSWERED)

    def quantile(self, column: str, level: float) -> float | None:
        """A quantile of a column of α, if it has any rows."""
        return self.quantiles.get(column, {}).get(level)


def overview(table: Columns) -> Overview:
    """Counts of groups and statuses, and quantiles of α, over a table with a column "status"."""
    counts = Counter(groups(table))
    statuses = {
        name: dict(Counter(word for word in table[name] if word is not None).most_common())
        for name in ("status", "status_snr", "status_wald")
        if any(table[name])
    }
    certified = [b for b, g in zip(table["bound"], groups(table), strict=True) if g == "certified"]
    columns = {name: answers(table, name) for name in ("alpha_kl", "alpha_snr", "alpha_wald")}
    return Overview(
        rows=len(table["row"]),
        groups={group: counts[group] for group in GROUPS},
        statuses=statuses,
        problems=dict(Counter(words for words in table["problem"] if words).most_common()),
        bound=max(certified, default=None),
        quantiles={
            name: dict(zip(LEVELS, np.quantile(x, LEVELS).tolist(), strict=True))
            for name, column in columns.items()
            if len(x := column[~np.isnan(column)])
        },
    )


def answers(table: Columns, column: str) -> np.ndarray:
    """A column of α where the row's status says that it is one answer, NaN elsewhere: no placeholder, no end point."""
    word = {"alpha_kl": "status", "alpha_snr": "status_snr", "alpha_wald": "status_wald"}[column]
    one = (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)
    return np.array(
        [
            value if status in one and value is not None else np.nan
            for value, status in zip(table[column], table[word], strict=True)
        ],
        dtype=float,
    )


def groups(table: Columns) -> list[Group]:
    """The group of each row."""
    return [_group(status, bound) for status, bound in zip(table["status"], table["bound"], strict=True)]


def _group(status: str, bound: float | None) -> Group:
    if status == "invalid":
        return "refused"
    if status == Status.NOT_CONVERGED:
        return "unfinished"
    if status in _DEGENERATE:
        return "degenerate"
    if status in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT):
        return "certified" if bound is not None and bound <= CERTIFIED else "loose"
    return "unanswered"


def reasons(table: Columns) -> list[Reason]:
    """Why each row needs attention; "" for the ordinary ones."""
    alpha = answers(table, "alpha_kl")
    known = alpha[~np.isnan(alpha)]
    middle = float(np.median(known)) if len(known) else 0.5
    spread = 1.4826 * float(np.median(np.abs(known - middle))) if len(known) else 0.0
    return [
        _reason(group, table["snr_sign"][i], (table["status_snr"][i], table["status_wald"][i]))
        or ("unusual" if spread > 0 and abs(alpha[i] - middle) > UNUSUAL * spread else "")
        for i, group in enumerate(groups(table))
    ]


def _reason(group: Group, snr_sign: int | None, others: Iterable[str | None]) -> Reason:
    if group != "certified":
        return group
    if snr_sign is not None and snr_sign < 0:
        return "away"
    return "other_criterion" if any(word in _WITHOUT for word in others) else ""


def by_attention(table: Columns) -> list[int]:
    """Places in the table: by reason, the worst first, and then by how far α_KL lies from the median."""
    alpha = answers(table, "alpha_kl")
    middle = np.nanmedian(alpha) if (~np.isnan(alpha)).any() else 0.5
    far = np.nan_to_num(np.abs(alpha - middle), nan=0.0)
    rank = {reason: i for i, reason in enumerate(REASONS)}
    why = reasons(table)
    return sorted(range(len(why)), key=lambda i: (rank[why[i]], -far[i]))


def joined(chunks: Sequence[Columns]) -> Columns:
    """One table of several chunks."""
    return {name: [value for chunk in chunks for value in chunk[name]] for name in COLUMNS}
