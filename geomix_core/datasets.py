"""Rows that somebody brought: a pair of policies, what its numbers are, and what its rows and tokens are called.

data = open_dataset("theta.npy", "target.npy")      # roles and kind are found; say them to overrule
data.row(3)                                         # PolicyBatch of one row
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from geomix_core.errors import FileError, PolicyError
from geomix_core.file_words import shape_of, show
from geomix_core.files import ROLES, LogitPair, Role, find_policies, open_arrays, pair_of
from geomix_core.kinds import Kind, check_kind, detect, kind_of, to_logits
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import Prompt, real_rows

Files = Mapping[str, Mapping[str, Tensor]]
"""The arrays of each file by name."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows of two or three policies."""

    pair: LogitPair
    kind: Kind = "logits"
    tokens: Sequence[str] | None = None
    """The names of the tokens, one for each column; None where nobody gave any."""
    prompts: Sequence[Prompt] | None = None
    """What the model had seen, one for each row."""

    def __post_init__(self) -> None:
        for what, names, expected in (("tokens", self.tokens, self.vocab_size), ("prompts", self.prompts, len(self))):
            if names is not None and len(names) != expected:
                raise FileError(f"There are {len(names):,} names of {what}: expected {expected:,}, one for each.")

    def __len__(self) -> int:
        return len(self.pair.theta)

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.pair.theta.shape[-1])

    def logits(self, rows: slice | Sequence[int]) -> tuple[dict[str, Tensor], dict[int, str]]:
        """(some rows as logits by role, what is wrong with those that are no probabilities by their place there)."""
        given: dict[str, Tensor] = {}
        problems: dict[int, str] = {}
        for role in ROLES:
            x: Tensor | None = getattr(self.pair, role)
            if x is not None:
                index = rows if isinstance(rows, slice) else torch.as_tensor(rows)
                given[role], bad = to_logits(x[index], self.kind, role)
                problems = {**bad, **problems}
        return given, problems

    def row(self, i: int) -> PolicyBatch:
        """One row as policies. Raises PolicyError where it is none."""
        given, problems = self.logits(slice(i, i + 1))
        self.pair.release()
        if problems:
            raise PolicyError(problems[0])
        return PolicyBatch.from_logits(given["theta"], given["target"], given.get("reference"))

    def digest(self, i: int) -> str:
        """BLAKE2b of all that decides how the row is shown: its bytes under each policy, the kind, and the names."""
        digest = hashlib.blake2b(f"{self.kind};{self.vocab_size};{self._names};".encode(), digest_size=16)
        if self.prompts is not None:
            digest.update(repr((self.prompts[i].prompt, self.prompts[i].response_prefix)).encode("utf-8", "replace"))
        for x in (self.pair.theta, self.pair.target, self.pair.reference):
            if x is not None:
                digest.update(str(x.dtype).encode())
                digest.update(x[i].contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @cached_property
    def _names(self) -> int:
        return 0 if self.tokens is None else hash(tuple(self.tokens))


def open_dataset(
    *paths: str | PathLike[str], roles: Mapping[Role, str] | None = None, kind: Kind | None = None
) -> Dataset:
    """One to three files, memory-mapped where the format allows. Raises FileError or OptionError.

    Args:
        paths: files as for `files.open_paths`.
        roles: which array is which, by its label in `candidates`; by default as their names or their order say.
        kind: what the numbers are; by default what `kinds.detect` finds, if that is clear.
    """
    files: dict[str, dict[str, Tensor]] = {}
    maps: list[Any] = []
    for path in map(str, paths):
        if path in files:
            raise FileError(f"{path} was given twice: expected different files for theta and target.")
        files[path], held = open_arrays(path)
        maps += held
    return Dataset(*_decided(files, roles, kind, tuple(maps)))


def _decided(
    files: Files, roles: Mapping[Role, str] | None, kind: Kind | None, maps: tuple[Any, ...]
) -> tuple[LogitPair, Kind]:
    pair = replace(find_policies(files) if roles is None else assign(files, roles), maps=maps)
    if kind is None:
        arrays = {role: getattr(pair, role) for role in ROLES if getattr(pair, role) is not None}
        kind = kind_of({role: detect(x) for role, x in arrays.items()})
    check_kind(kind)
    return pair, kind


def candidates(files: Files) -> dict[str, Tensor]:
    """Every array that could be a policy, `[B, V]`, by a label that a person recognises.

    The label is that of `find_policies`: the array's name where there is one file ("both[0]" for the first of a stack),
    the file's where each has one array; else both.
    """
    alone = len(files) == 1
    single = all(len(arrays) == 1 for arrays in files.values())
    found: dict[str, Tensor] = {}
    for file, arrays in files.items():
        for name, x in arrays.items():
            label = name if alone else file if single else f"{PurePath(file).name}: {name}"
            if x.ndim == 3 and len(x) in (2, 3) and alone and single:
                found |= {f"{label}[{i}]": x[i] for i in range(len(x))}
            elif x.ndim in (1, 2) and 0 not in x.shape:
                found[label] = x[None] if x.ndim == 1 else x
    return found


def assign(files: Files, roles: Mapping[Role, str]) -> LogitPair:
    """The pair that somebody chose: labels of `candidates` by role. Raises FileError."""
    arrays = candidates(files)
    for role, label in roles.items():
        if label not in arrays:
            raise FileError(f"There is no array {show(label)} for {role}: expected one of {_listed(arrays)}.")
    missing = [role for role in ROLES[:2] if role not in roles]
    if missing:
        raise FileError(f"No array was chosen for {missing[0]}: expected one of {_listed(arrays)}.")
    if len(set(roles.values())) != len(roles):
        raise FileError("One array was chosen for two policies: expected a different one for each.")
    return pair_of({role: (label, arrays[label]) for role, label in roles.items()})


def bundled(swapped: bool = False) -> Dataset:
    """The rows of `scenarios.real_rows`, with the names of their tokens and their prompts; or θ and target swapped."""
    rows = real_rows()
    arrays = {"logits_theta": rows.theta, "logits_t": rows.target}
    theta, target = reversed(arrays) if swapped else arrays
    pair = LogitPair(arrays[theta], arrays[target], None, {"theta": theta, "target": target}, "name")
    return Dataset(pair, "logits", rows.tokens, rows.prompts)


def _listed(arrays: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{show(label)} {shape_of(x)}" for label, x in list(arrays.items())[:12])
