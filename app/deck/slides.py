"""The slides of a deck: each step of a lesson as screens of HTML, which reveal themselves in stages.

What is said and drawn comes from `learn`, the figures' own modules and the claims; nothing is computed here.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from geomix_app import compute, notation, shell
from geomix_app.catalogue import Catalogue, catalogue
from geomix_app.deck import mathml
from geomix_app.deck.lesson import Lesson, Slide, names
from geomix_app.explorer.component import scene
from geomix_app.explorer.data import pack
from geomix_app.figures import export
from geomix_app.figures.style import Style
from geomix_app.figures.tokens import token_label
from geomix_app.learn import figures, formulas
from geomix_app.learn.facts import Facts
from geomix_app.learn.figures import Live
from geomix_app.learn.questions import QUESTIONS, Choice, Mark
from geomix_app.learn.steps import AT_A_POINT, BY_NAME, OF_A_TOKEN, Step
from geomix_app.learn.symbols import chips
from geomix_app.notation import SYMBOLS, number, parameter, percent
from geomix_app.shell import View
from geomix_core.claims import Outcome
from geomix_core.datasets import Dataset
from geomix_core.errors import GeomixError
from geomix_core.progress import Weights

SHARE = 0.8
"""The explorer's type is as large as if it had only this much of the screen's width to itself."""
BELOW = 60
"""Pixels that it leaves free below itself: for where one is, and the timer."""
LARGEST = 80
"""Its largest size of type, in pixels."""


@dataclass(frozen=True, slots=True)
class Screen:
    """One idea: its HTML, in which [data-stage] names the stage that shows a part; how many stages there are."""

    kind: str
    body: str
    stages: int = 1


@dataclass(frozen=True, slots=True)
class Page:
    """One slide: `name` is its step, numbered where the lesson shows it again."""

    name: str
    title: str
    where: str
    note: str
    screens: tuple[Screen, ...]


@dataclass
class Assets:
    """What figures are drawn from, each once: messages of the explorer in base64, Plotly's figures in JSON."""

    messages: dict[str, str] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)

    def message(self, content: bytes) -> str:
        """The id of a message."""
        return self.messages.setdefault(base64.b64encode(content).decode(), f"message-{len(self.messages)}")

    def plot(self, content: str) -> str:
        """The id of a figure."""
        self.plots.append(content)
        return f"plot-{len(self.plots) - 1}"


def pages(lesson: Lesson, assets: Assets, upload: Dataset | None = None) -> tuple[Page, ...]:
    """The lesson's slides; what their figures need is put into `assets`."""
    style = Style(catalogue(lesson.language), lesson.theme)
    return tuple(
        _page(name, slide, style, assets, upload) for name, slide in zip(names(lesson), lesson.slides, strict=True)
    )


def view(slide: Slide, style: Style, upload: Dataset | None) -> View:
    """What the pages of the app would show of a slide's scenario. Raises GeomixError where it has no policies."""
    row = compute.row(slide.scenario, upload)
    weights: Weights = "inverse" if slide.scenario.weights == "inverse" else "importance"
    return View("derivation", style.text, style, slide.scenario, weights, row, compute.pair(row.key, row.batch))


def prose(words: str) -> str:
    """Text of the catalogue, filled with anything, as HTML: symbols and bold are set, all else is literal."""
    return _BOLD.sub(r"<b>\1</b>", notation.html(html.escape(words)))


_BOLD = re.compile(r"\*\*(.+?)\*\*")


def _page(name: str, slide: Slide, style: Style, assets: Assets, upload: Dataset | None) -> Page:
    text, step = style.text, BY_NAME[slide.step]
    try:
        screens = tuple(_screens(step, slide, Facts(view(slide, style, upload)), assets))
    except GeomixError as error:
        key = f"error.{error}"
        message = text.plain(key) if key in text else text.plain("error.unreadable", message=str(error))
        screens = (_statement(text, step), Screen("message", f"<p>{prose(message)}</p>"))
    return Page(
        name,
        prose(text.plain(f"learn.{step.name}.title")),
        prose(text.plain(f"learn.{step.name}.where")),
        text.plain(f"learn.{step.name}.note") if slide.note is None else slide.note,
        screens,
    )


