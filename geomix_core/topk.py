"""Top-k log-probabilities of two models, as servers report them: JSON in, one row a position out.

    pair = open_topk("theta.jsonl", "target.jsonl")         # or pair_topk(read_topk(name, data), read_topk(…))
    pair.rows[0].missing_theta                              # the probability that θ's server did not report

Shapes: OpenAI chat completions (`choices[].logprobs.content[].top_logprobs[]`), as OpenAI, vLLM and others send them,
and vLLM's `prompt_logprobs` (null or {token id: {logprob, rank, decoded_token}} a position); one response, a JSON list
of them, one a line (JSONL), a line of OpenAI's batch output, or the `logprobs` object or `prompt_logprobs` list alone.
What the unreported probability can do to an answer is worked out in `tails`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np

from geomix_core.errors import FileError, OptionError
from geomix_core.file_words import show
from geomix_core.files import read_bytes, roles_of
from geomix_core.json_files import MAX_BYTES, documents

EXTENSIONS = (".json", ".jsonl")
MAX_ROWS = 100_000
"""Positions in a file."""
MAX_REPORTED = 1 << 20
"""Tokens reported in a file, over all positions."""
MAX_VOCABULARY = 1 << 24
MAX_TEXT = 1000
"""Characters, or bytes, of a token."""
UNLISTED = -9999.0
"""OpenAI's log-probability of a token that is not among the top 20; vLLM's of −∞."""
EXCESS = 1e-3
"""By so much may rounded probabilities sum to more than 1."""
ROUNDED = 1e-7
"""At least so much probability counts as missing where a token is not listed: servers' single precision hides it."""

Shape = Literal["openai", "vllm"]

_REMEDY = (
    "Expected responses with logprobs.content[].top_logprobs (ask the server for logprobs=true, top_logprobs=20) or "
    "vLLM's prompt_logprobs (ask for prompt_logprobs=20)."
)


class Token(NamedTuple):
    """A token as a file names it. `text` is a stranger's: escape it before it is shown."""

    id: int | None
    """Its index in the vocabulary, where the file says it."""
    raw: bytes | None
    """Its bytes; None where the file has only text that is not whole (\N{REPLACEMENT CHARACTER}) or empty."""
    text: str


@dataclass(frozen=True, eq=False)
class Reported:
    """What one server said of one position."""

    tokens: tuple[Token, ...]
    log_probs: np.ndarray
    """`[k]` in float64, as reported; −∞ for a token that surely has none."""
    log_cap: float
    """The log of the largest probability that a token not listed can have: the smallest of those that are surely the
    most likely ones. The sampled token, which is listed wherever it ranks, does not lower it."""
    sampled: Token | None
    """The token that stands at this position in the text, where the file says it."""
    problem: str = ""
    """Why this position cannot be used."""


@dataclass(frozen=True, eq=False)
class TopKFile:
    """One file: for each text in it, the positions in order; None where vLLM reports none (the first of a prompt)."""

    name: str
    shape: Shape
    texts: tuple[tuple[Reported | None, ...], ...]


@dataclass(frozen=True, eq=False)
class TopKRow:
    """One position in both models: n tokens that one of them reported at least, and what is known of the others."""

    row: int
    text: int
    """Which text (response or prompt) of the file, from 0, and which position in it."""
    position: int
    tokens: tuple[str, ...] = ()
    """The texts of the n tokens, a stranger's: escape them."""
    log_theta: np.ndarray = field(default_factory=partial(np.empty, 0))
    """`[n]`: log π_θ as reported (normalised where rounding made it sum to more than 1); −∞ where it is not."""
    log_target: np.ndarray = field(default_factory=partial(np.empty, 0))
    in_theta: np.ndarray = field(default_factory=partial(np.empty, 0, bool))
    """`[n]`: the token was reported by θ."""
    in_target: np.ndarray = field(default_factory=partial(np.empty, 0, bool))
    missing_theta: float = 0.0
    """The probability that θ did not report, 1 − Σ π_θ; at least `ROUNDED`, unless no other token can have any."""
    missing_target: float = 0.0
    cap_theta: float = 0.0
    """The largest probability that a token not reported by θ can have; at most `missing_theta`."""
    cap_target: float = 0.0
    unreported: int | None = None
    """How many tokens neither reported; None where the vocabulary's size is not known."""
    problem: str = ""
    """Why the row has no answer; the arrays are empty then."""

    @property
    def k_theta(self) -> int:
        """Tokens that θ reported."""
        return int(self.in_theta.sum())

    @property
    def k_target(self) -> int:
        """Tokens that the target reported."""
        return int(self.in_target.sum())


