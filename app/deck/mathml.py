"""LaTeX formulas as MathML, which browsers draw without a library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from xml.etree import ElementTree as Xml

from latex2mathml.converter import convert

_PLAIN = {r"\arg": r"\mathrm{arg}", r"\bigl": "", r"\bigr": ""}
"""What the converter does not know, or makes too large, and what stands in for it."""
_UNDER = {"min", "max", "∑"}
"""Operators whose index stands below them in a display."""
_FUNCTIONS = {"log", "exp", "arg"}
"""Names that stand apart from what they are applied to, unless a bracket does that."""


def display(lines: Sequence[str], spoken: str) -> str:
    """Lines, aligned at their first &, as HTML; `spoken` names the formula for screen readers."""
    cells = []
    for line in lines:
        left, _, right = line.partition("&")
        cells.append(f"<div>{mathml(left)}</div><div>{mathml(right)}</div>")
    return f'<div class="lines" role="group" aria-label="{escape(spoken)}">{"".join(cells)}</div>'


def mathml(latex: str) -> str:
    """One line of LaTeX as MathML in display style; nothing for nothing."""
    if not latex.strip():
        return ""
    # An empty group in front: a relation that begins a line is spaced as one between two sides.
    for written, plain in _PLAIN.items():
        latex = latex.replace(written, plain)
    root = Xml.fromstring(convert("{}" + latex, display="block"))
    for node in reversed(list(root.iter())):
        _words(node)
        _limits(node)
        _upright(node)
    for node in root.iter():
        node.tag = node.tag.partition("}")[2]
    root.set("xmlns", "http://www.w3.org/1998/Math/MathML")
    return Xml.tostring(root, "unicode")


def _words(node: Xml.Element) -> None:
    """Upright letters in a row are one word, and functions stand a thin space apart."""
    children: list[Xml.Element] = []
    for upright, run in groupby(list(node), key=lambda c: c.get("mathvariant") == "normal" and _name(c) == "mi"):
        letters = list(run)
        if upright:
            word = letters[0]
            word.text = "".join(c.text or "" for c in letters)
            if len(word.text) > 1:
                del word.attrib["mathvariant"]  # a word of several letters is upright anyway
            letters = [word]
        children += letters
    node[:] = children
    for i in range(len(node) - 1, 0, -1):
        before, after = node[i - 1], node[i]
        applied = _word(before) in _FUNCTIONS and _name(after) not in ("mo", "mspace")
        follows = _word(after) in _FUNCTIONS and (_name(before) in ("mi", "mn") or _word(before) == ")")
        if applied or follows:
            node.insert(i, node.makeelement(node.tag.partition("}")[0] + "}mspace", {"width": "0.17em"}))


def _upright(node: Xml.Element) -> None:
    """Greek capitals stand upright, as LaTeX has them."""
    if _name(node) == "mi" and "Α" <= (node.text or "") <= "Ω":
        node.set("mathvariant", "normal")


def _limits(node: Xml.Element) -> None:
    if _name(node) == "msub" and len(node) and _word(node[0]) in _UNDER:
        node.tag = node.tag.replace("msub", "munder")
        node[0].set("movablelimits", "false")


def _name(node: Xml.Element) -> str:
    return node.tag.partition("}")[2]


def _word(node: Xml.Element) -> str:
    """The text of an operator or a name, also inside a group of one."""
    while len(node) == 1 and _name(node) == "mrow":
        node = node[0]
    return (node.text or "") if not len(node) else ""
