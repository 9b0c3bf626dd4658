"""The sampling distributions that the lab compares (document §6.5, and what the mathematics adds)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from geomix_core.criteria import solve_alpha
from geomix_core.errors import CoverageError, OptionError
from geomix_core.geodesics import e_geodesic
from geomix_core.lab.problem import Problem
from geomix_core.numerics import NEG_INF
from geomix_core.policies import PolicyBatch
from geomix_core.simplex import simplex_optimum
from geomix_core.tilts import Weights

DEFENCE = 0.1
"""λ: the share of π_θ in the defensive mixture."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """One sampling distribution for one problem."""

    name: str
    log_q: Tensor
    """`[V]`"""
    ess: float
    """Effective sample size for π_θ, as a share of N: 1/E_q[(π_θ/q)²], on the tokens that q covers."""
    largest_weight: float
    """max π_θ/q over the tokens that q covers."""
    uncovered: float
    """Mass of π_θ on tokens that q never draws. Where it is positive, no estimate from q is unbiased."""
    alpha: float | None = None
    """α where it is a member of the geometric family."""

    @classmethod
    def of(cls, name: str, problem: Problem, log_q: Tensor, alpha: float | None = None) -> Proposal:
        """From log q `[V]`, normalised."""
        reachable, drawn = problem.log_theta != NEG_INF, log_q != NEG_INF
        log_w = (problem.log_theta - log_q).masked_fill(~(reachable & drawn), NEG_INF)
        return cls(
            name,
            log_q,
            float(torch.exp(-torch.logsumexp(problem.log_theta + log_w, -1))),
            float(log_w.amax().exp()),
            float(problem.log_theta.exp()[reachable & ~drawn].sum()),
            alpha,
        )


@dataclass(frozen=True, eq=False)
class Proposals:
    """The distributions that exist for a problem, and for the others the reason why not."""

    found: tuple[Proposal, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    """By name: the solver's status, or "reference" or "supports", what the closed forms require."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A distribution for each row of a batch."""

    log_q: Tensor
    """`[B, V]`"""
    alpha: Tensor | None
    """`[B]`, for members of the geometric family."""
    reason: tuple[str, ...]
    """`[B]`: why there is no answer, or ""."""


def propose(problem: Problem, names: Sequence[str], *, alpha: float = 0.5, defence: float = DEFENCE) -> Proposals:
    """The named distributions, each of `PROPOSALS`, for one problem.

    on_policy: π_θ. off_policy: π_t. uniform: every token of the vocabulary alike. kl_symmetry, snr, wald: q_α at α_KL,
    α_SNR, α_Wald. alpha: q_α at `alpha`. optimum, logarithmic_mean: the closed forms of largest SNR for w = π_θ/q and
    w = q/π_θ. defensive: (1 − λ)q + λπ_θ with q at α_KL and λ = `defence` (Hesterberg 1995).

    Raises OptionError for an unknown name, or α or λ outside [0, 1].
    """
    found, missing = [], {}
    for name in names:
        chosen = choose(problem.batch, name, problem.weights, alpha=alpha, defence=defence)
        if chosen.reason[0]:
            missing[name] = chosen.reason[0]
        else:
            own = None if chosen.alpha is None else float(chosen.alpha[0])
            found.append(Proposal.of(name, problem, chosen.log_q[0], own))
    return Proposals(tuple(found), MappingProxyType(missing))


def choose(batch: PolicyBatch, name: str, weights: Weights, *, alpha: float = 0.5, defence: float = DEFENCE) -> Choice:
    """The named distribution for every row of a batch with coverage; see `propose`."""
    for label, value in (("alpha", alpha), ("defence", defence)):
        if not 0 <= value <= 1:
            raise OptionError(f"{label} is {value:g}: expected a number from 0 to 1.")
    if name not in PROPOSALS:
        raise OptionError(f"proposal is {name!r}: expected one of {', '.join(PROPOSALS)}.")
    return PROPOSALS[name](batch, weights, alpha, defence)


def _fixed(batch: PolicyBatch, log_q: Tensor) -> Choice:
    return Choice(log_q, None, ("",) * len(batch))


def _member(batch: PolicyBatch, alpha: float) -> Choice:
    at = torch.full((len(batch),), alpha, dtype=torch.float64, device=batch.theta.device)
    return Choice(e_geodesic(batch, alpha), at, ("",) * len(batch))


def _criterion(name: str) -> _Maker:
    def make(batch: PolicyBatch, weights: Weights, _alpha: float, _defence: float) -> Choice:
        found = solve_alpha(batch, name, weights)
        reason = tuple("" if s.is_solution else str(s) for s in found.status)
        return Choice(e_geodesic(batch, found.alpha.to(batch.theta)), found.alpha, reason)

    return make


def _closed_form(weights: Weights) -> _Maker:
    def make(batch: PolicyBatch, _weights: Weights, _alpha: float, _defence: float) -> Choice:
        if batch.reference is not None:
            return Choice(batch.theta, None, ("reference",) * len(batch))
        try:
            return _fixed(batch, simplex_optimum(batch, weights))
        except CoverageError:
            return Choice(batch.theta, None, ("supports",) * len(batch))

    return make


def _defensive(batch: PolicyBatch, weights: Weights, _alpha: float, defence: float) -> Choice:
    middle = PROPOSALS["kl_symmetry"](batch, weights, _alpha, defence)
    shares = torch.tensor([1 - defence, defence], dtype=torch.float64).log().to(batch.theta)
    log_q = torch.logaddexp(shares[0] + middle.log_q, shares[1] + batch.theta)
    return Choice(log_q, None, middle.reason)


_Maker = Callable[[PolicyBatch, Weights, float, float], Choice]

PROPOSALS: Mapping[str, _Maker] = MappingProxyType(
    {
        "on_policy": lambda batch, *_: _member(batch, 1.0),
        "off_policy": lambda batch, *_: _member(batch, 0.0),
        "uniform": lambda batch, *_: _fixed(batch, torch.full_like(batch.theta, -math.log(batch.vocab_size))),
        "kl_symmetry": _criterion("kl_symmetry"),
        "snr": _criterion("snr"),
        "wald": _criterion("wald"),
        "alpha": lambda batch, _weights, alpha, _defence: _member(batch, alpha),
        "optimum": _closed_form("importance"),
        "logarithmic_mean": _closed_form("inverse"),
        "defensive": _defensive,
    }
)
"""Ways to make a sampling distribution of every row: `(batch, weights, α, λ) -> Choice`."""
