"""Policies written as whole numbers, one weight a token: 2 : 1 stands for probabilities 2/3 and 1/3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geomix_core.policies import PolicyBatch

Counts = tuple[int, ...]

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 50, 100, 200, 500, 1000, *(10**k for k in range(4, 10)))
"""Largest weight, in turn, that rounding allows."""

ALPHABET = 26
FEWEST = 2
"""One token is one policy: nothing to compare."""


@dataclass(frozen=True, slots=True)
class Table:
    """Weights of π_θ, π_t and, if it is not π_θ, the reference, over the same few tokens."""

    theta: Counts
    target: Counts
    reference: Counts | None = None

    @property
    def tokens(self) -> int:
        return len(self.theta)

    @property
    def letters(self) -> tuple[str, ...]:
        """Names for the tokens: A, B, C, …, numbers where there are too many."""
        return tuple(chr(ord("A") + i) if self.tokens <= ALPHABET else str(i + 1) for i in range(self.tokens))

    @property
    def policies(self) -> tuple[Counts, ...]:
        """Two or three."""
        return (self.theta, self.target) if self.reference is None else (self.theta, self.target, self.reference)

    @property
    def named(self) -> dict[str, Counts]:
        """The same by name: theta, target, reference."""
        return dict(zip(("theta", "target", "reference"), self.policies, strict=False))

    @property
    def valid(self) -> bool:
        """At least `FEWEST` tokens, each in use, and no policy without a token."""
        used = all(any(weights) for weights in zip(*self.policies, strict=True))
        return self.tokens >= FEWEST and used and all(any(p) for p in self.policies)

    @property
    def batch(self) -> PolicyBatch:
        """As a batch of one row."""
        return batch_of([self])

    def complexity(self) -> tuple[int, ...]:
        """What is simpler sorts first: fewer tokens, no reference, no zeros, fewer digits, smaller numbers."""
        weights = [w for policy in self.policies for w in policy]
        digits = sum(len(str(w).rstrip("0")) or 1 for w in weights)
        return self.tokens, self.reference is not None, weights.count(0), digits, sum(weights), *weights

    def reduced(self) -> Table:
        """Each policy divided by the common factor of its weights."""
        return Table(*(tuple(w // (math.gcd(*policy) or 1) for w in policy) for policy in self.policies))

    def simpler(self) -> list[Table]:
        """Tables one step simpler: without a token, without the reference, with two tokens merged or one number made
        rounder.
        """
        found = {Table(self.theta, self.target)}
        for i in range(self.tokens):
            found.add(Table(*(p[:i] + p[i + 1 :] for p in self.policies)))
            for j in range(i):
                found.add(Table(*((*p[:j], p[j] + p[i], *p[j + 1 : i], *p[i + 1 :]) for p in self.policies)))
        for k, policy in enumerate(self.policies):
            for scale in SCALES:
                if scale < max(policy):
                    found.add(self._with(k, tuple(round(w / max(policy) * scale) for w in policy)))
            for i, weight in enumerate(policy):
                first = 10 ** (len(str(weight)) - 1)
                for less in {0, 1, weight // 2, weight - 1, weight // first * first, *policy}:
                    if 0 <= less < weight:
                        found.add(self._with(k, (*policy[:i], less, *policy[i + 1 :])))
        here = self.complexity()
        reduced = {t.reduced() for t in found if t.valid}
        return sorted((t for t in reduced if t.complexity() < here), key=Table.complexity)

    @staticmethod
    def roundings(*logits: np.ndarray) -> list[Table]:
        """Policies given as logits `[V]`, rounded ever more finely; the coarsest first."""
        shares = [np.exp(x - x.max()) for x in logits]
        tables = [Table(*(tuple(int(w) for w in np.rint(p * scale)) for p in shares)) for scale in SCALES]
        return [t for t in tables if t.valid]

    def _with(self, k: int, weights: Counts) -> Table:
        return Table(*(weights if i == k else p for i, p in enumerate(self.policies)))


def batch_of(tables: Sequence[Table]) -> PolicyBatch:
    """Tables of as many tokens each, all with a reference or all without, as one batch."""
    columns = zip(*(t.policies for t in tables), strict=True)
    weights = [np.array(column, dtype=np.float64) for column in columns]
    return PolicyBatch.from_probs(*(w / w.sum(-1, keepdims=True) for w in weights))
