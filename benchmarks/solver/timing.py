"""Round-robin timing: every task once a round, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

SAMPLE = 0.005
"""Seconds that one sample lasts at least: short tasks are repeated within it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over the rounds: seconds of a call, their quartiles, its CPU seconds, and the cores that it kept busy."""

    median: float
    quartiles: tuple[float, float]
    cpu: float
    cores: float


def interleave(tasks: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, Timing]:
    """Time every task `rounds` times, one after another in an order that turns by one each round.

    Tasks should have run once before (compilers, caches).
    """
    names = list(tasks)
    calls = {name: _calls(tasks[name]) for name in names}
    samples: dict[Key, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            samples[name].append(_sample(tasks[name], calls[name]))
    return {name: _summary(samples[name]) for name in names}


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log time over log size."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(t) for t in seconds]).slope


def _calls(task: Callable[[], object]) -> int:
    wall, _ = _sample(task, 1)
    return max(1, math.ceil(SAMPLE / wall))


def _sample(task: Callable[[], object], calls: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        task()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def _summary(samples: list[tuple[float, float]]) -> Timing:
    walls, cpus = zip(*samples, strict=True)
    low, middle, high = statistics.quantiles(walls, n=4) if len(walls) > 1 else walls * 3
    cores = statistics.median(cpu / wall for wall, cpu in samples)
    return Timing(middle, (low, high), statistics.median(cpus), cores)
