"""Part 4 of the document: the problem over the whole simplex, and the geometric family."""

from __future__ import annotations

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench
from geomix_core.claims.conditions import COVERED, DEFAULT_REFERENCE, DISTINCT, OVERLAP, SAME_SUPPORT
from geomix_core.claims.learning import EXACT, ULP
from geomix_core.claims.model import Measurement, Numbers, claim
from geomix_core.claims.work import growth
from geomix_core.divergences import kl, total_variation
from geomix_core.geodesics import e_geodesic, fisher_rao_arc, m_geodesic
from geomix_core.numerics import NEG_INF, extent
from geomix_core.policies import PolicyBatch
from geomix_core.progress import learning_signal_from
from geomix_core.simplex import simplex_optimum

REACHED = 1e-6
"""Relative margin within which an optimum counts as reached."""


@claim(needs=(OVERLAP, SAME_SUPPORT, DEFAULT_REFERENCE, DISTINCT), uses="weights reference")
def section_4_1_infeasible(bench: Bench) -> Measurement:
    """Maximising SNR over the V-dimensional simplex is infeasible. It fails where a formula in O(V) reaches √χ²."""
    batch, weights = bench.batch, bench.setting.weights
    found = learning_signal_from(batch, simplex_optimum(batch, weights), weights)
    share = (found.log_snr - bench.log_snr_ceiling).exp()
    numbers: Numbers = {"reached": found.snr, "ceiling": bench.log_snr_ceiling.exp(), "tokens": float(batch.vocab_size)}
    # Of nearly identical policies only the digits of ℓ that are not rounding can be reached.
    return Measurement(share, 1 - REACHED - ULP * (1 + bench.magnitude) / bench.spread, numbers)


@claim(needs=(OVERLAP, COVERED), uses="weights reference", per_batch=True)
def section_4_1_gradient(bench: Bench) -> Measurement:
    """The gradient of SNR over the simplex costs O(V²). Counted by reverse-mode differentiation at V and 2V."""
    weights = bench.setting.weights

    def gradient(batch: PolicyBatch) -> None:
        theta, common = batch.theta.exp(), batch.common
        reward = batch.reward.masked_fill(~common, 0.0)
        logits = e_geodesic(batch, 0.5).masked_fill(~common, -100.0).requires_grad_()
        log_w = batch.theta.masked_fill(~common, 0.0) - torch.log_softmax(logits, -1)
        h = (log_w if weights == "importance" else -log_w).exp() * reward
        phi1 = ((batch.target.exp() - theta) * h).sum(-1)
        phi2 = (theta * (h - (theta * h).sum(-1, keepdim=True)).square()).sum(-1)
        torch.autograd.grad((phi1 / phi2.sqrt()).sum(), logits)

    exponent = growth(gradient, bench.batch)
    numbers: Numbers = {"exponent": exponent, "claimed": 2.0, "tokens": float(bench.batch.vocab_size)}
    return Measurement(torch.full((len(bench),), 2 - exponent), 0.5, numbers)


@claim(needs=(OVERLAP,), uses="alpha")
def section_4_2_log_linear(bench: Bench) -> Measurement:
    """Origin 1: log q_α − [α log π_θ + (1−α) log π_t] is the same number on every token."""
    batch, alpha = bench.batch, bench.setting.alpha
    straight = alpha * batch.theta + (1 - alpha) * batch.target
    gap = _range(e_geodesic(batch, alpha) - straight, batch.common)
    return Measurement(gap / (1 + bench.magnitude), EXACT, {"spread": gap, "alpha": alpha})


@claim(needs=(OVERLAP,))
def section_4_2_geodesic(bench: Bench) -> Measurement:
    """Origin 2: the family is an e-geodesic: log q_α has the same second derivative in α on every token.

    The e-connection is flat in log-probabilities (up to normalisation), so its geodesics are straight there.
    """
    batch, step = bench.batch, 0.25
    bend = torch.zeros_like(bench.magnitude)
    for middle in (0.25, 0.5, 0.75):
        before, here, after = (e_geodesic(batch, middle + k * step) for k in (-1, 0, 1))
        bend = torch.maximum(bend, _range(before - 2 * here + after, batch.common))
    return Measurement(bend / (1 + bench.magnitude), EXACT, {"bend": bend})


