"""`geomix solve`, `verify` and `inspect`: exit statuses, what is written where, a killed run, hostile files."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from strategies import draw
from test_certificates import with_every_status

from geomix_app.cli import main
from geomix_core import formats, results
from geomix_core.logits import solve_logits
from geomix_core.result_files import EXTENSIONS, read

GEOMIX = str(Path(sys.executable).parent / "geomix")


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A file of twelve sound rows."""
    theta, target = (x.astype(np.float32) for x in draw("gaussian", 12, 50, 4))
    np.savez(tmp_path / "pair.npz", theta=theta, target=target)
    return tmp_path / "pair.npz"


@pytest.fixture
def every(tmp_path: Path) -> Path:
    theta, target = with_every_status()
    np.savez(tmp_path / "every.npz", theta=theta, target=target)
    return tmp_path / "every.npz"


def arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as file:
        return file["theta"], file["target"]


# --- solve -------------------------------------------------------------------------------------------------------


def test_solve_prints_csv_and_a_summary(pair: Path) -> None:
    result = invoke("solve", pair)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [int(row["row"]) for row in rows] == list(range(12))
    np.testing.assert_array_equal([float(row["alpha_kl"]) for row in rows], solve_logits(*arrays(pair)).alpha)
    assert "12 solved" in result.stderr
    assert "a second" in result.stderr
    assert "|α − α*| ≤" in result.stderr
    assert "logits: log Σ exp runs from" in result.stderr


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_solve_writes_and_verify_agrees(extension: str, every: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out{extension}"
    result = invoke("solve", every, "--criterion", "kl_symmetry,snr,wald", "--out", out)
    assert result.exit_code == 1, "a row is invalid"
    assert result.stdout == ""
    for words in ("1 invalid", "1 disjoint", "1 identical", "1 no_interior_root", "theta has NaN"):
        assert words in result.stderr
    assert read(out)["status"][0] == "solved"
    assert not (tmp_path / f"out{extension}.partial").exists()
    checked = invoke("verify", out, every)
    assert checked.exit_code == 0, checked.output
    assert "6 rows checked, 0 differ" in checked.stderr


@pytest.mark.parametrize("extension", [".npy", ".safetensors", ".pt", ".parquet", ".csv", ".tsv"])
def test_every_format_gives_the_same_answers(extension: str, pair: Path, tmp_path: Path) -> None:
    theta, target = arrays(pair)
    names = [tmp_path / f"{name}{extension}" for name in ("target", "theta")]
    for path, x in zip(names, (target, theta), strict=True):
        if extension == ".npy":
            np.save(path, x)
        elif extension == ".safetensors":
            safetensors.torch.save_file({"logits": torch.from_numpy(x)}, path)
        elif extension == ".pt":
            torch.save(torch.from_numpy(x), path)
        elif extension == ".parquet":
            import pandas as pd

            pd.DataFrame(x).rename(columns=str).to_parquet(path)
        else:
            np.savetxt(path, x, fmt="%.9g", delimiter="," if extension == ".csv" else "\t")
    result = invoke("solve", *names, "--out", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    found = read(tmp_path / "out.json")
    np.testing.assert_allclose(found["alpha_kl"], solve_logits(theta, target).alpha, atol=2e-5)
    assert invoke("verify", tmp_path / "out.json", *names).exit_code == 0


def test_solve_with_a_reference_and_options(pair: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "reference.npy", draw("gaussian", 12, 50, 9)[0])
    out = tmp_path / "out.csv"
    result = invoke(
        "solve", pair, "--reference", tmp_path / "reference.npy", "--criterion", "wald,snr", "--weights", "inverse",
        "--eta-low", "0.1", "--eta-high", "0.2", "--threads", "1", "--device", "cpu", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table = read(out)
    assert set(table["eta_low"]) == {0.1}
    assert set(table["weights"]) == {"inverse"}
    assert set(table["status"]) == {None}
    checked = invoke("verify", out, pair, "--reference", tmp_path / "reference.npy")
    assert checked.exit_code == 0
    assert "No row has a certificate" in checked.stderr
    assert invoke("verify", out, pair).exit_code == 1, "SNR is that of another reference"


def test_what_is_probabilities_is_said(pair: Path, tmp_path: Path) -> None:
    theta, target = (torch.from_numpy(x).softmax(-1) for x in arrays(pair))
    torch.save({"theta": theta, "target": target}, tmp_path / "probs.pt")
    result = invoke("solve", tmp_path / "probs.pt", "--out", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert "probs: values lie in [0, 1] and sum to 1" in result.stderr
    assert "their logarithms are solved" in result.stderr
    np.testing.assert_allclose(read(tmp_path / "out.csv")["alpha_kl"], solve_logits(*arrays(pair)).alpha, atol=1e-4)
    assert invoke("verify", tmp_path / "out.csv", tmp_path / "probs.pt").exit_code == 0
    forced = invoke("solve", tmp_path / "probs.pt", "--kind", "logits", "--out", tmp_path / "logits.csv")
    assert forced.exit_code == 0
    assert read(tmp_path / "logits.csv")["alpha_kl"] != read(tmp_path / "out.csv")["alpha_kl"]
    torch.save({"theta": theta / 2, "target": target}, tmp_path / "half.pt")
    unclear = invoke("solve", tmp_path / "half.pt")
    assert unclear.exit_code == 2
    assert "--kind" in unclear.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--criterion", "kl"], "kl_symmetry, snr, wald"),
        (["--criterion", ""], "kl_symmetry, snr, wald"),
        (["--eta-low", "3"], "low ≤ high"),
        (["--eta-low", "nan"], "low ≤ high"),
        (["--device", "toaster"], "toaster"),
        (["--threads", "0"], "threads"),
        (["--weights", "both"], "weights"),
        (["--kind", "numbers"], "kind"),
        (["--out", "out.xls"], ".csv, .json, .parquet"),
        (["--out", "/nowhere/out.csv"], "cannot be written"),
        (["--resume"], "--out"),
        (["--reference", "none.npy"], "not there"),
    ],
)
def test_options_that_cannot_be_used(options: list[str], words: str, pair: Path) -> None:
    result = invoke("solve", pair, *options)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", [["solve"], ["verify", "RESULTS"], ["inspect"]])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("theta.npy", b"\x93NUMPY\x01\x00"),
        ("pair.npz", b"PK\x03\x04"),
        ("pair.safetensors", b"\xff" * 50),
        ("pair.pt", b"\x80\x04cos\nsystem\n."),
        ("pair.parquet", b"PAR1PAR1"),
        ("pair.csv", b"1,2\n3,=1\n"),
        ("pair.tsv", b""),
        ("pair.pkl", b"\x80\x04."),
        ("pair", b"1,2"),
    ],
)
def test_hostile_files_are_refused_in_one_line(
    command: list[str], name: str, data: bytes, pair: Path, tmp_path: Path
) -> None:
    invoke("solve", pair, "--out", tmp_path / "r.csv")
    (tmp_path / name).write_bytes(data)
    arguments = [str(tmp_path / "r.csv") if word == "RESULTS" else word for word in command]
    result = invoke(*arguments, tmp_path / name)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert name in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)


