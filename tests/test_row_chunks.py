"""geomix_core.row_chunks: what arrays are taken as rows of logits, and what is said of one that is no policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from geomix_core.errors import PolicyError, ShapeError
from geomix_core.row_chunks import problem_of, rows_of

INF = np.inf


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((2, 3), (2, 4)), ["[2, 4]", "[2, 3]"]),
        (((2, 3), (3, 3)), ["[3, 3]", "[2, 3]"]),
        (((2, 3), (2, 3), (1, 3)), ["reference", "[1, 3]", "[2, 3]"]),
        (((2, 3, 4), (2, 3, 4)), ["[2, 3, 4]"]),
        (((0, 3), (0, 3)), ["[0, 3]"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...], words: list[str]) -> None:
    with pytest.raises(ShapeError) as caught:
        rows_of(dict(zip(("theta", "target", "reference"), map(np.zeros, shapes), strict=False)))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [lambda: np.zeros((2, 3), complex), lambda: torch.zeros(2, 3, dtype=torch.bool), lambda: [["a", "b", "c"]] * 2],
)
def test_arrays_of_no_real_numbers_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(PolicyError, match=r"target has dtype .*real numbers"):
        rows_of({"theta": np.zeros((2, 3)), "target": make()})


def test_nothing_is_copied_and_one_row_gets_its_axis() -> None:
    theta, target = np.zeros((2, 3)), torch.zeros(2, 3)
    found = rows_of({"theta": theta, "target": target, "reference": None})
    assert found["theta"] is theta
    assert found["target"].data_ptr() == target.data_ptr()
    assert set(found) == {"theta", "target"}
    assert rows_of({"theta": theta[0], "target": target[0]})["theta"].shape == (1, 3)


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
def test_a_bad_row_is_named(which: str, bad: float, word: str) -> None:
    row = {name: np.zeros(4) for name in ("theta", "target", "reference")}
    assert problem_of(row) == ""
    row[which] = np.full(4, bad)
    words = problem_of(row)
    assert which in words
    assert word in words
    assert "row" not in words.split(".")[0], "the number within a batch of one means nothing to a person"
