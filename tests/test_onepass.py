"""α_KL in plain torch: against Brent's method and both other solvers, on every kind of row, and what CUDA would run."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_logits import MADE, WITHIN, Pair, Truth, assert_right, assert_same, made, mixed

from geomix_core import logits as module
from geomix_core import row_chunks
from geomix_core.certificates import verify
from geomix_core.logits import solve_logits
from geomix_core.scenarios import REAL_PAIRS, real_rows
from geomix_core.solvers import kernel, onepass
from geomix_core.status import Status

SHAPES = ((20, 2), (20, 3), (20, 300), (6, 2_049), (3, 9_000), (1, 50_257))


def solved(pair: Pair, tolerance: float = 2e-5, **options: object) -> onepass.Result:
    """One precision only, that of the arrays."""
    theta, target = (torch.from_numpy(x) for x in pair)
    return onepass.solve(theta, target, tolerance, theta.dtype, **options)  # type: ignore[arg-type]


def assert_inside(pair: Pair, result: onepass.Result) -> None:
    """What is said to be solved is, within its bound and within WITHIN."""
    codes, rows = result
    for i in np.flatnonzero(codes <= onepass.COMMON):
        truth = Truth(pair[0][i], pair[1][i])
        error = abs(rows[i, 0] - truth.alpha)
        assert truth.status in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)
        assert error <= rows[i, 5] + truth.error, i
        assert rows[i, 3] - truth.error <= truth.alpha <= rows[i, 4] + truth.error, i
        assert error * truth.sigma <= WITHIN + truth.error * truth.sigma, i


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", MADE)
def test_every_family(name: str, dtype: type) -> None:
    for rows, vocab in SHAPES:
        theta, target = (x.astype(dtype) for x in made(name, rows, vocab, seed=3))
        solution = solve_logits(theta, target, backend="torch", digests=True)
        assert_right(theta, target, solution)
        assert verify(theta, target, solution).differences == ()


@pytest.mark.parametrize("name", ["gaussian", "peaked", "near_0.02", "masked_inf", "tied_beside_a_peak"])
def test_the_largest_vocabulary(name: str) -> None:
    theta, target = made(name, 1, 151_936)
    assert_right(theta, target, solve_logits(theta, target, backend="torch"))


@pytest.mark.parametrize("pair", REAL_PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_real_rows_in_every_dtype(pair: str, dtype: torch.dtype) -> None:
    rows = real_rows(pair)
    theta, target = rows.theta.to(dtype), rows.target.to(dtype)
    solution = solve_logits(theta, target, backend="torch")
    assert_right(theta.double().numpy(), target.double().numpy(), solution)
    if dtype != torch.float64:
        assert_same(solution, solve_logits(theta.float(), target.float(), backend="torch"))


def test_against_the_kernel() -> None:
    theta, target = mixed()
    fast, slow = solve_logits(theta, target, backend="compiled"), solve_logits(theta, target, backend="torch")
    assert fast.status == slow.status
    assert fast.problem == slow.problem
    assert (np.abs(fast.alpha - slow.alpha) <= fast.bound + slow.bound + 4e-15).all()


@pytest.mark.parametrize("scale", [0.03, 1, 10, 60])
def test_small_rows_of_every_scale(scale: float) -> None:
    rng = np.random.default_rng(5)
    pair = [(scale * rng.normal(size=(300, 7))).astype(np.float32) for _ in range(2)]
    assert_inside((pair[0], pair[1]), solved((pair[0], pair[1])))
    assert_right(*pair, solve_logits(*pair, backend="torch"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(dtype: type) -> None:
    rng = np.random.default_rng(6)
    theta, target = rng.choice([-700.0, 0.0, 700.0], size=(2, 40, 50)) + rng.normal(size=(2, 40, 50))
    for offset in (0.0, 5e4):
        pair = (theta + offset).astype(dtype), target.astype(dtype)
        assert_inside(pair, solved(pair, 2e-5 if dtype == np.float32 else 1e-10))
        assert_right(*pair, solve_logits(*pair, backend="torch"))


@pytest.mark.parametrize("sigma", ["0.0001", "0.001", "0.01", "0.03", "0.05", "0.1"])
def test_near_identical_rows_need_no_float64(sigma: str) -> None:
    """Differences of log-sum-exps would lose Δ: 1e-7 beside σ² = 1e-8."""
    for vocab in (300, 50_257):
        pair = made(f"near_{sigma}", 4, vocab, seed=7)
        codes, rows = solved(pair)
        assert (codes == onepass.SOLVED).all()
        assert (rows[:, 6] <= 3).all()
        assert_inside(pair, (codes, rows))
        truths = [Truth(a, b) for a, b in zip(*pair, strict=True)]
        assert max(abs(a - t.alpha) * t.sigma for a, t in zip(rows[:, 0], truths, strict=True)) <= 1e-6


def test_ordinary_rows_are_read_twice() -> None:
    for name in ("gaussian", "near_0.3"):
        for dtype, tolerance in ((np.float32, 2e-5), (np.float64, 1e-10)):
            theta, target = (x.astype(dtype) for x in made(name, 4, 50_257))
            assert (solved((theta, target), tolerance)[1][:, 6] == 2).all()


def test_what_is_no_policy() -> None:
    theta, target = made("gaussian", 6, 5_000)
    theta[0, 7], theta[1, 4_000], theta[2], target[3] = np.nan, np.inf, -np.inf, -np.inf
    target[4, 3], theta[4, 4_999] = np.nan, np.inf
    codes, rows = solved((theta, target))
    words = onepass.NAN, onepass.INFINITE, onepass.EMPTY, onepass.EMPTY, onepass.NAN, onepass.SOLVED
    assert codes.tolist() == list(words)
    assert np.isfinite(rows).all()
    assert (rows[:5, 0] == 0.5).all()


def test_masks_that_fill_blocks() -> None:
    """Whole blocks without a token, of one policy or both; constants that a block does not know for masks."""
    theta, target = made("near_0.3", 6, 9_000)
    for i, mask in enumerate((-np.inf, -5e3, float(np.finfo(np.float32).min))):
        theta[i, 2_000:7_000], target[i, 3_000:] = mask, mask
    theta[3, :4_500], target[3, 4_500:] = -np.inf, -1e4
    theta[4, :8_000] -= 3_000  # deep, but no mask
    theta[5, :8_000] = -5_000 + np.linspace(0, 2_000, 8_000)  # masks and tokens within one block
    # R is 3000 in the fifth row, and the sixth is left to others in float64 too.
    assert (solved((theta, target))[0] == onepass.HARD).tolist() == [False] * 4 + [True] * 2
    solution = solve_logits(theta, target, backend="torch")
    assert solution.status[3] == Status.DISJOINT
    assert_right(theta, target, solution)


def test_rows_of_the_least_float_are_uniform() -> None:
    """What fills the last block must not lie above them."""
    theta, target = np.full((1, 5_003), np.finfo(np.float32).min), made("gaussian", 1, 5_003)[1]
    assert solved((theta, target))[0] == onepass.SOLVED
    assert_right(theta, target, solve_logits(theta, target, backend="torch"))


def test_blocks_are_put_together_exactly() -> None:
    rng = np.random.default_rng(10)
    weights, a, shift, scale = rng.random((4, 3, 50)), rng.normal(size=50), 1.7, 0.3
    moments = torch.from_numpy(np.stack([(weights[0] * a**j).sum(-1) for j in range(4)], 1))[:, :, None, None]
    found = onepass._shifted(moments, torch.full((3, 1, 1), scale), torch.full((1, 1), shift))
    for j in range(4):
        expected = scale * (weights[0] * (a + shift) ** j).sum(-1)
        assert found[j, :, 0].numpy() == pytest.approx(expected, rel=1e-6)


def test_no_interior_root() -> None:
    theta, target = made("near_0.3", 4, 3_000)
    target[target < np.sort(target)[:, -20:-19]] = -np.inf
    codes, rows = solved((theta, target))
    assert (codes == onepass.NO_ROOT).all()
    assert_right(theta, target, solve_logits(theta, target, backend="torch"))
    assert (rows[:, 3] == rows[:, 0]).all()
    assert (rows[:, 5] == 0).all()


# --- the weights of a tilted pass ---------------------------------------------------------------------------------


def oracle_log_sum(theta: np.ndarray, target: np.ndarray, beta: float) -> float:
    """K(β) = log Σ e^(u + β(v − u)), each row less its maximum, on the common support."""
    u, v = (x.astype(np.float64) - x.max() for x in (theta, target))
    on = (u >= -4096) & (v >= -4096)
    x = u[on] + beta * (v[on] - u[on])
    return float(x.max() + np.log(np.exp(x - x.max()).sum()))


@pytest.mark.parametrize("name", ["gaussian", "near_0.01", "one_hot_20", "one_hot_60", "masked_inf", "offset"])
@pytest.mark.parametrize("beta", [0.03, 0.5, 0.8])
def test_the_shift_is_the_chord_of_k(name: str, beta: float) -> None:
    """Its weights sum to e^(K − chord), at most 1: any other shift shows here, before it overflows somewhere."""
    pair = made(name, 5, 400)
    theta, target = (torch.from_numpy(x).double() for x in pair)
    passes = onepass._Passes(theta, target, torch.float64)
    rows = torch.arange(5)
    precision = onepass.Precision(2e-14, 1e-10, torch.float64)
    table = onepass._start(passes.three_nodes(rows), precision)
    table[onepass.State._fields.index("beta")] = beta
    sums = passes.tilted(rows, table).sum(-1)[2]
    state = onepass.State(*table.unbind())
    for i in range(5):
        zero, half, one, here = (oracle_log_sum(pair[0][i], pair[1][i], b) for b in (0.0, 0.5, 1.0, beta))
        chord = zero + 2 * beta * (half - zero) if beta < 0.5 else half + (2 * beta - 1) * (one - half)
        assert float(sums[i].log()) == pytest.approx(here - chord, abs=1e-9)
        assert sums[i] <= 1 + 1e-9
        assert float(onepass._chord(state)[i]) == pytest.approx(chord, abs=1e-9)


@pytest.mark.parametrize(("dtype", "gap"), [(np.float32, 50.0), (np.float64, 600.0)])
def test_weights_neither_vanish_nor_overflow(dtype: type, gap: float) -> None:
    """Rows whose K is nearly as small as the precision allows: with the shift's sign wrong no sum would be left."""
    rng = np.random.default_rng(8)
    theta, target = rng.normal(size=(2, 6, 30)).astype(dtype)
    theta[:, 0] += gap
    target[:, -1] += gap * rng.uniform(0.8, 1, 6).astype(dtype)
    result = solved((theta, target), 2e-5 if dtype == np.float32 else 1e-10)
    assert (result[0] == onepass.SOLVED).all()
    assert_inside((theta, target), result)


