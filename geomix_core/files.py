"""Logits from strangers' files, read safely: `EXTENSIONS`; nothing is executed, no header taken at its word.

    pair = load_paths("theta.npy", "target.npy")            # or one .npz / .safetensors with both
    pair = open_paths("theta.npy", "target.npy")            # the same memory-mapped, where the format allows
    pair = find_policies({name: read_arrays(name, data)})   # the same from bytes, e.g. an upload

Whatever is wrong with a file is a FileError, chained from the library's own exception where there was one.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from geomix_core.errors import FileError
from geomix_core.file_words import EXPECTED, TORCH_DTYPES, count, guess, shape_of, show, too_large
from geomix_core.formats import read_csv, read_parquet, read_pt

EXTENSIONS = (".npy", ".npz", ".safetensors", ".pt", ".pth", ".parquet", ".csv", ".tsv")
MAPPED = (".npy", ".safetensors", ".pt", ".pth")
"""Those of which `open_paths` reads only what is asked for."""

MAX_BYTES = 1 << 30
"""A file, or the arrays of an .npz unpacked, may not be larger unless the caller says so."""

MAX_NPY_HEADER = 4096
"""Bytes. NumPy writes 118 for an ordinary array; Python parses the header, so a long one costs time and stack."""

MAX_DIMENSIONS = 8
MAX_LENGTH = 1 << 48
"""An .npy header that declares more is not worth arithmetic."""

MAX_SAFETENSORS_HEADER = 1 << 20
"""Bytes: thousands of tensors, where we need two or three."""

MAX_MEMBERS = 100
"""Files in an .npz: more are refused before their directory is parsed."""

MAX_RATIO = 200
"""Unpacked over packed size of an .npz, beyond `RATIO_FREE_BYTES`. Logits in float32 compress less than threefold."""

RATIO_FREE_BYTES = 1 << 26
"""Unpacked, this much is harmless however well it compresses (masked logits do, up to a thousandfold)."""

_PICKLES = (".bin", ".ckpt", ".pkl", ".pickle")
_KINDS = {
    "c": "complex numbers",
    "b": "booleans",
    "S": "text",
    "U": "text",
    "T": "text",
    "M": "dates",
    "m": "durations",
}
# What numpy's parser (ast.literal_eval, tokenize, numpy.dtype) raises on hostile headers; a warning where warnings
# are errors.
_HEADER_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    tokenize.TokenError,
)
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_SAFETENSORS_ERRORS = (SafetensorError, KeyError, MemoryError, OverflowError, RuntimeError, TypeError, ValueError)
_SAFETENSORS_WORDS = {
    "not fully covered": "its tensors do not account for all bytes of the file, which is truncated or damaged",
    "data type": "a tensor's declared shape and dtype do not match its bytes",
    "offset": "a tensor's offsets do not fit the file or each other",
    "overflow": "a tensor's declared shape is impossibly large",
    "JSON": "its header is not the JSON that the format requires",
    "UTF-8": "its header is not the JSON that the format requires",
}

_SAFETENSORS_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    **{
        f"{sign}{bits}": getattr(torch, f"{name}{bits}")
        for sign, name in (("I", "int"), ("U", "uint"))
        for bits in (8, 16, 32, 64)
    },
}

Role = Literal["theta", "target", "reference"]
ROLES: tuple[Role, ...] = ("theta", "target", "reference")

_WORDS: Mapping[str, Role] = {
    **dict.fromkeys(("theta", "θ", "current", "student", "actor"), "theta"),
    **dict.fromkeys(("target", "t", "tgt", "teacher"), "target"),
    **dict.fromkeys(("reference", "ref", "base"), "reference"),
}
_WEAK_WORDS: Mapping[str, Role] = {"policy": "theta"}
"""Used only where nothing better is in the name: there are target policies too."""


@dataclass(frozen=True, eq=False)
class LogitPair:
    """Logits of π_θ, π_t and, if given, π_ref, `[B, V]` each, in their file's dtype; not yet checked for NaN."""

    theta: Tensor
    target: Tensor
    reference: Tensor | None
    names: Mapping[Role, str]
    """Which array became what, in the words of the file."""
    assigned_by: Literal["name", "order", "reader"]
    """The word order where the names did not settle it: worth showing, since swapping the two turns α into 1 − α."""
    maps: tuple[mmap.mmap, ...] = ()
    """What the arrays lie in, where they are memory-mapped. Such arrays can be read only."""

    def release(self) -> None:
        """Give back the memory of what was read from the maps; it is read again when it is asked for."""
        for mapped in self.maps:
            if hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)


