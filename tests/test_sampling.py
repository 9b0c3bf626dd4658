"""What N samples add to the noise, against every outcome of the draw (document: "only N samples")."""

from __future__ import annotations

from itertools import product

import mpmath as mp
import numpy as np
import pytest
import torch
from strategies import WEIGHTS, Exact, draw, draw_reference, mp_softmax

from geomix_core import PolicyBatch
from geomix_core.geodesics import e_geodesic
from geomix_core.sampling import estimator_variance, sampling_noise

ROUNDING = 1e-11
"""Sums of a few hundred terms of like size in float64, against fifty digits."""


def every_draw(exact: Exact, q: list[mp.mpf], h: list[mp.mpf], samples: int) -> tuple[mp.mpf, mp.mpf]:
    """(E[Var_θ ĥ], E_θ[Var ĥ(y)]) over all V^N outcomes, ĥ(y) = c(y)/(N q(y))·h(y)."""
    theta, tokens = exact.theta, range(len(q))
    spread, square = mp.mpf(0), mp.mpf(0)
    for outcome in product(tokens, repeat=samples):
        chance = mp.fprod(q[y] for y in outcome)
        estimate = [outcome.count(y) / (samples * q[y]) * h[y] for y in tokens]
        mean = mp.fsum(p * x for p, x in zip(theta, estimate, strict=True))
        spread += chance * mp.fsum(p * (x - mean) ** 2 for p, x in zip(theta, estimate, strict=True))
        square += chance * mp.fsum(p * (x - m) ** 2 for p, x, m in zip(theta, estimate, h, strict=True))
    return spread, square


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("referenced", [False, True])
@pytest.mark.parametrize("samples", [1, 2, 4])
def test_noise_of_n_samples_by_enumeration(weights: str, referenced: bool, samples: int) -> None:
    theta, target = (x[0] for x in draw("gaussian", 1, 4, 3))
    reference = draw_reference(1, 4, 3)[0] if referenced else None
    exact, batch = Exact(theta, target, reference, weights), PolicyBatch.from_logits(theta, target, reference)
    log_q = e_geodesic(batch, 0.3)
    spread, variance = every_draw(exact, exact.q(0.3), exact.tilt(0.3), samples)
    noise = sampling_noise(batch, log_q, weights)
    assert float(exact.cumulant(0.3, 2) + noise.item() / samples) == pytest.approx(float(spread), rel=ROUNDING)
    assert estimator_variance(batch, log_q, samples, weights).item() == pytest.approx(float(variance), rel=ROUNDING)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_noise_of_samples_from_any_distribution(weights: str) -> None:
    theta, target = (x[0] for x in draw("zipf", 1, 4, 5))
    exact, batch = Exact(theta, target, weights=weights), PolicyBatch.from_logits(theta, target)
    logits = np.array([0.3, -1.0, 2.0, 0.0])
    q = mp_softmax(logits)
    ratio = [(p / x if weights == "importance" else x / p) for p, x in zip(exact.theta, q, strict=True)]
    h = [w * exact.ell[i] for i, w in enumerate(ratio)]
    spread, _ = every_draw(exact, q, h, 3)
    mean = mp.fsum(p * x for p, x in zip(exact.theta, h, strict=True))
    phi2 = mp.fsum(p * (x - mean) ** 2 for p, x in zip(exact.theta, h, strict=True))
    log_q = torch.log_softmax(torch.as_tensor(logits), -1)
    noise = sampling_noise(batch, log_q[None], weights)
    assert float(phi2 + noise.item() / 3) == pytest.approx(float(spread), rel=ROUNDING)


def test_a_token_that_q_excludes_makes_the_noise_infinite() -> None:
    batch = PolicyBatch.from_probs([0.5, 0.25, 0.25], [0.2, 0.5, 0.3])
    log_q = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    assert sampling_noise(batch, log_q).item() == torch.inf
