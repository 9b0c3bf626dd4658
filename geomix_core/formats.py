"""Readers of .pt, .parquet and .csv for `files`: bytes in, arrays by name out, or a FileError."""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import pickletools
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from operator import index
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from geomix_core.errors import FileError
from geomix_core.file_words import EXPECTED, TORCH_DTYPES, shape_of, show, too_large

MAX_PICKLE = 1 << 16
"""Bytes of the pickle in a .pt file. It names its tensors; their numbers lie beside it. A few take 1,000."""
MAX_MEMBERS = 1000
"""Files in the archive that a .pt file is."""
MAX_DIMENSIONS = 8
CHILD_SECONDS = 600
"""For a .parquet file to be unpacked in."""
_CHILD = Path(__file__).with_name("parquet_child.py")


MAX_DIRECTORY = 1 << 20
"""Bytes of the directory of the archive that a .pt file is, which zipfile parses at once."""
MAX_MEMO = 1 << 16
"""Objects in the pickle of a .pt file. Python sets aside memory for as many as an instruction says."""

_STORAGES = {
    **dict.fromkeys(("ByteStorage", "CharStorage", "UntypedStorage"), 1),
    **dict.fromkeys(("ShortStorage", "HalfStorage", "BFloat16Storage"), 2),
    **dict.fromkeys(("IntStorage", "FloatStorage"), 4),
    **dict.fromkeys(("LongStorage", "DoubleStorage"), 8),
}
"""Bytes of an item. Others hold no real numbers."""
_DTYPES = {"uint16": 2, "uint32": 4, "uint64": 8}
_MAKING = frozenset({"BUILD", "EXT1", "EXT2", "EXT4", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ"})
"""Instructions of a pickle that make or change objects, which tensors do without."""
_PT_REMEDY = "Save it again with torch.save({'theta': theta, 'target': target}, path), or as .safetensors."
_PT_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
    zipfile.BadZipFile,
    Warning,
)


# --- .pt ---------------------------------------------------------------------------------------------------------


def read_pt(name: str, data: bytes | Path) -> dict[str, Tensor]:
    """The tensors of what torch.save wrote: a tensor, or a dict or list of tensors. Nothing in it is executed.

    Checked before torch reads it: members are stored, not packed, so that none is larger than the file; the pickle
    calls nothing but what rebuilds tensors; and those lie inside of their members. torch.load(weights_only=True) alone
    lets through what costs memory, such as bytearray(10**12) or a shape beyond the file. A path is memory-mapped.
    """
    shown, stem = show(name), PurePath(name).stem
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as stream:
        _check_pt(shown, stream)
    try:
        found = torch.load(
            io.BytesIO(data) if isinstance(data, bytes) else data,
            map_location="cpu",
            weights_only=True,
            mmap=None if isinstance(data, bytes) else True,
        )
    except _PT_ERRORS as error:
        raise FileError(f"{shown} cannot be read by torch.load(weights_only=True): it is damaged. {_PT_REMEDY}") from (
            error
        )
    if isinstance(found, Tensor):
        named: dict[str, Any] = {stem: found}
    elif isinstance(found, Mapping):
        named = {str(key): x for key, x in found.items()}
    elif isinstance(found, list | tuple):
        named = {f"{stem}[{i}]": x for i, x in enumerate(found)}
    else:
        named = {stem: found}
    return {key: _sound(f"{show(key)} in {shown}", x) for key, x in named.items()}


def _check_pt(shown: str, stream: Any) -> None:
    if stream.read(2) != b"PK":
        raise FileError(
            f"{shown} is not a file that torch.save writes today (a zip archive), but perhaps a bare pickle, which can "
            "run code when it is read. Load it where you trust it and save it with safetensors.torch.save_file."
        )
    size = stream.seek(0, io.SEEK_END)
    stream.seek(-min(size, 98), io.SEEK_END)
    if _directory_bytes(stream.read()) > MAX_DIRECTORY:
        raise FileError(f"{shown} is truncated or damaged: it does not end as torch.save ends a file. {_PT_REMEDY}")
    stream.seek(0)
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            _check_members(shown, members, size)
            (described,) = (m for m in members if PurePath(m.filename).name == "data.pkl")
            folder = described.filename.removesuffix("data.pkl")
            sizes = {m.filename.removeprefix(folder): m.file_size for m in members}
            _check_pickle(shown, archive.read(described), sizes)
    except FileError:
        raise
    except (*_PT_ERRORS, zipfile.LargeZipFile) as error:
        raise FileError(f"{shown} is damaged: its zip archive cannot be read. {_PT_REMEDY}") from error


def _directory_bytes(tail: bytes) -> int:
    """What the end of a zip archive declares; more than any where it is none."""
    if tail[-22:-18] != b"PK\5\6":
        return MAX_DIRECTORY + 1
    declared = int.from_bytes(tail[-10:-6], "little")
    if tail[-42:-38] == b"PK\6\7":  # of more than 4 GB
        declared = max(declared, int.from_bytes(tail[-58:-50], "little"))
    return declared


def _check_members(shown: str, members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise FileError(f"{shown} contains more than {MAX_MEMBERS} files: expected two or three tensors.")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise FileError(f"{shown} contains two files of one name, as no torch.save writes it. {_PT_REMEDY}")
    if any(m.flag_bits & 1 for m in members):
        raise FileError(f"{shown} is encrypted: save the tensors without a password.")
    if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
        raise FileError(
            f"{shown} is a packed archive, as a zip bomb is; torch.save stores its tensors as they are. {_PT_REMEDY}"
        )
    if sum(m.file_size for m in members) > size:
        raise FileError(f"{shown} is damaged: its members overlap. {_PT_REMEDY}")
    pickles = [m for m in members if PurePath(m.filename).name == "data.pkl"]
    if len(pickles) != 1 or any(m.filename.endswith((".pkl", ".py")) for m in members if m not in pickles):
        raise FileError(
            f"{shown} is not what torch.save writes for tensors (a saved program, perhaps): expected a tensor or a "
            f"dict of tensors. {_PT_REMEDY}"
        )
    if pickles[0].file_size > MAX_PICKLE:
        raise FileError(
            f"{shown} describes its tensors in {pickles[0].file_size:,} bytes, expected at most {MAX_PICKLE:,}: a "
            f"tensor or a dict of two or three. {_PT_REMEDY}"
        )


def _check_pickle(shown: str, pickled: bytes, sizes: Mapping[str, int]) -> None:
    """Refuse a pickle that names anything but what rebuilds a tensor, or a tensor that its bytes do not hold."""
    try:
        for instruction, argument, _ in pickletools.genops(pickled):
            if instruction.name in _MAKING:
                raise FileError(_more_than_tensors(shown))
            if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > MAX_MEMO:
                raise FileError(f"{shown} is damaged: what describes its tensors cannot be parsed. {_PT_REMEDY}")
        _Claims(shown, pickled, sizes).load()
    except FileError:
        raise
    except _PT_ERRORS as error:
        raise FileError(f"{shown} is damaged: what describes its tensors cannot be parsed. {_PT_REMEDY}") from error


class _Storage(NamedTuple):
    """Numbers that tensors are made of: so many items of so many bytes. They are not read here."""

    items: int
    itemsize: int


class _Claims(pickle.Unpickler):
    """Reads what a .pt file says of its tensors, and makes none. All that its pickle can call is in `find_class`."""

    def __init__(self, shown: str, pickled: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(pickled))
        self.shown = shown
        self.sizes = sizes

    def find_class(self, module: str, name: str) -> Any:
        where = f"{module}.{name}"
        if where in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"):
            return self.claim
        if where == "torch._utils._rebuild_parameter":
            return _first
        if where == "collections.OrderedDict":
            return _nothing
        if module in ("torch", "torch.storage") and (name in _STORAGES or name in _DTYPES):
            return name
        raise FileError(_more_than_tensors(self.shown))

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, items = pid
        itemsize = _STORAGES[kind]
        if not 0 <= items * itemsize <= self.sizes[f"data/{key}"]:
            raise FileError(f"{self.shown} is damaged: a tensor's numbers are not all there. {_PT_REMEDY}")
        return _Storage(items, itemsize)

    def claim(self, storage: _Storage, offset: int, shape: Any, strides: Any, *rest: Any) -> str:
        """In place of a tensor: checks that its numbers lie inside of its storage, each once."""
        dims, steps = [index(n) for n in shape], [index(n) for n in strides]
        if len(dims) != len(steps) or index(offset) < 0 or min([*dims, *steps, 0]) < 0:
            raise ValueError
        # Of unsigned integers the storage counts bytes, and the dtype is named.
        itemsize = max([storage.itemsize, *(_DTYPES[x] for x in rest if isinstance(x, str) and x in _DTYPES)])
        present = storage.items * storage.itemsize
        declared = math.prod(dims) * itemsize
        last = offset + sum((n - 1) * step for n, step in zip(dims, steps, strict=True)) + 1
        if declared and max(declared, last * itemsize) > present:
            about = f"shape {shape_of(tuple(dims))}, {declared:,} bytes" if len(str(dims)) < 200 else "a long shape"
            raise FileError(
                f"{self.shown} declares a tensor of {about}, but its memory has {present:,}: it is damaged, or a view "
                f"that repeats its numbers. {_PT_REMEDY[:-1]}, after .contiguous()."
            )
        return "tensor"


def _more_than_tensors(shown: str) -> str:
    return (
        f"{shown} holds a pickle that is more than tensors of real numbers, which can run code when it is read: it was "
        f"not run. Expected a tensor or a dict of tensors. {_PT_REMEDY}"
    )


def _first(x: Any, *_: Any) -> Any:
    return x


def _nothing(*_: Any) -> dict[str, Any]:
    """Hooks and metadata, or what a dict of tensors is filled into."""
    return {}


def _sound(where: str, found: Any) -> Tensor:
    """The tensor itself, if it is one of real numbers that are all there."""
    if not isinstance(found, Tensor):
        raise FileError(f"{where} is a Python {show(type(found).__name__)}: expected tensors only. {_PT_REMEDY}")
    x: Tensor = found.detach()
    if x.layout != torch.strided or x.is_quantized or x.device.type != "cpu":
        raise FileError(f"{where} is sparse, quantised or empty of numbers: {EXPECTED}, dense.")
    if x.dtype not in TORCH_DTYPES:
        raise FileError(f"{where} has dtype {str(x.dtype).removeprefix('torch.')}: {EXPECTED}.")
    if x.ndim > MAX_DIMENSIONS:
        raise FileError(f"{where} declares an impossible shape ({x.ndim} dimensions): expected [rows, tokens].")
    if 0 in x.shape:
        raise FileError(f"{where} has shape {shape_of(x)}: expected at least one row and one token.")
    declared, present = math.prod(x.shape) * x.element_size(), x.untyped_storage().nbytes()
    if declared > present:
        raise FileError(
            f"{where} declares shape {shape_of(x)}, {declared:,} bytes, but its memory has {present:,}: a view that "
            "repeats its numbers. Save it after .contiguous()."
        )
    return x


# --- .parquet ----------------------------------------------------------------------------------------------------


def read_parquet(name: str, data: bytes, max_bytes: int) -> dict[str, Tensor]:
    """The arrays of a .parquet file: each column of lists is one (a row's logits in each cell); with none, all
    columns together are one, a token each.
    """
    arrays: dict[str, Tensor] = {}
    with _unpacked("arrays", name, PurePath(name).stem, data, max_bytes) as (answer, rest):
        start = 0
        for column, dtype, shape in answer["arrays"]:
            flat = np.frombuffer(rest, dtype, math.prod(shape), start)
            start += flat.nbytes
            arrays[column] = torch.from_numpy(flat.copy().reshape(shape))
    return arrays


def read_parquet_table(name: str, columns: Sequence[str], data: bytes, max_bytes: int) -> dict[str, list[Any]]:
    """Those of the columns, of numbers or text, that a .parquet file has; None where it has no value.

    The bound is on what they take as text, too.
    """
    with _unpacked("table", name, ",".join(columns), data, max_bytes) as (answer, rest):
        table: dict[str, list[Any]] = {column: [] for column in answer["columns"]}
        for line in bytes(rest).splitlines():
            for column, values in zip(table, json.loads(line), strict=True):
                table[column] += values
    return table


@contextmanager
def _unpacked(
    what: str, name: str, names: str, data: bytes, max_bytes: int
) -> Iterator[tuple[dict[str, Any], memoryview]]:
    """What `parquet_child` answers, and the bytes that follow; what cannot be made of them in the block is damage.

    It works in a process of its own: on some damaged files pyarrow ends its process.
    """
    shown = show(name)
    if find_spec("pyarrow") is None:
        raise FileError(
            f"{shown} needs pyarrow, which is not installed here: pip install pyarrow, or save .safetensors or .npy, "
            "and results as .csv or .json."
        )
    damaged = f"{shown} is damaged: it cannot be unpacked as .parquet. Save it again."
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_CHILD), what, shown, names, str(max_bytes)],
            input=data,
            capture_output=True,
            timeout=CHILD_SECONDS,
        )
        if done.returncode:
            raise FileError(damaged)
        end = done.stdout.index(b"\n") + 1
        answer = json.loads(done.stdout[:end])
        if "refused" in answer:
            raise FileError(answer["refused"])
        yield answer, memoryview(done.stdout)[end:]
    except FileError:
        raise
    except (OSError, MemoryError, LookupError, TypeError, ValueError, subprocess.SubprocessError) as error:
        raise FileError(damaged) from error


