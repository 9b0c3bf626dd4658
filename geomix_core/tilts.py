"""Tilts h = w·r, kept as sign and logarithm, and what they give: Φ₁, Φ₂, SNR and exact progress.

`TiltFamily` is the working horse behind `geomix_core.progress` and the solvers. Two weight conventions: `importance`,
w = π_θ/q (the document's), and `inverse`, w = q/π_θ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from geomix_core.errors import CoverageError, OptionError
from geomix_core.geodesics import Scalars, as_parameter, moments_of, require_overlap
from geomix_core.numerics import NEG_INF, extent, log_expm1_abs, mul_exp, mul_where, row_max
from geomix_core.policies import PolicyBatch

Weights = Literal["importance", "inverse"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

ROUNDING = 1e-14
"""A log-ratio below this is the rounding of two log-probabilities: the token's probabilities are equal."""

CANCELS = 1e-2
"""Where Φ₁ is less than this share of its terms' sum of magnitudes, a centred sum is tried."""

HUGE = 1e300
"""Tilts beyond this are clamped, so that differences of two of them stay numbers."""

TALL = 1e290
"""The same where a tilt is multiplied by ℓ and η."""


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
        gain = step * self.phi1 - 0.5 * step.square() * self.phi2
        # Where both terms overflow: ½Φ₂·η(2η* − η) has the sign of the larger one.
        beyond = mul_exp(step.sign() * (2 * self.quadratic_step - step).sign(), torch.full_like(gain, torch.inf))
        return torch.where(gain.isnan(), beyond, gain)


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
        self.direction = conditioned.sign()
        self.gap_sign = self.direction * self.reward_sign
        self.ell_centred = (self.ell - (self.log_theta.exp() * self.ell).sum(-1, keepdim=True)).masked_fill(
            ~batch.common, 0.0
        )
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

    def log_abs_for(self, log_q: Tensor) -> Tensor:
        """log|h| `[..., B, V]` for any sampling distribution, given log q; +inf where w is infinite."""
        log_w = (self.slope * (log_q - self.log_theta)).masked_fill(self.log_theta == NEG_INF, NEG_INF)
        return torch.where(self.reward_sign == 0, NEG_INF, self.log_abs_reward + log_w)

    def tilt(self, alpha: Tensor) -> Tensor:
        """h `[..., B, V]`, clamped to ±`HUGE`."""
        return self.reward_sign * self.log_abs(alpha).exp().clamp(max=HUGE)

    def signal(self, alpha: Scalars, *, normalised: bool = True) -> LearningSignal:
        """Φ₁, Φ₂, SNR and its slope; with `normalised=False` the Φ's lack the factors Z_α and Z_α² (cheaper)."""
        a = as_parameter(alpha, self.batch)
        return self.signal_of(self.log_abs(a) if normalised else self.unnormalised(a))

    def signal_of(self, log_h: Tensor) -> LearningSignal:
        """The same of any tilt of the reward's sign, given log|h| `[..., B, V]`; `log_slope` is that of a family."""
        # d log|h|/dα = −slope·ℓ, up to a constant that SNR does not feel: ℓ is centred, so that little cancels.
        log_gap = self.log_abs_gap + log_h
        scale1 = row_max(log_gap)
        gap = self.gap_sign * torch.exp(log_gap - scale1)
        phi1, scale1 = gap.sum(-1), scale1.squeeze(-1)
        d_phi1 = -self.slope * (gap * self.ell_centred).sum(-1)
        size = gap.abs().sum(-1)
        if (phi1.abs() < CANCELS * size).any():
            phi1, d_phi1, scale1 = self._centred_signal(log_h, phi1, d_phi1, scale1, size)

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
        steep = scaled * self.ell_centred
        steep = steep - self.root_theta * (self.root_theta * steep).sum(-1, keepdim=True)
        d_phi2 = -2 * self.slope * (centred * steep).sum(-1) / safe.squeeze(-1)

        constant = self._constant(log_h)
        phi1, phi2 = phi1.masked_fill(constant, 0.0), phi2.masked_fill(constant, 0.0)
        usable = (phi2 > 0) & (phi1 != 0)
        slope = d_phi1 / torch.where(usable, phi1, 1.0) - 0.5 * d_phi2 / torch.where(usable, phi2, 1.0)
        return LearningSignal(
            sign=phi1.sign(),
            log_abs_phi1=phi1.abs().log() + scale1,
            log_phi2=phi2.log() + 2 * (safe.log() + scale2).squeeze(-1),
            log_slope=torch.where(usable, slope, torch.zeros_like(slope)),
        )

    def _centred_signal(
        self, log_h: Tensor, phi1: Tensor, d_phi1: Tensor, scale: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(Φ₁, its slope, log of their scale), as Σ(π_t − π_θ)(h − E_θ h) on rows where that cancels less.

        Needed where h is nearly constant: Σ(π_t − π_θ)h is then the small difference of large sums.
        """
        top = row_max(log_h)
        h, theta = self.reward_sign * torch.exp(log_h - top), self.log_theta.exp()
        gap = self.direction * self.log_abs_gap.exp()
        terms = gap * (h - (theta * h).sum(-1, keepdim=True))
        centred, centred_size = terms.sum(-1), terms.abs().sum(-1)
        steep = h * self.ell_centred
        slope = -self.slope * (gap * (steep - (theta * steep).sum(-1, keepdim=True))).sum(-1)
        better = centred.abs() * size > phi1.abs() * centred_size
        return (
            torch.where(better, centred, phi1),
            torch.where(better, slope, d_phi1),
            torch.where(better, top.squeeze(-1), scale),
        )

    def _constant(self, log_h: Tensor) -> Tensor:
        """Boolean `[..., B]`: h is the same on every token of π_θ but for rounding, so Φ₁ and Φ₂ are zero."""
        reachable = self.log_theta != NEG_INF
        low, high = extent(log_h, reachable)
        one_sign = (self.reward_sign.masked_fill(~reachable, 0).sum(-1).abs()) == reachable.sum(-1)
        rounding = 64 * torch.finfo(log_h.dtype).eps * (1 + high.abs() + self.ell.abs().amax(-1))
        return one_sign & (high - low <= rounding)

    def progress(self, alpha: Tensor, eta: Tensor) -> Tensor:
        """η E_t[h] − log E_θ[exp(ηh)], nats; α and η broadcast against `[B]`."""
        return self.progress_of(self.log_abs(alpha), eta)

    def progress_of(self, log_h: Tensor, eta: Tensor) -> Tensor:
        """The same of any tilt of the reward's sign, given log|h| `[..., B, V]`."""
        h = self.reward_sign * log_h.exp().clamp(max=HUGE)
        theta = self.log_theta.exp()

        reachable = self.log_theta != NEG_INF
        u = eta[..., None] * (h - (theta * h).sum(-1, keepdim=True))
        u = u.clamp(-HUGE, HUGE).masked_fill(~reachable, 0.0)
        rise = eta * self.signal_of(log_h).phi1
        small = rise - torch.log1p((theta * (torch.expm1(u.clamp(-2, 2)) - u)).sum(-1))

        x = (eta[..., None] * h).clamp(-HUGE, HUGE)
        top = x.masked_fill(~reachable, NEG_INF).amax(-1, keepdim=True)
        mean_x = eta * (self.reward_sign * torch.exp(self.log_target + log_h)).sum(-1) - top.squeeze(-1)
        # Where h itself had to be clamped, the same clamped h must stand in both terms (the bound then still holds).
        clamped_mean = mul_where(self.log_target.exp(), x - top).sum(-1)
        clamped = (h.abs() >= HUGE).any(-1) | (x.abs() >= HUGE).any(-1)
        gain = torch.where(clamped, clamped_mean, mean_x)
        large = gain - torch.logsumexp(self.log_theta + (x - top), -1)
        fine = (u.abs().amax(-1) <= 1) & ~clamped
        return torch.where(eta == 0, torch.zeros_like(large), torch.where(fine, small, large))

    def progress_slope(self, alpha: Tensor, eta: Tensor) -> Tensor:
        """dProgress/dα = η(E_t[h'] − E_{π_θ'}[h']) with h' = dh/dα, nats; for α and η that broadcast against `[B]`."""
        moments = moments_of(self.log_theta, self.ell, alpha)
        log_w = self.slope * ((1 - alpha)[..., None] * self.ell - moments.log_partition[..., None])
        h = self.reward_sign * (self.log_abs_reward + log_w).exp().clamp(max=TALL)
        steep = -self.slope * h * (self.ell - moments.mean[..., None])
        x = self.log_theta + (eta[..., None] * h).clamp(-HUGE, HUGE)
        after = torch.softmax(x, -1)
        return eta * ((self.log_target.exp() - after) * steep).sum(-1)


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
