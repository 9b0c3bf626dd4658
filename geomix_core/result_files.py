"""Results as files: .csv, .json and .parquet, whole or not there; and the journal that an interrupted run leaves.

journal = Journal.begin(path, header)       # path.partial; Journal.resume(path, header) goes on from it
journal.append(columns)                     # once a chunk
write(path, journal.chunks()); journal.remove()
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import IO, Any, Final

from geomix_core.errors import FileError
from geomix_core.file_words import show, too_large
from geomix_core.formats import read_parquet_table
from geomix_core.outputs import whole
from geomix_core.results import CERTIFICATE, COLUMNS, Column, Columns
from geomix_core.status import Status

EXTENSIONS = (".csv", ".json", ".parquet")
FORMAT = "geomix-results"
VERSION = 1
MAX_BYTES = 1 << 30
"""Of a file of results that is read."""

_STATUSES = frozenset({"invalid", *map(str, Status)})
_REMEDY = "Expected a file that `geomix solve --out` wrote."


@dataclass(frozen=True, slots=True)
class Table:
    """What a file of results must be like: the columns of one kind of answer."""

    format: str
    columns: Mapping[str, Column]
    required: tuple[str, ...]
    statuses: Mapping[str, frozenset[str]]
    """The words that may stand in a column."""


RESULTS = Table(FORMAT, COLUMNS, CERTIFICATE, dict.fromkeys(("status", "status_snr", "status_wald"), _STATUSES))
"""What `results.solve_chunks` makes."""


# --- writing -----------------------------------------------------------------------------------------------------


def check_extension(path: str | Path) -> None:
    """Raises FileError for a name that says no format, or one that cannot be written here."""
    if _extension(path) == ".parquet":
        _arrow(path)


def _extension(path: str | Path) -> str:
    extension = PurePath(path).suffix.lower()
    if extension not in EXTENSIONS:
        raise FileError(
            f"{show(str(path))} has {'extension ' + show(extension) if extension else 'no extension'}: expected one of "
            f"{', '.join(EXTENSIONS)}."
        )
    return extension


def write(path: str | Path, chunks: Iterable[Columns], table: Table = RESULTS) -> None:
    """Write chunks of results to a file, which is either not there (or as it was) or whole. Raises FileError."""
    check_extension(path)
    path = Path(path)
    writer = _writer(path.suffix.lower())
    try:
        with whole(path) as stream:
            writer(stream, chunks, table)
    except OSError as error:
        raise FileError(f"{path} cannot be written: {type(error).__name__}.") from error


def encode(extension: str, chunks: Iterable[Columns], table: Table = RESULTS) -> bytes:
    """What `write` would write, for a download. Raises FileError."""
    check_extension(f"results{extension}")
    stream = io.BytesIO()
    _writer(extension)(stream, chunks, table)
    return stream.getvalue()


def _writer(extension: str) -> Callable[[IO[bytes], Iterable[Columns], Table], None]:
    return {".csv": _write_csv, ".json": _write_json, ".parquet": _write_parquet}[extension]


def csv_lines(chunks: Iterable[Columns], table: Table = RESULTS) -> Iterator[str]:
    """The lines of a CSV file: a header, then the rows; numbers to full precision, None as an empty field."""
    yield _csv_line(table.columns)
    for columns in chunks:
        for values in zip(*(columns[name] for name in table.columns), strict=True):
            yield _csv_line("" if value is None else repr(value) if type(value) is float else value for value in values)


def _csv_line(values: Iterable[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()


def _write_csv(stream: IO[bytes], chunks: Iterable[Columns], table: Table) -> None:
    for line in csv_lines(chunks, table):
        stream.write(line.encode())


def _write_json(stream: IO[bytes], chunks: Iterable[Columns], table: Table) -> None:
    """One object, a row a line. JSON has no infinity: it is the text "inf"."""
    head = {"format": table.format, "version": VERSION, "columns": {name: c.says for name, c in table.columns.items()}}
    stream.write((json.dumps(head, ensure_ascii=False)[:-1] + ', "rows": [').encode())
    separator = "\n"
    for columns in chunks:
        for values in zip(*(columns[name] for name in table.columns), strict=True):
            row = {
                name: repr(value) if type(value) is float and math.isinf(value) else value
                for name, value in zip(table.columns, values, strict=True)
            }
            stream.write((separator + json.dumps(row, ensure_ascii=False, allow_nan=False)).encode())
            separator = ",\n"
    stream.write(b"\n]}\n")


def _write_parquet(stream: IO[bytes], chunks: Iterable[Columns], table: Table) -> None:
    parquet, arrow = _arrow("The output")
    types = {int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    schema = arrow.schema(
        [arrow.field(name, types[c.type], metadata={"says": c.says}) for name, c in table.columns.items()],
        metadata={"format": table.format, "version": str(VERSION)},
    )
    with parquet.ParquetWriter(stream, schema) as writer:
        for columns in chunks:
            writer.write_table(arrow.Table.from_pydict({name: columns[name] for name in table.columns}, schema=schema))


def _arrow(path: str | Path) -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FileError(
            f"{show(str(path))} needs pyarrow, which is not installed here: pip install pyarrow, or use .csv or .json."
        ) from error
    return pyarrow.parquet, pyarrow


# --- reading -----------------------------------------------------------------------------------------------------


def read(path: str | Path, table: Table = RESULTS) -> Columns:
    """A file of results as columns: those of the table that it has, each value of its column's type or None.

    Raises FileError for what is not such a file: a required column missing, a word for a number, NaN, an
    unknown status, a row twice. Columns of other names are passed over.
    """
    reader = {".csv": _read_csv, ".json": _read_json, ".parquet": _read_parquet}[_extension(path)]
    path = Path(path)
    try:
        if not path.is_file():
            raise FileError(f"{path} is {'not a file' if path.exists() else 'not there'}: expected a file of results.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileError(too_large(str(path), size, MAX_BYTES))
        raw = reader(path, table)
    except FileError:
        raise
    except (OSError, MemoryError, OverflowError, RecursionError, RuntimeError, TypeError, ValueError) as error:
        raise FileError(f"{path} cannot be read as results: it is damaged. {_REMEDY}") from error
    except csv.Error as error:
        raise FileError(f"{path} cannot be read as CSV: it is damaged. {_REMEDY}") from error
    return _checked(show(str(path)), raw, table)


def _read_csv(path: Path, table: Table) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        names = next(reader, [])
        if len(set(names)) != len(names):
            raise FileError(f"{path} has two columns of one name. {_REMEDY}")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for values in reader:
            if len(values) != len(names):
                raise FileError(f"{path} has {len(values)} fields in line {reader.line_num}, not {len(names)}.")
            for name, value in zip(names, values, strict=True):
                columns[name].append(value if value else None)
    return columns


def _read_json(path: Path, table: Table) -> dict[str, list[Any]]:
    found = json.loads(path.read_text("utf-8"))
    if not isinstance(found, dict) or found.get("format") != table.format or not isinstance(found.get("rows"), list):
        raise FileError(f"{path} holds no results. {_REMEDY}")
    if found.get("version") != VERSION:
        raise FileError(f"{path} has a version of results that this geomix does not know: expected {VERSION}.")
    rows = found["rows"]
    if not all(isinstance(row, dict) for row in rows):
        raise FileError(f"{path} has a row that is no object. {_REMEDY}")
    present = [name for name in table.columns if any(name in row for row in rows)] if rows else list(table.columns)
    return {name: [row.get(name) for row in rows] for name in present}


def _read_parquet(path: Path, table: Table) -> dict[str, list[Any]]:
    return read_parquet_table(str(path), list(table.columns), path.read_bytes(), MAX_BYTES)


def _checked(shown: str, raw: Mapping[str, list[Any]], table: Table = RESULTS) -> Columns:
    missing = [name for name in table.required if name not in raw]
    if missing:
        raise FileError(f"{shown} has no column {', '.join(missing)}. {_REMEDY}")
    columns: Columns = {}
    for name, column in table.columns.items():
        if name in raw:
            columns[name] = [_value(shown, name, i, value, column.type) for i, value in enumerate(raw[name])]
    rows = columns["row"]
    if not rows:
        raise FileError(f"{shown} has no rows. {_REMEDY}")
    if any(row is None or row < 0 for row in rows) or len(set(rows)) != len(rows):
        raise FileError(f"{shown} has a row without a number, or one twice: expected each row once. {_REMEDY}")
    for name, words in table.statuses.items():
        unknown = next((i for i, word in enumerate(columns.get(name, [])) if word not in (None, *words)), None)
        if unknown is not None:
            raise FileError(f"{shown} has a {name} in result {unknown} that is none. {_REMEDY}")
    return columns


def _value(shown: str, name: str, i: int, value: Any, kind: type) -> Any:
    """The value as the column's type. Text is parsed, and "inf" is a number here."""
    if value is None or (kind is str and isinstance(value, str)):
        return "" if value is None and name in ("problem", "digest") else value
    try:
        if kind is int and not isinstance(value, bool) and (not isinstance(value, float) or value.is_integer()):
            number: int | float = int(value)
            if abs(number) < 1 << 63:
                return number
        elif kind is float and not isinstance(value, bool):
            number = float(value)
            if not math.isnan(number):
                return number
    except (OverflowError, TypeError, ValueError) as error:
        raise FileError(f"{shown} has no number in column {name} of result {i}. {_REMEDY}") from error
    raise FileError(f"{shown} has a value in column {name} of result {i} that cannot stand there. {_REMEDY}")


