"""A table of results, a row for each row of a pair: its columns, how they are solved, and checked again.

for chunk in solve_chunks(pair, Plan()): ...        # columns by name, chunk by chunk
result_files.write(path, chunks)                    # .csv, .json or .parquet
for checked in verify_chunks(result_files.read(path), pair, "logits"): ...
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from geomix_core.certificates import row_digests, verify
from geomix_core.divergences import kl
from geomix_core.errors import FileError, OptionError
from geomix_core.files import LogitPair
from geomix_core.geodesics import tilted_moments
from geomix_core.kinds import KINDS, Kind, check_kind, to_logits
from geomix_core.logit_maxima import LogitMaximum, maximise_logits
from geomix_core.logits import LogitSolution, solve_logits
from geomix_core.policies import MASK_GAP, PolicyBatch
from geomix_core.progress import WEIGHTS, Weights, learning_signal
from geomix_core.row_chunks import groups, in_order, joined
from geomix_core.solvers.wald import EtaRange
from geomix_core.status import RowStatus, Status

Criterion = Literal["kl_symmetry", "snr", "wald"]
CRITERIA: tuple[Criterion, ...] = ("kl_symmetry", "snr", "wald")

CHUNK_ELEMENTS = 1 << 22
"""Logits of each policy at a time."""
GROUP_ELEMENTS = 1 << 18
"""Logits of each policy at a time in float64."""
SMALL = 1e-5
"""Nats: a KL below this is summed so that it keeps its digits."""
CLOSE = 1e-8
"""Relative, and absolute in nats: how well KLs and Chernoff information are recomputed (the sums may run otherwise)."""
CLOSE_SNR = 1e-5
"""Relative: SNR at the given α, from single precision, against float64."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the results."""

    type: type
    says: str
    """What its values are. Empty where undefined, or where its criterion was not asked for."""


COLUMNS: Mapping[str, Column] = {
    "row": Column(int, "index of the row in the input, from 0"),
    "status": Column(str, "outcome for α_KL: a status, or invalid"),
    "alpha_kl": Column(float, "α by KL symmetry, the weight of π_θ; the end point where no root lies inside (0, 1)"),
    "alpha_snr": Column(float, "α of the largest SNR"),
    "chernoff_information": Column(float, "−log Z(alpha_kl), nats"),
    "kl_theta_target": Column(float, "KL(π_θ‖π_t), nats; inf where π_t lacks a token of π_θ"),
    "kl_target_theta": Column(float, "KL(π_t‖π_θ), nats; inf where π_θ lacks a token of π_t"),
    "bound": Column(float, "|alpha_kl − α*| is at most this"),
    "alpha_wald": Column(float, "α of the largest worst-case progress over the range of η"),
    "delta": Column(float, "Δ in nats where it was last evaluated, one step from alpha_kl"),
    "variance": Column(float, "Var of ℓ under q at alpha_kl, nats²"),
    "low": Column(float, "Δ(low) ≥ 0"),
    "high": Column(float, "Δ(high) ≤ 0: the root lies between low and high"),
    "status_snr": Column(str, "outcome for α_SNR"),
    "snr": Column(float, "|Φ₁|/√Φ₂ at alpha_snr"),
    "snr_sign": Column(int, "sign of Φ₁ there: at −1 every η > 0 moves away from π_t"),
    "status_wald": Column(str, "outcome for α_Wald"),
    "wald_progress": Column(float, "worst progress over the range of η at alpha_wald, nats"),
    "eta_low": Column(float, "the range of η"),
    "eta_high": Column(float, "the range of η"),
    "weights": Column(str, "importance (w = π_θ/q) or inverse (w = q/π_θ)"),
    "kind": Column(str, "what the input was taken for: logits, log_probs or probs"),
    "digest": Column(str, "BLAKE2b of the row's bytes in θ and target, which verify compares"),
    "problem": Column(str, "why the row is invalid"),
}
"""Every column that a file of results has, in order."""

CERTIFICATE = ("row", "status", "alpha_kl", "bound", "delta", "variance", "low", "high")
"""What `verify_chunks` cannot do without."""

Columns = dict[str, list[Any]]

