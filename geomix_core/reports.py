"""Every row of a pair solved, chunk by chunk, as plain records: for a table, a CSV file or a command line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from math import isnan
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from geomix_core.criteria import solve_alpha
from geomix_core.divergences import ess_fraction, kl
from geomix_core.errors import OptionError, PolicyError, ShapeError
from geomix_core.geodesics import tilted_moments
from geomix_core.policies import PolicyBatch, require_real
from geomix_core.progress import WEIGHTS, Weights, learning_signal
from geomix_core.status import Status

RowStatus = Status | Literal["invalid"]
"""A solver's word on a row, or "invalid" where the input is no policy."""

REPORTED = ("kl_symmetry", "snr")
"""Criteria that a report has columns for."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_PLACEHOLDER = frozenset({Status.DISJOINT, Status.NO_COVERAGE, Status.NO_SIGNAL, Status.OUT_OF_RANGE})
"""Here α = 1/2 stands for no answer at all."""
_UNIQUE = frozenset({Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT})
"""Solutions, less those where every α is one."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RowReport:
    """What is known of one row. None where a value is undefined or was not asked for; a KL may be inf, never NaN."""

    row: int
    """Its index in the input, from 0."""
    status_kl: RowStatus | None = None
    alpha_kl: float | None = None
    """α by KL symmetry; the limiting end point for `no_interior_root`."""
    delta: float | None = None
    """Δ(α_kl) in nats: the residual."""
    bracket_low: float | None = None
    bracket_high: float | None = None
    status_snr: RowStatus | None = None
    alpha_snr: float | None = None
    snr: float | None = None
    """|Φ₁|/√Φ₂ at α_snr."""
    snr_sign: int | None = None
    """Sign of Φ₁ there: at −1 every η > 0 moves away from π_t."""
    snr_maxima: int | None = None
    """Number of local maxima of SNR on [0, 1]; 0 where it is constant."""
    kl_target_theta: float | None = None
    """KL(π_t‖π_θ), nats: the most that any update can gain; inf where π_θ lacks a token of π_t."""
    kl_theta_target: float | None = None
    """KL(π_θ‖π_t), nats."""
    chernoff: float | None = None
    """Chernoff information −log Z(α_kl), nats."""
    ess: float | None = None
    """Effective sample size of q at α_kl for π_θ, as a share of N."""
    theta_mass: float | None = None
    """π_θ(S): what π_θ puts on the common support."""
    target_mass: float | None = None
    """π_t(S)."""
    problem: str = ""
    """Why the row is invalid."""


def solve_rows(
    theta: Any,
    target: Any,
    reference: Any = None,
    *,
    weights: Weights = "importance",
    criteria: Sequence[str] = ("kl_symmetry", "snr"),
    chunk_elements: int = 1 << 18,
    device: torch.device | str | None = None,
) -> Iterator[list[RowReport]]:
    """Solve row after row, a chunk at a time, so that a caller can show progress, and stop.

    A row with NaN, +inf or no token is reported as invalid, and the others are solved. Only one chunk is ever held
    in float64.

    Args:
        theta, target, reference: logits `[B, V]` (or `[V]`: one row), NumPy (memory-mapped too) or torch.
        weights: as for `solve_alpha`.
        criteria: which of `REPORTED` to solve; the fields of the others stay None.
        chunk_elements: at most this many logits of each policy a chunk (but at least one row).
        device: where to compute, as for `PolicyBatch.from_logits`.

    Raises OptionError, ShapeError or PolicyError (arrays that hold no real numbers) at once, not at the first chunk.
    """
    for criterion in criteria:
        if criterion not in REPORTED:
            raise OptionError(f"criterion is {criterion!r}: expected one of {', '.join(REPORTED)}.")
    if not criteria:
        raise OptionError(f"No criterion was given: expected one or more of {', '.join(REPORTED)}.")
    if weights not in WEIGHTS:
        raise OptionError(f"weights is {weights!r}: expected one of {', '.join(WEIGHTS)}.")
    if chunk_elements < 1:
        raise OptionError(f"chunk_elements is {chunk_elements}: expected at least 1.")
    arrays = rows_of({"theta": theta, "target": target, "reference": reference})
    return _solve_chunks(arrays, weights, frozenset(criteria), chunk_elements, device)


