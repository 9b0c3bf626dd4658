"""The document's algorithms as it gives them: the listing of §6.2 and the golden-section search of §5.1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

GOLDEN = (5**0.5 - 1) / 2


def solve_kl_symmetry(pi_theta: Tensor, pi_t: Tensor, eps: float = 1e-6) -> Tensor:
    """α `[B]` by `solve_kl_symmetry` of §6.2 as printed, its eps inside the logarithms included; from probabilities.

    `binary_search`, which the document does not define, is bisection until the interval is shorter than eps.
    """

    low, high = torch.zeros_like(pi_theta[:, 0]), torch.ones_like(pi_theta[:, 0])
    while (high - low).max() > eps:
        middle = (low + high) / 2
        rising = objective(pi_theta, pi_t, middle, eps) > 0
        low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
    return (low + high) / 2


def objective(pi_theta: Tensor, pi_t: Tensor, alpha: Tensor, eps: float = 1e-6) -> Tensor:
    """What the listing of §6.2 takes for Δ(α), nats `[B]`: a mean of log ratios with eps inside the logarithms."""
    log_q = alpha[:, None] * torch.log(pi_theta + 1e-10) + (1 - alpha[:, None]) * torch.log(pi_t + 1e-10)
    return (torch.softmax(log_q, dim=-1) * (torch.log(pi_t + eps) - torch.log(pi_theta + eps))).sum(dim=-1)


def golden_section(function: Callable[[Tensor], Tensor], rows: Tensor, tolerance: float = 1e-6) -> tuple[Tensor, int]:
    """(maximiser `[B]` of a unimodal function on [0, 1], evaluations), every row at once. Source: Kiefer (1953).

    `rows` is any tensor `[B]` with the dtype and device to work in.
    """
    low, high = torch.zeros_like(rows), torch.ones_like(rows)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    evaluations, width = 2, 1.0
    while width > tolerance:
        rising = at_left < at_right
        low, high = torch.where(rising, left, low), torch.where(rising, high, right)
        kept, at_kept = torch.where(rising, right, left), torch.where(rising, at_right, at_left)
        new = torch.where(rising, low + GOLDEN * (high - low), high - GOLDEN * (high - low))
        at_new = function(new)
        left, right = torch.where(rising, kept, new), torch.where(rising, new, kept)
        at_left, at_right = torch.where(rising, at_kept, at_new), torch.where(rising, at_new, at_kept)
        evaluations, width = evaluations + 1, width * GOLDEN
    return (low + high) / 2, evaluations
