"""What every page is made of: its title and answer, notices, figures, verdicts, numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
import streamlit as st

from geomix_app import compute, state
from geomix_app.catalogue import Catalogue
from geomix_app.figures.style import Style
from geomix_app.notation import number, parameter, percent
from geomix_app.scenario import Scenario
from geomix_core.claims import Outcome, Verdict
from geomix_core.errors import GeomixError
from geomix_core.progress import Weights
from geomix_core.summary import PairSummary

SMOOTHING = 1e-3


@dataclass(frozen=True)
class View:
    """What a page works with: words, look, scenario, the row and its divergences."""

    name: str
    text: Catalogue
    style: Style
    scenario: Scenario
    weights: Weights
    row: compute.Row
    pair: PairSummary

    def words(self, key: str, **values: str) -> str:
        """A string of this page."""
        return self.text(f"page.{self.name}.{key}", **values)


def title(name: str, text: Catalogue) -> None:
    """The question that a page answers; and what of the link could not be read."""
    st.subheader(text(f"page.{name}.title"), anchor=False)
    problems = state.link_problems()
    if problems:
        st.warning(text("app.link_problems", names=", ".join(map(plain, problems))), icon=":material/link_off:")


def open_page(name: str) -> View:
    """The title, and the scenario's row; where there is no such row, says why and ends the page."""
    text = state.text()
    title(name, text)
    scenario = state.scenario()
    try:
        row = compute.row(scenario, state.upload())
    except GeomixError as error:
        st.error(message(text, error), icon=":material/error:")
        st.button(text("app.reset"), on_click=state.reset)
        st.stop()
    pair = compute.pair(row.key, row.batch)
    return View(name, text, state.style(), scenario, state.weights(), row, pair)


def answer(sentence: str) -> None:
    """The page's answer in one sentence, with today's numbers."""
    st.markdown(sentence)


def message(text: Catalogue, error: GeomixError) -> str:
    """An error of the core in the reader's words: translated where the catalogue knows it, else as it is."""
    key = f"error.{error}"
    return text(key) if key in text else text("error.unreadable", message=plain(str(error)))


def plain(raw: str) -> str:
    """Text from files or errors as literal Markdown: nothing in it is taken for markup, maths or HTML."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-.!|$~:&" else c for c in raw)


def require_family(view: View) -> None:
    """End the page with an explanation where the policies have no geometric mixture."""
    if view.pair.disjoint:
        st.warning(view.text("notice.disjoint"), icon=":material/block:")
        _smoothing_button(view)
        st.stop()


def require_coverage(view: View) -> None:
    """End the page with an explanation where the reward is infinite on a token that π_θ can produce."""
    if not view.pair.covered:
        uncovered_notice(view)
        st.stop()


def uncovered_notice(view: View) -> None:
    """Say how much of π_θ is uncovered, and offer explicit smoothing."""
    st.warning(view.text("notice.uncovered", mass=percent(1 - view.pair.theta_mass, 3)), icon=":material/warning:")
    _smoothing_button(view)


def figure(fig: go.Figure, key: str, alt: str) -> None:
    """Show a figure; its toolbar has only the image export."""
    st.plotly_chart(
        fig,
        key=key,
        alt=alt,
        config={
            "displaylogo": False,
            "modeBarButtons": [["toImage"]],
            "toImageButtonOptions": {"format": "svg", "filename": key},
        },
    )


def numbers(entries: Sequence[tuple[str, str, str | None]]) -> None:
    """A row of labelled numbers (label, value, help)."""
    for column, (label, value, help_text) in zip(st.columns(len(entries), gap="xsmall"), entries, strict=True):
        column.metric(label, value, help=help_text, border=True)


def verdict(text: Catalogue, found: Verdict, failed: str = "") -> None:
    """What the document says beside what the computation finds. `failed` replaces the finding's numbers if given."""
    key = f"claim.{found.claim}"
    if found.outcome is Outcome.DOES_NOT_APPLY:
        finding = text(f"{key}.{found.reason}")
    elif failed:
        finding = text(f"{key}.failed", status=failed)
    else:
        finding = text(f"{key}.found", **_written(found.numbers))
    badge = {Outcome.HOLDS: "green", Outcome.FAILS: "red", Outcome.DOES_NOT_APPLY: "gray"}[found.outcome]
    icon = {Outcome.HOLDS: "check", Outcome.FAILS: "close", Outcome.DOES_NOT_APPLY: "remove"}[found.outcome]
    with st.container(border=True, gap="xsmall", key=f"verdict.{found.claim}"):
        st.markdown(
            f"**{text('claim.document')}** ({text(f'{key}.where')}) · {text(f'{key}.says')}\n\n"
            f"**{text('claim.computed')}** · {finding} "
            f":{badge}-badge[:material/{icon}: {text(f'claim.{found.outcome}')}]"
        )


def _written(values: Mapping[str, float]) -> dict[str, str]:
    as_percent, as_parameter = {"loss", "excess", "share"}, {"alpha", "alpha_kl", "alpha_snr", "gap"}
    exact = {"low", "high"}
    return {
        name: f"{number(100 * v)} %"
        if name in as_percent
        else parameter(v)
        if name in as_parameter
        else f"{v:.12f}"
        if name in exact
        else number(v)
        for name, v in values.items()
    }


def _smoothing_button(view: View) -> None:
    st.button(view.text("notice.smooth_now"), on_click=state.update, kwargs={"epsilon": SMOOTHING}, key="b.smooth")