# --- .csv --------------------------------------------------------------------------------------------------------


def read_csv(name: str, data: bytes, max_bytes: int, role_of: Callable[[str], object]) -> dict[str, Tensor]:
    """The one array of a .csv (commas) or .tsv (tabs): a line a row, a column a token, numbers only, in float64.

    The first line may be a header. `role_of` says whether a word names a policy: then the table lies the other way.
    """
    shown = show(name)
    delimiter = "\t" if PurePath(name).suffix.lower() == ".tsv" else ","
    if b"\0" in data[: 1 << 16]:
        raise FileError(f"{shown} is not text: expected numbers separated by {_word(delimiter)}.")
    size = 8 * (data.count(delimiter.encode()) + data.count(b"\n") + 1)
    if size > max_bytes:
        raise FileError(too_large(f"{shown}, as numbers,", size, max_bytes))
    header = _header(shown, data, delimiter, role_of)
    try:
        stream = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=None)
        array = np.loadtxt(stream, np.float64, comments=None, delimiter=delimiter, skiprows=header, ndmin=2)
    except UnicodeDecodeError as error:
        raise FileError(f"{shown} is not text in UTF-8: expected numbers separated by {_word(delimiter)}.") from error
    except (MemoryError, OverflowError, UserWarning, ValueError) as error:
        raise FileError(f"{shown} {_csv_reason(str(error), header, delimiter)}") from error
    if 0 in array.shape:
        raise FileError(f"{shown} has shape {shape_of(array.shape)}: expected at least one row and one token.")
    return {PurePath(name).stem: torch.from_numpy(array)}


