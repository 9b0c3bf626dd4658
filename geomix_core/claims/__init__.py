"""What the source document claims, and what a computation says of it.

    verdict = CLAIMS["theorem_1"].check(batch)            # holds, fails, or does not apply: with the numbers compared
    verdicts = check_all(batch, Setting(weights="inverse"))
    found = find_counterexample("section_4_2_shortest")   # the smallest policies that break a claim

A verdict speaks of the input at hand only: numerical agreement is never a proof. `words.words(name, language)` has the
document's statement with its section, the hypotheses that it needs but does not state, and a proof or a reference where
there is one, in English and Chinese.

Where things are:
    learning, family, choosing, results   the claims, in the document's order: parts 2–3, 4, 5, 6–7
    model         Claim, Verdict; conditions: what rows must be; setting: what a claim is checked at
    bench         what several claims need of one batch, computed once
    listing       the document's algorithms as it gives them; work: counting instead of timing
    search        find_counterexample; shrink: the fewest tokens and roundest numbers
    own           a claim of one's own: expressions reads it, quantities says what it may speak of
    ledger        how often each claim held in the census, and the smallest policies that break it
    words         statements in both languages, from words.toml; rows: a claim over rows that were solved before
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from geomix_core.claims.bench import Bench
from geomix_core.claims.choosing import (
    section_5_1_complexity,
    section_5_1_search,
    section_5_4_alpha,
    section_5_4_snr,
    theorem_4_exists,
    theorem_4_identity,
    theorem_4_unique,
)
from geomix_core.claims.family import (
    section_4_1_gradient,
    section_4_1_infeasible,
    section_4_2_geodesic,
    section_4_2_log_linear,
    section_4_2_pareto,
    section_4_2_shortest,
    section_4_3_ends,
)
from geomix_core.claims.learning import (
    section_2_3_noise,
    section_3_6_dimensionless,
    section_3_6_intuition,
    section_3_6_scaling,
    theorem_1,
    theorem_2_gain,
    theorem_2_step,
    theorem_3_equivalence,
    theorem_3_minimax,
    theorem_3_sign,
)
from geomix_core.claims.model import Claim, Outcome, RowVerdicts, Verdict
from geomix_core.claims.results import (
    section_6_1_composition,
    section_6_2_stable,
    section_6_5_mixture,
    section_6_5_off_policy,
    section_6_5_on_policy,
    section_6_5_uniform,
    section_7_3_efficiency,
    theorem_5_equivalent,
    theorem_5_optimal,
)
from geomix_core.claims.search import (
    SearchProgress,
    SearchResult,
    SearchStatus,
    find_counterexample,
)
from geomix_core.claims.setting import Setting
from geomix_core.claims.tables import Table
from geomix_core.policies import PolicyBatch

_IN_ORDER = (
    theorem_1,
    section_2_3_noise,
    theorem_2_step,
    theorem_2_gain,
    theorem_3_equivalence,
    theorem_3_minimax,
    theorem_3_sign,
    section_3_6_dimensionless,
    section_3_6_scaling,
    section_3_6_intuition,
    section_4_1_infeasible,
    section_4_1_gradient,
    section_4_2_log_linear,
    section_4_2_geodesic,
    section_4_2_shortest,
    section_4_2_pareto,
    section_4_3_ends,
    section_5_1_search,
    section_5_1_complexity,
    theorem_4_identity,
    theorem_4_exists,
    theorem_4_unique,
    section_5_4_alpha,
    section_5_4_snr,
    theorem_5_optimal,
    theorem_5_equivalent,
    section_6_1_composition,
    section_6_2_stable,
    section_6_5_on_policy,
    section_6_5_off_policy,
    section_6_5_uniform,
    section_6_5_mixture,
    section_7_3_efficiency,
)

CLAIMS: Mapping[str, Claim] = MappingProxyType({claim.name: claim for claim in _IN_ORDER})
"""Every claim by its name, in the document's order."""


def check_all(batch: PolicyBatch, setting: Setting | None = None, *, assume: bool = False) -> dict[str, RowVerdicts]:
    """Every claim on every row of a batch `[B, V]`; what several claims need is computed once."""
    bench = Bench(batch, setting or Setting())
    return {name: claim.on(bench, assume=assume) for name, claim in CLAIMS.items()}


__all__ = [
    "CLAIMS",
    "Bench",
    "Claim",
    "Outcome",
    "RowVerdicts",
    "SearchProgress",
    "SearchResult",
    "SearchStatus",
    "Setting",
    "Table",
    "Verdict",
    "check_all",
    "find_counterexample",
]
