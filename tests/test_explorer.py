"""What the explorer sends to the browser: samples that interpolate to the core's values, and the message's contract."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from geomix_app.compute import DRAWN
from geomix_app.explorer.component import WORDS
from geomix_app.explorer.data import COLUMNS, LIMIT, NUMBERS, PANELS, VERSION, Mark, Scene, pack, unpack
from geomix_app.explorer.sampling import Samples, interpolate, reaching, sample, sample_family
from geomix_app.notation import SYMBOLS
from geomix_core import exact_progress, exact_step, learning_signal
from geomix_core.compression import compress
from geomix_core.divergences import ess_fraction
from geomix_core.geodesics import e_geodesic, tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights
from geomix_core.scenarios import REFERENCES, ReferenceKind, real_rows, reference_policy, synthetic
from geomix_core.tilts import TiltFamily


def bundled(row: int, pair: str = "privileged") -> PolicyBatch:
    rows = real_rows(pair)
    return PolicyBatch.from_logits(rows.theta[row], rows.target[row])


ROWS: dict[str, Callable[[], PolicyBatch]] = {
    "two tokens": lambda: synthetic("two_tokens"),
    "three tokens": lambda: synthetic("three_tokens"),
    "gaussian": lambda: synthetic("gaussian"),
    "far": lambda: synthetic("gaussian", distance=4.0),
    "far, large": lambda: synthetic("zipf", vocabulary=20_000, distance=4.0),
    "cliff": lambda: synthetic("peaked", vocabulary=20_000, top_mass=0.999999),
    "dirichlet": lambda: synthetic("dirichlet"),
    "near-identical": lambda: synthetic("near_identical"),
    "real 0": lambda: bundled(0),
    "real 5": lambda: bundled(5),
    "real, int8": lambda: bundled(0, "int8"),
}
CONVENTIONS: tuple[Weights, ...] = ("importance", "inverse")


@cache
def sampled(name: str, weights: Weights) -> tuple[PolicyBatch, Samples]:
    row = ROWS[name]()
    return row, sample(compress(row, limit=DRAWN), weights)


# --- interpolation ---------------------------------------------------------------------------------------------------


def test_interpolation_is_exact_for_polynomials_of_its_order() -> None:
    rng = np.random.default_rng(0)
    nodes = np.sort(rng.uniform(size=20))
    x = rng.uniform(nodes[0], nodes[-1], 50)
    coefficients = rng.normal(size=6)
    values = np.stack([np.polyval(coefficients, nodes), np.polyval(coefficients[:3], nodes)])
    expected = np.stack([np.polyval(coefficients, x), np.polyval(coefficients[:3], x)])
    np.testing.assert_allclose(interpolate(nodes, values, x), expected, rtol=0, atol=1e-9)


def test_interpolation_meets_its_samples_and_copes_with_few() -> None:
    nodes, values = np.array([0.0, 0.2, 1.0]), np.array([3.0, -1.0, 2.0])
    np.testing.assert_allclose(interpolate(nodes, values, nodes), values)


@pytest.mark.parametrize("weights", CONVENTIONS)
@pytest.mark.parametrize("name", ROWS)
def test_curves_between_samples_are_the_core_s(name: str, weights: Weights) -> None:
    row, found = sampled(name, weights)
    alpha = np.random.default_rng(1).uniform(size=12)
    a = torch.as_tensor(alpha)[:, None]
    moments, signal = tilted_moments(row, a), learning_signal(row, a, weights)
    curves = {
        "delta": moments.delta,
        "variance": moments.variance,
        "kl_to_theta": moments.kl_to_theta,
        "kl_to_target": moments.kl_to_target,
        "ess": ess_fraction(row, a),
        "snr": signal.signed_snr,
    }
    for curve, exact in curves.items():
        values = exact.numpy().ravel()
        # Of the range along α; two tokens have a constant SNR.
        span = max(float(np.ptp(found.at(curve, np.linspace(0, 1, 101)))), 1e-9 * float(np.abs(values).max()))
        assert np.abs(found.at(curve, alpha) - values).max() <= 1e-4 * span, curve
    for curve, exact in {"phi1": signal.phi1, "phi2": signal.phi2, "eta_star": signal.quadratic_step}.items():
        np.testing.assert_allclose(found.at(curve, alpha), exact.numpy().ravel(), rtol=1e-4, err_msg=curve)
    # The tokens are as exact as this.
    log_z = moments.log_partition.numpy().ravel()
    np.testing.assert_allclose(found.at("log_partition", alpha), log_z, rtol=0, atol=1e-6)


def progress_of(found: Samples, alpha: float, eta: np.ndarray) -> np.ndarray:
    """Exact progress at η `[E]` as the browser sums it, in units of progress."""
    atoms = found.atoms
    assert atoms is not None
    log_z = found.at("log_partition", alpha)[0]
    h = atoms.reward * np.exp(np.minimum(atoms.slope * ((1 - alpha) * atoms.ell - log_z), 690))
    mean, signal = atoms.theta @ h, atoms.gap @ h
    x = np.outer(eta, h)
    top = x.max(1)
    large = eta * (atoms.target @ h) - top - np.log(np.exp(x - top[:, None]) @ atoms.theta)
    centred = np.outer(eta, h - mean)
    small = eta * signal - np.log1p(np.expm1(np.minimum(centred, 1)) @ atoms.theta)
    return np.where(np.abs(centred).max(1) <= 1, small, large) / atoms.unit


def assert_progress(row: PolicyBatch, found: Samples, weights: Weights, tolerance: float) -> None:
    """At α and η that reach from nothing gained to six ceilings lost, the sum is the core's on all tokens."""
    assert found.atoms is not None
    unit, deepest = found.atoms.unit, 0.0
    for alpha in (0.0, *np.random.default_rng(2).uniform(size=3), 1.0):
        # From η at which the quadratic has lost one unit to where an update does great harm, and what a reader sees.
        start = 0.5 * (np.log(2 * unit) - learning_signal(row, alpha, weights).log_phi2.item())
        eta = np.concatenate([np.exp(start + np.linspace(-6, 12, 25)), [0.5, 1.0, 2.0]])
        exact = exact_progress(row, float(alpha), torch.as_tensor(eta)[:, None], weights).numpy().ravel() / unit
        seen = exact >= -6
        deepest = min(deepest, exact[seen].min())
        error = np.abs(progress_of(found, alpha, eta) - exact)[seen]
        assert (error <= tolerance * np.maximum(1, -20 * exact[seen])).all(), (alpha, error.max())
    assert deepest < -0.25


