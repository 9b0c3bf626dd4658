"""α_KL from raw logits: against mpmath on small rows and Brent's method on large ones; both backends alike."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from numba import njit
from scipy.optimize import brentq
from strategies import EPS, FAMILIES, Exact, draw, logit_pairs

import geomix_core.solvers
from geomix_core import logits as module
from geomix_core import row_chunks
from geomix_core.errors import OptionError, PolicyError, ShapeError
from geomix_core.logits import LogitSolution, solve_logits
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import FAMILIES as SCENARIOS
from geomix_core.scenarios import real_rows, synthetic
from geomix_core.solvers import kernel, onepass
from geomix_core.solvers.lanes import exp2
from geomix_core.status import Status

Pair = tuple[np.ndarray, np.ndarray]
WITHIN = 5e-6
"""What |α − α*|·√Var may be on every row."""
LEAST = float(np.finfo(np.float32).min)

# --- rows --------------------------------------------------------------------------------------------------------


def near(sigma: float) -> Callable[[np.random.Generator, tuple[int, int]], Pair]:
    def make(rng: np.random.Generator, shape: tuple[int, int]) -> Pair:
        theta = 2 * rng.normal(size=shape)
        return theta, theta + sigma * rng.normal(size=shape)

    return make


def one_hot(theta_gap: float, target_gap: float) -> Callable[[np.random.Generator, tuple[int, int]], Pair]:
    def make(rng: np.random.Generator, shape: tuple[int, int]) -> Pair:
        theta, target = rng.normal(size=shape), rng.normal(size=shape)
        theta[:, 0] += theta_gap
        target[:, -1] += target_gap
        return theta, target

    return make


def masked(mask: float) -> Callable[[np.random.Generator, tuple[int, int]], Pair]:
    def make(rng: np.random.Generator, shape: tuple[int, int]) -> Pair:
        theta, target = near(1.0)(rng, shape)
        theta[:, 1::5] = mask
        target[:, 2::7] = mask
        return theta, target

    return make


def offset(rng: np.random.Generator, shape: tuple[int, int]) -> Pair:
    theta, target = near(0.5)(rng, shape)
    return theta + 1e3, target - 1e3


def tied_beside_a_peak(rng: np.random.Generator, shape: tuple[int, int]) -> Pair:
    """Equal tokens, which a float32 lane that also holds the peak rounds the same way each time."""
    theta, target = np.zeros(shape), 0.1 * rng.integers(0, 2, size=shape)
    theta[:, 0], target[:, 0] = rng.uniform(3, 14, size=(2, shape[0]))
    return theta, target


def two_levels(rng: np.random.Generator, shape: tuple[int, int]) -> Pair:
    place = np.arange(shape[1]) / shape[1]
    return 0.7 * (place < 0.6) + np.zeros(shape), rng.uniform(0.1, 1, size=(shape[0], 1)) * (place < 0.3)


MADE: dict[str, Callable[[np.random.Generator, tuple[int, int]], Pair]] = {
    **FAMILIES,
    **{f"near_{sigma:g}": near(sigma) for sigma in (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3)},
    "one_hot_20": one_hot(20, 30),
    "one_hot_60": one_hot(60, 60),
    "one_hot_800": one_hot(800, 800),
    "one_hot_2000": one_hot(2000, 1800),
    "masked_inf": masked(-np.inf),
    "masked_least": masked(LEAST),
    "masked_1e4": masked(-1e4),
    "masked_30": masked(-30.0),
    "low_but_no_mask": masked(-3e3),
    "offset": offset,
    "tied_beside_a_peak": tied_beside_a_peak,
    "two_levels": two_levels,
}


def made(name: str, rows: int, vocab: int, seed: int = 0) -> Pair:
    theta, target = MADE[name](np.random.default_rng([seed, vocab, len(name)]), (rows, vocab))
    return theta.astype(np.float32), target.astype(np.float32)


# --- the oracle --------------------------------------------------------------------------------------------------


class Truth:
    """One row in float64 NumPy and Brent's method, from the logits."""

    def __init__(self, theta: np.ndarray, target: np.ndarray) -> None:
        logs, has = [], []
        for given_logits in (theta, target):
            x = given_logits.astype(np.float64) - given_logits.max()
            on = x >= -4096
            logs.append(np.where(on, x, 0.0) - np.log(np.exp(x[on]).sum()))
            has.append(on)
        common = has[0] & has[1]
        self.theta, self.target = logs[0][common], logs[1][common]
        self.ell = self.target - self.theta
        self.status, self.alpha, self.sigma, self.error = Status.DISJOINT, 0.5, 0.0, 0.0
        if not common.any():
            return
        zero, one = self.delta(0.0), self.delta(1.0)
        if zero - one <= 1e-12 and abs(zero) <= 1e-12:
            self.status = Status.IDENTICAL
        elif zero <= 0 or one >= 0:
            self.status, self.alpha = Status.NO_INTERIOR_ROOT, float(zero > 0)
        else:
            same = np.array_equal(has[0], has[1])
            self.status = Status.SOLVED if same else Status.SOLVED_ON_COMMON_SUPPORT
            self.alpha = float(brentq(self.delta, 0, 1, xtol=1e-15, rtol=4 * EPS, maxiter=200))
            q = self.q(self.alpha)
            away = self.ell - self.delta(self.alpha)
            variance = float(np.sum(q * away**2))
            size = 1 + np.abs(self.theta) + np.abs(self.target)
            self.sigma = variance**0.5
            # The oracle's own rounding, as an error of α.
            self.error = 4 * EPS * float(np.sum(q * size * (1 + np.abs(away)))) / variance + 2e-15

    def q(self, alpha: float) -> np.ndarray:
        x = alpha * self.theta + (1 - alpha) * self.target
        w = np.exp(x - x.max())
        return w / w.sum()

    def delta(self, alpha: float) -> float:
        return float(np.sum(self.q(alpha) * self.ell))


