"""Two sampling distributions with budgets of their own: which of them gains more, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from geomix_core.errors import OptionError
from geomix_core.lab.draws import Stream, uniforms
from geomix_core.lab.estimators import pushes
from geomix_core.lab.experiment import Plan, Trial, best_step, draw_estimates
from geomix_core.lab.problem import Problem
from geomix_core.lab.proposals import Proposal
from geomix_core.numerics import mul_where

_STREAMS: tuple[Stream, ...] = ("tune", "report")
ERRORS = 3.0
"""Standard errors beyond which a difference counts."""
UNSEEN = 3.0
"""Draws that can be expected of all repetitions together and yet none be made: its probability is e⁻³, 5 %."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """`first` against `second`, repetition by repetition: the smaller N sees the first of the larger N's numbers."""

    first: Trial
    second: Trial
    unseen: float
    """What tokens so rare that no repetition may have met one can change in the two means, nats; +inf beyond range."""

    @cached_property
    def difference(self) -> float:
        """Mean progress of `second` less that of `first`, nats."""
        return float(self._differences.mean())

    @cached_property
    def error(self) -> float:
        """Standard error of the difference, nats, at the step sizes as tuned."""
        return standard_error(self._differences)

    @property
    def decided(self) -> bool:
        """Neither chance nor what was not seen can have made the difference."""
        return abs(self.difference) > ERRORS * self.error + self.unseen

    @property
    def _differences(self) -> np.ndarray:
        differences: np.ndarray = self.second.progress - self.first.progress
        return differences


def compare(problem: Problem, first: tuple[Proposal, int], second: tuple[Proposal, int], plan: Plan) -> Comparison:
    """Measure two distributions, each with a number of samples N of its own, at the step size that is best for it.

    As many repetitions tune as are reported. All of them count, those that end far from π_t too.

    Raises OptionError for the softmax gradient: it moves tokens that were not drawn, and `unseen` knows of none.
    """
    if plan.estimator == "softmax_gradient":
        raise OptionError("estimator is 'softmax_gradient': expected seed_tilt or natural_gradient.")
    most = max(first[1], second[1])
    one, other = (_trial(problem, proposal, samples, most, plan) for proposal, samples in (first, second))
    unseen = _unseen(problem, first[0], one, plan) + _unseen(problem, second[0], other, plan)
    return Comparison(one, other, unseen if math.isfinite(unseen) else math.inf)


def standard_error(progress: np.ndarray) -> float:
    """Of the mean over repetitions `[R]`."""
    return float(progress.std(ddof=1)) / math.sqrt(len(progress))


def _trial(problem: Problem, proposal: Proposal, samples: int, most: int, plan: Plan) -> Trial:
    tuned, found = (
        draw_estimates(problem, proposal, _numbers(plan.seed, s, most, plan.repetitions, samples), plan.estimator, None)
        for s in _STREAMS
    )
    step = best_step(tuned)
    return Trial(proposal.name, samples, plan.estimator, step, found.progress(step).cpu().numpy(), problem.ceiling)


@lru_cache(maxsize=4)
def _numbers(seed: int, stream: Stream, most: int, repetitions: int, samples: int) -> Tensor:
    """The first `samples` of the `most` random numbers of every repetition, ascending `[R, N]`; kept for other rows."""
    return uniforms(seed, stream, most, repetitions)[:, :samples].sort(-1).values


def _unseen(problem: Problem, proposal: Proposal, trial: Trial, plan: Plan) -> float:
    """What the strongest tokens of which `UNSEEN` draws are expected at most change in the mean progress, nats.

    Each is taken as drawn once, with nothing else drawn. A tilt grows as its token becomes rarer: what it changes in
    the mean need not become small.
    """
    if trial.step == 0:
        return 0.0
    expected = trial.samples * proposal.log_q.exp()
    rare = (expected > 0) & (expected * plan.repetitions < UNSEEN)
    log_theta, target = problem.log_theta[rare], problem.log_target[rare].exp()
    reward = problem.batch.reward[0, rare]
    push = pushes(plan.estimator, log_theta, proposal.log_q[rare], reward, torch.zeros_like(reward), problem.weights)
    x = trial.step / trial.samples * push
    change = (torch.logaddexp(torch.log1p(-log_theta.exp()), log_theta + x) - mul_where(target, x)).abs()
    order = change.argsort(descending=True)
    chance = expected[rare][order]
    missed = chance.cumsum(0) * plan.repetitions <= UNSEEN
    return float((chance * change[order])[missed].sum())
