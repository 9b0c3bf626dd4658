"""Logits of any size, a chunk of rows at a time: what `logits` and `logit_maxima` share.

Arrays are never copied as a whole. A compiled kernel takes rows in C order in one of two precisions and releases the
GIL, so chunks of rows go to a few threads and come back in order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import chain
from types import ModuleType
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from geomix_core.errors import OptionError, PolicyError, ShapeError
from geomix_core.policies import PolicyBatch, device_of, require_real
from geomix_core.status import Status

Backend = Literal["auto", "compiled", "torch"]
BACKENDS: tuple[Backend, ...] = ("auto", "compiled", "torch")

Progress = Callable[[int, int], object]
"""Called with (rows done, rows); returning False stops."""

CHUNK_ELEMENTS = 1 << 20
"""Logits of each policy at a time, unless asked for otherwise."""
THREAD_ELEMENTS = 1 << 16
"""Logits of each policy that are worth one more thread, likewise."""

_T = TypeVar("_T")


class RowAnswers:
    """What answers for rows have in common: mixed into a dataclass with `status` and `rows`."""

    status: tuple[object, ...]
    rows: int

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


@cache
def _dtypes(*dtypes: Any) -> tuple[str, np.dtype[Any]]:
    """How dtypes are called, and in which their numbers are computed with first."""
    names = tuple(str(x).removeprefix("torch.") if isinstance(x, torch.dtype) else str(x.name) for x in dtypes)
    single = {"float16", "bfloat16", "float32"}
    return ", ".join(dict.fromkeys(names)), np.dtype(np.float32 if single.issuperset(names) else np.float64)


@dataclass(frozen=True)
class Rows:
    """Logits `[B, V]` of two or three policies by name, as they were given."""

    arrays: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """(B, V)."""
        rows, vocab = self.arrays["theta"].shape
        return rows, vocab

    @property
    def dtype(self) -> str:
        """Of the input, such as "float32"; "float32, float64" where policies differ."""
        return _dtypes(*(x.dtype for x in self.arrays.values()))[0]

    @property
    def working(self) -> np.dtype[Any]:
        """float32 where it holds all exactly."""
        return _dtypes(*(x.dtype for x in self.arrays.values()))[1]

    @property
    def on_cpu(self) -> bool:
        """Whether all lie on the CPU."""
        return all(x.device.type == "cpu" for x in self.arrays.values() if isinstance(x, Tensor))

    def place(self, device: torch.device | str | None) -> torch.device:
        """Where to compute. MPS lacks float64."""
        first = self.arrays["theta"]
        if device is not None:
            place = device_of(device)
        else:
            place = first.device if isinstance(first, Tensor) else torch.device("cpu")
        return torch.device("cpu") if place.type == "mps" and self.working == np.float64 else place

    def part(self, index: Any) -> dict[str, Any]:
        """Some of the rows."""
        return {name: x[index] for name, x in self.arrays.items()}


def rows_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays as they are (nothing copied), of equal shape `[B, V]`."""
    arrays: dict[str, Any] = {}
    for name in ("theta", "target"):
        if given[name] is None:
            raise PolicyError(f"{name} is missing: expected an array [rows, tokens].")
    for name, values in given.items():
        if values is None:
            continue
        try:
            x = values.detach() if isinstance(values, Tensor) else np.asanyarray(values)
        except ValueError as error:  # rows of unequal length
            raise ShapeError(f"{name} is not a rectangular array: expected [rows, tokens].") from error
        x = x[None] if x.ndim == 1 else x
        if x.ndim != 2 or 0 in x.shape:
            raise ShapeError(f"{name} has shape {list(x.shape)}: expected [rows, tokens] with at least one of each.")
        require_real(x, name)
        arrays[name] = x
    theta = arrays["theta"]
    for name, x in arrays.items():
        if x.shape != theta.shape:
            raise ShapeError(
                f"{name} has shape {list(x.shape)} but theta has shape {list(theta.shape)}: "
                "all policies need the same rows and the same vocabulary."
            )
    return arrays


def problem_of(row: Mapping[str, Any]) -> str:
    """Why one row of logits `[V]` a policy is invalid, in words; "" if it is not."""
    try:
        PolicyBatch.from_logits(**row)
    except PolicyError as error:
        # The batch counts rows, which means nothing for a batch of one.
        return str(error).replace(" in 1 of 1 rows (first: row 0)", "")
    return ""


