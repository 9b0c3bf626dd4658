"""The names of tokens, from a JSON list of strings or a Hugging Face `tokenizer.json`; neither needs transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from geomix_core.errors import FileError
from geomix_core.file_words import show
from geomix_core.json_files import document

MAX_BYTES = 1 << 26
"""Tokenizers of 260,000 tokens take half as much."""
MAX_TOKENS = 1 << 20
MAX_NAME = 1000
"""Characters of a name."""

_REMEDY = "Expected a JSON list of strings, one a token in the order of the logits, or a Hugging Face tokenizer.json."


@dataclass(frozen=True, slots=True)
class TokenNames:
    """The name of every token, by its index in the logits. Names are a stranger's: escape them before they're shown."""

    names: tuple[str, ...]
    source: Literal["list", "tokenizer.json"]
    padded: int
    """Tokens without a name in the file, called by their index ("#151665"): models pad their embeddings."""


def read_token_names(
    name: str, data: bytes, *, vocabulary: int | None = None, max_bytes: int = MAX_BYTES
) -> TokenNames:
    """The names in a file, as many as the vocabulary has tokens.

    Args:
        name: the file's name, for messages.
        data: the whole file.
        vocabulary: V of the logits. Fewer names than V are filled up with indices; more are refused.
        max_bytes: bound on the file.

    Raises FileError.
    """
    shown = show(name)
    found = document(name, data, max_bytes=max_bytes)
    source: Literal["list", "tokenizer.json"]
    if isinstance(found, list):
        source, by_id = "list", _of_list(shown, found)
    elif isinstance(found, dict):
        source, by_id = "tokenizer.json", _of_tokenizer(shown, found)
    else:
        raise FileError(f"{shown} is neither a list nor an object. {_REMEDY}")
    if not by_id:
        raise FileError(f"{shown} names no token. {_REMEDY}")
    size = max(by_id) + 1
    if vocabulary is not None and size > vocabulary:
        raise FileError(
            f"{shown} names {size:,} tokens but the logits have {vocabulary:,}: expected the tokenizer of the model "
            "that made them."
        )
    total = size if vocabulary is None else vocabulary
    names = tuple(by_id.get(i) or f"#{i}" for i in range(total))
    return TokenNames(names, source, total - sum(1 for name in by_id.values() if name))


def _of_list(shown: str, found: list[Any]) -> dict[int, str]:
    if len(found) > MAX_TOKENS:
        raise FileError(f"{shown} names {len(found):,} tokens: expected at most {MAX_TOKENS:,}.")
    return {i: _name(shown, i, entry) for i, entry in enumerate(found)}


def _of_tokenizer(shown: str, found: Mapping[str, Any]) -> dict[int, str]:
    """`model.vocab`, {name: id} or [[name, score], …], and `added_tokens`, which have the last word."""
    model = found.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        pairs = [(entry, index) for entry, index in vocab.items()]
    elif isinstance(vocab, list) and all(isinstance(entry, list) and entry for entry in vocab):
        pairs = [(entry[0], index) for index, entry in enumerate(vocab)]
    else:
        raise FileError(f"{shown} has no model.vocab. {_REMEDY}")
    if len(pairs) > MAX_TOKENS:
        raise FileError(f"{shown} names {len(pairs):,} tokens: expected at most {MAX_TOKENS:,}.")
    decode = _by_bytes if _is_byte_level(found) else str
    by_id: dict[int, str] = {}
    for entry, index in pairs:
        index = _id(shown, index)
        if index in by_id:
            raise FileError(f"{shown} gives the id {index} to two tokens: expected each once. Save it again.")
        by_id[index] = decode(_name(shown, index, entry))
    by_id.update(_added(shown, found.get("added_tokens")))
    return by_id


def _added(shown: str, found: Any) -> Iterator[tuple[int, str]]:
    if found is None:
        return
    if not isinstance(found, list) or len(found) > MAX_TOKENS or not all(isinstance(entry, dict) for entry in found):
        raise FileError(f"{shown} has added_tokens that are no list of objects. {_REMEDY}")
    for entry in found:
        index = _id(shown, entry.get("id"))
        yield index, _name(shown, index, entry.get("content"))


def _id(shown: str, found: Any) -> int:
    if type(found) is not int or not 0 <= found < MAX_TOKENS:
        raise FileError(f"{shown} has a token whose id is not a number from 0 to {MAX_TOKENS - 1:,}. {_REMEDY}")
    return found


def _name(shown: str, index: int, found: Any) -> str:
    if not isinstance(found, str):
        raise FileError(f"{shown} has no text as the name of token {index}. {_REMEDY}")
    if len(found) > MAX_NAME:
        raise FileError(
            f"{shown} has a name of {len(found):,} characters for token {index}: expected at most {MAX_NAME:,}."
        )
    # Half characters, which JSON can write and UTF-8 cannot.
    return found.encode("utf-8", "backslashreplace").decode("utf-8")


# --- byte-level BPE: a character stands for each byte ------------------------------------------------------------


def _is_byte_level(found: Mapping[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps([found.get("decoder"), found.get("pre_tokenizer")])


@cache
def _byte_of() -> dict[str, int]:
    """The byte that each character stands for. Source: Radford et al. (2019), GPT-2's encoder."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


def _by_bytes(name: str) -> str:
    """The text that a byte-level name spells; a part of a character stays in hexadecimal."""
    byte_of = _byte_of()
    if not all(character in byte_of for character in name):
        return name
    return bytes(byte_of[character] for character in name).decode("utf-8", "backslashreplace")
