"""Is it worth choosing α row by row? What one α for all rows loses, and what each criterion's α loses by the others.

Three losses, 0 where α is the criterion's own choice:

kl_symmetry   max(KL(q‖π_θ), KL(q‖π_t)) / C − 1: how much farther q lies from the farther policy than the Chernoff
              information C, the least that is possible in the family
snr           1 − SNR(α) / SNR(α_SNR)
wald          (W(α_Wald) − W(α)) / KL(π_t‖π_θ), W the worst exact progress over the range of η: in shares of the ceiling
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geomix_core.compression import compress
from geomix_core.datasets import Dataset
from geomix_core.divergences import kl
from geomix_core.geodesics import tilted_moments
from geomix_core.overview import answers
from geomix_core.policies import PolicyBatch
from geomix_core.progress import exact_progress, learning_signal
from geomix_core.results import Columns, Plan

FIXED: Mapping[str, float] = {"half": 0.5, "on_policy": 1.0, "off_policy": 0.0}
"""What could be used for every row: the middle, and the document's end points."""
OWN: Mapping[str, str] = {"kl_symmetry": "alpha_kl", "snr": "alpha_snr", "wald": "alpha_wald"}
"""The column of each criterion's own choice."""
CHOICES = (*OWN.values(), *FIXED)
SAMPLE = 128
"""Rows that are compared where there are more: each costs some passes in float64."""
ROUNDING = 1e-11
"""Nats: below this, what KLs exceed C by is rounding."""


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of some rows: by criterion and choice, `[rows]` each; NaN where the row has no such α or no such loss."""

    rows: tuple[int, ...]
    loss: Mapping[tuple[str, str], np.ndarray]

    def quantile(self, criterion: str, choice: str, level: float = 0.5) -> float | None:
        """Of the rows that have this loss: 0.5 for the median. None where there are none."""
        values = self.loss.get((criterion, choice), np.empty(0))
        values = values[~np.isnan(values)]
        return float(np.quantile(values, level)) if len(values) else None

    def count(self, criterion: str, choice: str) -> int:
        """How many rows have this loss."""
        return int((~np.isnan(self.loss.get((criterion, choice), np.empty(0)))).sum())


def sample_rows(total: int, most: int = SAMPLE) -> list[int]:
    """At most so many rows, evenly spaced over all."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(total, most)).tolist()})


def merged(parts: Sequence[Losses]) -> Losses:
    """The losses of several sets of rows together."""
    keys = dict.fromkeys(key for part in parts for key in part.loss)
    return Losses(
        tuple(row for part in parts for row in part.rows),
        {key: np.concatenate([part.loss.get(key, np.full(len(part.rows), np.nan)) for part in parts]) for key in keys},
    )


def losses_of(data: Dataset, plan: Plan, table: Columns, rows: Sequence[int]) -> Losses:
    """Losses of rows of the data that a table of results holds, under the plan's criteria.

    On the atoms of each row (`compression` says how far they agree with all tokens).
    Rows without one α by KL symmetry or with infinite distances have none.
    """
    at = {row: i for i, row in enumerate(table["row"])}
    alphas = {name: answers(table, name)[[at[row] for row in rows]] if rows else np.empty(0) for name in OWN.values()}
    finite = [np.isfinite(table["kl_target_theta"][at[row]] or np.nan) for row in rows]
    sound = [k for k in range(len(rows)) if finite[k] and not np.isnan(alphas["alpha_kl"][k])]
    loss = {(c, name): np.full(len(rows), np.nan) for c in plan.criteria for name in CHOICES}
    for k in sound:
        batch = compress(data.row(rows[k]))
        found = losses(batch, {name: float(x[k]) for name, x in alphas.items()}, plan)
        for key, value in found.items():
            loss[key][k] = value
    return Losses(tuple(rows), loss)


def losses(row: PolicyBatch, own: Mapping[str, float], plan: Plan) -> dict[tuple[str, str], float]:
    """The losses of one row, given its own α by column (NaN: none)."""
    alphas = {**own, **FIXED}
    names = [name for name, alpha in alphas.items() if not np.isnan(alpha)]
    alpha = torch.tensor([alphas[name] for name in names], dtype=row.theta.dtype)[:, None]
    out: dict[tuple[str, str], float] = {}

    def add(criterion: str, values: Tensor) -> None:
        """Values `[choices]` that are 0 at the criterion's own choice up to rounding."""
        for name, value in zip(names, values.tolist(), strict=True):
            out[criterion, name] = 0.0 if name == OWN[criterion] else max(value, 0.0)

    def best(criterion: str, values: Tensor) -> Tensor | None:
        return values[names.index(OWN[criterion])] if OWN[criterion] in names else None

    if "kl_symmetry" in plan.criteria:
        moments = tilted_moments(row, alpha)
        farther = torch.maximum(moments.kl_to_theta, moments.kl_to_target)[:, 0]
        chernoff = best("kl_symmetry", farther)
        if chernoff is not None and chernoff > ROUNDING:
            add("kl_symmetry", farther / chernoff - 1)
    if not row.covered.item():
        return out
    if "snr" in plan.criteria:
        snr = learning_signal(row, alpha, plan.weights).snr[:, 0]
        highest = best("snr", snr)
        if highest is not None and 0 < highest < torch.inf:
            add("snr", 1 - snr / highest)
    if "wald" in plan.criteria:
        worst = torch.stack([exact_progress(row, alpha, eta, plan.weights)[:, 0] for eta in plan.eta_range]).amin(0)
        highest, ceiling = best("wald", worst), kl(row.target, row.theta)[0]
        if highest is not None and 0 < ceiling < torch.inf:
            add("wald", (highest - worst) / ceiling)
    return out
