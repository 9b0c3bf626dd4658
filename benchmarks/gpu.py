"""α_KL on a CUDA device, beside reading both inputs once and beside the document's listing on the same device.

    make bench-gpu                   (or `python -m benchmarks.gpu --help`, from the repository's root)

Writes benchmarks/results/solver_gpu.json. Without a CUDA device it says so and exits with status 2.
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from geomix_core.claims.listing import solve_kl_symmetry
from geomix_core.logits import LogitSolution, solve_logits

ROOT = Path(__file__).parents[1]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TARGETS = {"reads_of_both": 2.5, "times_faster_than_listing": 40.0}
"""What issue 4 asks of an H100-class device: at most, and at least."""


@click.command()
@click.option("--rows", default=4096, show_default=True, help="B; halved until everything fits.")
@click.option("--vocabulary", default=151_936, show_default=True, help="V.")
@click.option("--rounds", default=11, show_default=True, help="How often each is timed, in turn.")
@click.option("--sample", default=32, show_default=True, help="Rows that are solved on the CPU too.")
@click.option(
    "--results", type=click.Path(path_type=Path, dir_okay=False), default=ROOT / "benchmarks/results/solver_gpu.json"
)
def main(rows: int, vocabulary: int, rounds: int, sample: int, results: Path) -> None:
    """Time the α_KL solver on a GPU, and compare its answers with the CPU's."""
    if not torch.cuda.is_available():
        click.echo("No CUDA device is at hand: the solver is not measured on a GPU.", err=True)
        sys.exit(2)
    cases = [measure(name, rows, vocabulary, rounds, sample) for name in DTYPES]
    outcome = {
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "rounds": rounds,
        "statistic": "median",
        "targets": TARGETS,
        "cases": cases,
    }
    results.write_text(json.dumps(outcome, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for case in cases:
        click.echo(
            f"{case['dtype']} {case['rows']}×{case['vocabulary']}: {case['solver_ms']:.2f} ms, "
            f"{case['reads_of_both']:.2f} times reading both, {case['times_faster_than_listing']:.0f} times faster "
            f"than the listing; worst |α − α_cpu| {case['worst_difference']:.1e}, "
            f"{'within' if case['within_bounds'] else 'NOT within'} the bounds"
        )


def measure(name: str, rows: int, vocabulary: int, rounds: int, sample: int) -> dict[str, Any]:
    """One dtype, with half as many rows whenever memory does not suffice."""
    while True:
        try:
            return _measure(name, rows, vocabulary, rounds, sample)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        # Outside of the except: the error's traceback holds on to the tensors.
        torch.cuda.empty_cache()
        rows //= 2


def _measure(name: str, rows: int, vocabulary: int, rounds: int, sample: int) -> dict[str, Any]:
    theta, target = logits(rows, vocabulary, DTYPES[name])
    solution = solve_logits(theta, target)  # compiles
    listing_rows = _rows_for_listing(rows, vocabulary)
    tasks = {
        "read": lambda: read(theta, target),
        "solver": lambda: solve_logits(theta, target),
        "listing": lambda: listing(theta, target, listing_rows),
    }
    seconds = interleave(tasks, rounds)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    solve_logits(theta, target)
    return {
        "dtype": name,
        "rows": rows,
        "vocabulary": vocabulary,
        **{f"{task}_ms": 1e3 * s for task, s in seconds.items()},
        "reads_of_both": seconds["solver"] / seconds["read"],
        "times_faster_than_listing": seconds["listing"] / seconds["solver"],
        "listing_rows_at_a_time": listing_rows,
        "extra_memory_bytes": torch.cuda.max_memory_allocated() - before,
        "passes": float(np.mean(solution.passes)),
        "solved": int(solution.solved.sum()),
        "statuses": dict(Counter(map(str, solution.status))),
        "kernels": _has_kernels(),
        **_against_cpu(theta, target, solution, sample),
    }


def logits(rows: int, vocabulary: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Both policies' logits on the device: 2z, and standard normal differences, in pieces so that no copy is large."""
    generator = torch.Generator("cuda").manual_seed(seed)
    theta, target = (torch.empty(rows, vocabulary, dtype=dtype, device="cuda") for _ in range(2))
    for piece, other in zip(theta.split(64), target.split(64), strict=True):
        z = torch.randn(piece.shape, generator=generator, device="cuda")
        piece.copy_(2 * z)
        other.copy_(2 * z + torch.randn(piece.shape, generator=generator, device="cuda"))
    return theta, target


def read(theta: Tensor, target: Tensor) -> Tensor:
    """The yardstick: both inputs read once."""
    return theta.sum(-1, dtype=torch.float32) + target.sum(-1, dtype=torch.float32)


def listing(theta: Tensor, target: Tensor, rows: int) -> None:
    """The document's listing as written, on float32 probabilities, `rows` rows at a time."""
    for u, v in zip(theta.split(rows), target.split(rows), strict=True):
        solve_kl_symmetry(*(torch.softmax(x, dim=-1, dtype=torch.float32) for x in (u, v)))


def _rows_for_listing(rows: int, vocabulary: int) -> int:
    """As many rows as fit: it holds about ten float32 arrays of their size."""
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(rows, free // (40 * vocabulary)))


def interleave(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each task by CUDA events, in turn, after each has run twice."""
    for task in (*tasks.values(), *tasks.values()):
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(_seconds(task))
    return {name: statistics.median(s) for name, s in seconds.items()}


def _seconds(task: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    task()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _has_kernels() -> bool:
    from geomix_core.solvers import onepass

    return "cuda" not in onepass._NO_COMPILER


def _against_cpu(theta: Tensor, target: Tensor, solution: LogitSolution, sample: int) -> dict[str, Any]:
    """How far a sample's α lies from the CPU's, and whether within both bounds."""
    chosen = np.unique(np.linspace(0, len(solution) - 1, min(sample, len(solution))).astype(int))
    index = torch.from_numpy(chosen).to(theta.device)
    cpu = solve_logits(theta[index].double().cpu(), target[index].double().cpu())
    difference = np.abs(solution.alpha[chosen] - cpu.alpha)
    return {
        "sampled_rows": len(chosen),
        "worst_difference": float(difference.max()),
        "worst_difference_times_sigma": float((difference * np.sqrt(cpu.variance)).max()),
        "within_bounds": bool((difference <= solution.bound[chosen] + cpu.bound).all()),
        "same_status": bool(all(solution.status[i] == cpu.status[j] for j, i in enumerate(chosen))),
    }


if __name__ == "__main__":
    main()
