"""geomix_core.overview: every row in one group, quantiles of answers alone, and what is looked at first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from geomix_core.claims import Outcome
from geomix_core.claims.rows import section_5_4_alpha_over_rows
from geomix_core.files import pair_of
from geomix_core.overview import (
    CERTIFIED,
    GROUPS,
    REASONS,
    answers,
    by_attention,
    groups,
    joined,
    overview,
    reasons,
)
from geomix_core.results import COLUMNS, Columns, Plan, solve_chunks
from geomix_core.status import Status

INF = np.inf


def table(**columns: list[Any]) -> Columns:
    """A table with these columns; the others are empty."""
    (count,) = {len(x) for x in columns.values()}
    empty: Columns = {name: [None] * count for name in COLUMNS}
    return empty | {"row": list(range(count)), "problem": [""] * count} | columns


@pytest.fixture(scope="module")
def solved() -> Columns:
    """Rows of every kind, as the solver sees them."""
    rng = np.random.default_rng(0)
    theta, target = rng.normal(size=(2, 12, 40))
    theta[1, 3] = np.nan
    theta[2] = -INF
    target[3] = theta[3]
    theta[4, :20], target[4, 20:] = -INF, -INF
    target[5, :20] = -INF
    theta[6, 2:], target[6, 2:] = -1e4, -1e4
    target[7] = theta[7] + 1e-9 * rng.normal(size=40)
    pair = pair_of({"theta": ("a", torch.from_numpy(theta)), "target": ("b", torch.from_numpy(target))})
    return joined(list(solve_chunks(pair, Plan(("kl_symmetry", "snr", "wald")), chunk_elements=100)))


def test_every_row_is_in_one_group_and_counted(solved: Columns) -> None:
    found, of = overview(solved), groups(solved)
    assert found.rows == 12 == sum(found.groups.values())
    assert [of[i] for i in (1, 2, 3, 4)] == ["refused", "refused", "degenerate", "unanswered"]
    assert {of[i] for i in (0, 6, 8, 9, 10, 11)} == {"certified"}
    assert set(found.problems.values()) == {1}
    assert sum(found.statuses["status"].values()) == sum(found.statuses["status_wald"].values()) == 12
    assert found.bound == max(solved["bound"][i] for i in range(12) if of[i] == "certified")
    assert found.bound <= CERTIFIED
    assert list(found.groups) == list(GROUPS)


def test_quantiles_are_of_answers_alone(solved: Columns) -> None:
    alpha = [a for a, s in zip(solved["alpha_kl"], solved["status"], strict=True) if s.startswith("solved")]
    found = overview(solved)
    assert found.answered == len(alpha)
    for level, value in found.quantiles["alpha_kl"].items():
        assert value == np.quantile(alpha, level) == found.quantile("alpha_kl", level)
    # Two tokens: SNR is constant, and ½ only stands for every α.
    assert solved["status_snr"][6] == Status.FLAT
    assert np.isnan(answers(solved, "alpha_snr")[6])
    empty = overview(table(status=["invalid"], bound=[None]))
    assert empty.quantile("alpha_kl", 0.5) is None
    assert empty.bound is None
    assert empty.quantiles == {}


@pytest.mark.parametrize(
    ("status", "bound", "group"),
    [
        ("invalid", None, "refused"),
        (Status.NOT_CONVERGED, 0.5, "unfinished"),
        (Status.DISJOINT, None, "unanswered"),
        (Status.NO_INTERIOR_ROOT, 0.0, "unanswered"),
        (Status.NO_COVERAGE, None, "unanswered"),
        (Status.SOLVED, 2e-4, "loose"),
        (Status.SOLVED, CERTIFIED, "certified"),
        (Status.SOLVED_ON_COMMON_SUPPORT, 1e-6, "certified"),
        (Status.IDENTICAL, 0.5, "degenerate"),
    ],
)
def test_groups(status: Any, bound: float | None, group: str) -> None:
    assert groups(table(status=[status], bound=[bound])) == [group]


def test_every_status_has_a_group() -> None:
    every = [*Status, "invalid"]
    assert set(groups(table(status=every, bound=[0.0] * len(every)))) <= set(GROUPS)


def test_rows_that_need_attention_come_first() -> None:
    alpha = [0.5 + 0.001 * (i % 5 - 2) for i in range(20)]
    status: list[Any] = [Status.SOLVED] * 20
    bound = [1e-6] * 20
    sign, by_snr = [1] * 20, [str(Status.SOLVED)] * 20
    alpha[3] = 0.9
    alpha[5], status[5], bound[5] = 0.5, Status.IDENTICAL, 0.5
    status[8] = "invalid"
    bound[11] = 1e-2
    sign[13] = -1
    by_snr[17] = str(Status.NO_COVERAGE)
    found = table(status=status, bound=bound, alpha_kl=alpha, snr_sign=sign, status_snr=by_snr)
    order, why = by_attention(found), reasons(found)
    assert sorted(order) == list(range(20))
    assert order[:6] == [8, 11, 13, 5, 17, 3]
    assert [why[i] for i in order[:6]] == [
        "refused", "loose", "away", "degenerate", "other_criterion", "unusual",
    ]  # fmt: skip
    assert {why[i] for i in order[6:]} == {""}
    assert set(why) <= set(REASONS)


def test_a_table_without_answers_has_an_order() -> None:
    found = table(status=["invalid", Status.DISJOINT], bound=[None, None])
    assert by_attention(found) == [0, 1]
    assert reasons(found) == ["refused", "unanswered"]


def test_the_document_s_claim_over_rows() -> None:
    both: list[Any] = [Status.SOLVED] * 4
    found = table(status=both, status_snr=both, alpha_kl=[0.5] * 4, alpha_snr=[0.55, 0.59, 0.45, 1.0])
    verdict = section_5_4_alpha_over_rows(found)
    assert (verdict.outcome, verdict.numbers) == (Outcome.HOLDS, {"near": 3.0, "rows": 4.0, "share": 0.75})
    found["status_snr"] = [Status.FLAT, Status.FLAT, Status.FLAT, Status.SOLVED]
    assert section_5_4_alpha_over_rows(found).outcome is Outcome.FAILS
    found["status_snr"] = [None] * 4
    assert section_5_4_alpha_over_rows(found).outcome is Outcome.DOES_NOT_APPLY
