"""Learning progress of one update (document §1.2 to §3.6): signal Φ₁, noise Φ₂, SNR, step sizes and exact progress.

The update is π_θ' ∝ π_θ exp(ηh) with tilt h = w·r. Two weight conventions: `importance`, w = π_θ/q (the document's),
and `inverse`, w = q/π_θ (natural policy gradient on samples of q without importance correction). No update can move a
token that π_θ cannot produce; where π_t has such tokens, expectations under π_t are conditioned on the others (J is
−∞ before and after otherwise). Everything raises CoverageError on rows where the reward is infinite on a token that
π_θ can produce; select rows with `batch.rows(batch.covered)`.

Each function takes a point α of the geometric family; the two that end in `_from` take any sampling distribution q.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import elementwise
from torch import Tensor

from geomix_core.errors import CoverageError
from geomix_core.geodesics import Scalars, as_parameter
from geomix_core.numerics import NEG_INF, mul_exp, row_max
from geomix_core.policies import PolicyBatch
from geomix_core.tilts import HUGE, WEIGHTS, LearningSignal, TiltFamily, Weights

__all__ = [
    "WEIGHTS",
    "LearningSignal",
    "Weights",
    "exact_progress",
    "exact_progress_from",
    "exact_step",
    "expansion_remainder",
    "learning_signal",
    "learning_signal_from",
    "third_cumulant",
    "updated_policy",
]


def learning_signal(batch: PolicyBatch, alpha: Scalars, weights: Weights = "importance") -> LearningSignal:
    """Φ₁, Φ₂, SNR of q_α; α broadcasts against `[B]`. Raises CoverageError, DisjointSupportError, OptionError."""
    return TiltFamily(batch, weights).signal(alpha)


def exact_progress(batch: PolicyBatch, alpha: Scalars, eta: Scalars, weights: Weights = "importance") -> Tensor:
    """Progress(q_α; η) = η E_t[h] − log E_θ[exp(ηh)], nats; α and η broadcast against `[B]` (document §1.3).

    Never above KL(π_t‖π_θ) (Donsker–Varadhan). For small ηh it is evaluated as ηΦ₁ − log E_θ[exp(η(h − E_θ h))],
    which keeps its digits. Raises CoverageError, DisjointSupportError, OptionError.
    """
    return TiltFamily(batch, weights).progress(as_parameter(alpha, batch), as_parameter(eta, batch))


def updated_policy(batch: PolicyBatch, alpha: Scalars, eta: Scalars, weights: Weights = "importance") -> Tensor:
    """log π_θ', `[..., B, V]`, after one update: π_θ' ∝ π_θ exp(ηh) (document §1.2)."""
    family = TiltFamily(batch, weights)
    x = as_parameter(eta, batch)[..., None] * family.tilt(as_parameter(alpha, batch))
    x = x - x.masked_fill(family.log_theta == NEG_INF, NEG_INF).amax(-1, keepdim=True)
    logits = batch.theta + x
    return logits - torch.logsumexp(logits, -1, keepdim=True)


def exact_step(batch: PolicyBatch, alpha: Scalars, weights: Weights = "importance") -> Tensor:
    """η_exact ≥ 0, the maximiser of exact progress over η ≥ 0: the root of E_{π_θ'}[h] = E_t[h], `[..., B]`.

    0 where Φ₁ ≤ 0 (every η > 0 moves away from π_t); +inf where progress grows without end, which needs π_t to sit
    wholly on the tokens of largest h.
    """
    family = TiltFamily(batch, weights)
    a = as_parameter(alpha, batch)
    signal = family.signal(a)
    h = family.tilt(a)
    theta = family.log_theta.expand(h.shape).reshape(-1, h.shape[-1])
    # Centred where the root is: E_{π_θ'}[h − E_t[h]] = 0 loses no digits when π_θ' ends far from π_θ.
    centred = (h - (family.log_target.exp() * h).sum(-1, keepdim=True)).reshape(-1, h.shape[-1])

    def slope(log_eta: np.ndarray, row: np.ndarray) -> np.ndarray:
        """dProgress/dη = E_t[h] − E_{π_θ'}[h], decreasing in η."""
        i = torch.as_tensor(row.astype(np.int64), device=h.device)
        x = theta[i] + (as_parameter(np.exp(log_eta), batch)[:, None] * centred[i]).clamp(-HUGE, HUGE)
        return (-(torch.softmax(x, -1) * centred[i]).sum(-1)).clamp(-HUGE, HUGE).cpu().numpy()

    step = np.zeros(signal.sign.numel())
    rising = np.flatnonzero((signal.sign > 0).reshape(-1).cpu().numpy())
    if rising.size:
        guess = signal.log_quadratic_step.reshape(-1).clamp(-600, 600).cpu().numpy()[rising]
        limits = {"xmin": -700.0, "xmax": 700.0}
        bracket = elementwise.bracket_root(slope, guess - 0.5, guess + 0.5, args=(rising,), maxiter=60, **limits)
        found = bracket.success
        ends = (bracket.bracket[0][found], bracket.bracket[1][found])
        step[rising] = np.inf
        root = elementwise.find_root(slope, ends, args=(rising[found],), tolerances={"xatol": 1e-13})
        step[rising[found]] = np.exp(root.x)
    return as_parameter(step, batch).reshape(signal.phi1.shape)


def learning_signal_from(batch: PolicyBatch, log_q: Tensor, weights: Weights = "importance") -> LearningSignal:
    """Φ₁, Φ₂, SNR of any sampling distribution, given log q `[..., B, V]` (document §2.2); `log_slope` means nothing.

    Raises CoverageError also where w is infinite: q (for `importance`) excludes a token of π_θ that has a reward.
    """
    family = TiltFamily(batch, weights)
    return family.signal_of(_finite_tilt(family, log_q))


def exact_progress_from(batch: PolicyBatch, log_q: Tensor, eta: Scalars, weights: Weights = "importance") -> Tensor:
    """Progress(q; η), nats, of any sampling distribution, given log q `[..., B, V]` (document §1.3).

    Raises as `learning_signal_from` does.
    """
    family = TiltFamily(batch, weights)
    return family.progress_of(_finite_tilt(family, log_q), as_parameter(eta, batch))


def third_cumulant(batch: PolicyBatch, alpha: Scalars, weights: Weights = "importance") -> Tensor:
    """κ₃ = E_θ[(h − E_θ h)³], `[..., B]` (document §2.2): the remainder of Theorem 1 is −η³κ₃/6 to leading order."""
    family = TiltFamily(batch, weights)
    # ∛π_θ·h scaled to at most 1, and once more after centring: neither a large tilt's cube overflows before its small
    # probability is multiplied in, nor a tiny spread's underflows.
    log_root = family.log_theta / 3
    log_a = log_root + family.log_abs(as_parameter(alpha, batch))
    scale = row_max(log_a)
    scaled = family.reward_sign * torch.exp(log_a - scale)
    centred = scaled - log_root.exp() * ((2 * log_root).exp() * scaled).sum(-1, keepdim=True)
    spread = centred.abs().amax(-1, keepdim=True)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    return mul_exp((centred / safe).pow(3).sum(-1), 3 * (scale + safe.log()).squeeze(-1))


def expansion_remainder(batch: PolicyBatch, alpha: Scalars, eta: Scalars, weights: Weights = "importance") -> Tensor:
    """Progress(q_α; η) − [ηΦ₁ − (η²/2)Φ₂], nats `[..., B]`: what Theorem 1 calls O(η³).

    It is −η³κ₃/6 up to (ηM)⁴/192, M the range of h under π_θ (Taylor's theorem: the tilted fourth cumulant
    μ₄ − 3μ₂² lies in [−M⁴/8, M⁴/12]). A difference: its error is a few ulp of the quadratic.
    """
    return exact_progress(batch, alpha, eta, weights) - learning_signal(batch, alpha, weights).quadratic_progress(eta)


def _finite_tilt(family: TiltFamily, log_q: Tensor) -> Tensor:
    log_h = family.log_abs_for(log_q)
    infinite = (log_h == torch.inf).any(-1)
    if infinite.any():
        raise CoverageError(
            f"The sampling distribution excludes a token of the current policy in {int(infinite.sum())} of "
            f"{infinite.numel()} rows: its importance weight is infinite. Sample from a distribution that covers it."
        )
    return log_h