def assert_right(theta: np.ndarray, target: np.ndarray, solution: LogitSolution) -> None:
    """Every row has the oracle's status, its α within WITHIN and within its bound, and the asked-for bound."""
    assert solution.complete
    for i in range(len(solution)):
        truth = Truth(theta[i], target[i])
        assert solution.status[i] == truth.status, i
        assert solution.problem[i] == ""
        error = abs(solution.alpha[i] - truth.alpha)
        assert error * truth.sigma <= WITHIN + truth.error * truth.sigma, i
        if truth.status.is_solution:
            assert error <= solution.bound[i] + truth.error, i
            assert solution.low[i] - truth.error <= truth.alpha <= solution.high[i] + truth.error, i
            assert solution.bound[i] * solution.variance[i] ** 0.5 <= solution.tolerance, i
            assert solution.low[i] <= solution.alpha[i] <= solution.high[i]
        else:
            assert error == 0


def assert_same(a: LogitSolution, b: LogitSolution) -> None:
    """Equal to the last bit."""
    assert a.status == b.status
    assert a.problem == b.problem
    for name in ("alpha", "delta", "variance", "low", "high", "bound", "passes"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


# --- families ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_every_family_at_several_sizes(name: str) -> None:
    for rows, vocab in ((20, 2), (20, 3), (20, 300), (8, 4_096), (2, 50_257)):
        theta, target = made(name, rows, vocab)
        assert_right(theta, target, solve_logits(theta, target, threads=2))


@pytest.mark.parametrize("name", ["gaussian", "zipf", "peaked", "near_0.02", "masked_inf", "tied_beside_a_peak"])
def test_the_largest_vocabulary(name: str) -> None:
    theta, target = made(name, 2, 151_936)
    assert_right(theta, target, solve_logits(theta, target))


@pytest.mark.parametrize("name", MADE)
def test_backends_agree(name: str) -> None:
    for vocab in (2, 50, 1_000):
        theta, target = made(name, 6, vocab, seed=1)
        for dtype in (np.float32, np.float64):
            a, b = theta.astype(dtype), target.astype(dtype)
            fast, slow = solve_logits(a, b, backend="compiled"), solve_logits(a, b, backend="torch")
            assert fast.status == slow.status
            assert (np.abs(fast.alpha - slow.alpha) <= fast.bound + slow.bound).all()
            if dtype is np.float64 and name not in ("near_1e-06", "near_1e-05"):
                # What both give up is solved to 1e-12 in α.
                sigma = np.sqrt(slow.variance)
                assert (np.abs(fast.alpha - slow.alpha) * sigma <= 1e-9 + 1e-12 * sigma).all()


@pytest.mark.parametrize("name", MADE)
def test_float64_against_mpmath(name: str) -> None:
    """A bound that float64 gives is one that fifty digits confirm."""
    theta, target = (x.astype(np.float64) for x in made(name, 2, 12, seed=2))
    for backend in ("compiled", "torch"):
        solution = solve_logits(theta, target, backend=backend)  # type: ignore[arg-type]
        for i in range(2):
            if not solution.solved[i] or solution.status[i] == Status.IDENTICAL:
                continue
            a, b = (np.where(x[i] < x[i].max() - 4096, -np.inf, x[i]) for x in (theta, target))
            truth = float(Exact(a, b).alpha_kl())
            assert abs(solution.alpha[i] - truth) <= solution.bound[i]
            assert solution.bound[i] * solution.variance[i] ** 0.5 <= 1e-7


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(name: str) -> None:
    choices = {p.name: p.choices or (p.default,) for p in SCENARIOS[name].parameters}
    others = next((n for n in ("sigma", "top_mass") if n in choices), None)
    for value in choices[others] if others else (0.0,):
        batch = synthetic(name, **({others: value} if others else {}))
        theta, target = batch.theta.float().numpy(), batch.target.float().numpy()
        assert_right(theta, target, solve_logits(theta, target))


@pytest.mark.parametrize("pair", ["privileged", "int8"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bundled_rows_in_every_dtype(pair: str, dtype: torch.dtype) -> None:
    rows = real_rows(pair)
    theta, target = rows.theta.to(dtype), rows.target.to(dtype)
    solution = solve_logits(theta, target)
    assert solution.dtype == str(dtype).removeprefix("torch.")
    assert_right(theta.double().numpy(), target.double().numpy(), solution)
    if dtype != torch.float64:
        assert_same(solution, solve_logits(theta.float().numpy(), target.float().numpy()))
    else:
        assert (solution.bound * np.sqrt(solution.variance) <= 1e-9).all()


@settings(max_examples=300, deadline=None)
@given(logit_pairs(masks="overlap", max_rows=3))
def test_any_small_rows(pair: Pair) -> None:
    theta, target = (x.astype(np.float32) for x in pair)
    for a, b in zip(theta, target, strict=True):
        # Where Δ is 0 to rounding at an end, whether it crosses is a matter of the last bit.
        truth = Truth(a, b)
        assume(truth.status == Status.IDENTICAL or min(abs(truth.delta(0.0)), abs(truth.delta(1.0))) > 1e-11)
    assert_right(theta, target, solve_logits(theta, target, threads=1))
    assert_right(theta, target, solve_logits(theta, target, backend="torch"))


# --- one row ---------------------------------------------------------------------------------------------------


def test_one_token() -> None:
    for backend in row_chunks.BACKENDS:
        solution = solve_logits(np.float32([[3.0], [-7.0]]), np.float32([[1.0], [2.0]]), backend=backend)
        assert solution.status == (Status.IDENTICAL,) * 2
        assert solution.alpha.tolist() == [0.5, 0.5]


def test_a_single_row_is_a_batch_of_one() -> None:
    theta, target = made("gaussian", 1, 40)
    assert_same(solve_logits(theta[0], target[0]), solve_logits(theta, target))


def test_identical_and_disjoint_rows() -> None:
    theta = made("gaussian", 2, 500)[0]
    target = theta.copy()
    theta[1, :250], target[1, 250:] = -np.inf, -np.inf
    for backend in row_chunks.BACKENDS:
        solution = solve_logits(theta, target, backend=backend)
        assert solution.status == (Status.IDENTICAL, Status.DISJOINT)
        assert solution.alpha.tolist() == [0.5, 0.5]
        assert (solution.low.tolist(), solution.high.tolist()) == ([0, 0], [1, 1])
        assert solution.solved.tolist() == [True, False]


def test_a_target_cut_to_its_own_top_has_no_root() -> None:
    theta, target = made("near_0.3", 4, 2_000)
    target[target < np.sort(target)[:, -20:-19]] = -np.inf
    for backend in row_chunks.BACKENDS:
        solution = solve_logits(theta, target, backend=backend)
        assert_right(theta, target, solution)
        assert set(solution.status) == {Status.NO_INTERIOR_ROOT}
        assert (solution.low == solution.alpha).all()
        assert (solution.bound == 0).all()


def test_rows_of_the_least_float_are_uniform() -> None:
    """Only −inf excludes every token: finfo.min throughout is a row like any other."""
    theta, target = np.full((1, 6), LEAST, np.float32), made("gaussian", 1, 6)[1]
    assert_right(theta, target, solve_logits(theta, target))


def test_float32_leaves_what_it_cannot_decide_to_float64() -> None:
    """In one call, from where float32 has come to: the answer is as good as float64's."""
    theta, target = made("near_0.01", 3, 2_000)
    solution = solve_logits(theta, target)
    assert_right(theta, target, solution)
    double = solve_logits(theta.astype(np.float64), target.astype(np.float64))
    assert np.abs(solution.alpha - double.alpha).max() <= 1e-9
    easy = solve_logits(*made("gaussian", 3, 2_000))
    assert (solution.passes > easy.passes).all()
    assert (easy.bound > 1e-8).all(), "float32 has decided these"


def test_float64_leaves_what_it_cannot_decide_to_torch() -> None:
    theta, target = (x.astype(np.float64) for x in made("one_hot_2000", 3, 50))
    assert (kernel.solve(theta, target, 1e-10)[0] == kernel.HARD).all()
    solution = solve_logits(theta, target)
    assert solution.status == (Status.SOLVED,) * 3
    numbers, _ = module._solve_batch(PolicyBatch.from_logits(theta, target))
    assert np.array_equal(solution.alpha, numbers[:, 0])
    assert (solution.passes > numbers[:, module.PASSES]).all()


def test_a_finer_tolerance_is_met() -> None:
    theta, target = made("gaussian", 5, 3_000)
    coarse, fine = (solve_logits(theta, target, tolerance=t) for t in (2e-5, 1e-9))
    assert (coarse.bound * np.sqrt(coarse.variance)).max() > 1e-9
    assert_right(theta, target, fine)


def test_small_peaked_rows_of_every_scale() -> None:
    rng = np.random.default_rng(3)
    scale = rng.uniform(0.1, 60, (400, 1))
    theta, target = ((scale * rng.normal(size=(400, 7))).astype(np.float32) for _ in range(2))
    assert_right(theta, target, solve_logits(theta, target))


# --- batches, chunks, threads ------------------------------------------------------------------------------------


def mixed(vocab: int = 700) -> Pair:
    parts = [made(name, 2, vocab) for name in MADE]
    theta, target = (np.concatenate(x) for x in zip(*parts, strict=True))
    theta[3, 5], target[7, 6], theta[9] = np.nan, np.inf, -np.inf
    return theta, target


def test_a_batch_gives_what_a_loop_gives() -> None:
    theta, target = mixed()
    whole = solve_logits(theta, target)
    for i in range(len(theta)):
        one = solve_logits(theta[i : i + 1], target[i : i + 1])
        assert (one.status[0], one.problem[0]) == (whole.status[i], whole.problem[i])
        for name in ("alpha", "delta", "variance", "low", "high", "bound", "passes"):
            assert getattr(one, name)[0] == getattr(whole, name)[i]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chunk_elements", [1, 3_000, 1 << 20])
def test_threads_and_chunks_change_nothing(threads: int, chunk_elements: int) -> None:
    theta, target = mixed()
    solution = solve_logits(theta, target, threads=threads, chunk_elements=chunk_elements)
    assert_same(solution, solve_logits(theta, target, threads=1, chunk_elements=10**9))


def test_where_a_row_lies_changes_nothing() -> None:
    """No sum may depend on how near its rows lie to the kernel's own memory."""
    theta, target = (x.astype(np.float16) for x in made("near_0.3", 8, 49_152))
    expected = solve_logits(theta, target, threads=1)
    for _ in range(4):
        assert_same(solve_logits(theta, target, threads=8), expected)


def test_chunks_change_nothing_in_torch() -> None:
    theta, target = mixed(60)
    few = solve_logits(theta, target, backend="torch", chunk_elements=200)
    assert_same(few, solve_logits(theta, target, backend="torch"))


@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_invalid_rows_among_good_ones(backend: row_chunks.Backend) -> None:
    theta, target = made("gaussian", 6, 90)
    good = solve_logits(theta, target, backend=backend)
    theta[1, 4], target[2, 7], theta[4], target[5] = np.nan, np.inf, -np.inf, -np.inf
    solution = solve_logits(theta, target, backend=backend, digests=True)
    assert [s == "invalid" for s in solution.status] == [False, True, True, False, True, True]
    for i, words in {1: "theta has NaN", 2: "target has +inf", 4: "theta has no token", 5: "target has no"}.items():
        assert solution.problem[i].startswith(words)
        assert "row 0" not in solution.problem[i]
        assert (solution.alpha[i], solution.low[i], solution.high[i]) == (0.5, 0, 1)
    for i in (0, 3):
        assert solution.alpha[i] == good.alpha[i]
        assert solution.problem[i] == ""


# --- where the rows come from ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.int64])
def test_memory_mapped_rows(tmp_path: Path, dtype: str) -> None:
    theta, target = (np.round(x * 8).astype(dtype) for x in made("gaussian", 5, 300))
    np.save(tmp_path / "theta.npy", theta)
    np.save(tmp_path / "target.npy", target)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("theta", "target")]
    assert_same(solve_logits(*mapped), solve_logits(theta, target))
    assert_right(theta.astype(np.float64), target.astype(np.float64), solve_logits(*mapped))


def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    shape = (400, 5_000)
    for name in ("theta", "target"):
        out = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float16, shape)
        out[:] = draw("gaussian", *shape, seed=len(name))[0]
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("theta", "target")]
    solve_logits(*(x[:2] for x in mapped), threads=2)
    tracemalloc.start()
    try:
        solve_logits(*mapped, threads=2, chunk_elements=20_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Both inputs widened as a whole would be 16 MB; a chunk of both is 160 kB.
    assert peak < 1_000_000


def test_rows_that_lie_apart() -> None:
    theta, target = made("gaussian", 8, 200)
    expected = solve_logits(np.ascontiguousarray(theta[::2, ::2]), np.ascontiguousarray(target[::2, ::2]))
    assert_same(solve_logits(theta[::2, ::2], target[::2, ::2]), expected)
    a, b = torch.from_numpy(theta), torch.from_numpy(target)
    assert_same(solve_logits(a[::2, ::2], b[::2, ::2]), expected)
    assert_same(solve_logits(a.requires_grad_()[::2, ::2], target[::2, ::2]), expected)
    lists = theta[::2, ::2].astype(np.float64).tolist(), target[::2, ::2].astype(np.float64).tolist()
    assert np.abs(solve_logits(*lists).alpha - expected.alpha).max() < 1e-6


def test_policies_of_two_dtypes() -> None:
    theta, target = made("gaussian", 3, 100)
    half, double = theta.astype(np.float16), target.astype(np.float64)
    solution = solve_logits(half, double)
    assert solution.dtype == "float16, float64"
    assert_same(solution, solve_logits(half.astype(np.float64), double))


def test_the_input_is_not_written_to() -> None:
    theta, target = mixed()
    before = theta.tobytes(), target.tobytes()
    solve_logits(theta, target)
    assert (theta.tobytes(), target.tobytes()) == before
    assert theta.flags.writeable


def test_digests() -> None:
    theta, target = made("gaussian", 3, 50)
    solution = solve_logits(theta, target, digests=True)
    assert len(set(solution.digest)) == 3
    assert {len(x) for x in solution.digest} == {32}
    assert solve_logits(theta, target).digest == ("",) * 3
    assert solve_logits(torch.from_numpy(theta), target, backend="torch", digests=True).digest == solution.digest
    swapped = solve_logits(target, theta, digests=True)
    assert not set(swapped.digest) & set(solution.digest)
    # The same numbers in the other byte order are the same row; in another dtype they are not.
    assert solve_logits(theta.astype(">f4"), target.astype(">f4"), digests=True).digest == solution.digest
    assert not set(solve_logits(theta.astype(float), target, digests=True).digest) & set(solution.digest)


# --- progress ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "threads"), [("compiled", 1), ("compiled", 2), ("torch", 1)])
def test_progress_and_stopping(backend: row_chunks.Backend, threads: int) -> None:
    theta, target = made("gaussian", 10, 100)
    calls: list[tuple[int, int]] = []
    options = {"backend": backend, "threads": threads, "chunk_elements": 200 * threads}
    whole = solve_logits(theta, target, on_progress=lambda *x: calls.append(x), **options)  # type: ignore[arg-type]
    assert calls == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]
    assert whole.complete
    part = solve_logits(theta, target, on_progress=lambda done, _: done < 4, digests=True, **options)  # type: ignore[arg-type]
    assert (len(part), part.rows, part.complete) == (4, 10, False)
    assert np.array_equal(part.alpha, whole.alpha[:4])
    assert len(part.digest) == len(part.problem) == len(part.passes) == 4


