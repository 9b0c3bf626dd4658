"""What each panel of the explorer shows, in words; the browser chooses the variant that holds and fills in numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geomix_app import compute
from geomix_app.catalogue import Catalogue
from geomix_app.explorer.data import Live, Mark, Sentence
from geomix_app.explorer.sampling import Samples
from geomix_app.notation import parameter, percent, runs
from geomix_app.shell import View
from geomix_core.status import Status

SINGLE = (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT)
"""Statuses of a criterion that chooses one α."""

LIVE = {
    "alpha": "alpha",
    "eta": "eta",
    "delta": "delta",
    "kl_to_theta": "kl_to_theta",
    "kl_to_target": "kl_to_target",
    "watched": "q",
    "hundred": "ess",
    "snr": "snr",
    "snr_share": "snr",
    "worst": "alpha_wald",
    "progress": "progress",
    "share": "progress",
    "exact_step": "progress",
    "exact_gain": "exact_gain",
    "gain_share": "exact_gain",
    "eta_star": "second_order",
}
"""Quantities that sentences speak of while they move, and the symbol whose colour each has."""

_LIVE = re.compile("\0(\\w+)\0")


def said(text: Catalogue, name: str, **fixed: str) -> list[tuple[str, int] | Live]:
    """A sentence of the catalogue, cut into runs and numbers that move; `fixed` values stand still."""
    marked = text.html(f"explorer.says_{name}", **{q: f"\0{q}\0" for q in LIVE} | fixed)
    pieces: list[tuple[str, int] | Live] = []
    for run, level in runs(marked):
        for i, part in enumerate(_LIVE.split(run)):
            if i % 2:
                pieces.append(Live(part, LIVE[part]))
            elif part:
                pieces.append((part, level))
    return pieces


When = tuple[str, float | None, float | None]
"""Quantity, low and high: where low ≤ quantity < high."""


@dataclass(frozen=True)
class Sentences:
    """What each panel shows, in words: with numbers of today, and of the moment."""

    view: View
    tokens: Sequence[str]
    log_theta: np.ndarray
    log_target: np.ndarray
    watched: int
    marks: Sequence[Mark]
    signal: compute.Signal | None

    def of(self, panel: str, samples: Samples | None) -> list[Sentence]:
        """The sentences of one panel; none where it draws nothing."""
        if samples is None and panel not in ("policies", "pair"):
            return []
        found: list[Sentence] = getattr(self, f"_{panel}")()
        return found

    def _say(self, name: str, when: When | None = None, /, **fixed: str) -> Sentence:
        return Sentence(said(self.view.text, name, **fixed), *(when or ()))

    def _token(self) -> dict[str, str]:
        i = self.watched
        shares = {"theta": percent(np.exp(self.log_theta[i]), 2), "target": percent(np.exp(self.log_target[i]), 2)}
        return {"token": html.escape(self.tokens[i], quote=False), **shares}

    def _policies(self) -> list[Sentence]:
        return [self._say("pair" if self.view.pair.disjoint else "policies", **self._token())]

    def _pair(self) -> list[Sentence]:
        return [self._say("pair", **self._token())]

    def _kls(self) -> list[Sentence]:
        return self._nearer("kls" if self.view.pair.covered else "delta")

    def _delta(self) -> list[Sentence]:
        return self._nearer("delta")

    def _nearer(self, name: str) -> list[Sentence]:
        # At a mark α has four decimals, and the distances are equal to what is written of them.
        pair = self.view.pair
        finite = [x for x in (pair.kl_target_theta, pair.kl_theta_target) if np.isfinite(x)]
        equal = max(2e-4 * sum(finite), 1e-12) if finite else 1e-4
        return [
            self._say(f"{name}_both", ("delta", -equal, equal)),
            self._say(f"{name}_target", ("delta", equal, None)),
            self._say(f"{name}_theta"),
        ]

    def _snr(self) -> list[Sentence]:
        if self.signal is None:
            return []
        status = self.signal.snr.status[0]
        if status not in SINGLE:
            return [Sentence(runs(self.view.text.html(f"status.{status}")))]
        best = parameter(self.signal.snr.maxima[0][0].alpha)
        return [self._say("snr_negative", ("snr", None, 0.0), best=best), self._say("snr", best=best)]

    def _worst(self) -> list[Sentence]:
        best = next((parameter(m.alpha) for m in self.marks if m.symbol == "alpha_wald"), "")
        harm = self._say("worst_harm", ("worst", None, 0.0))
        return [harm, self._say("worst", best=best) if best else self._say("worst_any")]

    def _progress(self) -> list[Sentence]:
        harm = self._say("progress_harm", ("progress", None, 0.0))
        shares = [self._say("progress", ("exact_step", 0.0, None))] if self._bounded else []
        return [harm, *shares, self._say("progress_endless")]

    def _slice(self) -> list[Sentence]:
        shares = [self._say("slice", ("exact_gain", 0.0, None))] if self._bounded else []
        return [self._say("slice_harm", ("progress", None, 0.0)), *shares, self._say("slice_endless")]

    @property
    def _bounded(self) -> bool:
        """Whether there is a ceiling to take shares of."""
        return 0 < self.view.pair.kl_target_theta < np.inf
