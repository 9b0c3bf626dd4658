"""α_KL of every row straight from raw logits, at any size: streamed, with a bound for each row.

    solution = solve_logits(theta, target)      # [B, V], NumPy (memory-mapped too) or torch
    solution.alpha, solution.bound              # [B]: |α − α*| ≤ bound

Two backends solve a row in the precision of its input, and again in float64 where float32 cannot decide it:
"compiled" (`solvers.kernel`, numba, CPU), and "torch" (`solvers.onepass`) wherever the input lies, which is also the
fallback. What both give up is left to `PolicyBatch` and `solvers.kl_symmetry`. `certificates.verify` recomputes a
solution without any of them.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomix_core.certificates import row_digests
from geomix_core.errors import OptionError
from geomix_core.geodesics import tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.row_chunks import (
    CHUNK_ELEMENTS,
    Backend,
    Progress,
    RowAnswers,
    Rows,
    check_options,
    collect,
    compiled,
    contiguous,
    groups,
    in_order,
    joined,
    problem_of,
    rows_of,
)
from geomix_core.solvers import onepass
from geomix_core.solvers.kl_symmetry import find_roots
from geomix_core.status import RowStatus, Status

FINE_TOLERANCE = 1e-10
"""What float64 solves to, unless something finer is asked for."""
THREAD_ELEMENTS = 1 << 19
"""Logits of each policy that are worth one more thread."""
GROUP_ELEMENTS = 1 << 16
"""Logits of each policy at a time that are left to `find_roots`."""
MEMORY_SHARE = 0.25
"""Of a CUDA device's free memory, what a chunk may take."""
MEMORY_BYTES = 24
"""A logit of both policies and what is computed of it, at most, where passes are fused."""

_ROUNDING = {torch.float32: 5e-7, torch.float64: 2e-14}
"""Error of Δ in the units of `solvers.kernel.solve_row`."""
_COLUMNS = ("alpha", "delta", "variance", "low", "high", "bound", "passes")
"""In the order of `solvers.kernel.ALPHA` … `PASSES`."""
PASSES = _COLUMNS.index("passes")
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
    Status.NOT_CONVERGED,
)
"""In the order of `solvers.kernel.SOLVED` … `HARD`."""
_WORDS = np.array(_CODES, dtype=object)
_INVALID = [i for i, word in enumerate(_CODES) if word == "invalid"]


@dataclass(frozen=True, eq=False)
class LogitSolution(RowAnswers):
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
    """Var_q[ℓ] at α, nats², carried there from the last evaluation by its derivative."""
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