def to_csv(reports: Iterable[RowReport]) -> str:
    """The reports as CSV with a header: numbers to full precision, None as an empty field, statuses as text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(RowReport))
    writer.writerows(map(astuple, reports))
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Summary:
    """How a set of rows came out."""

    rows: int
    invalid: int
    status_kl: Mapping[str, int]
    """Rows by status, the most frequent first; empty if KL symmetry was not asked for."""
    status_snr: Mapping[str, int]
    solved: int
    """Rows with one α_kl, on all tokens or on the common support: those of the quantiles."""
    alpha_kl: Mapping[float, float]
    """Quantiles of α_kl by their level (`QUANTILES`); empty if no row is solved."""

    @property
    def median_alpha_kl(self) -> float | None:
        return self.alpha_kl.get(0.5)


def summarise(reports: Iterable[RowReport]) -> Summary:
    """Counts of every status, and quantiles of α_kl over the rows where exactly one α solves the criterion."""
    rows = list(reports)
    alphas = [r.alpha_kl for r in rows if r.status_kl in _UNIQUE and r.alpha_kl is not None]
    levels = np.quantile(alphas, QUANTILES).tolist() if alphas else []
    return Summary(
        rows=len(rows),
        invalid=sum(bool(r.problem) for r in rows),
        status_kl=_counts(r.status_kl for r in rows),
        status_snr=_counts(r.status_snr for r in rows),
        solved=len(alphas),
        alpha_kl=dict(zip(QUANTILES, levels, strict=False)),
    )


def _counts(statuses: Iterable[RowStatus | None]) -> Mapping[str, int]:
    return dict(Counter(str(status) for status in statuses if status is not None).most_common())


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


def _solve_chunks(
    arrays: Mapping[str, Any],
    weights: Weights,
    criteria: frozenset[str],
    chunk_elements: int,
    device: torch.device | str | None,
) -> Iterator[list[RowReport]]:
    rows, vocab = arrays["theta"].shape
    step = max(1, chunk_elements // vocab)
    for start in range(0, rows, step):
        chunk = {name: x[start : start + step] for name, x in arrays.items()}
        problems: dict[int, str] = {}
        try:
            batch: PolicyBatch | None = PolicyBatch.from_logits(**chunk, device=device)
        except PolicyError:
            problems = _problems(chunk)
            good = [i for i in range(len(chunk["theta"])) if i not in problems]
            sound = {name: x[good] for name, x in chunk.items()}
            batch = PolicyBatch.from_logits(**sound, device=device) if good else None
        solved = iter([] if batch is None else _solve_batch(batch, weights, criteria))
        reports = []
        for i in range(len(chunk["theta"])):
            if i in problems:
                reports.append(_invalid(start + i, problems[i], criteria))
            else:
                reports.append(RowReport(row=start + i, **next(solved)))
        yield reports


def _problems(chunk: Mapping[str, Any]) -> dict[int, str]:
    """What is wrong with each bad row of the chunk."""
    problems = {i: problem_of({name: x[i] for name, x in chunk.items()}) for i in range(len(chunk["theta"]))}
    return {i: problem for i, problem in problems.items() if problem}


def problem_of(row: Mapping[str, Any]) -> str:
    """Why one row of logits `[V]` a policy is invalid, in words; "" if it is not."""
    try:
        PolicyBatch.from_logits(**row)
    except PolicyError as error:
        # The batch counts rows, which means nothing for a batch of one.
        return str(error).replace(" in 1 of 1 rows (first: row 0)", "")
    return ""


def _invalid(row: int, problem: str, criteria: frozenset[str]) -> RowReport:
    return RowReport(
        row=row,
        status_kl="invalid" if "kl_symmetry" in criteria else None,
        status_snr="invalid" if "snr" in criteria else None,
        problem=problem,
    )


def _solve_batch(batch: PolicyBatch, weights: Weights, criteria: frozenset[str]) -> list[dict[str, Any]]:
    """The fields of every row's report, but for its number."""
    columns: dict[str, list[Any]] = {
        "kl_target_theta": _numbers(kl(batch.target, batch.theta)),
        "kl_theta_target": _numbers(kl(batch.theta, batch.target)),
        "theta_mass": _numbers(batch.support.theta_mass),
        "target_mass": _numbers(batch.support.target_mass),
    }
    if "kl_symmetry" in criteria:
        columns |= _kl_columns(batch, weights)
    if "snr" in criteria:
        columns |= _snr_columns(batch, weights)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _kl_columns(batch: PolicyBatch, weights: Weights) -> dict[str, list[Any]]:
    result = solve_alpha(batch, "kl_symmetry", weights)
    known = [i for i, status in enumerate(result.status) if status not in _PLACEHOLDER]
    chernoff: list[float | None] = [None] * len(batch)
    ess: list[float | None] = [None] * len(batch)
    if known:
        some = batch.rows(torch.tensor(known, device=batch.theta.device))
        alpha = result.alpha[known].to(some.theta)
        values = (-tilted_moments(some, alpha).log_partition).clamp(min=0)
        for i, c, e in zip(known, _numbers(values), _numbers(ess_fraction(some, alpha)), strict=True):
            chernoff[i], ess[i] = c, e
    return {
        "status_kl": list(result.status),
        "alpha_kl": _only(known, result.alpha.tolist()),
        "delta": _only(known, result.residual.tolist()),
        "bracket_low": _only(known, result.bracket[:, 0].tolist()),
        "bracket_high": _only(known, result.bracket[:, 1].tolist()),
        "chernoff": chernoff,
        "ess": ess,
    }


def _snr_columns(batch: PolicyBatch, weights: Weights) -> dict[str, list[Any]]:
    result = solve_alpha(batch, "snr", weights)
    known = [i for i, status in enumerate(result.status) if status not in _PLACEHOLDER]
    snr: list[float | None] = [None] * len(batch)
    sign: list[int | None] = [None] * len(batch)
    for i in known:
        if result.maxima[i]:
            snr[i], sign[i] = result.maxima[i][0].value, result.maxima[i][0].sign
        else:
            # Every α is optimal: no maximum was sought, so its height is evaluated here.
            signal = learning_signal(batch.rows(i), result.alpha[i].to(batch.theta), weights)
            (snr[i],), sign[i] = _numbers(signal.snr), int(signal.sign)
    return {
        "status_snr": list(result.status),
        "alpha_snr": _only(known, result.alpha.tolist()),
        "snr": snr,
        "snr_sign": sign,
        "snr_maxima": _only(known, [len(maxima) for maxima in result.maxima]),
    }


def _only(known: Sequence[int], values: Sequence[_T]) -> list[_T | None]:
    keep = set(known)
    return [value if i in keep else None for i, value in enumerate(values)]


def _numbers(x: Tensor) -> list[float | None]:
    return [None if isnan(value) else value for value in x.tolist()]
