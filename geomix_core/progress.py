"""Learning progress of one update (document §1.2 to §3.6): signal Φ₁, noise Φ₂, SNR, step sizes and exact progress.

The update is π_θ' ∝ π_θ exp(ηh) with tilt h = w·r. Two weight conventions: `importance`, w = π_θ/q (the document's),
and `inverse`, w = q/π_θ (natural policy gradient on samples of q without importance correction). No update can move a
token that π_θ cannot produce; where π_t has such tokens, expectations under π_t are conditioned on the others (J is
−∞ before and after otherwise). Everything raises CoverageError on rows where the reward is infinite on a token that
π_θ can produce; select rows with `batch.rows(batch.covered)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.optimize import elementwise
from torch import Tensor

from geomix_core.errors import CoverageError, OptionError
from geomix_core.geodesics import Scalars, as_parameter, moments_of, require_overlap
from geomix_core.numerics import NEG_INF, log_expm1_abs, mul_exp, mul_where, row_max
from geomix_core.policies import PolicyBatch

Weights = Literal["importance", "inverse"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

ROUNDING = 1e-14
"""A log-ratio below this is the rounding of two log-probabilities: the token's probabilities are equal."""

HUGE = 1e300
"""Tilts beyond this are clamped, so that differences of two of them stay numbers."""


@dataclass(frozen=True, eq=False)
class LearningSignal:
    """Φ₁, Φ₂ and what follows from them, all `[..., B]`; kept as logarithms, which do not overflow."""

    sign: Tensor
    """Sign of Φ₁: at −1 every η > 0 moves away from π_t, whatever the SNR."""
    log_abs_phi1: Tensor
    log_phi2: Tensor
    log_slope: Tensor
    """d log SNR/dα, exact; 0 where SNR is 0 or infinite."""

    @property
    def phi1(self) -> Tensor:
        """Signal Φ₁ = E_t[h] − E_θ[h], nats per unit of η (Theorem 1)."""
        return mul_exp(self.sign, self.log_abs_phi1)

    @property
    def phi2(self) -> Tensor:
        """Noise Φ₂ = Var_θ[h] (Theorem 1)."""
        return self.log_phi2.exp()

    @property
    def log_snr(self) -> Tensor:
        """log SNR; −inf where Φ₁ = 0, +inf where Φ₂ vanishes beside it."""
        return torch.where(self.sign == 0, NEG_INF, self.log_abs_phi1 - 0.5 * self.log_phi2)

    @property
    def snr(self) -> Tensor:
        """|Φ₁|/√Φ₂ (Theorem 3); 0 where Φ₁ = 0, so for identical policies too."""
        return self.log_snr.exp()

    @property
    def signed_snr(self) -> Tensor:
        """Φ₁/√Φ₂: negative where every η > 0 moves away from π_t."""
        return self.sign * self.snr

    @property
    def log_quadratic_step(self) -> Tensor:
        """log|η*|; −inf where Φ₁ = 0."""
        return torch.where(self.sign == 0, NEG_INF, self.log_abs_phi1 - self.log_phi2)

    @property
    def quadratic_step(self) -> Tensor:
        """η* = Φ₁/Φ₂, the maximiser of the quadratic (Theorem 2); 0 where Φ₁ = 0."""
        return mul_exp(self.sign, self.log_quadratic_step)

    @property
    def quadratic_gain(self) -> Tensor:
        """Φ₁²/(2Φ₂), what Theorem 2 promises at η*, nats. It can exceed KL(π_t‖π_θ), which no update can."""
        return self.snr.square() / 2

    def quadratic_progress(self, eta: Scalars) -> Tensor:
        """ηΦ₁ − (η²/2)Φ₂, nats (Theorem 1 without its remainder)."""
        step = torch.as_tensor(eta, dtype=self.sign.dtype, device=self.sign.device)
        return step * self.phi1 - 0.5 * step.square() * self.phi2


