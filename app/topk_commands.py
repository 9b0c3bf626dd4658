"""`geomix solve`, `verify` and `inspect` of top-k log-probabilities (.json, .jsonl). Nothing is computed here.

Each ends the command with its exit status; errors that geomix raises on bad input are its caller's to show.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from geomix_core.results import Columns
    from geomix_core.topk import TopKPair


_OPTIONS = frozenset({"files", "results", "out", "vocabulary", "width"})
"""What these commands take."""


def is_topk(files: Sequence[Path]) -> bool:
    """True for files of top-k log-probabilities; then no option may be given that is not theirs."""
    if not any(path.suffix.lower() in (".json", ".jsonl") for path in files):
        return False
    context = click.get_current_context()
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE and name not in _OPTIONS:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with top-k log-probabilities.")
    return True


def solve(files: Sequence[Path], vocabulary: int | None, width: float, out: Path | None) -> NoReturn:
    """Write the table of intervals."""
    from geomix_core.intervals import TABLE, solve_chunks
    from geomix_core.outputs import held
    from geomix_core.result_files import check_extension, csv_lines, write
    from geomix_core.tails import TailStatus, check_width
    from geomix_core.topk import open_topk

    # Before the files are opened, so that a wrong option costs no time.
    check_width(width)
    if out is not None:
        check_extension(out)
        click.get_current_context().with_resource(held(out))
    pair = open_topk(*files, vocabulary=vocabulary)
    _say(pair)
    counts: Counter[str] = Counter()
    problems: Counter[str] = Counter()

    def counted() -> Iterator[Columns]:
        with click.progressbar(length=len(pair.rows), label="rows", file=sys.stderr, show_pos=True) as bar:
            for columns in solve_chunks(pair, width):
                counts.update(columns["status"])
                problems.update(words for words in columns["problem"] if words)
                yield columns
                bar.update(len(columns["row"]))

    try:
        if out is None:
            for line in csv_lines(counted(), TABLE):
                click.echo(line, nl=False)
        else:
            write(out, counted(), TABLE)
    except KeyboardInterrupt:
        click.echo("\nInterrupted: nothing is written, or kept for --resume.", err=True)
        sys.exit(130)
    click.echo(f"{len(pair.rows):,} rows; of α_KL, since α_SNR and α_Wald are not bounded.", err=True)
    for word, count in counts.most_common():
        click.echo(f"α_KL    {count:9,} {word}  {TailStatus(word).words}", err=True)
    for words, count in problems.most_common(5):
        click.echo(f"refused {count:9,} {words}", err=True)
    if out is not None:
        click.echo(f"Written: {out}", err=True)
    sys.exit(1 if counts[TailStatus.INVALID] else 0)


def verify(results: Path, files: Sequence[Path]) -> NoReturn:
    """Compute the intervals again, and name the rows that differ."""
    from geomix_core.intervals import TABLE, options, verify_chunks
    from geomix_core.result_files import read
    from geomix_core.topk import open_topk

    checked = differing = 0
    table = read(results, TABLE)
    pair = open_topk(*files, vocabulary=options(table)[1])
    for part in verify_chunks(table, pair):
        checked += part.rows
        for row, words in part.differences:
            differing += 1
            click.echo(f"row {row}: {words}")
    click.echo(f"{checked:,} rows: their intervals were computed again, {differing:,} differ.", err=True)
    sys.exit(1 if differing else 0)


def inspect(files: Sequence[Path], vocabulary: int | None) -> NoReturn:
    """Say how much was reported, and how much is missing."""
    from geomix_core.topk import open_topk
    from geomix_core.topk_report import inspect_topk, to_text

    found = inspect_topk(open_topk(*files, vocabulary=vocabulary))
    click.echo(to_text(found))
    sys.exit(0 if sum(found.problems.values()) < found.rows else 1)


def _say(pair: TopKPair) -> None:
    """On stderr which file is which, and how their tokens are matched."""
    from geomix_core.file_words import show

    for role, name in pair.names.items():
        click.echo(f"{role:9} {show(name)} top-k log-probabilities", err=True)
    if pair.assigned_by == "order":
        click.echo("          by their order, since the names do not settle it: swapped, α turns into 1 − α", err=True)
    click.echo(f"          tokens are matched by their {'ids' if pair.matched_by == 'id' else 'bytes'}", err=True)
