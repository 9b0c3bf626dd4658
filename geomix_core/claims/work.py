"""Work counted, not timed: how many numbers a computation writes. Repeatable on any machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from geomix_core.policies import PolicyBatch


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the elements of every tensor that an operation returns, backward passes included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        results = out if isinstance(out, tuple | list) else (out,)
        self.written += sum(x.numel() for x in results if isinstance(x, Tensor))
        return out


def numbers_written(computation: Callable[[], object]) -> int:
    """How many numbers all the torch operations of a computation return together."""
    counter = _Counter()
    with counter:
        computation()
    return counter.written


def twice_as_large(batch: PolicyBatch) -> PolicyBatch:
    """The same policies over 2V tokens: each token split into two of half its probability."""

    def split(log_p: Tensor) -> Tensor:
        return torch.cat([log_p, log_p], -1) - math.log(2)

    reference = None if batch.reference is None else split(batch.reference)
    return PolicyBatch(split(batch.theta), split(batch.target), reference)


def growth(computation: Callable[[PolicyBatch], object], batch: PolicyBatch) -> float:
    """The exponent p with which the work grows as V^p, from V and 2V."""
    counts = []
    for policies in (batch, twice_as_large(batch)):
        computation(policies)  # what a batch keeps for later is computed by now, and not counted
        counts.append(numbers_written(lambda policies=policies: computation(policies)))  # type: ignore[misc]
    return math.log2(counts[1] / counts[0])