class TiltFamily:
    """h = w·r along the geometric family for one batch and weight convention, kept as sign and logarithm.

    Precomputes what does not depend on α. `h ∝ r·exp(slope·(1−α)ℓ)`, slope = −1 (importance) or +1 (inverse).
    """

    def __init__(self, batch: PolicyBatch, weights: Weights = "importance") -> None:
        if weights not in WEIGHTS:
            raise OptionError(f"weights is {weights!r}: expected one of {', '.join(WEIGHTS)}.")
        require_overlap(batch)
        _require_coverage(batch)
        self.batch = batch
        self.slope = -1.0 if weights == "importance" else 1.0
        self.log_theta, self.ell = batch.restricted
        self.root_theta = (0.5 * self.log_theta).exp()
        reward = batch.reward.masked_fill(~batch.common, 0.0)
        self.reward_sign = reward.sign()
        self.log_abs_reward = reward.abs().log()
        lost = torch.where(batch.support.equal, 0.0, batch.support.target_mass.log())[:, None]
        conditioned = (self.ell - lost).masked_fill(~batch.common, 0.0)
        conditioned = conditioned.masked_fill(conditioned.abs() < ROUNDING, 0.0)
        self.log_target = self.log_theta + conditioned
        """log π_t, conditioned on the support of π_θ."""
        self.gap_sign = conditioned.sign() * self.reward_sign
        self.log_abs_gap = self.log_theta + log_expm1_abs(conditioned)
        """log|π_t − π_θ| there, without cancellation; `gap_sign` is the sign of (π_t − π_θ)·r."""

    def rows(self, index: Tensor | slice) -> TiltFamily:
        """The same family for the selected rows, nothing recomputed."""
        part = object.__new__(TiltFamily)
        part.batch, part.slope = self.batch.rows(index), self.slope
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(part, name, value[index])
        return part

    def log_abs(self, alpha: Tensor) -> Tensor:
        """log|h| `[..., B, V]`, normaliser Z_α included."""
        log_z = moments_of(self.log_theta, self.ell, alpha).log_partition
        return self.unnormalised(alpha) - self.slope * log_z[..., None]

    def unnormalised(self, alpha: Tensor) -> Tensor:
        """log|h| up to a constant in each row: enough for SNR, which no scale of h changes."""
        return self.log_abs_reward + (self.slope * (1 - alpha))[..., None] * self.ell

    def tilt(self, alpha: Tensor) -> Tensor:
        """h `[..., B, V]`, clamped to ±`HUGE`."""
        return self.reward_sign * self.log_abs(alpha).exp().clamp(max=HUGE)

    def signal(self, alpha: Scalars, *, normalised: bool = True) -> LearningSignal:
        """Φ₁, Φ₂, SNR and its slope; with `normalised=False` the Φ's lack the factors Z_α and Z_α² (cheaper)."""
        a = as_parameter(alpha, self.batch)
        log_h = self.log_abs(a) if normalised else self.unnormalised(a)

        # d log|h|/dα = −slope·ℓ, up to a constant that SNR does not feel.
        log_gap = self.log_abs_gap + log_h
        scale1 = row_max(log_gap)
        gap = self.gap_sign * torch.exp(log_gap - scale1)
        phi1 = gap.sum(-1)
        d_phi1 = -self.slope * (gap * self.ell).sum(-1)

        # √π_θ·h scaled to at most 1: its variance is a sum of squares that neither overflows nor cancels. A second
        # scale after centring keeps the square of a tiny spread (a near-one-hot π_θ) from underflowing.
        log_a = 0.5 * self.log_theta + log_h
        scale2 = row_max(log_a)
        scaled = self.reward_sign * torch.exp(log_a - scale2)
        centred = scaled - self.root_theta * (self.root_theta * scaled).sum(-1, keepdim=True)
        spread = centred.abs().amax(-1, keepdim=True)
        safe = torch.where(spread > 0, spread, torch.ones_like(spread))
        centred = centred / safe
        phi2 = centred.square().sum(-1)
        steep = scaled * self.ell
        steep = steep - self.root_theta * (self.root_theta * steep).sum(-1, keepdim=True)
        d_phi2 = -2 * self.slope * (centred * steep).sum(-1) / safe.squeeze(-1)

        usable = (phi2 > 0) & (phi1 != 0)
        slope = d_phi1 / torch.where(usable, phi1, 1.0) - 0.5 * d_phi2 / torch.where(usable, phi2, 1.0)
        return LearningSignal(
            sign=phi1.sign(),
            log_abs_phi1=phi1.abs().log() + scale1.squeeze(-1),
            log_phi2=phi2.log() + 2 * (safe.log() + scale2).squeeze(-1),
            log_slope=torch.where(usable, slope, torch.zeros_like(slope)),
        )


