"""Certificates: what solve_logits says holds, and what anybody changed afterwards does not."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strategies import FAMILIES, Exact, draw

from geomix_core.certificates import Verification, row_digests, verify
from geomix_core.errors import OptionError, ShapeError
from geomix_core.logits import LogitSolution, solve_logits
from geomix_core.scenarios import real_rows
from geomix_core.status import Status

Pair = tuple[np.ndarray, np.ndarray]


def single(family: str, rows: int, vocab: int, seed: int = 0) -> Pair:
    theta, target = draw(family, rows, vocab, seed)
    return theta.astype(np.float32), target.astype(np.float32)


def with_every_status() -> Pair:
    """solved, on the common support, identical, no interior root, disjoint, invalid."""
    theta, target = single("gaussian", 6, 40)
    target[1, 3] = -np.inf
    target[2] = theta[2]
    target[3] = theta[3]
    target[3][target[3] < np.sort(target[3])[-5]] = -np.inf
    theta[4, :20], target[4, 20:] = -np.inf, -np.inf
    theta[5, 0] = np.nan
    return theta, target


def changed(solution: LogitSolution, row: int, **values: Any) -> LogitSolution:
    """The solution with one row's values replaced."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        column = list(getattr(solution, name))
        column[row] = value
        fields[name] = np.array(column) if isinstance(getattr(solution, name), np.ndarray) else tuple(column)
    return replace(solution, **fields)


def only(verification: Verification, row: int) -> str:
    """The reasons of the one row that differs."""
    assert [d.row for d in verification.differences] == [row]
    assert not verification.holds
    return "; ".join(verification.differences[0].reasons)


