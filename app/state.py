"""Session state and URL: the only module that touches `st.session_state` and `st.query_params`.

The session holds one `Scenario` under one key. Widgets are views of its fields: `bind` hands a widget the current
value and writes the reader's change back before the page runs. So no widget owns a value, none is lost when it is not
on screen, and code that changes the scenario moves every widget with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict
from urllib.parse import quote, urlencode

import streamlit as st
from streamlit.navigation.page import Page as StreamlitPage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from geomix_app.catalogue import LANGUAGES, Catalogue, catalogue
from geomix_app.experiments import Experiment, Setup
from geomix_app.figures.export import Shown
from geomix_app.figures.style import Style
from geomix_app.notation import Theme
from geomix_app.scenario import RANGES, Reshape, Scenario, from_query, to_query, with_parameter
from geomix_app.searches import Search
from geomix_core.datasets import Dataset
from geomix_core.fixed_alpha import Losses
from geomix_core.found import Found
from geomix_core.progress import Weights
from geomix_core.results import Columns, Plan
from geomix_core.topk import TopKPair

_SCENARIO, _LANGUAGE, _FOUND, _RUNS, _LINK_PROBLEMS = "scenario", "language", "found", "runs", "link_problems"
_TOPK = "topk"
_RUN, _MARK, _FRESH, _PAGES = "run", "mark", "fresh", "pages"
_UPLOAD_FILES, _SHOWN = "upload_files", "shown"
_SEARCH, _EXPERIMENT = "search", "experiment"
_UNSET = object()
LINKED = ("step", "claim", "own", "slide", "lesson")
"""Settings of the view that a link carries beside the scenario: where in a page the reader is."""
ENDING = {"lecture": "slide"}
"""Settings of the view that end when the reader leaves their page."""


@dataclass
class Run:
    """Rows that were solved under one plan, chunk by chunk, and what a sample of them loses by other choices of α."""

    plan: Plan
    chunks: list[Columns] = field(default_factory=list)
    losses: list[Losses] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many rows, the first of the input."""
        return sum(len(chunk["row"]) for chunk in self.chunks)


@dataclass
class TopK:
    """Two files of top-k log-probabilities, and the intervals of their rows, chunk by chunk."""

    pair: TopKPair
    chunks: list[Columns] = field(default_factory=list)


class Binding(TypedDict):
    """Keyword arguments for a Streamlit widget."""

    key: str
    on_change: Any
    args: tuple[Any, ...]


def start() -> None:
    """At the first run of a session, take scenario and language from the URL (else defaults, the browser's locale)."""
    if _SCENARIO in st.session_state:
        return
    query = st.query_params.to_dict()
    locale = (st.context.locale or "en").lower()
    language = query.pop("lang", "zh" if locale.startswith("zh") else "en")
    st.session_state[_LANGUAGE] = language if language in LANGUAGES else "en"
    for name in LINKED:
        if name in query:
            set_view(name, query.pop(name))
    st.session_state[_SCENARIO], problems = from_query(query)
    st.session_state[_LINK_PROBLEMS] = problems


def publish() -> None:
    """Write scenario and language into the address bar.

    The entry in the browser's history is replaced, so that Back leaves the page instead of undoing sliders one by one
    (`st.query_params` would add an entry for each). The query is percent-encoded: nothing in it can end the script.
    """
    query = link()
    st.session_state[_RUN] = st.session_state.get(_RUN, 0) + 1  # a new text each run, or the browser would not run it
    st.html(
        f"<script>/*{st.session_state[_RUN]}*/(() => {{const u = new URL(location.href), q = {json.dumps(query)};"
        "if (u.search.slice(1) !== q) {u.search = q; history.replaceState(history.state, '', u)}})()</script>",
        unsafe_allow_javascript=True,
    )


def link() -> str:
    """Scenario, language and place in the page as the query of a URL, percent-encoded."""
    places = {name: value for name in LINKED if (value := view_setting(name, ""))}
    return urlencode(to_query(scenario()) | {"lang": st.session_state[_LANGUAGE]} | places, quote_via=quote)


def enter(page: str) -> None:
    """Note which page and language this run shows: widgets that are new on screen then get their values afresh."""
    mark = (page, st.session_state[_LANGUAGE])
    left, _ = st.session_state.get(_MARK, mark)
    if left != page and left in ENDING:
        set_view(ENDING[left], "")
    st.session_state[_FRESH] = st.session_state.get(_MARK) != mark
    st.session_state[_MARK] = mark
    st.session_state[_SHOWN] = Shown()


