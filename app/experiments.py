"""An experiment of the sampling lab that runs beside the page: trials appear as they are measured, and it can be
stopped and continued.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from geomix_core.lab import Plan, Problem, Proposal, Trial, run
from geomix_core.tilts import Weights

AT_ONCE = 2
"""Experiments that run at the same time, of all readers together; others wait for their turn."""

_SLOTS = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True)
class Setup:
    """What all trials of an experiment have in common."""

    row: str
    """The key of the policies."""
    weights: Weights
    plan: Plan


class Experiment:
    """Trials of one setup by distribution and N. Each is the same whatever else was measured, and in which order."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._trials: dict[tuple[str, float | None, int], Trial] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, problem: Problem, proposals: Sequence[Proposal], sizes: Sequence[int]) -> None:
        """Measure what is missing, N by N; returns at once."""
        self.stop()
        self.wait()
        self._stopped.clear()
        self._thread = threading.Thread(
            target=self._run, args=(problem, tuple(proposals), tuple(sizes)), daemon=True, name="sampling lab"
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after the trial at hand."""
        self._stopped.set()

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def trials(self, proposals: Sequence[Proposal], sizes: Sequence[int]) -> tuple[Trial, ...]:
        """What is measured of these distributions, at those N at which all of them are."""
        found = dict(self._trials)
        complete = [n for n in sizes if all(_key(p, n) in found for p in proposals)]
        return tuple(found[_key(p, n)] for n in complete for p in proposals)

    def done(self, proposals: Sequence[Proposal], sizes: Sequence[int]) -> int:
        """How many trials of these distributions and N are measured."""
        return sum(_key(p, n) in self._trials for p in proposals for n in sizes)

    def _run(self, problem: Problem, proposals: tuple[Proposal, ...], sizes: tuple[int, ...]) -> None:
        torch.set_num_threads(1)  # as main.py does for the page's own thread
        with _SLOTS:
            for n in sizes:
                by_name = {p.name: p for p in proposals if _key(p, n) not in self._trials}
                if not by_name or self._stopped.is_set():
                    continue
                for trial in run(problem, tuple(by_name.values()), n, self.setup.plan):
                    self._trials[_key(by_name[trial.proposal], n)] = trial
                    if self._stopped.is_set():
                        return


def _key(proposal: Proposal, samples: int) -> tuple[str, float | None, int]:
    return proposal.name, proposal.alpha, samples