@dataclass(frozen=True, eq=False)
class TopKPair:
    """Two files, position by position."""

    rows: tuple[TopKRow, ...]
    names: Mapping[Literal["theta", "target"], str]
    shapes: Mapping[Literal["theta", "target"], Shape]
    assigned_by: Literal["name", "order"]
    """As in `files.LogitPair`: worth showing, since swapping the two turns α into 1 − α."""
    matched_by: Literal["id", "bytes"]
    """How tokens of the two models were found to be the same."""
    vocabulary: int | None


def is_topk(*paths: str | PathLike[str]) -> bool:
    """True if a file among these is top-k log-probabilities, by its extension."""
    return any(PurePath(path).suffix.lower() in EXTENSIONS for path in paths)


def open_topk(*paths: str | PathLike[str], vocabulary: int | None = None) -> TopKPair:
    """Two files, θ and target, read; names decide which is which as in `files.find_policies`, else order.

    Raises FileError, and OptionError for a vocabulary that is none.
    """
    if len(paths) != 2 or not all(is_topk(path) for path in paths):
        raise FileError(
            f"Top-k log-probabilities ({', '.join(EXTENSIONS)}) come in two files, of θ and of the target: found "
            f"{', '.join(show(PurePath(path).name) for path in paths)}."
        )
    first, second = map(Path, paths)
    if first == second:
        raise FileError(f"{first} was given twice: expected different files for theta and target.")
    files = [read_topk(str(path), read_bytes(path, MAX_BYTES)) for path in (first, second)]
    return pair_topk(files[0], files[1], vocabulary=vocabulary)


def pair_topk(first: TopKFile, second: TopKFile, *, vocabulary: int | None = None, by_name: bool = True) -> TopKPair:
    """Align two files by position. A row in which they do not fit says why in `problem`.

    Args:
        first: θ, unless the files' names say otherwise and `by_name`.
        second: the target.
        vocabulary: V, if known.

    Raises FileError where the files have unequal numbers of texts, or tokens that cannot be compared.
    """
    if vocabulary is not None and not 1 <= vocabulary <= MAX_VOCABULARY:
        raise OptionError(f"the vocabulary is {vocabulary:,}: expected 1 to {MAX_VOCABULARY:,} tokens.")
    assigned_by: Literal["name", "order"] = "order"
    theta, target = first, second
    if by_name:
        roles, assigned_by = roles_of([first.name, second.name])
        theta, target = (first, second) if roles[0] == "theta" else (second, first)
    if len(theta.texts) != len(target.texts):
        raise FileError(
            f"{show(theta.name)} (theta) has {len(theta.texts):,} texts but {show(target.name)} (target) has "
            f"{len(target.texts):,}: expected the same texts, in the same order, scored by both models."
        )
    matched_by = _matched_by(theta, target)
    rows = tuple(_rows(theta, target, matched_by, vocabulary))
    return TopKPair(
        rows,
        {"theta": theta.name, "target": target.name},
        {"theta": theta.shape, "target": target.shape},
        assigned_by,
        matched_by,
        vocabulary,
    )