# --- backends ----------------------------------------------------------------------------------------------------


def test_importing_does_not_load_numba() -> None:
    code = "import sys, geomix_core.certificates, geomix_core.logits; print(int('numba' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


def test_compiled_and_loaded_code_give_the_same_bits(tmp_path: Path) -> None:
    code = """
import numpy as np
from geomix_core.logit_maxima import maximise_logits
from geomix_core.logits import solve_logits
z = np.random.default_rng(0).normal(size=(2, 20, 3001)).astype(np.float32)
theta, target = 3 * z[0], 3 * z[0] + z[1]
print(*map(float.hex, solve_logits(theta, target).alpha))
print(*map(float.hex, maximise_logits(theta, target, criterion="wald").value))
"""
    command, environment = [sys.executable, "-c", code], {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in range(2)
    )
    assert compiled.count("\n") == 2
    assert compiled == loaded


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, target = made("gaussian", 3, 100)
    expected = solve_logits(theta, target, backend="torch")
    fast = solve_logits(theta, target)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "geomix_core.solvers.kernel")
    monkeypatch.delattr(geomix_core.solvers, "kernel")
    assert_same(solve_logits(theta, target), expected)
    assert not np.array_equal(fast.passes, expected.passes)
    with pytest.raises(OptionError, match="numba cannot be used"):
        solve_logits(theta, target, backend="compiled")