def _header(shown: str, data: bytes, delimiter: str, role_of: Callable[[str], object]) -> int:
    """How many lines are a header: 0 or 1. A first line with anything but numbers is one."""
    end = data.find(b"\n")
    line = data if end < 0 else data[:end]
    try:
        cells = next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], delimiter=delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{shown} is not text in UTF-8: expected numbers separated by {_word(delimiter)}.") from error
    words = [cell for cell in cells if not _is_number(cell)]
    if not words:
        return 0
    if end < 0 or not data[end:].strip():
        raise FileError(f"{shown} has a header and no row of numbers, or its one row holds text: expected numbers.")
    if any(word[:1] in "=+-@" for word in words if word):
        raise FileError(f"{shown} has a formula in its first line: expected numbers. Save values, not formulas.")
    if cells[0].strip() == "":
        raise FileError(
            f"{shown} has a first column without a name, an index perhaps: expected one column a token. "
            "Save it with to_csv(…, index=False)."
        )
    if len(cells) <= 3 and len([cell for cell in cells if role_of(cell)]) > 1:
        raise FileError(
            f"{shown} has a column for each policy: expected a file for each, with one line a row and one column a "
            "token."
        )
    return 1


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _csv_reason(message: str, header: int, delimiter: str) -> str:
    """What NumPy found, without the values."""
    at = re.search(r"at row (\d+), column (\d+)", message)
    if at:
        line, column = int(at[1]) + 1 + header, int(at[2])
        return (
            f"has text, a formula or an empty cell in line {line}, column {column}: expected numbers separated by "
            f"{_word(delimiter)}, with a decimal point."
        )
    at = re.search(r"changed from (\d+) to (\d+) at row (\d+)", message)
    if at:
        return (
            f"is ragged: line {int(at[3]) + header} has {at[2]} columns and those before it {at[1]}. Expected as many "
            "tokens in every row."
        )
    return f"cannot be read as numbers separated by {_word(delimiter)}: it is damaged. Save it again."


def _word(delimiter: str) -> str:
    return "tabs" if delimiter == "\t" else "commas"
