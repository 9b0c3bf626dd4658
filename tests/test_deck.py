"""The deck: one document that needs nothing else, says what the core computes, and takes words for words."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from scipy.optimize import brentq

from geomix_app import compute
from geomix_app.catalogue import catalogue
from geomix_app.deck import lesson as lessons
from geomix_app.deck import page, slides
from geomix_app.deck.lesson import HIDEABLE, Lesson, Slide
from geomix_app.deck.mathml import mathml
from geomix_app.explorer.data import unpack
from geomix_app.figures.style import Style
from geomix_app.learn import formulas
from geomix_app.learn.facts import Facts
from geomix_app.learn.steps import BY_NAME, ORDER
from geomix_app.scenario import CUSTOM, UPLOAD, Scenario, TableRow, from_query
from geomix_app.shell import written
from geomix_core.claims import CLAIMS, Outcome, Setting
from geomix_core.geodesics import tilted_moments

VOID = {"meta", "br", "input", "path", "img"}
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass
class Node:
    tag: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child

    def all(self, tag: str = "", **wanted: str) -> list[Node]:
        """Elements below by tag, and by attributes; `of` is a class."""
        return [
            node
            for node in self
            if tag in ("", node.tag)
            and all(
                value in (node.attributes.get("class") or "").split()
                if name == "of"
                else node.attributes.get(name) == value
                for name, value in wanted.items()
            )
        ]

    def one(self, tag: str = "", **wanted: str) -> Node:
        (found,) = self.all(tag, **wanted)
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Reader(HTMLParser):
    """A document as a tree."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self._open = [self.root]
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs))
        self._open[-1].children.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


SCENARIOS = {
    "real": {},
    "zipf": {"source": "zipf", "alpha": "0.3", "eta": "0.8"},
    "inverse": {"source": "gaussian", "weights": "inverse", "alpha": "0.7"},
    "uncovered": {"source": "top_k"},
}


@cache
def deck(name: str = "real", language: str = "en", theme: str = "light") -> tuple[str, Node]:
    scenario, problems = from_query(SCENARIOS[name])
    assert not problems
    document = page.document(lessons.default(scenario, language, theme))  # type: ignore[arg-type]
    return document, Reader(document).root


def tree(lesson: Lesson, **options: Any) -> Node:
    return Reader(page.document(lesson, **options)).root


def facts(slide: Slide, language: str = "en", theme: str = "light") -> Facts:
    return Facts(slides.view(slide, Style(catalogue(language), theme), None))  # type: ignore[arg-type]


