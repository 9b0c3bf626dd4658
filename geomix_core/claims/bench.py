"""A batch on the bench: what several claims need of it, computed once."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from geomix_core.claims.setting import Setting
from geomix_core.compression import compress
from geomix_core.criteria import AlphaResult, solve_alpha
from geomix_core.divergences import kl, log_chi2
from geomix_core.geodesics import PathLengths, path_lengths
from geomix_core.numerics import extent
from geomix_core.policies import PolicyBatch
from geomix_core.status import Status
from geomix_core.tilts import LearningSignal, TiltFamily


class Bench:
    """One batch `[B, V]` at one setting. All is lazy; what a row does not have raises, so test conditions first.

    Claims are checked in float64: a batch from a device without it is taken to the CPU and normalised anew.
    """

    def __init__(self, batch: PolicyBatch, setting: Setting) -> None:
        self.batch = batch if batch.theta.dtype == torch.float64 else _in_double(batch)
        self.setting = setting
        self._parts: dict[bytes, Bench] = {}

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, rows: Tensor) -> Bench:
        """The rows where the boolean `[B]` is true: itself if all are, and the same part for the same rows."""
        if bool(rows.all()):
            return self
        key = rows.cpu().numpy().tobytes()
        if key not in self._parts:
            self._parts[key] = Bench(self.batch.rows(rows), self.setting)
        return self._parts[key]

    @cached_property
    def spread(self) -> Tensor:
        """max ℓ − min ℓ on the common support, nats `[B]`; −∞ where there is none."""
        low, high = extent(self.batch.log_ratio, self.batch.common)
        return high - low

    @cached_property
    def magnitude(self) -> Tensor:
        """The largest |log π| on the common support, nats `[B]`: rounding of a log-probability is an ulp of this."""
        size = torch.maximum(self.batch.theta.abs(), self.batch.target.abs())
        return size.masked_fill(~self.batch.common, 0.0).amax(-1)

    @cached_property
    def family(self) -> TiltFamily:
        return TiltFamily(self.batch, self.setting.weights)

    @cached_property
    def atoms(self) -> PolicyBatch:
        """The batch compressed, for quantities that need hundreds of passes."""
        return compress(self.batch)

    @cached_property
    def lengths(self) -> PathLengths:
        """Fisher–Rao lengths of the three paths between the policies, of the batch compressed."""
        return path_lengths(self.atoms)

    @cached_property
    def kl_symmetry(self) -> AlphaResult:
        return solve_alpha(self.batch, "kl_symmetry")

    @cached_property
    def snr(self) -> AlphaResult:
        return solve_alpha(self.batch, "snr", self.setting.weights)

    @cached_property
    def wald(self) -> AlphaResult:
        return solve_alpha(self.batch, "wald", self.setting.weights, eta_range=self.setting.eta_range)

    @cached_property
    def alpha_kl(self) -> Tensor:
        return self.kl_symmetry.alpha.to(self.batch.theta)

    @cached_property
    def alpha_snr(self) -> Tensor:
        return self.snr.alpha.to(self.batch.theta)

    @cached_property
    def signal(self) -> LearningSignal:
        """At the setting's α."""
        return self.family.signal(self.setting.alpha)

    @cached_property
    def signal_at_kl(self) -> LearningSignal:
        return self.family.signal(self.alpha_kl)

    @cached_property
    def signal_at_snr(self) -> LearningSignal:
        return self.family.signal(self.alpha_snr)

    @cached_property
    def ceiling(self) -> Tensor:
        """KL(π_t‖π_θ), nats `[B]`: the most that any update gains; π_t conditioned on what π_θ can produce."""
        return kl(self.family.log_target, self.family.log_theta)

    @cached_property
    def log_snr_ceiling(self) -> Tensor:
        """log √χ²(π_t‖π_θ): no sampling distribution has a larger SNR."""
        return log_chi2(self.family.log_target, self.family.log_theta) / 2

    def undecided(self, *results: AlphaResult) -> dict[str, Tensor]:
        """Masks of the rows on which a criterion singles out no α, by reason."""
        flat = self._with(results, Status.FLAT) | self._with(results, Status.IDENTICAL)
        unsolved = ~torch.stack([r.solved for r in results]).all(0)
        return {"flat": flat, "no_answer": unsolved.cpu()}

    def _with(self, results: tuple[AlphaResult, ...], status: Status) -> Tensor:
        return torch.tensor([any(r.status[i] is status for r in results) for i in range(len(self))])


def _in_double(batch: PolicyBatch) -> PolicyBatch:
    policies = (batch.theta, batch.target, batch.reference)
    return PolicyBatch.from_logits(*(None if p is None else p.cpu().double() for p in policies))