@claim(needs=(OVERLAP, SAME_SUPPORT))
def section_4_2_shortest(bench: Bench) -> Measurement:
    """Origin 2: the geodesic is "the shortest path". Holds only where it is as short as the Fisher–Rao distance."""
    lengths = bench.lengths
    e, shortest = lengths.e_geodesic, lengths.fisher_rao
    point = shortest < 1e-6
    excess = e / torch.where(point, 1.0, shortest) - 1
    numbers: Numbers = {"e_geodesic": e, "m_geodesic": lengths.m_geodesic, "fisher_rao": shortest, "excess": excess}
    return Measurement(excess.masked_fill(point, 0.0), REACHED, numbers, {"identical": point})


@claim(needs=(OVERLAP,), uses="alpha")
def section_4_2_pareto(bench: Bench) -> Measurement:
    """Origin 3: q_α minimises α KL(q‖π_θ) + (1−α) KL(q‖π_t).

    Against sixteen rivals on the common support: each one's objective exceeds that of q_α by exactly KL(rival‖q_α) ≥ 0.
    """
    alpha = bench.setting.alpha
    batch = _restricted(bench.batch)
    best = e_geodesic(batch, alpha)

    def objective(log_q: Tensor) -> Tensor:
        return alpha * kl(log_q, batch.theta) + (1 - alpha) * kl(log_q, batch.target)

    least = objective(best)
    rivals = [torch.log_softmax(torch.zeros_like(batch.theta).masked_fill(~batch.common, NEG_INF), -1)]
    for s in (0.0, 0.25, 0.5, 0.75, 1.0):
        mixtures = m_geodesic(batch, s), fisher_rao_arc(batch, s), e_geodesic(batch, s)
        rivals += [m - torch.logsumexp(m, -1, keepdim=True) for m in mixtures]
    margins = torch.stack([objective(rival) - least for rival in rivals])
    distances = torch.stack([kl(rival, best) for rival in rivals])
    scale = 1 + torch.stack([objective(rival) for rival in rivals]).abs()
    residual = ((margins - distances).abs() / scale).amax(0)
    apart = torch.where(distances > EXACT * scale, margins, torch.inf).amin(0)
    nearest = torch.where(apart.isfinite(), apart, torch.zeros_like(apart))
    # At the ends a policy's own tokens outside the common support cost nothing: the weighted sum has another minimum.
    cut = ~bench.batch.support.equal if alpha in (0, 1) else torch.zeros(len(bench), dtype=torch.bool)
    numbers: Numbers = {"least": least, "rivals": float(len(rivals)), "nearest": nearest, "alpha": alpha}
    return Measurement(residual, EXACT, numbers, {"supports": cut})


@claim(needs=(OVERLAP,), assumes=(SAME_SUPPORT,))
def section_4_3_ends(bench: Bench) -> Measurement:
    """The family runs smoothly from q_0 = π_t to q_1 = π_θ: total variation between the limits and the policies."""
    batch = bench.batch
    at_one = total_variation(e_geodesic(batch, 1.0), batch.theta)
    at_zero = total_variation(e_geodesic(batch, 0.0), batch.target)
    return Measurement(torch.maximum(at_one, at_zero), EXACT, {"off_theta": at_one, "off_target": at_zero})


def _range(values: Tensor, mask: Tensor) -> Tensor:
    """max − min over the tokens of the mask, `[B, V] -> [B]`."""
    low, high = extent(values, mask)
    return high - low


def _restricted(batch: PolicyBatch) -> PolicyBatch:
    """Both policies on their common support, not renormalised."""
    return PolicyBatch(*(x.masked_fill(~batch.common, NEG_INF) for x in (batch.theta, batch.target)))