def learning_signal(batch: PolicyBatch, alpha: Scalars, weights: Weights = "importance") -> LearningSignal:
    """Φ₁, Φ₂, SNR of q_α; α broadcasts against `[B]`. Raises CoverageError, DisjointSupportError, OptionError."""
    return TiltFamily(batch, weights).signal(alpha)


def exact_progress(batch: PolicyBatch, alpha: Scalars, eta: Scalars, weights: Weights = "importance") -> Tensor:
    """Progress(q_α; η) = η E_t[h] − log E_θ[exp(ηh)], nats; α and η broadcast against `[B]` (document §1.3).

    Never above KL(π_t‖π_θ) (Donsker–Varadhan). For small ηh it is evaluated as ηΦ₁ − log E_θ[exp(η(h − E_θ h))],
    which keeps its digits. Raises CoverageError, DisjointSupportError, OptionError.
    """
    family = TiltFamily(batch, weights)
    a, eta = as_parameter(alpha, batch), as_parameter(eta, batch)
    h = family.tilt(a)
    theta = family.log_theta.exp()

    reachable = family.log_theta != NEG_INF
    u = (eta[..., None] * (h - (theta * h).sum(-1, keepdim=True))).clamp(-HUGE, HUGE).masked_fill(~reachable, 0.0)
    small = eta * family.signal(a).phi1 - torch.log1p((theta * (torch.expm1(u.clamp(-2, 2)) - u)).sum(-1))

    x = (eta[..., None] * h).clamp(-HUGE, HUGE)
    top = x.masked_fill(~reachable, NEG_INF).amax(-1, keepdim=True)
    mean_x = eta * (family.reward_sign * torch.exp(family.log_target + family.log_abs(a))).sum(-1) - top.squeeze(-1)
    # Where h itself had to be clamped, the same clamped h must stand in both terms (the bound then still holds).
    clamped_mean = mul_where(family.log_target.exp(), x - top).sum(-1)
    clamped = (h.abs() >= HUGE).any(-1) | (x.abs() >= HUGE).any(-1)
    gain = torch.where(clamped, clamped_mean, mean_x)
    large = gain - torch.logsumexp(family.log_theta + (x - top), -1)
    return torch.where(eta == 0, torch.zeros_like(large), torch.where((u.abs().amax(-1) <= 1) & ~clamped, small, large))


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
        step[rising[found]] = np.exp(elementwise.find_root(slope, ends, args=(rising[found],)).x)
    return as_parameter(step, batch).reshape(signal.phi1.shape)


def _require_coverage(batch: PolicyBatch) -> None:
    uncovered = ~batch.covered
    if uncovered.any():
        first = int(uncovered.nonzero()[0])
        mass = float(1 - batch.support.theta_mass[first])
        raise CoverageError(
            f"{int(uncovered.sum())} of {len(batch)} rows have a token that the current policy can produce but the "
            f"target (or the reference) cannot, so the reward is infinite there (first: row {first}, "
            f"{mass:.3g} of its mass outside the target's support). Use uncut logits, or smooth explicitly with "
            "geomix_core.transforms.smooth."
        )