def check_options(backend: Backend, threads: int | None, chunk_elements: int | None) -> None:
    """Raises OptionError."""
    if backend not in BACKENDS:
        raise OptionError(f"backend is {backend!r}: expected one of {', '.join(BACKENDS)}.")
    if threads is not None and threads < 1:
        raise OptionError(f"threads is {threads}: expected at least 1.")
    if chunk_elements is not None and chunk_elements < 1:
        raise OptionError(f"chunk_elements is {chunk_elements}: expected at least 1.")


def compiled(name: str, backend: Backend, rows: Rows, device: torch.device | str | None) -> ModuleType | None:
    """The kernel of that name in `solvers`, or None for torch. numba is only imported here: it takes a second.

    Raises OptionError where it was asked for and cannot be had.
    """
    on_cpu = rows.on_cpu if device is None else device_of(device).type == "cpu"
    if backend == "torch" or (backend == "auto" and not (on_cpu and rows.on_cpu)):
        return None
    if not (on_cpu and rows.on_cpu):
        raise OptionError("backend is 'compiled', which runs on the CPU only: choose 'auto' or 'torch' for a device.")
    try:
        return import_module(f"geomix_core.solvers.{name}")
    except (ImportError, RuntimeError) as error:  # RuntimeError: numba finds no folder for its cache
        if backend == "compiled":
            raise OptionError(
                f"backend is 'compiled' but numba cannot be used ({type(error).__name__}): install geomix[fast], or "
                "choose 'auto' or 'torch'."
            ) from error
        return None


def contiguous(rows: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Rows as a kernel takes them; a view where they lie so already."""
    from geomix_core.solvers.kernel import widened

    brain = isinstance(rows, Tensor) and rows.dtype == torch.bfloat16
    if isinstance(rows, Tensor):
        rows = rows.view(torch.uint16).numpy() if brain else rows.numpy()
    if dtype == np.float32 and (brain or rows.dtype == np.float16):
        wide: np.ndarray = widened(rows if brain else rows.view(np.uint16), brain)
        return wide
    if brain:
        rows = widened(rows, brain)
    return np.require(rows, dtype, ["C", "A"])


def in_order(
    work: Callable[[int, int], _T],
    total: int,
    elements: int,
    vocab: int,
    threads: int | None,
    worth: int = THREAD_ELEMENTS,
) -> Generator[_T, None, None]:
    """work(start, stop) for every chunk of rows, by threads, in order; at most `elements` logits a policy at a time.

    Without `threads` there is one for every `worth` logits of a policy, and at most one a core. The caller's is among
    them: waking another takes as long as some rows.
    """
    workers = min(threads or min(_cores(), -(-total * vocab // worth)), total)
    step = min(max(1, elements // (vocab * workers)), -(-total // workers))
    chunks = [(start, min(start + step, total)) for start in range(0, total, step)]
    if workers == 1:
        yield from (work(*chunk) for chunk in chunks)
        return
    pool = _pool(os.getpid(), (threads or _cores()) - 1)
    waiting: deque[Future[_T]] = deque()
    try:
        for chunk in chunks:
            if sum(not future.done() for future in waiting) < workers - 1:
                waiting.append(pool.submit(work, *chunk))
            else:
                waiting.append(_done(work, chunk))
            while waiting and (waiting[0].done() or len(waiting) > workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)


def _done(work: Callable[[int, int], _T], chunk: tuple[int, int]) -> Future[_T]:
    """What is worked out here and now, as a future."""
    future: Future[_T] = Future()
    future.set_result(work(*chunk))
    return future


def collect(parts: Generator[_T, None, None], total: int, stop: Callable[[_T], int], tell: Progress | None) -> list[_T]:
    """All parts, or those until `tell`, called with (rows done, rows) after each, returns False."""
    done: list[_T] = []
    with closing(parts):
        for part in parts:
            done.append(part)
            go_on = True if tell is None else tell(stop(part), total)
            if go_on is not None and not go_on:
                break
    return done


def groups(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The rows' numbers, at most `size` at a time."""
    for start in range(0, len(rows), max(1, size)):
        yield rows[start : start + max(1, size)]


def joined(parts: Iterable[Iterable[_T]]) -> tuple[_T, ...]:
    """One tuple of several sequences."""
    parts = tuple(parts)
    return tuple(parts[0]) if len(parts) == 1 else tuple(chain.from_iterable(parts))


@cache
def _cores() -> int:
    return os.cpu_count() or 1


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Kept, as threads cost more than small batches. One a process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="geomix")
