"""Where policies come from when nobody uploads any: bundled real rows, and seeded families of synthetic ones.

Every scenario is reproducible from its name and parameters. `FAMILIES` describes the parameters, so that a screen can
offer them without knowing any family by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load
from scipy.optimize import brentq
from torch import Tensor

from geomix_core.divergences import kl
from geomix_core.errors import OptionError
from geomix_core.policies import PolicyBatch
from geomix_core.transforms import temper, top_k

VOCABULARIES = (10, 100, 1_000, 10_000, 50_257, 152_000)
"""Vocabulary sizes offered for synthetic families; the last two are those of GPT-2 and of Qwen2.5, rounded."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number that a family takes: its default and range, or the choices it may have."""

    name: str
    default: float
    low: float
    high: float
    step: float = 0.0
    choices: tuple[float, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """A seeded family of policy pairs. `make(**parameters)` returns unnormalised (θ, target) logits `[V]`."""

    name: str
    parameters: tuple[Parameter, ...]
    make: Callable[..., tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the model had seen when it produced a real row."""

    prompt: str
    response_prefix: str


@dataclass(frozen=True, eq=False)
class RealRows:
    """Bundled next-token logits `[8, 49152]` (float16), their prompts and token strings (data/NOTICE.md)."""

    theta: Tensor
    target: Tensor
    prompts: tuple[Prompt, ...]
    tokens: tuple[str, ...]


REAL_PAIRS = ("privileged", "int8")


@cache
def real_rows(pair: str = "privileged") -> RealRows:
    """Eight rows of SmolLM2-135M-Instruct. Do not modify.

    privileged: π_θ is the model, π_t the same model that also saw the reference answer. int8: π_θ is the model with its
    layers rounded to eight bits, π_t the unrounded one (nearly identical policies). Raises OptionError.
    """
    if pair not in REAL_PAIRS:
        raise OptionError(f"pair is {pair!r}: expected one of {', '.join(REAL_PAIRS)}.")
    data = files("geomix_core") / "data"
    logits = load((data / f"smollm2_{pair}" / "logits.safetensors").read_bytes())
    prompts = json.loads((data / f"smollm2_{pair}" / "prompts.json").read_text("utf-8"))
    tokens = json.loads((data / "smollm2_tokens.json").read_text("utf-8"))
    return RealRows(
        logits["logits_theta"],
        logits["logits_t"],
        tuple(Prompt(p["prompt"], p["response_prefix"]) for p in prompts),
        tuple(tokens),
    )


def synthetic(family: str, **parameters: float) -> PolicyBatch:
    """One row of a synthetic family; parameters left out take their defaults.

    Raises OptionError for an unknown family or parameter, or a value outside the parameter's range.
    """
    if family not in FAMILIES:
        raise OptionError(f"family is {family!r}: expected one of {', '.join(FAMILIES)}.")
    known = {p.name: p for p in FAMILIES[family].parameters}
    for name, value in parameters.items():
        if name not in known:
            raise OptionError(f"{family} has no parameter {name!r}: expected {', '.join(known)}.")
        if not known[name].low <= value <= known[name].high:
            raise OptionError(f"{name} must lie between {known[name].low:g} and {known[name].high:g}.")
    values: dict[str, Any] = {p.name: parameters.get(p.name, p.default) for p in known.values()}
    theta, target = FAMILIES[family].make(**{k: int(v) if known[k].whole else v for k, v in values.items()})
    return PolicyBatch.from_logits(theta, target)


ReferenceKind = Literal["theta", "flattened", "earlier", "uniform"]
REFERENCES: tuple[ReferenceKind, ...] = ("theta", "flattened", "earlier", "uniform")


def reference_policy(theta: Tensor, kind: ReferenceKind) -> Tensor | None:
    """A reference π_ref for the reward, as log-probabilities like `theta` `[..., V]`; None for π_ref = π_θ.

    flattened: π_θ at temperature 2. earlier: π_θ with fixed Gaussian noise of one nat on its logits, as an earlier
    checkpoint might be. uniform: every token of the vocabulary alike, so r = log π_t + const.
    """
    if kind == "theta":
        return None
    if kind == "flattened":
        return temper(theta, 2.0)
    if kind == "earlier":
        noise = np.random.default_rng(20).standard_normal(theta.shape[-1])
        return torch.log_softmax(theta + torch.as_tensor(noise, dtype=theta.dtype, device=theta.device), -1)
    if kind == "uniform":
        return torch.full_like(theta, -float(np.log(theta.shape[-1])))
    raise OptionError(f"reference is {kind!r}: expected one of {', '.join(REFERENCES)}.")


def target_at_distance(theta: np.ndarray, direction: np.ndarray, distance: float) -> np.ndarray:
    """Logits θ + s·direction with s ≥ 0 such that KL(π_t‖π_θ) = distance (nats).

    KL grows along the ray. Raises OptionError if even its far end is nearer than `distance`.
    """
    base = torch.log_softmax(torch.as_tensor(theta), -1)
    ray = torch.as_tensor(direction)

    def excess(s: float) -> float:
        return float(kl(torch.log_softmax(base + s * ray, -1), base)) - distance

    far = 1.0
    while excess(far) < 0:
        far *= 2
        if far > 1e6:
            raise OptionError(f"No target along this direction is {distance:g} nats away: choose a smaller distance.")
    s = brentq(excess, 0.0, far, xtol=1e-10, rtol=1e-10)
    target: np.ndarray = (base + s * ray).numpy()
    return target


def _two_tokens(theta_a: float, target_a: float) -> tuple[np.ndarray, np.ndarray]:
    return np.log([theta_a, 1 - theta_a]), np.log([target_a, 1 - target_a])


def _three_tokens(spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed).standard_normal((2, 3)) * spread
    return draws[0], draws[1]


def _gaussian(vocabulary: int, spread: float, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal(vocabulary) * spread
    return theta, target_at_distance(theta, rng.standard_normal(vocabulary), distance)


def _zipf(vocabulary: int, exponent: float, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    theta = -exponent * np.log(np.arange(1, vocabulary + 1))
    return theta, target_at_distance(theta, np.random.default_rng(seed).standard_normal(vocabulary), distance)


def _dirichlet(vocabulary: int, concentration: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    # log of a Gamma(a) variate as log Gamma(a+1) + log(U)/a: small a would underflow to probability zero.
    rng = np.random.default_rng(seed)
    shape = (2, vocabulary)
    logits = np.log(rng.standard_gamma(concentration + 1, shape)) + np.log(1 - rng.random(shape)) / concentration
    return logits[0], logits[1]


def _near_identical(vocabulary: int, sigma: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal(vocabulary) * 2
    return theta, theta + sigma * rng.standard_normal(vocabulary)


def _peaked(vocabulary: int, top_mass: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)

    def one(winner: int) -> np.ndarray:
        rest = rng.standard_normal(vocabulary)
        rest[winner] = -np.inf
        rest += np.log1p(-top_mass) - np.logaddexp.reduce(rest)
        rest[winner] = np.log(top_mass)
        return rest

    first, second = rng.choice(vocabulary, 2, replace=False)
    return one(first), one(second)


def _truncated(vocabulary: int, keep: int, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    theta, target = _zipf(vocabulary, 1.1, distance, seed)
    return theta, top_k(torch.as_tensor(target), keep).numpy()


def _vocabulary(default: int) -> Parameter:
    return Parameter("vocabulary", default, 2, 1_000_000, choices=VOCABULARIES, whole=True)


_SEED = Parameter("seed", 0, 0, 9999, 1, whole=True)
_DISTANCE = Parameter("distance", 0.5, 0.001, 4.0, 0.001)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                "two_tokens",
                (Parameter("theta_a", 0.8, 0.01, 0.99, 0.01), Parameter("target_a", 0.3, 0.01, 0.99, 0.01)),
                _two_tokens,
            ),
            # The default draw bends: its geometric family is visibly longer than the Fisher–Rao arc.
            Family(
                "three_tokens",
                (Parameter("spread", 2.5, 0.1, 4.0, 0.1), Parameter("seed", 2, 0, 9999, 1, whole=True)),
                _three_tokens,
            ),
            Family(
                "gaussian",
                (_vocabulary(1_000), Parameter("spread", 2.0, 0.1, 5.0, 0.1), _DISTANCE, _SEED),
                _gaussian,
            ),
            Family("zipf", (_vocabulary(50_257), Parameter("exponent", 1.1, 0.5, 2.0, 0.05), _DISTANCE, _SEED), _zipf),
            Family(
                "dirichlet", (_vocabulary(100), Parameter("concentration", 0.5, 0.05, 5.0, 0.05), _SEED), _dirichlet
            ),
            Family(
                "near_identical",
                (
                    _vocabulary(1_000),
                    Parameter("sigma", 0.01, 1e-6, 0.1, choices=(0.1, 0.01, 1e-3, 1e-4, 1e-6)),
                    _SEED,
                ),
                _near_identical,
            ),
            Family(
                "peaked",
                (
                    _vocabulary(1_000),
                    Parameter("top_mass", 0.99, 0.5, 1 - 1e-9, choices=(0.5, 0.9, 0.99, 0.999, 0.999999)),
                    _SEED,
                ),
                _peaked,
            ),
            Family(
                "top_k",
                (_vocabulary(10_000), Parameter("keep", 50, 1, 1000, 1, whole=True), _DISTANCE, _SEED),
                _truncated,
            ),
        )
    }
)


def token_names(size: int) -> Sequence[str]:
    """Names for the tokens of a synthetic vocabulary: A, B, C, … where they suffice, else numbered."""
    return [chr(ord("A") + i) for i in range(size)] if size <= 26 else _Numbered(size)


class _Numbered(Sequence[str]):
    """ "#0", "#1", …, made when asked for."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [f"#{i}" for i in range(self._size)[index]]
        return f"#{range(self._size)[index]}"
