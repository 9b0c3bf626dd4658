"""geomix_core.datasets, found, spool and mixture_files: what strangers' files are taken for, and what leaves as q."""

from __future__ import annotations

import gc
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from geomix_core.datasets import Dataset, assign, bundled, candidates, open_dataset
from geomix_core.errors import DisjointSupportError, FileError, OptionError, PolicyError
from geomix_core.files import find_policies, open_arrays, pair_of
from geomix_core.found import example, find
from geomix_core.inspection import ADVICE
from geomix_core.mixture_files import mixtures, rows_that_fit
from geomix_core.policies import PolicyBatch
from geomix_core.scenarios import Prompt, real_rows
from geomix_core.spool import open_stream

RNG = np.random.default_rng(0)
A, B, C = (torch.from_numpy(RNG.normal(size=(4, 6)).astype(np.float32)) for _ in range(3))
PAIR = {"pair.npz": {"theta": A, "target": B}}


# --- which array is which ----------------------------------------------------------------------------------------

LAYOUTS: dict[str, dict[str, dict[str, torch.Tensor]]] = {
    "one file": {"x.npz": {"theta": A, "target": B}},
    "three in one file": {"x.npz": {"theta": A, "target": B, "ref": C}},
    "a stack": {"x.npy": {"x": torch.stack([A, B])}},
    "two files": {"theta.npy": {"theta": A}, "target.npy": {"target": B}},
    "rows without their axis": {"x.npz": {"theta": A[0], "target": B[0]}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_roles_found_can_be_chosen_by_the_same_labels(layout: str) -> None:
    files = LAYOUTS[layout]
    found = find_policies(files)
    again = assign(files, found.names)
    assert again.assigned_by == "reader"
    assert again.names == found.names
    for role in found.names:
        assert torch.equal(getattr(again, role), getattr(found, role))
    assert set(found.names.values()) == set(candidates(files))


def test_arrays_of_several_files_with_several_arrays_have_labels_of_their_own() -> None:
    files = {"a.npz": {"x": A, "y": B}, "b.npz": {"x": C}}
    assert list(candidates(files)) == ["a.npz: x", "a.npz: y", "b.npz: x"]
    pair = assign(files, {"theta": "b.npz: x", "target": "a.npz: y"})
    assert torch.equal(pair.theta, C)


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ({"theta": "theta"}, "No array was chosen for target"),
        ({"theta": "theta", "target": "theta"}, "two policies"),
        ({"theta": "theta", "target": "other"}, "no array other"),
    ],
)
def test_roles_that_make_no_pair_are_refused(roles: Any, words: str) -> None:
    with pytest.raises(FileError, match=words):
        assign(PAIR, roles)


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(FileError, match=r"\[3, 6\].*\[4, 6\]"):
        assign({"x.npz": {"a": A, "b": B[:3]}}, {"theta": "a", "target": "b"})


# --- what was found ----------------------------------------------------------------------------------------------


def test_named_logits_are_settled_at_once() -> None:
    found = find(PAIR)
    assert (found.roles, found.kind, found.assigned_by) == ({"theta": "theta", "target": "target"}, "logits", "name")
    assert found.dataset is not None
    assert [x.role for x in found.inspection.arrays] == ["theta", "target"]
    swapped = found.with_roles({"theta": "target", "target": "theta"})
    assert swapped.dataset is not None
    assert torch.equal(swapped.dataset.pair.theta, B)
    assert swapped.inspection.arrays[0].name == "target"
    assert found.roles["theta"] == "theta", "the first is as it was"


def test_five_arrays_are_offered_for_a_choice() -> None:
    files = {"x.npz": {name: A + i for i, name in enumerate("abcde")}}
    found = find(files)
    assert found.dataset is None
    assert found.problem
    assert found.roles == {}
    chosen = found.with_roles({"theta": "d", "target": "b", "reference": "a"})
    assert chosen.dataset is not None
    assert torch.equal(chosen.dataset.pair.theta, A + 3)
    assert chosen.assigned_by == "reader"
    assert not chosen.problem


def test_nothing_to_choose_from_is_refused() -> None:
    for files in ({"x.npy": {"x": A}}, {"x.npz": {"a": A, "b": B[:, :3]}}, {"x.npy": {"x": torch.ones(4, 4, 2, 2)}}):
        with pytest.raises(FileError):
            find(files)


def test_the_kind_is_found_with_its_numbers_and_the_reader_has_the_last_word() -> None:
    p, t = torch.softmax(A.double(), -1), torch.softmax(B.double(), -1)
    found = find({"x.npz": {"theta": p, "target": t}})
    assert (found.kind, found.kind_by) == ("probs", "numbers")
    assert abs(found.inspection.arrays[0].finding.low - 1) < 1e-12
    assert [str(a) for a in found.inspection.suggestions] == [ADVICE["kind_probs"]]
    assert (said := found.with_kind("logits")).kind == "logits"
    assert said.with_roles({"theta": "target", "target": "theta"}).kind == "logits"
    unclear = find({"x.npz": {"theta": p / 2, "target": t}})
    assert unclear.kind is None
    assert unclear.dataset is None
    settled = unclear.with_kind("logits").dataset
    assert settled is not None
    assert settled.kind == "logits"
    mixed = find({"x.npz": {"theta": p.log(), "target": B}})
    assert mixed.kind == "logits"