def shown() -> Shown:
    """What the page has shown so far in this run, for the reader to take away."""
    found: Shown = st.session_state[_SHOWN]
    return found


def scenario() -> Scenario:
    """The scenario on screen."""
    current: Scenario = st.session_state[_SCENARIO]
    return current


def weights() -> Weights:
    """The weight convention on screen."""
    return "inverse" if scenario().weights == "inverse" else "importance"


def update(**changes: Any) -> None:
    """Change fields of the scenario; for callbacks."""
    st.session_state[_SCENARIO] = preview(**changes)


def show_row(source: str, row: int) -> None:
    """Show a row of a source as it is: nothing cut, smoothed or compared with another reference."""
    neutral = Scenario()
    update(
        source=source,
        row=row,
        parameters=(),
        theta=neutral.theta,
        target=neutral.target,
        epsilon=neutral.epsilon,
        reference=neutral.reference,
    )


def preview(**changes: Any) -> Scenario:
    """The scenario as it would be after such changes."""
    return replace(scenario(), **changes)


def reset() -> None:
    """Back to the default scenario; for callbacks."""
    st.session_state[_SCENARIO] = Scenario()


def link_problems() -> tuple[str, ...]:
    """Settings of the link that could not be read; reported once."""
    problems: tuple[str, ...] = st.session_state[_LINK_PROBLEMS]
    st.session_state[_LINK_PROBLEMS] = ()
    return problems


def text() -> Catalogue:
    """The catalogue of the reader's language."""
    return catalogue(st.session_state[_LANGUAGE])


def style() -> Style:
    """How figures look for this reader: language and theme."""
    theme: Theme = "dark" if st.context.theme.type == "dark" else "light"
    return Style(text(), theme)


def bind(path: str) -> Binding:
    """Bind a widget to a field of the scenario: "alpha", "theta.top_k", "parameters.seed", or to "language"."""
    key = _widget_key(path)
    _hand_over(key, st.session_state[_LANGUAGE] if path == _LANGUAGE else _get(scenario(), path))
    return {"key": key, "on_change": _commit, "args": (path,)}


def on_point(key: str) -> Callable[[], None]:
    """The callback of an explorer with this key: takes over the α and η that it commits."""

    def commit() -> None:
        # A browser may send anything: what is no point of the plane changes nothing.
        sent = st.session_state[key].get("point")
        values = {name: sent.get(name) for name in ("alpha", "eta")} if isinstance(sent, dict) else {}
        numbers = {name: float(x) for name, x in values.items() if isinstance(x, int | float)}
        if numbers.keys() == values.keys() and all(RANGES[n][0] <= x <= RANGES[n][1] for n, x in numbers.items()):
            update(**numbers)

    return commit


def bind_view(name: str, default: Any) -> Binding:
    """Bind a widget to a setting of this session's view, such as a chart's scale: kept across pages, not in the URL."""
    stored = f"view.{name}"
    key = f"w.{stored}"
    _hand_over(key, view_setting(name, default))
    return {"key": key, "on_change": _commit_view, "args": (stored,)}


def view_setting(name: str, default: Any) -> Any:
    """A setting of this session's view, as `bind_view` keeps it."""
    return st.session_state.get(f"view.{name}", default)


def set_view(name: str, value: Any) -> None:
    """Change such a setting; for callbacks."""
    st.session_state[f"view.{name}"] = value


def on_row(key: str, name: str, values: Sequence[str]) -> Callable[[], None]:
    """The callback of a table with this key: the row of the cell that is selected sets a setting of the view."""

    def commit() -> None:
        cells = st.session_state[key].selection.cells
        if cells and 0 <= cells[0][0] < len(values):
            set_view(name, values[cells[0][0]])

    return commit


def search() -> Search | None:
    """The search for a counterexample that this session runs, or ran last."""
    latest: Search | None = st.session_state.get(_SEARCH)
    return latest


def start_search(wanted: Search) -> None:
    """Run a search in place of the one before; for callbacks."""
    before = search()
    if before is not None:
        before.stop()
    wanted.start()
    st.session_state[_SEARCH] = wanted


def experiment(setup: Setup) -> Experiment:
    """The experiment of this session's sampling lab; one with another setup is ended and forgotten."""
    latest: Experiment | None = st.session_state.get(_EXPERIMENT)
    if latest is None or latest.setup != setup:
        if latest is not None:
            latest.stop()
        latest = st.session_state[_EXPERIMENT] = Experiment(setup)
    return latest


