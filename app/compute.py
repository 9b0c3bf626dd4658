"""Results of geomix_core, cached: the only place that caches. Keys are strings that name the content, so that
Streamlit never hashes an array; cached objects are shared between sessions and must not be modified.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
import torch

from geomix_app.explorer import sampling
from geomix_app.scenario import CUSTOM, REAL, UPLOAD, Reshape, Scenario
from geomix_core import curves, summary
from geomix_core.claims import CLAIMS, Bench, Claim, Setting, Verdict
from geomix_core.claims.ledger import ledger
from geomix_core.claims.listing import objective
from geomix_core.claims.own import claim_of
from geomix_core.compression import compress
from geomix_core.criteria import AlphaResult
from geomix_core.datasets import Dataset
from geomix_core.errors import OptionError, PolicyError
from geomix_core.geodesics import PathLengths, e_geodesic, tilted_moments
from geomix_core.lab import Problem, Proposals, propose
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights, exact_progress, exact_step
from geomix_core.scenarios import Prompt, real_rows, reference_policy, synthetic, token_names
from geomix_core.transforms import smooth, temper, top_k, top_p

EVERY_PAGE = 12
"""Rows kept by each cache: a few readers with a few scenarios each."""

DRAWN = 1024
"""Vocabularies up to this size are drawn token by token, larger ones as atoms."""

ETA_RANGE = Setting().eta_range
"""Learning rates against which the worst progress is guarded."""

ON_ATOMS = frozenset({"theorem_1", "section_4_2_pareto", "theorem_4_unique"})
"""Claims about any two policies that take many passes: true or false of the atoms as well."""
FOR_STEPS = frozenset({"theorem_2_step", "theorem_2_gain", "theorem_3_minimax", "section_5_4_alpha", "section_5_4_snr"})
"""Claims that take many passes, and whose numbers stand elsewhere on the page too."""


@dataclass(frozen=True, eq=False)
class Row:
    """The row on screen: policies `[1, V]`, token names, and where it came from."""

    key: str
    batch: PolicyBatch
    tokens: Sequence[str]
    prompt: Prompt | None = None


@dataclass(frozen=True, eq=False)
class Family:
    """What the α-pages need of a row that has a geometric family."""

    kl: AlphaResult
    chernoff: float

    @property
    def alpha_kl(self) -> float | None:
        """α_KL where there is one."""
        return float(self.kl.alpha[0]) if self.kl.status[0].is_solution else None


@dataclass(frozen=True, eq=False)
class Signal:
    """What depends on the weight convention; only rows with coverage have it."""

    snr: AlphaResult

    @property
    def alpha_snr(self) -> float | None:
        """α_SNR where there is one."""
        return float(self.snr.alpha[0]) if self.snr.status[0].is_solution else None


@dataclass(frozen=True, eq=False)
class Slices:
    """Exact progress `[E, A]` along α at some η, and the gain of each α's best η `[A]` (NaN: infinite); nats."""

    alpha: np.ndarray
    eta: tuple[float, ...]
    progress: np.ndarray
    best_gain: np.ndarray


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to choose α, and what it costs in the others' terms; None where undefined."""

    name: str
    alpha: float
    kl_to_theta: float
    kl_to_target: float
    ess: float
    snr: float | None
    snr_share: float | None
    best_progress: float | None
    ceiling_share: float | None


@st.cache_resource(show_spinner=False)
def settle_memory() -> None:
    """Once a process: exempt what is loaded by now from garbage collection.

    Streamlit collects everything after each run, which holds back the run's last messages: with torch and SciPy loaded
    that was about 0.25 s of each move of a slider.
    """
    gc.collect()
    gc.freeze()


def row(scenario: Scenario, upload: Dataset | None) -> Row:
    """The policies that a scenario names. Raises GeomixError where there are none to be had."""
    content = ""
    if upload is not None and scenario.source == UPLOAD:
        content = upload.digest(min(scenario.row, len(upload) - 1))
    return _row(scenario.policies_key + content, scenario, upload)