@pytest.mark.parametrize("weights", CONVENTIONS)
@pytest.mark.parametrize("name", ROWS)
def test_progress_is_the_core_s_on_all_tokens(name: str, weights: Weights) -> None:
    assert_progress(*sampled(name, weights), weights, 1e-6)


@pytest.mark.parametrize("weights", CONVENTIONS)
@pytest.mark.parametrize("reference", REFERENCES[1:])
@pytest.mark.parametrize("name", ["real 0", "far, large", "cliff", "dirichlet"])
def test_progress_with_a_reference_of_its_own(name: str, reference: ReferenceKind, weights: Weights) -> None:
    row = ROWS[name]()
    row = PolicyBatch(row.theta, row.target, reference_policy(row.theta, reference))
    assert_progress(row, sample(compress(row, limit=DRAWN), weights), weights, 1e-4)


@pytest.mark.parametrize("weights", CONVENTIONS)
@pytest.mark.parametrize("reference", REFERENCES[1:])
@pytest.mark.parametrize(
    ("concentration", "vocabulary"), [(0.05, 20_000), (0.05, 152_000), (0.2, 20_000), (0.5, 20_000)]
)
def test_progress_where_policies_are_tens_of_nats_apart(
    concentration: float, vocabulary: int, reference: ReferenceKind, weights: Weights
) -> None:
    row = synthetic("dirichlet", vocabulary=vocabulary, concentration=concentration)
    row = PolicyBatch(row.theta, row.target, reference_policy(row.theta, reference))
    found = sample(compress(row, limit=DRAWN), weights)
    assert found.atoms is not None
    for alpha in (0.0, 0.3, 0.65, 0.85, 1.0):
        # Down from the step that loses half a ceiling, on either side of which a few tokens take over.
        largest = float(TiltFamily(row, weights).tilt(torch.tensor(alpha, dtype=torch.float64)).abs().max())

        def progress(log_eta: float | np.ndarray, alpha: float = alpha) -> np.ndarray:
            eta = torch.as_tensor(np.exp(np.atleast_1d(log_eta)))[:, None]
            values: np.ndarray = exact_progress(row, alpha, eta, weights).numpy().ravel() / found.atoms.unit
            return values

        start = -np.log(largest) - 8
        log_eta = brentq(lambda x: max(progress(x)[0], -2) + 0.5, start, start + 600, xtol=1e-3)
        log_eta = log_eta - np.array([0.01, 0.1, 0.3, 0.6, 1, 2, 4])
        error = np.abs(progress_of(found, alpha, np.exp(log_eta)) - progress(log_eta))
        assert error.max() <= 1e-4, alpha
    assert len(pack(scene(samples=found))) <= LIMIT


