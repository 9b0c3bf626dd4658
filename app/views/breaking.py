"""Break it: a search that runs while the page stays in use, and the policies that it finds."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from geomix_app import compute, state
from geomix_app.notation import SYMBOLS, number
from geomix_app.scenario import of_table
from geomix_app.searches import Search
from geomix_app.shell import View
from geomix_core.claims import Claim, SearchStatus, Setting, Table, Verdict

LOOK_EVERY = 0.4
"""Seconds between two looks at a running search."""
PAGES = ("policies", "choosing", "progress")
"""Where to look at a counterexample that is on screen."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Policies that break a claim, with the verdict on them."""

    table: Table
    verdict: Verdict
    setting: Setting
    tried: int


def latest(view: View, claim: Claim, about: str) -> Search | None:
    """This session's search for what breaks a claim at the setting on screen, running or ended."""
    search = state.search()
    return search if search is not None and (search.about, search.setting) == (about, _setting(view, claim)) else None


def found(search: Search | None) -> Counterexample | None:
    """What a search found, if it has ended and found something."""
    result = None if search is None or search.running else search.result
    if result is None or result.counterexample is None or result.verdict is None:
        return None
    return Counterexample(result.counterexample, result.verdict, result.setting, result.tried)


def show(view: View, claim: Claim, about: str, known: Counterexample | None) -> None:
    """A counterexample, if one is known, with a way there; the search for one; and what it says if it finds none."""
    search = latest(view, claim, about)
    if known is not None:
        st.markdown(as_markdown(known.table))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if known is not None:
            _there(view, claim, about, known)
        if search is None or not search.running:
            st.button(
                view.text("page.claims.break" if search is None else "page.claims.break_again"),
                on_click=_start,
                args=(claim, _setting(view, claim), about),
                type="primary" if search is None else "secondary",
                icon=":material/bolt:",
                key=f"b.break.{about}",
            )
    if search is not None and search.running:
        _running(view, search)
    elif search is not None and found(search) is None:
        _ended(view, search)


def _there(view: View, claim: Claim, about: str, known: Counterexample) -> None:
    """The button that puts a counterexample on screen everywhere, and then where to look at it."""
    changes = {name: getattr(known.setting, name) for name in ("weights", "alpha") if name in claim.uses}
    there = of_table(view.scenario, known.table, **changes)
    if view.scenario == there:
        st.markdown(f":material/check: {view.text('page.claims.there')}", width="content")
        for page in PAGES:
            st.page_link(state.page(page), label=view.text(f"nav.{page}"))
        return
    at = {"weights": view.text.plain(f"weights.{known.setting.weights}"), "alpha": f"{known.setting.alpha:g}"}
    st.button(
        view.text("page.claims.take_me"),
        on_click=state.show,
        args=(there,),
        icon=":material/my_location:",
        help=view.text(f"page.claims.at_{'_'.join(sorted(changes))}", **at) if changes else None,
        key=f"b.there.{about}",
    )


def _ended(view: View, search: Search) -> None:
    """How a search ended that found nothing."""
    if search.result is None:
        st.error(view.text("page.claims.search_broke_down"), icon=":material/error:")
        return
    values = {"tried": f"{search.result.tried:,}", "seconds": number(search.result.seconds, 2)}
    st.info(view.text(f"page.claims.search_{search.result.status}", **values), icon=_ICONS[search.result.status])


def as_markdown(table: Table) -> str:
    """A row for each policy, a column for each token, as a Markdown table."""
    lines = [f"| | {' | '.join(table.letters)} |", "|---" + "|---:" * table.tokens + "|"]
    for name, weights in table.named.items():
        lines.append(f"| ${_LATEX[name]}$ ∝ | " + " | ".join(f"{w:,}" for w in weights) + " |")
    return "\n".join(lines)


def _setting(view: View, claim: Claim) -> Setting:
    return compute.setting_of(claim, Setting(weights=view.weights, alpha=view.scenario.alpha))


def _start(claim: Claim, setting: Setting, about: str) -> None:
    state.start_search(Search(claim, setting, about))


@st.fragment(run_every=LOOK_EVERY)
def _running(view: View, search: Search) -> None:
    """Looks at the search on its own; the rest of the page runs only when there is a result."""
    if not search.running:
        st.rerun()
    at = search.progress
    if at is None:
        st.progress(0.0, view.text("page.claims.waiting"))
    else:
        stage = view.text(f"page.claims.stage_{at.stage}")
        text = view.text("page.claims.searching", tried=f"{at.tried:,}", stage=stage)
        st.progress(min(search.elapsed / search.seconds, 1.0), text)
    st.button(view.text("page.claims.stop"), on_click=search.stop, icon=":material/stop:", key="b.stop_search")


_LATEX = {"theta": SYMBOLS["theta"].latex, "target": SYMBOLS["target"].latex, "reference": r"\pi_{\mathrm{ref}}"}
_ICONS = {
    SearchStatus.SURVIVED: ":material/shield:",
    SearchStatus.UNCONFIRMED: ":material/help:",
    SearchStatus.STOPPED: ":material/stop:",
    SearchStatus.NOTHING_TO_COMPARE: ":material/remove:",
}
