"""Prompts that models are run over (`read_prompts`), and which prompt each row of a file of logits belongs to.

Beside `logits.safetensors` lies `logits.rows.jsonl`, a line a row; `row_metadata("logits.safetensors")` reads it. One
that is written by hand, beside a file of any format, needs no more than {"prompt": …} a line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from geomix_core.errors import FileError
from geomix_core.file_words import show
from geomix_core.json_files import MAX_BYTES, documents

ROWS_SUFFIX = ".rows.jsonl"
_DIGEST = "rows"
"""The key in a .safetensors header that holds the digest of the file of rows."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked, and the beginning of an answer."""

    prompt: str
    response: str = ""
    theta_prompt: str | None = None
    """What π_θ sees instead of `prompt`."""
    target_prompt: str | None = None
    """What π_t sees instead of `prompt`: the reference answer beside it, for a teacher that may know it."""

    def seen_by(self, role: Literal["theta", "target"]) -> str:
        """The prompt as that model sees it."""
        own = self.theta_prompt if role == "theta" else self.target_prompt
        return self.prompt if own is None else own


@dataclass(frozen=True, slots=True)
class Row(Prompt):
    """Where in an answer one row of logits stands. Its texts are a stranger's: escape them before they are shown."""

    position: int | None = None
    """Tokens of the response that come before the one that the logits are of; `response` is their text."""


@dataclass(frozen=True, slots=True)
class RowMetadata:
    """What is known of the rows of a file of logits."""

    rows: tuple[Row, ...]
    models: Mapping[str, str] = field(default_factory=dict)
    """"theta" and "target": the names of the models, where the file says."""


def read_prompts(path: str | Path) -> list[Prompt]:
    """The prompts of a .txt file, one a line, or a .jsonl file, an object a line. Raises FileError.

    An object has "prompt" and may have "response", "theta_prompt" and "target_prompt", all text.
    """
    path = Path(path)
    data, extension = _bytes(path), path.suffix.lower()
    if extension == ".txt":
        try:
            # Not splitlines, which ends lines at characters that a prompt may have.
            lines = data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError as error:
            raise FileError(f"{path} is not text in UTF-8: save it again as UTF-8.") from error
        prompts = [Prompt(line) for line in lines if line.strip()]
    elif extension == ".jsonl":
        prompts = [Prompt(**_texts(where, found)) for where, found in documents(str(path), data)]
    else:
        raise FileError(f"{show(str(path))} is neither .txt (a prompt a line) nor .jsonl (an object a line).")
    if not prompts:
        raise FileError(f"{path} holds no prompt: expected one a line.")
    return prompts


def rows_path(path: str | Path) -> Path:
    """Where the rows of a file of logits are described."""
    return Path(path).with_suffix(ROWS_SUFFIX)


def row_metadata(path: str | Path) -> RowMetadata | None:
    """What is known of the rows of a file of logits; None if no file of rows lies beside it.

    Raises FileError if that is damaged, or if it is not the one that was written with the logits.
    """
    beside = rows_path(path)
    if not beside.is_file():
        return None
    data, header = _bytes(beside), _header(Path(path))
    if _DIGEST in header and header[_DIGEST] != digest(data):
        raise FileError(f"{beside} does not belong to {path}: it was changed, or is of another run. Extract again.")
    models: dict[str, str] = {role: header[role] for role in ("theta", "target") if role in header}
    return RowMetadata(read_rows(str(beside), data), models)


def read_rows(name: str, data: bytes) -> tuple[Row, ...]:
    """The rows that a file of rows describes. Raises FileError."""
    rows = []
    for where, found in documents(name, data):
        texts = _texts(where, found)
        position = found.get("position")
        if position is not None and (type(position) is not int or not 0 <= position < 1 << 31):
            raise FileError(f"{where} has a position that is no count of tokens: expected 0, 1, 2, …")
        rows.append(Row(**texts, position=position))
    return tuple(rows)


def rows_to_bytes(rows: Sequence[Row]) -> bytes:
    """The file that `read_rows` reads."""
    lines = (json.dumps({key: value for key, value in asdict(row).items() if value is not None}) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def to_text(found: RowMetadata, row: int) -> str:
    """What is known of one row, as lines for a terminal. Raises FileError if there is no such row."""
    if not 0 <= row < len(found.rows):
        raise FileError(f"There is no row {row}: expected 0 to {len(found.rows) - 1:,}.")
    x = found.rows[row]
    lines = [f"row        {row}" + ("" if x.position is None else f", after {x.position} tokens of the response")]
    lines += [f"{role:10} {_plain(name)}" for role, name in found.models.items()]
    for name, text in (
        ("prompt", x.prompt),
        ("θ sees", x.theta_prompt),
        ("π_t sees", x.target_prompt),
        ("response", x.response),
    ):
        if text is not None:
            lines.append(f"{name:10} {_plain(text)}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Without what moves a terminal's cursor, colours it or turns its lines around; further lines are indented."""
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return shown.replace("\n", "\n" + " " * 11)


def header_metadata(theta: str, target: str, rows: bytes) -> dict[str, str]:
    """What the header of a .safetensors file says of its models and its file of rows."""
    return {"theta": theta, "target": target, _DIGEST: digest(rows)}


def digest(rows: bytes) -> str:
    """BLAKE2b of a file of rows."""
    return hashlib.blake2b(rows, digest_size=16).hexdigest()


def _texts(where: str, found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or "prompt" not in found:
        raise FileError(f'{where} is no prompt: expected an object like {{"prompt": "…", "response": "…"}}.')
    texts = {
        key: found[key]
        for key in ("prompt", "response", "theta_prompt", "target_prompt")
        if found.get(key, None) is not None
    }
    for key, value in texts.items():
        if not isinstance(value, str):
            raise FileError(f"{where} has a {key} that is no text.")
        texts[key] = value.encode("utf-8", "backslashreplace").decode()  # halves of characters, which JSON can write
    return {"prompt": "", **texts}


def _header(path: Path) -> dict[str, str]:
    """The metadata in a .safetensors header; nothing for files that have none."""
    if path.suffix.lower() != ".safetensors":
        return {}
    try:
        with safe_open(path, "numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise FileError(f"{path} is damaged: its header cannot be read.") from error


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise FileError(f"{path} is {'not a file' if path.exists() else 'not there'}: expected a file of prompts.")
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path} is too large: expected at most {MAX_BYTES:,} bytes. Split it.")
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {type(error).__name__}.") from error