def test_names_must_be_as_many_as_there_are_tokens() -> None:
    found = find(PAIR)
    with pytest.raises(FileError, match="5 names of tokens: expected 6"):
        found.with_names(tokens=list("abcde"))
    named = found.with_names(tokens=list("abcdef"), prompts=[Prompt(str(i), "") for i in range(4)])
    assert named.dataset is not None
    assert named.dataset.tokens == list("abcdef")
    assert named.with_kind("log_probs").tokens == list("abcdef")


def test_names_that_do_not_fit_another_choice_are_forgotten() -> None:
    found = find({"x.npz": {"a": A, "b": B, "c": A[:, :3], "d": B[:, :3]}})
    chosen = found.with_roles({"theta": "a", "target": "b"}).with_names(tokens=list("abcdef"))
    assert chosen.dataset is not None
    other = chosen.with_roles({"theta": "c", "target": "d"}).dataset
    assert other is not None
    assert other.tokens is None


def test_possibly_swapped_is_said() -> None:
    cut = A.clone()
    cut[:, :2] = -torch.inf
    found = find({"x.npz": {"theta": cut, "target": B}})
    assert "swapped_support" in [a.code for a in found.inspection.suggestions]
    other = found.with_roles({"theta": "target", "target": "theta"})
    assert "swapped_support" not in [a.code for a in other.inspection.suggestions]
    assert found.inspection.theta_lacks == other.inspection.target_lacks == 4


def test_the_example_is_the_bundled_rows() -> None:
    data = example().dataset
    assert data is not None
    assert torch.equal(data.pair.theta, real_rows().theta)
    assert data.tokens == real_rows().tokens
    assert data.prompts == real_rows().prompts
    assert torch.equal(bundled(swapped=True).pair.theta, real_rows().target)


# --- rows --------------------------------------------------------------------------------------------------------


def test_a_row_is_what_the_kind_makes_of_it() -> None:
    p, t = torch.softmax(A.double(), -1), torch.softmax(B.double(), -1)
    expected = PolicyBatch.from_logits(A[2], B[2])
    for theta, target, kind in ((A, B, "logits"), (p.log(), t.log(), "log_probs"), (p, t, "probs")):
        row = Dataset(pair_of({"theta": ("a", theta), "target": ("b", target)}), kind).row(2)  # type: ignore[arg-type]
        torch.testing.assert_close(row.theta, expected.theta, rtol=1e-6, atol=1e-6)
    bad = Dataset(pair_of({"theta": ("a", A), "target": ("b", t)}), "probs")
    with pytest.raises(PolicyError, match="theta has"):
        bad.row(0)


def test_digests_tell_rows_kinds_and_names_apart() -> None:
    data = Dataset(find_policies(PAIR))
    other = A.clone()
    other[1, 5] += 1e-6
    variants = [
        data.digest(1),
        data.digest(0),
        Dataset(find_policies(PAIR), "log_probs").digest(1),
        Dataset(find_policies(PAIR), tokens=list("abcdef")).digest(1),
        Dataset(find_policies(PAIR), prompts=[Prompt(str(i), "") for i in range(4)]).digest(1),
        Dataset(find_policies({"x.npz": {"theta": other, "target": B}})).digest(1),
        Dataset(find_policies({"x.npz": {"theta": B, "target": A}})).digest(1),
        Dataset(find_policies({"x.npz": {"theta": A, "target": B, "ref": B}})).digest(1),
        Dataset(find_policies({"x.npz": {"theta": A[:, :4], "target": A[:, 4:].repeat(1, 2)}})).digest(1),
        Dataset(find_policies({"x.npz": {"theta": A.double(), "target": B.double()}})).digest(1),
        Dataset(find_policies({"x.npz": {"theta": A.view(torch.int32), "target": B.view(torch.int32)}})).digest(1),
    ]
    assert len(set(variants)) == len(variants)
    assert Dataset(find_policies({"x.npz": {"theta": other, "target": B}})).digest(0) == data.digest(0)
    transposed = Dataset(find_policies({"x.npz": {"theta": A.T.contiguous().T, "target": B.T.contiguous().T}}))
    assert transposed.digest(1) == data.digest(1)


