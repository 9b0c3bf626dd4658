"""Responses with top-k log-probabilities as servers write them, made from whole distributions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from geomix_core.topk import TopKPair, TopKRow, pair_topk, read_topk


def distributions(rows: int, vocabulary: int, seed: int, distance: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of log-probabilities `[rows, vocabulary]` that fall as a power of the rank, as language models' do."""
    rng = np.random.default_rng(seed)
    base = -2 * np.log(np.arange(1, vocabulary + 1)) + rng.normal(size=(rows, vocabulary)) * 0.5
    found = []
    for _ in range(2):
        logits = rng.permuted(base, axis=-1) if distance == np.inf else base + distance * rng.normal(size=base.shape)
        found.append(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    return found[0], found[1]


def top(log_probs: np.ndarray, k: int) -> list[int]:
    return [int(i) for i in np.argsort(-log_probs, kind="stable")[:k]]


def openai(log_probs: np.ndarray, k: int, sampled: Sequence[int] | None = None) -> dict[str, Any]:
    """A chat completion with one choice, of which each position is a row."""
    content = []
    for i, row in enumerate(log_probs):
        entries = [
            {"token": f" t{j}", "logprob": float(row[j]), "bytes": list(f" t{j}".encode())}
            for j in [*top(row, k), sampled[i] if sampled is not None else top(row, 1)[0]]
        ]
        content.append({**entries[-1], "top_logprobs": entries[:-1]})
    choice = {"index": 0, "message": {"role": "assistant", "content": "…"}, "logprobs": {"content": content}}
    return {"id": "x", "object": "chat.completion", "choices": [{**choice, "finish_reason": "length"}]}


def vllm(log_probs: np.ndarray, k: int, prompt: Sequence[int] | None = None) -> dict[str, Any]:
    """A completion with prompt_logprobs: null, then each row; the prompt's own token first, wherever it ranks."""
    positions: list[Any] = [None]
    for i, row in enumerate(log_probs):
        order = top(row, len(row))
        first = order[0] if prompt is None else prompt[i]
        listed = list(dict.fromkeys([first, *order[:k]]))
        positions.append(
            {str(j): {"logprob": float(row[j]), "rank": order.index(j) + 1, "decoded_token": f" t{j}"} for j in listed}
        )
    return {"object": "text_completion", "choices": [{"index": 0, "text": "…", "prompt_logprobs": positions}]}


def data(value: Any) -> bytes:
    return json.dumps(value).encode()


def pair_of(theta: Any, target: Any, vocabulary: int | None = None) -> TopKPair:
    """Two responses, read and aligned."""
    return pair_topk(
        read_topk("theta.json", data(theta)), read_topk("target.json", data(target)), vocabulary=vocabulary
    )


def rows_of(theta: np.ndarray, target: np.ndarray, k: int, vocabulary: int | None = None) -> tuple[TopKRow, ...]:
    """The rows that vLLM would report of whole distributions, both of one prompt."""
    prompt = [top(row, 1)[0] for row in theta]
    return pair_of(vllm(theta, k, prompt), vllm(target, k, prompt), vocabulary).rows
