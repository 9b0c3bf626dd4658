"""α_SNR and α_Wald of every row straight from raw logits, at any size: streamed, a few passes a row.

    best = maximise_logits(theta, target)       # [B, V], NumPy (memory-mapped too) or torch
    best.alpha, best.value                      # [B]: where SNR is highest, and how high

Where numba can be used, `solvers.maxima_kernel` searches each row on few atoms and polishes what is highest on those
that stand for all tokens to 3e-10 of log SNR (α_Wald: on the tokens). Else, and where that kernel leaves a row to
others, `solve_alpha` decides: the reference, and much slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch

from geomix_core.criteria import Options, solve_alpha
from geomix_core.errors import OptionError
from geomix_core.policies import PolicyBatch
from geomix_core.progress import exact_progress, learning_signal
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
from geomix_core.solvers.wald import EtaRange
from geomix_core.status import RowStatus, Status
from geomix_core.tilts import Weights

Criterion = Literal["snr", "wald"]
CRITERIA: tuple[Criterion, ...] = ("snr", "wald")

GROUP_ELEMENTS = 1 << 18
"""Logits of each policy at a time that are left to `solve_alpha`."""

_COLUMNS = ("alpha", "value", "sign", "slope", "low", "high", "passes")
"""In the order of `solvers.maxima_kernel.ALPHA` … `PASSES`."""
_PLACEHOLDER = (0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_CODES: tuple[RowStatus, ...] = (
    Status.SOLVED,
    Status.SOLVED_ON_COMMON_SUPPORT,
    "invalid",
    "invalid",
    "invalid",
    Status.NOT_CONVERGED,
)
"""In the order of `solvers.maxima_kernel.SOLVED` … `HARD`."""


@dataclass(frozen=True, eq=False)
class LogitMaximum(RowAnswers):
    """The highest maximum of each row. Never NaN. Arrays are `[B]`, float64 but for `passes` and `sign`.

    Where on_progress stopped early it holds the rows that were finished, the first of `rows`.
    """

    criterion: Criterion
    weights: Weights
    alpha: np.ndarray
    """The weight of π_θ in q_α. 1/2 is a placeholder where `status` says so."""
    value: np.ndarray
    """SNR, or the worst progress over the range of η, in nats; 0 where there is none."""
    sign: np.ndarray
    """For SNR that of Φ₁; for progress −1 where the lower η is the worse, and 1 otherwise; 0 where there is none."""
    slope: np.ndarray
    """d log SNR/dα, or dProgress/dα at the worse η, at the last evaluation: α is at most one small step from there."""
    low: np.ndarray
    high: np.ndarray
    """The cell in which the search on atoms found the maximum."""
    status: tuple[RowStatus, ...]
    problem: tuple[str, ...]
    """Why a row is invalid; "" for the others."""
    passes: np.ndarray
    """How often the row was read; 0 where `solve_alpha` decided."""
    dtype: str
    """Of the input."""
    rows: int
    """Rows of the input."""


def maximise_logits(
    theta: Any,
    target: Any,
    reference: Any = None,
    *,
    criterion: Criterion = "snr",
    weights: Weights = "importance",
    eta_range: EtaRange = (0.5, 2.0),
    backend: Backend = "auto",
    threads: int | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
    device: torch.device | str | None = None,
    on_progress: Progress | None = None,
) -> LogitMaximum:
    """α_SNR (document §5.1) or α_Wald (§3.3) of every row, chunk by chunk; the input is never copied as a whole.

    The global maximum on [0, 1], not the one that a unimodal search would end on. A row's answer depends on no other
    row. A row with NaN, +inf or no token is "invalid", and the others are solved. Against float64 on a dense grid the
    value is within 1e-9 of the highest, relatively (tests); α is as sharp as that makes it.

    Args:
        theta, target: logits `[B, V]` (or `[V]`: one row), NumPy (memory-mapped too) or torch, any float dtype.
        reference: the reward's policy, likewise; by default π_θ.
        criterion: "snr", the maximum of |Φ₁|/√Φ₂, or "wald", that of the worst exact progress over `eta_range`.
        weights: "importance", w = π_θ/q, or "inverse", w = q/π_θ.
        eta_range: learning rates (low, high) that "wald" guards against.
        backend: "compiled" (numba, CPU), "torch" (`solve_alpha`), or "auto": compiled where that can be used.
        threads: of the compiled backend; by default one a core.
        chunk_elements: at most this many logits of each policy at a time (but at least one row a thread).
        device: where torch computes, as for `PolicyBatch.from_logits`; by default where `theta` lies.
        on_progress: called with (rows done, rows) after every chunk; if it returns False, what is done is returned.

    Raises ShapeError, PolicyError (arrays that hold no real numbers) or OptionError at once.
    """
    if criterion not in CRITERIA:
        raise OptionError(f"criterion is {criterion!r}: expected one of {', '.join(CRITERIA)}.")
    options = Options(weights, eta_range)
    check_options(backend, threads, chunk_elements)
    rows = Rows(rows_of({"theta": theta, "target": target, "reference": reference}))
    kernel = compiled("maxima_kernel", backend, rows, device)
    search = _Search(rows, criterion, options, device)
    total, vocab = rows.shape
    parts = in_order(
        lambda start, stop: search.part(kernel, start, stop), total, chunk_elements, vocab, threads if kernel else 1
    )
    done = collect(parts, total, lambda part: part.stop, on_progress)
    numbers = {name: np.concatenate([p.numbers[:, i] for p in done]) for i, name in enumerate(_COLUMNS)}
    whole = {name: numbers[name].astype(np.int64) for name in ("sign", "passes")}
    return LogitMaximum(
        **{**numbers, **whole},
        criterion=criterion,
        weights=weights,
        status=joined(p.status for p in done),
        problem=joined(p.problem for p in done),
        dtype=rows.dtype,
        rows=total,
    )


@dataclass(frozen=True)
class _Part:
    """What was found for the rows up to `stop` that no earlier part holds; `numbers` has the columns `_COLUMNS`."""

    stop: int
    numbers: np.ndarray
    status: list[RowStatus]
    problem: list[str]


@dataclass(frozen=True)
class _Search:
    rows: Rows
    criterion: Criterion
    options: Options
    device: torch.device | str | None

    def part(self, kernel: ModuleType | None, start: int, stop: int) -> _Part:
        """A chunk of rows."""
        given = self.rows.part(slice(start, stop))
        count = stop - start
        numbers, status = np.tile(_PLACEHOLDER, (count, 1)), list[RowStatus]([Status.NOT_CONVERGED]) * count
        if kernel is None:
            problem = [problem_of(_row(given, i)) for i in range(count)]
            hard = np.flatnonzero([not words for words in problem])
            status = ["invalid" if words else Status.NOT_CONVERGED for words in problem]
        else:
            arrays = {name: contiguous(x, self.rows.working) for name, x in given.items()}
            kappa = -1.0 if self.options.weights == "importance" else 1.0
            etas = self.options.eta_range if self.criterion == "wald" else None
            codes, numbers = kernel.solve(arrays["theta"], arrays["target"], arrays.get("reference"), kappa, etas)
            status = [_CODES[code] for code in codes.tolist()]
            problem = [problem_of(_row(given, i)) if word == "invalid" else "" for i, word in enumerate(status)]
            hard = np.flatnonzero(codes == kernel.HARD)
        for group in groups(hard, GROUP_ELEMENTS // self.rows.shape[1]):
            numbers[group], said = self._settle({name: x[_index(x, group)] for name, x in given.items()})
            for i, word in zip(group.tolist(), said, strict=True):
                status[i] = word
        return _Part(stop, numbers, status, problem)

    def _settle(self, given: dict[str, Any]) -> tuple[np.ndarray, tuple[Status, ...]]:
        """Rows by `solve_alpha`."""
        batch = PolicyBatch.from_logits(**given, device=self.device)
        found = solve_alpha(batch, self.criterion, self.options.weights, eta_range=self.options.eta_range)
        numbers = np.tile(_PLACEHOLDER, (len(batch), 1))
        numbers[:, 0] = found.alpha.cpu().numpy()
        for i, maxima in enumerate(found.maxima):
            if maxima:
                best = maxima[0]
                numbers[i, 1:6] = best.value, best.sign, best.slope, *best.bracket
            elif found.status[i] == Status.FLAT:
                numbers[i, 1:3] = self._constant(batch.rows(i))
        return numbers, found.status

    def _constant(self, row: PolicyBatch) -> tuple[float, float]:
        """(value, sign) of a row on which the criterion does not depend on α."""
        weights = self.options.weights
        if self.criterion == "snr":
            signal = learning_signal(row, 0.5, weights)
            return signal.snr.item(), signal.sign.item()
        gains = [exact_progress(row, 0.5, eta, weights).item() for eta in self.options.eta_range]
        return min(gains), -1.0 if gains[0] <= gains[1] else 1.0


def _row(arrays: dict[str, Any], i: int) -> dict[str, Any]:
    return {name: x[i] for name, x in arrays.items()}


def _index(array: Any, rows: np.ndarray) -> Any:
    return torch.as_tensor(rows, device=array.device) if isinstance(array, torch.Tensor) else rows