# --- killed and resumed ------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.csv"
    whole = results.solve_chunks
    starts: list[int] = []

    def slow(*args: Any, **options: Any) -> Any:
        starts.append(options["start"])
        for i, columns in enumerate(whole(*args, **options, chunk_elements=150)):
            if i == 2 and len(starts) == 1:
                raise KeyboardInterrupt
            yield columns

    monkeypatch.setattr(results, "solve_chunks", slow)
    first = invoke("solve", pair, "--out", out)
    assert first.exit_code == 130
    assert "6 rows are kept for --resume" in first.stderr
    assert not out.exists()

    plain = invoke("solve", pair, "--out", out)
    assert plain.exit_code == 2
    assert "--resume" in plain.stderr
    other = invoke("solve", pair, "--out", out, "--weights", "inverse", "--resume")
    assert other.exit_code == 2
    assert "other options" in other.stderr

    second = invoke("solve", pair, "--out", out, "--resume")
    assert second.exit_code == 0, second.output
    assert starts[-1] == 6
    assert "Going on after 6 rows" in second.stderr
    resumed = out.read_bytes()
    assert invoke("solve", pair, "--out", tmp_path / "again.csv").exit_code == 0
    assert (tmp_path / "again.csv").read_bytes() == resumed
    assert not (tmp_path / "out.csv.partial").exists()


