"""A claim over rows that were solved before: from their α, no policies needed."""

from __future__ import annotations

import numpy as np

from geomix_core.claims.choosing import NEAR
from geomix_core.claims.model import Outcome, Verdict
from geomix_core.overview import answers
from geomix_core.results import Columns


def section_5_4_alpha_over_rows(table: Columns) -> Verdict:
    """§5.4 over a table of results: |α_SNR − α_KL| < 0.1 "in most cases", read as on more than half of the rows.

    Counted over the rows on which both criteria single out one α. Numbers: near, rows, share.
    """
    gaps = np.abs(answers(table, "alpha_snr") - answers(table, "alpha_kl"))
    gaps = gaps[~np.isnan(gaps)]
    rows, near = len(gaps), int((gaps < NEAR).sum())
    if not rows:
        return Verdict("section_5_4_alpha", Outcome.DOES_NOT_APPLY, reason="no_rows", rows=0)
    numbers = {"near": float(near), "rows": float(rows), "share": near / rows}
    outcome = Outcome.HOLDS if near > rows / 2 else Outcome.FAILS
    return Verdict("section_5_4_alpha", outcome, float(gaps.max()), NEAR, numbers, rows=rows, held=near)
