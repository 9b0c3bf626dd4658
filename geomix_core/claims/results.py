"""Parts 6 and 7 of the document: the main theorem, the algorithm, the comparison of methods, the promise."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench
from geomix_core.claims.choosing import no_root, no_two_answers
from geomix_core.claims.conditions import COVERED, DEFAULT_REFERENCE, DISTINCT, OVERLAP, SAME_SUPPORT
from geomix_core.claims.family import REACHED
from geomix_core.claims.learning import EXACT, ULP
from geomix_core.claims.listing import solve_kl_symmetry
from geomix_core.claims.model import Measurement, Numbers, claim
from geomix_core.divergences import ess_fraction, total_variation
from geomix_core.geodesics import e_geodesic, tilted_moments
from geomix_core.lab import Comparison, Plan, Problem, Proposal, compare
from geomix_core.lab.comparison import standard_error
from geomix_core.progress import learning_signal_from

DRAWN = 1 << 15
"""Samples that q at α_KL is measured with, in all repetitions together."""
FEWEST_REPETITIONS, MOST_REPETITIONS = 64, 2048


@claim(needs=(OVERLAP, SAME_SUPPORT, DEFAULT_REFERENCE, DISTINCT), uses="weights reference")
def theorem_5_optimal(bench: Bench) -> Measurement:
    """The optimal sampling distribution is q_{α*}: no q at all has a larger SNR than the best of the family."""
    best, ceiling = bench.signal_at_snr, bench.log_snr_ceiling
    loss = 1 - (best.log_snr - ceiling).exp()
    numbers: Numbers = {"alpha_snr": bench.alpha_snr, "in_family": best.snr, "ceiling": ceiling.exp(), "loss": loss}
    return Measurement(loss, REACHED, numbers, {"no_answer": ~bench.snr.solved})


@claim(needs=(OVERLAP, COVERED), uses="weights reference")
def theorem_5_equivalent(bench: Bench) -> Measurement:
    """SNR and KL symmetry determine α* equivalently, or approximately so: the two q differ by at most 5 % in TV."""
    by_kl, by_snr = (e_geodesic(bench.batch, a) for a in (bench.alpha_kl, bench.alpha_snr))
    apart = total_variation(by_kl, by_snr)
    numbers: Numbers = {"alpha_kl": bench.alpha_kl, "alpha_snr": bench.alpha_snr, "apart": apart}
    return Measurement(apart, 0.05, numbers, no_two_answers(bench))


@claim(needs=(OVERLAP,), uses="alpha")
def section_6_1_composition(bench: Bench) -> Measurement:
    """q*(y|x) for a sequence y is the product of per-token mixtures.

    Two tokens: after the likeliest first token the policies are those at hand, after any other they agree. The mixture
    of the sequences gives that first token the weight q·Z_α, the product of mixtures the weight q.
    """
    batch, alpha = bench.batch, bench.setting.alpha
    log_q = e_geodesic(batch, alpha)
    per_token = log_q.amax(-1).exp()
    log_z = tilted_moments(batch, alpha).log_partition
    whole = per_token * log_z.exp() / (per_token * log_z.exp() + 1 - per_token)
    numbers: Numbers = {"per_token": per_token, "sequence": whole, "z": log_z.exp(), "alpha": alpha}
    return Measurement((per_token - whole).abs(), EXACT, numbers)


@claim(needs=(OVERLAP,))
def section_6_2_stable(bench: Bench) -> Measurement:
    """The listing is numerically stable: run as printed, in double precision, it finds α_KL to three digits."""
    listed = solve_kl_symmetry(bench.batch.theta.exp(), bench.batch.target.exp())
    error = (listed - bench.alpha_kl).abs()
    numbers: Numbers = {"listed": listed, "alpha_kl": bench.alpha_kl, "error": error}
    return Measurement(error, 1e-3, numbers, {"no_answer": no_root(bench)})


@claim(needs=(OVERLAP, COVERED), uses="weights reference")
def section_6_5_on_policy(bench: Bench) -> Measurement:
    """On-policy sampling is inefficient: q at α_KL has the larger SNR."""
    on_policy = bench.family.signal(1.0)
    ratio = (on_policy.log_snr - bench.signal_at_kl.log_snr).exp()
    numbers: Numbers = {"on_policy": on_policy.snr, "at_kl": bench.signal_at_kl.snr, "alpha_kl": bench.alpha_kl}
    return Measurement(ratio - 1, EXACT, numbers, {"no_answer": no_root(bench)})


@claim(needs=(OVERLAP,))
def section_6_5_off_policy(bench: Bench) -> Measurement:
    """Off-policy sampling makes importance weights extreme: its effective sample size is below that of q at α_KL."""
    at_kl, off_policy = ess_fraction(bench.batch, bench.alpha_kl), ess_fraction(bench.batch, 0.0)
    numbers: Numbers = {"ess_at_kl": at_kl, "ess_off_policy": off_policy, "alpha_kl": bench.alpha_kl}
    return Measurement(off_policy - at_kl, ULP * (1 + bench.magnitude), numbers, {"no_answer": no_root(bench)})


@claim()
def section_6_5_uniform(bench: Bench) -> Measurement:
    """Rejection from the uniform distribution rejects much: at least half, where 1/(V max π_t) is accepted."""
    batch = bench.batch
    accepted = torch.exp(-math.log(batch.vocab_size) - batch.target.amax(-1))
    numbers: Numbers = {"accepted": accepted, "rejected": 1 - accepted, "tokens": float(batch.vocab_size)}
    return Measurement(accepted, 0.5 + EXACT, numbers)


@claim(needs=(OVERLAP, COVERED), uses="weights reference")
def section_6_5_mixture(bench: Bench) -> Measurement:
    """q* is the best of the four by SNR: π_θ, π_t, the uniform distribution, and q at α_SNR."""
    batch, weights = bench.batch, bench.setting.weights
    on_policy, off_policy = (bench.family.signal(end) for end in (1.0, 0.0))
    everywhere = torch.full_like(batch.theta, -math.log(batch.vocab_size))
    uniform = learning_signal_from(batch, everywhere, weights)
    best = bench.signal_at_snr
    rival = torch.stack([s.log_snr for s in (on_policy, off_policy, uniform)]).amax(0)
    numbers: Numbers = {
        "best": best.snr,
        "on_policy": on_policy.snr,
        "off_policy": off_policy.snr,
        "uniform": uniform.snr,
        "alpha_snr": bench.alpha_snr,
    }
    return Measurement(rival - best.log_snr, EXACT, numbers, {"no_answer": ~bench.snr.solved})


@claim(needs=(OVERLAP, COVERED), uses="weights samples reference")
def section_7_3_efficiency(bench: Bench) -> Measurement:
    """q at α_KL needs two to five times fewer samples than on-policy: at most half.

    N samples of it and 2N on-policy are drawn, for the document's own update, each with its best η: on-policy must not
    gain more. The residual is how much more it gains, as a share of KL(π_t‖π_θ); what chance could have made decides
    nothing.
    """
    here, there = bench.signal_at_kl, bench.family.signal(1.0)
    silent = {"no_answer": no_root(bench), "negative": ((here.sign <= 0) & (there.sign <= 0)).cpu()}
    idle = (silent["no_answer"] | silent["negative"]).tolist()
    rows = [None if idle[i] else _compare(bench, i) for i in range(len(bench))]

    def column(of: Callable[[Comparison], float]) -> Tensor:
        return torch.tensor([math.nan if found is None else of(found) for found in rows], dtype=torch.float64)

    samples = bench.setting.samples
    numbers: Numbers = {
        "samples": float(samples),
        "doubled": float(2 * samples),
        "gain": column(lambda c: c.first.mean),
        "gain_error": column(lambda c: standard_error(c.first.progress)),
        "on_policy": column(lambda c: c.second.mean),
        "on_policy_error": column(lambda c: standard_error(c.second.progress)),
        "difference": column(lambda c: c.difference),
        "difference_error": column(lambda c: c.error),
        "unseen": column(lambda c: c.unseen),
        "repetitions": float(_repetitions(samples)),
        "alpha_kl": bench.alpha_kl,
    }
    silent["undecided"] = torch.tensor([c is not None and math.isfinite(c.difference) and not c.decided for c in rows])
    return Measurement(column(lambda c: c.difference / (c.first.ceiling or 1.0)), 0.0, numbers, silent)


def _compare(bench: Bench, row: int) -> Comparison:
    """N samples of q at α_KL against 2N on-policy; the same random numbers for every row."""
    problem = Problem(bench.batch.rows(row), bench.setting.weights)
    at_kl = Proposal.of("kl_symmetry", problem, e_geodesic(problem.batch, bench.alpha_kl[row])[0])
    on_policy = Proposal.of("on_policy", problem, problem.log_theta)
    samples = bench.setting.samples
    return compare(problem, (at_kl, samples), (on_policy, 2 * samples), Plan("seed_tilt", _repetitions(samples)))


def _repetitions(samples: int) -> int:
    """Repetitions that a verdict takes: about as many draws in all, whatever N is."""
    return min(max(DRAWN // samples, FEWEST_REPETITIONS), MOST_REPETITIONS)