def _screens(step: Step, slide: Slide, facts: Facts, assets: Assets) -> Iterator[Screen]:
    yield _statement(facts.view.text, step)
    parts: Mapping[str, Callable[[], Screen | None]] = {
        "question": lambda: _question(step, facts),
        "figure": lambda: _figure(step, facts, assets),
        "formula": lambda: _formula(step, facts, with_proof="proof" not in slide.hide),
        "proof": lambda: _proof(facts.view.text, step) if "formula" in slide.hide else None,
        "verdicts": lambda: _verdicts(step, facts),
    }
    for part, make in parts.items():
        if part not in slide.hide and (screen := make()) is not None:
            yield screen


def _statement(text: Catalogue, step: Step) -> Screen:
    title, where, what = (prose(text.plain(f"learn.{step.name}.{k}")) for k in ("title", "where", "what"))
    return Screen("statement", f'<p class="where">{where}</p><h1>{title}</h1><p class="what">{what}</p>')


# --- the question ------------------------------------------------------------------------------------------------


def _question(step: Step, facts: Facts) -> Screen | None:
    """What the audience is asked; then the answer, and a word about theirs."""
    question = QUESTIONS.get(step.name)
    found = question.find(facts) if question else None
    if question is None or found is None:
        return None
    text, key = facts.view.text, f"learn.question.{step.name}"
    ask = f'<p class="badge">{prose(text.plain("learn.asking.title"))}</p>'
    ask += f'<p class="ask">{prose(text.plain(f"{key}.ask"))}</p>'
    truth, numbers = found
    if isinstance(question, Choice):
        options = question.shuffled(step.name, facts)
        buttons = "".join(
            f'<button type="button" class="option" data-option="{option}"{" data-right" if option == truth else ""} '
            f'aria-pressed="false"><span class="letter">{chr(ord("A") + i)}</span>'
            f"<span>{prose(text.plain(f'{key}.option_{option}'))}</span></button>"
            for i, option in enumerate(options)
        )
        about = {o: text.plain(f"{key}.if_{o}") for o in options if o != truth and f"{key}.if_{o}" in text}
        said = prose(text.plain(f"{key}.truth_{truth}", **numbers))
        answering = f'<div class="options">{buttons}</div>'
    else:
        about = {side: text.plain(f"{key}.{side}") for side in ("low", "high")}
        written = question.written(float(truth))
        said = prose(text.plain(f"{key}.truth", truth=written, **numbers))
        answering = _mark(text, question, float(truth))
    replies = "".join(f'<p class="about" data-if="{name}" hidden>{prose(words)}</p>' for name, words in about.items())
    return Screen("question", f'{ask}{answering}<div class="reply" data-stage="1"><p>{said}</p>{replies}</div>', 2)


def _mark(text: Catalogue, question: Mark, truth: float) -> str:
    """A line with a mark to drag; it starts at neither end nor the middle, which might be the answer."""
    alpha = question.kind == "alpha"
    ends = (
        (f"0 · {SYMBOLS['target'].html}", f"1 · {SYMBOLS['theta'].html}") if alpha else (percent(0, 0), percent(1, 0))
    )
    label = html.escape(text.plain("learn.asking.place"))
    return (
        f'<div class="mark" data-of="{question.kind}" data-truth="{truth!r}" data-near="{question.near!r}" '
        f'style="--truth: {min(max(truth, 0), 1):.6f}"><output></output>'
        f'<div class="rail"><input type="range" min="0" max="1" step="0.01" value="0.25" aria-label="{label}">'
        f'<span class="truth" data-stage="1" aria-hidden="true">▲<b>{html.escape(question.written(truth))}</b>'
        "</span></div>"
        f'<div class="ends"><span>{ends[0]}</span><span>{ends[1]}</span></div></div>'
    )


# --- figure, formula, proof --------------------------------------------------------------------------------------


