"""Parts of the derivation page: one step at a time, with its question, figure, formula, proof and verdicts."""

from __future__ import annotations

import html
from collections import Counter

import streamlit as st

from geomix_app import shell, state
from geomix_app.explorer.component import explorer
from geomix_app.figures.tokens import token_label
from geomix_app.learn import figures, formulas, questions
from geomix_app.learn.facts import Facts
from geomix_app.learn.figures import Live
from geomix_app.learn.questions import QUESTIONS, Choice, Mark
from geomix_app.learn.steps import AT_A_POINT, OF_A_TOKEN, ORDER, STEPS, Step, place
from geomix_app.learn.symbols import chips
from geomix_app.notation import number, parameter
from geomix_app.shell import View
from geomix_app.views import lecture
from geomix_core.claims import Outcome

_STEP, _PROOF = "step", "proof"
SKIPPED = "skipped"
TALLY = {Outcome.HOLDS: "green", Outcome.FAILS: "red", Outcome.DOES_NOT_APPLY: "gray"}
"""The colour of a count of verdicts."""


def current() -> Step:
    """The step on screen."""
    return STEPS[place(state.view_setting(_STEP, ORDER[0]))]


def header(view: View, step: Step) -> None:
    """Where in the derivation one is, and how to go on."""
    here = place(step.name)
    text = view.text
    back, where, onward = st.columns([1.7, 6, 1.7], gap="small", vertical_alignment="center")
    back.button(
        view.words("back"), on_click=go, args=(ORDER[here - 1],), disabled=here == 0, width="stretch",
        icon=":material/arrow_back:", key="step.back", shortcut="PageUp",
    )  # fmt: skip
    onward.button(
        view.words("next"), on_click=go, args=(ORDER[(here + 1) % len(ORDER)],), disabled=here == len(ORDER) - 1,
        width="stretch", icon=":material/arrow_forward:", icon_position="right", type="primary", key="step.next",
        shortcut="PageDown",
    )  # fmt: skip
    with where.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center"):
        st.caption(view.words("place", place=str(here + 1), count=str(len(ORDER))), width="content")
        opened = st.popover(view.words("roadmap"), icon=":material/route:", key="roadmap", on_change="rerun")
        if opened.open:
            # Its verdicts are many: not computed while it is closed.
            with opened, st.container(gap="xxsmall", width=620):
                _roadmap(view)
        lecture.present_link(view, step.name)
    st.markdown(f"#### {text(f'learn.{step.name}.title')}", anchors=False)
    st.markdown(f":gray[{text(f'learn.{step.name}.where')}] · {text(f'learn.{step.name}.what')}")


def go(name: str) -> None:
    """Show another step; for callbacks."""
    state.set_view(_STEP, name)
    state.set_view(_PROOF, 0)


def body(view: View, step: Step) -> bool:
    """The question, until it is answered; then the figure, and the formula beside it. Whether these are shown."""
    facts = Facts(view)
    if not _question(view, step, facts):
        return False
    left, right = st.columns([56, 44], gap="medium")
    with left:
        _figure(view, step, facts)
    with right:
        _formula(view, step, facts)
        _proof(view, step)
        _explore(view, step)
    return True


def verdicts(view: View, step: Step) -> None:
    """What the document claims in this step, and what a computation says of it here."""
    if not step.claims:
        st.caption(view.words("definitions"))
        return
    st.markdown(f"**{view.words('document')}**")
    shell.verdicts(view, step.claims, abreast=min(2, len(step.claims)))


def _roadmap(view: View) -> None:
    """All steps with the verdicts on their claims; a press goes there."""
    st.caption(view.words("roadmap_hint"))
    facts, part = Facts(view), None
    for step in STEPS:
        if step.part != part:
            part = step.part
            st.caption(f"**{view.text(f'learn.part.part_{part}')}**")
        found = Counter(facts.verdict(claim).outcome for claim in step.claims)
        badges = " ".join(f":{TALLY[o]}-badge[{found[o]} {view.words(f'tally_{o}')}]" for o in Outcome if found[o])
        row, tally = st.columns([3, 2], gap="small", vertical_alignment="center")
        row.button(
            view.text(f"learn.{step.name}.title"),
            on_click=go,
            args=(step.name,),
            type="tertiary",
            key=f"to.{step.name}",
        )
        tally.markdown(badges)


# --- the question ------------------------------------------------------------------------------------------------


def _question(view: View, step: Step, facts: Facts) -> bool:
    """Ask, and once there is an answer, reply; whether the step may show itself."""
    question = QUESTIONS.get(step.name)
    key = f"answer.{step.name}.{view.row.key}.{view.weights}"
    given = state.view_setting(key, None)
    if question is None or question.find(facts) is None or given == SKIPPED:
        return True
    with st.container(border=True, key="question"):
        st.markdown(
            f":primary-badge[:material/psychology: {view.text('learn.asking.title')}]"
            f" **{view.text(f'learn.question.{step.name}.ask')}**"
        )
        if given is None:
            _ask(view, step, facts, question, key)
            return False
        _reply(view, step, facts, given, key)
    return True