def check(scenario: Scenario) -> None:
    """Raise GeomixError where a scenario has no policies to show."""
    row(scenario, None)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def _row(key: str, _scenario: Scenario, _upload: Dataset | None) -> Row:
    source, prompt = _scenario.source, None
    names: Sequence[str] | None = None
    if source == REAL:
        real = real_rows()
        names = real.tokens
        index = min(_scenario.row, len(real.prompts) - 1)
        raw = PolicyBatch.from_logits(real.theta[index], real.target[index])
        prompt = real.prompts[index]
    elif source == CUSTOM:
        raw, names = _from_table(_scenario), [r.token for r in _scenario.table]
    elif source == UPLOAD:
        if _upload is None:
            raise OptionError("upload_missing")
        index = min(_scenario.row, len(_upload) - 1)
        raw, names = _upload.row(index), _upload.tokens
        prompt = None if _upload.prompts is None else _upload.prompts[index]
    else:
        raw = synthetic(source, **dict(_scenario.parameters))
    theta = smooth(_reshape(raw.theta, _scenario.theta), _scenario.epsilon)
    target = smooth(_reshape(raw.target, _scenario.target), _scenario.epsilon)
    reference = raw.reference if raw.reference is not None else reference_policy(theta, _scenario.reference)  # type: ignore[arg-type]
    batch = PolicyBatch(theta, target, reference)
    return Row(key, batch, names if names is not None else token_names(batch.vocab_size), prompt)


def _from_table(scenario: Scenario) -> PolicyBatch:
    names = ("theta", "target", "reference") if scenario.own_reference else ("theta", "target")
    columns = [np.array([getattr(r, name) for r in scenario.table], dtype=np.float64) for name in names]
    if scenario.table_kind == "logits":
        return PolicyBatch.from_logits(*columns)
    for weights in columns:
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise PolicyError("table_weights")
    # By the largest first: the sum of weights near the limit of a float would overflow.
    columns = [weights / weights.max() for weights in columns]
    return PolicyBatch.from_probs(*(weights / weights.sum() for weights in columns))


