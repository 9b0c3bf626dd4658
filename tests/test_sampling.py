"""The variance of an estimate from N samples, against every outcome of the draw (document: "only N samples")."""

from __future__ import annotations

from itertools import product

import mpmath as mp
import pytest
import torch
from strategies import WEIGHTS, Exact, draw, draw_reference

from geomix_core import PolicyBatch
from geomix_core.geodesics import e_geodesic
from geomix_core.sampling import estimator_variance

ROUNDING = 1e-11
"""Sums of a few hundred terms of like size in float64, against fifty digits."""


def every_draw(exact: Exact, q: list[mp.mpf], h: list[mp.mpf], samples: int) -> mp.mpf:
    """E_θ[Var ĥ(y)] over all V^N outcomes, ĥ(y) = c(y)/(N q(y))·h(y)."""
    total = mp.mpf(0)
    for outcome in product(range(len(q)), repeat=samples):
        chance = mp.fprod(q[y] for y in outcome)
        for y, p in enumerate(exact.theta):
            estimate = outcome.count(y) / (samples * q[y]) * h[y]
            total += chance * p * (estimate - h[y]) ** 2
    return total


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("referenced", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_variance_of_n_samples_by_enumeration(weights: str, referenced: bool, samples: int) -> None:
    theta, target = (x[0] for x in draw("gaussian", 1, 4, 3))
    reference = draw_reference(1, 4, 3)[0] if referenced else None
    exact, batch = Exact(theta, target, reference, weights), PolicyBatch.from_logits(theta, target, reference)
    variance = every_draw(exact, exact.q(0.3), exact.tilt(0.3), samples)
    found = estimator_variance(batch, e_geodesic(batch, 0.3), samples, weights)
    assert found.item() == pytest.approx(float(variance), rel=ROUNDING)


def test_a_token_that_q_excludes_makes_the_variance_infinite() -> None:
    batch = PolicyBatch.from_probs([0.5, 0.25, 0.25], [0.2, 0.5, 0.3])
    log_q = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    assert estimator_variance(batch, log_q, 4).item() == torch.inf
