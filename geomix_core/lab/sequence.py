"""Several updates in a row at a fixed total budget, the sampling distribution chosen anew before each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from geomix_core.errors import OptionError
from geomix_core.lab.bootstrap import Interval, mean_interval
from geomix_core.lab.draws import Stream, draw, uniforms
from geomix_core.lab.experiment import Plan, best_step
from geomix_core.lab.problem import Problem
from geomix_core.lab.proposals import DEFENCE, choose
from geomix_core.lab.updates import Estimates, drift_of, estimate, updated
from geomix_core.policies import PolicyBatch

BLOCK = 1 << 22
"""Most numbers in a dense array: policies of as many repetitions as fit are treated together."""


@dataclass(frozen=True, eq=False)
class UpdateSequence:
    """What K updates with N/K samples each achieved together."""

    proposal: str
    samples: int
    """N of all updates together."""
    steps: tuple[float, ...]
    """η of each update, tuned on other repetitions that had the same updates before."""
    progress: np.ndarray
    """`[K, R]`, nats: gained since the start, after each update."""
    ceiling: float

    @cached_property
    def interval(self) -> Interval:
        """Bootstrap interval of the mean progress after the last update, nats."""
        return mean_interval(self.progress[-1])

    @property
    def mean(self) -> float:
        """Mean progress after the last update, nats."""
        return float(self.progress[-1].mean())

    @property
    def away(self) -> float:
        """Share of repetitions that ended farther from π_t than they began."""
        return float((self.progress[-1] < 0).mean())

    @property
    def diverged(self) -> int:
        """How many repetitions ended more than twice as far from π_t as they began."""
        return int((self.progress[-1] < -self.ceiling).sum())


def run_in_sequence(
    problem: Problem,
    proposal: str,
    samples: int,
    updates: int,
    plan: Plan,
    *,
    alpha: float = 0.5,
    defence: float = DEFENCE,
) -> UpdateSequence:
    """`updates` updates with samples/updates samples each; before each, q and r are taken at the policy then reached.

    With the default reference r = log π_t − log π_θ follows the policy; an independent reference stays. Where a
    criterion has no answer for a policy on the way, its placeholder or end point serves. Keeps the policies of all
    repetitions. Raises OptionError where `updates` does not divide `samples`; otherwise as `propose`.
    """
    if updates < 1 or samples < 1 or samples % updates:
        raise OptionError(f"{samples} samples cannot be shared out evenly among {updates} updates.")
    size = samples // updates
    start = problem.log_theta.expand(plan.repetitions, -1).contiguous()
    policies: dict[Stream, Tensor] = {"tune": start, "report": start}
    numbers = {s: uniforms(plan.seed, s, samples, plan.repetitions) for s in policies}
    steps, gains = [], []
    for k in range(updates):
        part = slice(k * size, (k + 1) * size)
        found = {
            s: _estimates(problem, proposal, policies[s], numbers[s][:, part], plan, alpha, defence) for s in policies
        }
        step = best_step(found["tune"])
        steps.append(step)
        gains.append(found["report"].progress(step).cpu().numpy())
        policies = {s: updated(policies[s], found[s], step) for s in policies}
    return UpdateSequence(proposal, samples, tuple(steps), np.cumsum(gains, 0), problem.ceiling)


def _estimates(
    problem: Problem, name: str, log_theta: Tensor, numbers: Tensor, plan: Plan, alpha: float, defence: float
) -> Estimates:
    """ĥ of every repetition, from its own policy `[R, V]` and with its own q."""
    log_target = problem.log_target
    target = log_target.expand_as(log_theta)
    if problem.batch.reference is None:
        reference = None
        reward = (log_target - log_theta).masked_fill(log_theta == -torch.inf, 0.0)
    else:
        reference = problem.batch.reference.expand_as(log_theta)
        reward = problem.batch.reward.expand_as(log_theta)
    rows = PolicyBatch(log_theta, target, reference)
    log_q = torch.cat(
        [choose(c, name, problem.weights, alpha=alpha, defence=defence).log_q for c in rows.chunks(BLOCK)]
    )
    draws = draw(log_q, problem.order, numbers.sort(-1).values)
    drift = drift_of(plan.estimator, log_theta)
    return estimate(log_theta, target.exp(), reward, log_q, draws, plan.estimator, problem.weights, drift)
