"""Part 5 of the document: α by SNR, α by KL symmetry, and how near they are."""

from __future__ import annotations

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench
from geomix_core.claims.conditions import COVERED, DISTINCT, EQUAL, ONE_MAXIMUM, OVERLAP, SAME_SUPPORT
from geomix_core.claims.learning import EXACT, ULP
from geomix_core.claims.listing import golden_section
from geomix_core.claims.model import Measurement, Numbers, claim
from geomix_core.claims.work import growth
from geomix_core.divergences import kl
from geomix_core.geodesics import as_parameter, e_geodesic, tilted_moments
from geomix_core.progress import learning_signal
from geomix_core.status import Status

NEAR = 0.1
"""§5.4: |α_SNR − α_KL| below this."""


@claim(needs=(OVERLAP, COVERED), assumes=(ONE_MAXIMUM,), uses="weights reference")
def section_5_1_search(bench: Bench) -> Measurement:
    """Golden-section search finds α_SNR. It needs a single maximum; the residual is the share of SNR that it misses."""
    found, _ = golden_section(lambda alpha: _snr(bench, alpha), bench.alpha_snr)
    best = bench.signal_at_snr.snr
    # The search never evaluates the ends, and stops 1e-6 short of a maximum there.
    reached = torch.stack([_snr(bench, a) for a in (found, found.round())]).amax(0)
    silent = bench.undecided(bench.snr)
    count = torch.tensor([float(len(m)) for m in bench.snr.maxima])
    numbers: Numbers = {"found": found, "alpha_snr": bench.alpha_snr, "reached": reached, "best": best, "maxima": count}
    loss = torch.where(best > 0, 1 - reached / torch.where(best > 0, best, 1.0), 0.0)
    return Measurement(loss, 1e-3, {**numbers, "loss": loss}, silent)


@claim(needs=(OVERLAP, COVERED), uses="weights reference", per_batch=True)
def section_5_1_complexity(bench: Bench) -> Measurement:
    """The search takes O(log 1/ε) evaluations of O(V) each: counted for ε = 10⁻³ and 10⁻⁶, and at V and 2V."""
    weights = bench.setting.weights
    coarse, fine = (golden_section(lambda alpha: _snr(bench, alpha), bench.alpha_snr, t)[1] for t in (1e-3, 1e-6))
    exponent = growth(lambda batch: learning_signal(batch, 0.5, weights), bench.batch)
    # Twice the digits may take at most twice the evaluations, and twice the tokens twice the work.
    residual = max(fine / coarse - 2, exponent - 1)
    numbers: Numbers = {"coarse": float(coarse), "fine": float(fine), "exponent": exponent}
    return Measurement(torch.full((len(bench),), residual), 0.05, numbers)


@claim(needs=(OVERLAP,), uses="alpha")
def theorem_4_identity(bench: Bench) -> Measurement:
    """Steps 1 and 2 of the proof: Δ(α) = KL(q_α‖π_θ) − KL(q_α‖π_t) = E_{q_α}[ℓ]."""
    batch, alpha = bench.batch, bench.setting.alpha
    log_q = e_geodesic(batch, alpha)
    to_theta, to_target = kl(log_q, batch.theta), kl(log_q, batch.target)
    mean = tilted_moments(batch, alpha).mean
    numbers: Numbers = {"to_theta": to_theta, "to_target": to_target, "difference": to_theta - to_target, "mean": mean}
    return Measurement((to_theta - to_target - mean).abs() / (1 + bench.magnitude), EXACT, numbers)


@claim(needs=(OVERLAP,), assumes=(SAME_SUPPORT,))
def theorem_4_exists(bench: Bench) -> Measurement:
    """Some α in (0, 1) has KL(q_α‖π_θ) = KL(q_α‖π_t): Δ(0⁺) > 0 > Δ(1⁻), and the solver finds its zero."""
    at_zero, at_one = (tilted_moments(bench.batch, end).mean for end in (0.0, 1.0))
    result, ulp = bench.kl_symmetry, ULP * (1 + bench.magnitude)
    at_root = tilted_moments(bench.batch, bench.alpha_kl).mean.abs()
    crosses = torch.tensor([s is not Status.NO_INTERIOR_ROOT for s in result.status], device=ulp.device)
    # A zero of Δ at an end is none inside: it counts as the smallest violation.
    outside = torch.where(crosses, torch.maximum(-at_zero, at_one) - ulp, torch.maximum(-at_zero, at_one).clamp(ulp))
    residual = torch.maximum(outside, at_root.masked_fill(~crosses, 0.0) - EXACT * bench.spread - ulp)
    numbers: Numbers = {
        "alpha": bench.alpha_kl,
        "low": result.bracket[:, 0],
        "high": result.bracket[:, 1],
        "at_zero": at_zero,
        "at_one": at_one,
    }
    return Measurement(residual, 0.0, numbers)


@claim(needs=(OVERLAP,), assumes=(DISTINCT,))
def theorem_4_unique(bench: Bench) -> Measurement:
    """At most one such α: Δ falls strictly, which needs Var_q[ℓ] > 0. The document's proof does not say so."""
    grid = torch.linspace(0, 1, 33, dtype=bench.batch.theta.dtype)
    delta = torch.stack([tilted_moments(bench.batch, a).mean for a in grid])
    rise = (delta[1:] - delta[:-1]).amax(0)
    ulp = ULP * (1 + bench.magnitude)
    # Δ that is constant and not zero has no root at all, which is not more than one.
    always = torch.minimum(EQUAL - bench.spread, EQUAL + ulp - delta.abs().amax(0))
    residual = torch.maximum(rise - ulp, always)
    numbers: Numbers = {"spread": bench.spread, "at_zero": delta[0], "at_one": delta[-1], "rise": rise}
    return Measurement(residual, 0.0, numbers)


@claim(needs=(OVERLAP, COVERED), uses="weights reference", most=True)
def section_5_4_alpha(bench: Bench) -> Measurement:
    """In most cases |α_SNR − α_KL| < 0.1."""
    gap = (bench.alpha_snr - bench.alpha_kl).abs()
    numbers: Numbers = {"alpha_kl": bench.alpha_kl, "alpha_snr": bench.alpha_snr, "gap": gap}
    return Measurement(gap, NEAR, numbers, no_two_answers(bench))


@claim(needs=(OVERLAP, COVERED), uses="weights reference", most=True)
def section_5_4_snr(bench: Bench) -> Measurement:
    """In most cases SNR at α_KL is within 5 % of its maximum."""
    at_kl, best = bench.signal_at_kl.snr, bench.signal_at_snr.snr
    loss = 1 - (bench.signal_at_kl.log_snr - bench.signal_at_snr.log_snr).exp()
    # Where SNR is constant, α_KL loses nothing: that is an answer.
    silent = no_root(bench) | ~bench.snr.solved.cpu()
    return Measurement(loss, 0.05, {"at_kl": at_kl, "best": best, "loss": loss}, {"no_answer": silent})


def no_two_answers(bench: Bench) -> dict[str, Tensor]:
    """Rows where SNR, or KL symmetry, singles out no α."""
    silent = bench.undecided(bench.snr)
    silent["no_answer"] = silent["no_answer"] | no_root(bench)
    return silent


def no_root(bench: Bench) -> Tensor:
    """Rows where KL symmetry singles out no α."""
    unique = (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)
    return torch.tensor([s not in unique for s in bench.kl_symmetry.status])


def _snr(bench: Bench, alpha: Tensor) -> Tensor:
    return bench.family.signal(as_parameter(alpha, bench.batch), normalised=False).snr
