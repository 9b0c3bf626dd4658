"""α_KL of every row straight from raw logits, at any size: streamed, with a bound for each row.

    solution = solve_logits(theta, target)      # [B, V], NumPy (memory-mapped too) or torch
    solution.alpha, solution.bound              # [B]: |α − α*| ≤ bound

Two backends. "compiled" (`solvers.kernel`, numba, CPU) solves a row in the precision of its input, and again in
float64 where float32 cannot decide it. "torch" is the reference and the fallback: `PolicyBatch` and
`solvers.kl_symmetry` in float64, on the device of the input; it also has the last word on rows that the kernel gives
up. `certificates.verify` recomputes a solution without either.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from geomix_core.certificates import dtype_name, row_digests
from geomix_core.errors import OptionError, PolicyError
from geomix_core.geodesics import tilted_moments
from geomix_core.policies import PolicyBatch, device_of
from geomix_core.reports import RowStatus, problem_of, rows_of
from geomix_core.solvers.kl_symmetry import find_roots
from geomix_core.status import Status

Backend = Literal["auto", "compiled", "torch"]
BACKENDS: tuple[Backend, ...] = ("auto", "compiled", "torch")

Progress = Callable[[int, int], object]
"""Called with (rows done, rows); returning False stops."""

FINE_TOLERANCE = 1e-10
"""What float64 solves to, unless something finer is asked for."""
GROUP_ELEMENTS = 1 << 16
"""Logits of each policy that are widened to float64 at a time, where float32 could not decide."""

_ROUNDING = {torch.float32: 5e-7, torch.float64: 2e-14}
"""Error of Δ in the units of `solvers.kernel.solve_row`."""
_COLUMNS = ("alpha", "delta", "variance", "low", "high", "bound", "passes")
"""In the order of `solvers.kernel.ALPHA` … `PASSES`."""
_PLACEHOLDER = (0.5, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0)
_CODES: tuple[RowStatus, ...] = (
    Status.SOLVED,
    Status.SOLVED_ON_COMMON_SUPPORT,
    Status.IDENTICAL,
    Status.NO_INTERIOR_ROOT,
    Status.DISJOINT,
    "invalid",
    "invalid",
    "invalid",
)
"""In the order of `solvers.kernel.SOLVED` … `EMPTY`."""


@dataclass(frozen=True, eq=False)
class LogitSolution:
    """α_KL of each row, and how far it can be from the root. Never NaN. Arrays are `[B]`, float64 but for `passes`.

    Where on_progress stopped early it holds the rows that were finished, the first of `rows`.
    """

    alpha: np.ndarray
    """The weight of π_θ in q_α. 1/2 is a placeholder where `status` is disjoint or "invalid"."""
    status: tuple[RowStatus, ...]
    problem: tuple[str, ...]
    """Why a row is invalid; "" for the others."""
    delta: np.ndarray
    """Δ in nats at the last evaluation, from which α is one step away."""
    variance: np.ndarray
    """Var_q[ℓ] there, nats²."""
    low: np.ndarray
    high: np.ndarray
    """Δ(low) ≥ 0 ≥ Δ(high): the root lies between. Both are α where Δ has no root inside (0, 1)."""
    bound: np.ndarray
    """|α − α*| is at most this: the sums' rounding is allowed for, that of the given logits is not."""
    passes: np.ndarray
    """How often the row was read, all precisions together."""
    dtype: str
    """Of the input, such as "float32"; "float32, float64" where the two policies differ."""
    digest: tuple[str, ...]
    """BLAKE2b of the bytes of the row's two policies, in hexadecimal; "" where not asked for."""
    tolerance: float
    """What bound·√variance was to be at most: a length in the Fisher–Rao metric."""
    rows: int
    """Rows of the input."""

    def __len__(self) -> int:
        return len(self.status)

    @property
    def complete(self) -> bool:
        """False where on_progress stopped before the last row."""
        return len(self) == self.rows

    @property
    def solved(self) -> np.ndarray:
        """Boolean `[B]`: α is an answer, not a placeholder or an end point."""
        return np.array([isinstance(s, Status) and s.is_solution for s in self.status], dtype=bool)


