"""Unpacks one .parquet file in a process of its own, which may end or be refused memory without harm to its caller.

    python -P parquet_child.py arrays SHOWN STEM MAX_BYTES < file
    python -P parquet_child.py table SHOWN COLUMN,COLUMN,… MAX_BYTES < file

Writes a line of JSON: {"refused": why}; or {"arrays": [[name, dtype, shape], …]}, and then the arrays' bytes; or
{"columns": [name, …]}, those that are there, and then a line for each batch of rows, a list of values a column. Knows
nothing of geomix, so that it starts quickly.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

MAX_COLUMNS = 1 << 20
"""A token each, at most."""
MAX_ROW_GROUPS = 1 << 16
THRIFT_BYTES = 1 << 26
"""Of the footer, and of anything in it."""
BATCH_ROWS = 256
"""Rows unpacked at a time."""
SPARE_BYTES = 1 << 32
"""Address space beyond four times MAX_BYTES: the interpreter and its libraries."""


class Refused(Exception):
    """Why the file is not read, in words."""


_ERRORS = (pyarrow.ArrowException, ArithmeticError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


def read(shown: str, stem: str, data: bytes, max_bytes: int) -> dict[str, np.ndarray]:
    """The arrays by name. Refused by what the footer declares, before anything is unpacked."""
    try:
        file = _opened(shown, data)
        lists = _check_parquet(shown, file, max_bytes)
        if lists:
            return {column: _list_column(shown, file, column, max_bytes) for column in lists}
        return {stem: _token_columns(shown, file)}
    except _ERRORS as error:
        raise Refused(_damaged(shown)) from error


def read_table(shown: str, wanted: list[str], data: bytes, max_bytes: int) -> tuple[list[str], list[bytes]]:
    """Which of the columns are there, and the lines of their values. Refused for what is neither number nor text."""
    try:
        file = _opened(shown, data)
        names = [name for name in wanted if file.schema_arrow.names.count(name) == 1]
        kinds = pyarrow.types
        for name in names:
            kind = file.schema_arrow.field(name).type
            if not any(is_kind(kind) for is_kind in (kinds.is_floating, kinds.is_integer, kinds.is_null, _is_text)):
                raise Refused(f"{_show(name)} in {shown} holds {_show(str(kind))}: expected numbers or text.")
        _check_size(shown, 8 * file.metadata.num_rows * len(names), max_bytes)
        lines: list[bytes] = []
        size = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names, use_threads=False):
            lines.append(json.dumps([batch.column(name).to_pylist() for name in names]).encode() + b"\n")
            size += len(lines[-1])
            _check_size(shown, size, max_bytes)
        return names, lines
    except _ERRORS as error:
        raise Refused(_damaged(shown)) from error


def _opened(shown: str, data: bytes) -> Any:
    if data[:4] != b"PAR1" or data[-4:] != b"PAR1":
        raise Refused(f"{shown} is truncated or not a .parquet file: it does not begin and end with PAR1.")
    return pyarrow.parquet.ParquetFile(
        io.BytesIO(data), thrift_string_size_limit=THRIFT_BYTES, thrift_container_size_limit=MAX_COLUMNS
    )


def _is_text(kind: Any) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _check_size(shown: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise Refused(_too_large(f"{shown}, unpacked,", size, max_bytes))


def _damaged(shown: str) -> str:
    return f"{shown} is damaged: it cannot be unpacked as .parquet. Save it again."


def _check_parquet(shown: str, file: Any, max_bytes: int) -> list[str]:
    """The names of the columns of lists; raises Refused for what is too large or holds no numbers."""
    footer, schema = file.metadata, file.schema_arrow
    if footer.num_rows < 1 or footer.num_columns < 1:
        raise Refused(f"{shown} has {footer.num_rows} rows: expected at least one row and one token.")
    if footer.num_columns > MAX_COLUMNS or footer.num_row_groups > MAX_ROW_GROUPS:
        raise Refused(
            f"{shown} has {footer.num_columns:,} columns in {footer.num_row_groups:,} groups of rows: expected at most "
            f"{MAX_COLUMNS:,} and {MAX_ROW_GROUPS:,}."
        )
    values = unpacked = 0
    if footer.num_rows * footer.num_columns <= max_bytes:
        for i in range(footer.num_row_groups):
            group = footer.row_group(i)
            for j in range(group.num_columns):
                column = group.column(j)
                values += max(column.num_values, group.num_rows)
                unpacked += max(column.total_uncompressed_size, 0)
    else:
        values = footer.num_rows * footer.num_columns
    _check_size(shown, max(8 * values, unpacked), max_bytes)
    if len(set(schema.names)) != len(schema.names):
        raise Refused(f"{shown} has two columns of one name: expected a name for each.")
    kinds = pyarrow.types
    lists = [
        field.name
        for field in schema
        if kinds.is_list(field.type) or kinds.is_large_list(field.type) or kinds.is_fixed_size_list(field.type)
    ]
    for field in [schema.field(name) for name in lists] or schema:
        item = field.type.value_type if lists else field.type
        if not (kinds.is_floating(item) or kinds.is_integer(item)):
            raise Refused(
                f"{_show(field.name)} in {shown} holds {_show(str(item))}: expected numbers, in columns of lists (one "
                "for each policy) or in one column a token."
            )
    return lists


def _list_column(shown: str, file: Any, name: str, max_bytes: int) -> np.ndarray:
    where = f"{_show(name)} in {shown}"
    parts: list[np.ndarray] = []
    width, size = -1, 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[name], use_threads=False):
        column = batch.column(0)
        if column.null_count or column.flatten().null_count:
            raise Refused(f"{where} has missing values: expected a number for every token.")
        lengths = np.unique(pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False))
        width = int(lengths[0]) if width < 0 and len(lengths) else width
        if len(lengths) > 1 or (len(lengths) and int(lengths[0]) != width):
            raise Refused(f"{where} has lists of unequal lengths: expected as many tokens in every row.")
        numbers = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)
        size += numbers.nbytes
        if size > max_bytes:
            raise Refused(_too_large(f"{where}, unpacked,", size, max_bytes))
        parts.append(numbers)
    return _rows(where, parts, file.metadata.num_rows)


def _token_columns(shown: str, file: Any) -> np.ndarray:
    parts: list[np.ndarray] = []
    for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                raise Refused(f"{_show(name)} in {shown} has missing values: expected a number in every row.")
        parts.append(np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], -1))
    return _rows(shown, parts, file.metadata.num_rows)


def _rows(where: str, parts: list[np.ndarray], expected: int) -> np.ndarray:
    whole = np.concatenate(parts) if parts else np.empty((0, 0))
    if len(whole) != expected:
        raise Refused(f"{where} has {len(whole):,} rows, not the {expected:,} that the file declares: it is damaged.")
    if 0 in whole.shape:
        raise Refused(f"{where} has shape {list(whole.shape)}: expected at least one row and one token.")
    return np.require(whole, whole.dtype.newbyteorder("="), ["C"])


def _too_large(shown: str, size: int, max_bytes: int) -> str:
    return f"{shown} is too large: {size:,} bytes, expected at most {max_bytes:,}. Keep fewer rows, or save float16."


def _show(name: str) -> str:
    short = name if len(name) <= 80 else name[:40] + "…" + name[-39:]
    return short if short.isprintable() and short else ascii(short)


def main(what: str, shown: str, names: str, max_bytes: int) -> None:
    """Answer on stdout."""
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (SPARE_BYTES + 4 * max_bytes, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass  # Windows has none, and a lower limit may be set already
    out = sys.stdout.buffer
    data = sys.stdin.buffer.read()
    try:
        if what == "table":
            columns, lines = read_table(shown, names.split(","), data, max_bytes)
            out.write(json.dumps({"columns": columns}).encode() + b"\n")
            out.writelines(lines)
            return
        arrays = read(shown, names, data, max_bytes)
    except Refused as refusal:
        out.write(json.dumps({"refused": str(refusal)}).encode() + b"\n")
        return
    about = [[name, x.dtype.str, list(x.shape)] for name, x in arrays.items()]
    out.write(json.dumps({"arrays": about}).encode() + b"\n")
    for x in arrays.values():
        out.write(x.data)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
