"""`maximise_logits` and `logit_curves`: compiled against `solve_alpha` and `curves`, and what a caller may do."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import FAMILIES, WEIGHTS, draw, draw_reference

from geomix_core import row_chunks
from geomix_core.errors import CoverageError, DisjointSupportError, OptionError, PolicyError, ShapeError
from geomix_core.logit_curves import logit_curves
from geomix_core.logit_maxima import CRITERIA, LogitMaximum, maximise_logits
from geomix_core.policies import PolicyBatch
from geomix_core.progress import exact_progress, learning_signal
from geomix_core.scenarios import real_rows
from geomix_core.status import Status

INF = np.inf


def same(a: LogitMaximum, b: LogitMaximum) -> bool:
    """Every field, bit by bit."""
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_is_as_high_as_torch(criterion: str, weights: str, referenced: bool, family: str) -> None:
    theta, target = draw(family, 4, 700, 1)
    reference = draw_reference(4, 700, 1) if referenced else None
    fast, slow = (
        maximise_logits(theta, target, reference, criterion=criterion, weights=weights, backend=backend)
        for backend in ("compiled", "torch")
    )
    assert fast.status == slow.status
    scale = np.maximum(np.abs(slow.value), 1e-6)
    assert ((fast.value - slow.value) / scale >= -1e-9).all(), "lower than torch's"
    batch = PolicyBatch.from_logits(theta, target, reference)
    if criterion == "snr":
        there = learning_signal(batch, fast.alpha, weights)
        value, sign = there.snr.numpy(), there.sign.numpy()
    else:
        gains = torch.stack([exact_progress(batch, torch.tensor(fast.alpha), eta, weights) for eta in (0.5, 2.0)])
        value, sign = gains.amin(0).numpy(), None
    assert value == pytest.approx(fast.value, rel=1e-7, abs=1e-12)
    if sign is not None:
        assert np.array_equal(fast.sign, sign)
    assert (fast.passes > 0).all() == (fast.passes > 0).any()
    assert (slow.passes == 0).all()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_kind_of_row(criterion: str) -> None:
    theta = np.array(
        [
            [0.0, 1.0, 2.0, 0.5],
            [0.0, 1.0, 2.0, 0.5],
            [0.0, 1.0, -INF, -INF],
            [0.0, 1.0, 2.0, 0.5],
            [0.0, -INF, 1.0, -INF],
            [0.0, 1.0, -INF, 0.0],
            [np.nan, 1.0, 2.0, 0.0],
            [INF, 1.0, 2.0, 0.0],
            [-INF, -INF, -INF, -INF],
        ]
    )
    target = np.array(
        [
            [1.0, 0.0, 2.0, -1.0],
            [0.0, 1.0, 2.0, 0.5],
            [2.0, 0.0, -INF, -INF],
            [0.0, 1.0, 2.0, -INF],
            [-INF, 0.0, -INF, 1.0],
            [1.0, 0.0, 2.0, -2.5],
            [0.0, 1.0, 2.0, 0.0],
            [0.0, 1.0, 2.0, 0.0],
            [0.0, 1.0, 2.0, 0.0],
        ]
    )
    expected = [
        Status.SOLVED,
        Status.IDENTICAL,
        Status.FLAT if criterion == "snr" else Status.SOLVED,
        Status.NO_COVERAGE,
        Status.DISJOINT,
        Status.SOLVED_ON_COMMON_SUPPORT,
        "invalid",
        "invalid",
        "invalid",
    ]
    for backend in ("compiled", "torch"):
        found = maximise_logits(theta, target, criterion=criterion, backend=backend)
        assert list(found.status) == expected
        assert [bool(words) for words in found.problem] == [word == "invalid" for word in expected]
        assert "NaN" in found.problem[6]
        assert found.solved.tolist() == [isinstance(s, Status) and s.is_solution for s in expected]
        for name in ("alpha", "value", "slope", "low", "high"):
            assert np.isfinite(getattr(found, name)).all(), name
        flat = found.status.index(Status.FLAT) if criterion == "snr" else None
        if flat is not None:
            row = PolicyBatch.from_logits(theta[flat], target[flat])
            assert found.value[flat] == pytest.approx(learning_signal(row, 0.3).snr.item(), rel=1e-9)
        alone = maximise_logits(theta[5], target[5], criterion=criterion, backend=backend)
        assert (alone.alpha[0], alone.value[0]) == (found.alpha[5], found.value[5])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_neither_threads_nor_chunks_nor_where_rows_lie_matter(criterion: str, tmp_path: Path) -> None:
    theta, target = (x.astype(np.float32) for x in draw("zipf", 9, 1_000, 2))
    once = maximise_logits(theta, target, criterion=criterion, threads=1)
    for threads, elements in ((2, 1 << 20), (3, 1_000), (1, 2_500)):
        assert same(once, maximise_logits(theta, target, criterion=criterion, threads=threads, chunk_elements=elements))
    paths = [tmp_path / name for name in ("theta.npy", "target.npy")]
    for path, rows in zip(paths, (theta, target), strict=True):
        np.save(path, rows)
    mapped = [np.load(path, mmap_mode="r") for path in paths]
    assert same(once, maximise_logits(*mapped, criterion=criterion))
    assert same(once, maximise_logits(*map(torch.from_numpy, (theta, target)), criterion=criterion))


def test_half_precision_is_what_it_says_in_float32() -> None:
    theta, target = (torch.from_numpy(x) for x in draw("gaussian", 5, 400, 3))
    for dtype in (torch.bfloat16, torch.float16):
        half = maximise_logits(theta.to(dtype), target.to(dtype))
        wide = maximise_logits(theta.to(dtype).float(), target.to(dtype).float())
        assert np.array_equal(half.alpha, wide.alpha)
        assert half.dtype == str(dtype).removeprefix("torch.")


def test_progress_is_told_and_can_stop() -> None:
    theta, target = draw("gaussian", 6, 50, 4)
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> bool:
        told.append((done, total))
        return done < 3

    part = maximise_logits(theta, target, threads=1, chunk_elements=50, on_progress=tell)
    assert told == [(1, 6), (2, 6), (3, 6)]
    assert (len(part), part.rows, part.complete) == (3, 6, False)
    whole = maximise_logits(theta, target)
    assert whole.complete
    assert np.array_equal(part.alpha, whole.alpha[:3])


def test_wrong_options_and_arrays() -> None:
    theta, target = draw("gaussian", 2, 5, 0)
    for wrong in (
        {"criterion": "kl"},
        {"weights": "none"},
        {"eta_range": (2.0, 1.0)},
        {"backend": "cuda"},
        {"threads": 0},
        {"chunk_elements": 0},
    ):
        with pytest.raises(OptionError):
            maximise_logits(theta, target, **wrong)
    with pytest.raises(ShapeError):
        maximise_logits(theta, target[:1])
    with pytest.raises(PolicyError):
        maximise_logits(theta.astype(complex), target)


def test_without_numba_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    theta, target = draw("gaussian", 2, 40, 6)
    with_numba = maximise_logits(theta, target)
    monkeypatch.setattr(row_chunks, "import_module", missing)
    without = maximise_logits(theta, target)
    assert (without.passes == 0).all()
    assert np.abs(without.alpha - with_numba.alpha).max() <= 1e-6
    with pytest.raises(OptionError, match="install geomix"):
        maximise_logits(theta, target, backend="compiled")
    family, _ = logit_curves(theta[0], target[0])
    assert family.alpha.shape == (101,)


# --- curves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("referenced", [False, True], ids=["own", "independent"])
def test_curves_are_those_of_the_torch_path(weights: str, referenced: bool) -> None:
    real = real_rows("privileged")
    theta, target = real.theta[2].float(), real.target[2].float()
    reference = draw_reference(1, len(theta), 7)[0] if referenced else None
    fast, slow = (
        logit_curves(theta, target, reference, weights, points=21, backend=backend) for backend in ("compiled", "torch")
    )
    bound = 6e-4 if referenced else 2e-6  # of the torch path's atoms, which are the coarser
    for a, b in zip(fast, slow, strict=True):
        for field in fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert x.shape == (21,)
            assert np.abs(x - y).max() <= bound * np.abs(y).max(), field.name


def test_curves_where_a_policy_lacks_tokens() -> None:
    theta, target = draw("gaussian", 1, 50, 8)
    wide = theta.copy()
    wide[0, :5] = -INF
    family, signal = logit_curves(wide, target)
    again, _ = logit_curves(wide, target, backend="torch")
    assert np.abs(family.delta - again.delta).max() <= 1e-12
    assert np.isfinite(signal.signed_snr).all()
    with pytest.raises(CoverageError):
        logit_curves(target, wide)
    with pytest.raises(DisjointSupportError):
        logit_curves([0.0, -INF], [-INF, 0.0])
    with pytest.raises(ShapeError, match="curves are of one"):
        logit_curves(*draw("gaussian", 2, 5, 0))
    with pytest.raises(OptionError):
        logit_curves(theta, target, points=1)