def test_another_input_is_not_resumed(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, about = tmp_path / "out.csv", pair.stat()
    whole = results.solve_chunks

    def one(*args: Any, **options: Any) -> Any:
        yield next(iter(whole(*args, **options, chunk_elements=150)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results, "solve_chunks", one)
        assert invoke("solve", pair, "--out", out).exit_code == 130
    theta, target = arrays(pair)
    theta[0, 0] += 1
    np.savez(pair, theta=theta, target=target)
    changed = invoke("solve", pair, "--out", out, "--resume")
    assert changed.exit_code == 2
    assert "other input" in changed.stderr
    # Even with the time put back, the rows' digests tell.
    os.utime(pair, ns=(about.st_atime_ns, about.st_mtime_ns))
    changed = invoke("solve", pair, "--out", out, "--resume")
    assert changed.exit_code == 2
    assert "other numbers in row 0" in changed.stderr
    assert not out.exists()


def test_a_killed_run_leaves_no_output_and_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for name in ("theta", "target"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(600, 40_000)).astype(np.float16))
    out, partial = tmp_path / "out.csv", tmp_path / "out.csv.partial"
    command = [GEOMIX, "solve", str(tmp_path / "theta.npy"), str(tmp_path / "target.npy"), "--criterion", "kl_symmetry"]
    running = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not (partial.exists() and partial.read_bytes().count(b"\n") >= 2):
            assert running.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(running.pid, signal.SIGSTOP)  # under way for as long as it is looked at
        for options in ([], ["--resume"]):
            before = partial.read_bytes()
            second = invoke(*command[1:], "--out", out, *options)
            assert second.exit_code == 2
            assert f"out.csv is being written by process {running.pid} on " in second.stderr
            assert partial.read_bytes() == before
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert not out.exists()
    done = subprocess.run([*command, "--out", str(out), "--resume"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Going on after" in done.stderr
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.csv"]
    assert read(out)["row"] == list(range(600))
    checked = invoke("verify", out, tmp_path / "theta.npy", tmp_path / "target.npy")
    assert checked.exit_code == 0, checked.output


# --- verify ------------------------------------------------------------------------------------------------------


def test_verify_names_the_rows_that_differ(pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    invoke("solve", pair, "--out", out)
    found = json.loads(out.read_text("utf-8"))
    found["rows"][3]["alpha_kl"] = 0.123
    del found["rows"][7]
    out.write_text(json.dumps(found), "utf-8")
    result = invoke("verify", out, pair)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["row 3", "row 7"]
    assert "not in the results" in lines[1]
    assert "12 rows checked, 2 differ" in result.stderr


def test_verify_refuses_what_are_no_results(pair: Path) -> None:
    result = invoke("verify", pair, pair)
    assert result.exit_code == 2
    assert ".csv, .json, .parquet" in result.stderr


def test_verify_survives_a_parquet_file_that_ends_its_reader(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    assert invoke("solve", pair, "--out", out).exit_code == 0
    assert invoke("verify", out, pair).exit_code == 0
    (tmp_path / "child.py").write_text("import os; os.abort()")
    monkeypatch.setattr(formats, "_CHILD", tmp_path / "child.py")
    result = invoke("verify", out, pair)
    assert result.exit_code == 2
    assert "out.parquet is damaged" in result.stderr


# --- inspect -----------------------------------------------------------------------------------------------------


def test_inspect_says_what_is_there(every: Path) -> None:
    result = invoke("inspect", every)
    assert result.exit_code == 0, result.output
    for words in (
        "theta in",
        "[6, 40] float32 → theta",
        "→ target",
        "by their names",
        "1 rows with NaN",
        "1 rows are the same in θ and target",
        "1 rows in which they share no token",
        "support",
        "logits: log Σ exp",
    ):
        assert words in result.stdout


def test_inspect_suggests(tmp_path: Path) -> None:
    theta, target = draw("gaussian", 20, 30, 1)
    target[3] = target[4]
    theta[:, :5] = -np.inf
    np.save(tmp_path / "a.npy", theta)
    np.save(tmp_path / "b.npy", np.asfortranarray(target))
    np.save(tmp_path / "c.npy", target + 0.01)
    result = invoke("inspect", tmp_path / "a.npy", tmp_path / "b.npy", "--reference", tmp_path / "c.npy")
    assert result.exit_code == 0, result.output
    for words in (
        "by their order",
        "name the arrays theta and target",
        "1 rows repeat an earlier row",
        "20 rows in which θ lacks a token of the target",
        "Possibly swapped: θ lacks tokens",
        "Possibly swapped: the reference is nearer to the target",
    ):
        assert words in result.stdout
    sound = invoke("inspect", tmp_path / "b.npy", tmp_path / "a.npy")
    assert "Possibly swapped" not in sound.stdout


def test_inspect_of_what_is_no_pair(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", draw("gaussian", 3, 8, 1)[0])
    result = invoke("inspect", tmp_path / "one.npy")
    assert result.exit_code == 1
    assert "[3, 8] float64 → no role" in result.stdout
    assert "Not a pair: There is only one array" in result.stdout


def test_inspect_of_probabilities_and_stacks(tmp_path: Path) -> None:
    stack = torch.from_numpy(np.stack(draw("gaussian", 4, 8, 1))).softmax(-1).to(torch.bfloat16)
    torch.save(stack, tmp_path / "stack.pt")
    result = invoke("inspect", tmp_path / "stack.pt")
    assert result.exit_code == 0, result.output
    assert "[2, 4, 8] bfloat16 → theta, target" in result.stdout
    assert "probs:" in result.stdout
    assert "takes their logarithms" in result.stdout