def load_paths(*paths: str | PathLike[str], max_bytes: int = MAX_BYTES) -> LogitPair:
    """Read one to three files and decide which array is which. Raises FileError."""
    files: dict[str, dict[str, Tensor]] = {}
    for path in map(Path, paths):
        if str(path) in files:
            raise FileError(f"{path} was given twice: expected different files for theta and target.")
        files[str(path)] = read_arrays(str(path), read_bytes(path, max_bytes), max_bytes=max_bytes)
    return find_policies(files)


def open_paths(
    *paths: str | PathLike[str], reference: str | PathLike[str] | None = None, max_bytes: int = MAX_BYTES
) -> LogitPair:
    """`load_paths` without reading the files that can be memory-mapped (`MAPPED`): they may be larger than memory.

    Args:
        paths: one to three files; what they hold finds its role as in `find_policies`.
        reference: a file with one array, that of π_ref, whatever its name.
        max_bytes: bound on what is read into memory, of each file.

    Raises FileError.
    """
    files: dict[str, dict[str, Tensor]] = {}
    maps: list[mmap.mmap] = []
    for path in map(Path, paths):
        if str(path) in files:
            raise FileError(f"{path} was given twice: expected different files for theta and target.")
        files[str(path)], held = open_arrays(path, max_bytes=max_bytes)
        maps += held
    pair = find_policies(files)
    if reference is not None:
        arrays, held = open_arrays(reference, max_bytes=max_bytes)
        pair = _with_reference(pair, str(reference), arrays)
        maps += held
    return replace(pair, maps=tuple(maps))


def open_arrays(
    path: str | PathLike[str], *, name: str = "", max_bytes: int = MAX_BYTES
) -> tuple[dict[str, Tensor], tuple[mmap.mmap, ...]]:
    """All arrays of one file as `read_arrays` gives them, memory-mapped if its format is one of `MAPPED`, and the maps.

    An array that a map cannot hold (of foreign byte order, or not aligned) is read. `name` is what the file is called
    where that is not its path. Raises FileError.
    """
    path, name = Path(path), name or str(path)
    extension = path.suffix.lower()
    if extension not in MAPPED:
        return read_arrays(name, read_bytes(path, max_bytes), max_bytes=max_bytes), ()
    size, shown = _size(path), show(name)
    if size == 0:
        raise FileError(_empty(shown))
    try:
        if extension in (".pt", ".pth"):
            return _some(shown, read_pt(name, path)), ()
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, MemoryError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{shown} cannot be read: {type(error).__name__}.") from error
    if extension == ".npy":
        return {PurePath(name).stem: _map_npy(shown, mapped, max_bytes)}, (mapped,)
    return _some(shown, _map_safetensors(shown, mapped, max_bytes)), (mapped,)