def test_the_kernels_weights_neither_vanish_nor_overflow() -> None:
    rng = np.random.default_rng(8)
    theta, target = rng.normal(size=(2, 6, 30)).astype(np.float32)
    theta[:, 0] += 50
    target[:, -1] += 45
    codes, rows = kernel.solve(theta, target, 2e-5)
    assert (codes == kernel.SOLVED).all()
    # Solved in float32: what it gives up is solved more finely.
    assert (rows[:, 5] > 1e-9).all()
    assert_inside((theta, target), (codes, rows))


# --- rows do not touch each other ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_gives_what_a_loop_gives(dtype: type) -> None:
    for vocab in (60, 700, 5_000):
        theta, target = (x.astype(dtype) for x in mixed(vocab))
        codes, rows = solved((theta, target))
        for i in range(len(codes)):
            one = solved((theta[i : i + 1], target[i : i + 1]))
            assert one[0][0] == codes[i]
            assert np.array_equal(one[1][0], rows[i]), i


@pytest.mark.parametrize("tile", [1, 1 << 13, 1 << 16, 1 << 24])
def test_tiles_change_nothing(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = mixed(5_000)
    expected = solved(pair)
    monkeypatch.setattr(onepass, "TILE_BYTES", tile)
    found = solved(pair)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_torch_threads_change_nothing() -> None:
    pair = mixed(5_000)
    expected = solved(pair)
    torch.set_num_threads(3)
    try:
        assert np.array_equal(solved(pair)[1], expected[1])
    finally:
        torch.set_num_threads(1)


def test_a_slow_row_leaves_the_others_alone() -> None:
    easy = made("gaussian", 9, 3_000)
    slow = made("one_hot_20", 1, 3_000)
    alone = solved(easy)
    theta, target = (np.insert(x, 4, y, axis=0) for x, y in zip(easy, slow, strict=True))
    codes, rows = solved((theta, target))
    others = np.arange(10) != 4
    assert np.array_equal(codes[others], alone[0])
    assert np.array_equal(rows[others], alone[1])
    assert rows[4, 6] > rows[others, 6].max()


def test_rows_may_be_chosen() -> None:
    pair = mixed()
    codes, rows = solved(pair)
    chosen = torch.tensor([5, 6, 7, 30, 2])
    some = solved(pair, rows=chosen)
    assert np.array_equal(some[0], codes[chosen])
    assert np.array_equal(some[1], rows[chosen])


def test_the_input_is_not_written_to() -> None:
    pair = mixed(5_000)
    before = [x.tobytes() for x in pair]
    solved(pair)
    assert [x.tobytes() for x in pair] == before


def test_codes_are_the_kernels() -> None:
    for name in ("SOLVED", "COMMON", "IDENTICAL", "NO_ROOT", "DISJOINT", "NAN", "INFINITE", "EMPTY", "HARD"):
        assert getattr(onepass, name) == getattr(kernel, name)
    assert (
        tuple(name.lower() for name in ("ALPHA", "DELTA", "VARIANCE", "LOW", "HIGH", "BOUND", "PASSES"))
        == onepass._COLUMNS
    )
    for i, name in enumerate(onepass._COLUMNS):
        assert getattr(kernel, name.upper()) == i


# --- what CUDA would run -------------------------------------------------------------------------------------------


Solve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, onepass.Precision], torch.Tensor]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Callable[[Solve | None], None]:
    """Puts another `solve` in the place of that of `solvers.fused`, or None for a torch that comes without triton."""
    monkeypatch.setattr(onepass, "_NO_COMPILER", set())

    def put(solve: Solve | None) -> None:
        module = None if solve is None else SimpleNamespace(solve=solve)
        monkeypatch.setitem(sys.modules, "geomix_core.solvers.fused", module)

    return put