def test_a_dataset_is_opened_by_name_or_by_choice(tmp_path: Path) -> None:
    for name, x in (("theta", A), ("target", B)):
        np.save(tmp_path / f"{name}.npy", x.numpy())
    theta, target = str(tmp_path / "theta.npy"), str(tmp_path / "target.npy")
    data = open_dataset(theta, target)
    assert (data.kind, len(data), data.vocab_size) == ("logits", 4, 6)
    swapped = open_dataset(theta, target, roles={"theta": target, "target": theta}, kind="log_probs")
    assert torch.equal(swapped.pair.theta, B)
    assert swapped.kind == "log_probs"
    with pytest.raises(FileError, match="given twice"):
        open_dataset(theta, theta)
    with pytest.raises(OptionError, match="kind"):
        open_dataset(theta, target, kind="nats")  # type: ignore[arg-type]


# --- uploads -----------------------------------------------------------------------------------------------------


def npy(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, x)
    return out.getvalue()


def descriptors() -> list[str]:
    return [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux for its maps")
def test_an_upload_is_mapped_from_a_file_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    arrays, maps = open_stream("../../theta.npy", io.BytesIO(npy(A.numpy())))
    assert list(arrays) == ["theta"]
    assert torch.equal(arrays["theta"], A)
    assert len(maps) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is left, even if the process is killed now"
    assert any(str(tmp_path) in line for line in Path("/proc/self/maps").read_text().splitlines())
    del arrays, maps
    gc.collect()
    assert not any(str(tmp_path) in line for line in Path("/proc/self/maps").read_text().splitlines())
    assert not any(str(tmp_path) in name for name in descriptors())


@pytest.mark.parametrize("extension", [".npy", ".safetensors", ".npz", ".pt", ".csv"])
def test_every_format_reads_alike_from_a_stream(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"pair{extension}"
    if extension == ".npy":
        np.save(path, A.numpy())
    elif extension == ".npz":
        np.savez(path, theta=A.numpy(), target=B.numpy())
    elif extension == ".pt":
        torch.save({"theta": A, "target": B}, path)
    elif extension == ".csv":
        np.savetxt(path, A.numpy(), delimiter=",")
    else:
        safetensors.torch.save_file({"theta": A, "target": B}, path)
    expected, _ = open_arrays(path)
    found, _ = open_stream(path.name, io.BytesIO(path.read_bytes()))
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert torch.equal(found[name], x)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(FileError, match="temporary folder has no room"):
        open_stream("theta.npy", io.BytesIO(npy(A.numpy())))


@pytest.mark.parametrize(
    "name", ["theta.npy", "x.safetensors", "x.pt", "x.npz", "x.csv", "x.exe", "x", "..", "a/b.npy"]
)
@pytest.mark.parametrize("data", [b"", b"junk" * 40, b"\x93NUMPY\x01\x00"])
def test_what_is_no_file_of_logits_is_refused_by_its_name(name: str, data: bytes) -> None:
    with pytest.raises(FileError) as caught:
        open_stream(name, io.BytesIO(data))
    assert "geomix-" not in str(caught.value), "no path of this machine"


# --- q leaves ----------------------------------------------------------------------------------------------------


def test_q_is_what_its_file_says() -> None:
    theta, target = A.double().clone(), B.double().clone()
    theta[1, 0] = -torch.inf
    data = Dataset(pair_of({"theta": ("a", theta), "target": ("b", target)}))
    found = safetensors.torch.load(mixtures(data, [3, 1], [0.25, 1.0]))
    assert {name: str(x.dtype) for name, x in found.items()} == {
        "log_q": "torch.float32", "alpha": "torch.float64", "row": "torch.int64",
    }  # fmt: skip
    assert found["row"].tolist() == [3, 1]
    assert found["alpha"].tolist() == [0.25, 1.0]
    p, t = torch.softmax(theta, -1), torch.softmax(target, -1)
    for i, (row, alpha) in enumerate(((3, 0.25), (1, 1.0))):
        q = torch.where(p[row] > 0, p[row] ** alpha * t[row] ** (1 - alpha), 0)
        torch.testing.assert_close(found["log_q"][i].double().exp(), q / q.sum(), rtol=1e-6, atol=1e-8)
    assert found["log_q"][1, 0] == -torch.inf
    assert found["log_q"].exp().sum(-1).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_q_of_no_row_or_of_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset(find_policies(PAIR))
    monkeypatch.setattr("geomix_core.mixture_files.MAX_BYTES", 2 * 4 * 6)
    assert rows_that_fit(data) == 2
    for rows in ([], [0, 1, 2]):
        with pytest.raises(OptionError, match="between 1 and 2"):
            mixtures(data, rows, [0.5] * len(rows))
    with pytest.raises(OptionError):
        mixtures(data, [0], [0.5, 0.5])


def test_q_of_disjoint_policies_is_refused() -> None:
    theta, target = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    with pytest.raises(DisjointSupportError):
        mixtures(Dataset(pair_of({"theta": ("a", theta), "target": ("b", target)})), [0], [0.5])
