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

from geomix_app.explorer.component import WORDS
from geomix_app.explorer.data import COLUMNS, LIMIT, NUMBERS, PANELS, VERSION, Mark, Scene, pack, unpack
from geomix_app.explorer.sampling import HARM, Samples, interpolate, reach_of, reaching, sample, sample_family
from geomix_app.notation import SYMBOLS
from geomix_core import exact_progress, learning_signal
from geomix_core.compression import compress
from geomix_core.divergences import ess_fraction
from geomix_core.geodesics import e_geodesic, tilted_moments
from geomix_core.policies import PolicyBatch
from geomix_core.progress import Weights
from geomix_core.scenarios import real_rows, synthetic


def bundled(row: int, pair: str = "privileged") -> PolicyBatch:
    rows = real_rows(pair)
    return PolicyBatch.from_logits(rows.theta[row], rows.target[row])


ROWS: dict[str, Callable[[], PolicyBatch]] = {
    "two tokens": lambda: synthetic("two_tokens"),
    "three tokens": lambda: synthetic("three_tokens"),
    "gaussian": lambda: synthetic("gaussian"),
    "far": lambda: synthetic("gaussian", distance=4.0),
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
    atoms = compress(row)
    return row, sample(atoms, weights, reach_of(atoms, weights)[0])


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


@pytest.mark.parametrize("weights", CONVENTIONS)
@pytest.mark.parametrize("name", ROWS)
def test_progress_between_samples_is_the_core_s(name: str, weights: Weights) -> None:
    row, found = sampled(name, weights)
    assert found.table is not None
    rng = np.random.default_rng(2)
    unit = found.table.unit
    for alpha in rng.uniform(size=6):
        eta = np.concatenate([rng.uniform(0, found.reach, 12), found.reach * 10 ** rng.uniform(-5, 0, 12)])
        exact = exact_progress(row, float(alpha), torch.as_tensor(eta)[:, None], weights).numpy().ravel()
        shown = found.progress(float(alpha), eta)
        inside = np.isfinite(shown)
        assert (exact[~inside] < -0.98 * HARM * unit).all()
        error = np.abs(shown - exact)
        # Of the ceiling, in what the panels show; policies four nats apart have steps of six orders of magnitude.
        seen = inside & (exact >= -0.5 * unit)
        assert error[seen].max(initial=0) <= (5e-3 if name == "far" else 1e-4) * unit
        assert error[inside].max() <= 1e-3 * (HARM + 1) * unit


def test_exact_optimum_is_sampled_where_it_is_finite() -> None:
    row, found = sampled("gaussian", "importance")
    assert found.table is not None
    step = found.best["exact_step"]
    at = step.decode(interpolate(found.table.alpha, step.values, np.array([0.37])))[0]
    gains = exact_progress(row, 0.37, torch.tensor([0.999 * at, at, 1.001 * at])[:, None]).numpy().ravel()
    assert gains[1] >= gains.max() - 1e-12


def test_row_without_coverage_has_its_family_only() -> None:
    found = sample_family(compress(synthetic("top_k")))
    assert set(found.curves) == {"log_partition", "delta", "variance", "kl_to_theta", "kl_to_target"}
    assert found.table is None
    with pytest.raises(ValueError, match="coverage"):
        found.progress(0.5, np.array([1.0]))


def test_identical_policies_have_no_table() -> None:
    row = PolicyBatch.from_probs([0.2, 0.3, 0.5], [0.2, 0.3, 0.5])
    assert reach_of(row, "importance") == (2.0, False)
    found = sample(row, "importance", 2.0)
    assert found.table is None
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
        logarithmic=False,
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
    assert sent.samples.table is not None
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
    np.testing.assert_allclose(arrays["table.values"], sent.samples.table.values, rtol=1e-6, atol=1e-7)
    assert arrays["table.values"].shape == (len(arrays["table.alpha"]), len(arrays["table.t"]))


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
    assert header["table"] is None


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
