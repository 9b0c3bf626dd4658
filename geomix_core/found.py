"""What was found in somebody's files, and what it was taken for, until they agree or say otherwise.

found = find(files, maps)                       # files as `files.open_arrays` gives them
found.roles, found.kind, found.inspection       # what each array was taken for, why, and what looks odd
found = found.with_roles({"theta": "a", "target": "b"}).with_kind("logits")
found.dataset                                   # to be solved, or None while something is undecided
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from geomix_core.datasets import Dataset, Files, assign, bundled, candidates
from geomix_core.errors import FileError
from geomix_core.files import ROLES, LogitPair, Role, find_policies
from geomix_core.inspection import Inspection, Look, inspect, look
from geomix_core.kinds import Kind, kind_of
from geomix_core.scenarios import Prompt

By = Literal["name", "order", "reader", ""]


@dataclass(frozen=True, eq=False)
class Found:
    """Arrays of some files and their roles, if these are settled."""

    files: Files
    arrays: Mapping[str, Tensor]
    """What could be a policy, by label."""
    roles: Mapping[Role, str]
    """The label of each policy; empty while it is not settled."""
    kind: Kind | None
    """None while it is not clear, or nothing is settled."""
    kind_by: Literal["numbers", "reader"]
    problem: str
    """Why the roles are not settled; "" if they are."""
    pair: LogitPair | None
    inspection: Inspection
    tokens: Sequence[str] | None = None
    prompts: Sequence[Prompt] | None = None
    maps: tuple[Any, ...] = ()
    named: int = 0
    """How many times names were given."""
    looks: Mapping[str, Look] = field(default_factory=dict)
    """Arrays that were read, by label."""

    @property
    def assigned_by(self) -> By:
        """How the roles were found."""
        return "" if self.pair is None else self.pair.assigned_by

    @cached_property
    def dataset(self) -> Dataset | None:
        """What can be solved; None while something is not settled."""
        if self.pair is None or self.kind is None:
            return None
        return Dataset(self.pair, self.kind, self.tokens, self.prompts)

    def with_roles(self, roles: Mapping[Role, str]) -> Found:
        """The same arrays in other roles. Raises FileError, and then nothing has changed."""
        pair = assign(self.files, roles)
        return _looked(self, pair, self.kind if self.kind_by == "reader" else None)

    def with_kind(self, kind: Kind) -> Found:
        """The same arrays taken for logits, log-probabilities or probabilities."""
        return replace(self, kind=kind, kind_by="reader")

    def with_names(self, tokens: Sequence[str] | None = None, prompts: Sequence[Prompt] | None = None) -> Found:
        """The same arrays with names of tokens or prompts. Raises FileError where their number is wrong."""
        named = replace(self, tokens=tokens or self.tokens, prompts=prompts or self.prompts, named=self.named + 1)
        if self.pair is not None:
            Dataset(self.pair, "logits", named.tokens, named.prompts)
        return named


def find(files: Files, maps: tuple[Any, ...] = ()) -> Found:
    """What the arrays of some files are. Raises FileError where no two of them can be a pair."""
    arrays = candidates(files)
    nothing = Inspection((), "", "", 0, 0, 0, 0, ())
    found = Found(files, arrays, {}, None, "numbers", "", None, nothing, maps=maps)
    try:
        pair = find_policies(files)
    except FileError as error:
        shapes = [tuple(x.shape) for x in arrays.values()]
        if len(set(shapes)) == len(shapes):
            raise  # no two of a shape: there is nothing to choose
        return replace(found, problem=str(error))
    return _looked(found, pair, None)


def example() -> Found:
    """The bundled rows, as if they had been in a file."""
    data = bundled()
    files = {"smollm2_privileged": {"logits_theta": data.pair.theta, "logits_t": data.pair.target}}
    return find(files).with_names(data.tokens, data.prompts)


def _looked(found: Found, pair: LogitPair, kind: Kind | None) -> Found:
    """With these roles: arrays that were not read yet are read, and the pair compared."""
    pair = replace(pair, maps=found.maps)
    looks = dict(found.looks)
    for label in pair.names.values():
        if label not in looks:
            looks[label] = look(label, _file_of(found.files, label), found.arrays[label], found.maps)
    mine = [replace(looks[label], report=replace(looks[label].report, role=role)) for role, label in pair.names.items()]
    rows, vocab = pair.theta.shape
    by_reader = kind is not None
    if kind is None:
        try:
            kind = kind_of({role: looks[label].report.finding for role, label in pair.names.items()})
        except FileError:
            kind = None  # shown, and asked for
    return replace(
        found,
        roles={role: pair.names[role] for role in ROLES if role in pair.names},
        kind=kind,
        kind_by="reader" if by_reader else "numbers",
        problem="",
        pair=pair,
        # Names of other arrays than these are forgotten.
        tokens=found.tokens if found.tokens is not None and len(found.tokens) == vocab else None,
        prompts=found.prompts if found.prompts is not None and len(found.prompts) == rows else None,
        inspection=inspect(mine, pair),
        looks=looks,
    )


def _file_of(files: Files, label: str) -> str:
    """The file that an array lies in, by the array's label."""
    if len(files) == 1:
        return next(iter(files))
    return next((file for file in files if label == file or label.startswith(f"{file}: ")), label)