# --- one document ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "theme"), [("en", "light"), ("zh", "dark")])
def test_a_deck_is_one_document_that_fetches_nothing(language: str, theme: str) -> None:
    document, root = deck("real", language, theme)
    assert len(document.encode()) < page.LIMIT == 12_000_000
    assert root.one("html").attributes["lang"] == language
    for node in root:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert name not in node.attributes, (node.tag, name)
    for style in root.all("style"):
        assert "@import" not in style.text
        assert re.findall(r'url\((?!"?data:)', style.text) == []
    (policy,) = (node.attributes["content"] or "" for node in root.all("meta") if "http-equiv" in node.attributes)
    directives = dict(d.strip().split(" ", 1) for d in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert set(directives) == {"default-src", "script-src", "style-src", "img-src", "font-src"}
    assert re.search(r"https?:|unsafe-eval|\*", policy) is None
    assert "'unsafe-inline'" not in directives["script-src"]


def test_the_policy_allows_the_decks_own_scripts_and_no_others() -> None:
    _, root = deck()
    allowed = re.findall(
        r"'sha256-([^']+)'",
        next(n for n in root.all("meta") if "http-equiv" in n.attributes).attributes["content"] or "",
    )
    run = [node.text for node in root.all("script") if "type" not in node.attributes]
    assert [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in run] == allowed
    assert all("\r" not in source for source in run)
    assert {node.attributes.get("type") for node in root.all("script")} == {None, "text/plain", "application/json"}


def test_plotly_is_there_once_and_only_where_a_slide_needs_it() -> None:
    _, root = deck()
    assert len([s for s in root.all("script") if "type" not in s.attributes]) == 2
    bare = tree(Lesson((Slide("kl_symmetry"),)))
    assert len([s for s in bare.all("script") if "type" not in s.attributes]) == 1
    assert len(page.document(Lesson((Slide("kl_symmetry"),)))) < 400_000


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_step_is_a_slide_with_words_figure_formula_and_claims(language: str) -> None:
    _, root = deck("real", language)
    text = catalogue(language)
    found = root.all("section")
    assert [s.attributes["id"] for s in found] == list(ORDER)
    for section, name in zip(found, ORDER, strict=True):
        kinds = [(s.attributes["class"] or "").split()[1] for s in section.all("div", of="screen")]
        wanted = ["statement", "figure", "formula", *(["verdicts"] if BY_NAME[name].claims else [])]
        assert [k for k in kinds if k != "question"] == wanted
        assert section.one("h1").text == section.one("h2").text
        stages = sum(int(s.attributes["data-stages"] or 0) for s in section.all("div", of="screen"))
        revealed = {
            (id(screen), n.attributes["data-stage"])
            for screen in section.all(of="screen")
            for n in screen
            if "data-stage" in n.attributes
        }
        assert stages == len(kinds) + len(revealed)
        assert len(section.one("ol").all("li") if section.all("ol") else []) == BY_NAME[name].proofs
    notes = json.loads(root.one("script", id="deck").text)["notes"]
    assert notes == [text.plain(f"learn.{name}.note") for name in ORDER]
    assert root.one("dialog", of="list").one("ol").text.count("§") >= 14


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "language"), [("real", "en"), ("real", "zh"), ("zipf", "zh"), ("inverse", "en"), ("uncovered", "zh")]
)
def test_claims_stand_beside_the_verdicts_of_the_core(scenario: str, language: str) -> None:
    _, root = deck(scenario, language)
    text = catalogue(language)
    current, _ = from_query(SCENARIOS[scenario])
    row = compute.row(current, None)
    setting = Setting(weights="inverse" if current.weights == "inverse" else "importance", alpha=current.alpha)
    shown = root.all("tr")
    for name in {claim for step in BY_NAME.values() for claim in step.claims}:
        verdict = CLAIMS[name].check(row.batch, compute.setting_of(CLAIMS[name], setting))
        for line in (n for n in shown if n.attributes.get("data-claim") == name):
            badge = line.one("span", of="badge")
            assert str(verdict.outcome) in (badge.attributes["class"] or "").split()
            assert badge.text == text.plain(f"claim.{verdict.outcome}")
            if verdict.outcome is not Outcome.DOES_NOT_APPLY:
                said = text.plain(f"claim.{name}.{verdict.outcome}", **written(verdict))
                assert NUMBER.findall(line.text.split(badge.text)[1]) == NUMBER.findall(said.replace("**", ""))


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("name", ORDER)
def test_formulas_keep_every_number_and_its_colour(scenario: str, name: str) -> None:
    _, root = deck(scenario)
    (section,) = root.all("section", id=name)
    formula = formulas.of(name, facts(Slide(name, from_query(SCENARIOS[scenario])[0])))
    shown = section.one("div", of="lines")
    latex = " ".join(formula.lines)
    plain = re.sub(r"\[\d+pt\]|#[0-9A-F]{6}", "", latex)
    assert NUMBER.findall(" ".join(n.text for n in shown.all("mn"))) == NUMBER.findall(plain)
    assert sorted(str(n.attributes["mathcolor"]) for n in shown.all("mstyle") if "mathcolor" in n.attributes) == sorted(
        re.findall(r"\\textcolor\{(#[0-9A-F]{6})\}", latex)
    )
    assert "\\" not in shown.text


def test_the_formula_of_kl_symmetry_shows_a_root_found_elsewhere() -> None:
    _, root = deck("zipf")
    batch = compute.row(from_query(SCENARIOS["zipf"])[0], None).batch
    p, t = (x[0].double() for x in (batch.theta, batch.target))

    def delta(alpha: float) -> float:
        log_q = alpha * p + (1 - alpha) * t
        q = (log_q - log_q.logsumexp(0)).exp()
        return float((q * (t - p)).sum())

    root_of = brentq(delta, 0, 1, xtol=1e-12)
    (section,) = root.all("section", id="kl_symmetry")
    assert f"{root_of:.4f}" in [n.text for n in section.one("div", of="lines").all("mn")]


def test_live_figures_carry_the_rows_own_curves() -> None:
    _, root = deck("zipf")
    batch = compute.row(from_query(SCENARIOS["zipf"])[0], None).batch
    (section,) = root.all("section", id="progress")
    message = root.one("script", id=section.one("div", of="live").attributes["data-asset"] or "").text
    header, arrays = unpack(base64.b64decode(message))
    assert (header["alpha"], header["eta"], header["language"]) == (0.3, 0.8, "en")
    assert header["scalars"]["ceiling"] == pytest.approx(
        float((batch.target.exp() * (batch.target - batch.theta)).sum())
    )
    assert header["curves"]["delta"][0] == "linear"
    curves = tilted_moments(batch, torch.as_tensor(arrays["alpha"].copy())[:, None])
    assert arrays["curves.delta"] == pytest.approx(curves.delta[:, 0].numpy(), abs=1e-9)
    assert arrays["curves.log_partition"] == pytest.approx(curves.log_partition[:, 0].numpy(), abs=1e-9)


# --- what a lesson decides -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", HIDEABLE)
def test_a_part_that_is_left_out_is_not_in_the_document(part: str) -> None:
    whole, less = (tree(Lesson((Slide("theorem_2", hide=hide),))) for hide in ((), (part,)))
    mark = {"proof": ("ol", "proof"), "formula": ("div", "lines")}.get(part, ("div", part))
    assert whole.all(mark[0], of=mark[1])
    assert less.all(mark[0], of=mark[1]) == []
    if part == "formula":
        assert len(less.one("ol", of="proof").all("li")) == BY_NAME["theorem_2"].proofs


