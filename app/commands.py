"""`geomix extract`, `solve`, `verify` and `inspect`: files in, files and a summary out. Nothing is computed here.

Exit status: 0 when every row was solved or reported (verify: every row holds); 1 when a row is invalid or its search
gave up (verify: a row differs); 2 when nothing was done because of a file or an option; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geomix_app import topk_commands

if TYPE_CHECKING:
    import torch

    from geomix_core.extraction import Positions
    from geomix_core.files import LogitPair
    from geomix_core.kinds import Finding, Kind
    from geomix_core.result_files import Journal
    from geomix_core.results import Columns, Plan, Tally
    from geomix_core.tilts import Weights

# The core, and torch with it, is imported by the commands themselves: --help does not wait for it.

_KINDS = ("auto", "logits", "log_probs", "probs")
_HEADINGS = {"status": "α_KL", "status_snr": "α_SNR", "status_wald": "α_Wald"}
_F = TypeVar("_F", bound=Callable[..., Any])


class Refusal(click.ClickException):
    """A file or an option that cannot be used: status 2."""

    exit_code = 2


def _input(command: _F) -> _F:
    """The arguments and options that say what is read."""
    path = click.Path(path_type=Path)
    for decorate in (
        click.option(
            "--kind",
            type=click.Choice(_KINDS),
            default="auto",
            show_default=True,
            help="What the numbers are. auto looks, and says what it saw.",
        ),
        click.option("--reference", type=path, metavar="FILE", help="The reward's policy; by default it is θ."),
        click.argument("files", nargs=-1, required=True, type=path, metavar="FILE [FILE]"),
    ):
        command = decorate(command)
    return command


_vocabulary = click.option(
    "--vocabulary", type=int, metavar="V", help="Top-k: how many tokens the models have, if that is known."
)


@click.command()
@_input
@click.option(
    "--criterion",
    default="kl_symmetry,snr",
    show_default=True,
    help="One or more of kl_symmetry, snr, wald, separated by commas.",
)
@click.option("--weights", type=click.Choice(["importance", "inverse"]), default="importance", show_default=True)
@click.option("--eta-low", type=float, default=0.5, show_default=True, help="Learning rates that wald guards against.")
@click.option("--eta-high", type=float, default=2.0, show_default=True)
@click.option("--device", help="Where to compute: cpu, cuda, auto, …  [default: cpu]")
@click.option("--threads", type=click.IntRange(min=1), help="[default: one a core]")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Results: .csv, .json or .parquet.  [default: CSV on stdout]",
)
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run with the same --out has done.")
@_vocabulary
@click.option(
    "--width", type=float, default=0.01, show_default=True, help="Top-k: an interval this narrow determines α_KL."
)
def solve(
    files: tuple[Path, ...],
    reference: Path | None,
    kind: str,
    criterion: str,
    weights: Weights,
    eta_low: float,
    eta_high: float,
    device: str | None,
    threads: int | None,
    out: Path | None,
    resume: bool,
    vocabulary: int | None,
    width: float,
) -> None:
    """α of every row of FILE (two or three arrays) or of two FILEs (θ and target).

    Files are .npy, .safetensors or .pt, which are memory-mapped, or .npz, .parquet, .csv or .tsv. Two .json or .jsonl
    files hold top-k log-probabilities: α_KL and divergences are then intervals over all that was not reported. The
    results go to --out, which is written whole or not at all. Exit status: 0 when every row was solved or reported, 1
    when some are invalid, 2 when a file or an option cannot be used.
    """
    if topk_commands.is_topk(files):
        with _refusals():
            topk_commands.solve(files, vocabulary, width, out)
    from geomix_core.outputs import held
    from geomix_core.result_files import Journal, check_extension, csv_lines, write
    from geomix_core.results import Plan, Tally, solve_chunks

    if resume and out is None:
        raise click.UsageError("--resume needs --out: the results on stdout leave nothing to go on from.")
    with _refusals():
        if out is not None:
            check_extension(out)
            click.get_current_context().with_resource(held(out))
        # Before the files are opened, so that a wrong option costs no time.
        criteria = tuple(word.strip() for word in criterion.split(","))
        Plan(criteria, weights, (eta_low, eta_high))
        place = _device(device, threads)
        pair = _opened(files, reference)
        plan = Plan(criteria, weights, (eta_low, eta_high), _kind(pair, kind))
        journal = None
        if out is not None:
            header = _header(pair, plan, [*files, *([] if reference is None else [reference])])
            journal = Journal.resume(out, header) if resume else Journal.begin(out, header)
    tally = Tally()
    start = 0
    with _refusals():
        if journal is not None and journal.done:
            start = _resumed(journal, pair, tally)
        began = time.perf_counter()
        chunks = solve_chunks(pair, plan, start=start, device=place, threads=threads)
        try:
            if journal is None or out is None:
                for line in csv_lines(_counted(chunks, tally, len(pair.theta), start)):
                    click.echo(line, nl=False)
            else:
                for columns in _counted(chunks, tally, len(pair.theta), start):
                    journal.append(columns)
                write(out, journal.chunks())
                journal.remove()
        except KeyboardInterrupt:
            left = "" if journal is None else f"; {journal.done:,} rows are kept for --resume"
            click.echo(f"\nInterrupted after {tally.rows:,} of {len(pair.theta):,} rows{left}.", err=True)
            sys.exit(130)
    _summarise(tally, tally.rows - start, time.perf_counter() - began)
    if out is not None:
        click.echo(f"Written: {out}", err=True)
    sys.exit(0 if tally.complete else 1)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@_input
def verify(results: Path, files: tuple[Path, ...], reference: Path | None, kind: str) -> None:
    """Recompute what RESULTS says of every row from FILE [FILE], and name the rows that differ.

    Certificates of α_KL, digests, KLs, Chernoff information and the value of SNR, in float64; intervals from top-k
    log-probabilities as they were computed first. Exit status: 0 when all rows hold, 1 when some differ or are missing,
    2 when a file cannot be used.
    """
    if topk_commands.is_topk(files):
        with _refusals():
            topk_commands.verify(results, files)
    import torch

    from geomix_core.result_files import read
    from geomix_core.results import one_kind, verify_chunks

    torch.set_num_threads(1)  # rows are checked by several threads, with which torch's own would contend
    checked = differing = 0
    with _refusals():
        table = read(results)
        pair = _opened(files, reference)
        said = one_kind(table) if kind == "auto" else None
        chosen = said or _kind(pair, kind)
        for part in verify_chunks(table, pair, chosen):
            checked += part.rows
            for row, words in part.differences:
                differing += 1
                click.echo(f"row {row}: {words}")
    if not any(table["status"]):
        click.echo("No row has a certificate: the results are not of kl_symmetry.", err=True)
    click.echo(f"{checked:,} rows checked, {differing:,} differ.", err=True)
    sys.exit(1 if differing else 0)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--reference", type=click.Path(path_type=Path), metavar="FILE", help="A file with the reference alone.")
@click.option("--row", type=click.IntRange(min=0), help="Show the prompt of this row, and nothing else.")
@_vocabulary
def inspect(files: tuple[Path, ...], reference: Path | None, row: int | None, vocabulary: int | None) -> None:
    """Say what is in FILE…: arrays, which policy is which and why, logits or probabilities, masks, NaN, repeated rows.

    Of top-k log-probabilities (.json, .jsonl): how many tokens were reported, and how much probability was not.

    Exit status: 0 when `geomix solve` would take the files, 1 when they are no pair, 2 when one cannot be read.
    """
    if topk_commands.is_topk(files):
        with _refusals():
            topk_commands.inspect(files, vocabulary)
    from geomix_core import prompts
    from geomix_core.errors import FileError
    from geomix_core.inspection import inspect_paths, to_text

    with _refusals():
        about = next(filter(None, map(prompts.row_metadata, files)), None)
        if row is not None:
            if about is None:
                raise FileError(
                    f"No prompts are known: expected {prompts.rows_path(files[0])}, an object with a prompt a line."
                )
            click.echo(prompts.to_text(about, row))
            return
        found = inspect_paths(*files, reference=reference)
    click.echo(to_text(found))
    if about is not None:
        click.echo(f"The prompts of {len(about.rows):,} rows are known: --row 0 shows the first.")
    sys.exit(1 if found.problem else 0)


@click.command()
@click.option(
    "--theta", type=click.Path(path_type=Path), required=True, metavar="MODEL", help="π_θ: a folder or .gguf."
)
@click.option("--target", type=click.Path(path_type=Path), required=True, metavar="MODEL", help="π_t, likewise.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help=".txt, a prompt a line; or .jsonl, with prompt and perhaps response, theta_prompt, target_prompt.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE", help="A .safetensors file."
)
@click.option("--chat/--raw", help="Put prompts into the models' chat templates, or take them as text.  [default: raw]")
@click.option(
    "--positions",
    type=click.Choice(["last", "all"]),
    default="last",
    show_default=True,
    help="A row after the response, or also one before each of its tokens.",
)
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), default="float16", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Prompts at a time.")
@click.option("--device", help="Where to compute: cpu, cuda, auto, …  [default: cpu]")
def extract(
    theta: Path,
    target: Path,
    prompts: Path,
    out: Path,
    chat: bool,
    positions: Positions,
    dtype: str,
    batch_size: int,
    device: str | None,
) -> None:
    """Next-token logits of two local Hugging Face models over the same prompts, for `geomix solve`.

    Needs the extra geomix[hf]. Nothing is downloaded. The logits go to --out, and beside it to NAME.rows.jsonl the
    prompt of every row; both are written whole or not at all. Exit status: 0 when all is written, 2 when a model, a
    file or an option cannot be used.
    """
    os.environ["TQDM_DISABLE"] = "1"  # read when torch imports tqdm: one progress bar is enough
    from geomix_core.extraction import extract as extracted
    from geomix_core.outputs import held
    from geomix_core.prompts import read_prompts

    with _refusals():
        click.get_current_context().with_resource(held(out))
        asked = read_prompts(prompts)
        place = _device(device, None) or "cpu"
        try:
            with click.progressbar(length=2 * len(asked), label="rows", file=sys.stderr, show_pos=True) as bar:

                def moved(done: int, total: int) -> None:
                    bar.length = total
                    bar.update(done - bar.pos)

                found = extracted(
                    theta, target, asked, out, chat=chat, positions=positions, dtype=dtype, batch_size=batch_size,
                    device=place, on_progress=moved,
                )  # fmt: skip
        except KeyboardInterrupt:
            click.echo("\nInterrupted: nothing is written.", err=True)
            sys.exit(130)
    click.echo(f"Written: {out}, {found.rows:,} rows of {found.vocabulary:,} tokens", err=True)


@contextmanager
def _refusals() -> Iterator[None]:
    """Errors that geomix raises on bad input, as a line on stderr and status 2."""
    from geomix_core.errors import GeomixError

    try:
        yield
    except GeomixError as error:
        raise Refusal(str(error)) from error
    except BrokenPipeError:
        raise  # click ends quietly
    except OSError as error:
        raise Refusal(f"The output cannot be written: {type(error).__name__}.") from error


def _opened(files: tuple[Path, ...], reference: Path | None) -> LogitPair:
    """The pair, and on stderr which array is which."""
    from geomix_core.file_words import shape_of, show
    from geomix_core.files import open_paths

    pair = open_paths(*files, reference=reference)
    for role, name in pair.names.items():
        click.echo(f"{role:9} {show(name)} {shape_of(pair.theta)} {str(pair.theta.dtype)[6:]}", err=True)
    if pair.assigned_by == "order":
        click.echo("          by their order, since the names do not settle it: swapped, α turns into 1 − α", err=True)
    return pair


def _kind(pair: LogitPair, kind: str) -> Kind:
    """What the numbers are, and on stderr why."""
    from geomix_core.files import ROLES
    from geomix_core.kinds import KINDS, detect, kind_of

    for said in KINDS:
        if kind == said:
            return said
    arrays = {role: getattr(pair, role) for role in ROLES if getattr(pair, role) is not None}
    findings: dict[str, Finding] = {role: detect(x) for role, x in arrays.items()}
    found = kind_of(findings)
    for role, finding in findings.items():
        click.echo(f"{role:9} {finding.kind}: {finding.evidence}", err=True)
    if found == "probs":
        click.echo(
            "Taken for probabilities: their logarithms are solved. --kind logits takes them as they are.", err=True
        )
    pair.release()
    return found


def _device(device: str | None, threads: int | None) -> torch.device | None:
    """The device of that name, tried out. Raises OptionError."""
    import torch

    from geomix_core.errors import OptionError
    from geomix_core.policies import device_of

    if threads is not None:
        torch.set_num_threads(threads)
    if device is None:
        return None
    try:
        place = device_of(device)
        torch.empty(1, device=place)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise OptionError(f"--device {device!r} cannot be used here: expected cpu, auto, cuda or the like.") from error
    return place


def _header(pair: LogitPair, plan: Plan, paths: list[Path]) -> dict[str, Any]:
    """What must be the same for a run to go on: the options and the input."""
    inputs = []
    for path in paths:
        about = path.stat()
        inputs.append({"name": path.name, "bytes": about.st_size, "modified_ns": about.st_mtime_ns})
    return {
        "options": {
            "criteria": list(plan.criteria),
            "weights": plan.weights,
            "eta": list(plan.eta_range),
            "kind": plan.kind,
        },
        "input": {
            "files": inputs,
            "names": dict(pair.names),
            "shape": list(pair.theta.shape),
            "dtypes": [str(x.dtype) for x in (pair.theta, pair.target, pair.reference) if x is not None],
        },
    }


def _resumed(journal: Journal, pair: LogitPair, tally: Tally) -> int:
    """The rows that are done, counted; the ends of every chunk are compared with the input. Raises FileError."""
    from geomix_core.errors import FileError
    from geomix_core.results import differing_row

    for columns in journal.chunks():
        row = differing_row(columns, pair)
        if row is not None:
            raise FileError(f"{journal.path} is of other numbers in row {row}: delete it to begin again.")
        tally.add(columns)
    pair.release()
    click.echo(f"Going on after {tally.rows:,} rows that are done.", err=True)
    return tally.rows


def _counted(chunks: Iterator[Columns], tally: Tally, rows: int, start: int) -> Iterator[Columns]:
    """The chunks, counted, with a progress bar on stderr."""
    with click.progressbar(length=rows, label="rows", file=sys.stderr, show_pos=True) as bar:
        bar.update(start)
        for columns in chunks:
            tally.add(columns)
            yield columns
            bar.update(len(columns["row"]))


def _summarise(tally: Tally, solved: int, seconds: float) -> None:
    """On stderr: what came of the rows, and how fast."""
    from geomix_core.status import Status

    click.echo(
        f"{tally.rows:,} rows; {solved:,} in {seconds:.1f} s, {solved / max(seconds, 1e-9):,.0f} a second", err=True
    )
    for column, counts in tally.status.items():
        for word, count in counts.most_common():
            reason = "" if word in ("invalid", Status.SOLVED) else f"  {Status(word).explanation.symptom}"
            one = column == "status" and word in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)
            note = f"  |α − α*| ≤ {tally.bound:.2g}" if one and tally.bound is not None else ""
            click.echo(f"{_HEADINGS[column]:7} {count:9,} {word}{note}{reason}", err=True)
    for words, count in tally.problems.most_common(5):
        click.echo(f"refused {count:9,} {words}", err=True)