def solve_logits(
    theta: Any,
    target: Any,
    *,
    tolerance: float = 2e-5,
    backend: Backend = "auto",
    threads: int | None = None,
    chunk_elements: int = 1 << 20,
    digests: bool = False,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> LogitSolution:
    """α_KL (the root of Δ, document §5.2) of every row, chunk by chunk; the input is never copied as a whole.

    A row's answer depends on no other row, nor on `threads` or `chunk_elements`. Half precision is widened to float32,
    what float32 cannot decide is solved in float64, and so is float64 input. A row with NaN, +inf or no token is
    "invalid", and the others are solved.

    Args:
        theta, target: logits `[B, V]` (or `[V]`: one row), NumPy (memory-mapped too) or torch, any float dtype.
        tolerance: what |α − α*|·√Var may be.
        backend: "compiled" (numba, CPU), "torch", or "auto": compiled where numba can be used and the input is on the
            CPU, else torch.
        threads: of the compiled backend; by default one a core.
        chunk_elements: at most this many logits of each policy at a time (but at least one row a thread).
        digests: whether to hash the rows, so that `certificates.verify` knows them again.
        device: where to compute, as for `PolicyBatch.from_logits`; by default where `theta` lies.
        on_progress: called with (rows done, rows) after every chunk; if it returns False, what is done is returned.

    Raises ShapeError, PolicyError (arrays that hold no real numbers) or OptionError at once.
    """
    if not 0 < tolerance < math.inf:
        raise OptionError(f"tolerance is {tolerance:g}: expected a positive number.")
    if backend not in BACKENDS:
        raise OptionError(f"backend is {backend!r}: expected one of {', '.join(BACKENDS)}.")
    if threads is not None and threads < 1:
        raise OptionError(f"threads is {threads}: expected at least 1.")
    if chunk_elements < 1:
        raise OptionError(f"chunk_elements is {chunk_elements}: expected at least 1.")
    pair = _Pair(**rows_of({"theta": theta, "target": target}), digests=digests)
    kernel = _kernel(backend, pair, device)
    total, vocab = pair.theta.shape
    if kernel is None:
        parts = _torch_parts(pair, max(1, chunk_elements // vocab), device)
    else:
        workers = min(threads or os.cpu_count() or 1, total)
        step = min(max(1, chunk_elements // (vocab * workers)), math.ceil(total / workers))
        parts = _compiled_parts(kernel, pair, step, workers, tolerance)
    done: list[_Part] = []
    with closing(parts):
        for part in parts:
            done.append(part)
            go_on = True if on_progress is None else on_progress(part.stop, total)
            if go_on is not None and not go_on:
                break
    numbers = {name: np.concatenate([p.numbers[:, i] for p in done]) for i, name in enumerate(_COLUMNS)}
    return LogitSolution(
        **{**numbers, "passes": numbers["passes"].astype(np.int64)},
        status=tuple(s for p in done for s in p.status),
        problem=tuple(s for p in done for s in p.problem),
        digest=tuple(s for p in done for s in p.digest),
        dtype=pair.dtype,
        tolerance=tolerance,
        rows=total,
    )


@dataclass(frozen=True)
class _Pair:
    """Both policies' logits `[B, V]` as they were given."""

    theta: Any
    target: Any
    digests: bool

    @cached_property
    def dtype(self) -> str:
        return ", ".join(dict.fromkeys(dtype_name(x) for x in (self.theta, self.target)))

    @cached_property
    def working(self) -> np.dtype[Any]:
        """float32 where it holds both exactly."""
        single = {"float16", "bfloat16", "float32"}
        return np.dtype(np.float32 if set(self.dtype.split(", ")) <= single else np.float64)

    @property
    def on_cpu(self) -> bool:
        return all(x.device.type == "cpu" for x in (self.theta, self.target) if isinstance(x, Tensor))

    def slices(self, start: int, stop: int) -> dict[str, Any]:
        return {"theta": self.theta[start:stop], "target": self.target[start:stop]}

    def part(self, start: int, stop: int, numbers: np.ndarray, status: list[RowStatus], problem: list[str]) -> _Part:
        digests = row_digests(**self.slices(start, stop)) if self.digests else ("",) * (stop - start)
        return _Part(stop, numbers, status, problem, digests)


@dataclass(frozen=True)
class _Part:
    """What was found for the rows up to `stop` that no earlier part holds; `numbers` has the columns `_COLUMNS`."""

    stop: int
    numbers: np.ndarray
    status: list[RowStatus]
    problem: list[str]
    digest: tuple[str, ...]


Parts = Generator[_Part, None, None]


def _kernel(backend: Backend, pair: _Pair, device: torch.device | str | None) -> ModuleType | None:
    """The compiled kernel, or None for torch. numba is only imported here: it takes a second."""
    on_cpu = pair.on_cpu if device is None else device_of(device).type == "cpu"
    if backend == "torch" or (backend == "auto" and not (on_cpu and pair.on_cpu)):
        return None
    if not (on_cpu and pair.on_cpu):
        raise OptionError("backend is 'compiled', which runs on the CPU only: choose 'auto' or 'torch' for a device.")
    try:
        from geomix_core.solvers import kernel
    except (ImportError, RuntimeError) as error:  # RuntimeError: numba finds no folder for its cache
        if backend == "compiled":
            raise OptionError(
                f"backend is 'compiled' but numba cannot be used ({type(error).__name__}): install geomix[fast], or "
                "choose 'auto' or 'torch'."
            ) from error
        return None
    return kernel


# --- compiled ----------------------------------------------------------------------------------------------------


def _compiled_parts(kernel: ModuleType, pair: _Pair, step: int, workers: int, tolerance: float) -> Parts:
    """`step` rows at a time, in order; the kernel releases the GIL."""
    total = len(pair.theta)
    blocks = ((start, min(start + step, total)) for start in range(0, total, step))
    if workers == 1:
        for start, stop in blocks:
            yield _compiled_part(kernel, pair, start, stop, tolerance)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[_Part]] = deque()
    try:
        for start, stop in blocks:
            waiting.append(pool.submit(_compiled_part, kernel, pair, start, stop, tolerance))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _compiled_part(kernel: ModuleType, pair: _Pair, start: int, stop: int, tolerance: float) -> _Part:
    given = pair.slices(start, stop)
    theta, target = (_contiguous(kernel, x, pair.working) for x in given.values())
    fine = min(tolerance, FINE_TOLERANCE)
    single = pair.working == np.float32
    codes, numbers = kernel.solve(theta, target, tolerance if single else fine)
    status: list[RowStatus] = [Status.NOT_CONVERGED] * len(codes)
    for group in _groups(np.flatnonzero(codes == kernel.HARD), theta.shape[1]):
        rows = theta[group].astype(np.float64), target[group].astype(np.float64)
        passes = numbers[group, kernel.PASSES]
        if single:
            codes[group], numbers[group] = kernel.solve(*rows, fine)
            numbers[group, kernel.PASSES] += passes
        last = np.flatnonzero(codes[group] == kernel.HARD)
        if last.size:
            passes = numbers[group[last], kernel.PASSES]
            numbers[group[last]], said = _solve_batch(PolicyBatch.from_logits(rows[0][last], rows[1][last]))
            numbers[group[last], kernel.PASSES] += passes
            for i, word in zip(group[last].tolist(), said, strict=True):
                status[i] = word
    problem = [""] * len(codes)
    for i, code in enumerate(codes.tolist()):
        if code != kernel.HARD:
            status[i] = _CODES[code]
        if status[i] == "invalid":
            problem[i] = problem_of({name: x[i] for name, x in given.items()})
    return pair.part(start, stop, numbers, status, problem)


def _groups(rows: np.ndarray, vocab: int) -> Iterator[np.ndarray]:
    """The rows' numbers, few enough at a time to be widened."""
    size = max(1, GROUP_ELEMENTS // vocab)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _contiguous(kernel: ModuleType, rows: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Rows as the kernel takes them; a view where they lie so already."""
    brain = isinstance(rows, Tensor) and rows.dtype == torch.bfloat16
    if isinstance(rows, Tensor):
        rows = rows.view(torch.uint16).numpy() if brain else rows.numpy()
    if dtype == np.float32 and (brain or rows.dtype == np.float16):
        wide: np.ndarray = kernel.widened(rows if brain else rows.view(np.uint16), brain)
        return wide
    if brain:
        rows = kernel.widened(rows, brain)
    return np.require(rows, dtype, ["C", "A"])


# --- torch -------------------------------------------------------------------------------------------------------


def _torch_parts(pair: _Pair, step: int, device: torch.device | str | None) -> Parts:
    """`step` rows at a time, and half as many whenever the device's memory does not suffice."""
    start, total = 0, len(pair.theta)
    while start < total:
        step = min(step, total - start)
        part = None
        try:
            part = _torch_part(pair, start, start + step, device)
        except torch.OutOfMemoryError:
            if step == 1:
                raise
        if part is None:
            # Outside of the except: the error's traceback holds on to the tensors.
            torch.cuda.empty_cache()
            step //= 2
            continue
        start += step
        yield part


def _torch_part(pair: _Pair, start: int, stop: int, device: torch.device | str | None) -> _Part:
    given = pair.slices(start, stop)
    problem = [""] * (stop - start)
    try:
        numbers, status = _solve_batch(PolicyBatch.from_logits(**given, device=device))
    except PolicyError:
        problem = [problem_of({name: x[i] for name, x in given.items()}) for i in range(stop - start)]
        good = [i for i, words in enumerate(problem) if not words]
        numbers, status = np.tile(_PLACEHOLDER, (stop - start, 1)), ["invalid"] * (stop - start)
        if good:
            sound = {name: x[good] for name, x in given.items()}
            numbers[good], said = _solve_batch(PolicyBatch.from_logits(**sound, device=device))
            for i, word in zip(good, said, strict=True):
                status[i] = word
    return pair.part(start, stop, numbers, status, problem)


def _solve_batch(batch: PolicyBatch) -> tuple[np.ndarray, list[RowStatus]]:
    """`_COLUMNS` of every row, `[B, 7]`, and its status, by `find_roots`."""
    numbers = np.tile(_PLACEHOLDER, (len(batch), 1))
    status: list[RowStatus] = [Status.DISJOINT] * len(batch)
    some = (batch.support.common_size > 0).nonzero().squeeze(-1)
    if some.numel() == 0:
        return numbers, status
    batch = batch if some.numel() == len(batch) else batch.rows(some)
    roots = find_roots(batch)
    at = tilted_moments(batch, roots.alpha)
    # As in the kernel: |K‴| ≤ R·K″ with R the range of ℓ, so the root is no farther than −log(1 − R|Δ|/Var)/R.
    ell = batch.restricted[1]
    span = (ell.amax(-1) - ell.amin(-1)).clamp(min=torch.finfo(ell.dtype).tiny)
    sunk = (-at.log_partition).clamp(min=0)
    error = _ROUNDING[batch.theta.dtype] * (1 + sunk / 4 + at.variance.sqrt() * (1 + span / 4))
    reach = span * (at.mean.abs() + error) / at.variance
    bound = torch.where(reach < 1, -torch.log1p(-reach.clamp(max=1 - 1e-9)) / span, 1.0)
    every, none = roots.identical, ~roots.crosses
    bound = torch.where(every, 0.5, torch.where(none, 0.0, bound))
    low, high = (roots.alpha - bound).clamp(min=0), (roots.alpha + bound).clamp(max=1)
    # Both ends, the iterations, two evaluations that close the bracket, and the one above.
    passes = roots.iterations + torch.where(every | none, 3, 5)
    columns = (
        roots.alpha,
        torch.where(every, 0.0, at.mean),
        torch.where(every, 0.0, at.variance),
        low,
        high,
        torch.maximum(high - roots.alpha, roots.alpha - low),
        passes,
    )
    index = some.cpu().numpy()
    numbers[index] = torch.stack([x.double() for x in columns], -1).cpu().numpy()
    outcome = zip(index.tolist(), every.tolist(), none.tolist(), roots.converged.tolist(), strict=True)
    equal = batch.support.equal.tolist()
    for j, (i, same, outside, converged) in enumerate(outcome):
        if same:
            status[i] = Status.IDENTICAL
        elif outside:
            status[i] = Status.NO_INTERIOR_ROOT
        elif not converged:
            status[i] = Status.NOT_CONVERGED
        else:
            status[i] = Status.SOLVED if equal[j] else Status.SOLVED_ON_COMMON_SUPPORT
    return numbers, status