# --- the journal -------------------------------------------------------------------------------------------------


class Journal:
    """The chunks that a run has finished, a line each, beside its output: what `--resume` goes on from."""

    SUFFIX: Final = ".partial"

    def __init__(self, path: Path, done: int, end: int) -> None:
        self.path = path
        self.done = done
        """Rows that it holds, the first of the input."""
        self._end = end

    @classmethod
    def beside(cls, out: str | Path) -> Path:
        """Where the journal of an output lies."""
        return Path(f"{out}{cls.SUFFIX}")

    @classmethod
    def begin(cls, out: str | Path, header: Mapping[str, Any]) -> Journal:
        """A new one. Raises FileError if an interrupted run left one, or it cannot be written."""
        path = cls.beside(out)
        line = (json.dumps({"format": f"{FORMAT}-journal", "version": VERSION, **header}) + "\n").encode()
        try:
            with path.open("xb") as stream:
                stream.write(line)
        except FileExistsError as error:
            raise FileError(
                f"{path} is there: an interrupted run left it. Add --resume to go on from it, or delete it to begin "
                "again."
            ) from error
        except OSError as error:
            raise FileError(f"{path} cannot be written: {type(error).__name__}.") from error
        return cls(path, 0, len(line))

    @classmethod
    def resume(cls, out: str | Path, header: Mapping[str, Any]) -> Journal:
        """The one that is there, or a new one. Raises FileError if it is of other options or another input.

        A line that was cut short is dropped.
        """
        path = cls.beside(out)
        if not path.exists():
            return cls.begin(out, header)
        expected = json.loads(json.dumps({"format": f"{FORMAT}-journal", "version": VERSION, **header}))
        with _readable(path), path.open("rb") as stream:
            first = stream.readline()
            found = json.loads(first) if first.endswith(b"\n") else None
            if found != expected:
                differs = _differing(found, expected)
                raise FileError(
                    f"{path} is of a run with other {differs}: repeat that run's command to go on from it, or delete "
                    "the file to begin again."
                )
            done, end = 0, len(first)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                done = _chunk(path, line, done)["row"][-1] + 1
                end += len(line)
        return cls(path, done, end)

    def append(self, columns: Columns) -> None:
        """Add a chunk, which is on the disk when this returns. Raises FileError."""
        line = (json.dumps(columns) + "\n").encode()
        try:
            with self.path.open("r+b") as stream:
                stream.seek(self._end)
                stream.write(line)
                stream.truncate()
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise FileError(f"{self.path} cannot be written: {type(error).__name__}.") from error
        self._end += len(line)
        self.done += len(columns["row"])

    def chunks(self) -> Iterator[Columns]:
        """What it holds, chunk by chunk."""
        done = 0
        with _readable(self.path), self.path.open("rb") as stream:
            stream.readline()
            while stream.tell() < self._end:
                columns = _chunk(self.path, stream.readline(), done)
                done += len(columns["row"])
                yield columns

    def remove(self) -> None:
        """Delete it: its output is written."""
        self.path.unlink(missing_ok=True)


def _chunk(path: Path, line: bytes, start: int) -> Columns:
    """A line of the journal, which holds rows from `start` on."""
    columns = json.loads(line)
    if not isinstance(columns, dict) or list(columns) != list(COLUMNS):
        raise FileError(f"{path} is damaged. Delete it to begin again.")
    table = _checked(show(str(path)), columns)
    count = len(table["row"])
    if table["row"] != list(range(start, start + count)) or any(len(x) != count for x in table.values()):
        raise FileError(f"{path} is damaged: its rows do not follow each other. Delete it to begin again.")
    return table


def _differing(found: Any, expected: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return "contents"
    return " and ".join(key for key in expected if found.get(key) != expected[key]) or "contents"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except (OSError, MemoryError, RecursionError, ValueError) as error:
        raise FileError(f"{path} is damaged or cannot be read. Delete it to begin again.") from error
