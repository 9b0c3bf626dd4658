"""What is in files of logits, before anything is solved: read once, a chunk at a time, and said in words."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from geomix_core.errors import FileError
from geomix_core.file_words import shape_of, show
from geomix_core.files import LogitPair, open_arrays, open_paths
from geomix_core.kinds import Finding, detect
from geomix_core.policies import MASK_GAP
from geomix_core.results import distances

CHUNK_ELEMENTS = 1 << 20
"""Logits at a time."""
SAMPLE = 16
"""Rows on which policies are compared with a reference."""
MOST = 0.9
"""Share of the rows that must agree before a swap is suggested."""


@dataclass(frozen=True, slots=True)
class ArrayReport:
    """What one array holds. Rows are counted, never shown."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    role: str
    """theta, target or reference; "" where none was found for it."""
    finding: Finding
    lowest: float
    """The lowest and the highest finite number; NaN where there is none."""
    highest: float
    nan_rows: int
    inf_rows: int
    """Rows with +inf."""
    empty_rows: int
    """Rows of −inf alone."""
    masked: int
    """Tokens that are −inf."""
    far: int
    """Tokens that are finite and count as masked: more than `MASK_GAP` below their row's maximum."""
    support: tuple[int, int]
    """Fewest and most tokens of a sound row; (0, 0) where there is none."""
    repeated: int
    """Rows that repeat an earlier one."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Something that looks wrong, or may: `code` is a key of `ADVICE`."""

    code: str
    numbers: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return ADVICE[self.code].format_map(self.numbers)


