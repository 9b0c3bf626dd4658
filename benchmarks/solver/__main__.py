"""The command: measure everything, write benchmarks/results/solver.json and docs/bench_*.svg, print a table.

make bench ARGS="--rounds 5"
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.solver import maxima, memory, plots, report
from benchmarks.solver.cases import Case, all_cases, logits
from benchmarks.solver.competitors import BASE, EXP, OURS, READ, YARDSTICKS, Solver, present, solution
from benchmarks.solver.timing import Timing, exponent, interleave

ROOT = Path(__file__).parents[2]
GROWTH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GROWTH_VOCABULARY = 50_257
GROWTH_VOCABULARIES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000)
GROWTH_ELEMENTS = 2_000_000


@click.command()
@click.option("--rounds", default=11, show_default=True, help="How often each competitor is timed on each case.")
@click.option("--growth-rounds", default=7, show_default=True, help="The same for growth in B and V.")
@click.option("--results", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/solver.json")
@click.option("--figures", type=click.Path(path_type=Path), default=ROOT / "docs", help="Folder of the plots.")
@click.option("--draw-only", is_flag=True, help="Measure nothing: targets, table and plots from the results file.")
def main(rounds: int, growth_rounds: int, results: Path, figures: Path, draw_only: bool) -> None:
    """Time α_KL solvers against each other, and say how exact they are."""
    outcome = json.loads(results.read_text("utf-8")) if draw_only else measure(rounds, growth_rounds)
    outcome["targets"] = report.targets(outcome)
    results.write_text(json.dumps(outcome, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(report.markdown(outcome))
    for line in plots.draw(outcome, figures):
        click.echo(line, err=True)


def measure(rounds: int, growth_rounds: int) -> dict[str, Any]:
    """Everything, as JSON."""
    torch.set_num_threads(1)
    load = os.getloadavg()
    competitors, notes = present()
    click.echo(f"Load average {load[0]:.2f}. Making the inputs and their float64 answers.", err=True)
    cases = [Measured.of(case, competitors) for case in all_cases()]
    click.echo("Timing the cases.", err=True)
    timings = time_cases(cases, competitors, rounds)
    click.echo("Timing growth.", err=True)
    growth = {
        "rows": grow(
            [(b, GROWTH_VOCABULARY) for b in GROWTH_ROWS], {**competitors, **YARDSTICKS}, growth_rounds, axis=0
        ),
        "vocabulary": grow([(GROWTH_ELEMENTS // v, v) for v in GROWTH_VOCABULARIES], OURS, growth_rounds, axis=1),
    }
    click.echo("Measuring memory.", err=True)
    return {
        "command": "make bench",
        **report.surroundings(load),
        "notes": notes,
        "settings": {"rounds": rounds, "growth_rounds": growth_rounds, "dtype": "float32", "statistic": "median"},
        "cases": [case.described(timings) for case in cases],
        "growth": growth,
        "maxima": maxima.measure(growth_rounds),
        "memory": memory.measure(),
    }


@dataclass(frozen=True, eq=False)
class Measured:
    """A case, every competitor's α on it, and whether each row of ours lies within its bound."""

    case: Case
    alphas: Mapping[str, np.ndarray]
    within_bound: bool
    worst_bound: float

    @classmethod
    def of(cls, case: Case, competitors: Mapping[str, Solver]) -> Measured:
        """Run everyone once: what they answer, and their compilers' time out of the way."""
        certified = [
            solution(case.theta, case.target, s.keywords["backend"], s.keywords["threads"]) for s in OURS.values()
        ]
        errors = [np.abs(np.asarray(s.alpha) - case.alpha) for s in certified]
        return cls(
            case,
            {name: solve(case.theta, case.target) for name, solve in competitors.items()},
            all(bool((e <= np.asarray(s.bound)).all()) for e, s in zip(errors, certified, strict=True)),
            max(float(np.max(s.bound)) for s in certified),
        )

    def described(self, timings: Mapping[tuple[str, str], Timing]) -> dict[str, Any]:
        """For the results file."""
        rows, vocabulary = self.case.theta.shape
        read, exp = (timings[self.case.name, yardstick].median for yardstick in (READ, EXP))
        base = timings[self.case.name, BASE].median
        return {
            "name": self.case.name,
            "family": self.case.family,
            "rows": rows,
            "vocabulary": vocabulary,
            "sigma": [float(self.case.sigma.min()), float(self.case.sigma.max())],
            "every_row_of_ours_within_its_bound": self.within_bound,
            "worst_bound_of_ours": self.worst_bound,
            "read_both_once_ns": 1e9 * read / self.case.theta.size,
            "exp_of_both_ns": 1e9 * exp / self.case.theta.size,
            "competitors": {
                name: self._entry(alpha, timings[self.case.name, name], base, read, exp)
                for name, alpha in self.alphas.items()
            },
        }

    def _entry(self, alpha: np.ndarray, timing: Timing, base: float, read: float, exp: float) -> dict[str, Any]:
        error = np.abs(alpha - self.case.alpha)
        return {
            "ns_per_element": 1e9 * timing.median / self.case.theta.size,
            "quartiles_ns": [1e9 * q / self.case.theta.size for q in timing.quartiles],
            "cpu_ns_per_element": 1e9 * timing.cpu / self.case.theta.size,
            "cores_busy": timing.cores,
            "times_ours": timing.median / base,
            "reads_of_both": timing.median / read,
            "exps_of_both": timing.median / exp,
            "worst_error": float(error.max()),
            "worst_error_times_sigma": float((error * self.case.sigma).max()),
        }


def time_cases(cases: list[Measured], competitors: Mapping[str, Solver], rounds: int) -> dict[tuple[str, str], Timing]:
    """Every competitor and both yardsticks on every case, round-robin within the case."""
    timings = {}
    for measured in cases:
        case = measured.case
        tasks = {name: partial(task, case.theta, case.target) for name, task in {**competitors, **YARDSTICKS}.items()}
        timings |= {(case.name, name): timing for name, timing in interleave(tasks, rounds).items()}
    return timings


def grow(shapes: list[tuple[int, int]], solvers: Mapping[str, Solver], rounds: int, axis: int) -> dict[str, Any]:
    """Seconds of each solver on easy logits of these shapes, and the exponent in B (axis 0) or V (axis 1, a row).

    The exponent is that of the shapes that count for targets; what a call itself takes shows below.
    """
    inputs = {shape: logits("easy", *shape) for shape in shapes}
    tasks = {(name, shape): partial(solve, *inputs[shape]) for name, solve in solvers.items() for shape in shapes}
    for task in tasks.values():
        task()
    timings = interleave(tasks, rounds)
    large = [rows * vocabulary >= report.LARGE for rows, vocabulary in shapes]
    answer: dict[str, Any] = {"shapes": shapes, "seconds": {}, "exponent": {}}
    for name in solvers:
        seconds = [timings[name, shape].median for shape in shapes]
        answer["seconds"][name] = seconds
        one = seconds if axis == 0 else [s / b for s, (b, _) in zip(seconds, shapes, strict=True)]
        points = [(shape[axis], t) for shape, t, counts in zip(shapes, one, large, strict=True) if counts]
        answer["exponent"][name] = exponent(*zip(*points, strict=True))
    return answer


if __name__ == "__main__":
    main()
