"""geomix_core.reports and geomix_core.crosscheck: the whole batch's answers, row by row and by other means."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import asdict, astuple, fields
from typing import Any

import numpy as np
import pytest
import torch
from strategies import draw, draw_reference

from geomix_core import crosscheck
from geomix_core.criteria import chernoff_information, solve_alpha
from geomix_core.crosscheck import cross_check
from geomix_core.divergences import ess_fraction, kl
from geomix_core.errors import DisjointSupportError, OptionError, PolicyError, ShapeError
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights, learning_signal
from geomix_core.reports import RowReport, solve_rows, summarise, to_csv
from geomix_core.scenarios import RealRows, real_rows
from geomix_core.status import Status

INF = math.inf
NUMBERS = [f.name for f in fields(RowReport) if f.name not in ("status_kl", "status_snr", "problem")]


def solve(*args: Any, **options: Any) -> list[RowReport]:
    return [report for chunk in solve_rows(*args, **options) for report in chunk]


@pytest.fixture(scope="module")
def real() -> RealRows:
    return real_rows()


@pytest.fixture(scope="module")
def solved_real(real: RealRows) -> list[RowReport]:
    return solve(real.theta, real.target, criteria=["kl_symmetry"])


# --- the same as the whole batch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["importance", "inverse"])
@pytest.mark.parametrize("family", ["gaussian", "zipf", "peaked"])
@pytest.mark.parametrize("with_reference", [False, True])
def test_chunks_equal_the_whole(family: str, weights: Weights, with_reference: bool) -> None:
    theta, target = draw(family, 11, 40, 1)
    reference = draw_reference(11, 40, 1) if with_reference else None
    batch = PolicyBatch.from_logits(theta, target, reference)
    by_kl, by_snr = solve_alpha(batch, "kl_symmetry", weights), solve_alpha(batch, "snr", weights)
    chunks = list(solve_rows(theta, target, reference, weights=weights, chunk_elements=4 * 40))
    assert [len(chunk) for chunk in chunks] == [4, 4, 3]
    rows = [report for chunk in chunks for report in chunk]

    def column(name: str) -> list[Any]:
        return [getattr(row, name) for row in rows]

    assert column("row") == list(range(11))
    assert column("status_kl") == list(by_kl.status)
    assert column("status_snr") == list(by_snr.status)
    assert column("snr_maxima") == [len(m) for m in by_snr.maxima]
    assert column("snr_sign") == [m[0].sign for m in by_snr.maxima]
    for name, expected in {
        "alpha_kl": by_kl.alpha,
        "delta": by_kl.residual,
        "bracket_low": by_kl.bracket[:, 0],
        "bracket_high": by_kl.bracket[:, 1],
        "alpha_snr": by_snr.alpha,
        "snr": learning_signal(batch, by_snr.alpha, weights).snr,
        "kl_target_theta": kl(batch.target, batch.theta),
        "kl_theta_target": kl(batch.theta, batch.target),
        "chernoff": chernoff_information(batch),
        "ess": ess_fraction(batch, by_kl.alpha),
        "theta_mass": batch.support.theta_mass,
        "target_mass": batch.support.target_mass,
    }.items():
        np.testing.assert_allclose(column(name), expected.numpy(), rtol=1e-10, atol=1e-11, err_msg=name)
    assert all(row.problem == "" for row in rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_torch_and_numpy_of_any_dtype_are_the_same_rows(dtype: torch.dtype) -> None:
    theta, target = (torch.from_numpy(x).to(dtype) for x in draw("gaussian", 3, 20, 2))
    from_torch = solve(theta, target)
    assert solve(theta.double().numpy(), target.double().numpy()) == from_torch
    assert solve(theta.tolist(), target.tolist()) == from_torch


def test_one_row_without_its_axis() -> None:
    theta, target = draw("gaussian", 1, 20, 3)
    assert solve(theta[0], target[0]) == solve(theta, target)


def test_memory_mapped_rows_are_read_a_chunk_at_a_time(tmp_path: Any) -> None:
    theta, target = draw("gaussian", 6, 20, 4)
    np.save(tmp_path / "theta.npy", theta)
    mapped = np.load(tmp_path / "theta.npy", mmap_mode="r")
    assert solve(mapped, target, chunk_elements=40) == solve(theta, target, chunk_elements=40)


def test_a_caller_can_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, target = draw("gaussian", 6, 20, 5)
    made: list[int] = []
    original = PolicyBatch.from_logits

    def counting(*args: Any, **kwargs: Any) -> PolicyBatch:
        batch = original(*args, **kwargs)
        made.append(len(batch))
        return batch

    chunks = solve_rows(theta, target, chunk_elements=20)
    monkeypatch.setattr(PolicyBatch, "from_logits", counting)
    assert next(chunks)[0].row == 0
    assert made == [1], "one chunk of one row, and nothing of the rows not asked for"


def test_one_criterion_leaves_the_other_empty() -> None:
    theta, target = draw("gaussian", 2, 20, 6)
    for row in solve(theta, target, criteria=["kl_symmetry"]):
        assert row.status_kl == Status.SOLVED
        assert {row.status_snr, row.alpha_snr, row.snr, row.snr_sign, row.snr_maxima} == {None}
    for row in solve(theta, target, criteria=["snr"]):
        assert row.status_snr == Status.SOLVED
        assert {row.status_kl, row.alpha_kl, row.delta, row.bracket_low, row.chernoff, row.ess} == {None}
        assert row.kl_target_theta is not None


# --- rows with something special ---------------------------------------------------------------------------------


def special_rows() -> tuple[np.ndarray, np.ndarray]:
    theta = np.tile(np.array([0.3, -1.0, 0.5, 1.2]), (7, 1))
    target = np.tile(np.array([1.0, 0.1, -0.4, 0.2]), (7, 1))
    target[1] = theta[1]  # identical
    theta[2, :2], target[2, 2:] = -INF, -INF  # disjoint
    target[3, 0] = -INF  # no coverage
    theta[4, 1], target[4, 1] = -INF, -3.0  # π_θ lacks a token of π_t
    theta[5], target[5] = [2.0, 1.0, -1e4, -1e4], [0.0, 3.0, -1e4, -1e4]  # two tokens: SNR is flat
    theta[6], target[6] = [0.0, -3.0, 5.0, -INF], [0.0, -3.1, -INF, 5.0]  # common support far from both
    return theta, target


def test_special_rows() -> None:
    rows = solve(*special_rows())
    assert [row.status_kl for row in rows[:6]] == [
        Status.SOLVED,
        Status.IDENTICAL,
        Status.DISJOINT,
        Status.SOLVED_ON_COMMON_SUPPORT,
        Status.SOLVED_ON_COMMON_SUPPORT,
        Status.SOLVED,
    ]
    assert rows[1].alpha_kl == rows[1].alpha_snr == 0.5
    assert (rows[1].snr, rows[1].snr_sign, rows[1].snr_maxima) == (0, 0, 0)
    assert rows[1].kl_target_theta == 0

    disjoint = rows[2]
    assert disjoint.status_snr == Status.DISJOINT
    assert {disjoint.alpha_kl, disjoint.delta, disjoint.bracket_low, disjoint.chernoff, disjoint.ess} == {None}
    assert {disjoint.alpha_snr, disjoint.snr, disjoint.snr_sign, disjoint.snr_maxima} == {None}
    assert disjoint.theta_mass == disjoint.target_mass == 0
    assert disjoint.kl_target_theta == disjoint.kl_theta_target == INF

    assert rows[3].status_snr == Status.NO_COVERAGE
    assert rows[3].alpha_snr is None
    assert rows[3].ess == 0
    assert rows[3].kl_theta_target == INF
    assert rows[3].theta_mass is not None
    assert 0 < rows[3].theta_mass < 1 == rows[3].target_mass
    assert rows[4].kl_target_theta == INF

    flat = rows[5]
    assert flat.status_snr == Status.FLAT
    assert (flat.snr_maxima, flat.snr_sign) == (0, 1)
    p, q = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(3.0))
    assert flat.snr == pytest.approx(abs(q - p) / math.sqrt(p * (1 - p)), rel=1e-10), "√χ² with two tokens"


def test_no_interior_root_reports_its_end_point() -> None:
    theta, target = np.array([[0.0, -3.0, 5.0]]), np.array([[4.0, 2.0, -INF]])
    (row,) = solve(theta, target)
    batch = PolicyBatch.from_logits(theta, target)
    assert row.status_kl == Status.NO_INTERIOR_ROOT
    assert row.alpha_kl in (0.0, 1.0)
    assert row.delta is not None
    assert row.delta != 0
    assert row.chernoff == pytest.approx(float(chernoff_information(batch)))


def test_nothing_is_nan() -> None:
    theta, target = special_rows()
    theta = np.vstack([theta, [[np.nan, 0, 0, 0]], [[900.0, 0, -900, 0]]])
    target = np.vstack([target, [[0.0, 0, 0, 0]], [[-900.0, 0, 900, 1]]])
    for weights in ("importance", "inverse"):
        for row in solve(theta, target, weights=weights):
            assert not any(isinstance(value, float) and math.isnan(value) for value in astuple(row))


# --- bad rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "bad", "word"),
    [
        ("theta", np.nan, "NaN"),
        ("target", np.nan, "NaN"),
        ("reference", np.nan, "NaN"),
        ("theta", INF, "+inf"),
        ("target", -INF, "no token"),
    ],
)
@pytest.mark.parametrize("chunk_elements", [1, 60, 1 << 18])
def test_a_bad_row_does_not_stop_the_others(which: str, bad: float, word: str, chunk_elements: int) -> None:
    theta, target = draw("gaussian", 7, 20, 8)
    arrays = {"theta": theta, "target": target, "reference": draw_reference(7, 20, 8)}
    sound = solve(**arrays, chunk_elements=chunk_elements)
    arrays[which] = arrays[which].copy()
    arrays[which][4] = bad
    rows = solve(**arrays, chunk_elements=chunk_elements)
    assert [row.row for row in rows] == list(range(7))
    assert rows[:4] + rows[5:] == sound[:4] + sound[5:]
    assert rows[4].status_kl == rows[4].status_snr == "invalid"
    assert which in rows[4].problem
    assert word in rows[4].problem
    assert "row" not in rows[4].problem.split(".")[0], "the number within a chunk means nothing to a person"
    assert all(getattr(rows[4], name) is None for name in NUMBERS if name != "row")


def test_all_rows_bad() -> None:
    rows = solve(np.full((3, 4), np.nan), np.zeros((3, 4)), criteria=["snr"])
    assert [row.status_snr for row in rows] == ["invalid"] * 3
    assert [row.status_kl for row in rows] == [None] * 3


@pytest.mark.parametrize(
    ("arrays", "options", "error", "words"),
    [
        (((2, 3), (2, 4)), {}, ShapeError, ["[2, 4]", "[2, 3]"]),
        (((2, 3), (3, 3)), {}, ShapeError, ["[3, 3]", "[2, 3]"]),
        (((2, 3), (2, 3), (1, 3)), {}, ShapeError, ["reference", "[1, 3]", "[2, 3]"]),
        (((2, 3, 4), (2, 3, 4)), {}, ShapeError, ["[2, 3, 4]"]),
        (((0, 3), (0, 3)), {}, ShapeError, ["[0, 3]"]),
        (((2, 3), (2, 3)), {"criteria": ["wald"]}, OptionError, ["wald", "kl_symmetry"]),
        (((2, 3), (2, 3)), {"criteria": []}, OptionError, ["No criterion"]),
        (((2, 3), (2, 3)), {"weights": "other"}, OptionError, ["other", "importance"]),
        (((2, 3), (2, 3)), {"chunk_elements": 0}, OptionError, ["chunk_elements"]),
    ],
)
def test_bad_arguments_are_refused_at_once(
    arrays: tuple[tuple[int, ...], ...], options: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        solve_rows(*(np.zeros(shape) for shape in arrays), **options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [lambda: np.zeros((2, 3), complex), lambda: torch.zeros(2, 3, dtype=torch.bool), lambda: [["a", "b", "c"]] * 2],
)
def test_arrays_of_no_real_numbers_are_refused_at_once(make: Callable[[], Any]) -> None:
    with pytest.raises(PolicyError, match=r"target has dtype .*real numbers"):
        solve_rows(np.zeros((2, 3)), make())


# --- CSV and summary ---------------------------------------------------------------------------------------------


def test_csv_holds_the_exact_numbers() -> None:
    theta, target = special_rows()
    theta = np.vstack([theta, np.full((1, 4), np.nan)])
    target = np.vstack([target, np.zeros((1, 4))])
    reports = solve(theta, target)
    text = to_csv(reports)
    assert text.startswith("row,status_kl,alpha_kl,delta,")
    parsed = list(csv.DictReader(io.StringIO(text)))
    assert len(parsed) == len(reports) == 8
    for line, report in zip(parsed, reports, strict=True):
        for name, value in asdict(report).items():
            if value is None:
                assert line[name] == ""
            elif name in NUMBERS:
                assert float(line[name]) == value
            else:
                assert line[name] == str(value)
    assert parsed[0]["status_kl"] == "solved"
    assert parsed[-1]["status_kl"] == "invalid"
    assert "nan" not in text.replace("NaN", "")
    assert to_csv([]).count("\n") == 1


def test_summary() -> None:
    theta, target = special_rows()
    theta = np.vstack([theta, np.full((1, 4), np.nan)])
    target = np.vstack([target, np.zeros((1, 4))])
    reports = solve(theta, target)
    summary = summarise(reports)
    assert summary.rows == 8
    assert summary.invalid == 1
    assert sum(summary.status_kl.values()) == sum(summary.status_snr.values()) == 8
    assert summary.status_kl["invalid"] == summary.status_kl["identical"] == 1
    assert list(summary.status_kl.values()) == sorted(summary.status_kl.values(), reverse=True)
    unique = [r.alpha_kl for r in reports if r.status_kl in ("solved", "solved_on_common_support")]
    assert summary.solved == len(unique)
    assert summary.median_alpha_kl == pytest.approx(np.median(unique))
    assert summary.alpha_kl[0.05] == pytest.approx(np.quantile(unique, 0.05))
    assert list(summary.alpha_kl.values()) == sorted(summary.alpha_kl.values())


def test_summary_of_nothing_solved() -> None:
    for reports in ([], solve(np.zeros((2, 3)), np.zeros((2, 3)), criteria=["snr"])):
        summary = summarise(reports)
        assert summary.median_alpha_kl is None
        assert summary.alpha_kl == {}
        assert summary.status_kl == {}


# --- the independent check ---------------------------------------------------------------------------------------


def alphas_of(reports: list[RowReport]) -> tuple[list[float], list[int]]:
    solved = [(r.alpha_kl, r.row) for r in reports if r.alpha_kl is not None]
    return [alpha for alpha, _ in solved], [row for _, row in solved]


def test_cross_check_agrees_on_real_rows(real: RealRows, solved_real: list[RowReport]) -> None:
    check = cross_check(real.theta, real.target, *alphas_of(solved_real))
    assert check.checked == len(real.theta) == 8
    assert check.rows == tuple(range(8))
    assert 0 < min(check.alpha_independent) < max(check.alpha_independent) < 1
    assert check.worst <= 1e-9


def test_cross_check_detects_a_wrong_alpha(real: RealRows, solved_real: list[RowReport]) -> None:
    alphas, rows = alphas_of(solved_real)
    alphas[5] += 1e-5
    check = cross_check(real.theta, real.target, alphas, rows)
    assert check.worst == pytest.approx(1e-5, rel=1e-3)
    assert int(np.argmax(check.differences)) == 5


def test_cross_check_detects_swapped_policies(real: RealRows, solved_real: list[RowReport]) -> None:
    alphas, rows = alphas_of(solved_real)
    assert cross_check(real.target, real.theta, alphas, rows, sample=2).worst > 1e-3


@pytest.mark.parametrize("family", ["gaussian", "dirichlet", "zipf", "peaked", "tied"])
@pytest.mark.parametrize("mask", [-INF, -1e4, "finfo"])
def test_cross_check_on_the_common_support(family: str, mask: Any) -> None:
    theta, target = (torch.from_numpy(x).float() for x in draw(family, 12, 30, 9))
    value = torch.finfo(torch.float32).min if mask == "finfo" else mask
    theta[:, 3:6] = value
    target[:, 5:9] = value
    reports = [r for r in solve(theta, target, criteria=["kl_symmetry"]) if r.status_kl in crosscheck_statuses()]
    check = cross_check(theta, target, *alphas_of(reports), sample=12)
    assert check.checked == len(reports) > 0
    assert check.worst <= 1e-9
    assert check == cross_check(theta.numpy(), target.numpy(), *alphas_of(reports), sample=12)


def crosscheck_statuses() -> tuple[Status, ...]:
    return (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)


def test_cross_check_finds_no_root_where_there_is_none() -> None:
    theta, target = np.array([[0.0, -3.0, 5.0]]), np.array([[4.0, 2.0, -INF]])
    (row,) = solve(theta, target)
    assert row.alpha_kl is not None
    assert cross_check(theta, target, [row.alpha_kl], [0]).worst == 0, "both report the nearer end point"
    assert cross_check(theta, target, [0.5], [0]).worst == 0.5
    assert cross_check(theta, theta, [0.5], [0]).worst == 0, "identical: every α, 1/2 by convention"


def test_cross_check_samples() -> None:
    theta, target = draw("gaussian", 40, 10, 10)
    alphas, rows = alphas_of(solve(theta, target, criteria=["kl_symmetry"]))
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
    assert own <= {"geomix_core.crosscheck", "geomix_core.errors"}


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
