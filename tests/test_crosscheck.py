"""geomix_core.crosscheck: α_KL by other means, on rows that `solve_alpha` solved and on tables of results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from strategies import draw

from geomix_core import crosscheck
from geomix_core.criteria import solve_alpha
from geomix_core.crosscheck import check_sample, cross_check
from geomix_core.datasets import Dataset, bundled
from geomix_core.errors import DisjointSupportError, OptionError, PolicyError, ShapeError
from geomix_core.files import pair_of
from geomix_core.overview import joined
from geomix_core.policies import PolicyBatch
from geomix_core.results import Plan, solve_chunks
from geomix_core.scenarios import RealRows, real_rows
from geomix_core.status import Status

INF = math.inf
ONE_ROOT = (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)

Alphas = tuple[list[float], list[int]]
"""α of rows that have one, and which rows."""


def solved(theta: Any, target: Any) -> Alphas:
    found = solve_alpha(PolicyBatch.from_logits(theta, target), "kl_symmetry")
    rows = [i for i, status in enumerate(found.status) if status in ONE_ROOT]
    return [float(found.alpha[i]) for i in rows], rows


@pytest.fixture(scope="module")
def real() -> RealRows:
    return real_rows()


@pytest.fixture(scope="module")
def solved_real(real: RealRows) -> Alphas:
    return solved(real.theta, real.target)


def test_cross_check_agrees_on_real_rows(real: RealRows, solved_real: Alphas) -> None:
    check = cross_check(real.theta, real.target, *solved_real)
    assert check.checked == len(real.theta) == 8
    assert check.rows == tuple(range(8))
    assert 0 < min(check.alpha_independent) < max(check.alpha_independent) < 1
    assert check.worst <= 1e-9


def test_cross_check_detects_a_wrong_alpha(real: RealRows, solved_real: Alphas) -> None:
    alphas, rows = list(solved_real[0]), solved_real[1]
    alphas[5] += 1e-5
    check = cross_check(real.theta, real.target, alphas, rows)
    assert check.worst == pytest.approx(1e-5, rel=1e-3)
    assert int(np.argmax(check.differences)) == 5


def test_cross_check_detects_swapped_policies(real: RealRows, solved_real: Alphas) -> None:
    alphas, rows = solved_real
    assert cross_check(real.target, real.theta, alphas, rows, sample=2).worst > 1e-3


@pytest.mark.parametrize("family", ["gaussian", "dirichlet", "zipf", "peaked", "tied"])
@pytest.mark.parametrize("mask", [-INF, -1e4, "finfo"])
def test_cross_check_on_the_common_support(family: str, mask: Any) -> None:
    theta, target = (torch.from_numpy(x).float() for x in draw(family, 12, 30, 9))
    value = torch.finfo(torch.float32).min if mask == "finfo" else mask
    theta[:, 3:6] = value
    target[:, 5:9] = value
    alphas, rows = solved(theta, target)
    check = cross_check(theta, target, alphas, rows, sample=12)
    assert check.checked == len(rows) > 0
    assert check.worst <= 1e-9
    assert check == cross_check(theta.numpy(), target.numpy(), alphas, rows, sample=12)


def test_cross_check_finds_no_root_where_there_is_none() -> None:
    theta, target = np.array([[0.0, -3.0, 5.0]]), np.array([[4.0, 2.0, -INF]])
    found = solve_alpha(PolicyBatch.from_logits(theta, target), "kl_symmetry")
    assert found.status[0] == Status.NO_INTERIOR_ROOT
    assert cross_check(theta, target, [float(found.alpha[0])], [0]).worst == 0, "both report the nearer end point"
    assert cross_check(theta, target, [0.5], [0]).worst == 0.5
    assert cross_check(theta, theta, [0.5], [0]).worst == 0, "identical: every α, 1/2 by convention"


def test_cross_check_samples() -> None:
    theta, target = draw("gaussian", 40, 10, 10)
    alphas, rows = solved(theta, target)
    first = cross_check(theta, target, alphas, rows, sample=5, seed=3)
    assert first.checked == len(set(first.rows)) == 5
    assert list(first.rows) == sorted(first.rows)
    assert [alphas[rows.index(r)] for r in first.rows] == list(first.alpha)
    assert first == cross_check(theta, target, alphas, rows, sample=5, seed=3)
    assert first.rows != cross_check(theta, target, alphas, rows, sample=5, seed=4).rows
    assert cross_check(theta, target, alphas, rows, sample=100).checked == 40
    nothing = cross_check(theta, target, [], [])
    assert (nothing.checked, nothing.worst) == (0, 0.0)


def test_cross_check_uses_none_of_the_solvers() -> None:
    own = {
        value.__module__
        for value in vars(crosscheck).values()
        if getattr(value, "__module__", "").startswith("geomix_core")
    }
    assert own <= {"geomix_core.crosscheck", "geomix_core.errors", "geomix_core.overview"}


@pytest.mark.parametrize(
    ("theta", "target", "alphas", "rows", "options", "error"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3)), [0.5], [0, 1], {}, ShapeError),
        (np.zeros((2, 3)), np.zeros((2, 4)), [0.5], [0], {}, ShapeError),
        (np.zeros((2, 3)), np.zeros((2, 3)), [0.5], [2], {}, ShapeError),
        (np.zeros((2, 3)), np.zeros((2, 3)), [0.5], [0], {"sample": 0}, OptionError),
        (np.full((1, 3), np.nan), np.zeros((1, 3)), [0.5], [0], {}, PolicyError),
        (np.zeros((1, 3)), np.full((1, 3), -INF), [0.5], [0], {}, PolicyError),
        (np.array([[0.0, -INF]]), np.array([[-INF, 0.0]]), [0.5], [0], {}, DisjointSupportError),
    ],
)
def test_cross_check_refuses(
    theta: Any, target: Any, alphas: list[float], rows: list[int], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        cross_check(theta, target, alphas, rows, **options)


# --- a table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_a_sample_of_a_table_is_within_its_bounds(kind: Any) -> None:
    rng = np.random.default_rng(0)
    theta, target = (torch.from_numpy(rng.normal(size=(30, 50)).astype(np.float32)) for _ in range(2))
    if kind == "probs":
        theta, target = torch.softmax(theta.double(), -1), torch.softmax(target.double(), -1)
    theta[3] = torch.nan
    target[4] = theta[4]
    data = Dataset(pair_of({"theta": ("a", theta), "target": ("b", target)}), kind)
    table = joined(list(solve_chunks(data.pair, Plan(kind=kind))))
    found = check_sample(data, table, sample=100)
    assert found.rows == tuple(i for i in range(30) if i not in (3, 4))
    assert found.within == found.checked == 28
    assert found.worst < 1e-5
    assert check_sample(data, table, sample=7).checked == 7
    table["alpha_kl"][10] += 1e-3
    worse = check_sample(data, table, sample=100)
    assert worse.worst == pytest.approx(1e-3, rel=0.01)
    assert worse.within == 27


def test_a_table_without_answers_has_no_sample() -> None:
    data = bundled()
    table = joined(list(solve_chunks(data.pair, Plan())))
    table["status"] = ["invalid"] * len(data)
    assert check_sample(data, table).checked == 0
