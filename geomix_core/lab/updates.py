"""The progress of updates that N samples estimate: η E_t[ĥ] − log E_θ[exp(ηĥ)], repetition by repetition.

Only drawn tokens are looked at: elsewhere ĥ is 0, or for the softmax gradient −m·π_θ(y), of which all that is needed
under π_θ depends on the single number ηm (`Drift`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from geomix_core.compression import compress
from geomix_core.lab.draws import Draws
from geomix_core.lab.estimators import Estimator, pushes
from geomix_core.numerics import NEG_INF, mul_where
from geomix_core.policies import PolicyBatch
from geomix_core.tilts import Weights

LARGE = 500.0
"""Exponents up to this are taken as they are; larger ones are shifted first."""
SMALL = -0.99
"""E_θ[exp(ηĥ)] − 1 from which on so little is left that it is summed with more care."""
CANCELS = 1e5
"""The drift of all tokens beside what is left of it once the drawn ones are put in: beyond this, digits are lost."""
BLOCK = 1 << 20
"""Most numbers in an intermediate array."""


class Drift(ABC):
    """The tokens' own probabilities π_θ(y) under π_θ: how all tokens drift when each is pushed by −m·π_θ(y)."""

    first: Tensor
    """E_θ[π_θ(y)], `[]` or `[R]`, and below E_θ[π_θ(y)²]."""
    second: Tensor

    log_theta: Tensor
    """`[V]` or `[R, V]`"""

    @abstractmethod
    def expm1(self, s: Tensor) -> Tensor:
        """E_θ[exp(−s·π_θ(y))] − 1, one s a repetition, `[R]`."""

    @abstractmethod
    def log_theta_of(self, rows: Tensor) -> Tensor:
        """log π_θ of the given repetitions, `[rows, V]`."""

    def blocks(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Repetitions in groups whose policies fit into `BLOCK` numbers."""
        return torch.split(rows, max(1, BLOCK // self.log_theta.shape[-1]))


class SharedDrift(Drift):
    """Where all repetitions start from the same π_θ, given its logarithm `[V]`."""

    def __init__(self, log_theta: Tensor) -> None:
        self.log_theta = log_theta
        # ℓ of this pair is π_θ(y): its atoms under π_θ are as good as the tokens.
        atoms = compress(PolicyBatch(log_theta[None], (log_theta + log_theta.exp())[None]))
        self._mass, self._size = atoms.restricted[0][0].exp(), atoms.restricted[1][0]
        self.first, self.second = self._mass @ self._size, self._mass @ self._size.square()

    def expm1(self, s: Tensor) -> Tensor:
        parts = torch.split(s, max(1, BLOCK // len(self._mass)))
        return torch.cat([torch.expm1(-part[:, None] * self._size) @ self._mass for part in parts])

    def log_theta_of(self, rows: Tensor) -> Tensor:
        return self.log_theta.expand(len(rows), -1)


class OwnDrift(Drift):
    """Where each repetition starts from a policy of its own, given their logarithms `[R, V]`."""

    def __init__(self, log_theta: Tensor) -> None:
        self.log_theta = log_theta
        theta = log_theta.exp()
        self.first, self.second = theta.square().sum(-1), theta.pow(3).sum(-1)

    def expm1(self, s: Tensor) -> Tensor:
        everyone = torch.arange(len(s), device=s.device)
        theta = ((rows, self.log_theta[rows].exp()) for rows in self.blocks(everyone))
        return torch.cat([(p * torch.expm1(-s[rows, None] * p)).sum(-1) for rows, p in theta])

    def log_theta_of(self, rows: Tensor) -> Tensor:
        return self.log_theta[rows]


@dataclass(frozen=True, eq=False)
class Estimates:
    """ĥ of R repetitions: what it is at the drawn tokens and, for the softmax gradient, how all tokens drift."""

    draws: Draws
    log_theta: Tensor
    """`[K]`: of the drawn tokens, as `target` (π_t) and `push` (c(y)/N·a(y))."""
    target: Tensor
    push: Tensor
    mean_push: Tensor
    """m = (1/N)Σ_i b(y_i), `[R]`; 0 without drift, as the next."""
    overlap: Tensor
    """Σ π_t π_θ, by which the drift moves E_t[ĥ]."""
    drift: Drift | None = None

    @cached_property
    def rise(self) -> Tensor:
        """E_t[ĥ] `[R]`, nats per unit of η."""
        return self.draws.sum(mul_where(self.target, self.push)) - self.mean_push * self.overlap

    def progress(self, eta: float) -> Tensor:
        """Progress of each repetition at one step size, nats `[R]`."""
        return eta * self.rise - self._log_mean_exp(eta)

    def at(self, tokens: Tensor, log_theta: Tensor) -> Tensor:
        """ĥ `[R, M]` at the given tokens `[M]`, where all repetitions share log π_θ `[V]`."""
        hit = (self.draws.token[:, None] == tokens) * self.push[:, None]
        local = hit.new_zeros(len(self.draws), len(tokens)).index_add_(0, self.draws.repetition, hit)
        return local - self.mean_push[:, None] * log_theta[tokens].exp()

    def quadratic_step(self) -> float:
        """η that is best for the mean of the expansions to second order; 0 where none rises. A scale to start from."""
        theta = self.log_theta.exp()
        mean, square = (self.draws.sum(mul_where(theta, self.push.pow(k))) for k in (1, 2))
        if self.drift is not None:
            cross = self.draws.sum(theta.square() * self.push)
            mean = mean - self.mean_push * self.drift.first
            square = square - 2 * self.mean_push * cross + self.mean_push.square() * self.drift.second
        slope, noise = float((self.rise - mean).mean()), float((square - mean.square()).mean())
        return slope / noise if slope > 0 and noise > 0 else 0.0

    def _log_mean_exp(self, eta: float) -> Tensor:
        """log E_θ[exp(ηĥ)] `[R]`."""
        draws, drift = self.draws, self.drift
        x, s = eta * self.push, eta * self.mean_push
        base = torch.zeros_like(x) if drift is None else -s[draws.repetition] * self.log_theta.exp()
        others = torch.zeros_like(s) if drift is None else drift.expm1(s.clamp(min=-LARGE))
        moved = torch.exp(self.log_theta + base.clamp(max=LARGE)) * torch.expm1(x.clamp(max=LARGE))
        excess = others + draws.sum(moved)
        plain = torch.log1p(excess.clamp(min=-1))
        hard = (
            (torch.maximum(draws.max(torch.maximum(x, base + x)), -s) > LARGE)
            | (excess < SMALL)
            | (others > CANCELS * (1 + excess))
        )
        if not hard.any():
            return plain
        if drift is not None:
            # All tokens drift by different amounts: which of them matter is no longer clear, so all are summed.
            plain[hard] = torch.cat([self._over_all_tokens(rows, x, s) for rows in drift.blocks(hard.nonzero()[:, 0])])
            return plain

        # No less than what the drawn tokens alone contribute: that is exact where nearly all of π_θ was drawn.
        weighted = self.log_theta + x
        top = draws.max(weighted)
        drawn = draws.sum(torch.exp(weighted - top[draws.repetition])).log() + top
        shift = top.clamp(min=0)
        by = shift[draws.repetition]
        moved = torch.exp(weighted - by) - torch.exp(self.log_theta - by)
        shifted = torch.log((torch.exp(-shift) + draws.sum(moved)).clamp(min=0)) + shift
        return torch.maximum(torch.where(shift > 0, shifted, plain), drawn)

    def _over_all_tokens(self, rows: Tensor, x: Tensor, s: Tensor) -> Tensor:
        """The same for the repetitions `rows` from the exponents of all tokens."""
        assert self.drift is not None
        log_theta = self.drift.log_theta_of(rows)
        exponent = log_theta - s[rows, None] * log_theta.exp()
        place = torch.full_like(self.draws.lengths, -1)
        place[rows] = torch.arange(len(rows), device=rows.device)
        at = place[self.draws.repetition]
        mine = at >= 0
        exponent[at[mine], self.draws.token[mine]] += x[mine]
        return torch.logsumexp(exponent, -1)


def estimate(
    log_theta: Tensor,
    target: Tensor,
    reward: Tensor,
    log_q: Tensor,
    draws: Draws,
    estimator: Estimator,
    weights: Weights,
    drift: Drift | None,
) -> Estimates:
    """ĥ of every repetition, from policies `[V]` that all share or `[R, V]` of their own.

    `target` is π_t itself, `reward` r; `drift` is that of π_θ, for the softmax gradient only.
    """

    def drawn(values: Tensor) -> Tensor:
        return values[draws.token] if values.ndim == 1 else values[draws.repetition, draws.token]

    theta, rewarded = drawn(log_theta), drawn(reward)
    baseline = mul_where(log_theta.exp(), reward).sum(-1)
    expected = baseline if baseline.ndim == 0 else baseline[draws.repetition]
    push = draws.count / draws.samples * pushes(estimator, theta, drawn(log_q), rewarded, expected, weights)
    if drift is None:
        nothing = push.new_zeros(len(draws))
        return Estimates(draws, theta, drawn(target), push, nothing, nothing)
    overlap = (target * log_theta.exp()).sum(-1).expand(len(draws))
    return Estimates(draws, theta, drawn(target), push, draws.sum(push), overlap, drift)


def drift_of(estimator: Estimator, log_theta: Tensor) -> Drift | None:
    """What `estimate` needs of π_θ `[V]` or `[R, V]` beside the drawn tokens."""
    if estimator != "softmax_gradient":
        return None
    return SharedDrift(log_theta) if log_theta.ndim == 1 else OwnDrift(log_theta)


def updated(log_theta: Tensor, estimates: Estimates, eta: float) -> Tensor:
    """log π_θ' of every repetition, `[R, V]`, from log π_θ `[V]` or `[R, V]`."""
    draws = estimates.draws
    tilted = log_theta.expand(len(draws), log_theta.shape[-1]).clone()
    if estimates.drift is not None:
        tilted -= eta * estimates.mean_push[:, None] * tilted.exp()
    tilted[draws.repetition, draws.token] += eta * estimates.push
    tilted = tilted.masked_fill(log_theta == NEG_INF, NEG_INF)
    return tilted - torch.logsumexp(tilted, -1, keepdim=True)
