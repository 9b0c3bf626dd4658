"""JSON from strangers: bounded before it is parsed, one line that says what is wrong with it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from json import JSONDecodeError
from typing import Any

from geomix_core.errors import FileError
from geomix_core.file_words import show

MAX_BYTES = 1 << 28
MAX_ITEMS = 1 << 23
"""Commas, brackets and braces in a file: Python needs up to a hundred bytes for each thing that they part."""


def documents(name: str, data: bytes, *, max_bytes: int = MAX_BYTES) -> Iterator[tuple[str, Any]]:
    """(where, value) of every document: the one of a JSON file, or one a line (JSONL), whatever the extension.

    NaN and Infinity are refused, −Infinity is kept; an object may name a key once. Raises FileError.
    """
    shown = show(name)
    text = _text(shown, data, max_bytes)
    # A line that is whole JSON, with more behind it, makes a file of lines.
    first, _, rest = text.strip().partition("\n")
    if rest.strip() and _is_document(first):
        for i, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                where = f"line {i} of {shown}"
                yield where, _parse(where, line)
    else:
        yield shown, _parse(shown, text)


def document(name: str, data: bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """The one value of a JSON file. Raises FileError as `documents`."""
    return _parse(show(name), _text(show(name), data, max_bytes))


def _text(shown: str, data: bytes, max_bytes: int) -> str:
    if len(data) > max_bytes:
        raise FileError(
            f"{shown} is too large: {len(data):,} bytes, expected at most {max_bytes:,}. Split it into files of fewer "
            "responses."
        )
    items = sum(map(data.count, (b",", b"[", b"{", b"\n")))
    if items > MAX_ITEMS:
        raise FileError(
            f"{shown} holds about {items:,} items, expected at most {MAX_ITEMS:,}. Split it into files of fewer "
            "responses."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{shown} is not text in UTF-8, as JSON is. Save it again as UTF-8.") from error
    if not text.strip():
        raise FileError(f"{shown} is empty: expected JSON. Save or upload it again.")
    return text


def _is_document(line: str) -> bool:
    """True for a line that ends as a document does and parses."""
    if line.rstrip()[-1:] not in ("}", "]", "l"):
        return False
    try:
        json.loads(line)
    except (RecursionError, ValueError):
        return False
    return True


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda word: _constant(where, word), object_pairs_hook=_object(where))
    except JSONDecodeError as error:
        raise FileError(
            f"{where} is not JSON: {_reason(error)} in line {error.lineno}, column {error.colno}. It may be truncated; "
            "save it again."
        ) from error
    except RecursionError as error:
        raise FileError(f"{where} nests too deeply: expected the response of a server, as it came.") from error
    except (MemoryError, OverflowError) as error:
        raise FileError(f"{where} cannot be parsed: it is too large. Split it.") from error
    except FileError:
        raise
    except ValueError as error:  # an integer of more than 4,300 digits
        raise FileError(f"{where} holds a number of thousands of digits: expected a response as it came.") from error


def _reason(error: JSONDecodeError) -> str:
    return re.sub(r"[^a-z ,':-]", "", error.msg.lower()).strip(" :") or "damaged"


def _constant(where: str, word: str) -> float:
    if word == "-Infinity":
        return float("-inf")
    raise FileError(f"{where} holds {word}, which is no number in JSON: expected log-probabilities. Check the server.")


def _object(where: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """What makes a dict of pairs, none of which may repeat a key."""

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = next(name for name, count in counts.items() if count > 1)
            raise FileError(
                f"{where} has an object that names {show(twice)} twice: expected each key once. Save it again."
            )
        return made

    return make
