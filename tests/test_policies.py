"""PolicyBatch: what is accepted, what is refused and in which words, supports; and the transforms of one policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import EPS, Exact, draw, np_log_softmax

from geomix_core import GeomixError, OptionError, PolicyBatch, PolicyError, ShapeError, solve_alpha
from geomix_core.policies import MASK_GAP
from geomix_core.transforms import smooth, temper, top_k, top_p

INF = np.inf
THETA, TARGET = draw("gaussian", 3, 5, 0)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def log_probs(x) -> np.ndarray:
    """What the batch must hold, from NumPy in float64."""
    return np_log_softmax(np.atleast_2d(np.asarray(x, dtype=np.float64)))


def same(got: torch.Tensor, expected: np.ndarray) -> None:
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), expected, rtol=8 * EPS, atol=8 * EPS)


# --- what is accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f2", ">f4", ">f8", "<f4"])
def test_numpy_logits_of_any_float_dtype(dtype: str) -> None:
    theta, target = THETA.astype(dtype), TARGET.astype(dtype)
    batch = PolicyBatch.from_logits(theta, target)
    same(batch.theta, log_probs(theta))
    same(batch.target, log_probs(target))
    assert len(batch) == 3
    assert batch.vocab_size == 5


@pytest.mark.parametrize("dtype", FLOATS)
def test_torch_logits_of_any_float_dtype(dtype: torch.dtype) -> None:
    theta, target = torch.tensor(THETA).to(dtype), torch.tensor(TARGET).to(dtype)
    batch = PolicyBatch.from_logits(theta.clone().requires_grad_(), target)
    same(batch.theta, log_probs(theta.double().numpy()))
    same(batch.target, log_probs(target.double().numpy()))
    assert not batch.theta.requires_grad


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint16", ">i4"])
def test_integers_are_numbers_too(dtype: str) -> None:
    theta, target = np.array([[3, 0, 1]], dtype=dtype), np.array([[0, 2, 1]], dtype=dtype)
    batch = PolicyBatch.from_logits(theta, target)
    same(batch.theta, log_probs([[3, 0, 1]]))
    one_hot = PolicyBatch.from_probs(np.array([[0, 1, 0]], dtype=dtype), np.array([[0, 1, 0]], dtype=dtype))
    assert one_hot.theta.tolist() == [[-INF, 0.0, -INF]]


def test_long_double_is_a_float_dtype_too() -> None:
    same(PolicyBatch.from_logits(THETA.astype(np.longdouble), TARGET).theta, log_probs(THETA))


def test_lists_and_mixed_kinds() -> None:
    batch = PolicyBatch.from_logits([[0.0, 1.0], [2.0, 3.0]], torch.zeros(2, 2))
    same(batch.theta, log_probs([[0.0, 1.0], [2.0, 3.0]]))
    row = PolicyBatch.from_logits([0.0, 1.0], np.zeros(2, dtype=np.float32))
    assert row.theta.shape == row.target.shape == (1, 2)


def test_read_only_memory_mapped_and_strided_arrays(tmp_path: Path) -> None:
    path = tmp_path / "logits.npy"
    np.save(path, THETA)
    frozen = THETA.copy()
    frozen.setflags(write=False)
    wide = np.zeros((3, 10))
    wide[:, ::2] = THETA
    for theta in (
        frozen,
        np.load(path, mmap_mode="r"),
        wide[:, ::2],
        THETA[:, ::-1][:, ::-1],
        np.asfortranarray(THETA),
        torch.tensor(THETA.T.copy()).T,
    ):
        same(PolicyBatch.from_logits(theta, TARGET).theta, log_probs(THETA))
    assert np.array_equal(np.load(path), THETA)


def test_input_is_never_written_to() -> None:
    theta, target = torch.tensor(THETA), np.full((3, 5), 0.2)
    PolicyBatch.from_logits(theta, target)
    PolicyBatch.from_probs(target, target)
    assert np.array_equal(theta.numpy(), THETA)
    assert (target == 0.2).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_probabilities_are_normalised_exactly(dtype: torch.dtype) -> None:
    p = torch.softmax(torch.tensor(THETA), -1).to(dtype)
    batch = PolicyBatch.from_probs(p, p)
    rounded = p.double().numpy()
    same(batch.theta, np.log(rounded / rounded.sum(-1, keepdims=True)))
    assert torch.allclose(batch.theta.exp().sum(-1), torch.ones(3, dtype=torch.float64), rtol=0, atol=4 * EPS)


def test_shift_and_size_of_logits_do_not_matter() -> None:
    """Logits as large as ±1e300 and 800 nats apart neither overflow nor vanish."""
    batch = PolicyBatch.from_logits([[800.0, -800.0], [1e300, 1e300], [-1e300, -1e300]], [[0.0, 0.0]] * 3)
    assert batch.theta[0].tolist() == [0.0, -1600.0]
    assert batch.theta[1:].exp().flatten().tolist() == pytest.approx([0.5] * 4)
    same(PolicyBatch.from_logits(THETA + 64.0, TARGET).theta, log_probs(THETA + 64.0))


# --- masks and supports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["-inf", "finfo.min", "-1e4"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_masked_logits_are_probability_zero(mask: str, dtype: torch.dtype) -> None:
    mask = torch.finfo(dtype).min if mask == "finfo.min" else float(mask)
    theta = torch.tensor([[0.0, 1.0, mask], [mask, 2.0, mask]], dtype=torch.float64).to(dtype)
    batch = PolicyBatch.from_logits(theta, torch.zeros(2, 3, dtype=dtype))
    assert (batch.theta == -INF).tolist() == [[False, False, True], [True, False, True]]
    assert batch.theta[0].exp().sum().item() == pytest.approx(1, abs=4 * EPS)
    assert batch.support.theta_size.tolist() == [2, 1]
    assert batch.support.target_size.tolist() == [3, 3]


def test_the_border_between_a_mask_and_a_small_probability() -> None:
    batch = PolicyBatch.from_logits([10.0, 10.0 - MASK_GAP, 10.0 - MASK_GAP * (1 + 1e-6)], [0.0, 0.0, 0.0])
    assert batch.theta[0].tolist() == [0.0, -MASK_GAP, -INF]
    assert MASK_GAP > 1600, "logits of ±800 are probabilities"
    assert MASK_GAP < 1e4, "−1e4 is a common mask"


def test_a_row_masked_throughout_by_one_finite_number_is_uniform() -> None:
    batch = PolicyBatch.from_logits(np.full((1, 4), np.finfo(np.float32).min), np.zeros((1, 4)))
    assert batch.theta.exp().tolist() == [pytest.approx([0.25] * 4)]


def test_support_sizes_and_masses() -> None:
    p = [[0.5, 0.5, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]]
    q = [[0.0, 0.25, 0.75, 0.0], [0.4, 0.3, 0.2, 0.1], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]]
    batch = PolicyBatch.from_probs(p, q)
    support = batch.support
    assert batch.common.tolist() == ((np.array(p) > 0) & (np.array(q) > 0)).tolist()
    assert support.theta_size.tolist() == [2, 4, 1, 2]
    assert support.target_size.tolist() == [2, 4, 1, 4]
    assert support.common_size.tolist() == [1, 4, 0, 2]
    assert support.theta_mass.tolist() == pytest.approx([0.5, 1.0, 0.0, 1.0])
    assert support.target_mass.tolist() == pytest.approx([0.25, 1.0, 0.0, 0.5])
    assert support.equal.tolist() == [False, True, False, False]
    assert batch.covered.tolist() == [False, True, False, True]


def test_coverage_looks_at_the_reference_too() -> None:
    batch = PolicyBatch.from_logits(
        [[0.0, 1.0, -INF]] * 3, [[1.0, 0.0, 2.0]] * 3, [[0.0, 0.0, 0.0], [0.0, -INF, 0.0], [0.0, 0.0, -INF]]
    )
    assert batch.covered.tolist() == [True, False, True]


def test_log_ratio_and_reward() -> None:
    theta, target = np.array([0.0, 1.0, -INF, -INF, 2.0]), np.array([1.0, -INF, 0.0, -INF, 0.0])
    reference = np.array([0.0, 0.0, 1.0, -INF, -INF])
    batch = PolicyBatch.from_logits(theta, target, reference)
    lt, lg, lr = (log_probs(x)[0] for x in (theta, target, reference))
    assert batch.log_ratio[0].tolist() == pytest.approx([lg[0] - lt[0], -INF, INF, 0.0, lg[4] - lt[4]])
    assert batch.reward[0].tolist() == pytest.approx([lg[0] - lr[0], -INF, lg[2] - lr[2], 0.0, INF])
    assert torch.equal(PolicyBatch.from_logits(theta, target).reward, batch.log_ratio)


def test_restricted_policies_vanish_off_the_common_support() -> None:
    batch = PolicyBatch.from_logits([0.0, 1.0, -INF], [1.0, -INF, 0.0])
    log_theta, ell = batch.restricted
    assert log_theta[0].tolist() == [batch.theta[0, 0].item(), -INF, -INF]
    assert ell[0].tolist() == [batch.log_ratio[0, 0].item(), 0.0, 0.0]


def test_rows_and_chunks() -> None:
    batch = PolicyBatch.from_logits(THETA, TARGET, THETA + 1)
    for index, expected in (
        (1, [1]),
        (slice(1, 3), [1, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([True, False, True]), [0, 2]),
    ):
        part = batch.rows(index)
        assert torch.equal(part.theta, batch.theta[expected])
        assert torch.equal(part.target, batch.target[expected])
        assert torch.equal(part.reference, batch.reference[expected])
    chunks = list(batch.chunks(max_elements=10))
    assert [len(c) for c in chunks] == [2, 1]
    assert torch.equal(torch.cat([c.theta for c in chunks]), batch.theta)
    assert [len(c) for c in batch.chunks(max_elements=1)] == [1, 1, 1]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theta", "target", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), r"target has shape \[2, 4\] but theta has shape \[2, 3\]"),
        (np.zeros((2, 3)), np.zeros((3, 3)), r"target has shape \[3, 3\] but theta has shape \[2, 3\]"),
        (np.zeros((2, 3)), np.zeros(3), r"target has shape \[1, 3\] but theta has shape \[2, 3\]"),
        (np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), r"theta has shape \[1, 2, 3\]: expected \[rows, tokens\]"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"theta has shape \[0, 3\]: expected .*at least one of each"),
        (np.zeros((3, 0)), np.zeros((3, 0)), r"theta has shape \[3, 0\]: expected"),
        (torch.tensor(1.0), torch.tensor(1.0), r"theta has shape \[\]: expected"),
        (1.0, 1.0, r"theta has shape \[\]: expected"),
    ],
)
@pytest.mark.parametrize("build", [PolicyBatch.from_logits, PolicyBatch.from_probs])
def test_wrong_shapes(build, theta, target, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(theta, target)


def test_wrong_shape_of_the_reference() -> None:
    with pytest.raises(ShapeError, match=r"reference has shape \[3, 4\] but theta has shape \[3, 5\]"):
        PolicyBatch.from_logits(THETA, TARGET, np.zeros((3, 4)))


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, r"target has NaN in 1 of 3 rows \(first: row 1\)"),
        (INF, r"target has \+inf in 1 of 3 rows \(first: row 1\)"),
    ],
)
def test_logits_that_are_not_numbers(kind, bad: float, message: str) -> None:
    target = TARGET.copy()
    target[1, 2] = bad
    with pytest.raises(PolicyError, match=message):
        PolicyBatch.from_logits(kind(THETA), kind(target))


def test_rows_without_a_token() -> None:
    theta = THETA.copy()
    theta[[0, 2]] = -INF
    with pytest.raises(PolicyError, match=r"theta has no token above −inf in 2 of 3 rows \(first: row 0\)"):
        PolicyBatch.from_logits(theta, TARGET)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.6, -0.1], r"theta has negative entries in 1 of 2 rows \(first: row 1\).*use from_logits"),
        ([0.5, 0.4, 0.0], r"theta has probabilities that do not sum to 1 \(within 0\.0001\) in 1 of 2 rows"),
        ([0.0, 0.0, 0.0], r"do not sum to 1"),
        ([0.5, np.nan, 0.5], r"theta has NaN or infinite entries in 1 of 2 rows \(first: row 1\)"),
        ([INF, 0.0, 0.0], r"theta has NaN or infinite entries"),
        ([2.0, 3.0, 4.0], r"use from_logits if these are logits"),
    ],
)
def test_rows_that_are_not_probabilities(row: list[float], message: str) -> None:
    good = [0.2, 0.3, 0.5]
    with pytest.raises(PolicyError, match=message):
        PolicyBatch.from_probs([good, row], [good, good])


def test_tolerance_of_the_sum_follows_the_dtype() -> None:
    off = torch.tensor([[0.5, 0.51]])
    PolicyBatch.from_probs(off.to(torch.bfloat16), off.to(torch.bfloat16))
    with pytest.raises(PolicyError, match="within 0\\.02"):
        PolicyBatch.from_probs(off.half() * 1.1, off.half())
    with pytest.raises(PolicyError, match="within 0\\.0001"):
        PolicyBatch.from_probs(off, off)
    PolicyBatch.from_probs(torch.tensor([[0.5, 0.50005]]), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize(
    "bad",
    [
        np.array([["a", "b"]]),
        np.array([[1 + 2j, 0]]),
        np.array([[True, False]]),
        np.array([[None, 1.0]], dtype=object),
        torch.tensor([[1 + 2j, 0]]),
        torch.tensor([[True, False]]),
        np.array(["2024-01-01", "2024-01-02"], dtype="datetime64[D]"),
    ],
    ids=lambda x: str(x.dtype),
)
def test_dtypes_that_are_not_real_numbers(bad) -> None:
    with pytest.raises(PolicyError, match=r"theta has dtype .*expected real numbers"):
        PolicyBatch.from_logits(bad, bad)


@pytest.mark.parametrize("bad", [[[0.0, 1.0], [2.0]], None, "logits"], ids=["ragged", "none", "text"])
def test_things_that_are_not_arrays(bad) -> None:
    with pytest.raises(GeomixError, match="theta"):
        PolicyBatch.from_logits(bad, bad)


def test_messages_never_show_the_values() -> None:
    secret = 0.123456789
    for build, row in (
        (PolicyBatch.from_probs, [secret, secret]),
        (PolicyBatch.from_probs, [secret, -secret]),
        (PolicyBatch.from_logits, [secret, np.nan]),
        (PolicyBatch.from_logits, [secret, INF]),
    ):
        with pytest.raises(PolicyError) as caught:
            build(row, row)
        assert "12345" not in str(caught.value)


def test_every_refusal_is_a_value_error() -> None:
    assert issubclass(GeomixError, ValueError)
    for kind in (ShapeError, PolicyError, OptionError):
        assert issubclass(kind, GeomixError)


# --- transforms --------------------------------------------------------------------------------------------------

LOGITS = torch.tensor(np.random.default_rng(7).normal(size=(4, 9)) * 2)
PROBS = torch.softmax(LOGITS, -1).numpy()


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 3.0])
def test_temper(temperature: float) -> None:
    raised = PROBS ** (1 / temperature)
    got = temper(LOGITS, temperature).exp().numpy()
    np.testing.assert_allclose(got, raised / raised.sum(-1, keepdims=True), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("k", [1, 2, 5, 8, 9, 100])
def test_top_k(k: int) -> None:
    got = top_k(LOGITS, k).exp().numpy()
    for p, row in zip(PROBS, got, strict=True):
        kept = sorted(range(9), key=lambda i, p=p: -p[i])[:k]
        expected = np.array([p[i] if i in kept else 0.0 for i in range(9)])
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-13)


def test_top_k_breaks_ties_by_index_and_keeps_exactly_k() -> None:
    assert top_k(torch.tensor([1.0, 2.0, 1.0, 1.0]).double(), 2).isfinite().tolist() == [True, True, False, False]


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_top_p(p: float) -> None:
    got = top_p(LOGITS, p).exp().numpy()
    for probs, row in zip(PROBS, got, strict=True):
        kept, mass = [], 0.0
        for i in sorted(range(9), key=lambda i, probs=probs: -probs[i]):
            if mass >= p:
                break
            kept.append(i)
            mass += probs[i]
        expected = np.array([probs[i] if i in kept else 0.0 for i in range(9)])
        np.testing.assert_allclose(row, expected / expected.sum(), rtol=1e-13)


def test_top_p_keeps_the_token_that_reaches_the_mass() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25]).double().log()
    assert top_p(logits, 0.5).isfinite().tolist() == [True, False, False]
    assert top_p(logits, 0.5 + 1e-9).isfinite().tolist() == [True, True, False]


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.1, 1.0])
def test_smooth(epsilon: float) -> None:
    masked = LOGITS.clone()
    masked[:, :3] = -INF
    p = torch.softmax(masked, -1).numpy()
    got = smooth(masked, epsilon).exp().numpy()
    np.testing.assert_allclose(got, (1 - epsilon) * p + epsilon / 9, rtol=1e-13)
    assert got.sum(-1).tolist() == pytest.approx([1.0] * 4)


def test_smoothing_restores_coverage() -> None:
    theta, target = LOGITS, top_k(LOGITS.flip(-1), 3)
    assert not PolicyBatch.from_logits(theta, target).covered.any()
    smoothed = PolicyBatch.from_logits(smooth(theta, 1e-3), smooth(target, 1e-3))
    assert smoothed.covered.all()
    alpha = solve_alpha(smoothed).alpha
    for i in range(4):
        truth = Exact(smoothed.theta[i].numpy(), smoothed.target[i].numpy()).alpha_kl()
        assert alpha[i].item() == pytest.approx(float(truth), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: temper(LOGITS, 0.0), "temperature must be positive"),
        (lambda: temper(LOGITS, -1.0), "temperature must be positive"),
        (lambda: temper(LOGITS, float("nan")), "temperature must be positive"),
        (lambda: top_k(LOGITS, 0), "at least one token"),
        (lambda: top_p(LOGITS, 0.0), r"lie in \(0, 1\]"),
        (lambda: top_p(LOGITS, 1.1), r"lie in \(0, 1\]"),
        (lambda: smooth(LOGITS, -0.1), r"lie in \[0, 1\]"),
        (lambda: smooth(LOGITS, 1.5), r"lie in \[0, 1\]"),
    ],
)
def test_transforms_refuse_bad_options(call, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call()