ADVICE: Mapping[str, str] = {
    "kind_unclear": "It is not clear whether all of this is logits or probabilities: say --kind to geomix solve.",
    "kind_probs": "These are probabilities: geomix solve takes their logarithms. Say --kind logits if they are not.",
    "bad_rows": "Rows with NaN, +inf or no token are refused, and the others solved. Check the forward pass.",
    "repeated": "Repeated rows are solved again each time; padding, perhaps?",
    "by_order": "Swapping θ and target turns α into 1 − α: name the arrays theta and target to be sure.",
    "identical": "θ and target are the same in every row: the same logits twice?",
    "fortran": ("The rows do not lie one after another (Fortran order): reading them is slow. Save them in C order."),
    "swapped_support": (
        "Possibly swapped: θ lacks tokens of the target in nearly every row, and never the other way round. "
        "A policy that samples without them can learn nothing about them."
    ),
    "swapped_reference": (
        "Possibly swapped: the reference is nearer to the target than to θ in {nearer} of {looked} rows "
        "looked at, and θ usually starts from it."
    ),
}
"""What each suggestion says on the command line."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in all files together."""

    arrays: tuple[ArrayReport, ...]
    assigned_by: str
    """"name", "order" or "reader"; "" where the arrays are no pair."""
    problem: str
    """Why the arrays are no pair; "" if they are."""
    identical: int
    """Rows in which the bytes of θ and target are the same."""
    theta_lacks: int
    """Rows in which the target has a token that θ lacks."""
    target_lacks: int
    disjoint: int
    suggestions: tuple[Suggestion, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """One array, read once: what is in it, whatever its role."""

    report: ArrayReport
    digests: tuple[bytes, ...]
    """Of each row's bytes."""


def inspect_paths(*paths: str | PathLike[str], reference: str | PathLike[str] | None = None) -> Inspection:
    """Read one to three files once, or twice where they are a pair, in bounded memory. Raises FileError."""
    problem, pair = "", None
    try:
        pair = open_paths(*paths, reference=reference)
    except FileError as error:
        problem = str(error)
    looks: list[Look] = []
    # If a file cannot be read at all, that is raised here.
    for path in [*paths, *([] if reference is None else [reference])]:
        arrays, maps = open_arrays(path)
        for name, x in arrays.items():
            role = "" if pair is None else _role_of(pair, str(path), name, x, reference)
            found = look(name, str(path), x, maps)
            looks.append(replace(found, report=replace(found.report, role=role)))
    return inspect(looks, pair, problem)


def inspect(looks: Sequence[Look], pair: LogitPair | None, problem: str = "") -> Inspection:
    """What the arrays are together; a pair is read once more. The roles are those in the looks' reports."""
    reports = [x.report for x in looks]
    digests = {x.report.role: x.digests for x in looks}
    identical = theta_lacks = target_lacks = disjoint = 0
    if pair is not None:
        if len(digests.get("theta", ())) == len(digests.get("target", ())):
            pairs = zip(digests.get("theta", ()), digests.get("target", ()), strict=True)
            identical = sum(a == b for a, b in pairs)
        theta_lacks, target_lacks, disjoint = _overlap(pair)
    suggestions = tuple(_suggestions(reports, pair, problem, identical, theta_lacks, target_lacks, disjoint))
    by = "" if pair is None else pair.assigned_by
    return Inspection(tuple(reports), by, problem, identical, theta_lacks, target_lacks, disjoint, suggestions)


def to_text(found: Inspection) -> str:
    """The report as lines for a terminal."""
    lines: list[str] = []
    for x in found.arrays:
        role = f"→ {x.role}" if x.role else "→ no role"
        lines.append(f"{show(x.name)} in {show(x.file)}: {shape_of(x.shape)} {x.dtype} {role}")
        lines.append(f"  kind       {x.finding.kind}: {x.finding.evidence}")
        lines.append(f"  values     {x.lowest:.6g} to {x.highest:.6g}")
        lines.append(f"  support    {x.support[0]:,} to {x.support[1]:,} tokens a row; {x.masked:,} values are −inf")
        for count, words in (
            (x.far, f"values lie more than {MASK_GAP:g} below their row's maximum and count as −inf"),
            (x.nan_rows, "rows with NaN"),
            (x.inf_rows, "rows with +inf"),
            (x.empty_rows, "rows without a token"),
            (x.repeated, "rows repeat an earlier row"),
        ):
            if count:
                lines.append(f"  {'':10} {count:,} {words}")
    if found.problem:
        lines.append(f"Not a pair: {found.problem}")
    else:
        by = {
            "name": "by their names",
            "order": "by their order, since the names do not settle it",
            "reader": "by you",
        }
        lines.append(f"Roles were given {by[found.assigned_by]}.")
        for count, words in (
            (found.identical, "rows are the same in θ and target"),
            (found.theta_lacks, "rows in which θ lacks a token of the target: KL(π_t‖π_θ) is infinite"),
            (found.target_lacks, "rows in which the target lacks a token of θ: KL(π_θ‖π_t) is infinite"),
            (found.disjoint, "rows in which they share no token"),
        ):
            if count:
                lines.append(f"{count:,} {words}")
    lines.extend(f"• {words}" for words in found.suggestions)
    return "\n".join(lines)


def _role_of(pair: LogitPair, path: str, name: str, x: Tensor, reference: str | PathLike[str] | None) -> str:
    """The role of the array `name` in the file `path`; "theta, target" for a stack."""
    if reference is not None and path == str(reference):
        return "reference"
    labels = {f"{name}[{i}]" for i in range(len(x))} if x.ndim == 3 else {name, path}
    return ", ".join(role for role, label in pair.names.items() if label in labels)


def look(name: str, file: str, x: Tensor, maps: Sequence[mmap.mmap] = ()) -> Look:
    """Read one array `[…, V]` of the file once, a chunk at a time. It has no role yet."""
    rows = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    finding = detect(rows)
    lowest, highest = math.inf, -math.inf
    nan = inf = empty = masked = far = 0
    support: tuple[int, int] | None = None
    digests: list[bytes] = []
    for chunk in _chunks(rows):
        digests += [hashlib.blake2b(row.view(np.uint8).data, digest_size=16).digest() for row in _bytes(chunk)]
        numbers = _numbers(chunk)
        finite = np.isfinite(numbers)
        top = np.max(numbers, axis=-1)
        if finite.any():
            lowest = min(lowest, float(np.min(numbers, where=finite, initial=np.inf)))
            highest = max(highest, float(np.max(numbers, where=finite, initial=-np.inf)))
        has_nan, has_inf = np.isnan(numbers).any(-1), (numbers == np.inf).any(-1)
        nan, inf, empty = nan + int(has_nan.sum()), inf + int(has_inf.sum()), empty + int((top == -np.inf).sum())
        masked += int((numbers == -np.inf).sum())
        sound = np.isfinite(top)
        with np.errstate(invalid="ignore"):
            kept = finite & (numbers >= (top - MASK_GAP)[:, None])
        far += int((finite & ~kept)[sound].sum())
        if sound.any():
            sizes = kept[sound].sum(-1)
            low, high = support or (int(sizes.min()), 0)
            support = (min(low, int(sizes.min())), max(high, int(sizes.max())))
        _release(maps)
    report = ArrayReport(
        name=name,
        file=file,
        shape=tuple(x.shape),
        dtype=str(x.dtype).removeprefix("torch."),
        role="",
        finding=finding,
        lowest=lowest if lowest <= highest else math.nan,
        highest=highest if lowest <= highest else math.nan,
        nan_rows=nan,
        inf_rows=inf,
        empty_rows=empty,
        masked=masked,
        far=far,
        support=support or (0, 0),
        repeated=len(digests) - len(set(digests)),
    )
    return Look(report, tuple(digests))


def _overlap(pair: LogitPair) -> tuple[int, int, int]:
    """Sound rows in which θ lacks a token of the target, the target one of θ, and both share none."""
    lacks = [0, 0, 0]
    for theta, target in zip(_chunks(pair.theta), _chunks(pair.target), strict=True):
        supports, sound = [], np.ones(len(theta), bool)
        for x in (theta, target):
            numbers = _numbers(x)
            top = np.max(numbers, axis=-1)
            sound &= np.isfinite(top)
            with np.errstate(invalid="ignore"):
                supports.append(numbers >= (top - MASK_GAP)[:, None])
        a, b = supports
        for i, words in enumerate(((b & ~a).any(-1), (a & ~b).any(-1), ~(a & b).any(-1))):
            lacks[i] += int((words & sound).sum())
        pair.release()
    return lacks[0], lacks[1], lacks[2]


def _suggestions(
    reports: Sequence[ArrayReport],
    pair: LogitPair | None,
    problem: str,
    identical: int,
    theta_lacks: int,
    target_lacks: int,
    disjoint: int,
) -> Iterator[Suggestion]:
    kinds = {x.finding.kind for x in reports}
    if "unclear" in kinds or ("probs" in kinds and kinds != {"probs"}):
        yield Suggestion("kind_unclear")
    elif kinds == {"probs"}:
        yield Suggestion("kind_probs")
    if any(x.nan_rows or x.inf_rows or x.empty_rows for x in reports):
        yield Suggestion("bad_rows")
    if any(x.repeated for x in reports):
        yield Suggestion("repeated")
    if problem or pair is None:
        return
    if pair.assigned_by == "order":
        yield Suggestion("by_order")
    rows = len(pair.theta)
    if identical == rows:
        yield Suggestion("identical")
    if pair.theta.ndim == 2 and not pair.theta.is_contiguous() and rows > 1:
        yield Suggestion("fortran")
    if theta_lacks >= MOST * rows and not target_lacks and not disjoint:
        yield Suggestion("swapped_support")
    if pair.reference is not None and identical < rows:
        yield from _nearer(pair)


def _nearer(pair: LogitPair) -> Iterator[Suggestion]:
    """The reference is usually where θ came from: if it is nearer to the target, that is worth a word."""
    assert pair.reference is not None
    last, count = len(pair.theta) - 1, min(SAMPLE, len(pair.theta))
    index = sorted(set(torch.linspace(0, last, count, dtype=torch.float64).round().long().tolist()))
    reference, theta, target = (x[index] for x in (pair.reference, pair.theta, pair.target))
    sound = [
        all(math.isfinite(x[i].double().amax().item()) for x in (reference, theta, target)) for i in range(len(index))
    ]
    to_theta, to_target = (distances(reference, x, sound, None)[0] for x in (theta, target))
    known = ~(np.isnan(to_theta) | np.isnan(to_target))
    nearer = int((to_target < to_theta)[known].sum())
    if known.any() and nearer >= MOST * known.sum():
        yield Suggestion("swapped_reference", {"nearer": nearer, "looked": int(known.sum())})


def _chunks(rows: Tensor) -> Iterator[Tensor]:
    step = max(1, CHUNK_ELEMENTS // rows.shape[-1])
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _bytes(rows: Tensor) -> np.ndarray:
    whole: np.ndarray = rows.contiguous().view(torch.uint8).numpy()
    return whole


def _numbers(rows: Tensor) -> np.ndarray:
    numbers: np.ndarray = (rows.float() if rows.dtype.itemsize < 4 else rows).numpy()
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)


def _release(maps: Sequence[mmap.mmap]) -> None:
    for mapped in maps:
        if hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)
