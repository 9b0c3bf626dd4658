"""Exact sampling by the inverse of the cumulated distribution, with common random numbers.

The same uniform numbers are used for every distribution and step size, so that what differs between two results is the
distributions, not the luck. They depend on (seed, stream, N) alone: a result is the same whatever else was computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Stream = Literal["tune", "report"]
_STREAMS: tuple[Stream, ...] = ("report", "tune")


@dataclass(frozen=True, eq=False)
class Draws:
    """What R repetitions drew: the distinct tokens of the first repetition, those of the second, and so on."""

    samples: int
    """N, the samples of each repetition."""
    token: Tensor
    """`[K]`"""
    count: Tensor
    """`[K]`: how often each was drawn, at least once."""
    lengths: Tensor
    """`[R]`: how many distinct tokens each repetition drew."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def repetition(self) -> Tensor:
        """`[K]`: the repetition that drew each token."""
        index = torch.arange(len(self), device=self.lengths.device)
        return index.repeat_interleave(self.lengths, output_size=len(self.token))

    def sum(self, values: Tensor) -> Tensor:
        """Σ over the tokens of each repetition, `[K] -> [R]`."""
        return torch.segment_reduce(values, "sum", lengths=self.lengths)

    def max(self, values: Tensor) -> Tensor:
        """Maximum over the tokens of each repetition, `[K] -> [R]`."""
        return torch.segment_reduce(values, "max", lengths=self.lengths)


def uniforms(seed: int, stream: Stream, samples: int, repetitions: int) -> Tensor:
    """Numbers in [0, 1), `[R, N]`, in the order of the draws; the first repetitions are the same whatever R is."""
    key = np.random.SeedSequence([seed, _STREAMS.index(stream), samples])
    return torch.from_numpy(np.random.Generator(np.random.Philox(key)).random((repetitions, samples)))


def draw(log_q: Tensor, order: Tensor, sorted_uniforms: Tensor) -> Draws:
    """Draw from q, given log q `[V]` or `[R, V]`, the order in which tokens are cumulated, and `[R, N]` numbers.

    The numbers ascend in each row: the tokens then come out in order, and equal ones side by side.
    """
    size, (repetitions, samples) = log_q.shape[-1], sorted_uniforms.shape
    place = _places(log_q, order, sorted_uniforms)
    rows = torch.arange(repetitions, device=place.device)[:, None]
    keys, count = torch.unique_consecutive((rows * size + place).reshape(-1), return_counts=True)
    lengths = torch.bincount(keys // size, minlength=repetitions)
    return Draws(samples, order[keys % size], count.to(log_q.dtype), lengths)


def draw_in_turn(log_q: Tensor, order: Tensor, numbers: Tensor) -> Tensor:
    """The token of each number, in their own order: `[N] -> [N]`."""
    return order[_places(log_q, order, numbers[None])[0]]


def _places(log_q: Tensor, order: Tensor, numbers: Tensor) -> Tensor:
    # In float64, on the CPU where the device has none: a number near 1 must not become 1.
    wide = log_q if log_q.dtype == torch.float64 else log_q.cpu().double()
    cumulated = wide[..., order.to(wide.device)].exp().cumsum(-1)
    # Divided by its end, so that no number lies beyond it. A token that q excludes adds nothing, and is never found.
    cumulated = (cumulated / cumulated[..., -1:]).contiguous()
    return torch.searchsorted(cumulated, numbers.to(cumulated), right=True).to(log_q.device)
