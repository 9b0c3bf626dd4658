"""Parts of the lecture page: a lesson is chosen, edited, saved, opened and presented."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape

import pandas as pd
import streamlit as st

from geomix_app import shell, state
from geomix_app.catalogue import LANGUAGES, Catalogue
from geomix_app.deck import lesson as lessons
from geomix_app.deck.lesson import (
    HIDEABLE,
    LONGEST_NOTE,
    LONGEST_TITLE,
    MOST_SLIDES,
    THEMES,
    Lesson,
    LessonError,
    Slide,
)
from geomix_app.deck.page import LIMIT, DeckError, document
from geomix_app.deck.present import SLIDE, present
from geomix_app.learn.steps import ORDER
from geomix_app.notation import number, parameter
from geomix_app.scenario import REAL, UPLOAD, Scenario
from geomix_app.shell import View

_LINK, _LESSON, _CHOSEN, _EDITION, _OPENED = "lesson", "lesson_own", "lesson_slide", "lesson_edition", "lesson_opened"
_HEIGHT = 500


def lesson(view: View) -> Lesson:
    """The lesson of this session; until it is edited, every step on the scenario on screen."""
    linked = state.view_setting(_LINK, "")
    if linked:
        state.set_view(_LINK, "")
        try:
            _keep(_at_scenario(lessons.from_link(linked), view.scenario), renew=True)
        except LessonError:
            st.warning(view.text("app.link_problems", names="lesson"), icon=":material/link_off:")
    own: Lesson | None = state.view_setting(_LESSON, None)
    return own or lessons.default(view.scenario, view.text.language, view.style.theme)


def _at_scenario(linked: Lesson, scenario: Scenario) -> Lesson:
    """The lesson with the α and η to which the slide of the link had been moved."""
    names = lessons.names(linked)
    name = state.view_setting(SLIDE, "").partition(".")[0]
    if name not in names:
        return linked
    place = names.index(name)
    slide = linked.slides[place]
    moved = replace(slide, scenario=replace(slide.scenario, alpha=scenario.alpha, eta=scenario.eta))
    return replace(linked, slides=(*linked.slides[:place], moved, *linked.slides[place + 1 :]))


def answer(view: View, current: Lesson) -> str:
    """What one has before one."""
    return view.words("answer", count=str(len(current.slides)))


def present_link(view: View, step: str) -> None:
    """A button that presents a step on the scenario on screen."""
    if st.button(view.text("page.derivation.present"), icon=":material/slideshow:", key="present"):
        own: Lesson | None = state.view_setting(_LESSON, None)
        if own is not None and Slide(step, view.scenario) not in own.slides:
            # The lesson in the making does not show this: the step is then presented within all steps.
            state.set_view(_ASIDE, True)
        state.set_view(SLIDE, f"{step}.0")
        st.switch_page(state.page("lecture"))


_ASIDE = "lesson_aside"
"""Whether all steps on the scenario on screen are presented in place of the session's own lesson."""


def presented(view: View, current: Lesson) -> bool:
    """Whether a deck stands over the page, because a link or the lecturer asks for it."""
    if not state.view_setting(SLIDE, ""):
        state.set_view(_ASIDE, False)
        return False
    if state.view_setting(_ASIDE, False):
        current = lessons.default(view.scenario, view.text.language, view.style.theme)
    with st.spinner(view.words("preparing")):
        try:
            present(current, state.upload(), view.words("title"))
        except DeckError:
            st.error(view.words("too_large", limit=f"{LIMIT / 1e6:.0f}"), icon=":material/error:")
            return False
    return True


# --- present, save, open -----------------------------------------------------------------------------------------


