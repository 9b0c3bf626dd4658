"""Every string that a person reads, by key, from text/en.toml and text/zh.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "中文"}


class Catalogue:
    """The strings of one language: `text("page.key", name=value)` fills the placeholders of that entry."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._entries = entries(language)

    def __call__(self, key: str, **values: Any) -> str:
        return self._entries[key].format(**values)

    def __contains__(self, key: str) -> bool:
        return key in self._entries


@cache
def entries(language: str) -> dict[str, str]:
    """All entries of a language with dotted keys."""
    source = files("geomix_app") / "text" / f"{language}.toml"
    flat: dict[str, str] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                flat[prefix + key] = value

    walk("", tomllib.loads(source.read_text("utf-8")))
    return flat


@cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of a language, loaded once."""
    return Catalogue(language)
