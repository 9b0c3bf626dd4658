"""The command: measure what is missing, then report."""

from __future__ import annotations

import json
import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.lab_study import cases, plots, report

RESULTS = Path(__file__).resolve().parent.parent / "results"
DOCS = RESULTS.parent.parent / "docs"
DATA = RESULTS.parent.parent / "geomix_core" / "data" / "lab_study.json"
"""What claims cite of the study."""


@click.command(help=__doc__)
@click.option("--seconds", default=840.0, show_default=True, help="Begin no further case after so much processor time.")
@click.option("--again", is_flag=True, help="Forget what an earlier run measured.")
@click.option("--report-only", is_flag=True, help="Measure nothing.")
def main(seconds: float, again: bool, report_only: bool) -> None:
    torch.set_num_threads(1)
    path = RESULTS / "lab_study.json"
    found = _load(path, again)
    if not report_only:
        _measure(found, path, seconds)
    (RESULTS / "lab_study.md").write_text(report.page(found), "utf-8")
    DATA.write_text(json.dumps(report.summary(found), indent=1) + "\n", "utf-8")
    print("Wrote lab_study.md")
    for line in plots.draw(found, DOCS):
        print(line)


def _load(path: Path, again: bool) -> dict[str, Any]:
    wanted = json.loads(json.dumps(cases.settings()))
    if path.exists() and not again:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if found["settings"] == wanted:
            return found
    return {"command": "make study", "settings": wanted, "seconds": 0.0, "cases": {}, "sequences": {}}


def _measure(found: dict[str, Any], path: Path, seconds: float) -> None:
    began, before = time.process_time(), found["seconds"]
    todo = [(name, row, estimator) for name, row, estimator in cases.cases() if name not in found["cases"]]
    later = [row for row in cases.rows() if row.name not in found["sequences"] and _in_sequence(row)]
    found |= {"taken": date.today().isoformat(), "cores": os.cpu_count(), "torch": torch.__version__}
    done = 0
    for name, row, estimator in todo:
        if time.process_time() - began > seconds:
            break
        found["cases"][name] = cases.measure(row, estimator)
        done += 1
        found["seconds"] = round(before + time.process_time() - began, 1)
        if done % 20 == 0:
            _save(found, path)
            print(f"{done} of {len(todo)} cases, {time.process_time() - began:.0f} s", flush=True)
    for row in later:
        if time.process_time() - began > seconds:
            break
        found["sequences"][row.name] = cases.measure_in_sequence(row)
        found["seconds"] = round(before + time.process_time() - began, 1)
    _save(found, path)
    missing = len(todo) - done + sum(row.name not in found["sequences"] for row in later)
    print("All is measured." if not missing else f"{missing} cases are missing: run it again to go on.")


def _in_sequence(row: cases.Row) -> bool:
    """Where the policies of all repetitions are cheap to keep; one seed of each."""
    return row.vocabulary <= 1_000 and row.name.endswith("#0")


def _save(found: dict[str, Any], path: Path) -> None:
    """One line a case; written beside and moved, so that a run that is cut short leaves a whole file."""
    head = {k: v for k, v in found.items() if k not in ("cases", "sequences")}
    parts = [f'"{k}": {json.dumps(v)}' for k, v in head.items()]
    for key in ("cases", "sequences"):
        lines = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found[key].items())
        parts.append(f'"{key}": {{\n  {lines}\n }}')
    beside = path.with_suffix(".tmp")
    beside.write_text("{\n " + ",\n ".join(parts) + "\n}\n", "utf-8")
    beside.replace(path)


main()