def actions(view: View, current: Lesson) -> None:
    """Present, take away, save, open."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            view.words("present"), on_click=_start, args=(current, _place(current)), type="primary",
            icon=":material/slideshow:", key="lecture.present",
        )  # fmt: skip
        upload = state.upload()
        st.download_button(
            view.words("download"), data=lambda: _deck(view.text, current, upload), file_name="geomix_deck.html",
            mime="text/html", icon=":material/download:", help=view.words("download_help"), on_click="ignore",
            key="lecture.deck",
        )  # fmt: skip
        st.download_button(
            view.words("save"), data=lessons.to_json(current), file_name="geomix_lesson.json", mime="application/json",
            icon=":material/save:", help=view.words("save_help"), on_click="ignore", key="lecture.save",
        )  # fmt: skip
        with st.popover(view.words("open"), icon=":material/folder_open:", key="lecture.open"):
            _open(view)
    if any(slide.scenario.source == UPLOAD for slide in current.slides):
        st.info(view.words("uploaded"), icon=":material/upload_file:")
    if state.view_setting(_OPENED, False):
        state.set_view(_OPENED, False)
        st.toast(view.words("opened"), icon=":material/check:")


def _start(current: Lesson, place: int) -> None:
    state.set_view(SLIDE, f"{lessons.names(current)[place]}.0")


def _deck(text: Catalogue, current: Lesson, upload: object) -> bytes:
    """The offline deck; where it is too large, a page that says so."""
    try:
        return document(current, upload).encode("utf-8")  # type: ignore[arg-type]
    except DeckError:
        return escape(text.plain("page.lecture.too_large", limit=f"{LIMIT / 1e6:.0f}")).encode("utf-8")


def _open(view: View) -> None:
    file = st.file_uploader(view.words("open"), "json", help=view.words("open_help"), key=f"lesson.file.{_edition()}")
    if file is None:
        return
    try:
        found = lessons.from_json(file.getvalue())
    except LessonError as error:
        name, problem = shell.plain(file.name), _said(view, error)
        st.error(view.words("rejected", name=name, problem=problem), icon=":material/error:")
        return
    _keep(found, renew=True)
    state.set_view(_CHOSEN, "0")
    state.set_view(_OPENED, True)
    st.rerun()


def _said(view: View, error: LessonError) -> str:
    """Why a file is no lesson, in the reader's words; what stands in the file is shown as it is."""
    values = {name: shell.plain(value) for name, value in error.values.items()}
    problem = view.text(f"error.{error.reason}", **values)
    return (
        problem if error.slide is None else view.text("error.lesson_in_slide", place=str(error.slide), problem=problem)
    )


# --- the slides --------------------------------------------------------------------------------------------------