@pytest.mark.parametrize("backend", ["compiled", "torch"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_solved_holds(backend: Any, dtype: type) -> None:
    for family in FAMILIES:
        for rows, vocab in ((4, 2), (4, 50), (2, 5_000)):
            theta, target = (x.astype(dtype) for x in draw(family, rows, vocab, seed=1))
            verification = verify(theta, target, solve_logits(theta, target, backend=backend, digests=True))
            assert verification.differences == ()
            assert verification.holds
            assert verification.rows == tuple(range(rows))
            assert verification.digested == rows


def test_near_one_hot_and_near_identical_rows_hold() -> None:
    rng = np.random.default_rng(2)
    for gap in (20, 60, 800, 2000):
        theta, target = rng.normal(size=(2, 3, 300))
        theta[:, 0] += gap
        target[:, 1] += gap
        for a, b in ((theta, target), (theta.astype(np.float32), target.astype(np.float32))):
            assert verify(a, b, solve_logits(a, b)).differences == ()
    for sigma in (1e-6, 1e-4, 0.01, 0.1):
        theta = 2 * rng.normal(size=(4, 3_000))
        target = theta + sigma * rng.normal(size=(4, 3_000))
        for a, b in ((theta, target), (theta.astype(np.float32), target.astype(np.float32))):
            assert verify(a, b, solve_logits(a, b)).differences == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_bundled_rows_hold(dtype: torch.dtype) -> None:
    rows = real_rows()
    theta, target = rows.theta.to(dtype), rows.target.to(dtype)
    assert verify(theta, target, solve_logits(theta, target, digests=True)).holds


STATUSES = (
    Status.SOLVED,
    Status.SOLVED_ON_COMMON_SUPPORT,
    Status.IDENTICAL,
    Status.NO_INTERIOR_ROOT,
    Status.DISJOINT,
    "invalid",
)


def test_every_status_holds() -> None:
    theta, target = with_every_status()
    for backend in ("compiled", "torch"):
        solution = solve_logits(theta, target, backend=backend, digests=True)  # type: ignore[arg-type]
        assert solution.status == STATUSES
        assert verify(theta, target, solution).differences == ()


@pytest.mark.parametrize("row", range(6))
def test_any_other_status_is_caught(row: int) -> None:
    theta, target = with_every_status()
    solution = solve_logits(theta, target)
    for status in STATUSES:
        if status != solution.status[row]:
            assert only(verify(theta, target, changed(solution, row, status=status)), row)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("alpha", "the bound is not the distance"),
        ("bound_smaller", "the bound is not the distance"),
        ("bound_larger", "the bound is not the distance"),
        ("low", "the bound is not the distance"),
        ("low_and_bound", r"Δ\(low\) is"),
        ("high_and_bound", r"Δ\(high\) is"),
        ("all_moved", r"Δ\(low\) is"),
        ("all_moved_back", r"Δ\(high\) is"),
        ("out_of_order", "not in order"),
        ("outside", "not in order"),
        ("not_a_number", "not in order"),
        ("variance", "the variance is"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_forged_number_is_caught(what: str, words: str, dtype: type) -> None:
    theta, target = (x.astype(dtype) for x in single("gaussian", 3, 500))
    solution = solve_logits(theta, target)
    alpha, low, high, bound = (float(x[1]) for x in (solution.alpha, solution.low, solution.high, solution.bound))
    far = 1e-4
    values: dict[str, dict[str, float]] = {
        "alpha": {"alpha": alpha + 0.4 * (high - alpha) + 1e-11, "high": high + 1e-11},
        "bound_smaller": {"bound": bound / 2 - 1e-11},
        "bound_larger": {"bound": 2 * bound + 1e-11},
        "low": {"low": low - far},
        "low_and_bound": {"low": alpha + far, "alpha": alpha + far, "high": alpha + 2 * far, "bound": far},
        "high_and_bound": {"low": alpha - 2 * far, "alpha": alpha - far, "high": alpha - far, "bound": far},
        "all_moved": {"alpha": alpha + far, "low": low + far, "high": high + far},
        "all_moved_back": {"alpha": alpha - far, "low": low - far, "high": high - far},
        "out_of_order": {"low": high, "high": low},
        "outside": {"alpha": 1.5, "high": 1.5, "bound": 1.5},
        "not_a_number": {"alpha": float("nan")},
        "variance": {"variance": 1.05 * float(solution.variance[1])},
    }
    forged = changed(solution, 1, **values[what])
    assert verify(theta, target, solution).holds
    assert re.search(words, only(verify(theta, target, forged), 1))


def test_a_bracket_that_holds_no_more_than_it_says() -> None:
    """A wider interval with the bound that belongs to it is true, if useless: nothing is forged."""
    theta, target = single("gaussian", 1, 50)
    solution = solve_logits(theta, target)
    alpha = float(solution.alpha[0])
    assert verify(theta, target, changed(solution, 0, low=alpha - 0.1, high=alpha + 0.1, bound=0.1)).holds


def test_rows_of_another_file_are_caught() -> None:
    theta, target = single("gaussian", 4, 100)
    other = single("gaussian", 4, 100, seed=9)
    solution = solve_logits(theta, target, digests=True)
    assert [d.row for d in verify(*other, solution).differences] == [0, 1, 2, 3]
    assert [d.row for d in verify(*other, replace(solution, digest=("",) * 4)).differences] == [0, 1, 2, 3]
    swapped = verify(theta[[0, 2, 1, 3]], target[[0, 2, 1, 3]], solution)
    assert [d.row for d in swapped.differences] == [1, 2]
    # One logit that changes nothing else: only the digest tells.
    touched = theta.copy()
    touched[3, np.argmin(touched[3])] -= 1e-3
    assert only(verify(touched, target, solution), 3) == "the digest is that of other logits"
    assert verify(touched, target, replace(solution, digest=("",) * 4)).digested == 0


def test_chosen_rows() -> None:
    theta, target = single("gaussian", 5, 60)
    forged = changed(solve_logits(theta, target, digests=True), 2, alpha=0.1)
    assert verify(theta, target, forged, rows=[0, 4]).holds
    assert verify(theta, target, forged, rows=[4, 2]).rows == (4, 2)
    assert only(verify(theta, target, forged, rows=[4, 2]), 2)
    assert verify(theta, target, forged, rows=[4, 2]).digested == 2
    for row in (-1, 5):
        with pytest.raises(OptionError, match=f"row {row}"):
            verify(theta, target, forged, rows=[row])


def test_a_solution_that_stopped_early() -> None:
    theta, target = single("gaussian", 6, 60)
    part = solve_logits(theta, target, chunk_elements=120, threads=1, on_progress=lambda done, _: done < 4)
    assert verify(theta, target, part).rows == (0, 1, 2, 3)
    assert verify(theta, target, part).holds
    with pytest.raises(OptionError):
        verify(theta, target, part, rows=[4])


def test_memory_mapped_and_single_rows(tmp_path: Path) -> None:
    theta, target = single("zipf", 3, 200)
    np.save(tmp_path / "theta.npy", theta)
    mapped = np.load(tmp_path / "theta.npy", mmap_mode="r")
    solution = solve_logits(mapped, target, digests=True)
    assert verify(mapped, target, solution).holds
    assert verify(torch.from_numpy(theta), target, solution).holds
    assert verify(theta[0], target[0], solve_logits(theta[0], target[0], digests=True)).holds


def test_wrong_shapes() -> None:
    theta, target = single("gaussian", 3, 20)
    solution = solve_logits(theta, target)
    for a, b in ((theta, target[:, :10]), (theta[:2], target[:2]), (theta[None], target[None]), (theta[0], target[0])):
        with pytest.raises(ShapeError):
            verify(a, b, solution)


def test_digests_are_of_both_rows_and_their_dtypes() -> None:
    theta, target = single("gaussian", 2, 30)
    same = row_digests(theta, target)
    assert same == row_digests(torch.from_numpy(theta), target.astype(">f4"))
    assert same == row_digests(np.asfortranarray(theta), target)
    for a, b in ((target, theta), (theta.astype(float), target), (theta.view(np.int32), target), (theta, theta)):
        assert not set(same) & set(row_digests(a, b))


def test_verify_agrees_with_mpmath_on_delta() -> None:
    """The recomputation itself: a bracket one rounding beside the root is what it can still tell."""
    theta, target = draw("gaussian", 1, 10, seed=5)
    root = float(Exact(theta[0], target[0]).alpha_kl())
    solution = solve_logits(theta, target)
    for shift, holds in ((0.0, True), (1e-12, False), (-1e-12, False)):
        low, high = root + shift - 1e-13, root + shift + 1e-13
        alpha = (low + high) / 2
        claim = changed(solution, 0, alpha=alpha, low=low, high=high, bound=max(high - alpha, alpha - low))
        assert verify(theta, target, claim).holds == holds
