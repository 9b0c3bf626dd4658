"""Experiments: tune the step size on some repetitions, measure on others; and one repetition, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from geomix_core.errors import OptionError
from geomix_core.lab.bootstrap import Interval, mean_interval
from geomix_core.lab.draws import Draws, Stream, draw, draw_in_turn, uniforms
from geomix_core.lab.estimators import ESTIMATORS, Estimator
from geomix_core.lab.problem import Problem
from geomix_core.lab.proposals import Proposal
from geomix_core.lab.updates import Drift, Estimates, drift_of, estimate

STEP_TOLERANCE = 0.01
"""How closely the best step size is found: log η, as a share of its distance from that of the quadratic."""
FARTHEST = 690.0
"""The largest |log η|."""
TUNING_SAMPLES = 1 << 19
MOST_TUNING = 16
"""Tuning draws as many samples, as long as that takes no more than so many times the reported repetitions."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How an experiment is run."""

    estimator: Estimator = "natural_gradient"
    repetitions: int = 200
    """Repetitions that are reported."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise OptionError(f"estimator is {self.estimator!r}: expected one of {', '.join(ESTIMATORS)}.")
        if self.repetitions < 2:
            raise OptionError(f"repetitions is {self.repetitions}: expected at least 2, or there is no interval.")
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}: expected a whole number from 0.")

    def tuning(self, samples: int) -> int:
        """How many other repetitions tune the step size: at least as many, and more where N is small.

        A rare token can undo everything. A step size tuned where none was drawn is too large.
        """
        return min(max(self.repetitions, TUNING_SAMPLES // samples), MOST_TUNING * self.repetitions)


@dataclass(frozen=True, eq=False)
class Trial:
    """What N samples of one distribution achieved, each repetition by itself."""

    proposal: str
    samples: int
    """N"""
    estimator: Estimator
    step: float
    """η, tuned on other repetitions; 0 where no step helped there on average."""
    progress: np.ndarray
    """`[R]`, nats, paired with the other distributions' at the same N."""
    ceiling: float
    """KL(π_t‖π_θ), nats."""

    @cached_property
    def mean(self) -> float:
        """Progress averaged over the repetitions, nats."""
        return float(self.progress.mean())

    @cached_property
    def interval(self) -> Interval:
        """Bootstrap interval of the mean, nats, at the step size as tuned."""
        return mean_interval(self.progress)

    @property
    def away(self) -> float:
        """Share of repetitions that ended farther from π_t than they began."""
        return float((self.progress < 0).mean())

    @property
    def diverged(self) -> int:
        """How many repetitions ended more than twice as far from π_t as they began."""
        return int((self.progress < -self.ceiling).sum())


@dataclass(frozen=True, eq=False)
class Played:
    """One repetition, sample by sample; what is not yet drawn pushes nothing."""

    token: np.ndarray
    """`[N]`, in the order of the draws."""
    progress: np.ndarray
    """`[N + 1]`, nats: after 0, 1, …, N samples; the last is the repetition's in its `Trial`."""
    policies: np.ndarray
    """π_θ' `[N + 1, M]` at the watched tokens."""
    watched: np.ndarray
    """`[M]`: the tokens that the policies differ most about, and those drawn most."""


def run(problem: Problem, proposals: Sequence[Proposal], samples: int, plan: Plan) -> Iterator[Trial]:
    """Measure what `samples` samples of each distribution achieve, one distribution after the other.

    All of them see the same random numbers, and a distribution's result does not depend on which others are measured.
    """
    if samples < 1:
        raise OptionError(f"samples is {samples}: expected at least 1.")
    drift = drift_of(plan.estimator, problem.log_theta)
    tune = sorted_uniforms(plan.seed, "tune", samples, plan.tuning(samples))
    report = sorted_uniforms(plan.seed, "report", samples, plan.repetitions)
    for proposal in proposals:
        step = best_step(draw_estimates(problem, proposal, tune, plan.estimator, drift))
        found = draw_estimates(problem, proposal, report, plan.estimator, drift)
        progress = found.progress(step).cpu().numpy()
        yield Trial(proposal.name, samples, plan.estimator, step, progress, problem.ceiling)


def sorted_uniforms(seed: int, stream: Stream, samples: int, repetitions: int) -> Tensor:
    """The random numbers of an experiment `[R, N]`, ascending in each repetition."""
    return uniforms(seed, stream, samples, repetitions).sort(-1).values


def draw_estimates(
    problem: Problem, proposal: Proposal, numbers: Tensor, estimator: Estimator, drift: Drift | None
) -> Estimates:
    """ĥ of every repetition, given its random numbers `[R, N]`."""
    return _estimates(problem, proposal, draw(proposal.log_q, problem.order, numbers), estimator, drift)


def best_step(estimates: Estimates) -> float:
    """η ≥ 0 with the largest mean progress of these repetitions; 0 where every step does harm.

    Each repetition's progress is concave in η, so their mean is, and has one maximum. Source: Brent (1973), ch. 5.
    """
    scale = estimates.quadratic_step()
    if scale == 0:
        return 0.0
    middle = math.log(scale)

    def loss(x: float) -> float:
        bounded = min(max(middle + x, -FARTHEST), FARTHEST)
        return -float(estimates.progress(math.exp(bounded)).mean()) + (middle + x - bounded) ** 2

    found = minimize_scalar(loss, bracket=(0.0, 1.0), method="brent", options={"xtol": STEP_TOLERANCE})
    return math.exp(min(max(middle + float(found.x), -FARTHEST), FARTHEST)) if found.fun < 0 else 0.0


def play(
    problem: Problem, proposal: Proposal, samples: int, plan: Plan, step: float, repetition: int = 0, watch: int = 10
) -> Played:
    """One repetition of a trial that was run with this plan and tuned to this step, sample by sample."""
    if not 0 <= repetition < plan.repetitions:
        raise OptionError(f"repetition is {repetition}: expected 0 to {plan.repetitions - 1}.")
    numbers = uniforms(plan.seed, "report", samples, plan.repetitions)[repetition]
    token = draw_in_turn(proposal.log_q, problem.order, numbers)
    # Each beginning of the sequence is a repetition of its own.
    begun = [torch.unique(token[:n], return_counts=True) for n in range(1, samples + 1)]
    draws = Draws(
        samples,
        torch.cat([seen for seen, _ in begun]),
        torch.cat([count for _, count in begun]).to(problem.log_theta.dtype),
        torch.tensor([len(seen) for seen, _ in begun], device=token.device),
    )
    found = _estimates(problem, proposal, draws, plan.estimator, drift_of(plan.estimator, problem.log_theta))
    progress = torch.cat([found.progress(step).new_zeros(1), found.progress(step)])

    drawn = torch.bincount(token, minlength=len(problem.log_theta)) / samples
    score = drawn + torch.maximum(problem.log_theta, problem.log_target).exp()
    watched = score.topk(min(watch, len(score))).indices
    log_theta = problem.log_theta[watched]
    tilt = step * found.at(watched, problem.log_theta)
    log_mean = step * found.rise - found.progress(step)
    policies = torch.cat([log_theta[None], log_theta + tilt - log_mean[:, None]]).exp()
    return Played(token.cpu().numpy(), progress.cpu().numpy(), policies.cpu().numpy(), watched.cpu().numpy())


def _estimates(
    problem: Problem, proposal: Proposal, draws: Draws, estimator: Estimator, drift: Drift | None
) -> Estimates:
    target = problem.log_target.exp()
    reward = problem.batch.reward[0]
    return estimate(problem.log_theta, target, reward, proposal.log_q, draws, estimator, problem.weights, drift)
