"""Primitives for log-probabilities that stay finite where the textbook formula reads 0·(−inf) or inf − inf.

Everything here works on torch tensors, reduces over the last axis (tokens) and returns nats.
"""

import math

import torch
from torch import Tensor

NEG_INF = -math.inf


def mul_exp(x: Tensor, log_scale: Tensor) -> Tensor:
    """x·exp(log_scale) with 0·exp(+inf) = 0 and x·exp(−inf) = 0: the two products that otherwise give NaN.

    Shapes broadcast. Overflow gives ±inf.
    """
    product = x * torch.exp(log_scale)
    vanishes = (x == 0) | (log_scale == NEG_INF)
    return torch.where(vanishes, torch.zeros_like(product), product)


def mul_where(weight: Tensor, value: Tensor) -> Tensor:
    """weight·value with 0·(±inf) = 0: a token without weight contributes nothing to an expectation."""
    return torch.where(weight == 0, torch.zeros_like(value), weight * value)


def log_expm1_abs(x: Tensor) -> Tensor:
    """log|e^x − 1|, accurate near x = 0 (where it tends to −inf) and free of overflow for large x."""
    magnitude = x.abs()
    return torch.log(-torch.expm1(-magnitude)) + x.clamp(min=0)


def extent(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(least, largest) over the tokens of the mask, `[..., V] -> [...]`; (+inf, −inf) where it has none."""
    return values.masked_fill(~mask, math.inf).amin(-1), values.masked_fill(~mask, NEG_INF).amax(-1)


def row_max(log_weights: Tensor) -> Tensor:
    """Maximum over tokens, `[..., V] -> [..., 1]`, with 0 for rows that are −inf throughout."""
    m = log_weights.amax(dim=-1, keepdim=True)
    return torch.where(m == NEG_INF, torch.zeros_like(m), m)


def log_sinhc(x: Tensor) -> Tensor:
    """log(sinh(x)/x), 0 at x = 0: even, accurate near 0 and free of overflow."""
    magnitude = x.abs()
    near = magnitude < 0.1
    square = magnitude.square()
    # x²/6 − x⁴/180 + x⁶/2835 − x⁸/37800: the next term, x¹⁰/467775, is below 3e-16 for |x| < 0.1.
    series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
    safe = torch.where(near, torch.ones_like(magnitude), magnitude)
    direct = safe + torch.log(-torch.expm1(-2 * safe)) - torch.log(2 * safe)
    return torch.where(near, series, direct)


def log_logarithmic_mean(log_a: Tensor, log_b: Tensor) -> Tensor:
    """log L(a, b), L = (a − b)/(log a − log b), L(a, a) = a, L(a, 0) = 0. Source: Carlson (1972)."""
    nothing = (log_a == NEG_INF) | (log_b == NEG_INF)
    half = torch.where(nothing, torch.zeros_like(log_a), log_b - log_a) / 2
    middle = torch.where(nothing, NEG_INF, (log_a + log_b) / 2)
    return middle + log_sinhc(half)
