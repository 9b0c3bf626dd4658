"""The kernels for CUDA, where triton is: on a CUDA device, or in its interpreter (TRITON_INTERPRET=1) on the CPU."""

import os

import numpy as np
import pytest
import torch
from test_logits import MADE, assert_right, made, mixed
from test_onepass import assert_inside

from geomix_core.logits import solve_logits
from geomix_core.solvers import onepass

pytest.importorskip("triton", reason="triton comes with torch for CUDA")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA device", allow_module_level=True)

from geomix_core.solvers import fused

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SPLIT = 8_192
SHAPES = ((3, 2), (3, 7), (4, 5_000), (1, 4_096), (2, 3 * SPLIT + 1), (2, SPLIT), (3, SPLIT + 512), (1, 50_257))
HARDEST = {torch.float32: 1e-6, torch.float64: 2e-14}
"""What `onepass` takes for the rounding of a sum."""


@pytest.fixture(autouse=True)
def several_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "SPLIT", SPLIT)


@pytest.fixture(autouse=True)
def compiles() -> object:
    """What cannot be compiled is done by plain torch: a test would pass without a kernel."""
    yield
    assert set() == onepass._NO_COMPILER


def placed(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(x).to(DEVICE, dtype)


def solved(theta: torch.Tensor, target: torch.Tensor, **options: object) -> onepass.Result:
    wide = torch.float64 if theta.dtype == torch.float64 else torch.float32
    return onepass.solve(theta, target, 1e-10 if wide == torch.float64 else 2e-5, wide, fused=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MADE)
def test_sums_are_those_of_plain_torch(name: str, dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    unit = HARDEST[wide]
    for rows, vocab in SHAPES:
        theta, target = (placed(x, dtype) for x in made(name, rows, vocab, seed=9))
        index = torch.arange(rows, device=DEVICE)
        kernel = onepass._row(_nodes(fused.nodes(theta, target, index, wide).cpu()))
        plain = onepass._row(_nodes(_plain(theta, target).three_nodes(index.cpu())))
        for word in ("disjoint", "equal", "unclear", "top_theta", "top_target"):
            assert torch.equal(getattr(kernel, word), getattr(plain, word)), word
        assert (kernel.masked >= plain.masked).all()
        for word in ("log_theta", "log_target"):
            torch.testing.assert_close(getattr(kernel, word), getattr(plain, word), rtol=0, atol=unit)
        torch.testing.assert_close(kernel.span, plain.span, rtol=4 * unit, atol=4 * unit)
        # Of Σ w aʲ every term may be off by as much of Σ w Rʲ, R being how far a may be from 0.
        away = (plain.moments[1] / plain.moments[0]).nan_to_num().abs() + plain.span
        powers = away.clamp(min=1) ** torch.arange(4)[:, None, None]
        assert ((kernel.moments - plain.moments).abs() <= 30 * unit * powers * (plain.moments[:1] + unit)).all()


def _plain(theta: torch.Tensor, target: torch.Tensor) -> onepass._Passes:
    return onepass._Passes(theta.cpu().double(), target.cpu().double(), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MADE)
def test_what_is_made_of_the_sums(name: str, dtype: torch.dtype) -> None:
    """The same sums in both: what is computed from them may differ by the rounding of float64."""
    rows, vocab = 6, 3_000
    theta, target = (torch.from_numpy(x).to(dtype) for x in made(name, rows, vocab, seed=2))
    passes, index = onepass._Passes(theta, target, dtype), torch.arange(rows)
    rounding, tolerance = (1e-6, 2e-5) if dtype == torch.float32 else (2e-14, 1e-10)
    precision = onepass.Precision(rounding, tolerance, dtype)
    sums = passes.three_nodes(index)
    expected = onepass._start(sums, precision)
    table = torch.empty_like(expected, device=DEVICE)
    fused._launch_rows(fused._start, sums.to(DEVICE), table, precision)
    assert_same_table(table, expected)
    for _ in range(3):
        active = expected[onepass._CODE] == onepass.ACTIVE
        if not active.any():
            break
        sums = passes.tilted(index, expected)
        table = expected.to(DEVICE, copy=True)
        fused._launch_rows(fused._step, sums.contiguous().to(DEVICE), table, precision)
        expected = torch.where(active, onepass._step(expected, sums, precision), expected)
        assert_same_table(table, expected)


def assert_same_table(table: torch.Tensor, expected: torch.Tensor) -> None:
    found, wanted = onepass.State(*table.cpu().unbind()), onepass.State(*expected.unbind())
    assert torch.equal(found.code, wanted.code)
    answered = wanted.code <= onepass.HARD
    for word, x, y in zip(found._fields, found, wanted, strict=True):
        known = ~y.isnan() & (answered | (wanted.code == onepass.ACTIVE))
        if word == "beta":
            known &= wanted.code == onepass.ACTIVE
        if word == "bound":
            assert (x[known] >= y[known] * (1 - 1e-9)).all()
        within = {"beta": 1e-6, "near": 2e-7}.get(word, 1e-9)
        # A bound takes less care of its digits, on the safe side.
        absolute = (
            2e-4 * wanted.bound[known].amax().item() if word in ("low", "high", "bound") and known.any() else 1e-12
        )
        torch.testing.assert_close(x[known], y[known], rtol=within, atol=absolute, msg=word)


def _nodes(sums: torch.Tensor) -> onepass.Nodes:
    return onepass.Nodes(sums[:12], *sums[12:].unbind())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MADE)
def test_every_family(name: str, dtype: torch.dtype) -> None:
    for rows, vocab in SHAPES:
        theta, target = (placed(x, dtype) for x in made(name, rows, vocab, seed=3))
        given = theta.cpu().numpy(), target.cpu().numpy()
        assert_inside(given, solved(theta, target))
        if DEVICE.type == "cuda":
            assert_right(*given, solve_logits(theta, target))


def test_what_is_no_policy() -> None:
    theta, target = made("gaussian", 6, 5_000)
    theta[0, 7], theta[1, 4_000], theta[2], target[3] = np.nan, np.inf, -np.inf, -np.inf
    target[4, 3], theta[4, 4_999] = np.nan, np.inf
    plain = onepass.solve(torch.from_numpy(theta), torch.from_numpy(target), 2e-5, torch.float32)
    kernel = solved(placed(theta, torch.float32), placed(target, torch.float32))
    assert kernel[0].tolist() == plain[0].tolist()
    assert kernel[0][:4].tolist() == [onepass.NAN, onepass.INFINITE, onepass.EMPTY, onepass.EMPTY]


def test_a_row_depends_on_no_other() -> None:
    theta, target = (placed(x, torch.float32) for x in mixed(5_000))
    codes, rows = solved(theta, target)
    for i in range(len(theta)):
        alone = solved(theta[i : i + 1], target[i : i + 1])
        assert alone[0][0] == codes[i]
        assert np.array_equal(alone[1][0], rows[i])
    chosen = torch.tensor([5, 6, 7, 2], device=DEVICE)
    some = solved(theta, target, rows=chosen)
    assert np.array_equal(some[1], rows[chosen.cpu()])


def test_rows_need_not_follow_each_other() -> None:
    theta, target = (placed(x, torch.float32) for x in made("gaussian", 4, 5_001))
    apart = torch.stack([theta, target], 1)
    across = apart.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    expected = solved(theta, target)
    for x in (apart, across):
        assert np.array_equal(solved(x[:, 0], x[:, 1])[1], expected[1])


def test_narrow_logits_are_widened_as_they_are_read() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        theta, target = (placed(x, dtype) for x in made("gaussian", 3, 20_000))
        narrow, wide = solved(theta, target)[1], solved(theta.float(), target.float())[1]
        # The order of summation differs.
        np.testing.assert_allclose(narrow[:, 0], wide[:, 0], rtol=0, atol=2e-7)
