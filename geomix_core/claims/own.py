"""A claim of your own: a statement in the language of `expressions`, tested and attacked as the document's claims are.

    claim_of("√χ²(π_t, π_θ) ≥ SNR(α_KL)").check(batch)
    find_counterexample(claim_of("KL(π_t‖π_θ) >= 2*TV(π_θ, π_t)^2"))

An equality may be off by `MARGIN`, and "≤" may be exceeded by it, relative to 1 + |left| + |right|: rounding, and the
six digits to which maxima and lengths are found. "<" is broken where both sides agree to twelve digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench
from geomix_core.claims.conditions import Condition
from geomix_core.claims.expressions import Node, Number, Operation, Statement, parse
from geomix_core.claims.model import Claim, Measurement
from geomix_core.claims.quantities import evaluate

OWN = "own"
"""The name of such a claim."""
MARGIN = 1e-6
SAME = 1e-12
"""Relative difference at which the two sides of a strict inequality count as equal."""
LEAST = 5e-324
"""The smallest positive number: what 0 falls short of, where 0 < 0 is asked."""


def claim_of(text: str) -> Claim:
    """The claim that a statement makes; numbers: left, right. Raises ExpressionError where it cannot be read."""
    statement = parse(text)
    needs: dict[Condition, None] = {}
    for quantity in statement.quantities:
        needs |= dict.fromkeys(quantity.needs)
    uses = frozenset().union(*(q.uses for q in statement.quantities))
    return Claim(OWN, lambda bench: _measure(statement, bench), tuple(needs), (), uses, "every")


def _measure(statement: Statement, bench: Bench) -> Measurement:
    left, right = (_value(node, bench) for node in (statement.left, statement.right))
    undefined = ~(left.isfinite() & right.isfinite())
    numbers = {"left": left, "right": right}
    left, right = left.masked_fill(undefined, 0.0), right.masked_fill(undefined, 0.0)
    over = {"=": (left - right).abs(), "≤": left - right, "<": left - right}
    residual = over.get(statement.relation, right - left)
    scale = left.abs() + right.abs()
    tolerance = -SAME * scale - LEAST if statement.relation in "<>" else MARGIN * (1 + scale)
    return Measurement(residual, tolerance, numbers, {"undefined": undefined})


def _value(node: Node, bench: Bench) -> Tensor:
    """The value of a tree `[B]`, or of a policy `[B, V]`."""
    if isinstance(node, Number):
        return torch.full((len(bench),), node.value, dtype=bench.batch.theta.dtype)
    if isinstance(node, Operation):
        left, right = _value(node.left, bench), _value(node.right, bench)
        operation = _OPERATIONS[node.mark]
        return operation(left, right)
    return evaluate(node.quantity, bench, [_value(a, bench) for a in node.arguments])


_OPERATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": torch.add,
    "-": torch.sub,
    "*": torch.mul,
    "/": torch.div,
    "^": torch.pow,
}