def read_arrays(name: str, data: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """All arrays of one file, by name, as torch tensors of the file's dtype and shape, in native byte order.

    Args:
        name: the file's name; its extension decides how `data` is read, its stem names the array of an .npy.
        data: the whole file.
        max_bytes: bound on the file and, for an .npz, on its arrays unpacked.

    Raises FileError for anything that is not a sound file of real numbers.
    """
    extension = PurePath(name).suffix.lower()
    shown = show(name)
    if extension in _PICKLES:
        raise FileError(
            f"{shown} is a {extension} file, a pickle, which can run code when it is read. "
            "Save the logits with safetensors.torch.save_file instead."
        )
    if extension not in EXTENSIONS:
        raise FileError(
            f"{shown} has {'extension ' + show(extension) if extension else 'no extension'}: "
            f"expected one of {', '.join(EXTENSIONS)}."
        )
    if not data:
        raise FileError(_empty(shown))
    if len(data) > max_bytes:
        raise FileError(too_large(shown, len(data), max_bytes))
    if extension == ".npy":
        return {PurePath(name).stem: _parse_npy(shown, data)}
    if extension in (".csv", ".tsv"):
        return read_csv(name, data, max_bytes, _role)
    if extension == ".parquet":
        return _some(shown, read_parquet(name, data, max_bytes))
    if extension in (".pt", ".pth"):
        return _some(shown, read_pt(name, data))
    return _some(shown, _read_npz(shown, data, max_bytes) if extension == ".npz" else _read_safetensors(shown, data))


def find_policies(files: Mapping[str, Mapping[str, Tensor]]) -> LogitPair:
    """Decide which array is theta, target and reference.

    Accepts one file with two or three arrays `[B, V]` (or `[V]`: one row), one file with one array `[2, B, V]` or
    `[3, B, V]` in the order theta, target, reference, or two or three files with one array each. Names decide if
    they say theta/current/student, target/t/teacher, reference/ref/base, in any case and between other words
    ("logits_theta", "pi-T", "RefLogits"): of the array, else of its file. What they leave open goes by order.

    Raises FileError if arrays are missing, superfluous, of unequal shapes or not `[rows, tokens]`.
    """
    arrays, hints = _flatten(files)
    roles, assigned_by = _assign(hints)
    return pair_of({role: (label, arrays[label]) for role, label in zip(roles, arrays, strict=True)}, assigned_by)


def pair_of(
    by_role: Mapping[Role, tuple[str, Tensor]], assigned_by: Literal["name", "order", "reader"] = "reader"
) -> LogitPair:
    """The arrays, each with its label, in the roles that they were given. Raises FileError as `find_policies` does."""
    rows = {role: _as_rows(label, x) for role, (label, x) in by_role.items()}
    theta = rows["theta"]
    for role in ROLES[1:]:
        if role in rows and rows[role].shape != theta.shape:
            raise FileError(
                f"{show(by_role[role][0])} ({role}) has shape {shape_of(rows[role])} but {show(by_role['theta'][0])} "
                f"(theta) has shape {shape_of(theta)}: all policies need the same rows and the same vocabulary."
            )
    return LogitPair(
        theta,
        rows["target"],
        rows.get("reference"),
        {role: by_role[role][0] for role in ROLES if role in by_role},
        assigned_by,
    )


# --- which array is which ----------------------------------------------------------------------------------------


def _flatten(files: Mapping[str, Mapping[str, Tensor]]) -> tuple[dict[str, Tensor], list[Role | None]]:
    """All arrays by a label that a person recognises, and the role that each one's name suggests."""
    found = ", ".join(f"{show(PurePath(file).name)} with {count(arrays)}" for file, arrays in files.items())
    expected = (
        "expected one file with two or three arrays (theta, target and, if wanted, a reference), "
        "one array of shape [2, rows, tokens], or two or three files with one array each."
    )
    if not files:
        raise FileError(f"No file was given: {expected}")
    if len(files) == 1:
        (arrays,) = files.values()
        if len(arrays) == 1:
            ((name, stack),) = arrays.items()
            if stack.ndim == 3 and len(stack) in (2, 3):
                return {f"{name}[{i}]": stack[i] for i in range(len(stack))}, [None] * len(stack)
            raise FileError(
                f"There is only one array, {show(name)} of shape {shape_of(stack)}, so theta or target is missing: "
                f"{expected}"
            )
        if len(arrays) not in (2, 3):
            raise FileError(f"Found {found}: {expected}")
        return dict(arrays), [_role(name) for name in arrays]
    if len(files) > 3 or any(len(arrays) != 1 for arrays in files.values()):
        raise FileError(f"Found {found}: {expected}")
    single = [(file, *next(iter(arrays.items()))) for file, arrays in files.items()]
    hints = [_role(name) or _role(PurePath(file).stem) for file, name, _ in single]
    return {file: x for file, _, x in single}, hints


def _role(name: str) -> Role | None:
    """The role that a name says, if it says exactly one."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    for table in (_WORDS, _WEAK_WORDS):
        said = {table[word.lower()] for word in words if word.lower() in table}
        if said:
            return said.pop() if len(said) == 1 else None
    return None


def _assign(hints: Sequence[Role | None]) -> tuple[list[Role], Literal["name", "order"]]:
    """A role for every array: as its name says; the nameless take what is left, in order."""
    said = [hint for hint in hints if hint is not None]
    if len(set(said)) != len(said):
        # Two arrays claim one role ("policy_a", "policy_b"): the names do not tell them apart.
        return list(ROLES[: len(hints)]), "order"
    free = iter([role for role in ROLES if role not in said])
    roles = [next(free) if hint is None else hint for hint in hints]
    missing = [role for role in ROLES[:2] if role not in roles]
    if missing:
        raise FileError(
            f"By their names the arrays are {' and '.join(roles)}, so there is no {missing[0]}: expected theta and "
            "target. Add the missing logits, or rename the arrays."
        )
    return roles, "name" if len(said) == len(hints) else "order"


def roles_of(names: Sequence[str]) -> tuple[list[Role], Literal["name", "order"]]:
    """The role of each file by its name, or by order. Raises FileError."""
    return _assign([_role(PurePath(name).stem) for name in names])


def _with_reference(pair: LogitPair, path: str, arrays: Mapping[str, Tensor]) -> LogitPair:
    if pair.reference is not None:
        raise FileError(f"{show(path)} was given as the reference, but the other files hold one too: expected one.")
    if len(arrays) != 1:
        raise FileError(f"{show(path)} has {count(arrays)}: expected one, the logits of the reference.")
    (rows,) = (_as_rows(path, x) for x in arrays.values())
    if rows.shape != pair.theta.shape:
        raise FileError(
            f"{show(path)} (reference) has shape {shape_of(rows)} but {show(pair.names['theta'])} (theta) has shape "
            f"{shape_of(pair.theta)}: all policies need the same rows and the same vocabulary."
        )
    return replace(pair, reference=rows, names={**pair.names, "reference": path})


def _as_rows(label: str, x: Tensor) -> Tensor:
    rows = x[None] if x.ndim == 1 else x
    if rows.ndim != 2 or 0 in rows.shape:
        raise FileError(
            f"{show(label)} has shape {shape_of(x)}: expected [rows, tokens] with at least one of each. "
            "Flatten batch and position into rows."
        )
    return rows


# --- .npy --------------------------------------------------------------------------------------------------------


def _parse_npy(shown: str, data: bytes | bytearray) -> Tensor:
    """The array of one .npy file."""
    shape, fortran_order, dtype, offset = _npy_layout(shown, data, len(data))
    return _npy_array(shown, data, shape, fortran_order, dtype, offset)


def _map_npy(shown: str, mapped: mmap.mmap, max_bytes: int) -> Tensor:
    """The array of one .npy file that is memory-mapped."""
    size = len(mapped)
    shape, fortran_order, dtype, offset = _npy_layout(shown, mapped[: 12 + MAX_NPY_HEADER], size)
    if dtype.newbyteorder("=") != dtype or offset % dtype.itemsize:
        if size > max_bytes:
            raise FileError(f"{too_large(shown, size, max_bytes)} (Its byte order or alignment keeps it from a map.)")
        return _npy_array(shown, mapped[:], shape, fortran_order, dtype, offset)
    flat = _mapped_tensor(np.frombuffer(mapped, dtype, math.prod(shape), offset))
    return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape)))) if fortran_order else flat.reshape(shape)


def _mapped_tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # torch warns that it cannot guard memory which may not be written to.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _npy_layout(shown: str, head: bytes | bytearray, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """(shape, Fortran order, dtype, offset). Shape times item size equals the bytes that follow the header, exactly.

    `head` is the beginning of a file of `size` bytes.
    """
    shape, fortran_order, dtype, offset = _parse_npy_header(shown, head)
    _require_numbers(shown, dtype)
    if len(shape) > MAX_DIMENSIONS or any(abs(n) > MAX_LENGTH for n in shape):
        # Also keeps the numbers below printable: Python refuses to print an integer of 4,301 digits.
        raise FileError(f"{shown} declares an impossible shape ({len(shape)} dimensions): expected [rows, tokens].")
    if any(n < 0 for n in shape):
        raise FileError(f"{shown} declares shape {shape_of(shape)}: a dimension is negative, the file is damaged.")
    # math.prod on Python integers does not overflow, whatever the header claims.
    declared, present = math.prod(shape) * dtype.itemsize, size - offset
    if declared != present:
        kind = "the file is truncated" if declared > present else "there are trailing bytes after the array"
        raise FileError(
            f"{shown} declares shape {shape_of(shape)} and dtype {dtype.name}, {declared:,} bytes, but {present:,} "
            f"bytes follow its header: {kind}. Save it again with numpy.save."
        )
    if declared == 0:
        raise FileError(f"{shown} has shape {shape_of(shape)}: expected at least one row and one token.")
    return shape, fortran_order, dtype, offset


def _npy_array(
    shown: str,
    data: bytes | bytearray,
    shape: tuple[int, ...],
    fortran_order: bool,
    dtype: np.dtype[Any],
    offset: int,
) -> Tensor:
    try:
        flat = np.frombuffer(data, dtype, offset=offset)
        array = flat.reshape(shape, order="F" if fortran_order else "C")
        # torch wants native byte order, aligned memory and leave to write: a copy only where one of them is missing.
        return torch.from_numpy(np.require(array, dtype.newbyteorder("="), ["C", "A", "W"]))
    except (MemoryError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise FileError(
            f"{shown} declares shape {shape_of(shape)}, which cannot be read: expected [rows, tokens]."
        ) from (error)


def _parse_npy_header(shown: str, data: bytes | bytearray) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """(shape, Fortran order, dtype, offset of the first element)."""
    if bytes(data[:6]) != npy.MAGIC_PREFIX:
        raise FileError(f"{shown} is not an .npy file{guess(data)}: it does not begin with NumPy's signature.")
    if len(data) < 12:
        raise FileError(f"{shown} is truncated inside its header ({len(data)} bytes). Save it again with numpy.save.")
    version = (data[6], data[7])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise FileError(f"{shown} has .npy format version {data[6]}.{data[7]}: expected 1.0, 2.0 or 3.0.")
    start = 10 if version == (1, 0) else 12
    length = int.from_bytes(data[8:start], "little")
    if length > MAX_NPY_HEADER:
        raise FileError(
            f"{shown} has a header of {length:,} bytes, which is too long: expected at most {MAX_NPY_HEADER:,}, "
            "as for an array of plain numbers."
        )
    if start + length > len(data):
        raise FileError(f"{shown} is truncated inside its header ({len(data)} bytes). Save it again with numpy.save.")
    stream = io.BytesIO(bytes(data[: start + length]))
    stream.seek(npy.MAGIC_LEN)
    # Version 3.0 differs from 2.0 in the encoding of field names only, and an array with fields is refused anyway.
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read(stream, max_header_size=MAX_NPY_HEADER)
    except _HEADER_ERRORS as error:
        raise FileError(
            f"{shown} has an .npy header that cannot be parsed: the file is damaged. Save it again with numpy.save."
        ) from error
    return tuple(int(n) for n in shape), fortran_order, dtype, start + length


def _require_numbers(shown: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise FileError(
            f"{shown} holds Python objects, i.e. a pickle, which can run code when it is read: {EXPECTED}. "
            "Convert the array with .astype('float32') and save it again."
        )
    if dtype.names is not None or dtype.subdtype is not None:
        raise FileError(f"{shown} has a structured dtype (named fields): {EXPECTED}. Save each field as an array.")
    if dtype.kind == "V":
        raise FileError(
            f"{shown} holds raw {dtype.itemsize}-byte items: {EXPECTED}. NumPy's format has no bfloat16; save such "
            "logits as .safetensors, or convert them to float32."
        )
    if dtype.kind in _KINDS:
        raise FileError(f"{shown} holds {_KINDS[dtype.kind]}: {EXPECTED}.")
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise FileError(f"{shown} has dtype {dtype.name}: {EXPECTED}.")


# --- .npz --------------------------------------------------------------------------------------------------------


def _read_npz(shown: str, data: bytes, max_bytes: int) -> dict[str, Tensor]:
    if data[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise FileError(f"{shown} is not an .npz file: it does not begin as a zip archive does.")
    if data[-22:-18] != b"PK\x05\x06":
        raise FileError(
            f"{shown} is truncated or has trailing bytes: it does not end with a zip directory. "
            "Save it again with numpy.savez."
        )
    # zipfile parses the whole directory at once, at ten times its size in memory: count first.
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:
        raise FileError(f"{shown} contains more than {MAX_MEMBERS} files: expected two or three arrays.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(shown, archive.infolist(), len(data), max_bytes)
            return dict(_members(shown, archive))
    except FileError:
        raise
    except _ZIP_ERRORS as error:
        raise FileError(
            f"{shown} is damaged: its zip archive cannot be unpacked. Save it again with numpy.savez."
        ) from error


def _check_members(shown: str, members: Sequence[zipfile.ZipInfo], packed_file: int, max_bytes: int) -> None:
    """Refuse by what the directory declares, before anything is unpacked."""
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise FileError(f"{shown} contains two files of one name: expected one array of each name.")
    for member in members:
        where = f"{shown} contains {show(member.filename)}"
        if member.flag_bits & 1:
            raise FileError(f"{where}, which is encrypted: save the arrays without a password.")
        if not member.filename.endswith(".npy"):
            raise FileError(f"{where}, which is not an .npy array: expected arrays only, as numpy.savez writes them.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(f"{where}, packed by an unusual method: save with numpy.savez or numpy.savez_compressed.")
    packed = sum(member.compress_size for member in members)
    unpacked = sum(member.file_size for member in members)
    if packed > packed_file:
        raise FileError(f"{shown} is damaged: its members overlap. Save it again with numpy.savez.")
    if unpacked > max_bytes:
        raise FileError(too_large(f"{shown}, unpacked,", unpacked, max_bytes))
    if unpacked > max(RATIO_FREE_BYTES, MAX_RATIO * packed):
        raise FileError(
            f"{shown} unpacks from {packed:,} to {unpacked:,} bytes, more than {MAX_RATIO} times its size, as a zip "
            "bomb does. If it is genuine, save it uncompressed with numpy.savez."
        )


def _members(shown: str, archive: zipfile.ZipFile) -> Iterator[tuple[str, Tensor]]:
    for member in archive.infolist():
        where = f"{show(member.filename)} in {shown}"
        unpacked = bytearray()
        with archive.open(member) as stream:
            # In pieces, so that neither a lying size nor a lying stream makes us hold more than was declared.
            while piece := stream.read(1 << 20):
                unpacked += piece
                if len(unpacked) > member.file_size:
                    raise FileError(f"{where} unpacks to more than its declared {member.file_size:,} bytes.")
        if len(unpacked) != member.file_size:
            raise FileError(
                f"{where} unpacks to {len(unpacked):,} bytes, not its declared {member.file_size:,}: it is truncated."
            )
        yield member.filename.removesuffix(".npy"), _parse_npy(where, unpacked)


# --- .safetensors ------------------------------------------------------------------------------------------------


def _safetensors_header(shown: str, head: bytes, size: int) -> int:
    """Bytes of the header of a file of `size` bytes that begins with `head`."""
    length = int.from_bytes(head[:8], "little")
    if size < 8 or (length > size - 8 and length <= MAX_SAFETENSORS_HEADER):
        raise FileError(f"{shown} is truncated inside its header ({size:,} bytes). Save or upload it again.")
    if length > MAX_SAFETENSORS_HEADER:
        raise FileError(
            f"{shown} is not a .safetensors file{guess(head)}, or its header is too long: it declares {length:,} "
            f"bytes, expected at most {MAX_SAFETENSORS_HEADER:,}."
        )
    return length


def _map_safetensors(shown: str, mapped: mmap.mmap, max_bytes: int) -> dict[str, Tensor]:
    """The tensors of one .safetensors file that is memory-mapped; they must cover its bytes, exactly, once."""
    size = len(mapped)
    start = 8 + _safetensors_header(shown, mapped[:256], size)
    try:
        header = json.loads(mapped[8:start].decode("utf-8"))
        entries = [
            (name, entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        entries.sort(key=lambda entry: entry[3:])
        whole = [n for _, _, shape, *offsets in entries for n in (*shape, *offsets)]
        if any(type(n) is not int or not 0 <= n < 1 << 63 for n in whole) or any(len(e) != 5 for e in entries):
            raise TypeError
        if any(type(kind) is not str for _, kind, *_ in entries):
            raise TypeError
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise FileError(_bad_safetensors(shown, _SAFETENSORS_WORDS["JSON"])) from error
    arrays: dict[str, Tensor] = {}
    end = 0
    for name, kind, shape, first, last in entries:
        where = f"{show(name)} in {shown}"
        dtype = _SAFETENSORS_DTYPES.get(kind)
        if dtype is None:
            raise FileError(f"{where} has dtype {show(kind)}: {EXPECTED}.")
        if first != end or last < first:
            raise FileError(_bad_safetensors(shown, _SAFETENSORS_WORDS["offset"]))
        if math.prod(shape) * dtype.itemsize != last - first:
            raise FileError(_bad_safetensors(shown, _SAFETENSORS_WORDS["data type"]))
        if 0 in shape or len(shape) > MAX_DIMENSIONS:
            raise FileError(f"{where} has shape {shape_of(shape)}: expected at least one row and one token.")
        end = last
        if start + end > size:
            break
        stored = np.dtype(np.uint16) if dtype == torch.bfloat16 else torch.empty((), dtype=dtype).numpy().dtype
        flat = np.frombuffer(mapped, stored, math.prod(shape), start + first)
        if (start + first) % dtype.itemsize:
            if flat.nbytes > max_bytes:
                raise FileError(f"{too_large(where, flat.nbytes, max_bytes)} (It is not aligned and cannot be mapped.)")
            flat = np.require(flat.copy(), requirements=["A"])
        x = _mapped_tensor(flat)
        arrays[name] = (x.view(torch.bfloat16) if dtype == torch.bfloat16 else x).reshape(shape)
    if start + end != size:
        raise FileError(_bad_safetensors(shown, _SAFETENSORS_WORDS["not fully covered"]))
    return arrays


def _bad_safetensors(shown: str, reason: str) -> str:
    return f"{shown} cannot be read as safetensors: {reason}. Save it again with safetensors.torch.save_file."


def _read_safetensors(shown: str, data: bytes) -> dict[str, Tensor]:
    _safetensors_header(shown, data, len(data))
    try:
        arrays = safetensors.load(data)
    except _SAFETENSORS_ERRORS as error:
        reason = next((words for key, words in _SAFETENSORS_WORDS.items() if key in str(error)), "")
        if isinstance(error, KeyError):
            reason = "a tensor has a dtype that torch cannot hold"
        raise FileError(_bad_safetensors(shown, reason or "the file is damaged")) from error
    for name, x in arrays.items():
        where = f"{show(name)} in {shown}"
        if x.dtype not in TORCH_DTYPES:
            raise FileError(f"{where} has dtype {str(x.dtype).removeprefix('torch.')}: {EXPECTED}.")
        if 0 in x.shape:
            raise FileError(f"{where} has shape {shape_of(x)}: expected at least one row and one token.")
    return arrays


# --- shared ------------------------------------------------------------------------------------------------------


def _size(path: Path) -> int:
    """Bytes of a file."""
    try:
        if not path.is_file():
            raise FileError(f"{path} is {'not a file' if path.exists() else 'not there'}: expected a file of logits.")
        return path.stat().st_size
    except OSError as error:
        raise FileError(f"{path} cannot be read: {type(error).__name__}.") from error


def _some(shown: str, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    if not arrays:
        raise FileError(f"{shown} contains no array: expected the logits of two or three policies.")
    return arrays


def _empty(shown: str) -> str:
    return f"{shown} is empty (0 bytes): expected logits. Save or upload it again."


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A whole file. Raises FileError if it is not there, or larger."""
    size = _size(path)
    try:
        if size > max_bytes:
            raise FileError(too_large(str(path), size, max_bytes))
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise FileError(f"{path} cannot be read: {type(error).__name__}.") from error