def read_topk(name: str, data: bytes, *, max_bytes: int = MAX_BYTES) -> TopKFile:
    """One file of responses. Raises FileError for what is not one; a position's own faults go into its `problem`."""
    texts: list[tuple[Reported | None, ...]] = []
    shapes: set[Shape] = set()
    rows = reported = 0
    for where, value in documents(name, data, max_bytes=max_bytes):
        for shape, found in _texts(where, value):
            shapes.add(shape)
            if len(shapes) > 1:
                raise FileError(f"{where} mixes OpenAI's and vLLM's shapes: expected one shape in a file.")
            rows += len(found)
            if rows > MAX_ROWS:
                raise FileError(f"{show(name)} has more than {MAX_ROWS:,} positions: split it.")
            reported += sum(map(_count, found))
            if reported > MAX_REPORTED:
                raise FileError(f"{show(name)} reports more than {MAX_REPORTED:,} tokens in all: split it.")
            read = _openai if shape == "openai" else _vllm
            texts.append(tuple(read(f"{where}, position {i}", entry) for i, entry in enumerate(found)))
    if not any(entry is not None for text in texts for entry in text):
        raise FileError(f"{show(name)} reports no position. {_REMEDY}")
    return TopKFile(name, shapes.pop(), tuple(texts))


# --- the shapes --------------------------------------------------------------------------------------------------


def _texts(where: str, value: Any) -> Iterator[tuple[Shape, list[Any]]]:
    """The lists of positions in one document."""
    if isinstance(value, list):
        if not value:
            raise FileError(f"{where} is an empty list. {_REMEDY}")
        some = next((x for x in value if x is not None), None)
        if isinstance(some, dict) and "top_logprobs" in some:
            yield "openai", value
        elif isinstance(some, dict) and _is_vllm_position(some):
            yield "vllm", value
        else:
            for i, entry in enumerate(value):
                if not isinstance(entry, dict | list):
                    raise FileError(f"{where} has {_kind(entry)} as entry {i}. {_REMEDY}")
                # Lists in lists: those of several prompts, and no deeper.
                if isinstance(entry, list) and isinstance(next((x for x in entry if x is not None), None), list):
                    raise FileError(f"{where} has lists in lists in entry {i}. {_REMEDY}")
                yield from _texts(f"{where}, entry {i}", entry)
        return
    if not isinstance(value, dict):
        raise FileError(f"{where} is {_kind(value)}. {_REMEDY}")
    value = _unwrapped(where, value)
    if value.get("prompt_logprobs") is not None:
        yield "vllm", _listed(where, value["prompt_logprobs"], "prompt_logprobs")
    elif "choices" in value:
        choices = _listed(where, value["choices"], "choices")
        if not choices:
            raise FileError(f"{where} has no choices. {_REMEDY}")
        for i, choice in enumerate(choices):
            if not isinstance(choice, dict):
                raise FileError(f"{where} has {_kind(choice)} as choice {i}. {_REMEDY}")
            yield _choice(f"{where}, choice {i}", choice)
    elif "content" in value or "logprobs" in value or "top_logprobs" in value:
        yield _choice(where, value if "logprobs" in value else {"logprobs": value})
    else:
        raise FileError(f"{where} has no choices, logprobs or prompt_logprobs. {_REMEDY}")


def _unwrapped(where: str, value: dict[str, Any]) -> dict[str, Any]:
    """A response itself, also out of a line of OpenAI's batch output. Raises FileError for a server's error."""
    response = value.get("response")
    if isinstance(response, dict) and isinstance(response.get("body"), dict):
        value = response["body"]
    if isinstance(value.get("error"), dict) or value.get("object") == "error":
        raise FileError(f"{where} is a server's error, not a response. {_REMEDY}")
    if value.get("object") in ("chat.completion.chunk", "text_completion.chunk"):
        raise FileError(f"{where} is a piece of a stream: ask the server without stream=true.")
    return value


def _choice(where: str, choice: dict[str, Any]) -> tuple[Shape, list[Any]]:
    if choice.get("prompt_logprobs") is not None:
        return "vllm", _listed(where, choice["prompt_logprobs"], "prompt_logprobs")
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        raise FileError(f"{where} has no logprobs ({_kind(logprobs)}). {_REMEDY}")
    if "content" not in logprobs and "top_logprobs" in logprobs:
        raise FileError(
            f"{where} has the logprobs of the older completions, which name tokens by text alone, so that two tokens "
            f"can be one. {_REMEDY}"
        )
    return "openai", _listed(where, logprobs.get("content"), "logprobs.content")


def _is_vllm_position(entry: dict[str, Any]) -> bool:
    return bool(entry) and all(_index(key) is not None for key in entry)


