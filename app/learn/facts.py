"""What formulas and questions say of the row on screen, each computed when first asked for, by the core."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geomix_app import compute
from geomix_app.shell import View
from geomix_core.claims import Setting, Verdict
from geomix_core.criteria import AlphaResult
from geomix_core.summary import FamilyPoint, LearningPoint, PairSummary


@dataclass(frozen=True)
class Facts:
    """The row, α, η and weights on screen, and what follows from them. Nats throughout."""

    view: View

    @property
    def alpha(self) -> float:
        return self.view.scenario.alpha

    @property
    def eta(self) -> float:
        return self.view.scenario.eta

    @property
    def pair(self) -> PairSummary:
        return self.view.pair

    @property
    def learns(self) -> bool:
        """Whether the reward is finite wherever π_θ can go, so that Φ₁, Φ₂, SNR and progress are defined."""
        return self.pair.covered and not self.pair.disjoint

    @cached_property
    def here(self) -> FamilyPoint:
        """q at this α."""
        row = self.view.row
        found: FamilyPoint = compute.family_point(row.key, self.alpha, row.batch)
        return found

    @cached_property
    def learning(self) -> LearningPoint:
        """Signal, noise and best steps at this α."""
        return self.learning_at(self.alpha)

    def learning_at(self, alpha: float) -> LearningPoint:
        """Signal, noise and best steps at any α."""
        row = self.view.row
        found: LearningPoint = compute.learning_point(row.key, alpha, self.view.weights, row.batch)
        return found

    @cached_property
    def gained(self) -> float:
        """Exact progress at this α and η."""
        row = self.view.row
        return float(compute.progress(row.key, self.alpha, self.eta, self.view.weights, row.batch))

    @cached_property
    def family(self) -> compute.Family:
        """α_KL and the Chernoff information."""
        found: compute.Family = compute.family(self.view.row.key, self.view.row.batch)
        return found

    @cached_property
    def signal(self) -> compute.Signal:
        """α_SNR with all maxima."""
        found: compute.Signal = compute.signal(self.view.row.key, self.view.weights, self.view.row.batch)
        return found

    @cached_property
    def wald(self) -> AlphaResult:
        """α by the worst progress over the range of η."""
        return compute.wald(self.view.row.key, self.view.weights, self.view.row.batch)

    @cached_property
    def alpha_wald(self) -> float | None:
        """α_Wald where there is one."""
        return float(self.wald.alpha[0]) if self.wald.status[0].is_solution else None

    def verdict(self, claim: str) -> Verdict:
        """What a computation says of a claim here."""
        return compute.verdict(claim, Setting(weights=self.view.weights, alpha=self.alpha), self.view.row)

    @cached_property
    def watched(self) -> int:
        """The token whose probability differs most between the policies."""
        theta, target = (p[0].exp().cpu().numpy() for p in (self.view.row.batch.theta, self.view.row.batch.target))
        return int(np.abs(theta - target).argmax())