def test_a_step_shown_twice_has_two_names_and_its_own_numbers() -> None:
    root = tree(Lesson((Slide("kl_symmetry"), Slide("kl_symmetry", Scenario(alpha=0.25)))))
    assert [s.attributes["id"] for s in root.all("section")] == ["kl_symmetry", "kl_symmetry~2"]
    first, second = (s.one("div", of="lines").text for s in root.all("section"))
    assert first != second
    assert "0.2500" in second


def test_a_note_of_ones_own_stands_in_for_the_steps() -> None:
    root = tree(Lesson((Slide("wald", note="Mine"), Slide("wald", note=""), Slide("wald"))))
    notes = json.loads(root.one("script", id="deck").text)["notes"]
    assert notes == ["Mine", "", catalogue("en").plain("learn.wald.note")]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("scenario", "key"),
    [
        (Scenario(source=UPLOAD), "error.upload_missing"),
        (Scenario(source=CUSTOM, table=(TableRow("a", 1, 0), TableRow("b", 0, 1))), "notice.disjoint"),
        (Scenario(source=CUSTOM, table=(TableRow("a", -1, 1), TableRow("b", 2, 1))), "error.table_weights"),
    ],
)
def test_policies_that_allow_nothing_leave_a_sentence(scenario: Scenario, key: str, language: str) -> None:
    root = tree(lessons.default(scenario, language))
    assert len(root.all("section")) == len(ORDER)
    said = [node.text for node in root.all("div", of="message")]
    assert slides.prose(catalogue(language).plain(key)).split("<")[0] in said[0]


def test_where_the_deck_opens_and_whether_it_can_be_left() -> None:
    lesson = Lesson((Slide("wald"),))
    alone, within = tree(lesson), tree(lesson, at="wald.2", embedded=True)
    assert json.loads(within.one("script", id="deck").text)["at"] == "wald.2"
    assert alone.all("button", **{"data-do": "leave"}) == []
    assert within.one("button", **{"data-do": "leave"})


# --- words from strangers ------------------------------------------------------------------------------------------

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(1)"> **b** {alpha} π_θ $x$ \\u003c'


def test_words_of_a_lesson_are_only_words() -> None:
    table = (TableRow(HOSTILE, 0.6, 0.1), TableRow("<b>&amp;", 0.4, 0.9))
    scenario = Scenario(source=CUSTOM, table=table)
    usual, hostile = (
        tree(Lesson(tuple(Slide(n, s, note=words) for n in ORDER), title=words), at=words)
        for s, words in (
            (replace(scenario, table=(TableRow("a", 0.6, 0.1), TableRow("b", 0.4, 0.9))), "x"),
            (scenario, HOSTILE),
        )
    )
    assert hostile.all("img") == []
    assert Counter(n.tag for n in hostile) == Counter(n.tag for n in usual)
    assert all(not name.startswith("on") for node in hostile for name in node.attributes)
    assert hostile.one("title").text == HOSTILE
    assert json.loads(hostile.one("script", id="deck").text)["notes"] == [HOSTILE] * len(ORDER)
    for kept in ([n.text for n in usual.all("script") if "type" not in n.attributes],):
        assert [n.text for n in hostile.all("script") if "type" not in n.attributes] == kept


def test_a_deck_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LIMIT", 100_000)
    with pytest.raises(page.DeckError, match="100,000"):
        page.document(Lesson((Slide("wald"),)))


# --- formulas as MathML ----------------------------------------------------------------------------------------------


def shape(latex: str) -> str:
    return re.sub(r' xmlns="[^"]*"| display="block"|<mrow />|</?mrow>', "", mathml(latex))


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"\mathrm{KL}", "<math><mi>KL</mi></math>"),
        (r"\min_{x} y", '<math><munder><mo movablelimits="false">min</mo><mi>x</mi></munder><mi>y</mi></math>'),
        (r"\sum_y", "<math><munder><mo>∑</mo><mi>y</mi></munder></math>"),
        (r"\log x", '<math><mi>log</mi><mspace width="0.17em" /><mi>x</mi></math>'),
        (r"\log(x)", '<math><mi>log</mi><mo stretchy="false">(</mo><mi>x</mi><mo stretchy="false">)</mo></math>'),
        (r"\arg x", '<math><mi>arg</mi><mspace width="0.17em" /><mi>x</mi></math>'),
        (r"\Phi_1", '<math><msub><mi mathvariant="normal">Φ</mi><mn>1</mn></msub></math>'),
        (r"\bigl(x\bigr)", '<math><mo stretchy="false">(</mo><mi>x</mi><mo stretchy="false">)</mo></math>'),
        (r"\textcolor{#0072B2}{x}", '<math><mstyle mathcolor="#0072B2"><mi>x</mi></mstyle></math>'),
        ("", ""),
    ],
)
def test_latex_becomes_what_browsers_draw(latex: str, expected: str) -> None:
    assert shape(latex) == expected