def test_other_devices_are_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, target = made("gaussian", 2, 30)
    meta = torch.empty(2, 30, device="meta")
    for arguments in ((meta, meta), (torch.from_numpy(theta), meta)):
        with pytest.raises(OptionError, match="CPU only"):
            solve_logits(*arguments, backend="compiled")
    with pytest.raises(OptionError, match="CPU only"):
        solve_logits(theta, target, backend="compiled", device="cuda")
    seen, real = [], module._placed

    def placed(rows: object, device: torch.device) -> torch.Tensor:
        seen.append(device.type)
        return real(rows, torch.device("cpu"))

    monkeypatch.setattr(module, "_placed", placed)
    monkeypatch.setattr(module, "_elements_for", lambda device: 1)
    solve_logits(theta, target, device="cuda")
    assert seen == ["cuda"] * 4


def test_out_of_memory_halves_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    theta, target = made("gaussian", 11, 50)
    expected = solve_logits(theta, target, backend="torch")
    real, sizes = onepass.solve, []

    def limited(theta: torch.Tensor, *args: object) -> onepass.Result:
        sizes.append(len(theta))
        if len(theta) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(theta, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(onepass, "solve", limited)
    calls = []
    solution = solve_logits(theta, target, backend="torch", on_progress=lambda done, _: calls.append(done))
    assert_same(solution, expected)
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert calls == [2, 4, 6, 8, 10, 11]

    def never(*args: object) -> onepass.Result:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(onepass, "solve", never)
    with pytest.raises(torch.OutOfMemoryError):
        solve_logits(theta, target, backend="torch")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "fortran"}, "backend is 'fortran'"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"tolerance": float("inf")}, "tolerance is inf"),
        ({"threads": 0}, "threads is 0"),
        ({"chunk_elements": 0}, "chunk_elements is 0"),
    ],
)
def test_wrong_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        solve_logits(np.zeros((1, 2)), np.zeros((1, 2)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("theta", "target", "error"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), ShapeError),
        (np.zeros((2, 3)), np.zeros((3, 3)), ShapeError),
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), ShapeError),
        (np.zeros((0, 3)), np.zeros((0, 3)), ShapeError),
        (np.zeros((3, 0)), np.zeros((3, 0)), ShapeError),
        (1.0, 2.0, ShapeError),
        ([[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0]], ShapeError),
        (np.zeros((1, 2), bool), np.zeros((1, 2)), PolicyError),
        (np.zeros((1, 2)), np.zeros((1, 2), complex), PolicyError),
        (np.zeros((1, 2)), torch.zeros(1, 2, dtype=torch.bool), PolicyError),
        (np.array([["a", "b"]]), np.zeros((1, 2)), PolicyError),
        (None, np.zeros((1, 2)), PolicyError),
        (np.zeros((1, 2)), None, PolicyError),
    ],
)
def test_wrong_arrays(theta: object, target: object, error: type[Exception]) -> None:
    for backend in row_chunks.BACKENDS:
        with pytest.raises(error):
            solve_logits(theta, target, backend=backend)


