"""Three estimates of the tilt from N samples of q (mathematics, section 7).

Each is ĥ(y) = c(y)/N·a(y) − π_θ(y)·(1/N)Σ_i b(y_i), c(y) the number of times that y was drawn:

- seed_tilt: a = w·r/q, b = 0. Its mean is w·r: the document's update (§1.2).
- natural_gradient: a = r/q, b = 0. Its mean is r, whatever q: the natural policy gradient.
- softmax_gradient: a = b = w·A with w = π_θ/q, A = r − E_θ[r]. Its mean is π_θ·A: the gradient in the logits.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from geomix_core.errors import OptionError
from geomix_core.numerics import NEG_INF
from geomix_core.tilts import Weights

Estimator = Literal["seed_tilt", "natural_gradient", "softmax_gradient"]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


def pushes(
    estimator: Estimator, log_theta: Tensor, log_q: Tensor, reward: Tensor, baseline: Tensor, weights: Weights
) -> Tensor:
    """a of the tokens at hand, in the shape of the arguments; `baseline` is E_θ[r] (only softmax_gradient has one).

    A token that π_θ cannot produce is not moved by any tilt: it gets 0.
    """
    log_w = log_theta - log_q
    if estimator == "seed_tilt":
        push = reward * torch.exp((log_w if weights == "importance" else -log_w) - log_q)
    elif estimator == "natural_gradient":
        push = reward * torch.exp(-log_q)
    elif estimator == "softmax_gradient":
        push = (reward - baseline) * log_w.exp()
    else:
        raise OptionError(f"estimator is {estimator!r}: expected one of {', '.join(ESTIMATORS)}.")
    return push.masked_fill(log_theta == NEG_INF, 0.0)
