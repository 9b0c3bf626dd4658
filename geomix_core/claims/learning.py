"""Parts 2 and 3 of the document: the expansion of learning progress, the unknown step, and SNR."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench
from geomix_core.claims.conditions import COVERED, DEFAULT_REFERENCE, OVERLAP, POSITIVE_SIGNAL, SAME_SUPPORT
from geomix_core.claims.model import Claim, Measurement, Numbers, claim
from geomix_core.geodesics import as_parameter, e_geodesic
from geomix_core.numerics import NEG_INF, extent, mul_where
from geomix_core.progress import (
    exact_progress,
    exact_step,
    learning_signal_from,
    third_cumulant,
    updated_policy,
)
from geomix_core.sampling import estimator_variance

STEPS = (1.0, 0.3, 0.1, 0.03)
"""ηM, the steps at which Theorem 1 is checked, in units of 1/M, M the range of h."""
ULP = 1e-14
"""A generous bound on the rounding of a sum of tokens, relative to its largest term."""
EXACT = 1e-9
"""Relative margin for equalities that hold by algebra: far above rounding, far below any real difference."""


@claim(needs=(OVERLAP, COVERED), uses="weights alpha reference")
def theorem_1(bench: Bench) -> Measurement:
    """Progress = ηΦ₁ − (η²/2)Φ₂ + O(η³), with the constant: the remainder is −η³κ₃/6 up to (ηM)⁴/192."""
    batch, alpha, weights = bench.batch, bench.setting.alpha, bench.setting.weights
    h = bench.family.tilt(as_parameter(alpha, batch))
    reachable = bench.family.log_theta != NEG_INF
    bottom, top = extent(h, reachable)
    span, size = top - bottom, h.abs().amax(-1)
    safe = torch.where(span > 0, span, torch.ones_like(span))
    kappa3 = third_cumulant(batch, alpha, weights)
    steps = []
    for step in STEPS:
        eta = step / safe
        # Progress by its definition, J(π_θ') − J(π_θ): not by a formula that has Φ₁ in it.
        moved = (updated_policy(batch, alpha, eta, weights) - batch.theta).masked_fill(~reachable, 0.0)
        progress = mul_where(bench.family.log_target.exp(), moved).sum(-1)
        remainder, predicted = progress - bench.signal.quadratic_progress(eta), -(eta**3) * kappa3 / 6
        bound = step**4 / 192 + ULP * (1 + bench.magnitude + eta * size)
        steps.append(torch.stack([(remainder - predicted).abs() / bound, eta, remainder, predicted]))
    # h that is constant but for rounding has no signal and no noise to expand in.
    constant = span <= 1e3 * ULP * size
    tried = torch.stack(steps)
    worst = tried[:, 0].argmax(0)
    ratio, eta, remainder, predicted = tried[worst, :, torch.arange(len(bench), device=worst.device)].unbind(-1)
    numbers: Numbers = {"eta": eta, "remainder": remainder, "predicted": predicted, "kappa3": kappa3}
    return Measurement(ratio, 1.0, numbers, {"constant": constant})


@claim(needs=(OVERLAP, COVERED), uses="weights alpha samples reference")
def section_2_3_noise(bench: Bench) -> Measurement:
    """§2.3: Φ₂ is "the variance of the gradient estimate". That variance falls with N, and Φ₂ knows no N."""
    batch, setting = bench.batch, bench.setting
    log_q = e_geodesic(batch, setting.alpha)
    variance = estimator_variance(batch, log_q, setting.samples, setting.weights)
    phi2 = bench.signal.phi2
    silent = (phi2 <= 0) | (variance <= 0)
    residual = (variance.log() - phi2.log()).abs()
    numbers: Numbers = {"variance": variance, "phi2": phi2, "samples": float(setting.samples)}
    return Measurement(residual.masked_fill(silent, 0.0), math.log(1.1), numbers, {"constant": silent})


@claim(needs=(OVERLAP, COVERED), assumes=(POSITIVE_SIGNAL,), uses="weights alpha reference")
def theorem_2_step(bench: Bench) -> Measurement:
    """η* = Φ₁/Φ₂ is the best learning rate: a rate (η* > 0), and the quadratic's maximum."""
    signal = bench.signal
    best = signal.quadratic_step
    # The slope of the quadratic at η*, Φ₁ − η*Φ₂, as a share of Φ₁: in logarithms, which do not overflow.
    slope = torch.expm1(signal.log_quadratic_step + signal.log_phi2 - signal.log_abs_phi1).abs()
    still = ~slope.isfinite()
    astray = -signal.sign * (signal.log_snr - bench.log_snr_ceiling).exp()
    residual = torch.maximum(slope.masked_fill(still, 0.0), astray)
    numbers: Numbers = {"eta": best, "gain": signal.quadratic_progress(best), "phi1": signal.phi1}
    return Measurement(residual, EXACT, numbers, {"constant": still})


