"""Token names from a list or a tokenizer.json: which index gets which name, and hostile files."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomix_core import FileError
from geomix_core.token_names import TokenNames, _byte_of, read_token_names


def read(value: Any, vocabulary: int | None = None) -> TokenNames:
    return read_token_names(
        "names.json", value if isinstance(value, bytes) else json.dumps(value).encode(), vocabulary=vocabulary
    )


def tokenizer(vocab: Any, added: Any = (), **more: Any) -> dict[str, Any]:
    """A tokenizer.json, as far as it is read."""
    return {"version": "1.0", "added_tokens": list(added), "model": {"type": "BPE", "vocab": vocab}, **more}


def test_a_list_is_in_the_order_of_the_logits() -> None:
    assert read(["a", " b", "好"]) == TokenNames(("a", " b", "好"), "list", 0)


def test_fewer_names_than_logits_are_filled_up_by_index() -> None:
    assert read(["a", ""], 4) == TokenNames(("a", "#1", "#2", "#3"), "list", 3)


def test_more_names_than_logits_are_refused() -> None:
    with pytest.raises(FileError, match=r"names 3 tokens but the logits have 2: expected the tokenizer of the model"):
        read(["a", "b", "c"], 2)


def test_a_tokenizer_names_by_id_and_added_tokens_have_the_last_word() -> None:
    found = read(
        tokenizer(
            {"b": 1, "a": 0, "c": 5}, [{"id": 5, "content": "<eos>", "special": True}, {"id": 6, "content": "<pad>"}]
        ),
        8,
    )
    assert found == TokenNames(("a", "b", "#2", "#3", "#4", "<eos>", "<pad>", "#7"), "tokenizer.json", 4)


def test_a_unigram_vocabulary_is_a_list() -> None:
    assert read(tokenizer([["<unk>", 0.0], ["▁a", -1.5]])).names == ("<unk>", "▁a")


def test_byte_level_names_are_spelled_out() -> None:
    vocab = {"Ġthe": 0, "å¥½": 1, "ä½": 2, "Ċ": 3, "odd—name": 4}
    found = read(tokenizer(vocab, [{"id": 5, "content": "<|Ġ|>"}], decoder={"type": "ByteLevel"}))
    assert found.names == (" the", "好", "\\xe4\\xbd", "\n", "odd—name", "<|Ġ|>")
    nested = {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}
    assert read(tokenizer(vocab, pre_tokenizer=nested)).names[0] == " the"
    assert read(tokenizer(vocab)).names[0] == "Ġthe"


def test_every_byte_has_its_character() -> None:
    """GPT-2's table: printable Latin-1 is itself, the other bytes in order are U+0100 and on."""
    known = {ord("!"): "!", ord("~"): "~", 0xFF: "ÿ", 0x00: "Ā", ord(" "): "Ġ", 0x7F: "ġ", 0xA0: "ł", 0xAD: "Ń"}
    for byte, character in known.items():
        (name,) = read(tokenizer({character: 0}, decoder={"type": "ByteLevel"})).names
        assert name == bytes([byte]).decode("utf-8", "backslashreplace")
    # Whatever UTF-8 spells comes back whole.
    text = "naïve 好 \u202e🙂\x00"
    spelled = "".join(next(c for c, b in _byte_of().items() if b == byte) for byte in text.encode())
    assert read(tokenizer({spelled: 0}, decoder={"type": "ByteLevel"})).names == (text,)
    assert sorted(_byte_of().values()) == list(range(256))


def test_hostile_names_stay_data() -> None:
    names = ["<script>alert(1)</script>", "=1+1", "\u202egnp", "\x00\x1b[2J", "\ud800"]
    assert read(names).names == (*names[:4], "\\ud800")


HOSTILE = {
    "empty": (b"", "is empty"),
    "truncated": (b'["a", "b', "is not JSON"),
    "a number": (b"3", "is neither a list nor an object"),
    "an empty list": (b"[]", "names no token"),
    "numbers": (b"[1, 2]", "has no text as the name of token 0"),
    "null": (b'["a", null]', "has no text as the name of token 1"),
    "deep": (b"[" * 100_000, "nests too deeply"),
    "deep inside": (b'{"model": {"vocab": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}}", "id is not a number"),
    "no model": (b"{}", "has no model.vocab"),
    "a model that is text": (b'{"model": "x"}', "has no model.vocab"),
    "an empty vocabulary": (b'{"model": {"vocab": {}}}', "names no token"),
    "an id that is text": (b'{"model": {"vocab": {"a": "0"}}}', "id is not a number"),
    "a negative id": (b'{"model": {"vocab": {"a": -1}}}', "id is not a number"),
    "an id of 10^12": (b'{"model": {"vocab": {"a": 1000000000000}}}', "id is not a number from 0 to 1,048,575"),
    "an id that is true": (b'{"model": {"vocab": {"a": true}}}', "id is not a number"),
    "an id twice": (b'{"model": {"vocab": {"a": 0, "b": 0}}}', "gives the id 0 to two tokens"),
    "a name twice": (b'{"model": {"vocab": {"a": 0, "a": 1}}}', "names a twice"),
    "added tokens that are text": (b'{"model": {"vocab": {"a": 0}}, "added_tokens": "x"}', "that are no list"),
    "an added token without an id": (b'{"model": {"vocab": {"a": 0}}, "added_tokens": [{}]}', "id is not a number"),
    "a name of a million characters": (json.dumps(["x" * 10**6]).encode(), "has a name of 1,000,000 characters"),
    "not text": (b"\xff\xff", "is not text in UTF-8"),
    "lines": (b'["a"]\n["b"]', "is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_words(case: str) -> None:
    written, words = HOSTILE[case]
    with pytest.raises(FileError, match=words) as caught:
        read(written)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_too_many_names_are_refused() -> None:
    with pytest.raises(FileError, match="names 1,048,577 tokens: expected at most 1,048,576"):
        read(b'["a"' + b',"a"' * (1 << 20) + b"]")


@settings(max_examples=500, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["model", "vocab", "added_tokens", "id", "content", "x"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ),
    st.none() | st.integers(1, 20),
)
def test_any_json_raises_only_our_errors(value: Any, vocabulary: int | None) -> None:
    with contextlib.suppress(FileError):
        found = read(value, vocabulary)
        assert all(name.encode() for name in found.names)
        assert vocabulary is None or len(found.names) == vocabulary
