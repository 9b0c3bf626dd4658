"""Top-k log-probabilities: the shapes that servers send, alignment of two files, hostile JSON."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topk_files import data, distributions, openai, pair_of, rows_of, top, vllm

from geomix_core import FileError, GeomixError, OptionError, json_files
from geomix_core import topk as module
from geomix_core.topk import ROUNDED, Reported, TopKFile, is_topk, open_topk, pair_topk, read_topk
from geomix_core.topk_report import inspect_topk, to_text

THETA, TARGET = distributions(4, 60, 0)


def read(value: Any, name: str = "theta.json") -> TopKFile:
    return read_topk(name, value if isinstance(value, bytes) else data(value))


def positions(file: TopKFile) -> list[Reported]:
    return [x for text in file.texts for x in text if x is not None]


# --- shapes ------------------------------------------------------------------------------------------------------


def in_every_wrapping(response: dict[str, Any]) -> dict[str, bytes]:
    """One response in each form in which people keep it."""
    choice = response["choices"][0]
    forms = {
        "response": data(response),
        "list": data([response]),
        "jsonl": data(response) + b"\n\n",
        "pretty": json.dumps(response, indent=2).encode(),
        "bom": b"\xef\xbb\xbf" + data(response),
        "batch": data({"custom_id": "1", "response": {"status_code": 200, "body": response}}),
        "choice": data(choice),
    }
    if "prompt_logprobs" in choice:
        listed = choice["prompt_logprobs"]
        return forms | {
            "top level": data({"choices": [{"index": 0, "logprobs": None}], "prompt_logprobs": listed}),
            "bare": data(listed),
            "bare lists": data([listed]),
            "numbers alone": data([x and {key: y["logprob"] for key, y in x.items()} for x in listed]),
        }
    return forms | {"bare": data(choice["logprobs"]), "bare content": data(choice["logprobs"]["content"])}


@pytest.mark.parametrize("make", [openai, vllm])
def test_every_wrapping_gives_the_same_positions(make: Any) -> None:
    for form, written in in_every_wrapping(make(THETA, 5)).items():
        found = positions(read(written))
        assert len(found) == 4, form
        for said, row in zip(found, THETA, strict=True):
            np.testing.assert_array_equal(np.sort(said.log_probs), np.sort(row)[-5:], err_msg=form)


def test_lines_are_texts_in_order() -> None:
    lines = b"\n".join(data(vllm(THETA[i : i + 2], 5)) for i in (0, 2)) + b"\r\n"
    file = read(lines, "theta.jsonl")
    assert [len(text) for text in file.texts] == [3, 3]
    np.testing.assert_array_equal(positions(file)[2].log_probs, np.sort(THETA[2])[::-1][:5])


def test_choices_are_texts() -> None:
    response = openai(THETA, 5)
    response["choices"].append(copy.deepcopy(response["choices"][0]))
    assert [len(text) for text in read(response).texts] == [4, 4]


def test_prompt_logprobs_go_before_logprobs() -> None:
    both = vllm(THETA, 5)
    both["choices"][0]["logprobs"] = openai(THETA, 5)["choices"][0]["logprobs"]
    assert read(both).shape == "vllm"


def test_token_ids_in_openais_shape_are_ids() -> None:
    response = openai(THETA[:1], 3)
    for entry in response["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        entry["token"] = entry["token"].replace(" t", "token_id:")
    (said,) = positions(read(response))
    assert {token.id for token in said.tokens} >= set(top(THETA[0], 3))


# --- the cap -----------------------------------------------------------------------------------------------------


def test_a_token_beyond_the_top_does_not_lower_the_cap() -> None:
    last = [int(row.argmin()) for row in THETA]
    inside = rows_of(THETA, TARGET, 6)
    found = pair_of(vllm(THETA, 6, last), vllm(TARGET, 6, last)).rows
    for row, other, whole in zip(found, inside, THETA, strict=True):
        sixth = math.exp(np.sort(whole)[-6])
        assert row.k_theta == 7
        assert other.cap_theta == pytest.approx(min(sixth, other.missing_theta))
        assert row.cap_theta == pytest.approx(min(sixth, row.missing_theta))
        assert row.missing_theta == pytest.approx(1 - np.exp(np.sort(whole)[-6:]).sum() - math.exp(whole.min()))


def test_openais_sampled_token_does_not_lower_the_cap_wherever_it_is_listed() -> None:
    last = [int(row.argmin()) for row in THETA]
    response = openai(THETA, 6, last)
    for entry in response["choices"][0]["logprobs"]["content"]:
        # As vLLM does: the sampled token first, and the list cut at six.
        alone = {key: value for key, value in entry.items() if key != "top_logprobs"}
        entry["top_logprobs"] = [alone, *entry["top_logprobs"][:5]]
    for said, row in zip(positions(read(response)), THETA, strict=True):
        assert said.log_cap == np.sort(row)[-5]


def test_without_ranks_the_least_likely_token_may_be_the_one_beyond_the_top() -> None:
    bare = [{str(j): float(row[j]) for j in top(row, 6)} for row in THETA]
    for said, row in zip(positions(read(bare)), THETA, strict=True):
        assert said.log_cap == np.sort(row)[-5]


def test_unlisted_and_impossible_tokens() -> None:
    response = openai(THETA[:1], 4, [0])
    content = response["choices"][0]["logprobs"]["content"][0]
    content["logprob"] = -9999.0
    content["top_logprobs"][3]["logprob"] = -9999.0
    (said,) = positions(read(response))
    assert len(said.tokens) == 3, "OpenAI's −9999 says that a token is not listed"
    prompt = vllm(THETA[:1], 4)
    key = str(top(THETA[0], 4)[3])
    prompt["choices"][0]["prompt_logprobs"][1][key]["logprob"] = -9999.0
    (said,) = positions(read(prompt))
    assert said.log_probs[3] == -math.inf, "vLLM's is −∞"
    assert positions(read(data(prompt).replace(b"-9999.0", b"-Infinity")))[0].log_probs[3] == -math.inf


# --- two files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [openai, vllm])
def test_a_row_holds_what_both_reported(make: Any) -> None:
    prompt = [int(row.argmax()) for row in THETA]
    pair = pair_of(make(THETA, 5, prompt), make(TARGET, 5, prompt))
    assert pair.matched_by == ("id" if make is vllm else "bytes")
    for row, p, t in zip(pair.rows, THETA, TARGET, strict=True):
        assert row.problem == ""
        theirs = set(top(t, 5)) | {int(p.argmax())}
        assert {int(name[2:]) for name in row.tokens} == set(top(p, 5)) | theirs
        for name, x, y, in_p, in_t in zip(
            row.tokens, row.log_theta, row.log_target, row.in_theta, row.in_target, strict=True
        ):
            j = int(name[2:])
            assert in_p == (j in top(p, 5))
            assert in_t == (j in theirs)
            assert x == (p[j] if in_p else -math.inf)
            assert y == (t[j] if in_t else -math.inf)
        assert row.missing_theta == pytest.approx(1 - np.exp(np.sort(p)[-5:]).sum())


def test_names_decide_which_file_is_which() -> None:
    first, second = read(vllm(THETA, 5), "teacher.jsonl"), read(vllm(TARGET, 5), "student.jsonl")
    pair = pair_topk(first, second)
    assert (pair.names["theta"], pair.assigned_by) == ("student.jsonl", "name")
    assert pair_topk(first, second, by_name=False).names["theta"] == "teacher.jsonl"


def test_texts_that_part_are_compared_up_to_there() -> None:
    mine = [int(row.argmax()) for row in THETA]
    other = [mine[0], (mine[1] + 1) % 60, *mine[2:]]
    problems = [row.problem for row in pair_of(openai(THETA, 5, mine), openai(TARGET, 5, other)).rows]
    assert problems[:2] == ["", ""]
    assert all("part at position 1" in words and "score one text" in words for words in problems[2:])


def test_a_position_that_one_side_lacks_is_said() -> None:
    mine = [int(row.argmax()) for row in THETA]
    rows = pair_of(openai(THETA, 5, mine), openai(TARGET[:3], 5, mine[:3])).rows
    assert [bool(row.problem) for row in rows] == [False, False, False, True]
    assert "target does not report this position" in rows[3].problem


def test_unequal_numbers_of_texts_are_refused() -> None:
    with pytest.raises(FileError, match=r"has 1 texts but target\.json \(target\) has 2"):
        pair_of(vllm(THETA, 5), [vllm(TARGET, 5), vllm(TARGET, 5)])


def test_ids_and_text_are_not_compared() -> None:
    ids = [{str(j): float(row[j]) for j in top(row, 6)} for row in THETA]
    with pytest.raises(FileError, match="name tokens in different ways"):
        pair_of(ids, openai(TARGET, 5))


def test_text_that_is_not_whole_is_not_compared() -> None:
    response = openai(THETA[:1], 4)
    entry = response["choices"][0]["logprobs"]["content"][0]["top_logprobs"][2]
    entry |= {"token": "\ufffd", "bytes": list("\ufffd".encode())}
    (row,) = pair_of(response, openai(TARGET[:1], 4)).rows
    assert "text that is not whole" in row.problem
    entry["bytes"] = [0xE4, 0xBD]
    (row,) = pair_of(response, openai(TARGET[:1], 4)).rows
    assert row.problem == "", "the bytes say which it is"


@pytest.mark.parametrize(
    ("log_probs", "vocabulary", "words"),
    [
        ([0.5, -1.0, -2.0], None, "theta has a log-probability above 0 (logits, perhaps)"),
        ([-0.1, -0.1, -0.1], None, "theta has probabilities that sum to 2.715, more than 1"),
        ([-9999.0, -9999.0, -9999.0], None, "theta reports no token"),
        ([-2.0, -2.1, -2.2], 5, "theta leaves more probability unreported than the other tokens can have"),
        ([-1.0, -2.0, -3.0], 2, "more tokens, or a higher token id, than a vocabulary of 2 has"),
    ],
)
def test_numbers_that_are_no_distribution_refuse_the_row_alone(
    log_probs: list[float], vocabulary: int | None, words: str
) -> None:
    listed = {str(i): {"logprob": x, "rank": i + 1, "decoded_token": "x"} for i, x in enumerate(log_probs)}
    sound = {str(i): {"logprob": x, "rank": i + 1} for i, x in enumerate([-1.1, -1.1, -1.2])}
    rows = pair_of([None, listed, sound], [None, sound, sound], vocabulary).rows
    assert words in rows[0].problem
    assert bool(rows[1].problem) == (vocabulary == 2)


def test_ranks_that_contradict_the_numbers_refuse_the_row() -> None:
    listed = {str(i): {"logprob": x, "rank": rank} for i, (x, rank) in enumerate([(-3.0, 1), (-4.0, 2), (-1.0, 9)])}
    (row,) = pair_of([listed], [listed]).rows
    assert "ranks its tokens otherwise" in row.problem


def test_rounding_is_scaled_away() -> None:
    listed = {"0": math.log(0.6) + 1e-5, "1": math.log(0.4) + 1e-5}
    for vocabulary, missing in ((None, ROUNDED), (2, 0)):
        (row,) = pair_of([listed], [listed], vocabulary).rows
        assert row.missing_theta == missing
        assert np.exp(row.log_theta).sum() + row.missing_theta == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("size", [0, -3, 1 << 30])
def test_a_vocabulary_must_be_one(size: int) -> None:
    with pytest.raises(OptionError, match="the vocabulary is"):
        pair_of(vllm(THETA, 5), vllm(TARGET, 5), size)


# --- hostile files -----------------------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    """A position of OpenAI's shape with one alternative, which is changed."""
    return {"token": "a", "logprob": -1, "bytes": None, "top_logprobs": [{"token": "b", "logprob": -0.5} | changes]}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty: expected JSON"),
    "blank": (b" \n\n ", "is empty: expected JSON"),
    "not text": (b"\xff\xfe\x00{", "is not text in UTF-8"),
    "truncated": (data(openai(THETA, 5))[:-40], "is not JSON:.*It may be truncated"),
    "nested lists": (b"[" * 100_000, "nests too deeply"),
    "nested objects": (b'{"choices":' * 100_000, "nests too deeply"),
    "NaN": (data([entry()]).replace(b"-0.5", b"NaN"), "holds NaN, which is no number in JSON"),
    "infinity": (data([entry()]).replace(b"-0.5", b"Infinity"), "holds Infinity"),
    "beyond floats": (data([entry()]).replace(b"-0.5", b"1e999"), "too large for a number"),
    "a long integer": (data([entry()]).replace(b"-0.5", b"-" + b"9" * 5000), "thousands of digits"),
    "an integer beyond floats": (data([entry()]).replace(b"-0.5", b"9" * 400), "too large for a number"),
    "a key twice": (b'[{"7": {"logprob": -1}, "7": {"logprob": -2}}]', "names 7 twice"),
    "a number": (b"3", r"is a number\. Expected responses"),
    "null": (b"null", "is nothing"),
    "an empty list": (b"[]", "is an empty list"),
    "a list of numbers": (b"[1, 2]", "has a number as entry 0"),
    "lists in lists": (b"[[[[null]]]]", "has lists in lists"),
    "another object": (b'{"hello": 1}', "has no choices, logprobs or prompt_logprobs"),
    "no choices": (b'{"choices": []}', "has no choices"),
    "choices that are text": (b'{"choices": "x"}', "has text as choices: expected a list"),
    "a choice that is null": (b'{"choices": [null]}', "has nothing .null. as choice 0"),
    "no logprobs": (b'{"choices": [{"logprobs": null}]}', "has no logprobs .nothing .null... Expected.*logprobs=true"),
    "no content": (b'{"choices": [{"logprobs": {"content": null}}]}', "as logprobs.content: expected a list"),
    "the older shape": (b'{"choices": [{"logprobs": {"tokens": [], "top_logprobs": []}}]}', "the older completions"),
    "a server's error": (b'{"error": {"message": "no"}}', "is a server's error"),
    "a piece of a stream": (b'{"object": "chat.completion.chunk", "choices": []}', "is a piece of a stream"),
    "nothing but null": (b"[null, null]", "has nothing .null. as entry 0"),
    "no position": (b'{"prompt_logprobs": [null, null]}', "reports no position"),
    "no alternatives": (data([{"token": "a", "logprob": -1, "top_logprobs": None}]), "has no list top_logprobs"),
    "a token that is a number": (data([entry(token=7)]), "has a number as a token: expected text"),
    "a log-probability that is text": (data([entry(logprob="-1")]), "has text as a log-probability"),
    "a log-probability that is true": (data([entry(logprob=True)]), "has true or false as a log-probability"),
    "no log-probability": (data([entry(logprob=None)]), "has nothing .null. as a log-probability"),
    "bytes beyond 255": (data([entry(bytes=[256])]), "has bytes that are none"),
    "bytes that are text": (data([entry(bytes="ab")]), "has bytes that are none"),
    "a token of a million characters": (data([entry(token="x" * 10**6)]), "has a token of 1,000,000 characters"),
    "a token id that is a word": (b'{"prompt_logprobs": [{"seven": {"logprob": -1}}]}', "is not an object by token id"),
    "a token id of a thousand digits": (
        b'{"prompt_logprobs": [{"' + b"1" * 1000 + b'": {"logprob": -1}}]}',
        "is not an object by token id",
    ),
    "a negative token id": (b'{"prompt_logprobs": [{"-1": {"logprob": -1}}]}', "is not an object by token id"),
    "a rank of zero": (b'{"prompt_logprobs": [{"1": {"logprob": -1, "rank": 0}}]}', "has a rank that is none"),
    "a rank that is text": (b'{"prompt_logprobs": [{"1": {"logprob": -1, "rank": "1"}}]}', "has a rank that is none"),
    "a decoded token that is a list": (
        b'{"prompt_logprobs": [{"1": {"logprob": -1, "decoded_token": []}}]}',
        "has a list as decoded_token",
    ),
    "both shapes": (data([openai(THETA, 5), vllm(THETA, 5)]), "mixes OpenAI's and vLLM's shapes"),
    "a broken line": (data(vllm(THETA, 5)) + b"\n{]\n", "line 2 of theta.json is not JSON"),
    "HTML": (b"<html><script>alert(1)</script></html>", "is not JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_words(case: str) -> None:
    written, words = HOSTILE[case]
    with pytest.raises(FileError, match=words) as caught:
        read(written)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_too_many_items_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(FileError, match="holds about 8,400,001 items, expected at most 8,388,608"):
        read(b"[" + b"," * 8_400_000)


def test_too_large_a_file_is_refused() -> None:
    with pytest.raises(FileError, match="is too large: 4,000 bytes, expected at most 1,000"):
        read_topk("theta.json", b" " * 4000, max_bytes=1000)
    assert json_files.MAX_BYTES <= 1 << 28


def test_too_many_positions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    with pytest.raises(FileError, match="has more than 3 positions"):
        read(openai(THETA, 5))


def test_too_many_tokens_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPORTED", 19)
    for make in (openai, vllm):
        with pytest.raises(FileError, match="reports more than 19 tokens in all: split it"):
            read(make(THETA, 5))


def test_half_characters_and_markup_stay_data() -> None:
    response = openai(THETA[:1], 3)
    listed = response["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    listed[1] |= {"token": "\ud800<script>", "bytes": None}
    (row,) = pair_of(response, response).rows
    assert row.tokens[1] == "\\ud800<script>"
    assert row.tokens[1].encode()


def test_paths(tmp_path: Any) -> None:
    for name, x in (("theta", THETA), ("target", TARGET)):
        (tmp_path / f"{name}.json").write_bytes(data(vllm(x, 5)))
    pair = open_topk(tmp_path / "target.json", tmp_path / "theta.json")
    assert pair.names["theta"].endswith("theta.json")
    with pytest.raises(FileError, match="given twice"):
        open_topk(tmp_path / "theta.json", tmp_path / "theta.json")
    with pytest.raises(FileError, match=r"come in two files.*theta\.json, logits\.npy"):
        open_topk(tmp_path / "theta.json", tmp_path / "logits.npy")
    with pytest.raises(FileError, match="is not there"):
        open_topk(tmp_path / "theta.json", tmp_path / "none.json")
    assert is_topk("x.JSONL")
    assert not is_topk("x.csv")


# --- fuzz --------------------------------------------------------------------------------------------------------

SEEDS = [data(openai(THETA[:2], 3)), data(vllm(THETA[:2], 3)), data(vllm(THETA[:1], 3)) * 2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def survives(written: bytes) -> None:
    """Nothing but the package's own errors, whatever is read; and a sound partner changes nothing of that."""
    with contextlib.suppress(GeomixError):
        file = read(written)
        partner = TopKFile("target.json", file.shape, file.texts)
        assert to_text(inspect_topk(pair_topk(file, partner, vocabulary=100)))


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.binary(min_size=1, max_size=6)), min_size=1, max_size=5),
)
def test_damaged_files_raise_only_our_errors(seed: bytes, damages: list[tuple[float, int, bytes]]) -> None:
    written = seed
    for where, cut, inserted in damages:
        at = int(where * len(written))
        written = written[:at] + inserted + written[at + cut :]
    survives(written)


def mutated(value: Any, path: list[float], by: Any) -> Any:
    """The value with one of its parts replaced, found along a path of shares."""
    if not path or not isinstance(value, dict | list) or not value:
        return by
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[int(path[0] * (len(keys) - 1e-9))]
    made = copy.copy(value)
    made[key] = mutated(value[key], path[1:], by)
    return made


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(SEEDS[:2]), st.lists(st.floats(0, 1), max_size=9), JSON)
def test_strange_values_raise_only_our_errors(seed: bytes, path: list[float], by: Any) -> None:
    survives(data(mutated(json.loads(seed), path, by)))


@settings(max_examples=500, deadline=None)
@given(JSON)
def test_any_json_raises_only_our_errors(value: Any) -> None:
    survives(data(value))