# --- the kernel's parts ------------------------------------------------------------------------------------------


@njit
def _powers(x, scale, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        out[i] = exp2(x[i], scale)


@pytest.mark.parametrize(("dtype", "relative", "reach"), [(np.float32, 1.3e-7, 125), (np.float64, 4e-16, 1021)])
def test_power_of_two(dtype: type, relative: float, reach: int) -> None:
    scale = kernel.constants(dtype)[3]
    x = -np.concatenate([np.linspace(0, 3, 40_001), np.geomspace(1e-8, 0.999 * reach * np.log(2), 40_001)]).astype(
        dtype
    )
    out = np.empty_like(x)
    _powers(x, scale, out)
    exact = np.exp2(x.astype(np.longdouble) * np.longdouble(scale))
    assert np.abs(out / exact - 1).max() <= relative
    assert out[0] == 1 or abs(out[0] - 1) <= relative
    far = np.array([-reach, -2.0 * reach, -5000, -np.inf], dtype)
    _powers(far, scale, out[:4])
    assert (out[1:4] <= 1.0001 * 2.0**-reach).all()
    assert np.isfinite(out[:4]).all()


def test_quintic_root_against_numpy() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        f0, f1 = -rng.exponential(), rng.exponential()
        d0, d1, c0, c1 = rng.exponential(size=2).tolist() + (3 * rng.normal(size=2)).tolist()
        powers = np.array([[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0], [0, 0, 0, 2, 0, 0], [1] * 6, [5, 4, 3, 2, 1, 0]])
        second = [20, 12, 6, 2, 0, 0]
        coefficients = np.linalg.solve(np.vstack([powers, second]).astype(float), [f0, d0, c0, f1, d1, c1])
        roots = np.roots(coefficients)
        inside = roots[(abs(roots.imag) < 1e-9) & (roots.real >= 0) & (roots.real <= 1)].real
        found = kernel._quintic_root(f0, d0, c0, f1, d1, c1)
        assert np.abs(inside - found).min() <= 1e-9


def test_quintic_root_of_a_line() -> None:
    assert kernel._quintic_root(-1.0, 4.0, 0.0, 3.0, 4.0, 0.0) == pytest.approx(0.25, abs=1e-12)


def test_half_precision_is_widened_exactly() -> None:
    """Every one of the 65 536 numbers, subnormal and infinite ones too."""
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    half = bits.view(np.float16).astype(np.float32)
    brain = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    for found, expected in ((kernel.widened(bits, False), half), (kernel.widened(bits, True), brain)):
        nan = np.isnan(expected)
        assert np.array_equal(np.isnan(found), nan)
        assert np.array_equal(found[~nan].view(np.uint32), expected[~nan].view(np.uint32))
    assert np.array_equal(kernel.widened(bits[::2, ::3], False)[1], kernel.widened(bits, False)[2, ::3], equal_nan=True)
