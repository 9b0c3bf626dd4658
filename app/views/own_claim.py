"""Parts of the Claims page: a statement of the reader's own, tested and attacked like the document's."""

from __future__ import annotations

import re
from string import ascii_lowercase

import streamlit as st

from geomix_app import compute, glossary, shell, state
from geomix_app.notation import markdown, number
from geomix_app.shell import View
from geomix_app.views import breaking
from geomix_core.claims import Outcome, Setting, Verdict
from geomix_core.claims.expressions import LONGEST
from geomix_core.claims.own import claim_of
from geomix_core.claims.quantities import QUANTITIES, Kind, Quantity
from geomix_core.claims.words import problem
from geomix_core.errors import ExpressionError

EXAMPLES = (
    "KL(π_t‖π_θ) ≥ 2·TV(π_t, π_θ)²",
    "KL(π_t‖π_θ) = KL(π_θ‖π_t)",
    "SNR(α_KL) ≤ √χ²(π_t, π_θ)",
    "α_SNR ≥ α_KL",
    "Progress(α_KL, η*(α_KL)) = SNR(α_KL)²/2",
    "L_e ≤ L_m",
)
_OWN = "own"


def show(view: View) -> None:
    """The field, the verdict, and Break it; beside them, what can be written."""
    left, right = st.columns([5, 4], gap="medium")
    with left:
        statement = _field(view)
        if statement.strip():
            _tested(view, statement)
    with right:
        _language(view)


def sides(found: Verdict) -> dict[str, str]:
    """Both sides of a statement, in as many digits as it takes to tell them apart."""
    left, right = found.numbers["left"], found.numbers["right"]
    digits = next((d for d in range(3, 13) if left == right or number(left, d) != number(right, d)), 12)
    return {"left": number(left, digits), "right": number(right, digits)}


def _field(view: View) -> str:
    st.markdown(view.text("page.claims.own_intro"))
    with st.container(horizontal=True, gap="xsmall"):
        for i, example in enumerate(EXAMPLES):
            label = re.sub(r"L_(\w)", r"$L_\1$", markdown(example))
            st.button(label, on_click=state.set_view, args=(_OWN, example), key=f"b.example.{i}")
    statement: str = st.text_input(
        view.text("page.claims.own_label"), max_chars=LONGEST, placeholder=EXAMPLES[0], **state.bind_view(_OWN, "")
    )
    return statement


def _tested(view: View, statement: str) -> None:
    try:
        claim = claim_of(statement)
    except ExpressionError as error:
        words = problem(error.code, error.position, error.values, view.text.language)
        st.error(shell.plain(words), icon=":material/edit:")
        if error.position < len(statement):
            st.code(f"{statement}\n{' ' * error.position}^", None)
        return
    setting = Setting(weights=view.weights, alpha=view.scenario.alpha)
    verdict = compute.own_verdict(statement, setting, view.row)
    with st.container(border=True, key="verdict.own"):
        st.markdown(
            f"**{shell.plain(statement)}**\n\n{shell.badge(view.text, verdict.outcome)} {_finding(view, verdict)}"
        )
    found = breaking.found(breaking.latest(view, claim, statement))
    if found is not None:
        heading, tried = view.text("page.claims.broken"), view.text("page.claims.tried", tried=f"{found.tried:,}")
        st.markdown(f"**{heading}** ({tried}) · {_finding(view, found.verdict)}")
    breaking.show(view, claim, statement, found)


def _finding(view: View, found: Verdict) -> str:
    if found.outcome is Outcome.DOES_NOT_APPLY:
        return view.text(f"claim.reason.{found.reason}")
    return view.text("page.claims.own_sides", **sides(found))


def _language(view: View) -> None:
    """Every name that a statement may use, and what it allows."""
    words = view.text
    st.markdown(f"**{words('page.claims.language')}** · {words('page.claims.language_about')}")
    with st.container(height=430, border=False):
        head = " | ".join(words(f"page.claims.{column}") for column in ("symbol", "typed", "meaning"))
        named = [q for q in QUANTITIES.values() if not q.is_function]
        st.markdown("\n".join([f"| {head} |", "|---|---|---|", *(_line(view, q) for q in named)]))
    st.caption(f"{words('page.claims.functions')} {words('page.claims.own_margin')}")


def _line(view: View, quantity: Quantity) -> str:
    latex = glossary.BY_NAME[quantity.name].latex
    return f"| $\\small {latex}$ | `{typed(quantity)}` | {view.text(f'glossary.{quantity.name}.name')} |"


def typed(quantity: Quantity) -> str:
    """A quantity in ASCII, with what it takes: kl(p, q), progress(alpha, eta)."""
    policies = iter(ascii_lowercase[ascii_lowercase.index("p") :])
    takes = [next(policies) if kind is Kind.POLICY else _TAKES[kind] for kind in quantity.takes]
    return f"{quantity.name}({', '.join(takes)})" if takes else quantity.name


_TAKES = {Kind.PARAMETER: "a", Kind.STEP: "eta", Kind.NUMBER: "x"}
