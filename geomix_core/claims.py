"""What the source document claims, checked on one pair of policies: a verdict with the numbers that it compared.

A verdict speaks of the input at hand only; agreement is not a proof. The words of each claim and finding are the
screen's business; here are the comparison and its tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from geomix_core.criteria import AlphaResult
from geomix_core.curves import ExpansionError
from geomix_core.geodesics import PathLengths
from geomix_core.status import Status
from geomix_core.summary import LearningPoint, PairSummary


class Outcome(StrEnum):
    """Whether a claim holds on the input at hand."""

    HOLDS = "holds"
    FAILS = "fails"
    DOES_NOT_APPLY = "does_not_apply"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one claim, and the numbers that were compared."""

    claim: str
    outcome: Outcome
    numbers: Mapping[str, float] = field(default_factory=dict)


def _decide(claim: str, holds: bool, **numbers: float) -> Verdict:
    return Verdict(claim, Outcome.HOLDS if holds else Outcome.FAILS, numbers)


def expansion_is_second_order(error: ExpansionError) -> Verdict:
    """Theorem 1: the error of ηΦ₁ − η²Φ₂/2 falls as η³, i.e. with slope 3 (within 0.15) in log–log."""
    slope = error.second_slope
    if math.isnan(slope):
        return Verdict("theorem_1", Outcome.DOES_NOT_APPLY)
    return _decide("theorem_1", abs(slope - 3) < 0.15, slope=slope)


def quadratic_optimum_is_reached(point: LearningPoint, summary: PairSummary) -> Verdict:
    """Theorem 2: at η* progress is Φ₁²/(2Φ₂). Holds here if the exact progress at η* is within 5 % of it."""
    promised, actual = point.quadratic_gain, point.progress_at_quadratic_step
    numbers = {
        "promised": promised,
        "actual": actual,
        "ceiling": summary.kl_target_theta,
        "best": point.exact_gain,
        "eta": point.quadratic_step,
    }
    if point.phi1 <= 0:
        return Verdict("theorem_2", Outcome.DOES_NOT_APPLY, numbers)
    return _decide("theorem_2", abs(promised - actual) <= 0.05 * abs(promised), **numbers)


def kl_symmetry_is_unique(result: AlphaResult) -> Verdict:
    """Theorem 4: exactly one α in (0, 1) with equal KLs, for one row."""
    status, alpha = result.status[0], float(result.alpha[0])
    low, high = (float(x) for x in result.bracket[0])
    if status is Status.DISJOINT:
        return Verdict("theorem_4", Outcome.DOES_NOT_APPLY)
    return _decide(
        "theorem_4", status in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT), alpha=alpha, low=low, high=high
    )


def snr_agrees_with_kl_symmetry(kl: AlphaResult, snr: AlphaResult, snr_at_kl: float) -> tuple[Verdict, Verdict]:
    """§5.4: |α_SNR − α_KL| < 0.1, and the SNR at α_KL is within 5 % of its maximum; for one row."""
    if not (kl.status[0].is_solution and snr.status[0].is_solution and snr.maxima[0]):
        return (
            Verdict("section_5_4_alpha", Outcome.DOES_NOT_APPLY),
            Verdict("section_5_4_snr", Outcome.DOES_NOT_APPLY),
        )
    a_kl, a_snr, best = float(kl.alpha[0]), float(snr.alpha[0]), snr.maxima[0][0].snr
    loss = 1 - abs(snr_at_kl) / best
    return (
        _decide("section_5_4_alpha", abs(a_snr - a_kl) < 0.1, alpha_kl=a_kl, alpha_snr=a_snr, gap=abs(a_snr - a_kl)),
        _decide("section_5_4_snr", loss < 0.05, loss=loss, at_kl=abs(snr_at_kl), best=best),
    )


def family_is_shortest(lengths: PathLengths) -> Verdict:
    """§4.2, origin 2: "the geodesic is the shortest path". Holds only if the e-geodesic is as short as the distance."""
    e, m, shortest = (float(x[0]) for x in (lengths.e_geodesic, lengths.m_geodesic, lengths.fisher_rao))
    if shortest < 1e-6:
        return Verdict("section_4_2_shortest", Outcome.DOES_NOT_APPLY)
    return _decide(
        "section_4_2_shortest",
        e <= shortest * (1 + 1e-9),
        e_geodesic=e,
        m_geodesic=m,
        fisher_rao=shortest,
        excess=e / shortest - 1,
    )
