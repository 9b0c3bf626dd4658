"""A lesson: which steps are shown, on which scenarios, what is hidden; and its file, a small JSON.

    {"version": 1, "title": "…", "language": "en", "theme": "light", "slides": [
        {"step": "kl_symmetry", "scenario": {"source": "zipf", "alpha": "0.3"}, "hide": ["proof"], "note": "…"}]}

A scenario is written as in a link; `hide`, `scenario`, `title`, `theme` and `note` may be left out. No address of a
server is in it, so a lesson opens wherever geomix runs.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from geomix_app.catalogue import LANGUAGES
from geomix_app.learn.steps import ORDER
from geomix_app.notation import Theme
from geomix_app.scenario import Reshape, Scenario, from_query, to_query
from geomix_core.errors import GeomixError
from geomix_core.scenarios import FAMILIES

VERSION = 1
LIMIT = 1_000_000
"""Bytes of a lesson file."""
MOST_SLIDES = 40
LONGEST_TITLE, LONGEST_NOTE = 200, 4_000
LONGEST_LINK = 6_000
"""Characters that a lesson may take in an address."""
HIDEABLE = ("question", "figure", "formula", "proof", "verdicts")
"""Parts of a slide that a lesson may leave out."""
THEMES: tuple[Theme, ...] = ("light", "dark")


class LessonError(GeomixError):
    """A file is no lesson. `reason` names a sentence of the catalogue (under error), which `values` fill."""

    def __init__(self, reason: str, slide: int | None = None, **values: str) -> None:
        super().__init__(f"{reason}: {values}")
        self.reason, self.slide, self.values = reason, slide, values


@dataclass(frozen=True, slots=True)
class Slide:
    """One step on one scenario; `note` stands in for the speaker's note that the step brings."""

    step: str
    scenario: Scenario = field(default_factory=Scenario)
    hide: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """Slides in the order in which they are shown, their language and their look."""

    slides: tuple[Slide, ...]
    language: str = "en"
    theme: Theme = "light"
    title: str = ""


def default(scenario: Scenario, language: str, theme: Theme = "light") -> Lesson:
    """All steps on one scenario."""
    return Lesson(tuple(Slide(name, scenario) for name in ORDER), language, theme)


def names(lesson: Lesson) -> tuple[str, ...]:
    """A name for each slide: its step, numbered where the step was shown before."""
    seen: Counter[str] = Counter()
    found = []
    for slide in lesson.slides:
        seen[slide.step] += 1
        found.append(slide.step if seen[slide.step] == 1 else f"{slide.step}~{seen[slide.step]}")
    return tuple(found)


def to_json(lesson: Lesson) -> str:
    """The lesson as a file, to be read by `from_json` or edited by hand."""
    slides: list[dict[str, Any]] = []
    for slide in lesson.slides:
        entry: dict[str, Any] = {"step": slide.step, "scenario": to_query(slide.scenario), "hide": list(slide.hide)}
        slides.append(entry if slide.note is None else entry | {"note": slide.note})
    written = {
        "version": VERSION,
        "title": lesson.title,
        "language": lesson.language,
        "theme": lesson.theme,
        "slides": slides,
    }
    return json.dumps(written, ensure_ascii=False, indent=2) + "\n"


def from_json(raw: bytes) -> Lesson:
    """The lesson in a file, which may come from anyone. Raises LessonError."""
    if len(raw) > LIMIT:
        raise LessonError("lesson_too_large", found=f"{len(raw):,}", limit=f"{LIMIT:,}")
    try:
        content = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once)
        # A half of a surrogate pair is no text: it could not be written out again.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise LessonError("lesson_not_json") from error
    if not isinstance(content, dict) or "version" not in content:
        raise LessonError("lesson_not_one")
    if content["version"] is True or content["version"] != VERSION:
        raise LessonError("lesson_version", found=_shown(content["version"]), expected=str(VERSION))
    read = _Reader(content)
    read.only("version", "title", "language", "theme", "slides")
    slides = read.typed("slides", list)
    if not 1 <= len(slides) <= MOST_SLIDES:
        raise LessonError("lesson_slides", found=str(len(slides)), limit=str(MOST_SLIDES))
    return Lesson(
        slides=tuple(_slide(entry, i) for i, entry in enumerate(slides, 1)),
        language=read.one_of("language", LANGUAGES),
        theme=read.one_of("theme", THEMES, "light"),  # type: ignore[arg-type]
        title=read.string("title", LONGEST_TITLE, ""),
    )


