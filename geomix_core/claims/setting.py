"""What a claim is checked at, beside the policies."""

from __future__ import annotations

from dataclasses import dataclass

from geomix_core.criteria import Options
from geomix_core.errors import OptionError


@dataclass(frozen=True, slots=True)
class Setting(Options):
    """Weights, the η range of document §3.3, α and the budget N. A claim ignores what it does not depend on."""

    alpha: float = 0.5
    samples: int = 16
    """N of document §7.3."""

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"alpha is {self.alpha:g}: expected 0 ≤ α ≤ 1.")
        if self.samples < 1:
            raise OptionError(f"samples is {self.samples}: expected at least 1.")
