"""The table of intervals that `geomix solve` writes of top-k log-probabilities, and its check.

for chunk in solve_chunks(open_topk("theta.jsonl", "target.jsonl")): ...
result_files.write(path, chunks, TABLE)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from geomix_core.errors import FileError
from geomix_core.result_files import Table
from geomix_core.results import CLOSE, Checked, Column, Columns
from geomix_core.tails import WIDTH, TailBounds, TailStatus, bound_chunks
from geomix_core.topk import TopKPair, TopKRow

_NATS = "nats, over every way in which the missing probability can lie"

COLUMNS: Mapping[str, Column] = {
    "row": Column(int, "index of the position among all of the files, from 0"),
    "text": Column(int, "which text (response or prompt) it is in, from 0"),
    "position": Column(int, "which token of the text, from 0"),
    "status": Column(str, "determined, interval, not_determined, identical or invalid"),
    "alpha_kl_low": Column(float, "α by KL symmetry, the weight of π_θ, is at least this, whatever the tail"),
    "alpha_kl_high": Column(float, "α by KL symmetry is at most this"),
    "kl_theta_target_low": Column(float, f"KL(π_θ‖π_t) is at least this; {_NATS}"),
    "kl_theta_target_high": Column(float, "KL(π_θ‖π_t) is at most this; inf where a tail can make it so"),
    "kl_target_theta_low": Column(float, f"KL(π_t‖π_θ) is at least this; {_NATS}"),
    "kl_target_theta_high": Column(float, "KL(π_t‖π_θ) is at most this; inf where a tail can make it so"),
    "chernoff_information_low": Column(float, f"−log min over α of Z(α) is at least this; {_NATS}"),
    "chernoff_information_high": Column(float, "and at most this"),
    "k_theta": Column(int, "tokens that θ's file reports at this position"),
    "k_target": Column(int, "tokens that the target's file reports"),
    "missing_theta": Column(float, "probability that θ's file does not report"),
    "missing_target": Column(float, "probability that the target's file does not report"),
    "missing_enough": Column(float, "estimate: with so little missing, α_KL would be determined"),
    "k_enough": Column(int, "extrapolation of the reported decay: so many logprobs would leave so little"),
    "width": Column(float, "α_KL is determined where its interval is no wider"),
    "vocabulary": Column(int, "tokens of the vocabulary, if that was said"),
    "problem": Column(str, "why the row is invalid"),
}
"""Every column that a file of intervals has, in order."""

TABLE = Table(
    "geomix-intervals",
    COLUMNS,
    ("row", "status", "alpha_kl_low", "alpha_kl_high", "width"),
    {"status": frozenset(map(str, TailStatus))},
)

_QUANTITIES = ("alpha_kl", "kl_theta_target", "kl_target_theta", "chernoff_information")


def solve_chunks(pair: TopKPair, width: float = WIDTH) -> Iterator[Columns]:
    """The rows of a pair, chunk by chunk: every column of `COLUMNS`, None where it has no value. Raises OptionError."""
    done = 0
    for bounds in bound_chunks(pair.rows, width=width):
        rows = pair.rows[done : done + len(bounds.status)]
        done += len(rows)
        yield _columns(rows, bounds, pair.vocabulary)


def _columns(rows: tuple[TopKRow, ...], bounds: TailBounds, vocabulary: int | None) -> Columns:
    columns: Columns = {
        "row": [row.row for row in rows],
        "text": [row.text for row in rows],
        "position": [row.position for row in rows],
        "status": [str(word) for word in bounds.status],
        "k_enough": list(bounds.k_enough),
        "width": [bounds.width] * len(rows),
        "vocabulary": [vocabulary] * len(rows),
        "problem": [row.problem for row in rows],
        "missing_enough": [None if math.isnan(x) else x for x in bounds.missing_enough.tolist()],
    }
    for name in _QUANTITIES:
        for end, values in zip(("low", "high"), getattr(bounds, name).T.tolist(), strict=True):
            columns[f"{name}_{end}"] = [None if math.isnan(x) else x for x in values]
    for name in ("k_theta", "k_target", "missing_theta", "missing_target"):
        columns[name] = [None if row.problem else getattr(row, name) for row in rows]
    return {name: columns[name] for name in COLUMNS}


def options(table: Columns) -> tuple[float, int | None]:
    """(width, vocabulary) that a table was solved with. Raises FileError if it says several, or no width."""
    widths, sizes = set(table["width"]), set(table.get("vocabulary", [None]))
    width = widths.pop() if len(widths) == 1 else None
    if width is None or not 0 < width < 1 or len(sizes) > 1:
        raise FileError(
            "The results name no width, or several widths or vocabularies: expected those of one run of geomix solve."
        )
    return width, sizes.pop()


def verify_chunks(table: Columns, pair: TopKPair) -> Iterator[Checked]:
    """Solve every row of the pair again, with the table's own width, and compare; a missing row is a difference.

    Raises FileError as `options` does.
    """
    width, _ = options(table)
    at = {row: i for i, row in enumerate(table["row"])}
    for again in solve_chunks(pair, width):
        differences = []
        for j, row in enumerate(again["row"]):
            if row not in at:
                differences.append((row, "the row is not in the results"))
                continue
            words = [
                f"{name} is {_said(again[name][j])}, not {_said(table[name][at[row]])}"
                for name in COLUMNS
                if name in table and not _same(table[name][at[row]], again[name][j])
            ]
            if words:
                differences.append((row, "; ".join(words)))
        yield Checked(len(again["row"]), tuple(differences))
    outside = sorted(row for row in at if row >= len(pair.rows))
    if outside:
        yield Checked(0, tuple((row, f"the input has only {len(pair.rows):,} rows") for row in outside))


def _same(said: object, found: object) -> bool:
    if isinstance(said, float) and isinstance(found, float):
        return said == found or abs(said - found) <= CLOSE + CLOSE * abs(found)
    return said == found


def _said(value: object) -> str:
    if value is None or value == "":
        return "empty"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