def show(wanted: Scenario) -> None:
    """Show another scenario; for callbacks."""
    st.session_state[_SCENARIO] = wanted


def found() -> Found | None:
    """What was found in the files that this session brought, settled or not."""
    brought: Found | None = st.session_state.get(_FOUND)
    return brought


def upload() -> Dataset | None:
    """The rows that this session brought, if it is settled what they are."""
    brought = found()
    return None if brought is None else brought.dataset


def upload_files() -> tuple[str, ...]:
    """The names of the files that the rows came from; none for the bundled rows."""
    names: tuple[str, ...] = st.session_state.get(_UPLOAD_FILES, ())
    return names


def set_found(brought: Found | None, files: Iterable[str] | None = None) -> None:
    """Keep what was found, and the names of its files unless they are the same; solved rows are forgotten."""
    st.session_state[_FOUND] = brought
    st.session_state[_RUNS] = {}
    if files is not None:
        st.session_state[_UPLOAD_FILES] = tuple(files)


def topk() -> TopK | None:
    """The top-k log-probabilities that this session brought instead of logits, and what was solved of them."""
    brought: TopK | None = st.session_state.get(_TOPK)
    return brought


def set_topk(pair: TopKPair | None) -> None:
    """Keep a pair of top-k files, or forget it."""
    st.session_state[_TOPK] = None if pair is None else TopK(pair)


def set_names(brought: Found) -> None:
    """Keep what was found with other names of tokens or prompts: solved rows stay."""
    st.session_state[_FOUND] = brought


def drop_files(files: Iterable[UploadedFile]) -> None:
    """Give back the memory of uploaded files that were read: Streamlit would keep them as long as the session."""
    context = get_script_run_ctx()
    if context is not None and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        for file in files:
            context.uploaded_file_mgr.remove_file(session_id=context.session_id, file_id=file.file_id)


def run(plan: Plan) -> Run:
    """The rows of this session's upload that were solved under a plan. It grows: a stopped run keeps what it has."""
    runs: dict[Plan, Run] = st.session_state.setdefault(_RUNS, {})
    return runs.setdefault(plan, Run(plan))


def runs() -> tuple[Run, ...]:
    """Those of all plans that were tried, with any rows."""
    return tuple(run for run in st.session_state.get(_RUNS, {}).values() if run.chunks)


def register_pages(pages: Mapping[str, StreamlitPage]) -> None:
    """Make the pages known by name, so that any part can lead to another page."""
    st.session_state[_PAGES] = dict(pages)


def page(name: str) -> StreamlitPage:
    """A page by name, for `st.switch_page`."""
    found: StreamlitPage = st.session_state[_PAGES][name]
    return found


def flag(name: str) -> bool:
    """A yes-or-no of this session, such as "solving"."""
    return bool(st.session_state.get(f"flag.{name}", False))


def set_flag(name: str, value: bool) -> None:
    """Set such a flag; for callbacks."""
    st.session_state[f"flag.{name}"] = value


def _hand_over(key: str, value: Any) -> None:
    """Give a widget its value where it changed: an echo in the middle of a drag would move the handle back."""
    if st.session_state[_FRESH] or st.session_state.get(key, _UNSET) != value:
        st.session_state[key] = value


def _widget_key(path: str) -> str:
    if path.startswith("parameters."):
        # Each family has its own default for V: its widgets are its own too.
        return f"w.{scenario().source}.{path}"
    return f"w.{path}"


def _commit(path: str) -> None:
    value = st.session_state[_widget_key(path)]
    if path == _LANGUAGE:
        st.session_state[_LANGUAGE] = value
    elif value is not None:
        st.session_state[_SCENARIO] = _set(scenario(), path, value)


def _commit_view(stored: str) -> None:
    value = st.session_state[f"w.{stored}"]
    if value is not None:
        st.session_state[stored] = value


def _get(current: Scenario, path: str) -> Any:
    head, _, name = path.partition(".")
    if not name:
        return getattr(current, head)
    return current.parameter(name) if head == "parameters" else getattr(getattr(current, head), name)


def _set(current: Scenario, path: str, value: Any) -> Scenario:
    head, _, name = path.partition(".")
    if not name:
        changes: dict[str, Any] = {head: value}
        if head == "source":
            changes |= {"row": 0, "parameters": ()}
        return replace(current, **changes)
    if head == "parameters":
        return with_parameter(current, name, value)
    reshape: Reshape = getattr(current, head)
    reshaped: dict[str, Any] = {head: replace(reshape, **{name: value})}
    return replace(current, **reshaped)
