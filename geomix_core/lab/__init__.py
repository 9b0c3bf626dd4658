"""The sampling lab: what N samples of each sampling distribution achieve (document: "only N samples"), with intervals.

y_1..y_N ~ q give an estimate ĥ of the tilt, the update is π_θ' ∝ π_θ exp(ηĥ), and its progress, which is
η E_t[ĥ] − log E_θ[exp(ηĥ)], is averaged over repetitions. The step size is tuned for each distribution and each N, on
repetitions of its own.

    problem = Problem(synthetic("gaussian"))
    proposals = propose(problem, ("on_policy", "kl_symmetry")).found
    plan = Plan(estimator="natural_gradient", repetitions=200, seed=0)
    trials = [t for n in (4, 16, 64) for t in run(problem, proposals, n, plan)]
    print(efficiency(trials, share=0.5))

Where things are:
    problem      one row, prepared;  proposals  the sampling distributions to choose from
    draws        exact sampling with common random numbers, kept as distinct tokens with their counts
    estimators   the three estimates of the tilt;  updates  the progress of what they estimate
    experiment   Plan, Trial, run: tune, then measure;  play: one repetition, sample by sample
    bootstrap    intervals over repetitions;  efficiency  samples needed, as a ratio to on-policy
    comparison   two distributions, each with an N of its own: which of them gains more, if that is certain
    sequence     several updates in a row, q chosen anew before each
"""

from geomix_core.lab.comparison import Comparison, compare
from geomix_core.lab.efficiency import SHARES, Efficiency, Reach, attained, efficiency
from geomix_core.lab.estimators import ESTIMATORS, Estimator
from geomix_core.lab.experiment import Plan, Played, Trial, play, run
from geomix_core.lab.problem import Problem
from geomix_core.lab.proposals import PROPOSALS, Proposal, Proposals, propose
from geomix_core.lab.sequence import UpdateSequence, run_in_sequence

__all__ = [
    "ESTIMATORS",
    "PROPOSALS",
    "SHARES",
    "Comparison",
    "Efficiency",
    "Estimator",
    "Plan",
    "Played",
    "Problem",
    "Proposal",
    "Proposals",
    "Reach",
    "Trial",
    "UpdateSequence",
    "attained",
    "compare",
    "efficiency",
    "play",
    "propose",
    "run",
    "run_in_sequence",
]
