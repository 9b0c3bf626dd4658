"""What a statement of your own may speak of: the document's quantities by name, each evaluated on a bench.

A quantity is NaN on rows where it is not defined, as α_SNR is where SNR singles out no α; a claim says nothing there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import torch
from torch import Tensor

from geomix_core.claims.bench import Bench
from geomix_core.claims.conditions import COVERED, OVERLAP, Condition
from geomix_core.criteria import AlphaResult
from geomix_core.divergences import bhattacharyya, chi2, entropy, ess_fraction, kl, total_variation
from geomix_core.geodesics import e_geodesic, m_geodesic, tilted_moments
from geomix_core.progress import exact_progress, exact_step, third_cumulant
from geomix_core.status import Status

LARGEST_STEP = 1000.0
"""η of a statement."""


class Kind(StrEnum):
    """What a quantity is, or takes."""

    NUMBER = "number"
    """`[B]`."""
    POLICY = "policy"
    """log-probabilities `[B, V]`."""
    PARAMETER = "parameter"
    """A number that must lie in [0, 1], as α does."""
    STEP = "step"
    """A number that must lie in [0, `LARGEST_STEP`], as η does."""


@dataclass(frozen=True, eq=False)
class Quantity:
    """One name of the language."""

    name: str
    symbol: str
    """The other way to write it: the document's, where it has one."""
    gives: Kind
    takes: tuple[Kind, ...]
    of: Callable[..., Tensor]
    """(bench, *arguments) -> `[B]`, or `[B, V]` for a policy."""
    needs: tuple[Condition, ...] = ()
    uses: frozenset[str] = frozenset()
    """As of a claim."""

    @property
    def is_function(self) -> bool:
        """A function of numbers alone, such as √."""
        return bool(self.takes) and set(self.takes) == {Kind.NUMBER}


def _single(result: AlphaResult, like: Tensor) -> Tensor:
    """α where the criterion singles one out."""
    single = [s in (Status.SOLVED, Status.SOLVED_ON_COMMON_SUPPORT) for s in result.status]
    return result.alpha.to(like).masked_fill(~torch.tensor(single, device=like.device), torch.nan)


def _chernoff(bench: Bench) -> Tensor:
    alpha = _single(bench.kl_symmetry, bench.batch.theta)
    information = -tilted_moments(bench.batch, alpha.nan_to_num(0.5)).log_partition
    return information.masked_fill(alpha.isnan(), torch.nan)


def _uniform(bench: Bench) -> Tensor:
    return torch.full_like(bench.batch.theta, -math.log(bench.batch.vocab_size))


def _reference(bench: Bench) -> Tensor:
    reference = bench.batch.reference
    return bench.batch.theta if reference is None else reference


def _constant(bench: Bench, value: float) -> Tensor:
    return torch.full((len(bench),), value, dtype=bench.batch.theta.dtype)


def _best_progress(bench: Bench, alpha: Tensor) -> Tensor:
    step = exact_step(bench.batch, alpha, bench.setting.weights)
    bounded = step.isfinite()
    gain = exact_progress(bench.batch, alpha, step.masked_fill(~bounded, 0.0), bench.setting.weights)
    return gain.masked_fill(~bounded, torch.nan)


_POLICY, _ALPHA, _ETA, _X = Kind.POLICY, Kind.PARAMETER, Kind.STEP, Kind.NUMBER
_REWARD = frozenset({"weights", "reference"})


def _policy(name: str, symbol: str, of: Callable[..., Tensor], *takes: Kind, uses: str = "") -> Quantity:
    needs = (OVERLAP,) if name == "q" else ()
    return Quantity(name, symbol, _POLICY, takes, of, needs, frozenset(uses.split()))


def _number(name: str, symbol: str, of: Callable[..., Tensor], *takes: Kind) -> Quantity:
    """Of any policies, or numbers."""
    return Quantity(name, symbol, Kind.NUMBER, takes, of)


def _family(name: str, symbol: str, of: Callable[..., Tensor], *takes: Kind) -> Quantity:
    """Of the geometric family."""
    return Quantity(name, symbol, Kind.NUMBER, takes, of, (OVERLAP,))


def _learning(
    name: str, symbol: str, of: Callable[..., Tensor], *takes: Kind, uses: frozenset[str] = _REWARD
) -> Quantity:
    """Of an update."""
    return Quantity(name, symbol, Kind.NUMBER, takes, of, (OVERLAP, COVERED), uses)


