"""The lecture page: a lesson is edited, opened from a file, and presented by a link."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from apptest import address, go, move, open_app, run, words
from streamlit.testing.v1 import AppTest

from geomix_app.deck import lesson as lessons
from geomix_app.deck.lesson import MOST_SLIDES, Lesson, Slide, from_link, to_link
from geomix_app.deck.present import links
from geomix_app.learn.steps import ORDER
from geomix_app.scenario import Scenario, from_query
from geomix_app.views import derivation, lecture


def lesson(at: AppTest) -> Lesson:
    """The session's own lesson."""
    found: Lesson = at.session_state["view.lesson_own"]
    return found


def press(at: AppTest, key: str) -> AppTest:
    return run(at.button(key=key).click())


def deck(at: AppTest) -> dict[str, Any] | None:
    """What the deck over the page was sent, if it is there."""
    found = at.get("bidi_component")
    return json.loads(found[0].proto.json) if found else None


def opened(at: AppTest, raw: bytes) -> AppTest:
    (uploader,) = at.file_uploader
    return run(uploader.upload("mine.json", raw, "application/json"))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_until_it_is_edited_the_lesson_is_every_step_on_the_present_scenario(lang: str) -> None:
    at = open_app("lecture", lang=lang, alpha="0.3")
    text = words(at)
    table = at.dataframe[0].value
    assert list(table["step"]) == [text.plain(f"learn.{name}.title") for name in ORDER]
    assert all("0.3000" in described for described in table["scenario"])
    move(at, alpha=0.4)
    assert all("0.4000" in described for described in at.dataframe[0].value["scenario"])
    assert "view.lesson_own" not in at.session_state


def test_slides_are_moved_repeated_removed_and_added() -> None:
    at = open_app("lecture")
    press(at, "lesson.arrow_downward")
    assert [s.step for s in lesson(at).slides][:3] == ["update", "budget", "progress"]
    press(at, "lesson.content_copy")
    assert [s.step for s in lesson(at).slides][:4] == ["update", "budget", "budget", "progress"]
    press(at, "lesson.delete")
    press(at, "lesson.arrow_upward")
    assert [s.step for s in lesson(at).slides][:3] == ["update", "progress", "budget"]
    run(at.selectbox(key="lesson.step").set_value("wald"))
    press(at, "lesson.add")
    assert [s.step for s in lesson(at).slides][:3] == ["update", "progress", "wald"]
    press(at, "lesson.reset")
    assert list(at.dataframe[0].value["step"]) == [words(at).plain(f"learn.{name}.title") for name in ORDER]


def test_a_slide_takes_the_present_scenario_and_gives_its_own_back() -> None:
    at = open_app("lecture", alpha="0.3")
    press(at, "lesson.arrow_downward")
    move(at, alpha=0.8)
    press(at, "lesson.input")
    assert [s.scenario.alpha for s in lesson(at).slides][:3] == [0.3, 0.8, 0.3]
    press(at, "lesson.arrow_upward")
    press(at, "lesson.content_copy")
    assert lesson(at).slides[1].scenario.alpha == 0.8
    move(at, alpha=0.1)
    press(at, "lesson.output")
    assert at.session_state["scenario"].alpha == 0.8
    press(at, "lesson.select_all")
    assert {s.scenario.alpha for s in lesson(at).slides} == {0.8}


def test_parts_notes_title_language_and_look_are_kept() -> None:
    at = open_app("lecture")
    run(at.text_area[0].set_value("Mine"))
    run(at.text_input[0].set_value("A talk"))
    run(at.segmented_control(key="lesson.language.0.en").set_value("zh"))
    run(at.segmented_control(key="lesson.theme.0.light").set_value("dark"))
    run(at.pills(key="lesson.hide.0.0").set_value(["proof", "question"]))
    found = lesson(at)
    assert (found.title, found.language, found.theme) == ("A talk", "zh", "dark")
    assert found.slides[0] == Slide("budget", Scenario(), ("question", "proof"), "Mine")
    assert found.slides[1:] == lessons.default(Scenario(), "en").slides[1:]
    # The note that the step brings is no note of one's own.
    run(at.text_area[0].set_value(words(at).plain("learn.budget.note")))
    assert lesson(at).slides[0].note is None


def test_a_lesson_is_opened_from_its_file() -> None:
    at = open_app("lecture")
    mine = Lesson((Slide("wald", Scenario(alpha=0.2), note="Mine"), Slide("wald")), "zh", "dark", "一堂课")
    opened(at, lessons.to_json(mine).encode())
    assert lesson(at) == mine
    assert list(at.dataframe[0].value["note"]) == [True, False]
    assert at.text_area[0].value == "Mine"
    assert at.toast[0].value == words(at)("page.lecture.opened")
    # Its widgets start afresh: what stood in them does not change the lesson.
    run(at)
    assert lesson(at) == mine


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize(
    "raw", [b"{", b'{"version": 7}', b'{"version": 1, "language": "en", "slides": [{"step": "<b>*x*"}]}']
)
def test_a_file_that_is_no_lesson_is_refused_in_words(raw: bytes, lang: str) -> None:
    at = open_app("lecture", lang=lang)
    opened(at, raw)
    assert len(at.error) == 1
    assert "mine" in at.error[0].value
    assert "<b>" not in at.error[0].value
    assert "view.lesson_own" not in at.session_state
    assert len(at.dataframe[0].value) == len(ORDER)