def test_kernels_are_given_the_rows_and_what_to_reach(kernels: Callable[[Solve | None], None]) -> None:
    theta, target = (torch.from_numpy(x) for x in made("gaussian", 6, 300))
    seen = []

    def solve(theta: torch.Tensor, target: torch.Tensor, rows: torch.Tensor, precision: onepass.Precision) -> object:
        seen.append((rows.tolist(), precision))
        table = torch.zeros(len(onepass.State._fields), len(rows), dtype=torch.float64)
        table[0], table[onepass._CODE] = 0.25, torch.arange(len(rows)) - 1
        return table

    kernels(solve)  # type: ignore[arg-type]
    codes, rows = onepass.solve(theta, target, 1e-4, torch.float32, torch.tensor([4, 1, 2]), fused=True)
    assert seen == [([4, 1, 2], onepass.Precision(5e-7, 1e-4, torch.float32))]
    assert codes.tolist() == [onepass.HARD, onepass.SOLVED, onepass.COMMON]
    assert (rows[:, 0] == 0.25).all()


@pytest.mark.parametrize("missing", ["triton", "compiler"])
def test_without_kernels(missing: str, kernels: Callable[[Solve | None], None]) -> None:
    pair = made("gaussian", 3, 5_000)
    calls = []

    def fails(*_: object) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("Failed to find a C compiler.")

    kernels(None if missing == "triton" else fails)
    for _ in range(2):
        assert np.array_equal(solved(pair, fused=True)[1], solved(pair)[1])
    assert {"cpu"} == onepass._NO_COMPILER
    assert len(calls) == (missing == "compiler")


