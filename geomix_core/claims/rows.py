"""A claim over rows that were solved before: from their reports, no policies needed."""

from __future__ import annotations

from collections.abc import Iterable

from geomix_core.claims.choosing import NEAR
from geomix_core.claims.model import Outcome, Verdict
from geomix_core.reports import RowReport
from geomix_core.status import Status


def section_5_4_alpha_from_reports(reports: Iterable[RowReport]) -> Verdict:
    """§5.4 over many rows: |α_SNR − α_KL| < 0.1 "in most cases", read as on more than half of them.

    Counted over the rows on which both criteria single out one α. Numbers: near, rows, share.
    """
    unique = (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)
    gaps = [
        abs(r.alpha_snr - r.alpha_kl)
        for r in reports
        if r.status_kl in unique and r.status_snr in unique and r.alpha_snr is not None and r.alpha_kl is not None
    ]
    if not gaps:
        return Verdict("section_5_4_alpha", Outcome.DOES_NOT_APPLY, reason="no_rows", rows=0)
    rows, near = len(gaps), sum(gap < NEAR for gap in gaps)
    numbers = {"near": float(near), "rows": float(rows), "share": near / rows}
    outcome = Outcome.HOLDS if near > rows / 2 else Outcome.FAILS
    return Verdict("section_5_4_alpha", outcome, max(gaps), NEAR, numbers, rows=rows, held=near)