@pytest.mark.parametrize("weights", CONVENTIONS)
@pytest.mark.parametrize("name", ["gaussian", "far, large", "cliff", "real 0"])
def test_exact_optimum_between_samples_is_the_core_s(name: str, weights: Weights) -> None:
    row, found = sampled(name, weights)
    assert found.atoms is not None
    alpha = np.random.default_rng(4).uniform(size=5)
    step = exact_step(row, torch.as_tensor(alpha)[:, None], weights)
    gain = exact_progress(row, torch.as_tensor(alpha)[:, None], step, weights).numpy().ravel()
    np.testing.assert_allclose(found.at("exact_step", alpha), step.numpy().ravel(), rtol=1e-3)
    assert np.abs(found.at("exact_gain", alpha) - gain).max() <= 2e-5 * found.atoms.unit


def test_row_without_coverage_has_its_family_only() -> None:
    found = sample_family(compress(synthetic("top_k")))
    assert set(found.curves) == {"log_partition", "delta", "variance", "kl_to_theta", "kl_to_target"}
    assert found.atoms is None


def test_identical_policies_have_nothing_to_learn() -> None:
    row = PolicyBatch.from_probs([0.2, 0.3, 0.5], [0.2, 0.3, 0.5])
    found = sample(row, "importance")
    assert found.atoms is None
    assert (found.reach, found.logarithmic) == (2.0, False)
    assert np.abs(found.curves["delta"].values).max() == 0


def test_axis_of_steps_shows_the_step_and_stays() -> None:
    assert reaching(2.0, 1.0) == 2.0
    grown = reaching(2.0, 7.3)
    assert grown >= 7.3
    assert reaching(2.0, grown) == grown


# --- the message -----------------------------------------------------------------------------------------------------