def slides(view: View, current: Lesson) -> int:
    """The table of slides; returns the place of the one that is selected."""
    st.markdown(f"**{view.words('slides')}**")
    place = _place(current)
    key = f"lesson.table.{_edition()}.{view.text.language}"
    st.dataframe(
        pd.DataFrame([_line(view, i, slide) for i, slide in enumerate(current.slides, 1)]),
        hide_index=True,
        height=min(_HEIGHT, 38 + 35 * len(current.slides)),
        key=key,
        on_select=state.on_row(key, _CHOSEN, [str(i) for i in range(len(current.slides))]),
        selection_mode="single-row",
        selection_default={"selection": {"rows": [place]}},
        column_config={
            "place": st.column_config.NumberColumn("", width=36),
            "step": st.column_config.TextColumn(view.words("column_step"), width=215),
            "scenario": st.column_config.TextColumn(view.words("column_scenario"), width=150),
            "hidden": st.column_config.TextColumn(view.words("column_hidden"), width=76),
            "note": st.column_config.CheckboxColumn(view.words("column_note"), width=76),
        },
    )
    st.caption(view.words("hint"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        full = len(current.slides) >= MOST_SLIDES
        step = st.selectbox(
            view.words("add"), ORDER, format_func=lambda name: view.text.plain(f"learn.{name}.title"),
            label_visibility="collapsed", key="lesson.step",
        )  # fmt: skip
        st.button(
            view.words("add"), on_click=_insert, args=(current, place, Slide(step, view.scenario)), disabled=full,
            icon=":material/add:", help=view.words("full", limit=str(MOST_SLIDES)) if full else None, key="lesson.add",
        )  # fmt: skip
        st.button(
            view.words("reset"), on_click=_reset, icon=":material/restart_alt:", type="tertiary", key="lesson.reset"
        )
    return place


def _line(view: View, place: int, slide: Slide) -> dict[str, object]:
    return {
        "place": place,
        "step": view.text.plain(f"learn.{slide.step}.title"),
        "scenario": _described(view, slide.scenario),
        "hidden": ", ".join(view.text.plain(f"page.lecture.part_{part}") for part in slide.hide),
        "note": slide.note is not None,
    }


def _described(view: View, scenario: Scenario) -> str:
    """A scenario in a few words."""
    source = view.text.plain(f"source.{scenario.source}")
    row = f" {scenario.row + 1}" if scenario.source in (REAL, UPLOAD) else ""
    at = view.text.plain("page.lecture.at", alpha=parameter(scenario.alpha), eta=number(scenario.eta))
    return f"{source}{row}, {at}"


def selected(view: View, current: Lesson, place: int) -> None:
    """The slide that is selected: its place, its scenario, what it leaves out, its note."""
    slide, last = current.slides[place], len(current.slides) - 1
    title = view.text(f"learn.{slide.step}.title")
    st.markdown(f"**{view.words('selected', place=str(place + 1), title=title)}**")
    with st.container(horizontal=True):
        _button(view.words("up"), "arrow_upward", _move, current, place, -1, disabled=place == 0)
        _button(view.words("down"), "arrow_downward", _move, current, place, 1, disabled=place == last)
        full = last + 1 >= MOST_SLIDES
        _button(view.words("duplicate"), "content_copy", _insert, current, place, slide, disabled=full)
        _button(view.words("remove"), "delete", _remove, current, place, disabled=last == 0)
    st.caption(_described(view, slide.scenario))
    with st.container(horizontal=True):
        same = slide.scenario == view.scenario
        every = tuple(range(last + 1))
        about = view.words("take_help")
        _button(view.words("take"), "input", _take, current, (place,), view.scenario, disabled=same, about=about)
        _button(view.words("take_all"), "select_all", _take, current, every, view.scenario, about=about)
        _button(view.words("show"), "output", state.show, slide.scenario, disabled=same)
    key = f"{_edition()}.{place}"
    hidden = st.pills(
        view.words("parts"), HIDEABLE, selection_mode="multi", default=slide.hide, key=f"lesson.hide.{key}",
        format_func=lambda part: view.text.plain(f"page.lecture.part_{part}"),
    )  # fmt: skip
    usual = view.text.plain(f"learn.{slide.step}.note")
    note = st.text_area(
        view.words("note"), usual if slide.note is None else slide.note, max_chars=LONGEST_NOTE, height=150,
        key=f"lesson.note.{key}",
    )  # fmt: skip
    own = None if note == usual else note
    _edit(current, place, replace(slide, hide=tuple(part for part in HIDEABLE if part in hidden), note=own))


def _button(
    label: str, icon: str, act: Callable[..., None], *args: object, disabled: bool = False, about: str | None = None
) -> None:
    st.button(
        label, on_click=act, args=args, disabled=disabled, help=about, icon=f":material/{icon}:", key=f"lesson.{icon}"
    )


def settings(view: View, current: Lesson) -> None:
    """Title, language and look of the whole lesson."""
    name, language, look = st.columns([4, 2, 2], gap="medium")
    edition = _edition()
    chosen = replace(
        current,
        title=name.text_input(
            view.words("title_label"), current.title, LONGEST_TITLE, key=f"lesson.title.{edition}",
            placeholder=view.text.plain("deck.title"),
        ),
        language=language.segmented_control(
            view.words("language"), list(LANGUAGES), format_func=lambda code: LANGUAGES[code], required=True,
            default=current.language, key=f"lesson.language.{edition}.{current.language}",
        ),
        theme=look.segmented_control(
            view.words("theme"), THEMES, format_func=lambda theme: view.words(f"theme_{theme}"), required=True,
            default=current.theme, key=f"lesson.theme.{edition}.{current.theme}",
        ),
    )  # fmt: skip
    st.caption(view.words("link"))
    if chosen != current:
        _keep(chosen)
        st.rerun()


# --- changes -----------------------------------------------------------------------------------------------------


def _edition() -> int:
    """A number that changes whenever slides move or are replaced: their widgets then start afresh."""
    return int(state.view_setting(_EDITION, 0))


def _place(current: Lesson) -> int:
    """Which slide is selected."""
    return min(int(state.view_setting(_CHOSEN, "0")), len(current.slides) - 1)


def _keep(changed: Lesson | None, renew: bool = False) -> None:
    state.set_view(_LESSON, changed)
    if renew:
        state.set_view(_EDITION, _edition() + 1)


def _edit(current: Lesson, place: int, slide: Slide) -> None:
    if slide != current.slides[place]:
        _keep(replace(current, slides=(*current.slides[:place], slide, *current.slides[place + 1 :])))
        st.rerun()


def _move(current: Lesson, place: int, by: int) -> None:
    moved = list(current.slides)
    moved.insert(place + by, moved.pop(place))
    _keep(replace(current, slides=tuple(moved)), renew=True)
    state.set_view(_CHOSEN, str(place + by))


def _insert(current: Lesson, place: int, slide: Slide) -> None:
    _keep(replace(current, slides=(*current.slides[: place + 1], slide, *current.slides[place + 1 :])), renew=True)
    state.set_view(_CHOSEN, str(place + 1))


def _remove(current: Lesson, place: int) -> None:
    _keep(replace(current, slides=current.slides[:place] + current.slides[place + 1 :]), renew=True)


def _take(current: Lesson, places: tuple[int, ...], scenario: Scenario) -> None:
    changed = (replace(s, scenario=scenario) if i in places else s for i, s in enumerate(current.slides))
    _keep(replace(current, slides=tuple(changed)), renew=True)


def _reset() -> None:
    _keep(None, renew=True)
    state.set_view(_CHOSEN, "0")
