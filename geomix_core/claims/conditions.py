"""Properties of rows that claims need, or should have assumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench

PLATEAU = 1e-13
"""Change of log SNR over a sixteenth of [0, 1] that a comparison of two values can still see."""

EQUAL = 1e-12
"""Spread of ℓ on the common support, in nats, below which two policies are equal to rounding there."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A property of a row, and the reason (a key of words.toml) that is given where it is missing."""

    reason: str
    test: Callable[[Bench], Tensor]
    """Boolean `[B]`. A condition is tested only on rows that meet those before it."""


def _default_reference(bench: Bench) -> Tensor:
    return torch.full((len(bench),), bench.batch.reference is None, device=bench.batch.theta.device)


def _one_maximum(bench: Bench) -> Tensor:
    single = torch.tensor([len(m) <= 1 for m in bench.snr.maxima], device=bench.batch.theta.device)
    height = torch.stack([bench.family.signal(k / 16, normalised=False).log_snr for k in range(17)])
    return single & ((height[1:] - height[:-1]).abs() > PLATEAU).all(0)


OVERLAP = Condition("disjoint", lambda bench: bench.batch.support.common_size > 0)
COVERED = Condition("uncovered", lambda bench: bench.batch.covered)
SAME_SUPPORT = Condition("supports", lambda bench: bench.batch.support.equal)
DEFAULT_REFERENCE = Condition("reference", _default_reference)
DISTINCT = Condition("identical", lambda bench: bench.spread > EQUAL)
"""ℓ is not constant on the common support: the family is more than a point."""
POSITIVE_SIGNAL = Condition("negative", lambda bench: bench.signal.sign > 0)
"""Φ₁ > 0 at the setting's α: a step η > 0 is a step towards π_t."""
ONE_MAXIMUM = Condition("several", _one_maximum)
"""SNR(α) has no second local maximum on [0, 1], and is nowhere constant to rounding."""
