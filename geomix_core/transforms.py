"""Ways to reshape one policy: from logits or log-probabilities `[..., V]` to log-probabilities `[..., V]`."""

import math

import torch
from torch import Tensor

from geomix_core.errors import OptionError
from geomix_core.numerics import NEG_INF


def temper(logits: Tensor, temperature: float) -> Tensor:
    """p^(1/T), renormalised: T < 1 sharpens, T > 1 flattens. T must be positive."""
    if not temperature > 0:
        raise OptionError("temperature must be positive.")
    return torch.log_softmax(logits / temperature, -1)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k most probable tokens (ties at the border go to the lower index); the rest get probability zero."""
    if k < 1:
        raise OptionError("top-k must keep at least one token.")
    if k >= logits.shape[-1]:
        return torch.log_softmax(logits, -1)
    order = logits.argsort(dim=-1, descending=True, stable=True)
    return _keep(logits, order, torch.arange(logits.shape[-1], device=logits.device) < k)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Nucleus: keep the fewest most probable tokens whose mass reaches p. Source: Holtzman et al. (2020)."""
    if not 0 < p <= 1:
        raise OptionError("top-p must lie in (0, 1].")
    log_p = torch.log_softmax(logits, -1)
    if p == 1:
        return log_p
    order = log_p.argsort(dim=-1, descending=True, stable=True)
    mass = log_p.gather(-1, order).exp()
    return _keep(log_p, order, mass.cumsum(-1) - mass < p)


def smooth(log_p: Tensor, epsilon: float) -> Tensor:
    """(1−ε)π + ε/V: explicit smoothing, the honest form of an eps. ε must lie in [0, 1]."""
    if not 0 <= epsilon <= 1:
        raise OptionError("epsilon must lie in [0, 1].")
    log_p = torch.log_softmax(log_p, -1)
    if epsilon == 0:
        return log_p
    floor = torch.full_like(log_p, math.log(epsilon) - math.log(log_p.shape[-1]))
    return floor if epsilon == 1 else torch.logaddexp(math.log1p(-epsilon) + log_p, floor)


def _keep(logits: Tensor, order: Tensor, kept_in_order: Tensor) -> Tensor:
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, kept_in_order.expand(order.shape))
    return torch.log_softmax(logits.masked_fill(~kept, NEG_INF), -1)
