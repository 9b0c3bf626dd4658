"""What every page is made of: its title and answer, notices, figures, verdicts, numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
import streamlit as st

from geomix_app import compute, state
from geomix_app.catalogue import Catalogue
from geomix_app.figures import export
from geomix_app.figures.style import Style
from geomix_app.notation import number, parameter, percent
from geomix_app.scenario import Scenario
from geomix_core.claims import Outcome, Setting, Verdict
from geomix_core.errors import GeomixError
from geomix_core.progress import Weights
from geomix_core.summary import PairSummary

SMOOTHING = 1e-3
IMAGE = "image"
"""The setting of the view that says in which format a figure is saved."""


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


def figure(fig: go.Figure, key: str, alt: str, columns: Callable[[], export.Columns] | None = None) -> None:
    """Show a figure; its toolbar has only the image export. `columns` makes its data, for the reader to take away."""
    offer(key, alt, lambda: fig, columns)
    st.plotly_chart(
        fig,
        key=key,
        alt=alt,
        config={
            "displaylogo": False,
            "modeBarButtons": [["toImage"]],
            "toImageButtonOptions": export.camera(key, state.view_setting(IMAGE, export.IMAGE_FORMATS[0])),
        },
    )


def offer(
    key: str, title: str, fig: Callable[[], go.Figure], columns: Callable[[], export.Columns] | None = None
) -> None:
    """Let the reader take a figure away that the page draws in another form, or `figure` draws."""
    state.shown().exhibits[key] = export.Exhibit(key, title, fig, columns)


def said(sentence: str) -> None:
    """What the figure above shows, in words, with today's numbers."""
    st.markdown(sentence)


def numbers(entries: Sequence[tuple[str, str, str | None]], abreast: int | None = None) -> None:
    """Labelled numbers (label, value, help), so many in a line; all, unless told."""
    abreast = abreast or len(entries)
    for start in range(0, len(entries), abreast):
        columns = st.columns(abreast, gap="xsmall")
        for column, (label, value, help_text) in zip(columns, entries[start : start + abreast], strict=False):
            column.metric(label, value, help=help_text, border=True)


def verdicts(view: View, names: Sequence[str], abreast: int = 2) -> None:
    """What the document says beside what the computation finds on this row, claim by claim."""
    setting = Setting(weights=view.weights, alpha=view.scenario.alpha)
    state.shown().claims.extend(names)
    for start in range(0, len(names), abreast):
        columns = st.columns(abreast, gap="small")
        for column, name in zip(columns, names[start : start + abreast], strict=False):
            with column:
                verdict(view.text, compute.verdict(name, setting, view.row))


def verdict(text: Catalogue, found: Verdict, finding: str = "") -> None:
    """One claim: the document's statement, the finding, and on demand the test and the proof.

    `finding` stands in for the claim's own sentence where a page has a better one.
    """
    key = f"claim.{found.claim}"
    if found.outcome is Outcome.DOES_NOT_APPLY:
        finding = text(f"claim.reason.{found.reason}")
    else:
        finding = finding or text(f"{key}.{found.outcome}", **written(found))
    with st.container(border=True, gap="xsmall", height="stretch", key=f"verdict.{found.claim}"):
        st.markdown(
            f"{text('claim.document', where=text(f'{key}.where'))} · {text(f'{key}.says')}\n\n"
            f"**{text('claim.computed')}** "
            f"{badge(text, found.outcome)} {finding}"
        )
        with st.expander(text("claim.why"), type="compact"):
            for name in ("test", "needs", "proof"):
                if f"{key}.{name}" in text:
                    st.markdown(f"**{text(f'claim.{name}')}** · {text(f'{key}.{name}')}")
            if f"{key}.holds" in text and f"{key}.proof" not in text:
                st.markdown(text("claim.no_proof"))


def badge(text: Catalogue, outcome: Outcome) -> str:
    """The outcome as a coloured badge, in Markdown."""
    colour, icon = BADGES[outcome]
    return f":{colour}-badge[:material/{icon}: {text(f'claim.{outcome}')}]"


BADGES = {
    Outcome.HOLDS: ("green", "check"),
    Outcome.FAILS: ("red", "close"),
    Outcome.DOES_NOT_APPLY: ("gray", "remove"),
}
_SHARES = frozenset(
    {"loss", "excess", "share", "apart", "accepted", "rejected", "drift", "ess_at_kl", "ess_off_policy"}
    | {"off_theta", "off_target"}
)
_PARAMETERS = frozenset({"found", "listed", "gap", "error"})
_COUNTS = frozenset(
    {"tokens", "count", "rivals", "maxima", "samples", "doubled", "repetitions", "coarse", "fine", "claimed", "near"}
    | {"rows"}
)
_EXACT = frozenset({"low", "high"})
_GIVEN = frozenset({"eta_low", "eta_high"})
"""Settings, as they were set."""


def written(found: Verdict) -> dict[str, str]:
    """A verdict's numbers as a person reads them."""

    def write(name: str, value: float) -> str:
        if name in _SHARES:
            return f"{number(100 * value)} %"
        if name in _PARAMETERS or name.startswith("alpha"):
            return parameter(value)
        if name in _COUNTS:
            return f"{value:,.0f}"
        if name in _EXACT:
            return f"{value:.12f}"
        return f"{value:g}" if name in _GIVEN else number(value)

    return {name: write(name, value) for name, value in found.numbers.items()}


def _smoothing_button(view: View) -> None:
    st.button(view.text("notice.smooth_now"), on_click=state.update, kwargs={"epsilon": SMOOTHING}, key="b.smooth")