@claim(needs=(OVERLAP, COVERED, POSITIVE_SIGNAL), uses="weights alpha reference")
def theorem_2_gain(bench: Bench) -> Measurement:
    """The best progress is Φ₁²/(2Φ₂): what the exact update brings at η*, to a tenth.

    Above KL(π_t‖π_θ) no update can bring it.
    """
    batch, alpha, weights, signal = bench.batch, bench.setting.alpha, bench.setting.weights, bench.signal
    promised, actual = signal.quadratic_gain, exact_progress(batch, alpha, signal.quadratic_step, weights)
    step = exact_step(batch, alpha, weights)
    # An unbounded step approaches its supremum; a million quadratic steps are as good as infinitely many.
    reached = torch.where(step.isfinite(), step, 1e6 * signal.quadratic_step)
    numbers: Numbers = {
        "promised": promised,
        "actual": actual,
        "best": exact_progress(batch, alpha, reached, weights),
        "ceiling": bench.ceiling,
        "eta": signal.quadratic_step,
    }
    off = (actual / promised - 1).abs()
    return Measurement(torch.where(promised.isfinite(), off, torch.nan), 0.1, numbers)


@claim(needs=(OVERLAP, COVERED), uses="weights reference")
def theorem_3_equivalence(bench: Bench) -> Measurement:
    """The q of largest Φ₁²/(2Φ₂) is the q of largest SNR, over 33 members of the family and two outsiders."""
    batch, weights = bench.batch, bench.setting.weights
    signals = [bench.family.signal(k / 32) for k in range(33)]
    log_theta = bench.family.log_theta
    for flattening in (0.5, 0.0):
        outsider = (flattening * log_theta).masked_fill(log_theta == NEG_INF, NEG_INF)
        signals.append(learning_signal_from(batch, torch.log_softmax(outsider, -1), weights))
    # log Φ₁²/(2Φ₂), the peak of the quadratic.
    gains = torch.stack([2 * s.log_abs_phi1 - s.log_phi2 - math.log(2) for s in signals])
    snr = torch.stack([s.log_snr for s in signals])
    by_snr, best = gains.gather(0, snr.argmax(0)[None])[0], gains.amax(0)
    silent = ~best.isfinite()
    numbers: Numbers = {"by_snr": by_snr.exp(), "best": best.exp(), "count": float(len(signals))}
    residual = -torch.expm1(by_snr - best)
    return Measurement(residual.masked_fill(silent, 0.0), EXACT, numbers, {"no_answer": silent})


