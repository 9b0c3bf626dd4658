"""What N samples add to an update (document: "only N samples"): the noise of the estimated tilt.

y_1..y_N ~ q with counts c(y). The update exponentiates ĥ(y) = c(y)/(N q(y))·w(y)r(y), whose mean is h = w·r. To second
order in η the progress expected over the samples is ηΦ₁ − (η²/2)(Φ₂ + Ψ/N).
"""

from __future__ import annotations

import torch
from torch import Tensor

from geomix_core.geodesics import Scalars, as_parameter
from geomix_core.numerics import NEG_INF
from geomix_core.policies import PolicyBatch
from geomix_core.tilts import TiltFamily, Weights


def sampling_noise(batch: PolicyBatch, log_q: Tensor, weights: Weights = "importance") -> Tensor:
    """Ψ `[..., B]`: N·(E[Var_θ(ĥ)] − Var_θ(h)), what the N-sample estimate ĥ adds to Φ₂, times N.

    Ψ = Σ π_θ(1−π_θ)h²/q − Var_θ(h), from the covariance of a multinomial. +inf where q excludes a token with a reward.
    """
    family = TiltFamily(batch, weights)
    square = _mean_square_over_q(family, log_q, 1 - family.log_theta.exp())
    noise = square - family.signal_of(family.log_abs_for(log_q)).phi2
    return torch.where(square == torch.inf, square, noise)


def estimator_variance(batch: PolicyBatch, log_q: Tensor, samples: Scalars, weights: Weights = "importance") -> Tensor:
    """E_θ of the variance of ĥ(y) over the draw of N samples, `[..., B]`: (E_θ[h²/q] − E_θ[h²])/N."""
    family = TiltFamily(batch, weights)
    return _mean_square_over_q(family, log_q, 1 - log_q.exp()) / as_parameter(samples, batch)


def _mean_square_over_q(family: TiltFamily, log_q: Tensor, factor: Tensor) -> Tensor:
    """Σ π_θ·factor·h²/q."""
    log_h = family.log_abs_for(log_q)
    idle = (family.log_theta == NEG_INF) | (log_h == NEG_INF) | (factor <= 0)
    log_terms = family.log_theta + factor.clamp(min=0).log() + 2 * log_h - log_q
    return torch.exp(torch.logsumexp(log_terms.masked_fill(idle, NEG_INF), -1))
