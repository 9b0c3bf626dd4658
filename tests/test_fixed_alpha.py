"""geomix_core.fixed_alpha against sums written out in NumPy, on all tokens and without any of geomix's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from geomix_core.compression import SMALL
from geomix_core.datasets import Dataset
from geomix_core.files import pair_of
from geomix_core.fixed_alpha import CHOICES, FIXED, OWN, Losses, losses_of, merged, sample_rows
from geomix_core.overview import joined
from geomix_core.results import Columns, Plan, solve_chunks

CRITERIA = ("kl_symmetry", "snr", "wald")


def data_of(theta: Any, target: Any, reference: Any = None) -> Dataset:
    arrays = {"theta": theta, "target": target} | ({} if reference is None else {"reference": reference})
    return Dataset(pair_of({role: (role, torch.as_tensor(x)) for role, x in arrays.items()}))  # type: ignore[misc]


def found_of(data: Dataset, plan: Plan) -> tuple[Columns, Losses]:
    table = joined(list(solve_chunks(data.pair, plan)))
    return table, losses_of(data, plan, table, range(len(data)))


class Row:
    """One row by the document's definitions (§2 to §5)."""

    def __init__(self, *logits: np.ndarray, weights: str, etas: tuple[float, float]) -> None:
        log_p, log_t, *rest = [x - np.logaddexp.reduce(x) for x in logits]
        self.p, self.t = np.exp(log_p), np.exp(log_t)
        self.ell = log_t - log_p
        self.reward = log_t - (rest[0] if rest else log_p)
        self.weights, self.etas = weights, etas

    def q(self, alpha: float) -> np.ndarray:
        q = self.p**alpha * self.t ** (1 - alpha)
        return np.asarray(q / q.sum())

    def farther(self, alpha: float) -> float:
        q = self.q(alpha)
        return float(max((q * np.log(q / self.p)).sum(), (q * np.log(q / self.t)).sum()))

    def tilt(self, alpha: float) -> np.ndarray:
        ratio = self.p / self.q(alpha)
        return np.asarray((ratio if self.weights == "importance" else 1 / ratio) * self.reward)

    def snr(self, alpha: float) -> float:
        h = self.tilt(alpha)
        mean = (self.p * h).sum()
        return float(abs((self.t * h).sum() - mean) / np.sqrt((self.p * (h - mean) ** 2).sum()))

    def worst(self, alpha: float) -> float:
        h = self.tilt(alpha)
        return float(min(eta * (self.t * h).sum() - np.log((self.p * np.exp(eta * h)).sum()) for eta in self.etas))

    def ceiling(self) -> float:
        return float((self.t * self.ell).sum())


