"""The explorer on a page: a Streamlit component that draws a scene and commits α and η when the reader lets go."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import streamlit as st

from geomix_app import compute, state
from geomix_app.catalogue import Catalogue
from geomix_app.explorer.data import COLUMNS, NUMBERS, PANELS, STRIP, Mark, Row, Runs, Scene, pack
from geomix_app.explorer.sampling import Samples
from geomix_app.explorer.sentences import SINGLE, Sentences
from geomix_app.figures.style import HELPER
from geomix_app.figures.tokens import token_label
from geomix_app.glossary import ENTRIES
from geomix_app.notation import percent, runs
from geomix_app.shell import View
from geomix_core.status import Status
from geomix_core.summary import top_tokens

OF_LEARNING = ("snr", "worst", "progress", "slice")
"""Panels that need coverage."""

TOKENS = 9
"""Tokens whose probabilities are drawn, unless a page has room for more."""

SCRIPTS = ("message.js", "writing.js", "drawing.js", "plots.js", "panels.js", "controls.js", "main.js")
"""The parts of one ES module, in order: a component has one script."""

WORDS = (
    *("title_policies", "title_simplex", "title_delta", "title_kls", "title_log_partition", "title_snr"),
    *("title_worst", "title_progress", "title_slice", "exact", "share", "progress", "worst"),
    *("at_eta", "best_eta", "best_step", "of_delta", "of_kls", "of_log_partition", "linear", "log"),
    *("criterion", "current", "snr_share", "exact_gain", "gain_share"),
)
"""Strings by their name in the catalogue's section "explorer"."""

SPOKEN = {
    "spoken_alpha": (),
    "spoken_alpha_at": ("alpha", "to_theta", "to_target"),
    "spoken_eta": (),
    "spoken_eta_at": ("eta", "progress"),
    "spoken_simplex": (),
    "hint_alpha": (),
    "hint_eta": (),
}
"""Sentences for screen readers and tooltips, and what the browser fills into them."""

ROWS = {
    "kl_symmetry": "alpha_kl",
    "snr": "alpha_snr",
    "wald": "alpha_wald",
    "on_policy": "theta",
    "half": "half",
    "off_policy": "target",
}
"""Ways to choose α, and the symbol whose colour each has in the table."""


@dataclass(frozen=True)
class Parts:
    """What an explorer has around its panels, and how it shares the page.

    `numbers` are the groups of the strip. `choices` shows the table of ways to choose α. The panels take what room
    there is in the window: `below` is what the page needs below them, in pixels. `share` is the explorer's share of the
    page's width. `marks` are the symbols of the criteria marked on the α track. `says`: a sentence below each panel.
    """

    track: bool = True
    numbers: tuple[str, ...] = STRIP
    choices: bool = False
    below: int = 24
    share: float = 1.0
    tokens: int = TOKENS
    says: bool = True
    marks: tuple[str, ...] = ("alpha_kl", "alpha_snr", "alpha_wald")


def explorer(view: View, panels: Sequence[str] = PANELS, parts: Parts | None = None, key: str = "explorer") -> None:
    """Show panels that move together with α and η, and around them what `parts` says."""
    _component()(key=key, data=pack(scene(view, panels, parts or Parts())), on_point_change=state.on_point(key))


def scene(view: View, panels: Sequence[str] = PANELS, parts: Parts | None = None) -> Scene:
    """What the explorer shows of the row on screen: nothing is computed that these panels do not need."""
    parts = parts or Parts()
    row, pair, text = view.row, view.pair, view.text
    index = [int(i) for i in top_tokens(row.batch, parts.tokens)]
    learns = pair.covered and (parts.choices or any(p in OF_LEARNING for p in panels))
    lies_between = not pair.disjoint and set(panels) != {"pair"}
    samples = _samples(view, learns) if lies_between else None
    family = compute.family(row.key, row.batch) if lies_between else None
    signal = compute.signal(row.key, view.weights, row.batch) if learns else None
    named = [html.unescape(token_label(row.tokens[i], 14)) for i in index]
    log_theta, log_target = (p[0][index].cpu().numpy() for p in (row.batch.theta, row.batch.target))
    watched = int(np.argmax(np.abs(np.exp(log_theta) - np.exp(log_target))))
    marks = _marks(view, parts, family, signal)
    notes = {p: note for p, note in _notes(view, samples, signal, learns).items() if p in panels}
    said = Sentences(view, named, log_theta, log_target, watched, marks, signal)
    return Scene(
        alpha=view.scenario.alpha,
        eta=view.scenario.eta,
        language=text.language,
        tokens=named,
        log_theta=log_theta,
        log_target=log_target,
        samples=samples,
        marks=marks,
        maxima=[(m.alpha, m.value, m.sign) for m in signal.snr.maxima[0]] if signal else [],
        chernoff=family.chernoff if family and family.alpha_kl is not None else None,
        ceiling=pair.kl_target_theta,
        snr_ceiling=pair.snr_ceiling,
        snr_best=_snr_best(signal, samples),
        notes=notes,
        # A page with sentences says it there.
        remarks={} if parts.says else _remarks(view, family, signal),
        sentences={name: found for name in panels if parts.says and (found := said.of(name, samples))},
        choices=_choices(view) if parts.choices and lies_between else (),
        eta_range=compute.ETA_RANGE,
        watched=watched if samples is not None else None,
        words={name: runs(text.html(f"explorer.{name}")) for name in WORDS},
        spoken={
            name: text.plain(f"explorer.{name}", **{p: f"{{{p}}}" for p in given}) for name, given in SPOKEN.items()
        },
        helper=HELPER,
        meanings=_meanings(text, parts),
        panels=panels,
        numbers=parts.numbers,
        parts={"track": parts.track, "strip": bool(parts.numbers), "below": parts.below, "share": parts.share},
    )