def scene(name: str = "gaussian", **changes: object) -> Scene:
    row, samples = sampled(name, "importance")
    top = row.theta[0].topk(min(9, row.vocab_size)).indices
    made = Scene(
        alpha=0.5,
        eta=1.0,
        language="en",
        tokens=[f"t{i}" for i in range(len(top))],
        log_theta=row.theta[0][top].numpy(),
        log_target=row.target[0][top].numpy(),
        samples=samples,
        marks=[Mark("0", 0.0), Mark("alpha_kl", 0.49), Mark("1", 1.0)],
        maxima=[(1.0, 1.04, 1)],
        chernoff=0.1,
        ceiling=0.5,
        snr_ceiling=float("inf"),
        notes={},
        remarks={},
        words={"exact": [("exact", 0)]},
        spoken={"spoken_alpha": "α"},
        helper="#888888",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_message_arrives_as_it_was_sent() -> None:
    sent = scene()
    assert sent.samples is not None
    assert sent.samples.atoms is not None
    header, arrays = unpack(pack(sent))
    assert header["version"] == VERSION
    assert (header["alpha"], header["eta"]) == (0.5, 1.0)
    assert header["panels"] == list(PANELS)
    assert header["scalars"] == {"chernoff": 0.1, "ceiling": 0.5, "snr_ceiling": None, "snr_best": None}
    np.testing.assert_array_equal(arrays["alpha"], sent.samples.alpha)
    np.testing.assert_array_equal(arrays["tokens.theta"], sent.log_theta)
    for name, curve in sent.samples.curves.items():
        np.testing.assert_array_equal(arrays[f"curves.{name}"], curve.values)
        assert header["curves"][name] == [curve.encoding, curve.scale]
    for name in ("theta", "target", "gap", "ell"):
        np.testing.assert_array_equal(arrays[f"atoms.{name}"], getattr(sent.samples.atoms, name))
    assert "atoms.reward" not in arrays  # it is ℓ


def test_reward_of_its_own_is_sent() -> None:
    row = synthetic("gaussian")
    row = PolicyBatch(row.theta, row.target, reference_policy(row.theta, "uniform"))
    found = sample(row, "inverse")
    header, arrays = unpack(pack(scene(samples=found)))
    np.testing.assert_array_equal(arrays["atoms.reward"], row.reward[0])
    assert header["progress"]["slope"] == 1


def test_arrays_are_aligned() -> None:
    message = pack(scene("three tokens"))
    header, _ = unpack(message)
    start = 4 + int.from_bytes(message[:4], "little")
    assert start % 8 == 0
    assert all(first % 8 == 0 for _, first, _ in header["arrays"].values())


@pytest.mark.parametrize("name", ROWS)
def test_message_is_small(name: str) -> None:
    assert len(pack(scene(name))) <= 200_000 <= LIMIT


def test_key_names_all_but_the_point() -> None:
    def key(made: Scene) -> str:
        found: str = unpack(pack(made))[0]["key"]
        return found

    same = key(scene())
    assert key(scene(alpha=0.25, eta=0.1)) == same
    others = [
        scene(language="zh"),
        scene("real 0"),
        scene(panels=("delta",)),
        scene(marks=[]),
        scene(remarks={"snr": []}),
    ]
    assert len({same, *map(key, others)}) == 1 + len(others)


def test_infinite_and_absent_probabilities_travel() -> None:
    theta = np.array([0.0, -np.inf, -1.5])
    _, arrays = unpack(pack(scene(log_theta=theta)))
    np.testing.assert_array_equal(arrays["tokens.theta"], theta)


def test_no_family_needs_no_samples() -> None:
    header, arrays = unpack(pack(scene(samples=None, chernoff=None)))
    assert set(arrays) == {"tokens.theta", "tokens.target"}
    assert header["curves"] == {}
    assert header["progress"] is None


HOSTILE = ["<b>bold</b>", 'say "x"', "</script>", "&lt;", "\\u0000", "\u2028", "😀", "\\", "{alpha}"]


def test_hostile_tokens_travel_as_data() -> None:
    assert unpack(pack(scene(tokens=HOSTILE)))[0]["tokens"] == HOSTILE


def test_numbers_name_symbols_and_quantities_that_exist() -> None:
    header, _ = unpack(pack(scene()))
    for group in (*NUMBERS.values(), COLUMNS):
        for item in group:
            if "operator" not in item:
                assert item["quantity"] in header["formats"]
                assert item["symbol"] in SYMBOLS or item["symbol"] in WORDS


def test_formats_keep_their_digits() -> None:
    def places(name: str, quantity: str) -> tuple[str, int]:
        kind, digits = unpack(pack(scene(name)))[0]["formats"][quantity]
        return kind, digits

    assert places("real 0", "delta") == ("fixed", 4)
    assert places("gaussian", "kl_to_theta") == ("fixed", 3)
    assert places("near-identical", "delta")[0] == "number"


# --- the script ------------------------------------------------------------------------------------------------------


def script(name: str) -> str:
    return (files("geomix_app") / "explorer" / name).read_text("utf-8")


def test_script_and_python_speak_the_same_version() -> None:
    assert f"const VERSION = {VERSION};" in script("message.js")


def test_script_never_makes_markup_of_data() -> None:
    for path in (p for p in (files("geomix_app") / "explorer").iterdir() if p.name.endswith(".js")):
        source = path.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source), path.name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source), path.name


def test_mixture_of_the_top_tokens_needs_log_z_only() -> None:
    row, found = sampled("real 0", "importance")
    for alpha in (0.123, 0.77):
        log_q = alpha * row.theta[0] + (1 - alpha) * row.target[0] - float(found.at("log_partition", alpha)[0])
        np.testing.assert_allclose(log_q.exp(), e_geodesic(row, alpha)[0].exp(), rtol=1e-6)


def test_header_is_strict_json() -> None:
    message = pack(scene())
    length = int.from_bytes(message[:4], "little")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(message[4 : 4 + length], parse_constant=refuse)