def solve_logits(
    theta: Any,
    target: Any,
    *,
    tolerance: float = 2e-5,
    backend: Backend = "auto",
    threads: int | None = None,
    chunk_elements: int | None = None,
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
        threads: of the compiled backend; by default one a core, or fewer where there is little to do.
        chunk_elements: at most this many logits of each policy at a time (but at least one row a thread); by default
            2²⁰, and on CUDA what a quarter of the free memory holds. Where memory runs out, chunks are halved.
        digests: whether to hash the rows, so that `certificates.verify` knows them again.
        device: where to compute, as for `PolicyBatch.from_logits`; by default where `theta` lies.
        on_progress: called with (rows done, rows) after every chunk; if it returns False, what is done is returned.

    Raises ShapeError, PolicyError (arrays that hold no real numbers) or OptionError at once.
    """
    if not 0 < tolerance < math.inf:
        raise OptionError(f"tolerance is {tolerance:g}: expected a positive number.")
    check_options(backend, threads, chunk_elements)
    rows = Rows(rows_of({"theta": theta, "target": target}))
    total, vocab = rows.shape
    kernel = compiled("kernel", backend, rows, device)
    solver = _Solver(rows, tolerance, digests)
    parts: Parts
    if kernel is None:
        place = rows.place(device)
        parts = solver.on_device(place, max(1, (chunk_elements or _elements_for(place)) // vocab))
    else:
        parts = in_order(
            lambda start, stop: solver.compiled(kernel, start, stop), total, chunk_elements or CHUNK_ELEMENTS, vocab,
            threads, THREAD_ELEMENTS,
        )  # fmt: skip
    done = collect(parts, total, lambda part: part.stop, on_progress)
    numbers = dict(zip(_COLUMNS, np.ascontiguousarray(np.concatenate([p.numbers for p in done]).T), strict=True))
    return LogitSolution(
        **{**numbers, "passes": numbers["passes"].astype(np.int64)},
        status=joined(p.status for p in done),
        problem=joined(p.problem for p in done),
        digest=joined(p.digest for p in done),
        dtype=rows.dtype,
        tolerance=tolerance,
        rows=total,
    )


@dataclass(frozen=True)
class _Part:
    """What was found for the rows up to `stop` that no earlier part holds; `numbers` has the columns `_COLUMNS`."""

    stop: int
    numbers: np.ndarray
    status: list[RowStatus]
    problem: list[str]
    digest: tuple[str, ...]


Parts = Generator[_Part, None, None]


@dataclass(frozen=True)
class _Solver:
    rows: Rows
    tolerance: float
    digests: bool

    def compiled(self, kernel: ModuleType, start: int, stop: int) -> _Part:
        """A chunk of rows by the compiled kernel."""
        given = self.rows.part(slice(start, stop))
        theta, target = (contiguous(x, self.rows.working) for x in given.values())
        codes, numbers = kernel.solve(theta, target, self.tolerance)
        return self._settled(given, stop, codes, numbers, theta, target)

    def on_device(self, device: torch.device, step: int) -> Parts:
        """`step` rows at a time by torch, and half as many whenever the device's memory does not suffice."""
        start, (total, _) = 0, self.rows.shape
        while start < total:
            step = min(step, total - start)
            part = None
            try:
                part = self._in_torch(start, start + step, device)
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

    def _in_torch(self, start: int, stop: int, device: torch.device) -> _Part:
        given = self.rows.part(slice(start, stop))
        theta, target = (_placed(x, device) for x in given.values())
        fine = min(self.tolerance, FINE_TOLERANCE)
        if self.rows.working == np.float64:
            codes, numbers = onepass.solve(theta, target, fine, torch.float64)
        else:
            codes, numbers = onepass.solve(theta, target, self.tolerance, torch.float32)
            hard = np.flatnonzero(codes == onepass.HARD)
            if hard.size:
                passes = numbers[hard, PASSES]
                codes[hard], numbers[hard] = _in_double(theta, target, torch.from_numpy(hard), fine)
                numbers[hard, PASSES] += passes
        return self._settled(given, stop, codes, numbers, theta, target)

    def _settled(
        self, given: dict[str, Any], stop: int, codes: np.ndarray, numbers: np.ndarray, theta: Any, target: Any
    ) -> _Part:
        """The part, after rows that are still HARD have been left to `find_roots`."""
        status, problem = _WORDS[codes].tolist(), [""] * len(codes)
        digests = row_digests(**given) if self.digests else ("",) * len(codes)
        if codes.max() <= onepass.DISJOINT:
            return _Part(stop, numbers, status, problem, digests)
        for group in groups(np.flatnonzero(codes == onepass.HARD), GROUP_ELEMENTS // self.rows.shape[1]):
            passes = numbers[group, PASSES]
            numbers[group], said = _solve_batch(PolicyBatch.from_logits(theta[group], target[group]))
            numbers[group, PASSES] += passes
            for i, word in zip(group.tolist(), said, strict=True):
                status[i] = word
        for i in np.flatnonzero(np.isin(codes, _INVALID)).tolist():
            problem[i] = problem_of({name: x[i] for name, x in given.items()})
        return _Part(stop, numbers, status, problem, digests)


def _elements_for(device: torch.device) -> int:
    """How many logits of each policy a chunk has by default."""
    if device.type != "cuda":
        return CHUNK_ELEMENTS
    free, _ = torch.cuda.mem_get_info(device)
    return max(CHUNK_ELEMENTS, int(MEMORY_SHARE * free) // MEMORY_BYTES)


def _in_double(theta: Tensor, target: Tensor, rows: Tensor, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """These rows in float64: where they lie, or on the CPU if that device has none."""
    if theta.device.type == "mps":
        theta, target, rows = theta[rows].cpu(), target[rows].cpu(), torch.arange(len(rows))
    return onepass.solve(theta, target, tolerance, torch.float64, rows.to(theta.device))


def _placed(rows: Any, device: torch.device) -> Tensor:
    """Rows as a tensor there; nothing is copied that lies there already and may be written to (as torch demands)."""
    if not isinstance(rows, Tensor):
        native = np.dtype(np.float64) if rows.dtype.itemsize > 8 else rows.dtype.newbyteorder("=")
        rows = torch.from_numpy(np.ascontiguousarray(rows.astype(native, copy=not rows.flags.writeable)))
    there: Tensor = rows.to(device)
    return there


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
