"""PolicyBatch: B rows of two (or three) policies over one vocabulary, validated once and kept as log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomix_core.errors import PolicyError, ShapeError
from geomix_core.numerics import NEG_INF

MASK_GAP = 4096.0
"""A logit this many nats below its row's maximum is a mask (−1e4, finfo.min, …), not a probability."""

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class PolicyBatch:
    """Current policy π_θ, target π_t and, if given, the reward's reference π_ref, row by row.

    All are log-probabilities `[B, V]` in nats (float64; float32 on devices without float64), with −inf for
    probability zero. Build one with `from_logits` or `from_probs`, which validate. Treat it as immutable.
    """

    theta: Tensor
    target: Tensor
    reference: Tensor | None = None

    @classmethod
    def from_logits(
        cls, theta: Any, target: Any, reference: Any = None, *, device: torch.device | str | None = None
    ) -> PolicyBatch:
        """From unnormalised logits `[B, V]` (or `[V]`: one row), NumPy or torch, any float dtype.

        `device`: where to compute; by default where `theta` lies, "auto" for the machine's accelerator if it has one.
        −inf, and anything more than `MASK_GAP` nats below the row's maximum, means probability zero.
        Raises ShapeError for unequal or empty shapes, PolicyError for NaN, +inf or a row without a token.
        """
        arrays = _same_shape({"theta": theta, "target": target, "reference": reference}, device)
        return cls(**{name: _log_probs_from_logits(x, name) for name, x in arrays.items()})

    @classmethod
    def from_probs(
        cls, theta: Any, target: Any, reference: Any = None, *, device: torch.device | str | None = None
    ) -> PolicyBatch:
        """From probabilities `[B, V]` (or `[V]`), NumPy or torch, any float dtype.

        Rows must be non-negative and sum to 1 within the dtype's rounding (1e-4; 2e-2 for half precision);
        they are then normalised exactly. Raises ShapeError or PolicyError.
        """
        arrays = _same_shape({"theta": theta, "target": target, "reference": reference}, device)
        return cls(**{name: _log_probs_from_probs(x, name) for name, x in arrays.items()})

    def __len__(self) -> int:
        return self.theta.shape[0]

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return self.theta.shape[-1]

    @cached_property
    def common(self) -> Tensor:
        """Boolean `[B, V]`: the common support S of π_θ and π_t."""
        return (self.theta != NEG_INF) & (self.target != NEG_INF)

    @cached_property
    def log_ratio(self) -> Tensor:
        """ℓ = log π_t − log π_θ, `[B, V]`; ±inf where one policy is zero, 0 where both are."""
        return _log_quotient(self.target, self.theta)

    @cached_property
    def reward(self) -> Tensor:
        """r = log π_t − log π_ref, `[B, V]` (document §1.1); equals ℓ when no reference was given."""
        return self.log_ratio if self.reference is None else _log_quotient(self.target, self.reference)

    @cached_property
    def restricted(self) -> tuple[Tensor, Tensor]:
        """(log π_θ on S and −inf elsewhere, ℓ on S and 0 elsewhere): what the family is built from."""
        theta = self.theta.masked_fill(~self.common, NEG_INF)
        return theta, self.log_ratio.masked_fill(~self.common, 0.0)

    @cached_property
    def support(self) -> Support:
        """How far the supports overlap, per row (theory: section 4 of the mathematics)."""
        common = self.common
        return Support(
            theta_size=(self.theta != NEG_INF).sum(-1),
            target_size=(self.target != NEG_INF).sum(-1),
            common_size=common.sum(-1),
            theta_mass=_mass(self.theta, common),
            target_mass=_mass(self.target, common),
        )

    @cached_property
    def covered(self) -> Tensor:
        """Boolean `[B]`: r is finite wherever π_θ > 0, so that Φ₁, Φ₂, SNR and progress are defined."""
        reachable = self.theta != NEG_INF
        rewarded = self.target != NEG_INF
        if self.reference is not None:
            rewarded = rewarded & (self.reference != NEG_INF)
        return (~reachable | rewarded).all(-1)

    def rows(self, index: Any) -> PolicyBatch:
        """The rows that `index` selects (slice, integer array or boolean mask), always as a batch."""
        pick = [index] if isinstance(index, int) else index
        reference = None if self.reference is None else self.reference[pick]
        return PolicyBatch(self.theta[pick], self.target[pick], reference)

    def chunks(self, max_elements: int = 1 << 18) -> Iterator[PolicyBatch]:
        """Consecutive sub-batches of at most `max_elements` logits each (at least one row)."""
        step = max(1, max_elements // self.vocab_size)
        for start in range(0, len(self), step):
            yield self.rows(slice(start, start + step))


@dataclass(frozen=True, eq=False)
class Support:
    """Sizes of the supports and the mass that each policy puts on the common one, all `[B]`."""

    theta_size: Tensor
    target_size: Tensor
    common_size: Tensor
    theta_mass: Tensor
    target_mass: Tensor

    @property
    def equal(self) -> Tensor:
        """Boolean `[B]`: both policies can produce exactly the same tokens."""
        return (self.common_size == self.theta_size) & (self.common_size == self.target_size)


def working_dtype(device: torch.device) -> torch.dtype:
    """float64, except on devices that lack it (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def _mass(log_p: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, log_p.exp(), 0.0).sum(-1).clamp(max=1.0)


def _log_quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    neither = (numerator == NEG_INF) & (denominator == NEG_INF)
    return (numerator - denominator).masked_fill(neither, 0.0)


def _same_shape(arrays: dict[str, Any], device: torch.device | str | None) -> dict[str, Tensor]:
    """Tensors `[B, V]` of equal shape, or a ShapeError that names both shapes."""
    for name in ("theta", "target"):
        if arrays[name] is None:
            raise PolicyError(f"{name} is missing: expected an array [rows, tokens].")
    given = {name: _as_rows(x, name, device) for name, x in arrays.items() if x is not None}
    theta = given["theta"]
    for name, x in given.items():
        if x.shape != theta.shape:
            raise ShapeError(
                f"{name} has shape {_shape(x)} but theta has shape {_shape(theta)}: "
                "all policies need the same rows and the same vocabulary."
            )
        if x.device != theta.device:
            given[name] = x.to(theta.device)
    return given


def _as_rows(values: Any, name: str, device: torch.device | str | None) -> Tensor:
    if isinstance(values, Tensor):
        x = values.detach()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:  # rows of unequal length
            raise ShapeError(f"{name} is not a rectangular array: expected [rows, tokens].") from error
        require_real(array, name)
        if array.ndim == 0:
            raise ShapeError(f"{name} has shape []: expected [rows, tokens], not a single number.")
        # torch wants native byte order, at most 64 bits, and memory it may write to; it is never written to here.
        dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
        array = array.astype(dtype, copy=not array.flags.writeable)
        x = torch.from_numpy(np.ascontiguousarray(array))
    require_real(x, name)
    if x.ndim == 1:
        x = x[None]
    if x.ndim != 2 or 0 in x.shape:
        raise ShapeError(f"{name} has shape {_shape(x)}: expected [rows, tokens] with at least one of each.")
    return x if device is None else x.to(device_of(device))


def require_real(x: Tensor | np.ndarray, name: str) -> None:
    """Raise PolicyError unless the dtype is one of real numbers."""
    if isinstance(x, Tensor):
        if x.is_complex() or x.dtype == torch.bool:
            raise PolicyError(f"{name} has dtype {x.dtype}: expected real numbers.")
    elif x.dtype.kind not in "fiu":
        raise PolicyError(f"{name} has dtype {x.dtype}: expected real numbers (float16, bfloat16, float32 or float64).")


def device_of(device: torch.device | str) -> torch.device:
    """The device of that name; "auto" is the machine's accelerator (CUDA, MPS, …) if it has one, else the CPU."""
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    return torch.device(device)


def _shape(x: Tensor) -> str:
    return "[" + ", ".join(map(str, x.shape)) + "]"


def _reject(bad: Tensor, name: str, what: str, remedy: str) -> None:
    """Raise a PolicyError if any row of `bad` (`[B]` or `[B, V]`) is true, naming how many and the first."""
    rows = bad if bad.ndim == 1 else bad.any(-1)
    if rows.any():
        first = int(rows.nonzero()[0])
        raise PolicyError(f"{name} has {what} in {int(rows.sum())} of {len(rows)} rows (first: row {first}). {remedy}")


def _log_probs_from_logits(logits: Tensor, name: str) -> Tensor:
    # Validate in the given dtype: one pass, and no overflow that the input did not have.
    x = logits.to(working_dtype(logits.device))
    _reject(x.isnan(), name, "NaN", "Check the forward pass that produced the logits.")
    _reject(x == torch.inf, name, "+inf", "Logits must be finite, or −inf for an excluded token.")
    _reject((x == NEG_INF).all(-1), name, "no token above −inf", "A policy needs at least one token.")
    x = x - x.amax(-1, keepdim=True)
    x = x.masked_fill(x < -MASK_GAP, NEG_INF)
    return x - torch.logsumexp(x, -1, keepdim=True)


def _log_probs_from_probs(probs: Tensor, name: str) -> Tensor:
    tolerance = 2e-2 if probs.dtype in _HALF else 1e-4
    x = probs.to(working_dtype(probs.device))
    _reject(~x.isfinite(), name, "NaN or infinite entries", "Probabilities lie between 0 and 1.")
    _reject(x < 0, name, "negative entries", "If these are logits or log-probabilities, use from_logits.")
    total = x.sum(-1, keepdim=True)
    _reject(
        ((total - 1).abs() > tolerance).squeeze(-1),
        name,
        f"probabilities that do not sum to 1 (within {tolerance:g})",
        "Normalise the rows, or use from_logits if these are logits.",
    )
    return x.log() - total.log()