@pytest.mark.parametrize("weights", ["importance", "inverse"])
@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("vocab", [30, SMALL + 1000])
def test_losses_are_those_of_the_definitions(weights: Any, with_reference: bool, vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    theta = rng.normal(size=(4, vocab))
    target = theta + rng.uniform(0.2, 1, size=(4, 1)) * rng.normal(size=(4, vocab))
    arrays = [theta, target] + ([theta + 0.3 * rng.normal(size=theta.shape)] if with_reference else [])
    plan = Plan(CRITERIA, weights, (0.4, 1.5))
    data = data_of(*arrays)
    table, found = found_of(data, plan)
    # Atoms stand for the tokens of a large vocabulary: 1e-6, and 5e-4 with a reference of its own.
    tolerance = 1e-9 if vocab <= SMALL else 5e-4 if with_reference else 2e-6
    for i in range(4):
        row = Row(*(x[i] for x in arrays), weights=weights, etas=plan.eta_range)
        own = {name: table[name][i] for name in OWN.values()}
        for choice, alpha in {**own, **FIXED}.items():
            expected = {
                "kl_symmetry": row.farther(alpha) / row.farther(own["alpha_kl"]) - 1,
                "snr": 1 - row.snr(alpha) / row.snr(own["alpha_snr"]),
                "wald": (row.worst(own["alpha_wald"]) - row.worst(alpha)) / row.ceiling(),
            }
            for criterion, value in expected.items():
                said = found.loss[criterion, choice][i]
                if choice == OWN[criterion]:
                    assert said == 0
                else:
                    assert said == pytest.approx(max(value, 0), rel=tolerance, abs=tolerance), (criterion, choice)


def test_no_choice_beats_the_criterion_s_own() -> None:
    """On a dense grid nothing is better than what `solve_chunks` chose, so that a loss of 0 is the least."""
    rng = np.random.default_rng(1)
    theta, target = rng.normal(size=(2, 3, 25))
    table, _ = found_of(data_of(theta, target), Plan(CRITERIA))
    for i in range(3):
        row = Row(theta[i], target[i], weights="importance", etas=(0.5, 2.0))
        grid = np.linspace(0, 1, 401)
        assert row.farther(table["alpha_kl"][i]) <= min(map(row.farther, grid)) + 1e-9
        assert row.snr(table["alpha_snr"][i]) >= max(map(row.snr, grid)) * (1 - 1e-9)
        assert row.worst(table["alpha_wald"][i]) >= max(map(row.worst, grid)) - 1e-9


def test_rows_without_an_answer_lose_nothing_and_are_not_counted() -> None:
    rng = np.random.default_rng(2)
    theta, target = rng.normal(size=(2, 6, 20))
    theta[0, 0] = np.nan
    target[1] = theta[1]
    target[2, :10] = -np.inf  # infinite reward
    theta[3, :10], target[3, 10:] = -np.inf, -np.inf
    table, found = found_of(data_of(theta, target), Plan(CRITERIA))
    for criterion in CRITERIA:
        for choice in CHOICES:
            values = found.loss[criterion, choice]
            assert np.isnan(values[[0, 1, 3]]).all()
            assert not np.isnan(values[[4, 5]]).any()
        assert found.count(criterion, "half") == (3 if criterion == "kl_symmetry" and _answered(table, 2) else 2)
    assert np.isnan(found.loss["snr", "half"][2])


def _answered(table: Columns, row: int) -> bool:
    return str(table["status"][row]).startswith("solved") and np.isfinite(table["kl_target_theta"][row])


def test_only_what_was_solved_is_compared() -> None:
    rng = np.random.default_rng(3)
    theta, target = rng.normal(size=(2, 3, 20))
    _, found = found_of(data_of(theta, target), Plan(("kl_symmetry",)))
    assert {criterion for criterion, _ in found.loss} == {"kl_symmetry"}
    assert found.quantile("snr", "half") is None
    assert found.quantile("kl_symmetry", "alpha_snr") is None
    assert found.quantile("kl_symmetry", "on_policy") == np.median(found.loss["kl_symmetry", "on_policy"])


def test_parts_together_are_the_whole() -> None:
    rng = np.random.default_rng(4)
    theta, target = rng.normal(size=(2, 5, 20))
    data, plan = data_of(theta, target), Plan(CRITERIA)
    table, whole = found_of(data, plan)
    parts = merged([losses_of(data, plan, table, rows) for rows in ([0, 1], [], [2, 3, 4])])
    assert parts.rows == whole.rows == tuple(range(5))
    for key, values in whole.loss.items():
        np.testing.assert_array_equal(parts.loss[key], values)
    assert merged([]).quantile("snr", "half") is None


@pytest.mark.parametrize(("total", "most", "count"), [(1, 128, 1), (5, 128, 5), (1000, 128, 128), (129, 128, 128)])
def test_samples_are_spread_over_all_rows(total: int, most: int, count: int) -> None:
    rows = sample_rows(total, most)
    assert len(rows) == len(set(rows)) == count
    assert rows == sorted(rows)
    assert rows[0] == 0
    assert rows[-1] == total - 1