@claim(needs=(OVERLAP, COVERED), uses="weights eta_range reference")
def theorem_3_minimax(bench: Bench) -> Measurement:
    """The robust (max–min) choice of §3.3 is the one of largest SNR: α_SNR loses nothing in the worst case."""
    setting, batch = bench.setting, bench.batch
    alpha_wald = bench.wald.alpha.to(batch.theta)

    def worst(alpha: Tensor) -> Tensor:
        return torch.minimum(*(bench.family.progress(alpha, as_parameter(eta, batch)) for eta in setting.eta_range))

    at_wald, at_snr = worst(alpha_wald), worst(bench.alpha_snr)
    low, high = setting.eta_range
    numbers: Numbers = {
        "alpha_wald": alpha_wald,
        "alpha_snr": bench.alpha_snr,
        "at_wald": at_wald,
        "at_snr": at_snr,
        "eta_low": low,
        "eta_high": high,
    }
    scale = torch.where(bench.ceiling > 0, bench.ceiling, 1.0)
    return Measurement((at_wald - at_snr) / scale, 1e-6, numbers, bench.undecided(bench.snr, bench.wald))


@claim(needs=(OVERLAP, COVERED), assumes=(SAME_SUPPORT, DEFAULT_REFERENCE), uses="weights reference")
def theorem_3_sign(bench: Bench) -> Measurement:
    """Maximising |Φ₁|/√Φ₂ finds the q that learns most: towards π_t, so Φ₁ > 0 there."""
    signal = bench.signal_at_snr
    silent = bench.undecided(bench.snr)
    numbers: Numbers = {"alpha_snr": bench.alpha_snr, "signed_snr": signal.signed_snr, "phi1": signal.phi1}
    astray = -signal.sign * (signal.log_snr - bench.log_snr_ceiling).exp()
    return Measurement(astray, EXACT, numbers, {"no_answer": silent["no_answer"]})


@claim(needs=(OVERLAP, COVERED), uses="weights alpha reference")
def section_3_6_dimensionless(bench: Bench) -> Measurement:
    """Property 1: SNR has no unit. Measuring the reward in bits, or in units of 0.001 nat, leaves it as it is."""
    log_h = bench.family.log_abs(as_parameter(bench.setting.alpha, bench.batch))
    base, ceiling = bench.signal, bench.log_snr_ceiling
    # As a share of √χ², the largest SNR there is: near a zero of Φ₁ a change relative to SNR itself is rounding.
    share = (base.log_snr - ceiling).exp()
    # Above its bound √χ² it is itself rounding: policies equal to twelve digits.
    silent = ~share.isfinite() | (base.sign == 0) | (share > 1 + 1e-6)
    drift = torch.zeros_like(share)
    for unit in (math.log(2), 1e-3):
        other = bench.family.signal_of(log_h - math.log(unit)).log_snr
        drift = torch.maximum(drift, ((other - ceiling).exp() - share).abs())
    # h in other units is rounded anew: an error of an ulp of |h|, against a spread of √Φ₂.
    size = (bench.family.log_theta.masked_fill(bench.family.log_theta != NEG_INF, 0.0) + log_h).amax(-1)
    rounding = ULP * (size - base.log_phi2 / 2).exp()
    numbers: Numbers = {"snr": base.snr, "drift": drift}
    return Measurement(drift.masked_fill(silent, 0.0), EXACT + rounding, numbers, {"constant": silent})


@claim(needs=(OVERLAP, COVERED), uses="weights alpha reference")
def section_3_6_scaling(bench: Bench) -> Measurement:
    """Property 2: scaling Φ₁ and Φ₂ by c together leaves SNR as it is. It multiplies SNR by √c."""
    factor = 4.0
    signal = bench.signal
    log_c = math.log(factor)
    scaled = replace(signal, log_abs_phi1=signal.log_abs_phi1 + log_c, log_phi2=signal.log_phi2 + log_c)
    change = scaled.log_snr - signal.log_snr
    silent = ~change.isfinite()
    numbers: Numbers = {"factor": factor, "snr": signal.snr, "scaled": scaled.snr, "ratio": change.exp()}
    return Measurement(change.abs().masked_fill(silent, 0.0), EXACT, numbers, {"constant": silent})


section_3_6_intuition = Claim("section_3_6_intuition", None, (), (), frozenset(), "every")
"""Property 3: "signal strength per unit of noise". A reading of the formula; nothing to compare."""