def _listed(where: str, found: Any, name: str) -> list[Any]:
    if not isinstance(found, list):
        raise FileError(f"{where} has {_kind(found)} as {name}: expected a list. {_REMEDY}")
    return found


def _count(entry: Any) -> int:
    """How many tokens a position seems to report, before it is read."""
    listed = entry.get("top_logprobs", entry) if isinstance(entry, dict) else None
    return len(listed) if isinstance(listed, list | dict) else 0


def _openai(where: str, entry: Any) -> Reported:
    """A position of `logprobs.content`: the sampled token, and the most likely ones."""
    if not isinstance(entry, dict) or not isinstance(entry.get("top_logprobs"), list):
        raise FileError(f"{where} has no list top_logprobs. {_REMEDY}")
    sampled, its_own = _named(where, entry)
    found: dict[Token, float] = {}
    twice = False
    others = math.inf
    for alternative in entry["top_logprobs"]:
        if not isinstance(alternative, dict):
            raise FileError(f"{where} has {_kind(alternative)} among top_logprobs. {_REMEDY}")
        token, log_prob = _named(where, alternative)
        if UNLISTED >= log_prob > -math.inf:
            continue
        twice = twice or token in found
        found[token] = log_prob
        # vLLM lists the sampled token first, wherever it ranks.
        if token != sampled:
            others = min(others, log_prob)
    if its_own > UNLISTED:
        found.setdefault(sampled, its_own)
    return _reported(where, found, min(others, 0.0), sampled, "names a token twice" if twice else "")


def _named(where: str, entry: dict[str, Any]) -> tuple[Token, float]:
    text, raw = entry.get("token"), entry.get("bytes")
    if not isinstance(text, str):
        raise FileError(f"{where} has {_kind(text)} as a token: expected text. {_REMEDY}")
    log_prob = _number(where, entry.get("logprob"))
    prefix, _, digits = text.partition("token_id:")
    if not prefix and _index(digits) is not None:
        return Token(int(digits), None, text), log_prob
    return Token(None, _bytes(where, text, raw), _plain(where, text)), log_prob


def _bytes(where: str, text: str, raw: Any) -> bytes | None:
    """A token's bytes; None where its text is not whole, and the bytes are missing or those of that text."""
    encoded = text.encode("utf-8", "surrogatepass")
    given: bytes | None = None
    if raw is not None:
        if not isinstance(raw, list) or not all(type(x) is int and 0 <= x < 256 for x in raw) or len(raw) > MAX_TEXT:
            raise FileError(f"{where} has bytes that are none: expected a list of numbers from 0 to 255, or null.")
        given = bytes(raw)
    whole = given or encoded
    broken = not whole or ("\N{REPLACEMENT CHARACTER}" in text and whole == encoded)
    return None if broken else whole


def _vllm(where: str, entry: Any) -> Reported | None:
    """A position of `prompt_logprobs`: the prompt's token, and the most likely ones."""
    if entry is None:
        return None
    if not isinstance(entry, dict) or not _is_vllm_position(entry):
        raise FileError(f"{where} is not an object by token id. {_REMEDY}")
    found: dict[Token, float] = {}
    ranks: list[int | None] = []
    for key, about in entry.items():
        said: dict[str, Any] = about if isinstance(about, dict) else {"logprob": about}
        text, rank = said.get("decoded_token"), said.get("rank")
        log_prob = _number(where, said.get("logprob"))
        if text is not None and not isinstance(text, str):
            raise FileError(f"{where} has {_kind(text)} as decoded_token: expected text or null.")
        if rank is not None and (type(rank) is not int or not 1 <= rank <= MAX_VOCABULARY):
            raise FileError(f"{where} has a rank that is none: expected a number from 1.")
        text = text or ""
        token = Token(int(key), _bytes(where, text, None), _plain(where, text))
        found[token] = -math.inf if log_prob <= UNLISTED else log_prob
        ranks.append(rank)
    log_probs = list(found.values())
    log_cap, problem = _cap(log_probs, ranks)
    return _reported(where, found, log_cap, _first(list(found), log_probs), problem)