def to_link(lesson: Lesson) -> str:
    """The lesson as text for an address, to be read by `from_link`; none where it would be too long for one."""
    packed = zlib.compress(json.dumps(json.loads(to_json(lesson)), separators=(",", ":")).encode(), 9)
    written = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    return written if len(written) <= LONGEST_LINK else ""


def from_link(text: str) -> Lesson:
    """The lesson in an address, which may come from anyone. Raises LessonError."""
    try:
        unpacking = zlib.decompressobj()
        raw = unpacking.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), LIMIT + 1)
    except (zlib.error, binascii.Error, ValueError) as error:
        raise LessonError("lesson_not_json") from error
    if len(raw) <= LIMIT and not unpacking.eof:
        raise LessonError("lesson_not_json")
    return from_json(raw)


def _slide(entry: Any, place: int) -> Slide:
    if not isinstance(entry, dict):
        raise LessonError("lesson_kind", place, field="slides", expected="{…}")
    read = _Reader(entry, place)
    read.only("step", "scenario", "hide", "note")
    hide = read.typed("hide", list, [])
    for part in hide:
        if part not in HIDEABLE:
            raise LessonError("lesson_value", place, field="hide", found=_shown(part), expected=", ".join(HIDEABLE))
    return Slide(
        step=read.one_of("step", ORDER),
        scenario=_scenario(read.typed("scenario", dict, {}), place),
        hide=tuple(part for part in HIDEABLE if part in hide),
        note=read.string("note", LONGEST_NOTE, None) if "note" in entry else None,
    )


def _scenario(query: Mapping[str, Any], place: int) -> Scenario:
    if not all(isinstance(value, str) for value in query.values()):
        raise LessonError("lesson_kind", place, field="scenario", expected='{"alpha": "0.5"}')
    scenario, problems = from_query(query)
    unknown = [name for name in query if name not in _names(scenario.source)]
    if problems or unknown:
        raise LessonError("lesson_scenario", place, names=", ".join(_shown(name) for name in (*problems, *unknown)))
    try:
        json.dumps(to_query(scenario), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise LessonError("lesson_scenario", place, names="table") from error
    return scenario


def _names(source: str) -> set[str]:
    """The parameters that a link to policies of this source may have."""
    shapes = {f"{policy}_{f.name}" for policy in ("theta", "target") for f in fields(Reshape)}
    plain = {f.name for f in fields(Scenario)} - {"parameters", "theta", "target", "table_kind"}
    family = {p.name for p in FAMILIES[source].parameters} if source in FAMILIES else set()
    return plain | shapes | family | {"kind"}


class _Reader:
    """Reads the fields of a JSON object, and says which one is not as it should be."""

    def __init__(self, content: Mapping[str, Any], slide: int | None = None) -> None:
        self._content, self._slide = content, slide

    def only(self, *known: str) -> None:
        for name in self._content:
            if name not in known:
                raise LessonError("lesson_unknown", self._slide, field=_shown(name), expected=", ".join(known))

    def typed(self, name: str, kind: type, default: Any = None) -> Any:
        if name not in self._content and default is not None:
            return default
        if name not in self._content:
            raise LessonError("lesson_missing", self._slide, field=name)
        if not isinstance(self._content[name], kind):
            raise LessonError("lesson_kind", self._slide, field=name, expected=_KINDS[kind])
        return self._content[name]

    def string(self, name: str, longest: int, default: str | None) -> Any:
        if name not in self._content:
            return default
        value = self.typed(name, str)
        if len(value) > longest or not all(c.isprintable() or c in "\n\t" for c in value):
            raise LessonError("lesson_text", self._slide, field=name, limit=f"{longest:,}")
        return value

    def one_of(self, name: str, allowed: Iterable[str], default: str | None = None) -> str:
        value: str = self.typed(name, str, default)
        if value not in allowed:
            raise LessonError("lesson_value", self._slide, field=name, found=_shown(value), expected=", ".join(allowed))
        return value


_KINDS: Mapping[type, str] = {list: "[…]", dict: "{…}", str: '"…"'}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice")
    return found


def _shown(found: Any) -> str:
    """What stands in a file, short enough to be repeated in a message."""
    written = found if isinstance(found, str) else json.dumps(found)
    return written if len(written) <= 40 else written[:39] + "…"
