"""Lesson files: what is written can be read, and whatever else comes is refused in words."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomix_app.catalogue import LANGUAGES, catalogue
from geomix_app.deck import lesson as lessons
from geomix_app.deck.lesson import (
    HIDEABLE,
    MOST_SLIDES,
    THEMES,
    Lesson,
    LessonError,
    Slide,
    from_json,
    from_link,
    to_json,
    to_link,
)
from geomix_app.learn.steps import ORDER
from geomix_app.scenario import CUSTOM, Scenario, TableRow, from_query

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters="\n\t "), max_size=60)
# With no more digits than a link carries.
SHARES = st.integers(0, 10_000).map(lambda n: n / 10_000)
WEIGHTS = st.sampled_from(["importance", "inverse"])
SCENARIOS = st.one_of(
    st.builds(Scenario, alpha=SHARES, eta=SHARES, row=st.integers(0, 40), weights=WEIGHTS),
    st.builds(lambda seed: from_query({"source": "zipf", "seed": str(seed)})[0], st.integers(0, 99)),
    st.builds(
        lambda rows: Scenario(source=CUSTOM, table=tuple(rows)),
        st.lists(st.builds(TableRow, TEXT, SHARES, SHARES), min_size=1, max_size=5),
    ),
)
SLIDES = st.builds(
    Slide,
    st.sampled_from(ORDER),
    SCENARIOS,
    st.sets(st.sampled_from(HIDEABLE)).map(lambda parts: tuple(p for p in HIDEABLE if p in parts)),
    st.none() | TEXT,
)
LESSONS = st.builds(
    Lesson,
    st.lists(SLIDES, min_size=1, max_size=6).map(tuple),
    st.sampled_from(list(LANGUAGES)),
    st.sampled_from(THEMES),
    TEXT,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
VALID = json.loads(to_json(lessons.default(Scenario(alpha=0.3), "en")))


def written(**changes: Any) -> bytes:
    return json.dumps(VALID | changes).encode()


def read(raw: bytes) -> Lesson | LessonError:
    try:
        return from_json(raw)
    except LessonError as error:
        return error


def slide(**changes: Any) -> bytes:
    return written(slides=[VALID["slides"][0], VALID["slides"][1] | changes])


# --- what is written can be read ---------------------------------------------------------------------------------


@given(LESSONS)
def test_a_lesson_survives_its_file(lesson: Lesson) -> None:
    assert from_json(to_json(lesson).encode()) == lesson


@given(LESSONS)
def test_a_lesson_survives_its_link(lesson: Lesson) -> None:
    link = to_link(lesson)
    assert re.fullmatch(r"[\w-]+", link, re.ASCII)
    assert from_link(link) == lesson


PACKED = st.binary(max_size=50).map(lambda raw: base64.urlsafe_b64encode(zlib.compress(raw)).decode())


@given(st.text(max_size=50) | PACKED)
def test_any_text_in_a_link_is_a_lesson_or_refused(text: str) -> None:
    with pytest.raises(LessonError):
        from_link(text)


def test_a_link_that_unpacks_to_more_than_a_lesson_is_refused() -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(b" " * 50_000_000)).decode()
    with pytest.raises(LessonError) as refused:
        from_link(bomb)
    assert refused.value.reason == "lesson_too_large"


def test_the_default_lesson_shows_every_step_in_order() -> None:
    scenario = Scenario(alpha=0.25)
    lesson = lessons.default(scenario, "zh", "dark")
    assert [s.step for s in lesson.slides] == list(ORDER)
    assert {s.scenario for s in lesson.slides} == {scenario}
    assert (lesson.language, lesson.theme) == ("zh", "dark")


def test_a_file_edited_by_hand_may_leave_out_what_has_a_default() -> None:
    short = json.dumps({"version": 1, "language": "en", "slides": [{"step": "wald"}]})
    assert from_json(b"\xef\xbb\xbf" + short.encode()) == Lesson((Slide("wald"),))


def test_no_address_of_a_server_is_in_a_file() -> None:
    assert "//" not in to_json(lessons.default(Scenario(), "en"))


# --- and what else comes is refused ------------------------------------------------------------------------------

BAD = {
    "too_large": b" " * (lessons.LIMIT + 1),
    "not_json": b"{",
    "not_json twice": b'{"version": 1, "version": 1}',
    "not_json deep": b'{"version": 1, "slides": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not_json bytes": b"\xff\xfe\x00",
    "not_json half a pair": written(title="\ud800"),
    "not_json long number": b'{"version": ' + b"9" * 5000 + b"}",
    "not_one": b"[1]",
    "not_one null": b"null",
    "version": written(version=2),
    "version true": written(version=True),
    "version text": written(version="1"),
    "slides none": written(slides=[]),
    "slides many": written(slides=[{"step": "wald"}] * (MOST_SLIDES + 1)),
    "unknown": written(server="http://example.org"),
    "unknown in a slide": slide(script="alert(1)"),
    "missing": json.dumps({k: v for k, v in VALID.items() if k != "slides"}).encode(),
    "missing step": written(slides=[{"scenario": {}}]),
    "kind slides": written(slides={}),
    "kind slide": written(slides=["wald"]),
    "kind title": written(title=3),
    "kind title null": written(title=None),
    "kind hide": slide(hide="proof"),
    "kind note": slide(note=["x"]),
    "kind scenario": slide(scenario=[]),
    "kind number in a scenario": slide(scenario={"alpha": 0.5}),
    "value step": slide(step="theorem_9"),
    "value language": written(language="xx"),
    "value theme": written(theme="pink"),
    "value hide": slide(hide=["everything"]),
    "value hide list": slide(hide=[[]]),
    "text title": written(title="x" * 201),
    "text control": written(title="a\x00b"),
    "text right to left": slide(note="\u202eabc"),
    "scenario alpha": slide(scenario={"alpha": "2"}),
    "scenario nan": slide(scenario={"alpha": "nan"}),
    "scenario unknown": slide(scenario={"colour": "red"}),
    "scenario of another family": slide(scenario={"source": "two_tokens", "vocabulary": "10"}),
    "scenario table": slide(scenario={"source": "custom", "table": "[[1]]"}),
    "scenario half a pair": slide(scenario={"source": "custom", "table": '[["\\ud800", 1, 1]]'}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_lesson_is_refused_in_words(name: str) -> None:
    with pytest.raises(LessonError) as refused:
        from_json(BAD[name])
    error = refused.value
    assert error.reason == f"lesson_{name.split()[0]}"
    for language in LANGUAGES:
        said = catalogue(language).plain(f"error.{error.reason}", **error.values)
        assert "{" not in said.replace("{…}", "").replace('{"alpha"', "")
        assert all(value in said for value in error.values.values())


def test_an_error_names_the_second_slide() -> None:
    with pytest.raises(LessonError) as refused:
        from_json(slide(step="theorem_9"))
    assert refused.value.slide == 2
    assert refused.value.values["found"] == "theorem_9"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_lesson_or_refused(raw: bytes) -> None:
    with pytest.raises(LessonError):
        from_json(raw)


@given(st.sampled_from(list(VALID)), JSON)
def test_any_value_in_a_field_is_read_or_refused(field: str, value: Any) -> None:
    found = read(json.dumps(VALID | {field: value}).encode())
    assert isinstance(found, LessonError) or from_json(to_json(found).encode()) == found


@given(st.sampled_from(["step", "scenario", "hide", "note", "else"]), JSON)
def test_any_value_in_a_slide_is_read_or_refused(field: str, value: Any) -> None:
    found = read(slide(**{field: value}))
    if isinstance(found, LessonError):
        assert found.slide == 2
    else:
        assert from_json(to_json(found).encode()) == found


IN_LINKS = st.sampled_from(["alpha", "eta", "source", "row", "table", "kind", "theta_top_k", "seed"])


@given(st.dictionaries(IN_LINKS, st.text()))
def test_any_scenario_is_read_or_refused(query: dict[str, str]) -> None:
    found = read(slide(scenario=query))
    if isinstance(found, LessonError):
        assert found.reason == "lesson_scenario"
    else:
        assert from_query(query) == (found.slides[1].scenario, ())


def test_slides_can_be_edited_without_touching_the_others() -> None:
    lesson = lessons.default(Scenario(), "en")
    changed = replace(lesson, slides=(replace(lesson.slides[0], note="Mine"), *lesson.slides[1:]))
    assert from_json(to_json(changed).encode()).slides[0].note == "Mine"
    assert from_json(to_json(changed).encode()).slides[1:] == lesson.slides[1:]
