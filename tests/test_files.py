"""geomix_core.files: what strangers' files may hold, what is refused, and that refusals are FileErrors in words."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomix_core import files, formats
from geomix_core.errors import FileError, GeomixError
from geomix_core.files import find_policies, load_paths, open_arrays, open_paths, read_arrays

LOGITS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
OTHER = LOGITS[::-1].copy()


def npy(array: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def npz(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **arrays)
    return out.getvalue()


def zipped(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


def tensors(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def header_of(shape: str, descr: str = "'<f4'", order: str = "False", body: bytes = b"", version: int = 1) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode("latin1")
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def refusal(name: str, data: bytes, **options: Any) -> str:
    with pytest.raises(FileError) as caught:
        read_arrays(name, data, **options)
    assert isinstance(caught.value, GeomixError)
    return str(caught.value)


def refusal_of_path(path: Path, data: bytes, **options: Any) -> str:
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        open_arrays(path, **options)
    return str(caught.value)


def saved(x: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(x, out, **options)
    return out.getvalue()


def parquet(columns: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "<i2", ">i4", "<i8", "i1", "u1", "<u2", "<u4"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_round_trip(dtype: str, order: str) -> None:
    array = np.asarray((LOGITS * 10).clip(0, None), dtype=dtype, order=order)
    read = read_arrays("dir/theta.NPY", npy(array))
    assert list(read) == ["theta"]
    np.testing.assert_array_equal(read["theta"].numpy(), array.astype(array.dtype.newbyteorder("=")))
    assert read["theta"].is_contiguous()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
def test_npz_round_trip(compressed: bool, dtype: str) -> None:
    array = LOGITS.astype(dtype)
    read = read_arrays("pair.npz", npz(compressed, theta=array, target=np.asfortranarray(array[::-1])))
    np.testing.assert_array_equal(read["theta"].numpy(), array)
    np.testing.assert_array_equal(read["target"].numpy(), array[::-1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_safetensors_round_trip(dtype: torch.dtype) -> None:
    x = torch.from_numpy(LOGITS).to(dtype)
    read = read_arrays("pair.safetensors", safetensors.torch.save({"a": x, "b": x.flip(0).contiguous()}))
    assert read["a"].dtype == dtype
    assert torch.equal(read["a"], x)
    assert torch.equal(read["b"], x.flip(0))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(version: tuple[int, int]) -> None:
    out = io.BytesIO()
    np.lib.format.write_array(out, LOGITS, version)
    np.testing.assert_array_equal(read_arrays("a.npy", out.getvalue())["a"].numpy(), LOGITS)


def test_a_header_without_alignment() -> None:
    data = header_of("(3, 5)", body=LOGITS.tobytes())
    assert (len(data) - LOGITS.nbytes) % 4
    np.testing.assert_array_equal(read_arrays("a.npy", data)["a"].numpy(), LOGITS)


def test_minus_infinity_and_nan_are_read_as_they_are() -> None:
    # Rows are judged one by one later: a bad one must not cost the others.
    array = LOGITS.copy()
    array[0, 0], array[1, 1] = -np.inf, np.nan
    np.testing.assert_array_equal(read_arrays("a.npy", npy(array))["a"].numpy(), array)


def test_tensors_can_be_written_to_and_do_not_alias_the_file() -> None:
    data = npy(LOGITS)
    before = bytes(data)
    read_arrays("a.npy", data)["a"].zero_()
    assert data == before


def test_highly_compressible_masks_are_no_bomb() -> None:
    masked = np.full((64, 4096), -np.inf, np.float32)
    masked[:, 0] = 0
    assert read_arrays("a.npz", npz(True, theta=masked, target=masked))["theta"].shape == (64, 4096)


# --- pickles -----------------------------------------------------------------------------------------------------


class Payload:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_no_pickle_runs(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    payload = np.array([[Payload(proof)]], dtype=object)
    hostile = npy(payload, allow_pickle=True)
    np.load(io.BytesIO(hostile), allow_pickle=True)
    assert proof.exists(), "the payload does work"
    proof.rmdir()

    for name, data in {
        "a.npy": hostile,
        "a.npz": npz(theta=payload, target=LOGITS),
        "b.npy": pickle.dumps(Payload(proof)),
        "b.npz": pickle.dumps(Payload(proof)),
        "b.safetensors": pickle.dumps(Payload(proof)),
        "c.npz": zipped(theta__npy=pickle.dumps(Payload(proof))),
        "d.npy": header_of("(1,)", "[('a', '|O'), ('b', '<f4')]", body=pickle.dumps(Payload(proof))),
    }.items():
        refusal(name, data)
        assert not proof.exists()
    assert "pickle" in refusal("a.npy", hostile)
    assert "pickle" in refusal("b.npy", pickle.dumps(Payload(proof)))


@pytest.mark.parametrize("name", ["a.pt", "a.PTH", "a.bin", "a.pkl"])
def test_extensions_of_pickles_name_the_alternative(name: str) -> None:
    message = refusal(name, b"\x80\x02")
    assert "pickle" in message
    assert "safetensors" in message


# --- hostile and unlucky .npy ------------------------------------------------------------------------------------

SOUND = npy(LOGITS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", ["empty", "0 bytes"], id="empty"),
        pytest.param(SOUND[:-1], ["truncated", "[3, 5]", "60 bytes", "59 bytes"], id="truncated"),
        pytest.param(SOUND[:70], ["truncated inside its header"], id="truncated-header"),
        pytest.param(SOUND[:9], ["truncated inside its header"], id="truncated-length"),
        pytest.param(SOUND + b"\0", ["trailing bytes", "61 bytes"], id="trailing"),
        pytest.param(SOUND + SOUND, ["trailing bytes"], id="two-arrays"),
        pytest.param(header_of("(1000000000000,)", body=b"1234"), ["1000000000000", "4 bytes", "truncated"], id="lie"),
        pytest.param(header_of("(4294967296, 4294967296)", body=b""), ["truncated"], id="2**64"),
        pytest.param(header_of("(1" + "0" * 4000 + ",)"), ["impossible shape"], id="4000-digits"),
        pytest.param(header_of("(0x" + "f" * 4000 + ",)"), ["impossible shape"], id="too-long-to-print"),
        pytest.param(header_of("(" + "1," * 70 + ")", body=b"1234"), ["impossible shape", "70"], id="70-dimensions"),
        pytest.param(header_of("(-1, 5)", body=bytes(20)), ["negative", "[-1, 5]"], id="negative"),
        pytest.param(header_of("(-1, -5)", body=bytes(20)), ["negative"], id="two-negatives"),
        pytest.param(header_of("(0, 5)"), ["[0, 5]", "at least one row"], id="no-rows"),
        pytest.param(header_of("(0, 100000000000000)"), ["at least one row"], id="no-rows-many-tokens"),
        pytest.param(header_of("(1,)", body=b"1234").replace(b"shape", b"shpae"), ["header"], id="keys"),
        pytest.param(header_of("(1,)" + " " * 5000, body=b"1234"), ["header", "too long"], id="long-header"),
        pytest.param(header_of("(1,)", version=2)[:8] + b"\xff" * 4 + b"{}", ["header", "too long"], id="4-GB-header"),
        pytest.param(header_of("[1]", body=b"1234"), ["header", "parsed"], id="shape-list"),
        pytest.param(header_of("(1.5,)", body=b"1234"), ["header", "parsed"], id="shape-float"),
        pytest.param(header_of("(1,)", order="2", body=b"1234"), ["header", "parsed"], id="order"),
        pytest.param(header_of("(__import__('os').getcwd(),)"), ["header", "parsed"], id="code"),
        pytest.param(header_of("[" * 190 + "]" * 190), ["header", "parsed"], id="nested"),
        pytest.param(header_of("(" * 1500), ["header", "parsed"], id="unclosed"),
        pytest.param(header_of("(" + "-" * 3900 + "1,)"), ["header", "parsed"], id="minus-signs"),
        pytest.param(header_of("(3L, 5L)", body=LOGITS.tobytes()), ["header", "parsed"], id="python-2"),
        pytest.param(header_of("(1,)", "'<q9'", body=b"1234"), ["header", "parsed"], id="no-such-dtype"),
        pytest.param(header_of("(1,)", "{1: []}", body=b"1234"), ["header", "parsed"], id="dtype-dict"),
        pytest.param(header_of("(1,)", "[(1,)]", body=b"1234"), ["header", "parsed"], id="dtype-list"),
        pytest.param(header_of("(1,)", "('<f4', (2,))", body=bytes(8)), ["structured"], id="subarray"),
        pytest.param(SOUND[:6] + b"\x09\x00" + SOUND[8:], ["version 9.0"], id="version"),
        pytest.param(b"theta,target\n0.1,0.2\n", ["not an .npy file", "text"], id="text"),
        pytest.param(npz(a=LOGITS), ["zip", ".npz"], id="npz-named-npy"),
        pytest.param(bytes(64), ["not an .npy file"], id="zeros"),
        pytest.param(npy(np.zeros(2, [("a", "f4"), ("b", "f4")])), ["structured", "fields"], id="structured"),
        pytest.param(npy(LOGITS.astype(complex)), ["complex", "float32"], id="complex"),
        pytest.param(npy(LOGITS > 0), ["booleans", "float32"], id="bool"),
        pytest.param(npy(np.array(["a", "b"])), ["text"], id="strings"),
        pytest.param(npy(np.array([b"a", b"b"])), ["text"], id="bytes"),
        pytest.param(npy(np.zeros(2, "M8[s]")), ["dates"], id="dates"),
        pytest.param(npy(np.zeros(2, "V2")), ["bfloat16", "safetensors"], id="bfloat16-as-void"),
        pytest.param(npy(np.zeros(2, np.longdouble)), ["float64"], id="long-double"),
    ],
)
def test_bad_npy(data: bytes, words: list[str], tmp_path: Path) -> None:
    for message in (refusal("theta.npy", data), refusal_of_path(tmp_path / "theta.npy", data)):
        assert "theta.npy" in message
        for word in words:
            assert word in message


def test_a_lying_shape_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("an array was made before its size was checked")

    monkeypatch.setattr(np, "frombuffer", never)
    refusal("a.npy", header_of("(1000000, 1000000)", "'<f8'", body=b"12345678"))


def test_too_large() -> None:
    message = refusal("theta.npy", SOUND, max_bytes=100)
    assert "too large" in message
    assert f"{len(SOUND)}" in message
    assert "100" in message


# --- .npz --------------------------------------------------------------------------------------------------------


def patched(data: bytes, local: int, central: int, form: str, value: int) -> bytes:
    """Overwrite one field in every local header and in every entry of the directory."""
    out = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = out.find(signature)
        while at >= 0:
            struct.pack_into(form, out, at + offset, value)
            at = out.find(signature, at + 4)
    return bytes(out)


PAIR = zipped(theta__npy=SOUND, target__npy=npy(OTHER))
DEFLATED = zipped(zipfile.ZIP_DEFLATED, theta__npy=SOUND, target__npy=npy(OTHER))


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", ["empty"], id="empty"),
        pytest.param(PAIR[:-30], ["truncated"], id="truncated"),
        pytest.param(PAIR[: len(PAIR) // 2], ["truncated"], id="half"),
        pytest.param(PAIR + b"x", ["trailing"], id="trailing"),
        pytest.param(b"x" + PAIR, ["not an .npz"], id="leading"),
        pytest.param(PAIR[:20] + PAIR[60:], ["damaged"], id="cut-inside"),
        pytest.param(SOUND, ["not an .npz"], id="npy-named-npz"),
        pytest.param(b"hello", ["not an .npz"], id="text"),
        pytest.param(zipped(), ["no array"], id="no-members"),
        pytest.param(zipped(readme__txt=b"hi"), ["readme.txt", "not an .npy array"], id="stranger"),
        pytest.param(zipped(**{"dir/": b""}), ["not an .npy array"], id="folder"),
        pytest.param(zipped(a__npy=b"text"), ["a.npy in pair.npz", "not an .npy file"], id="text-inside"),
        pytest.param(zipped(a__npy=b""), ["not an .npy file"], id="empty-inside"),
        pytest.param(zipped(a__npy=SOUND[:-1]), ["truncated", "a.npy"], id="truncated-inside"),
        pytest.param(zipped(a__npy=header_of("(1000000000000,)")), ["1000000000000"], id="lie-inside"),
        pytest.param(patched(PAIR, 6, 8, "<H", 1), ["encrypted"], id="encrypted"),
        pytest.param(patched(PAIR, 6, 8, "<H", 0x40), ["damaged"], id="strong-encryption"),
        pytest.param(patched(PAIR, 8, 10, "<H", 99), ["unusual method"], id="unknown-method"),
        pytest.param(zipped(zipfile.ZIP_LZMA, a__npy=SOUND), ["unusual method"], id="lzma"),
        pytest.param(patched(DEFLATED, 22, 24, "<I", 10), ["damaged"], id="says-smaller"),
        pytest.param(patched(DEFLATED, 22, 24, "<I", 1 << 20), ["truncated"], id="says-larger"),
        pytest.param(patched(DEFLATED, 22, 24, "<I", 0xFFFFFFF0), ["too large"], id="says-4-GB"),
        pytest.param(patched(DEFLATED, 18, 20, "<I", 1 << 20), ["overlap"], id="packed-larger-than-file"),
        pytest.param(patched(DEFLATED, 14, 16, "<I", 0), ["damaged"], id="checksum"),
        pytest.param(patched(DEFLATED, 18, 20, "<I", 5), ["pair.npz"], id="packed-smaller"),
        pytest.param(zipped(**{f"a{i}__npy": SOUND for i in range(101)}), ["more than 100"], id="many"),
    ],
)
def test_bad_npz(data: bytes, words: list[str]) -> None:
    message = refusal("pair.npz", data)
    for word in words:
        assert word in message


def test_two_members_of_one_name() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", SOUND)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", SOUND)
    assert "two files of one name" in refusal("a.npz", out.getvalue())


def test_npz_too_large_unpacked() -> None:
    data = npz(True, theta=np.zeros((100, 100)), target=np.zeros((100, 100)))
    assert len(data) < 10_000
    message = refusal("a.npz", data, max_bytes=100_000)
    assert "unpacked" in message
    assert "too large" in message
    assert len(read_arrays("a.npz", data, max_bytes=200_000)) == 2


def test_npz_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RATIO_FREE_BYTES", 1 << 20)
    message = refusal("a.npz", npz(True, theta=np.zeros((1 << 20,), np.float32)))
    assert "bomb" in message
    assert "numpy.savez" in message


def test_a_stream_longer_than_declared_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    # 64 MiB of zeros behind a declared 138 bytes: the reader must stop at the declaration.
    bomb = zipped(zipfile.ZIP_DEFLATED, a__npy=bytes(1 << 26))
    held: list[int] = []
    decompressobj = zlib.decompressobj

    class Counting:
        def __init__(self, *args: Any) -> None:
            self.inner = decompressobj(*args)

        def decompress(self, *args: Any) -> bytes:
            piece = self.inner.decompress(*args)
            held.append(len(piece))
            return piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    refusal("a.npz", patched(bomb, 22, 24, "<I", 138))
    assert 0 < sum(held) <= 1 << 21


# --- .safetensors ------------------------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]} | changes}


TENSORS = safetensors.torch.save({"theta": torch.from_numpy(LOGITS), "target": torch.from_numpy(OTHER)})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", ["empty"], id="empty"),
        pytest.param(b"1234567", ["truncated"], id="7-bytes"),
        pytest.param(TENSORS[:-1], ["truncated or damaged"], id="truncated"),
        pytest.param(TENSORS[:40], ["truncated inside its header"], id="truncated-header"),
        pytest.param(TENSORS + b"\0", ["truncated or damaged"], id="trailing"),
        pytest.param(struct.pack("<Q", 10**17) + b"{}", ["header is too long"], id="huge-header"),
        pytest.param(struct.pack("<Q", 2**64 - 1) + b"{}", ["header is too long"], id="2**64-header"),
        pytest.param(tensors(b"{}" + b" " * (2 << 20)), ["header is too long"], id="2-MB-header"),
        pytest.param(tensors(entry(data_offsets=[4, 12]), bytes(12)), ["offsets"], id="hole"),
        pytest.param(tensors(entry(data_offsets=[8, 0]), bytes(8)), ["cannot be read"], id="backwards"),
        pytest.param(tensors(entry(data_offsets=[0, 10**15]), bytes(8)), ["cannot be read"], id="beyond"),
        pytest.param(
            tensors(entry() | {"b": entry()["a"]}, bytes(8)),
            ["cannot be read"],
            id="overlap",
        ),
        pytest.param(tensors(entry(shape=[3, 2]), bytes(8)), ["shape"], id="shape"),
        pytest.param(tensors(entry(shape=[2**40, 2**40]), bytes(8)), ["impossibly large"], id="overflow"),
        pytest.param(tensors(entry(shape=[-1, 2]), bytes(8)), ["JSON"], id="negative"),
        pytest.param(tensors(entry(shape=[0, 2**63], data_offsets=[0, 0])), ["a.safetensors"], id="empty-2**63"),
        pytest.param(tensors(entry(shape=[0, 5], data_offsets=[0, 0])), ["[0, 5]", "at least one"], id="no-rows"),
        pytest.param(tensors(entry(dtype="X"), bytes(8)), ["cannot be read"], id="no-such-dtype"),
        pytest.param(tensors(entry(dtype="F4", shape=[16]), bytes(8)), ["dtype"], id="f4"),
        pytest.param(tensors(entry(dtype="F8_E4M3", shape=[8]), bytes(8)), ["float8", "float32"], id="f8"),
        pytest.param(tensors(entry(dtype="BOOL", shape=[8]), bytes(8)), ["bool", "float32"], id="bool"),
        pytest.param(tensors(entry(dtype="C64", shape=[1]), bytes(8)), ["complex64", "float32"], id="complex"),
        pytest.param(tensors(b"\xff\xfe"), ["JSON"], id="utf-8"),
        pytest.param(tensors(b"[1]"), ["JSON"], id="list"),
        pytest.param(tensors(b"[" * 100_000), ["JSON"], id="nested"),
        pytest.param(tensors({}), ["no array"], id="no-tensors"),
        pytest.param(b"theta,target\n0.1,0.2", ["not a .safetensors", "text"], id="text"),
        pytest.param(npz(a=LOGITS), ["not a .safetensors", "zip"], id="npz-named-safetensors"),
    ],
)
def test_bad_safetensors(data: bytes, words: list[str], tmp_path: Path) -> None:
    message = refusal("a.safetensors", data)
    for word in words:
        assert word in message
    assert "a.safetensors" in refusal_of_path(tmp_path / "a.safetensors", data)


# --- .pt ---------------------------------------------------------------------------------------------------------


def repickled(change: Callable[[bytes], bytes], x: Any = None) -> bytes:
    """A .pt file whose pickle was changed."""
    out = io.BytesIO()
    sound = io.BytesIO(saved(torch.from_numpy(LOGITS) if x is None else x))
    with zipfile.ZipFile(sound) as old, zipfile.ZipFile(out, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            new.writestr(member.filename, change(data) if member.filename.endswith("data.pkl") else data)
    return out.getvalue()


def archive(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    return zipped(method, **{f"archive/{name}": data for name, data in members.items()})


STORED = saved(torch.ones(2, 3))


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.uint16]
)
def test_pt_round_trip(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.from_numpy(LOGITS).abs().to(dtype)
    for content in ({"theta": x, "target": x.flip(0)}, [x, x.flip(0)], x):
        data = saved(content)
        (tmp_path / "pair.pt").write_bytes(data)
        for read in (read_arrays("pair.pt", data), open_arrays(tmp_path / "pair.pt")[0]):
            first = next(iter(read.values()))
            assert first.dtype == dtype
            assert torch.equal(first, x)
            assert len(read) == (1 if isinstance(content, Tensor) else 2)
    assert list(read_arrays("pair.pth", saved(x))) == ["pair"]


def test_pt_with_parameters_and_views() -> None:
    x = torch.from_numpy(LOGITS)
    read = read_arrays("pair.pt", saved({"theta": torch.nn.Parameter(x), "target": x.T.contiguous().T}))
    assert not read["theta"].requires_grad
    assert torch.equal(read["target"], x)


def test_no_pickle_in_a_pt_runs(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    pickled = pickle.dumps(Payload(proof), protocol=2)
    hostile = [
        saved(Payload(proof)),
        saved({"theta": torch.ones(2, 3), "target": Payload(proof)}),
        saved(Payload(proof), _use_new_zipfile_serialization=False),
        archive(data__pkl=pickled, version=b"3\n"),
        archive(data__pkl=pickle.dumps(Payload(proof), protocol=4), version=b"3\n"),
        archive(data__pkl=pickle.dumps(Payload(proof), protocol=0), version=b"3\n"),
        repickled(lambda data: pickled),
        repickled(lambda data: data[:-1] + pickled[2:]),
        pickled,
    ]
    for i, data in enumerate(hostile):
        message = refusal("theta.pt", data)
        assert "pickle" in message, i
        assert "can run code" in message, i
        refusal_of_path(tmp_path / "theta.pt", data)
        assert not proof.exists()
    pickle.loads(pickled)
    assert proof.exists(), "the payload does work"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", ["empty"], id="empty"),
        pytest.param(b"hello", ["torch.save"], id="text"),
        pytest.param(b"PK\x03\x04" + bytes(60), ["damaged"], id="zeros"),
        pytest.param(STORED[:-1], ["damaged"], id="truncated"),
        pytest.param(STORED[: len(STORED) // 2], ["damaged"], id="half"),
        pytest.param(npz(a=LOGITS), ["not what torch.save writes"], id="npz-named-pt"),
        pytest.param(
            archive(zipfile.ZIP_DEFLATED, data__pkl=b"\x80\x02}.", **{"data/0": bytes(1 << 24)}), ["bomb"], id="bomb"
        ),
        pytest.param(archive(data__pkl=b"\x80\x02" + b"]" * (1 << 17) + b"."), ["131,075"], id="long-pickle"),
        pytest.param(archive(data__pkl=b"\x80\x02]q"), ["cannot be parsed"], id="cut-pickle"),
        pytest.param(archive(data__pkl=b"\x80\x02]r\xff\xff\xff\x7f."), ["cannot be parsed"], id="memo-of-2**31"),
        pytest.param(
            archive(data__pkl=b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}X\x0c\0\0\0__defaults__Ns\x86b."),
            ["more than tensors"],
            id="build",
        ),
        pytest.param(archive(data__pkl=b""), ["cannot be parsed"], id="no-pickle"),
        pytest.param(
            archive(data__pkl=b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R."),
            ["more than tensors", "was not run"],
            id="bytearray-of-terabytes",
        ),
        pytest.param(archive(data__pkl=b"\x80\x02cnt\nsystem\nX\x02\x00\x00\x00ls\x85R."), ["not run"], id="nt"),
        pytest.param(
            archive(constants__pkl=b"\x80\x02).", data__pkl=b"\x80\x02).", **{"code/m.py": b"import os"}),
            ["saved program"],
            id="torchscript",
        ),
        pytest.param(patched(saved(torch.ones(2)), 6, 8, "<H", 1), ["encrypted"], id="encrypted"),
        pytest.param(zipped(**{f"archive/data/{i}": b"" for i in range(1001)}), ["more than 1000"], id="many"),
        pytest.param(saved(torch.zeros(1).expand(10**6, 10**6)), ["4,000,000,000,000", "contiguous"], id="10**12"),
        pytest.param(saved({"theta": torch.ones(2, 3), "step": 7}), ["Python int", "tensors only"], id="int"),
        pytest.param(saved({"model": {"w": torch.ones(2, 3)}}), ["Python dict"], id="nested"),
        pytest.param(saved("theta"), ["Python str"], id="string"),
        pytest.param(saved({}), ["no array"], id="no-tensors"),
        pytest.param(saved(torch.zeros(0, 5)), ["[0, 5]", "at least one"], id="no-rows"),
        pytest.param(saved(torch.ones(2, 3, dtype=torch.complex64)), ["real numbers"], id="complex"),
        pytest.param(saved(torch.ones(2, 3) > 0), ["real numbers"], id="bool"),
        pytest.param(saved(torch.eye(3).to_sparse()), ["pickle"], id="sparse"),
        pytest.param(saved(torch.ones(2, 3, device="meta")), ["pickle"], id="meta"),
        pytest.param(saved(torch.ones(2, 3).to(torch.float8_e4m3fn)), ["a.pt"], id="float8"),
        pytest.param(saved(torch.ones([1] * 9)), ["9 dimensions"], id="9-dimensions"),
        pytest.param(repickled(lambda d: d.replace(b"K\x03K\x05\x86", b"K\x7fK\x7f\x86")), ["a.pt"], id="shape"),
        pytest.param(repickled(lambda d: d.replace(b"K\x0f", b"K\xff")), ["a.pt"], id="storage-longer-than-file"),
        pytest.param(repickled(lambda d: d.replace(b"0q", b"9q", 1)), ["a.pt"], id="no-such-storage"),
    ],
)
def test_bad_pt(data: bytes, words: list[str], tmp_path: Path) -> None:
    for message in (refusal("a.pt", data), refusal_of_path(tmp_path / "a.pt", data)):
        assert "a.pt" in message
        for word in words:
            assert word in message


# --- .parquet ----------------------------------------------------------------------------------------------------


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def with_rows(data: bytes, rows: int, claimed: int) -> bytes:
    """The file with another number of rows in its footer."""
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    old = b"\x16" + varint(2 * rows) + b"\x19"
    assert footer.count(old) == 1
    footer = footer.replace(old, b"\x16" + varint(2 * claimed) + b"\x19")
    return data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


LISTS = parquet({"theta": LOGITS.tolist(), "target": OTHER.tolist()})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_parquet_round_trip(dtype: type) -> None:
    x = (10 * LOGITS).astype(dtype)
    lists = pa.table({name: pa.array(list(y)) for name, y in (("theta", x), ("target", x[::-1]))})
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
    for table in (lists, pa.table({"id": ["a", "b", "c"], "theta": fixed, "target": fixed})):
        read = read_arrays("pair.parquet", parquet(table, row_group_size=2))
        np.testing.assert_array_equal(read["theta"].numpy(), x)
        assert list(read) == ["theta", "target"]
    columns = read_arrays("theta.parquet", parquet({str(i): x[:, i] for i in range(x.shape[1])}))
    np.testing.assert_array_equal(columns["theta"].numpy(), x)


def test_parquet_keeps_nan_and_infinity() -> None:
    rows = [[np.nan, 1.0], [-np.inf, np.inf]]
    np.testing.assert_array_equal(read_arrays("a.parquet", parquet({"a": rows}))["a"].numpy(), rows)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", ["empty"], id="empty"),
        pytest.param(b"PAR1", ["damaged"], id="4-bytes"),
        pytest.param(b"PAR1PAR1", ["damaged"], id="8-bytes"),
        pytest.param(b"theta,target\n", ["PAR1"], id="text"),
        pytest.param(LISTS[:-1], ["truncated"], id="truncated"),
        pytest.param(LISTS[:-8] + b"\xff\xff\xff\x7fPAR1", ["damaged"], id="footer-of-2-GB"),
        pytest.param(LISTS[: len(LISTS) // 2] + LISTS[-8:], ["damaged"], id="cut-inside"),
        pytest.param(with_rows(LISTS, 3, 10**12), ["too large"], id="10**12-rows"),
        pytest.param(with_rows(LISTS, 3, 2**62), ["too large"], id="2**62-rows"),
        pytest.param(with_rows(LISTS, 3, 4), ["a.parquet"], id="one-row-too-many"),
        pytest.param(parquet({"a": np.zeros(3_000_000)}, compression="zstd"), ["too large", "24,"], id="bomb"),
        pytest.param(parquet({"a": pa.array([], pa.float64())}), ["0 rows"], id="no-rows"),
        pytest.param(parquet({"a": [[]]}), ["a.parquet"], id="no-tokens"),
        pytest.param(parquet({"a": [["x"]]}), ["string", "numbers"], id="lists-of-text"),
        pytest.param(parquet({"a": ["x", "y"], "b": [1.0, 2.0]}), ["string", "numbers"], id="text"),
        pytest.param(parquet({"a": [True, False]}), ["bool"], id="booleans"),
        pytest.param(parquet({"a": [1.0, None]}), ["missing values"], id="null"),
        pytest.param(parquet({"a": [[1.0, None]]}), ["missing values"], id="null-in-a-list"),
        pytest.param(parquet({"a": [[1.0], None]}), ["missing values"], id="null-list"),
        pytest.param(parquet({"a": [[1.0], [1.0, 2.0]]}), ["unequal lengths"], id="ragged"),
        pytest.param(parquet({"a": [[[1.0]]]}), ["list"], id="lists-of-lists"),
        pytest.param(parquet({"a": [{"b": 1.0}]}), ["struct"], id="struct"),
        pytest.param(parquet({"a": pa.array([1], pa.timestamp("s"))}), ["timestamp"], id="dates"),
    ],
)
def test_bad_parquet(data: bytes, words: list[str]) -> None:
    message = refusal("a.parquet", data, max_bytes=1 << 24)
    assert "a.parquet" in message
    for word in words:
        assert word in message


def test_parquet_without_pyarrow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refusal("a.parquet", LISTS)
    assert "pyarrow" in message
    assert ".safetensors" in message


# --- .csv and .tsv -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "a,b,c,d,e\n", "tok 1,2,3,4,5\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_round_trip(header: str, newline: str) -> None:
    lines = header + "\n".join(",".join(map(repr, row)) for row in LOGITS.astype(float).tolist()) + "\n"
    text = lines.replace("\n", newline)
    for name, data in {
        "theta.csv": text.encode(),
        "theta.TSV": text.replace(",", "\t").encode(),
        "with/mark/theta.csv": b"\xef\xbb\xbf" + text.encode(),
    }.items():
        np.testing.assert_array_equal(read_arrays(name, data)["theta"].numpy(), LOGITS.astype(float))


def test_csv_keeps_nan_and_infinity() -> None:
    read = read_arrays("a.csv", b"nan,-inf,inf\n1,1e999,-1e-999\n")["a"]
    np.testing.assert_array_equal(read.numpy(), [[np.nan, -np.inf, np.inf], [1, np.inf, 0]])
    assert read_arrays("a.csv", b"1\n")["a"].shape == (1, 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", ["empty"], id="empty"),
        pytest.param(b"\n\n", ["a.csv"], id="blank-lines"),
        pytest.param(b"a,b\n", ["no row of numbers"], id="header-only"),
        pytest.param(b"1,2\n3\n", ["ragged", "line 2"], id="ragged"),
        pytest.param(b"a,b\n1,2\n3,4,5\n", ["ragged", "line 3"], id="ragged-below-a-header"),
        pytest.param(b"1,2\n3,x\n", ["text", "line 2, column 2"], id="text"),
        pytest.param(b"a,b\n1,2\n=1+1,2\n", ["formula", "line 3, column 1"], id="formula"),
        pytest.param(b"=cmd|'/c calc'!A1,2\n1,2\n", ["formula"], id="formula-in-the-header"),
        pytest.param(b"1,2\n3,\n", ["empty cell"], id="empty-cell"),
        pytest.param(b"1;2\n3;4\n", ["commas"], id="semicolons"),
        pytest.param(b'1,"2,5"\n1,"3,5"\n', ["a.csv"], id="decimal-commas"),
        pytest.param(b"1,1_000\n", ["a.csv"], id="underscore"),
        pytest.param(b"1,2\n0x10,2\n", ["text"], id="hexadecimal"),
        pytest.param(b"1,2j\n1,2\n1,2j\n", ["text"], id="complex"),
        pytest.param(b"# 1,2\n# 3,4\n", ["text"], id="comments"),
        pytest.param(b",a,b\n0,1,2\n", ["index"], id="index-column"),
        pytest.param(b"theta,target\n1,2\n3,4\n", ["column for each policy"], id="policies-as-columns"),
        pytest.param(bytes(100), ["not text"], id="zeros"),
        pytest.param("1,2\n3,4\n".encode("utf-16"), ["not text"], id="utf-16"),
        pytest.param(b"1,2\n\xff\xfe,4\n", ["not text in UTF-8"], id="latin"),
        pytest.param(b"a\xff,b\n1,2\n", ["not text in UTF-8"], id="latin-header"),
        pytest.param(b"1,2\n3,4\0\n", ["not text"], id="nul"),
        pytest.param(b"," * (1 << 20) + b"\n", ["too large"], id="a-million-empty-cells"),
        pytest.param(b'"' + b"9" * 200_000 + b'",1\n', ["a.csv"], id="long-cell"),
        pytest.param(LISTS, ["not text"], id="parquet-named-csv"),
    ],
)
def test_bad_csv(data: bytes, words: list[str]) -> None:
    message = refusal("a.csv", data, max_bytes=1 << 22)
    assert "a.csv" in message
    for word in words:
        assert word in message


def test_messages_about_csv_never_show_the_values() -> None:
    assert "secret" not in refusal("a.csv", b"1,2\n1,secret\n")


# --- memory-mapped -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_mapped_as_it_is_read(dtype: str, order: str, tmp_path: Path) -> None:
    array = np.asarray(10 * LOGITS, dtype=dtype, order=order)
    np.save(tmp_path / "theta.npy", array)
    np.save(tmp_path / "target.npy", array[::-1])
    pair = open_paths(tmp_path / "theta.npy", tmp_path / "target.npy")
    np.testing.assert_array_equal(pair.theta.numpy(), array)
    np.testing.assert_array_equal(pair.target.numpy(), array[::-1])
    pair.release()
    np.testing.assert_array_equal(pair.theta.numpy(), array)
    assert len(pair.maps) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_safetensors_are_mapped_as_they_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.from_numpy(10 * LOGITS).to(dtype)
    safetensors.torch.save_file({"theta": x, "target": x.flip(0).contiguous()}, tmp_path / "pair.safetensors")
    pair = open_paths(tmp_path / "pair.safetensors")
    assert pair.theta.dtype == dtype
    assert torch.equal(pair.theta, x)
    assert torch.equal(pair.target, x.flip(0))


def test_what_is_not_aligned_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(header_of("(3, 5)", body=LOGITS.tobytes()))
    np.testing.assert_array_equal(open_arrays(tmp_path / "a.npy")[0]["a"].numpy(), LOGITS)
    body = b"\0" + torch.ones(3, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    entries = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [1, 7]},
    }
    for padding in (b"", b" "):
        (tmp_path / "a.safetensors").write_bytes(tensors(json.dumps(entries).encode() + padding, body))
        assert open_arrays(tmp_path / "a.safetensors")[0]["b"].tolist() == [1, 1, 1]
    message = refusal_of_path(tmp_path / "b.npy", npy(LOGITS.astype(">f4")), max_bytes=50)
    assert "byte order" in message


def test_a_map_may_be_larger_than_what_may_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LOGITS)
    assert open_arrays(tmp_path / "a.npy", max_bytes=10)[0]["a"].shape == (3, 5)
    np.savez(tmp_path / "a.npz", a=LOGITS)
    with pytest.raises(FileError, match="too large"):
        open_arrays(tmp_path / "a.npz", max_bytes=10)


def test_a_huge_sparse_file_is_mapped_without_reading_it(tmp_path: Path) -> None:
    rows = 1 << 16
    head = header_of(f"({rows}, 1048576)", "'<f2'")
    head = header_of(f"({rows}, 1048576{' ' * (len(head) % 2)})", "'<f2'")
    with (tmp_path / "a.npy").open("wb") as stream:
        stream.write(head)
        stream.truncate(len(head) + rows * (1 << 20) * 2)
    x = open_arrays(tmp_path / "a.npy")[0]["a"]
    assert x.shape == (rows, 1 << 20)
    assert float(x[-1, -1]) == 0


def test_links_are_followed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LOGITS)
    (tmp_path / "b.npy").symlink_to(tmp_path / "a.npy")
    (tmp_path / "c.npy").symlink_to(tmp_path / "c.npy")
    assert open_arrays(tmp_path / "b.npy")[0]["b"].shape == (3, 5)
    with pytest.raises(FileError):
        open_arrays(tmp_path / "c.npy")


def test_open_paths_with_a_reference(tmp_path: Path) -> None:
    for name in ("theta", "target", "anything"):
        np.save(tmp_path / f"{name}.npy", LOGITS)
    np.save(tmp_path / "short.npy", LOGITS[:1])
    np.savez(tmp_path / "two.npz", a=LOGITS, b=LOGITS)
    both = (tmp_path / "theta.npy", tmp_path / "target.npy")
    pair = open_paths(*both, reference=tmp_path / "anything.npy")
    assert pair.reference is not None
    assert pair.names["reference"].endswith("anything.npy")
    for name, words in {"short.npy": "same rows", "two.npz": "2 arrays", "none.npy": "not there"}.items():
        with pytest.raises(FileError, match=words):
            open_paths(*both, reference=tmp_path / name)
    with pytest.raises(FileError, match="given twice"):
        open_paths(both[0], both[0])
    with pytest.raises(FileError, match="hold one too"):
        open_paths(*both, tmp_path / "anything.npy", reference=tmp_path / "anything.npy")


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logits.xls", "logits", "logits.npy.txt", ".npy", ""])
def test_unknown_extensions_say_which_are_read(name: str) -> None:
    message = refusal(name, SOUND)
    assert ".npy, .npz, .safetensors" in message


def test_names_are_shown_short_and_without_control_characters() -> None:
    message = refusal("x" * 5000 + "\n\x1b[31m.csv", SOUND)
    assert len(message) < 400
    assert message.isprintable()


def test_library_errors_are_chained() -> None:
    for name, data in {
        "a.npy": header_of("[1]"),
        "a.npz": DEFLATED[:20] + DEFLATED[60:],
        "a.safetensors": tensors(b"["),
    }.items():
        with pytest.raises(FileError) as caught:
            read_arrays(name, data)
        assert caught.value.__cause__ is not None


# --- fuzz --------------------------------------------------------------------------------------------------------

SEEDS = {
    "a.npy": [SOUND, npy(np.asfortranarray(LOGITS.astype(">f8"))), header_of("(1,)", body=b"1234", version=2)],
    "a.npz": [PAIR, DEFLATED, npz(True, theta=LOGITS)],
    "a.safetensors": [TENSORS, tensors(entry(), bytes(8))],
    "a.pt": [saved({"theta": torch.from_numpy(LOGITS), "target": torch.from_numpy(OTHER)}), saved([torch.ones(2, 3)])],
    "a.parquet": [parquet({"theta": LOGITS.tolist(), "target": OTHER.tolist()}), parquet({"a": [1.0], "b": [2.0]})],
    "a.csv": [b"a,b,c\n1,2,3\n4,5,-inf\n", b"0.5,1e3\n"],
}
EXTREMES = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"PK\x01\x02",
    b"'|O'",
    b"99999",
    b"-",
    b"L",
]


@st.composite
def mutants(draw: st.DrawFn, names: Sequence[str] = tuple(sorted(SEEDS.keys() - {"a.parquet"}))) -> tuple[str, bytes]:
    name = draw(st.sampled_from(names))
    data = draw(st.sampled_from(SEEDS[name]))
    for _ in range(draw(st.integers(1, 4))):
        # Headers and directories are where a mutation can do harm.
        near = st.one_of(st.integers(0, min(len(data), 130)), st.integers(0, len(data)))
        at = draw(near)
        piece = draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(EXTREMES)))
        match draw(st.sampled_from(["overwrite", "overwrite", "insert", "delete", "truncate", "digit"])):
            case "overwrite":
                data = data[:at] + piece + data[at + len(piece) :]
            case "insert":
                data = data[:at] + piece + data[at:]
            case "delete":
                data = data[:at] + data[at + draw(st.integers(1, 40)) :]
            case "truncate":
                data = data[:at]
            case _:
                digits = [i for i, byte in enumerate(data[:160]) if chr(byte).isdigit()]
                if digits:
                    i = draw(st.sampled_from(digits))
                    data = data[:i] + draw(st.sampled_from([b"0", b"9", b"-1", b"7777777"])) + data[i + 1 :]
    return name, data


# Each is unpacked in a process of its own, which takes a third of a second.
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(mutants(("a.parquet",)))
def test_mutated_parquet_is_read_or_refused(mutant: tuple[str, bytes]) -> None:
    with suppress(FileError):
        arrays = read_arrays(*mutant, max_bytes=1 << 20)
        assert sum(x.nbytes for x in arrays.values()) <= 1 << 20


def test_parquet_that_ends_its_process_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # pyarrow 26 calls std::terminate on some damaged footers.
    for i, code in enumerate(("import os; os.abort()", "print('{}')", "print('x')", "raise MemoryError")):
        (tmp_path / f"{i}.py").write_text(code)
        monkeypatch.setattr(formats, "_CHILD", tmp_path / f"{i}.py")
        assert "damaged" in refusal("a.parquet", LISTS)


@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(mutants())
def test_mutated_files_are_read_or_refused(mutant: tuple[str, bytes]) -> None:
    name, data = mutant
    try:
        arrays = read_arrays(name, data, max_bytes=1 << 20)
    except FileError:
        return
    assert arrays
    assert all(0 not in x.shape for x in arrays.values())
    assert sum(x.nbytes for x in arrays.values()) <= 1 << 20


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(mutants())
def test_mutated_files_are_mapped_or_refused_as_when_read(tmp_path: Path, mutant: tuple[str, bytes]) -> None:
    name, data = mutant
    (tmp_path / name).write_bytes(data)
    try:
        read = read_arrays(name, data, max_bytes=1 << 20)
    except FileError:
        # A map may hold what safetensors refuses for its order of tensors; never more than the file.
        with suppress(FileError):
            arrays, _ = open_arrays(tmp_path / name, max_bytes=1 << 20)
            assert sum(x.nbytes for x in arrays.values()) <= len(data)
        return
    arrays, _ = open_arrays(tmp_path / name, max_bytes=1 << 20)
    assert arrays.keys() == read.keys()
    for key, x in arrays.items():
        assert x.dtype == read[key].dtype
        torch.testing.assert_close(x, read[key], rtol=0, atol=0, equal_nan=True)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(["a.npy", "a.npz", "a.safetensors"]), st.binary(max_size=200))
def test_noise_is_refused(name: str, data: bytes) -> None:
    refusal(name, data)


# --- which array is which ----------------------------------------------------------------------------------------

A, B, C = (torch.full((2, 3), float(i)) for i in range(3))


@pytest.mark.parametrize(
    ("theta", "target", "reference"),
    [
        ("theta", "target", "reference"),
        ("logits_theta", "logits_t", "logits_ref"),
        ("PI_THETA", "PI_T", "PI_REF"),
        ("current", "Teacher", "base"),
        ("studentLogits", "teacherLogits", "refLogits"),
        ("policy", "target_policy", "reference_policy"),
        ("π_θ", "pi-t", "base model"),
    ],
)
def test_names_decide(theta: str, target: str, reference: str) -> None:
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        named = [(theta, A), (target, B), (reference, C)]
        pair = find_policies({"x.npz": dict(named[i] for i in order)})
        assert torch.equal(pair.theta, A)
        assert torch.equal(pair.target, B)
        assert pair.reference is not None
        assert torch.equal(pair.reference, C)
        assert pair.names == {"theta": theta, "target": target, "reference": reference}
        assert pair.assigned_by == "name"

        pair = find_policies({f"{named[i][0]}.npz": {"arr_0": named[i][1]} for i in order})
        assert torch.equal(pair.theta, A)
        assert torch.equal(pair.target, B)
        assert pair.assigned_by == "name"
        assert pair.names["target"] == f"{target}.npz"


def test_two_by_name() -> None:
    pair = find_policies({"x.npz": {"target": A, "theta": B}})
    assert torch.equal(pair.theta, B)
    assert torch.equal(pair.target, A)
    assert pair.reference is None
    assert pair.names == {"theta": "theta", "target": "target"}


@pytest.mark.parametrize("names", [["a", "b"], ["policy_a", "policy_b"], ["theta_target", "b"], ["step1", "step2"]])
def test_order_decides_where_names_say_nothing(names: list[str]) -> None:
    pair = find_policies({"x.npz": dict(zip(names, [A, B], strict=True))})
    assert torch.equal(pair.theta, A)
    assert torch.equal(pair.target, B)
    assert pair.assigned_by == "order"
    assert pair.names == {"theta": names[0], "target": names[1]}


def test_a_half_named_pair_is_completed_in_order() -> None:
    pair = find_policies({"x.npz": {"target": A, "mine": B, "other": C}})
    assert torch.equal(pair.theta, B)
    assert torch.equal(pair.target, A)
    assert pair.names["reference"] == "other"
    assert pair.assigned_by == "order"


@pytest.mark.parametrize("names", [["theta", "reference"], ["ref", "x"], ["target", "base"]])
def test_names_that_leave_no_theta_or_no_target(names: list[str]) -> None:
    with pytest.raises(FileError, match=r"there is no t(heta|arget)"):
        find_policies({"x.npz": dict(zip(names, [A, B], strict=True))})


@pytest.mark.parametrize("count", [2, 3])
def test_a_stack_is_taken_in_order(count: int) -> None:
    pair = find_policies({"x.npy": {"logits": torch.stack([A, B, C][:count])}})
    assert torch.equal(pair.theta, A)
    assert torch.equal(pair.target, B)
    assert (pair.reference is None) == (count == 2)
    assert pair.assigned_by == "order"
    assert pair.names["theta"] == "logits[0]"


def test_one_row_without_its_axis() -> None:
    assert find_policies({"x.npz": {"theta": A[0], "target": B[0]}}).theta.shape == (1, 3)


@pytest.mark.parametrize(
    ("given_files", "words"),
    [
        ({}, ["No file"]),
        ({"x.npy": {"theta": A}}, ["only one array", "[2, 3]"]),
        ({"x.npy": {"theta": torch.zeros(4, 2, 3)}}, ["only one array", "[4, 2, 3]"]),
        ({"x.npz": {str(i): A for i in range(4)}}, ["4 arrays", "two or three"]),
        ({f"{i}.npy": {"a": A} for i in range(4)}, ["3.npy with 1 array", "two or three"]),
        ({"x.npz": {"a": A, "b": B}, "y.npy": {"c": C}}, ["x.npz with 2 arrays", "y.npy with 1 array"]),
        ({"x.npz": {"theta": A, "target": A[:1]}}, ["[1, 3]", "[2, 3]", "same rows"]),
        ({"x.npz": {"theta": A, "target": A[:, :2]}}, ["[2, 2]", "[2, 3]", "same vocabulary"]),
        ({"x.npz": {"theta": A, "target": A, "ref": A[:, :2]}}, ["reference", "[2, 2]", "[2, 3]"]),
        ({"x.npz": {"theta": A[None], "target": B[None]}}, ["[1, 2, 3]", "[rows, tokens]"]),
        ({"x.npz": {"theta": A[0, 0], "target": B[0, 0]}}, ["[]", "[rows, tokens]"]),
        ({"x.npz": {"theta": A[:0], "target": B[:0]}}, ["[0, 3]", "at least one"]),
        ({"x.npz": {"theta": A[:, :0], "target": B[:, :0]}}, ["[2, 0]", "at least one"]),
    ],
)
def test_what_cannot_be_a_pair(given_files: dict[str, dict[str, Tensor]], words: list[str]) -> None:
    with pytest.raises(FileError) as caught:
        find_policies(given_files)
    for word in words:
        assert word in str(caught.value)


# --- paths -------------------------------------------------------------------------------------------------------


def test_load_paths(tmp_path: Path) -> None:
    np.save(tmp_path / "target.npy", OTHER)
    np.save(tmp_path / "theta.npy", LOGITS)
    np.savez(tmp_path / "both.npz", logits_t=OTHER, logits_theta=LOGITS)
    separate = load_paths(tmp_path / "target.npy", str(tmp_path / "theta.npy"))
    together = load_paths(tmp_path / "both.npz")
    np.testing.assert_array_equal(separate.theta.numpy(), LOGITS)
    np.testing.assert_array_equal(separate.target.numpy(), OTHER)
    assert torch.equal(together.theta, separate.theta)
    assert torch.equal(together.target, separate.target)


def test_load_paths_keeps_files_of_one_name_apart(tmp_path: Path) -> None:
    for folder, array in (("one", LOGITS), ("two", OTHER)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "logits.npy", array)
    pair = load_paths(tmp_path / "one" / "logits.npy", tmp_path / "two" / "logits.npy")
    np.testing.assert_array_equal(pair.target.numpy(), OTHER)
    assert pair.assigned_by == "order"


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LOGITS)
    with pytest.raises(FileError, match="not there"):
        load_paths(tmp_path / "none.npy")
    with pytest.raises(FileError, match="not a file"):
        load_paths(tmp_path)
    with pytest.raises(FileError, match="too large"):
        load_paths(tmp_path / "a.npy", max_bytes=10)
    with pytest.raises(FileError, match="given twice"):
        load_paths(tmp_path / "a.npy", tmp_path / "a.npy")
    with pytest.raises(FileError, match="cannot be read"):
        load_paths(tmp_path / ("n" * 300 + ".npy"))
    with pytest.raises(FileError, match="No file"):
        load_paths()
