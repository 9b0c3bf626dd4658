"""What N samples add to an update (document: "only N samples"): the noise of the estimated tilt.

y_1..y_N ~ q with counts c(y). The update exponentiates ĥ(y) = c(y)/(N q(y))·w(y)r(y), whose mean is h = w·r.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geomix_core.geodesics import Scalars, as_parameter
from geomix_core.numerics import NEG_INF
from geomix_core.policies import PolicyBatch
from geomix_core.tilts import TiltFamily, Weights


def estimator_variance(batch: PolicyBatch, log_q: Tensor, samples: Scalars, weights: Weights = "importance") -> Tensor:
    """E_θ of the variance of ĥ(y) over the draw of N samples, `[..., B]`: (E_θ[h²/q] − E_θ[h²])/N."""
    family = TiltFamily(batch, weights)
    log_h, factor = family.log_abs_for(log_q), 1 - log_q.exp()
    idle = (family.log_theta == NEG_INF) | (log_h == NEG_INF) | (factor <= 0)
    log_terms = family.log_theta + factor.clamp(min=0).log() + 2 * log_h - log_q
    square = torch.exp(torch.logsumexp(log_terms.masked_fill(idle, NEG_INF), -1))
    return square / as_parameter(samples, batch)
