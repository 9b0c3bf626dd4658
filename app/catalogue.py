"""Every string that a person reads, by key, from text/en/*.toml and text/zh/*.toml; what claims say, from the core."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

from geomix_app import notation
from geomix_core.claims import CLAIMS
from geomix_core.claims.words import reason, reasons, words

LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "中文"}


class Catalogue:
    """The strings of one language, with placeholders filled: as Markdown, as HTML for Plotly, or plain.

    The catalogue writes symbols as π_θ, α_KL, η*; how they are set is `notation`'s business.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._entries = entries(language)

    def __call__(self, key: str, **values: Any) -> str:
        """As Markdown, for everything that Streamlit renders."""
        return self._fill(key, notation.markdown, values)

    def html(self, key: str, **values: Any) -> str:
        """As HTML, for Plotly."""
        return self._fill(key, notation.html, values)

    def plain(self, key: str, **values: Any) -> str:
        """As it stands, where neither Markdown nor HTML is understood (menus, page titles, alternative texts)."""
        return self._fill(key, str, values)

    def _fill(self, key: str, render: Callable[[str], str], values: Mapping[str, Any]) -> str:
        # Filled first: LaTeX has braces of its own.
        return render(self._entries[key].format_map(values))

    def __contains__(self, key: str) -> bool:
        return key in self._entries


@cache
def entries(language: str) -> dict[str, str]:
    """All entries of a language with dotted keys."""
    flat: dict[str, str] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for key, value in table.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            elif prefix + key in flat:
                raise ValueError(f"two files of {language} have an entry {prefix + key}")
            else:
                flat[prefix + key] = value

    for source in sorted((files("geomix_app") / "text" / language).iterdir(), key=lambda file: file.name):
        walk("", tomllib.loads(source.read_text("utf-8")))
    claims = {f"claim.{name}.{k}": v for name in CLAIMS for k, v in asdict(words(name, language)).items()}
    why = {f"claim.reason.{key}": reason(key, language) for key in reasons()}
    # What a claim has no words for (a proof, say) has no entry.
    return flat | {k: v for k, v in (claims | why).items() if v}


@cache
def catalogue(language: str) -> Catalogue:
    """The catalogue of a language, loaded once."""
    return Catalogue(language)