def test_memory_that_runs_out_is_no_missing_compiler(kernels: Callable[[Solve | None], None]) -> None:
    def fails(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    kernels(fails)
    with pytest.raises(torch.OutOfMemoryError):
        solved(made("gaussian", 3, 5_000), fused=True)
    assert set() == onepass._NO_COMPILER


def test_chunks_take_a_share_of_a_devices_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 80 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    device = torch.device("cuda", 0)
    assert module._elements_for(device) == free // 4 // module.MEMORY_BYTES
    assert module._elements_for(device) > 4_096 * 151_936
    free = 1 << 20
    assert module._elements_for(device) == module.CHUNK_ELEMENTS
    assert module._elements_for(torch.device("cpu")) == module.CHUNK_ELEMENTS


def test_devices_without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """MPS: what needs float64 is computed on the CPU."""
    theta, target = made("gaussian", 2, 30)
    single, double = (
        row_chunks.Rows({"theta": theta.astype(d), "target": target.astype(d)}) for d in (np.float32, np.float64)
    )
    assert single.place("mps").type == "mps"
    assert double.place("mps").type == "cpu"


# --- the pool of the compiled backend ------------------------------------------------------------------------------


def test_threads_are_kept() -> None:
    theta, target = made("gaussian", 8, 500)
    for _ in range(3):
        solve_logits(theta, target, threads=2, chunk_elements=1_000)
    assert row_chunks._pool(os.getpid(), 2) is row_chunks._pool(os.getpid(), 2)
    assert row_chunks._pool(os.getpid(), 2) is not row_chunks._pool(os.getpid(), 3)
    # The caller's thread is the other one.
    assert len(row_chunks._pool(os.getpid(), 1)._threads) == 1


def test_stopping_leaves_the_threads_idle() -> None:
    theta, target = made("gaussian", 40, 500)
    part = solve_logits(theta, target, threads=2, chunk_elements=1_000, on_progress=lambda *_: False)
    assert len(part) < 40
    assert row_chunks._pool(os.getpid(), 1)._work_queue.empty()
    assert solve_logits(theta, target, threads=2).complete


def test_threads_survive_neither_a_fork_nor_the_end() -> None:
    """A child that inherited the pool would wait for threads that it does not have."""
    code = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
from geomix_core.logits import solve_logits
theta, target = np.random.default_rng(0).normal(size=(2, 8, 500)).astype(np.float32)
first = solve_logits(theta, target, threads=2).alpha
child = os.fork()
again = solve_logits(theta, target, threads=2).alpha
if child == 0:
    os._exit(int(not np.array_equal(first, again)))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "0\n"
