"""A statement of your own, read: a small grammar for equalities and inequalities between the document's quantities.

    statement  =  sum relation sum                     relation   =  "=" | "≤" | "<" | "≥" | ">"
    sum        =  product { ("+" | "−") product }      product    =  signed { ("·" | "/") signed }
    signed     =  ["−"] power                          power      =  value [ "^" signed | "²" | "³" ]
    value      =  number | "(" sum ")" | "√" value | quantity [ "(" sum { "," sum } ")" ]

Nothing else is read, and nothing is executed: the text becomes a tree of `Number`, `Operation` and `Call`, whose names
all come from `QUANTITIES`. Between two policies "‖" stands for the comma. A statement is bounded in length, in depth
and in the size of its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from geomix_core.claims.quantities import BY_SPELLING, QUANTITIES, Kind, Quantity
from geomix_core.claims.words import problem
from geomix_core.errors import ExpressionError

LONGEST, DEEPEST, LARGEST = 200, 24, 1e6
"""Characters, values within values, and the largest number."""

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>χ²|η\*|[^\W\d²³][^\W²³]*)"
    r"|(?P<mark>\*\*|\|\||<=|>=|==|[-+*/^(),<>=≤≥‖√²³])"
)
_SAME = str.maketrans("−－–＋×·⋅∗÷／（）＝＜＞，、∥⩽⩾≦≧", "---+****//()=<>,,‖≤≥≤≥")
"""Other ways to type a mark, those of a Chinese keyboard among them; one for one, so that positions stay."""
_RELATIONS = {"=": "=", "==": "=", "<=": "≤", "≤": "≤", "<": "<", ">=": "≥", "≥": "≥", ">": ">"}
_POWERS = {"²": 2.0, "³": 3.0}
_SEPARATORS = (",", "‖", "||")


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Operation:
    """+, -, *, / or ^ of two numbers."""

    mark: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A quantity or a function, and what it is of."""

    quantity: Quantity
    arguments: tuple[Node, ...]


Node = Number | Operation | Call


@dataclass(frozen=True, slots=True)
class Statement:
    """left relation right, as it was written."""

    text: str
    left: Node
    relation: str
    """One of = ≤ < ≥ >."""
    right: Node

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Those that it speaks of, functions included, each once."""
        return tuple(dict.fromkeys([*_quantities(self.left), *_quantities(self.right)]))


def parse(text: str) -> Statement:
    """Read a statement. Raises ExpressionError, with the place, what was found there and what was expected."""
    if len(text) > LONGEST:
        raise _error("long", 0, found=str(len(text)), limit=str(LONGEST))
    return _Parser(text).statement()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """number, name, mark or end."""
    text: str
    position: int


class _Parser:
    """Recursive descent over the tokens; `depth` bounds the recursion."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.at = 0
        self.depth = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.next
        self.at += token.kind != "end"
        return token

    def taken(self, *marks: str) -> bool:
        """Whether one of these marks comes next; if so, it is passed."""
        here = self.next.kind == "mark" and self.next.text in marks
        if here:
            self.take()
        return here

    def statement(self) -> Statement:
        if self.next.kind == "end":
            raise _error("empty", 0)
        left = self.sum()
        token = self.next
        if token.text not in _RELATIONS:
            raise _unexpected(token, "relation")
        self.take()
        right = self.sum()
        if self.next.kind != "end":
            raise _unexpected(self.next, "one_relation" if self.next.text in _RELATIONS else "end")
        return Statement(self.text, left, _RELATIONS[token.text], right)

    def sum(self) -> Node:
        node = self.product()
        while self.next.text in ("+", "-"):
            mark = self.take().text
            node = Operation(mark, node, self.product())
        return node

    def product(self) -> Node:
        node = self.signed()
        while self.next.text in ("*", "/"):
            mark = self.take().text
            node = Operation(mark, node, self.signed())
        return node

    def signed(self) -> Node:
        start = self.next
        self.depth += 1
        if self.depth > DEEPEST:
            raise _error("deep", start.position, limit=str(DEEPEST))
        node = Operation("-", Number(0.0), self.signed()) if self.taken("-") else self.power()
        self.depth -= 1
        return node

    def power(self) -> Node:
        node = self.number()
        if self.next.text in _POWERS:
            return Operation("^", node, Number(_POWERS[self.take().text]))
        if self.taken("^", "**"):
            return Operation("^", node, self.signed())
        return node

    def number(self) -> Node:
        """A value that is a number."""
        start = self.next
        node = self.value()
        if _kind(node) is Kind.POLICY:
            raise _error("policy", start.position, found=start.text)
        return node

    def value(self) -> Node:
        token = self.take()
        if token.kind == "number":
            if float(token.text) > LARGEST:
                raise _error("large", token.position, found=token.text, limit=f"{LARGEST:,.0f}")
            return Number(float(token.text))
        if token.text == "(":
            node = self.sum()
            if not self.taken(")"):
                raise _unexpected(self.next, "close")
            return node
        if token.text == "√":
            return Call(QUANTITIES["sqrt"], (self.signed(),))
        if token.kind != "name":
            raise _unexpected(token, "value")
        quantity = BY_SPELLING.get(token.text.casefold())
        if quantity is None:
            (nearest,) = get_close_matches(token.text, [*QUANTITIES], 1, 0.0)
            raise _error("unknown", token.position, found=token.text, nearest=nearest)
        return Call(quantity, self.arguments(quantity, token))

    def arguments(self, quantity: Quantity, token: _Token) -> tuple[Node, ...]:
        """What stands in brackets after a name, if anything has to."""
        if not quantity.takes:
            return ()
        if not self.taken("("):
            raise _error("brackets", token.position, found=token.text, count=str(len(quantity.takes)))
        found: list[Node] = []
        for kind in quantity.takes:
            if found and not self.taken(*_SEPARATORS):
                raise _unexpected(self.next, "comma")
            found.append(self.policy() if kind is Kind.POLICY else self.sum())
        if not self.taken(")"):
            raise _unexpected(self.next, "close")
        return tuple(found)

    def policy(self) -> Node:
        """A value that is a policy."""
        start = self.next
        self.depth += 1
        if self.depth > DEEPEST:
            raise _error("deep", start.position, limit=str(DEEPEST))
        node = self.value()
        self.depth -= 1
        if _kind(node) is not Kind.POLICY:
            raise _error("number", start.position, found=start.text)
        return node


def _tokens(text: str) -> Iterator[_Token]:
    typed, at = text.translate(_SAME), 0
    while at < len(typed):
        if typed[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(typed, at)
        if match is None:
            raise _unexpected(_Token("", text[at], at), "value")
        yield _Token(str(match.lastgroup), match[0], at)
        at = match.end()
    yield _Token("end", "", len(text))


def _kind(node: Node) -> Kind:
    return node.quantity.gives if isinstance(node, Call) else Kind.NUMBER


def _quantities(node: Node) -> Iterator[Quantity]:
    if isinstance(node, Call):
        yield node.quantity
        for argument in node.arguments:
            yield from _quantities(argument)
    elif isinstance(node, Operation):
        yield from _quantities(node.left)
        yield from _quantities(node.right)


def _unexpected(token: _Token, wanted: str) -> ExpressionError:
    if token.kind == "end":
        return _error("ends", token.position, expected=wanted)
    return _error("unexpected", token.position, found=token.text, expected=wanted)


def _error(code: str, position: int, **values: str) -> ExpressionError:
    return ExpressionError(problem(code, position, values, "en"), code, position, values)