def _ask(view: View, step: Step, facts: Facts, question: questions.Question, key: str) -> None:
    text = view.text
    chosen: str | float | None
    if isinstance(question, Choice):
        chosen = st.radio(
            text(f"learn.question.{step.name}.ask"),
            question.shuffled(step.name, facts),
            index=None,
            format_func=lambda option: text(f"learn.question.{step.name}.option_{option}"),
            label_visibility="collapsed",
            key=f"w.{key}",
        )
    else:
        chosen = _mark(view, question, key)
    with st.container(horizontal=True):
        st.button(
            text("learn.asking.check"), on_click=_answer, args=(key, chosen), disabled=chosen is None,
            type="primary", icon=":material/visibility:", key="reveal",
        )  # fmt: skip
        st.button(text("learn.asking.skip"), on_click=_answer, args=(key, SKIPPED), type="tertiary", key="skip")


def _mark(view: View, question: Mark, key: str) -> float:
    # It starts at neither end nor the middle, which might be the answer.
    alpha = question.kind == "alpha"
    placed = st.slider(
        view.text("learn.asking.place"), 0.0, 1.0 if alpha else 100.0, 0.25 if alpha else 25.0,
        step=0.01 if alpha else 1.0, format="α = %.2f" if alpha else "%.0f %%", key=f"w.{key}",
    )  # fmt: skip
    return placed if alpha else placed / 100


def _answer(key: str, given: str | float) -> None:
    state.set_view(key, given)


def _reply(view: View, step: Step, facts: Facts, given: str | float, key: str) -> None:
    text, question = view.text, QUESTIONS[step.name]
    found = questions.reply(step.name, given, facts, text)
    assert found is not None  # it was asked
    said = (
        text(f"learn.question.{step.name}.option_{given}")
        if isinstance(question, Choice)
        else question.written(float(given))
    )
    # What is said of a choice comes right after it; what is said of a mark needs the truth first.
    words = (found.about, found.truth) if isinstance(question, Choice) else (found.truth, found.about)
    said_of_it = " ".join(filter(None, words))
    colour, icon, word = ("green", "check", "right") if found.right else ("orange", "close", "wrong")
    st.markdown(
        f":gray[{text('learn.asking.your_answer', answer=said)}] "
        f":{colour}-badge[:material/{icon}: {text(f'learn.asking.{word}')}] {said_of_it}"
    )
    st.button(text("learn.asking.again"), on_click=_redraw, type="tertiary", icon=":material/casino:", key="redraw")


def _redraw() -> None:
    state.update(**questions.redrawn(state.scenario()))


# --- figure, formula, proof --------------------------------------------------------------------------------------


def _figure(view: View, step: Step, facts: Facts) -> None:
    found = figures.of(step.name, facts)
    if found is None:
        shell.uncovered_notice(view)
    elif isinstance(found, Live):
        explorer(view, found.panels, found.parts, key=f"explorer.{step.name}")
    else:
        shell.figure(found.figure(), found.key, found.title, found.columns)


def _formula(view: View, step: Step, facts: Facts) -> None:
    formula = formulas.of(step.name, facts)
    st.caption(view.words("formula"))
    st.latex(formula.latex)
    if step.name in AT_A_POINT:
        st.caption(view.text("deck.numbers_at", alpha=parameter(facts.alpha), eta=number(facts.eta)))
    if step.name in OF_A_TOKEN:
        token = shell.plain(html.unescape(token_label(view.row.tokens[facts.watched])))
        st.caption(view.words("token", token=token))
    _symbols(view, formula.symbols)


def _symbols(view: View, names: tuple[str, ...]) -> None:
    st.html(f"<style>{_CHIPS}</style>{chips(view, names)}")


_CHIPS = """
.gx-symbols {display: flex; flex-wrap: wrap; gap: .4rem}
.gx-symbol {position: relative; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .6rem; cursor: help;
  font-size: .95rem}
.gx-meaning {display: none; position: absolute; left: 0; top: 1.8rem; z-index: 1000; width: 17rem; padding: .5rem .7rem;
  border-radius: .5rem; background: #2b3640; color: #fff; font-size: .9rem; line-height: 1.35}
.gx-symbol:nth-last-child(-n+2) .gx-meaning {left: auto; right: 0}
.gx-symbol:hover .gx-meaning, .gx-symbol:focus .gx-meaning {display: block}
"""


def _proof(view: View, step: Step) -> None:
    """The proof, one step at a time."""
    if not step.proofs:
        return
    shown = min(int(state.view_setting(_PROOF, 0)) or 1, step.proofs)
    with st.expander(view.words("proof"), icon=":material/stairs:", key=f"proof.{step.name}"):
        st.markdown("\n".join(f"{i}. {view.text(f'learn.{step.name}.proof_{i}')}" for i in range(1, shown + 1)))
        if shown < step.proofs:
            st.button(view.words("proof_next"), on_click=state.set_view, args=(_PROOF, shown + 1), key="proof.next")


def _explore(view: View, step: Step) -> None:
    """The same scenario at leisure."""
    st.page_link(
        state.page(step.page),
        label=view.words("explore", page=view.text.plain(f"nav.{step.page}")),
        icon=":material/explore:",
    )