_ALL = (
    _policy("theta", "π_θ", lambda b: b.batch.theta),
    _policy("target", "π_t", lambda b: b.batch.target),
    _policy("reference", "π_ref", _reference, uses="reference"),
    _policy("uniform", "u", _uniform),
    _policy("q", "q_α", lambda b, a: e_geodesic(b.batch, a), _ALPHA),
    _policy("m", "m_s", lambda b, s: m_geodesic(b.batch, s), _ALPHA),
    _number("kl", "KL", lambda b, p, q: kl(p, q), _POLICY, _POLICY),
    _number("tv", "TV", lambda b, p, q: total_variation(p, q), _POLICY, _POLICY),
    _number("chi2", "χ²", lambda b, p, q: chi2(p, q), _POLICY, _POLICY),
    _number("entropy", "H", lambda b, p: entropy(p), _POLICY),
    _number("largest", "max_p", lambda b, p: p.amax(-1).exp(), _POLICY),
    Quantity("alpha", "α", Kind.NUMBER, (), lambda b: _constant(b, b.setting.alpha), (), frozenset({"alpha"})),
    _family("alpha_kl", "α_KL", lambda b: _single(b.kl_symmetry, b.batch.theta)),
    _learning("alpha_snr", "α_SNR", lambda b: _single(b.snr, b.batch.theta)),
    _learning("alpha_wald", "α_Wald", lambda b: _single(b.wald, b.batch.theta), uses=_REWARD | {"eta_range"}),
    _family("chernoff", "C", _chernoff),
    _family("bhattacharyya", "B", lambda b: bhattacharyya(b.batch)),
    _family("fisher_rao", "d_FR", lambda b: b.lengths.fisher_rao),
    _family("e_length", "L_e", lambda b: b.lengths.e_geodesic),
    _family("m_length", "L_m", lambda b: b.lengths.m_geodesic),
    _family("delta", "Δ", lambda b, a: tilted_moments(b.batch, a).delta, _ALPHA),
    _family("z", "Z", lambda b, a: tilted_moments(b.batch, a).log_partition.exp(), _ALPHA),
    _family("variance", "Var", lambda b, a: tilted_moments(b.batch, a).variance, _ALPHA),
    _family("ess", "ESS", lambda b, a: ess_fraction(b.batch, a), _ALPHA),
    _learning("phi1", "Φ₁", lambda b, a: b.family.signal(a).phi1, _ALPHA),
    _learning("phi2", "Φ₂", lambda b, a: b.family.signal(a).phi2, _ALPHA),
    _learning("kappa3", "κ₃", lambda b, a: third_cumulant(b.batch, a, b.setting.weights), _ALPHA),
    _learning("snr", "SNR", lambda b, a: b.family.signal(a).snr, _ALPHA),
    _learning("eta_star", "η*", lambda b, a: b.family.signal(a).quadratic_step, _ALPHA),
    _learning("eta_exact", "η_exact", lambda b, a: exact_step(b.batch, a, b.setting.weights), _ALPHA),
    _learning("progress", "Progress", lambda b, a, eta: b.family.progress(a, eta), _ALPHA, _ETA),
    _learning("best_progress", "Progress_max", _best_progress, _ALPHA),
    _number("sqrt", "√", lambda b, x: x.sqrt(), _X),
    _number("log", "ln", lambda b, x: x.log(), _X),
    _number("exp", "exp", lambda b, x: x.exp(), _X),
    _number("abs", "abs", lambda b, x: x.abs(), _X),
    _number("min", "min", lambda b, x, y: torch.minimum(x, y), _X, _X),
    _number("max", "max", lambda b, x, y: torch.maximum(x, y), _X, _X),
)

QUANTITIES: Mapping[str, Quantity] = MappingProxyType({q.name: q for q in _ALL})
"""Every quantity by its name."""

BY_SPELLING: Mapping[str, Quantity] = MappingProxyType(
    {spelling.casefold(): q for q in QUANTITIES.values() for spelling in (q.name, q.symbol)}
)
"""By every way to write it, in small letters."""


def evaluate(quantity: Quantity, bench: Bench, arguments: list[Tensor]) -> Tensor:
    """The quantity on a bench; NaN on rows where an argument is not defined, or outside of what it may be."""
    undefined = torch.zeros(len(bench), dtype=torch.bool, device=bench.batch.theta.device)
    safe: list[Tensor] = []
    for kind, x in zip(quantity.takes, arguments, strict=True):
        if kind in _BOUNDS:
            low, high = _BOUNDS[kind]
            outside = ~((x >= low) & (x <= high))
            undefined |= outside
            safe.append(x.masked_fill(outside, low))
        elif kind is Kind.POLICY:
            undefined |= x.isnan().any(-1)
            safe.append(x)
        else:
            undefined |= x.isnan()
            safe.append(x)
    found = quantity.of(bench, *safe)
    return found.masked_fill(undefined.reshape(-1, *[1] * (found.dim() - 1)), torch.nan)


_BOUNDS = {Kind.PARAMETER: (0.0, 1.0), Kind.STEP: (0.0, LARGEST_STEP)}
