"""q_α of chosen rows as a .safetensors file, for whoever wants to sample from it or train on it."""

from __future__ import annotations

from collections.abc import Sequence

import safetensors.torch
import torch

from geomix_core.datasets import Dataset
from geomix_core.errors import OptionError
from geomix_core.geodesics import e_geodesic

MAX_BYTES = 1 << 28
"""Of the log-probabilities: more is a task for a program of one's own."""


def rows_that_fit(data: Dataset) -> int:
    """How many rows one file may hold."""
    return max(1, MAX_BYTES // (4 * data.vocab_size))


def mixtures(data: Dataset, rows: Sequence[int], alphas: Sequence[float]) -> bytes:
    """The file: `log_q` `[n, V]`, natural logarithms of probabilities, float32, −inf where q is 0; `alpha`; `row`.

    Computed in float64 from the row's logits and then rounded. Raises OptionError, PolicyError, DisjointSupportError.
    """
    if len(rows) != len(alphas) or not 0 < len(rows) <= rows_that_fit(data):
        raise OptionError(
            f"There are {len(rows):,} rows and {len(alphas):,} values of α: expected as many of each, "
            f"and between 1 and {rows_that_fit(data):,}."
        )
    log_q = torch.stack([e_geodesic(data.row(i), a)[0].float() for i, a in zip(rows, alphas, strict=True)])
    return safetensors.torch.save(
        {
            "log_q": log_q,
            "alpha": torch.tensor(alphas, dtype=torch.float64),
            "row": torch.tensor(rows, dtype=torch.int64),
        },
        metadata={
            "format": "geomix-mixtures",
            "log_q": "natural log-probabilities of q, proportional to theta^alpha * target^(1 - alpha), float32",
        },
    )