def test_a_full_lesson_takes_no_more_slides() -> None:
    at = open_app("lecture")
    opened(at, lessons.to_json(Lesson(tuple(Slide("wald") for _ in range(MOST_SLIDES)))).encode())
    assert at.button(key="lesson.add").disabled
    assert at.button(key="lesson.content_copy").disabled
    opened(at, lessons.to_json(Lesson((Slide("wald"),))).encode())
    assert at.button(key="lesson.delete").disabled


def test_a_link_presents_its_slide() -> None:
    at = open_app("lecture", lang="zh", source="zipf", alpha="0.3", slide="wald.2")
    sent = deck(at)
    assert sent is not None
    assert '"at":"wald.2","embedded":true' in sent["html"]
    assert 'lang="zh"' in sent["html"]
    assert len(sent["links"]) == len(ORDER)
    assert address(at) == {"source": "zipf", "alpha": "0.3", "lang": "zh", "slide": "wald.2"}
    assert len(at.dataframe) == 0


def test_the_link_of_a_slide_holds_its_own_scenario_and_no_address() -> None:
    scenario, _ = from_query({"source": "zipf", "alpha": "0.3", "weights": "inverse"})
    lesson = Lesson((Slide("wald"), Slide("wald", scenario)), "zh")
    first, second = (dict(parse_qsl(link)) for link in links(lesson))
    assert from_link(first.pop("lesson")) == from_link(second.pop("lesson")) == lesson
    assert first == {"lang": "zh"}
    assert second == {"source": "zipf", "weights": "inverse", "alpha": "0.3", "lang": "zh"}
    # Every step on one scenario needs no lesson in its links, and a lesson that is too long gives up its place.
    usual = links(lessons.default(scenario, "zh", "dark"))
    assert usual == ["source=zipf&weights=inverse&alpha=0.3&lang=zh"] * len(ORDER)
    long = "".join(chr(0x4E00 + 7 * i % 4001) for i in range(4000))
    assert links(Lesson((Slide("wald", note=long), Slide("wald", note=long[::-1])))) == ["lang=en"] * 2


def test_a_link_opens_the_lesson_at_its_slide_and_at_the_moved_point() -> None:
    mine = Lesson((Slide("wald", hide=("proof",)), Slide("wald", Scenario(alpha=0.2), note="Mine")), "en", "dark")
    at = open_app("lecture", alpha="0.31", eta="0.5", slide="wald~2.1", lesson=to_link(mine))
    moved = replace(mine.slides[1], scenario=Scenario(alpha=0.31, eta=0.5))
    assert lesson(at) == replace(mine, slides=(mine.slides[0], moved))
    sent = deck(at)
    assert sent is not None
    assert 'data-theme="dark"' in sent["html"]
    assert len(sent["links"]) == 2
    at.session_state["view.slide"] = ""
    run(at)
    assert address(at) == {"alpha": "0.31", "eta": "0.5", "lang": "en"}


@pytest.mark.parametrize("bad", ["x", "eJw", "é", to_link(Lesson((Slide("wald"),)))[:-4]])
@pytest.mark.parametrize("slide", ["", "wald.1", "~"])
def test_a_link_to_no_lesson_is_said_and_all_steps_are_shown(bad: str, slide: str) -> None:
    at = open_app("lecture", lesson=bad, slide=slide)
    assert len(at.warning) == 1
    assert "view.lesson_own" not in at.session_state
    assert (deck(at) is None) == (slide == "")


@pytest.mark.parametrize("slide", ["wald~9.1", "wald~-1.0", "wald~x", "~", "budget.0", "wald~0.1"])
def test_a_link_to_no_slide_opens_the_lesson_as_it_is(slide: str) -> None:
    mine = Lesson((Slide("wald", Scenario(alpha=0.2), note="Mine"),))
    at = open_app("lecture", lesson=to_link(mine), slide=slide)
    assert lesson(at) == mine


def test_presenting_starts_at_the_slide_that_is_selected() -> None:
    at = open_app("lecture")
    press(at, "lesson.arrow_downward")
    press(at, "lesson.content_copy")
    press(at, "lecture.present")
    assert at.session_state["view.slide"] == "budget~2.0"
    assert deck(at) is not None
    # Whoever leaves the page, by the browser's Back, say, does not come back to a deck over it.
    go(at, "choosing")
    assert "slide" not in address(at)
    go(at, "lecture")
    assert deck(at) is None


@pytest.mark.parametrize("own", [None, "other", "same"])
def test_the_derivation_presents_its_step_on_the_scenario_on_screen(
    own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derivation, "header", lambda view, step: lecture.present_link(view, step.name))
    at = open_app("derivation", step="wald", alpha="0.3")
    mine = Lesson((Slide("wald", Scenario(alpha=0.3 if own == "same" else 0.9)),), title="Mine")
    if own:
        at.session_state["view.lesson_own"] = mine
    press(at, "present")
    sent = deck(at)
    assert sent is not None
    assert '"at":"wald.0"' in sent["html"]
    assert len(sent["links"]) == (1 if own == "same" else len(ORDER))
    assert "alpha=0.3" in sent["links"][0]
    # The lesson in the making stays as it was.
    assert at.session_state["view.lesson_own"] == mine if own else "view.lesson_own" not in at.session_state