def _cap(log_probs: Sequence[float], ranks: Sequence[int | None]) -> tuple[float, str]:
    """The smallest log-probability of the tokens that are surely the most likely ones, and a contradiction."""
    known = {rank for rank in ranks if rank is not None}
    if not known or None in ranks:
        # At most one token is listed although it ranks lower: leave the least likely one out.
        return (sorted(log_probs)[1] if len(log_probs) > 1 else 0.0), ""
    top = next(rank for rank in range(len(known) + 2) if rank + 1 not in known)
    inside = [x for x, rank in zip(log_probs, ranks, strict=True) if rank is not None and rank <= top]
    outside = [x for x, rank in zip(log_probs, ranks, strict=True) if rank is not None and rank > top]
    cap = min(inside, default=0.0)
    contradicts = max(outside, default=-math.inf) > cap
    return cap, "ranks its tokens otherwise than their log-probabilities do" if contradicts else ""


def _first(tokens: Sequence[Token], log_probs: Sequence[float]) -> Token | None:
    """The token of the prompt, which vLLM lists first, unless the order is not vLLM's."""
    rest = log_probs[1:]
    return tokens[0] if all(a >= b for a, b in pairwise(rest)) else None


def _reported(
    where: str, found: Mapping[Token, float], log_cap: float, sampled: Token | None, problem: str
) -> Reported:
    log_probs = np.array(list(found.values()), np.float64)
    if not problem and not np.isfinite(log_probs).any():
        problem = "reports no token"
    elif not problem and log_probs.max() > EXCESS:
        problem = "has a log-probability above 0 (logits, perhaps): expected the logarithm of a probability"
    elif not problem and (total := float(np.exp(log_probs).sum())) > 1 + EXCESS:
        problem = f"has probabilities that sum to {total:.4g}, more than 1 (made with a temperature, perhaps?)"
    return Reported(tuple(found), log_probs, log_cap, sampled, problem)