def _meanings(text: Catalogue, parts: Parts) -> dict[str, str]:
    """What the numbers of the strip and the table's columns are, from the glossary."""
    shown = {number["symbol"] for name in parts.numbers for number in NUMBERS[name] if "symbol" in number}
    shown |= {column["symbol"] for column in COLUMNS} if parts.choices else set()
    return {
        symbol: ": ".join(text.plain(f"glossary.{entry.name}.{word}") for word in ("name", "means"))
        for entry in ENTRIES
        for symbol in entry.symbols
        if symbol in shown
    }


def _samples(view: View, learns: bool) -> Samples:
    row = view.row
    found: Samples = (
        compute.samples(row.key, view.weights, row.batch) if learns else compute.family_samples(row.key, row.batch)
    )
    return found


def _marks(view: View, parts: Parts, family: compute.Family | None, signal: compute.Signal | None) -> list[Mark]:
    found = [Mark("0", 0.0), Mark("½", 0.5), Mark("1", 1.0)]
    chosen = {"alpha_kl": family.kl if family else None, "alpha_snr": signal.snr if signal else None}
    if signal and "alpha_wald" in parts.marks:
        chosen["alpha_wald"] = compute.wald(view.row.key, view.weights, view.row.batch)
    for symbol in parts.marks:
        result = chosen.get(symbol)
        # Where every α solves a criterion it marks none.
        if result is not None and result.status[0] in SINGLE:
            found.append(Mark(symbol, float(result.alpha[0])))
    # The track's own precision: what snaps there shows what is written there.
    return sorted((Mark(m.symbol, round(m.alpha, 4)) for m in found), key=lambda m: m.alpha)


def _snr_best(signal: compute.Signal | None, samples: Samples | None) -> float | None:
    """The largest SNR of the family; the constant one where every α is optimal."""
    if signal is None or samples is None or "snr" not in samples.curves:
        return None
    maxima = signal.snr.maxima[0]
    return maxima[0].value if maxima else float(np.abs(samples.at("snr", 0.5)[0]))


def _choices(view: View) -> list[Row]:
    """What each way to choose α costs in the others' terms; that of the current α is the browser's to fill in."""
    found = compute.choices(view.row.key, view.weights, view.row.batch)
    return [
        Row(
            ROWS[c.name],
            runs(view.text.html(f"explorer.choice_{c.name}")),
            {
                "alpha": c.alpha,
                "kl_to_theta": c.kl_to_theta,
                "kl_to_target": c.kl_to_target,
                "ess": c.ess,
                "snr": c.snr,
                "snr_share": c.snr_share,
                "exact_gain": c.best_progress,
                "gain_share": c.ceiling_share,
            },
        )
        for c in found
    ]


def _notes(view: View, samples: Samples | None, signal: compute.Signal | None, learns: bool) -> dict[str, Runs]:
    """Why a panel has nothing to draw, in a sentence."""
    if view.pair.disjoint:
        return dict.fromkeys((*PANELS, "kls", "worst", "slice"), runs(view.text.html("notice.disjoint")))
    if samples is None or (view.pair.covered and not learns):
        return {}
    if signal is None:
        mass = percent(1 - view.pair.theta_mass, 3)
        return dict.fromkeys(OF_LEARNING, runs(view.text.html("notice.uncovered", mass=mass)))
    if samples.atoms is None:
        status = signal.snr.status[0]
        status = Status.OUT_OF_RANGE if status in SINGLE else status
        return dict.fromkeys(OF_LEARNING, runs(view.text.html(f"status.{status}")))
    return {}


def _remarks(view: View, family: compute.Family | None, signal: compute.Signal | None) -> dict[str, Runs]:
    """What must be said beside a drawing: that every α solves it, or none."""
    results = {"delta": family.kl if family else None, "snr": signal.snr if signal else None}
    return {
        panel: runs(view.text.html(f"status.{result.status[0]}"))
        for panel, result in results.items()
        if result is not None and result.status[0] not in SINGLE
    }


@cache
def script() -> str:
    """The component's ES module."""
    return "\n".join(_asset(name) for name in SCRIPTS)


@cache
def _component() -> Any:
    css, js = _asset("explorer.css"), script()
    # A name for each version: a source edited under a running server is another component, not the same one again.
    version = hashlib.blake2b((css + js).encode("utf-8"), digest_size=4).hexdigest()
    return st.components.v2.component(f"geomix.explorer-{version}", css=css, js=js)


def _asset(name: str) -> str:
    return (files("geomix_app") / "explorer" / name).read_text("utf-8")