def _reshape(log_p: torch.Tensor, how: Reshape) -> torch.Tensor:
    out = log_p if how.temperature == 1 else temper(log_p, how.temperature)
    out = out if how.top_k == 0 else top_k(out, how.top_k)
    return out if how.top_p == 1 else top_p(out, how.top_p)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def pair(key: str, _batch: PolicyBatch) -> summary.PairSummary:
    """Divergences of the pair."""
    return summary.pair_summary(_batch)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def atoms(key: str, _batch: PolicyBatch) -> PolicyBatch:
    """The row compressed, for everything that is drawn."""
    return compress(_batch, limit=DRAWN)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def histogram(key: str, _batch: PolicyBatch) -> summary.RatioHistogram:
    """The distribution of ℓ."""
    return summary.ratio_histogram(_batch)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def family(key: str, _batch: PolicyBatch) -> Family:
    """α_KL and the Chernoff information."""
    result = _bench(key, Setting(), _batch).kl_symmetry
    low = tilted_moments(_batch, result.alpha.to(_batch.theta)).log_partition
    return Family(result, max(0.0, -float(low)))


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def family_curves(key: str, _batch: PolicyBatch) -> curves.FamilyCurves:
    """The family along α."""
    return curves.family_curves(atoms(key, _batch))


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def listed_objective(key: str, _batch: PolicyBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """α, Δ(α), and what the document's listing takes for it, on all tokens."""
    family = family_curves(key, _batch)
    alpha, exact = family.alpha[::3], family.delta[::3]
    theta, target = _batch.theta.double().exp(), _batch.target.double().exp()
    listed = [objective(theta, target, torch.full_like(theta[:, 0], a)).item() for a in alpha]
    return alpha, exact, np.array(listed)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def signal(key: str, weights: Weights, _batch: PolicyBatch) -> Signal:
    """α_SNR with all local maxima."""
    return Signal(_bench(f"{key} for steps", Setting(weights=weights), for_steps(key, _batch)).snr)


def wald(key: str, weights: Weights, batch: PolicyBatch) -> AlphaResult:
    """α by the worst exact progress over the default range of η."""
    found: AlphaResult = _bench(f"{key} for steps", Setting(weights=weights), for_steps(key, batch)).wald
    return found


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def signal_curves(key: str, weights: Weights, _batch: PolicyBatch) -> curves.SignalCurves:
    """Φ₁, Φ₂ and SNR along α. Raises CoverageError."""
    return curves.signal_curves(atoms(key, _batch), weights)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def lengths(key: str, _batch: PolicyBatch) -> PathLengths:
    """Fisher–Rao lengths of the three paths."""
    return _bench(key, Setting(), _batch).lengths


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def planes(key: str, _batch: PolicyBatch) -> dict[str, curves.Path]:
    """The three paths in the plane of the two KLs."""
    found = lengths(key, _batch)
    return curves.path_planes(
        atoms(key, _batch), (float(found.e_geodesic), float(found.m_geodesic), float(found.fisher_rao))
    )


@st.cache_data(max_entries=100, show_spinner=False)
def family_point(key: str, alpha: float, _batch: PolicyBatch) -> summary.FamilyPoint:
    """q_α at one α, on all tokens."""
    return summary.family_point(_batch, alpha)


def for_steps(key: str, batch: PolicyBatch) -> PolicyBatch:
    """What quantities are evaluated on that need many passes.

    For r = ℓ the atoms agree with all tokens to 1e-6 (measured: 1e-8 on language-model rows), far below the digits
    shown. With an independent reference they do not, and all tokens are used.
    """
    reduced: PolicyBatch = atoms(key, batch) if batch.reference is None else batch
    return reduced


@st.cache_data(max_entries=100, show_spinner=False)
def learning_point(key: str, alpha: float, weights: Weights, _batch: PolicyBatch) -> summary.LearningPoint:
    """Signal, noise and best steps at one α."""
    return summary.learning_point(for_steps(key, _batch), alpha, weights)


def mixture(batch: PolicyBatch, alpha: float) -> np.ndarray:
    """q_α as probabilities `[V]`."""
    return e_geodesic(batch, alpha)[0].exp().cpu().numpy()


@st.cache_data(max_entries=100, show_spinner=False)
def progress(key: str, alpha: float, eta: float, weights: Weights, _batch: PolicyBatch) -> float:
    """Exact progress at one (α, η)."""
    return exact_progress(for_steps(key, _batch), alpha, eta, weights).item()


def step_range(point: summary.LearningPoint, eta: float) -> float:
    """How far the η axis reaches: past the exact optimum, η* and the chosen η, rounded up to 1, 2 or 5 × 10ⁿ."""
    steps = [1.15 * eta, 1.8 * point.exact_step, 1.3 * point.quadratic_step, 1e-6]
    return _nice(max(s for s in steps if np.isfinite(s)))


def _nice(wanted: float) -> float:
    """The next of 1, 2, 5 × 10ⁿ: axes that do not change with every move of a slider."""
    unit = 10.0 ** np.floor(np.log10(wanted))
    return float(next(m * unit for m in (1, 2, 5, 10) if m * unit >= wanted * (1 - 1e-9)))


@st.cache_data(max_entries=100, show_spinner=False)
def map_range(key: str, weights: Weights, eta: float, _batch: PolicyBatch) -> float:
    """How far the η axis of the map reaches: the exact optima at both ends and the middle, and the chosen η."""
    points = [learning_point(key, a, weights, _batch) for a in (0.0, 0.5, 1.0)]
    finite = [p.exact_step for p in points if np.isfinite(p.exact_step)]
    return _nice(max([1.15 * eta, *(1.3 * s for s in finite), 1e-6]))


@st.cache_resource(max_entries=4 * EVERY_PAGE, show_spinner=False)
def step_curves(key: str, alpha: float, reach: float, weights: Weights, _batch: PolicyBatch) -> curves.StepCurves:
    """Progress against η."""
    return curves.step_curves(atoms(key, _batch), alpha, reach, weights)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def slices(key: str, etas: tuple[float, ...], weights: Weights, _batch: PolicyBatch, points: int = 101) -> Slices:
    """Progress along α at each η. Raises CoverageError."""
    reduced = atoms(key, _batch)
    alpha = torch.linspace(0, 1, points, dtype=reduced.theta.dtype)
    steps = exact_step(reduced, alpha[:, None], weights)[:, 0]
    eta = torch.as_tensor(etas, dtype=reduced.theta.dtype)
    found = [
        exact_progress(reduced, a, torch.cat([eta, step[None].nan_to_num(0, 0, 0)])[:, None], weights)[:, 0]
        for a, step in zip(alpha, steps, strict=True)
    ]
    gains = torch.stack(found, 1).numpy()
    best = np.where(np.isfinite(steps.numpy()), gains[-1], np.nan)
    return Slices(alpha.numpy(), etas, gains[:-1], best)


@st.cache_resource(max_entries=4 * EVERY_PAGE, show_spinner=False)
def expansion_error(
    key: str, alpha: float, step: float, weights: Weights, _batch: PolicyBatch
) -> curves.ExpansionError:
    """The error of the expansion against η."""
    return curves.expansion_error(atoms(key, _batch), alpha, step, weights)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def samples(key: str, weights: Weights, _batch: PolicyBatch) -> sampling.Samples:
    """What the explorer computes with. Raises DisjointSupportError, CoverageError."""
    return sampling.sample(atoms(key, _batch), weights)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def family_samples(key: str, _batch: PolicyBatch) -> sampling.Samples:
    """The same of the family alone. Raises DisjointSupportError."""
    return sampling.sample_family(atoms(key, _batch))


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def progress_map(key: str, reach: float, weights: Weights, _batch: PolicyBatch) -> curves.ProgressMap:
    """Exact progress over (α, η)."""
    return curves.progress_map(atoms(key, _batch), reach, weights)


@st.cache_resource(max_entries=4 * EVERY_PAGE, show_spinner=False)
def choices(key: str, weights: Weights, _batch: PolicyBatch) -> list[Choice]:
    """The criteria and the document's end points side by side."""
    found = family(key, _batch)
    named: list[tuple[str, float | None]] = [("kl_symmetry", found.alpha_kl)]
    if pair(key, _batch).covered:
        named.append(("snr", signal(key, weights, _batch).alpha_snr))
        by_wald = wald(key, weights, _batch)
        named.append(("wald", float(by_wald.alpha[0]) if by_wald.status[0].is_solution else None))
    named += [("half", 0.5), ("on_policy", 1.0), ("off_policy", 0.0)]
    return [choice(key, name, alpha, weights, _batch) for name, alpha in named if alpha is not None]


@st.cache_resource(max_entries=100, show_spinner=False)
def choice(key: str, name: str, alpha: float, weights: Weights, _batch: PolicyBatch) -> Choice:
    """One choice of α and what it costs."""
    point = summary.family_point(for_steps(key, _batch), alpha)
    kls = (point.kl_to_theta, point.kl_to_target, point.ess)
    about = pair(key, _batch)
    if not about.covered:
        return Choice(name, alpha, *kls, None, None, None, None)
    learning = learning_point(key, alpha, weights, _batch)
    maxima = signal(key, weights, _batch).snr.maxima[0]
    best = maxima[0].value if maxima else abs(learning.signed_snr)
    return Choice(
        name,
        alpha,
        *kls,
        learning.signed_snr,
        abs(learning.signed_snr) / best if 0 < best < np.inf else None,
        learning.exact_gain,
        learning.exact_gain / about.kl_target_theta if 0 < about.kl_target_theta < np.inf else None,
    )


def verdict(name: str, setting: Setting, row: Row) -> Verdict:
    """What a computation says of a claim of the document on this row.

    Claims are decided again only when something moves that they depend on (`Claim.uses`).
    """
    found: Verdict = _verdict(row.key, name, setting_of(CLAIMS[name], setting), row.batch)
    return found


@st.cache_data(max_entries=400, show_spinner=False)
def _verdict(key: str, name: str, setting: Setting, _batch: PolicyBatch) -> Verdict:
    if name in ON_ATOMS:
        bench = _bench(f"{key} atoms", setting, atoms(key, _batch))
    elif name in FOR_STEPS:
        bench = _bench(f"{key} for steps", setting, for_steps(key, _batch))
    else:
        bench = _bench(key, setting, _batch)
    return CLAIMS[name].on(bench).verdict()


def verdicts(setting: Setting, row: Row) -> dict[str, Verdict]:
    """The verdict on every claim, in the document's order."""
    return {name: verdict(name, setting, row) for name in CLAIMS}


def own_verdict(statement: str, setting: Setting, row: Row) -> Verdict:
    """The same of a statement of the reader's own. Raises ExpressionError."""
    own = claim_of(statement)
    found: Verdict = _own_verdict(row.key, statement, setting_of(own, setting), row.batch)
    return found


@st.cache_data(max_entries=400, show_spinner=False)
def _own_verdict(key: str, statement: str, setting: Setting, _batch: PolicyBatch) -> Verdict:
    return claim_of(statement).on(_bench(key, setting, _batch)).verdict()


@st.cache_data(max_entries=2 * len(CLAIMS), show_spinner=False)
def known_counterexample(name: str, weights: Weights) -> Verdict | None:
    """The verdict on the smallest policies known to break a claim; None where none are known."""
    record = ledger().of(name, weights)
    table = record.counterexample
    return None if table is None else CLAIMS[name].check(table.batch, record.setting)


def setting_of(claim: Claim, setting: Setting) -> Setting:
    """What of a setting the claim depends on; the rest at its default."""
    return Setting(**{name: getattr(setting, name) for name in sorted(claim.uses - {"reference"})})


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def problem(key: str, weights: Weights, _batch: PolicyBatch) -> Problem:
    """The row as the sampling lab takes it. Raises DisjointSupportError, CoverageError."""
    return Problem(_batch, weights)


@st.cache_resource(max_entries=EVERY_PAGE, show_spinner=False)
def proposals(key: str, weights: Weights, names: tuple[str, ...], alpha: float, _batch: PolicyBatch) -> Proposals:
    """The sampling distributions of these names; `alpha` is that of the one called "alpha"."""
    return propose(problem(key, weights, _batch), names, alpha=alpha)


@st.cache_resource(max_entries=EVERY_PAGE // 2, show_spinner=False)
def _bench(key: str, setting: Setting, _batch: PolicyBatch) -> Bench:
    """What claims share of one row at one setting; its parts are computed when they are asked for."""
    return Bench(_batch, setting)