def _number(where: str, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise FileError(f"{where} has {_kind(found)} as a log-probability: expected a number.")
    try:
        number = float(found)
    except OverflowError:
        number = math.inf
    if number == math.inf:
        raise FileError(f"{where} has a log-probability that is too large for a number: expected at most 0.")
    return number


def _index(key: str) -> int | None:
    """A token's id written in digits, without more."""
    return int(key) if key.isascii() and key.isdigit() and len(key) <= 8 and int(key) < MAX_VOCABULARY else None


def _plain(where: str, text: str) -> str:
    """The text without half characters, which no UTF-8 can hold."""
    if len(text) > MAX_TEXT:
        raise FileError(f"{where} has a token of {len(text):,} characters: expected at most {MAX_TEXT:,}.")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _kind(found: Any) -> str:
    """What a value of JSON is, in words."""
    for kind, words in (
        (bool, "true or false"),
        (int | float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "an object"),
    ):
        if isinstance(found, kind):
            return words
    return "nothing (null)"


# --- two files together ------------------------------------------------------------------------------------------

_SIDES = ("theta", "target")


def _matched_by(theta: TopKFile, target: TopKFile) -> Literal["id", "bytes"]:
    by_id = [all(token.id is not None for token in _some_tokens(file)) for file in (theta, target)]
    if all(by_id):
        return "id"
    by_bytes = [any(token.raw is not None for token in _some_tokens(file)) for file in (theta, target)]
    if not all(by_bytes):
        raise FileError(
            f"{show(theta.name)} and {show(target.name)} name tokens in different ways, one by id and one by text, so "
            "that they cannot be compared: ask both servers for the same."
        )
    return "bytes"


def _some_tokens(file: TopKFile) -> Iterator[Token]:
    return (token for text in file.texts for entry in text if entry is not None for token in entry.tokens)


def _rows(
    theta: TopKFile, target: TopKFile, matched_by: Literal["id", "bytes"], vocabulary: int | None
) -> Iterator[TopKRow]:
    row = 0
    for i, (ours, theirs) in enumerate(zip(theta.texts, target.texts, strict=True)):
        parted: int | None = None
        for j in range(max(len(ours), len(theirs))):
            a, b = (side[j] if j < len(side) else None for side in (ours, theirs))
            if a is None and b is None:
                continue
            if parted is not None:
                yield TopKRow(
                    row,
                    i,
                    j,
                    problem=f"the two texts part at position {parted}, so that the models saw different contexts: let "
                    "both score one text (vLLM's prompt_logprobs)",
                )
            elif a is None or b is None:
                short = "theta" if a is None else "target"
                yield TopKRow(row, i, j, problem=f"{short} does not report this position: let both score one text")
            else:
                yield _row(row, i, j, a, b, matched_by, vocabulary)
                if _part(a, b, matched_by):
                    parted = j
            row += 1


def _part(a: Reported, b: Reported, matched_by: Literal["id", "bytes"]) -> bool:
    """True if the two texts surely differ at this position, so that what follows has another context."""
    if a.sampled is None or b.sampled is None:
        return False
    ours, theirs = (_key(x.sampled, matched_by) for x in (a, b) if x.sampled is not None)
    return ours is not None and theirs is not None and ours != theirs


def _key(token: Token, matched_by: Literal["id", "bytes"]) -> int | bytes | None:
    return token.id if matched_by == "id" else token.raw


def _row(
    row: int,
    text: int,
    position: int,
    theta: Reported,
    target: Reported,
    matched_by: Literal["id", "bytes"],
    vocabulary: int | None,
) -> TopKRow:
    found: list[dict[int | bytes, float]] = []
    names: dict[int | bytes, str] = {}
    for side, said in zip(_SIDES, (theta, target), strict=True):
        if said.problem:
            return TopKRow(row, text, position, problem=f"{side} {said.problem}")
        keyed: dict[int | bytes, float] = {}
        for token, log_prob in zip(said.tokens, said.log_probs.tolist(), strict=True):
            key = _key(token, matched_by)
            if key is None or key in keyed:
                return TopKRow(
                    row,
                    text,
                    position,
                    problem=f"{side} names tokens by text that is not whole, or is that of two: ask for token ids "
                    "(vLLM's return_tokens_as_token_ids) or bytes",
                )
            keyed[key] = log_prob
            names[key] = names.get(key) or token.text or (f"#{key}" if isinstance(key, int) else "")
        found.append(keyed)
    keys = list(dict.fromkeys([*found[0], *found[1]]))
    problem, unreported = "", None
    if vocabulary is not None:
        unreported = vocabulary - len(keys)
        if unreported < 0 or any(isinstance(key, int) and key >= vocabulary for key in keys):
            problem = f"more tokens, or a higher token id, than a vocabulary of {vocabulary:,} has"
    sides = []
    for side, keyed, said in zip(_SIDES, found, (theta, target), strict=True):
        log_probs = np.array([keyed.get(key, -math.inf) for key in keys])
        reported = np.array([key in keyed for key in keys])
        room = math.inf if vocabulary is None else vocabulary - len(keyed)
        balanced = _balanced(log_probs, math.exp(min(said.log_cap, 0.0)), room)
        if balanced is None:
            problem = problem or (
                f"{side} leaves more probability unreported than the other tokens can have: each has at most as much "
                "as the least of the top ones"
            )
        else:
            sides.append((balanced[0], reported, *balanced[1:]))
    if problem:
        return TopKRow(row, text, position, problem=problem)
    (p, in_theta, missing_theta, cap_theta), (t, in_target, missing_target, cap_target) = sides
    return TopKRow(
        row, text, position, tuple(names[key] for key in keys), p, t, in_theta, in_target, missing_theta,
        missing_target, cap_theta, cap_target, unreported,
    )  # fmt: skip


def _balanced(log_probs: np.ndarray, cap: float, room: float) -> tuple[np.ndarray, float, float] | None:
    """(log-probabilities, missing mass, cap) so that all of it sums to 1; None where `room` tokens cannot hold it.

    What rounding put too high or too low is scaled away.
    """
    total = float(np.exp(log_probs).sum())
    most = cap * room if room and cap else 0.0
    if not total or 1 - total > most + EXCESS:
        return None
    missing = min(max(1 - total, ROUNDED), most)
    if total + missing != 1:
        log_probs = log_probs + math.log((1 - missing) / total)
    return log_probs, missing, min(cap, missing)