def _figure(step: Step, facts: Facts, assets: Assets) -> Screen:
    found = figures.of(step.name, facts)
    text, pair = facts.view.text, facts.pair
    if found is None:
        mass = percent(1 - pair.theta_mass, 3)
        why = text.plain("notice.disjoint") if pair.disjoint else text.plain("notice.uncovered", mass=mass)
        return Screen("message", f"<p>{prose(why)}</p>")
    if isinstance(found, Live):
        drawn = scene(facts.view, found.panels, replace(found.parts, below=BELOW, share=SHARE))
        drawn = replace(drawn, parts={**drawn.parts, "largest": LARGEST})
        label = html.escape(text.plain(f"learn.{step.name}.title"))
        asset = assets.message(pack(drawn))
        return Screen("figure", f'<div class="live" role="group" aria-label="{label}" data-asset="{asset}"></div>')
    figure = export.standalone(facts.view.style, found.figure())
    return Screen(
        "figure",
        f'<div class="plot" role="img" aria-label="{html.escape(found.title)}" '
        f'data-asset="{assets.plot(figure.to_json())}"><div></div></div>',
    )


def _formula(step: Step, facts: Facts, with_proof: bool) -> Screen:
    """The formula with the numbers of the scenario and what its symbols mean; then its proof, step by step."""
    text = facts.view.text
    formula = formulas.of(step.name, facts)
    scenario = facts.view.scenario
    about = []
    if step.name in AT_A_POINT:
        at = text.plain("deck.numbers_at", alpha=parameter(scenario.alpha), eta=number(scenario.eta))
        about.append(f'<span class="at">{prose(at)}</span>')
    if step.name in OF_A_TOKEN:
        token = html.unescape(token_label(facts.view.row.tokens[facts.watched]))
        about.append(f"<span>{prose(text.plain('page.derivation.token', token=token))}</span>")
    body = mathml.display(formula.lines, text.plain("page.derivation.formula"))
    body += f'<p class="about">{" ".join(about)}</p>' if about else ""
    body += chips(facts.view, formula.symbols)
    if not with_proof or not step.proofs:
        return Screen("formula", body)
    return Screen("formula", body + _steps(text, step, first=1), 1 + step.proofs)


def _proof(text: Catalogue, step: Step) -> Screen | None:
    return Screen("formula", _steps(text, step, first=0), step.proofs) if step.proofs else None


def _steps(text: Catalogue, step: Step, first: int) -> str:
    """The steps of the proof, the first of them shown at stage `first`."""
    items = (
        f'<li data-stage="{first + i - 1}">{prose(text.plain(f"learn.{step.name}.proof_{i}"))}</li>'
        for i in range(1, step.proofs + 1)
    )
    return f'<ol class="proof">{"".join(items)}</ol>'


# --- claims ------------------------------------------------------------------------------------------------------


def _verdicts(step: Step, facts: Facts) -> Screen | None:
    """What the document claims; then, beside it, what a computation says."""
    if not step.claims:
        return None
    text = facts.view.text
    rows = "".join(_verdict(facts, text, name) for name in step.claims)
    document, computed = prose(text.plain("deck.document")), prose(text.plain("claim.computed"))
    return Screen(
        "verdicts",
        f'<table><thead><tr><th scope="col">{document}</th><th scope="col" data-stage="1">{computed}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>",
        2,
    )


def _verdict(facts: Facts, text: Catalogue, name: str) -> str:
    found = facts.verdict(name)
    key = f"claim.{name}"
    if found.outcome is Outcome.DOES_NOT_APPLY:
        finding = text.plain(f"claim.reason.{found.reason}")
    else:
        finding = text.plain(f"{key}.{found.outcome}", **shell.written(found))
    return (
        f'<tr data-claim="{name}"><td><span class="where">{prose(text.plain(f"{key}.where"))}</span> '
        f"{prose(text.plain(f'{key}.says'))}</td>"
        f'<td data-stage="1"><span class="badge {found.outcome}">{prose(text.plain(f"claim.{found.outcome}"))}</span> '
        f"{prose(finding)}</td></tr>"
    )