_NO_ANSWER = frozenset({"invalid", Status.DISJOINT, Status.NO_COVERAGE, Status.NO_SIGNAL, Status.OUT_OF_RANGE})
"""Here α = 1/2 stands for no answer at all."""
_ONE_ROOT = frozenset({str(Status.SOLVED), str(Status.SOLVED_ON_COMMON_SUPPORT)})
_UNFINISHED = frozenset({"invalid", str(Status.NOT_CONVERGED)})


@dataclass(frozen=True)
class Plan:
    """What is to be solved. Raises OptionError."""

    criteria: tuple[str, ...] = ("kl_symmetry", "snr")
    weights: Weights = "importance"
    eta_range: EtaRange = (0.5, 2.0)
    kind: Kind = "logits"

    def __post_init__(self) -> None:
        for criterion in self.criteria:
            if criterion not in CRITERIA:
                raise OptionError(f"criterion is {criterion!r}: expected one or more of {', '.join(CRITERIA)}.")
        if not self.criteria or len(set(self.criteria)) != len(self.criteria):
            raise OptionError(f"criterion: expected one or more of {', '.join(CRITERIA)}, each once.")
        if self.weights not in WEIGHTS:
            raise OptionError(f"weights is {self.weights!r}: expected one of {', '.join(WEIGHTS)}.")
        low, high = self.eta_range
        if not 0 < low <= high < math.inf:
            raise OptionError(f"the range of η is {low:g} to {high:g}: expected 0 < low ≤ high.")
        check_kind(self.kind)


@dataclass
class Tally:
    """Counts of every status, by the column it stands in."""

    rows: int = 0
    status: dict[str, Counter[str]] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    """Rows by what is wrong with them."""
    bound: float | None = None
    """The largest bound of a row with one α_KL."""

    def add(self, columns: Columns) -> None:
        """Count a chunk."""
        self.rows += len(columns["row"])
        self.problems.update(words for words in columns["problem"] if words)
        bounds = [b for b, word in zip(columns["bound"], columns["status"], strict=True) if word in _ONE_ROOT]
        if bounds:
            self.bound = max(*bounds, self.bound or 0.0, 0.0)
        for name in ("status", "status_snr", "status_wald"):
            counted = Counter(word for word in columns[name] if word is not None)
            if counted:
                self.status.setdefault(name, Counter()).update(counted)

    @property
    def complete(self) -> bool:
        """True if no row is invalid and no search gave up."""
        return not any(counts[word] for counts in self.status.values() for word in _UNFINISHED)


