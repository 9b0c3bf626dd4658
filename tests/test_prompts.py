"""Files of prompts, and which prompt a row of logits belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from geomix_core.errors import FileError
from geomix_core.prompts import (
    Prompt,
    Row,
    header_metadata,
    read_prompts,
    read_rows,
    row_metadata,
    rows_path,
    rows_to_bytes,
    to_text,
)

ROWS = (Row("one?", "so", position=1), Row("two", "", "θ's", "π's", 0), Row("three"))


# --- prompts -----------------------------------------------------------------------------------------------------


def test_lines_of_text(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffone \r\n\r\n  two\u2028still two\x0b\n".encode())
    assert read_prompts(path) == [Prompt("one "), Prompt("  two\u2028still two\x0b")]


def test_objects(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    asked = [{"prompt": "a", "id": 3}, {"prompt": "b", "response": "c", "target_prompt": "d", "theta_prompt": None}]
    path.write_text("\n".join(map(json.dumps, asked)) + "\n", "utf-8")
    first, second = read_prompts(path)
    assert first == Prompt("a")
    assert second == Prompt("b", "c", None, "d")
    assert [second.seen_by("theta"), second.seen_by("target")] == ["b", "d"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("p.txt", b"\xff\xfe", "UTF-8"),
        ("p.txt", b"\n \n", "no prompt"),
        ("p.jsonl", b"", "empty"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt"\n', "line 2"),
        ("p.jsonl", b'["a"]', "expected an object"),
        ("p.jsonl", b'{"text": "a"}', "expected an object"),
        ("p.jsonl", b'{"prompt": 3}', "prompt that is no text"),
        ("p.jsonl", b'{"prompt": "a", "response": ["b"]}', "response that is no text"),
        ("p.csv", b"a", ".jsonl"),
        ("p", b"a", ".txt"),
    ],
)
def test_what_are_no_prompts(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileError, match=words):
        read_prompts(tmp_path / name)


def test_prompts_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not there"):
        read_prompts(tmp_path / "p.txt")
    with pytest.raises(FileError, match="not a file"):
        read_prompts(tmp_path)


# --- rows --------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=20)


@given(
    st.lists(
        st.builds(Row, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | st.integers(0, 1000)), min_size=1
    )
)
def test_rows_come_back(rows: list[Row]) -> None:
    assert read_rows("a.rows.jsonl", rows_to_bytes(rows)) == tuple(rows)


def logits(tmp_path: Path, **metadata: str) -> Path:
    path = tmp_path / "logits.safetensors"
    safetensors.numpy.save_file({"theta": np.zeros((3, 4)), "target": np.zeros((3, 4))}, path, metadata)
    return path


def test_metadata_beside_logits(tmp_path: Path) -> None:
    data = rows_to_bytes(ROWS)
    path = logits(tmp_path, **header_metadata("student", "teacher", data))
    assert row_metadata(path) is None
    rows_path(path).write_bytes(data)
    found = row_metadata(path)
    assert found is not None
    assert found.rows == ROWS
    assert found.models == {"theta": "student", "target": "teacher"}
    rows_path(path).write_bytes(rows_to_bytes(ROWS[::-1]))
    with pytest.raises(FileError, match="does not belong to"):
        row_metadata(path)


def test_metadata_written_by_hand(tmp_path: Path) -> None:
    for path in (tmp_path / "theta.npy", logits(tmp_path)):
        rows_path(path).write_text('{"prompt": "a"}\n{"prompt": "b", "position": 2}\n', "utf-8")
        found = row_metadata(path)
        assert found is not None
        assert found.rows == (Row("a"), Row("b", position=2))
        assert found.models == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"[1]", "expected an object"),
        (b'{"prompt": "a", "position": -1}', "position"),
        (b'{"prompt": "a", "position": true}', "position"),
        (b'{"prompt": "a", "position": 1e400}', "position"),
        (b'{"prompt": "a", "position": 99999999999}', "position"),
        (b'{"prompt": {}}', "no text"),
        (b"[" * 100_000, "not JSON|too deeply"),
        (b'{"prompt": "a"}\n\xff', "UTF-8"),
    ],
)
def test_damaged_rows(data: bytes, words: str, tmp_path: Path) -> None:
    path = logits(tmp_path)
    rows_path(path).write_bytes(data)
    with pytest.raises(FileError, match=words):
        row_metadata(path)


def test_rows_beside_damaged_logits(tmp_path: Path) -> None:
    path = tmp_path / "logits.safetensors"
    path.write_bytes(b"\xff" * 40)
    rows_path(path).write_bytes(rows_to_bytes(ROWS))
    with pytest.raises(FileError, match="damaged"):
        row_metadata(path)


def test_a_row_as_text(tmp_path: Path) -> None:
    hostile = Row("line 1\nline 2 \x1b[2J \u202eevil", "\ud800 so", position=3)
    path = logits(tmp_path, theta="m\x07", target="t")
    rows_path(path).write_bytes(rows_to_bytes([hostile]))
    found = row_metadata(path)
    assert found is not None
    lines = to_text(found, 0).splitlines()
    assert lines == [
        "row        0, after 3 tokens of the response",
        r"theta      m\x07",
        "target     t",
        "prompt     line 1",
        r"           line 2 \x1b[2J \u202eevil",
        r"response   \ud800 so",
    ]
    with pytest.raises(FileError, match="expected 0 to 0"):
        to_text(found, 1)
