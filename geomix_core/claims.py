"""What the source document claims, checked on one pair of policies: a verdict with the numbers that it compared.

A verdict speaks of the input at hand only; agreement is not a proof. The words of each claim and finding are the
screen's business; here are the comparison and its tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from geomix_core.criteria import AlphaResult
from geomix_core.curves import ExpansionError
from geomix_core.geodesics import PathLengths
from geomix_core.policies import PolicyBatch
from geomix_core.reports import RowReport
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
    reason: str = ""
    """Why the claim does not apply, in one word."""


def _silent(claim: str, reason: str) -> Verdict:
    return Verdict(claim, Outcome.DOES_NOT_APPLY, reason=reason)


def _decide(claim: str, holds: bool, **numbers: float) -> Verdict:
    return Verdict(claim, Outcome.HOLDS if holds else Outcome.FAILS, numbers)


def expansion_is_second_order(error: ExpansionError) -> Verdict:
    """Theorem 1: the error of ηΦ₁ − η²Φ₂/2 falls as η³, i.e. with slope 3 (within 0.15) in log–log."""
    slope = error.second_slope
    if math.isnan(slope):
        return _silent("theorem_1", "rounding")
    return _decide("theorem_1", abs(slope - 3) < 0.15, slope=slope)


def quadratic_optimum_is_possible(point: LearningPoint, summary: PairSummary) -> Verdict:
    """Theorem 2: the best step η* brings Φ₁²/(2Φ₂). True of the quadratic by calculus, if Φ₁ > 0.

    As a statement about progress it fails where the quadratic promises more than KL(π_t‖π_θ), which no update can
    bring; the numbers also say what the exact update brings at η* and at its own best step.
    """
    promised, ceiling = point.quadratic_gain, summary.kl_target_theta
    numbers = {
        "promised": promised,
        "actual": point.progress_at_quadratic_step,
        "ceiling": ceiling,
        "best": point.exact_gain,
        "eta": point.quadratic_step,
    }
    if point.phi1 <= 0:
        return _silent("theorem_2", "negative")
    return _decide("theorem_2", promised <= ceiling * (1 + 1e-12), **numbers)


def kl_symmetry_is_unique(result: AlphaResult) -> Verdict:
    """Theorem 4: exactly one α in (0, 1) with equal KLs, for one row."""
    status, alpha = result.status[0], float(result.alpha[0])
    low, high = (float(x) for x in result.bracket[0])
    if status is Status.DISJOINT:
        return _silent("theorem_4", "disjoint")
    return _decide(
        "theorem_4", status in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT), alpha=alpha, low=low, high=high
    )


def snr_agrees_with_kl_symmetry(kl: AlphaResult, snr: AlphaResult, snr_at_kl: float) -> tuple[Verdict, Verdict]:
    """§5.4: |α_SNR − α_KL| < 0.1, and the SNR at α_KL is within 5 % of its maximum; for one row."""
    if not (kl.status[0].is_solution and snr.status[0].is_solution and snr.maxima[0]):
        return _silent("section_5_4_alpha", "no_answer"), _silent("section_5_4_snr", "no_answer")
    a_kl, a_snr, best = float(kl.alpha[0]), float(snr.alpha[0]), snr.maxima[0][0].value
    loss = 1 - abs(snr_at_kl) / best
    return (
        _decide("section_5_4_alpha", abs(a_snr - a_kl) < 0.1, alpha_kl=a_kl, alpha_snr=a_snr, gap=abs(a_snr - a_kl)),
        _decide("section_5_4_snr", loss < 0.05, loss=loss, at_kl=abs(snr_at_kl), best=best),
    )


def family_is_shortest(lengths: PathLengths, row: PolicyBatch) -> Verdict:
    """§4.2, origin 2: "the geodesic is the shortest path". Holds only if the e-geodesic is as short as the distance."""
    e, m, shortest = (float(x[0]) for x in (lengths.e_geodesic, lengths.m_geodesic, lengths.fisher_rao))
    if not bool(row.support.equal):
        return _silent("section_4_2_shortest", "support")
    if shortest < 1e-6:
        return _silent("section_4_2_shortest", "identical")
    return _decide(
        "section_4_2_shortest",
        e <= shortest * (1 + 1e-9),
        e_geodesic=e,
        m_geodesic=m,
        fisher_rao=shortest,
        excess=e / shortest - 1,
    )


def snr_agrees_on_most_rows(reports: Sequence[RowReport]) -> Verdict:
    """§5.4 over many rows: |α_SNR − α_KL| < 0.1 "in most cases", read as on more than half of the rows.

    Counted over the rows on which both criteria single out one α.
    """
    unique = (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)
    gaps = [
        abs(r.alpha_snr - r.alpha_kl)
        for r in reports
        if r.status_kl in unique and r.status_snr in unique and r.alpha_snr is not None and r.alpha_kl is not None
    ]
    if not gaps:
        return _silent("section_5_4_rows", "no_answer")
    near = sum(gap < 0.1 for gap in gaps)
    return _decide("section_5_4_rows", near > len(gaps) / 2, near=near, rows=len(gaps), share=near / len(gaps))