def solve_chunks(
    pair: LogitPair,
    plan: Plan,
    *,
    start: int = 0,
    device: torch.device | str | None = None,
    threads: int | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Iterator[Columns]:
    """The rows from `start` on, chunk by chunk: every column of `COLUMNS`, None where it has no value.

    α as in `solve_logits` and `maximise_logits`; KLs and Chernoff information in float64. Memory-mapped input is
    released after each chunk.
    """
    total, vocab = pair.theta.shape
    step = max(1, chunk_elements // vocab)
    for first in range(start, total, step):
        yield _solve(pair, plan, first, min(first + step, total), device, threads)
        pair.release()


def _solve(
    pair: LogitPair, plan: Plan, start: int, stop: int, device: torch.device | str | None, threads: int | None
) -> Columns:
    count = stop - start
    given, problems = _logits(pair, plan.kind, start, stop)
    columns: Columns = {name: [None] * count for name in COLUMNS}
    columns["row"] = list(range(start, stop))
    columns["kind"] = [plan.kind] * count
    columns["weights"] = [plan.weights] * count
    columns["digest"] = _digests(pair, start, stop, threads)
    columns["problem"] = [""] * count
    alpha: np.ndarray | None = None
    for criterion in plan.criteria:
        if criterion == "kl_symmetry":
            solution = solve_logits(given["theta"], given["target"], threads=threads, device=device)
            alpha = solution.alpha
            known = [word not in _NO_ANSWER for word in solution.status]
            columns["status"] = [str(word) for word in solution.status]
            for name, values in {
                "alpha_kl": solution.alpha,
                **{name: getattr(solution, name) for name in ("bound", "delta", "variance", "low", "high")},
            }.items():
                columns[name] = _where(known, values)
            said = solution.problem
        else:
            best = maximise_logits(
                given["theta"],
                given["target"],
                given.get("reference"),
                criterion="snr" if criterion == "snr" else "wald",
                weights=plan.weights,
                eta_range=plan.eta_range,
                threads=threads,
                device=device,
            )
            _take_maximum(columns, best, plan)
            said = best.problem
        columns["problem"] = [old or new for old, new in zip(columns["problem"], said, strict=True)]
    for i, words in problems.items():
        columns["problem"][i] = words
    valid = [not words for words in columns["problem"]]
    with_alpha = None if alpha is None else np.where([x is not None for x in columns["alpha_kl"]], alpha, np.nan)
    for name, values in zip(
        ("kl_theta_target", "kl_target_theta", "chernoff_information"),
        distances(given["theta"], given["target"], valid, with_alpha, threads),
        strict=True,
    ):
        columns[name] = _where(~np.isnan(values), values)
    return columns


def _digests(pair: LogitPair, start: int, stop: int, threads: int | None) -> list[str]:
    theta, target = pair.theta[start:stop], pair.target[start:stop]
    parts = in_order(
        lambda first, last: row_digests(theta[first:last], target[first:last]), len(theta), CHUNK_ELEMENTS,
        theta.shape[1], threads,
    )  # fmt: skip
    return list(joined(parts))


def _take_maximum(columns: Columns, best: LogitMaximum, plan: Plan) -> None:
    known = [word not in _NO_ANSWER for word in best.status]
    name = best.criterion
    columns[f"status_{name}"] = [str(word) for word in best.status]
    columns[f"alpha_{name}"] = _where(known, best.alpha)
    columns["snr" if name == "snr" else "wald_progress"] = _where(known, best.value)
    if name == "snr":
        columns["snr_sign"] = _where(known, best.sign)
    else:
        columns["eta_low"], columns["eta_high"] = ([eta] * len(known) for eta in plan.eta_range)


def distances(
    theta: Tensor, target: Tensor, valid: Sequence[bool], alpha: np.ndarray | None, threads: int | None = None
) -> np.ndarray:
    """KL(π_θ‖π_t), KL(π_t‖π_θ) and −log Z(α) of rows of logits, `[3, B]` in float64, nats.

    NaN where a row is not valid, and for the last where α is NaN or None, or the supports are disjoint.
    """
    count, vocab = theta.shape
    a = np.full(count, np.nan) if alpha is None else alpha
    out = np.full((3, count), np.nan)

    def fill(start: int, stop: int) -> None:
        u, v = (_shifted(x[start:stop]) for x in (theta, target))
        with np.errstate(all="ignore"):  # rows with masks or NaN, which are overwritten
            out[:, start:stop] = _distances(u, v, a[start:stop])
            masked = np.minimum(u.min(-1), v.min(-1)) < -MASK_GAP
            out[0, start:stop][masked] = np.nan

    for _ in in_order(fill, count, GROUP_ELEMENTS, vocab, threads):
        pass
    # Masks, and differences that cancel, are left to the careful sums.
    ok = np.asarray(valid)
    for odd in groups(np.flatnonzero(ok & ~(out[:2].min(0) >= SMALL)), GROUP_ELEMENTS // vocab):
        out[:, odd] = _carefully(theta[torch.from_numpy(odd)], target[torch.from_numpy(odd)], a[odd])
    out[:, ~ok] = np.nan
    out[2, np.isnan(a)] = np.nan
    return out


def _shifted(rows: Tensor) -> np.ndarray:
    """In float64, the highest of each row at 0."""
    rows = rows.cpu()
    if rows.dtype == torch.bfloat16:
        # The upper half of a float32.
        wide = rows.contiguous().view(torch.int16).numpy().view(np.uint16).astype(np.uint32) << 16
        x: np.ndarray = wide.view(np.float32).astype(np.float64)
    else:
        x = rows.numpy().astype(np.float64)
    with np.errstate(invalid="ignore"):
        x -= x.max(-1, keepdims=True)
    return x


def _distances(u: np.ndarray, v: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `distances`, of rows without masks whose highest logit is 0. Uses up v."""
    p = np.exp(u)
    size_p = p.sum(-1)
    q = np.exp(v)
    size_q = q.sum(-1)
    ell = np.subtract(v, u, out=v)
    log_p, log_q = np.log(size_p), np.log(size_q)
    shift = log_q - log_p
    # No BLAS, whose threads would contend with those of `in_order`.
    p *= ell
    q *= ell
    by_theta = shift - p.sum(-1) / size_p
    by_target = q.sum(-1) / size_q - shift
    mixed = np.multiply(ell, (1 - alpha)[:, None], out=p)
    mixed += u
    total = np.exp(mixed, out=mixed).sum(-1)
    inside = alpha * log_p + (1 - alpha) * log_q - np.log(total)
    return by_theta, by_target, np.maximum(inside, 0.0) + 0.0


def _carefully(theta: Tensor, target: Tensor, alpha: np.ndarray) -> np.ndarray:
    """As `distances`, by the sums that the app shows."""
    batch = PolicyBatch.from_logits(theta.cpu(), target.cpu())
    out = np.full((3, len(theta)), np.nan)
    out[0], out[1] = kl(batch.theta, batch.target).numpy(), kl(batch.target, batch.theta).numpy()
    some = np.flatnonzero((batch.support.common_size > 0).numpy() & ~np.isnan(alpha))
    if some.size:
        at = torch.from_numpy(alpha[some])
        out[2, some] = (-tilted_moments(batch.rows(torch.from_numpy(some)), at).log_partition).clamp(
            min=0
        ).numpy() + 0.0
    return out


# --- checked again -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """Some of the rows of a table, checked against the input."""

    rows: int
    differences: tuple[tuple[int, str], ...]
    """(row, what does not hold), in order."""


def verify_chunks(
    table: Columns, pair: LogitPair, kind: Kind, chunk_elements: int = CHUNK_ELEMENTS, threads: int | None = None
) -> Iterator[Checked]:
    """Check every row of a table of results against the input, chunk by chunk, and that no row is missing.

    The certificate of α_KL by `certificates.verify`; the digest; KLs, Chernoff information and SNR where the table has
    them, recomputed in float64. That α_SNR and α_Wald are the highest maxima is not checked.
    """
    total, vocab = pair.theta.shape
    at = {row: i for i, row in enumerate(table["row"])}

    def check(start: int, stop: int) -> Checked:
        found: dict[int, list[str]] = {i: [] for i in range(start, stop)}
        present = {row: at[row] for row in found if row in at}
        for row in found:
            if row not in at:
                found[row].append("the row is not in the results")
        given, problems = _logits(pair, kind, start, stop)
        _check_certificates(table, given, start, present, found)
        _check_values(table, given, pair, start, present, found, problems)
        return Checked(len(found), tuple((row, "; ".join(words)) for row, words in found.items() if words))

    for part in in_order(check, total, chunk_elements, vocab, threads):
        pair.release()
        yield part
    outside = sorted(row for row in at if row >= total)
    if outside:
        yield Checked(0, tuple((row, f"the input has only {total:,} rows") for row in outside))


def _check_certificates(
    table: Columns, given: Mapping[str, Tensor], start: int, present: Mapping[int, int], found: dict[int, list[str]]
) -> None:
    count = len(given["theta"])
    columns = {name: np.full(count, value) for name, value in _PLACEHOLDER.items()}
    status: list[RowStatus] = ["invalid"] * count
    checked: list[int] = []
    for row, i in present.items():
        word = table["status"][i]
        if word is None:
            continue
        status[row - start] = "invalid" if word == "invalid" else Status(word)
        numbers = {name: table[name][i] for name in _PLACEHOLDER}
        missing = [name for name, value in numbers.items() if value is None]
        if not missing:
            for name, value in numbers.items():
                columns[name][row - start] = value
        elif word not in _NO_ANSWER:
            found[row].append(f"the status is {word} but there is no {', '.join(missing)}")
            continue
        checked.append(row - start)
    solution = LogitSolution(
        alpha=columns["alpha_kl"],
        status=tuple(status),
        problem=("",) * count,
        delta=columns["delta"],
        variance=columns["variance"],
        low=columns["low"],
        high=columns["high"],
        bound=columns["bound"],
        passes=np.zeros(count, np.int64),
        dtype="",
        digest=("",) * count,
        tolerance=1.0,
        rows=count,
    )
    for difference in verify(given["theta"], given["target"], solution, checked).differences:
        found[start + difference.row].extend(difference.reasons)


def _check_values(
    table: Columns,
    given: Mapping[str, Tensor],
    pair: LogitPair,
    start: int,
    present: Mapping[int, int],
    found: dict[int, list[str]],
    problems: Mapping[int, str],
) -> None:
    count = len(given["theta"])
    if "digest" in table:
        digests = _digests(pair, start, start + count, 1)
        for row, i in present.items():
            if table["digest"][i] and table["digest"][i] != digests[row - start]:
                found[row].append("the digest is that of other numbers")
    valid = [row - start not in problems and _is_policy(given, row - start) for row in range(start, start + count)]
    alpha = np.full(count, np.nan)
    for row, i in present.items():
        value = table["alpha_kl"][i]
        if value is not None and 0 <= value <= 1:
            alpha[row - start] = value
    # One thread: this runs in one of several.
    again = distances(given["theta"], given["target"], valid, alpha, 1)
    for name, values in zip(("kl_theta_target", "kl_target_theta", "chernoff_information"), again, strict=True):
        if name not in table:
            continue
        for row, i in present.items():
            said, value = table[name][i], float(values[row - start])
            if said is not None and not _close(said, value, CLOSE, CLOSE):
                found[row].append(f"{name} is {value:.6g}, not {said:.6g}")
    if "snr" in table and "alpha_snr" in table:
        for row, i in present.items():
            _check_snr(table, given, i, row - start, valid, found[row])


def _check_snr(
    table: Columns, given: Mapping[str, Tensor], i: int, at: int, valid: Sequence[bool], words: list[str]
) -> None:
    alpha, said = table["alpha_snr"][i], table["snr"][i]
    if alpha is None or said is None:
        return
    if not valid[at] or not 0 <= alpha <= 1:
        words.append("alpha_snr is given, but the row has none")
        return
    weights: Weights = "inverse" if table.get("weights", [None] * (i + 1))[i] == "inverse" else "importance"
    batch = PolicyBatch.from_logits(*(x[at] for x in given.values()))
    value = learning_signal(batch, alpha, weights).snr.item() if batch.covered.item() else math.nan
    if not _close(said, value, CLOSE_SNR, 1e-9):
        words.append(f"snr is {value:.6g}, not {said:.6g}")


_PLACEHOLDER = {"alpha_kl": 0.5, "bound": 0.5, "delta": 0.0, "variance": 0.0, "low": 0.0, "high": 1.0}
"""What stands in a solution for a row that has no answer."""


def _close(said: float, found: float, relative: float, absolute: float) -> bool:
    return said == found or (math.isfinite(found) and abs(said - found) <= absolute + relative * abs(found))


def _is_policy(given: Mapping[str, Tensor], i: int) -> bool:
    return all(-math.inf < x[i].double().amax().item() < math.inf for x in given.values())


def _logits(pair: LogitPair, kind: Kind, start: int, stop: int) -> tuple[dict[str, Tensor], dict[int, str]]:
    """The chunk's rows as logits by name, and what is wrong with rows that should be probabilities."""
    given: dict[str, Tensor] = {}
    problems: dict[int, str] = {}
    for name in ("theta", "target", "reference"):
        x: Tensor | None = getattr(pair, name)
        if x is not None:
            given[name], bad = to_logits(x[start:stop], kind, name)
            problems = {**bad, **problems}
    return given, problems


def _where(known: Any, values: np.ndarray) -> list[Any]:
    return [value if keep else None for keep, value in zip(known, values.tolist(), strict=True)]


def differing_row(columns: Columns, pair: LogitPair) -> int | None:
    """The first or the last row of a chunk if its digest is not that of the input, else None."""
    for i in (0, -1):
        row = columns["row"][i]
        if (
            row >= len(pair.theta)
            or columns["digest"][i] != row_digests(pair.theta[row : row + 1], pair.target[row : row + 1])[0]
        ):
            return int(row)
    return None


def one_kind(table: Columns) -> Kind | None:
    """The kind that a table was solved as, if it says. Raises FileError if it says several."""
    said = {word for word in table.get("kind", []) if word}
    if len(said) > 1 or not said <= set(KINDS):
        raise FileError(f"The results name several kinds of input, or none that is known: expected {', '.join(KINDS)}.")
    return said.pop() if said else None
