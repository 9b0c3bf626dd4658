"""`geomix solve`, `verify` and `inspect` of top-k log-probabilities: intervals in every format, statuses, refusals."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from topk_files import data, distributions, openai, vllm

from geomix_app.cli import main
from geomix_core.intervals import COLUMNS, TABLE
from geomix_core.result_files import EXTENSIONS, read
from geomix_core.tails import bound_rows
from geomix_core.topk import open_topk

THETA, TARGET = distributions(5, 300, 4)
README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """θ and target as vLLM writes them, of one prompt."""
    prompt = [int(row.argmax()) for row in THETA]
    paths = tmp_path / "theta.json", tmp_path / "target.jsonl"
    for path, x in zip(paths, (THETA, TARGET), strict=True):
        path.write_bytes(data(vllm(x, 10, prompt)))
    return paths


def test_solve_prints_intervals(files: tuple[Path, Path]) -> None:
    result = invoke("solve", *files)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0]) == list(COLUMNS)
    bounds = bound_rows(open_topk(*files).rows)
    for i, row in enumerate(rows):
        assert (int(row["row"]), int(row["text"]), int(row["position"])) == (i, 0, i + 1)
        assert [float(row["alpha_kl_low"]), float(row["alpha_kl_high"])] == bounds.alpha_kl[i].tolist()
        assert row["kl_theta_target_high"] == "inf"
        assert row["status"] == bounds.status[i]
    assert "5 rows" in result.stderr
    assert "matched by their ids" in result.stderr
    assert "α_SNR and α_Wald are not bounded" in result.stderr


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_verify_computes_the_intervals_again(extension: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / f"out{extension}"
    result = invoke("solve", *files, "--out", out, "--vocabulary", 300, "--width", 0.3)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    table = read(out, TABLE)
    assert set(table["width"]) == {0.3}
    assert set(table["vocabulary"]) == {300}
    checked = invoke("verify", out, *files)
    assert checked.exit_code == 0, checked.output
    assert "5 rows: their intervals were computed again, 0 differ" in checked.stderr


def test_verify_names_the_rows_that_differ(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert invoke("solve", *files, "--out", out).exit_code == 0
    whole = json.loads(out.read_text())
    whole["rows"][2]["alpha_kl_high"] += 0.01
    whole["rows"][3]["status"] = "identical"
    del whole["rows"][4]
    whole["rows"].append({**whole["rows"][0], "row": 9})
    out.write_text(json.dumps(whole))
    checked = invoke("verify", out, *files)
    assert checked.exit_code == 1
    for words in (
        "row 2: alpha_kl_high is ",
        "row 3: status is ",
        "row 4: the row is not in the results",
        "row 9: the input has only 5 rows",
    ):
        assert words in checked.stdout
    whole["rows"][0]["width"] = 0.5
    out.write_text(json.dumps(whole))
    assert "several widths" in invoke("verify", out, *files).stderr


def test_results_of_another_kind_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "pair.npz", theta=THETA, target=TARGET)
    assert invoke("solve", tmp_path / "pair.npz", "--out", tmp_path / "out.csv").exit_code == 0
    result = invoke("verify", tmp_path / "out.csv", *files)
    assert result.exit_code == 2
    assert "has no column alpha_kl_low" in result.stderr


def test_rows_that_cannot_be_used_are_reported(tmp_path: Path) -> None:
    mine = [int(row.argmax()) for row in THETA]
    (tmp_path / "theta.json").write_bytes(data(openai(THETA, 10, mine)))
    (tmp_path / "target.json").write_bytes(data(openai(TARGET, 10, [*mine[:3], mine[3] + 1, mine[4]])))
    result = invoke("solve", tmp_path / "theta.json", tmp_path / "target.json", "--out", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert "1 invalid  The row cannot be used." in result.stderr
    assert "the two texts part at position 3" in result.stderr
    assert [bool(words) for words in read(tmp_path / "out.csv", TABLE)["problem"]] == [False] * 4 + [True]
    assert invoke("verify", tmp_path / "out.csv", tmp_path / "theta.json", tmp_path / "target.json").exit_code == 0
    found = invoke("inspect", tmp_path / "theta.json", tmp_path / "target.json")
    assert found.exit_code == 0
    assert "1 rows cannot be used: the two texts part" in found.stdout


def test_inspect_says_how_much_is_missing(files: tuple[Path, Path]) -> None:
    result = invoke("inspect", *files)
    assert result.exit_code == 0, result.output
    for words in (
        "prompt_logprobs (vLLM's shape) → theta",
        "reported   10 tokens a position",
        "of the probability in the median",
        "Roles were given by their names.",
        "5 rows (positions) in 1 texts; tokens are matched by their ids.",
        "--vocabulary says it",
    ):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("solve", ["--reference", "x.npy"], "--reference does not go with top-k log-probabilities"),
        ("solve", ["--criterion", "snr"], "--criterion does not go with"),
        ("solve", ["--eta-low", "0.1"], "--eta-low does not go with"),
        ("solve", ["--resume"], "--resume does not go with"),
        ("solve", ["--width", "2"], "the width is 2: expected a number between 0 and 1"),
        ("solve", ["--vocabulary", "0"], "the vocabulary is 0"),
        ("solve", ["--out", "out.txt"], "has extension .txt"),
        ("inspect", ["--row", "0"], "--row does not go with"),
    ],
)
def test_options_that_cannot_be_used(command: str, options: list[str], words: str, files: tuple[Path, Path]) -> None:
    result = invoke(command, *files, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_one_file_or_a_mixture_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "target.npy", TARGET)
    for given in ([files[0]], [files[0], tmp_path / "target.npy"]):
        for command in ("solve", "inspect"):
            result = invoke(command, *given)
            assert result.exit_code == 2
            assert "come in two files, of θ and of the target" in result.stderr


def test_a_hostile_file_is_refused_in_one_line(files: tuple[Path, Path]) -> None:
    files[0].write_text('{"choices": [NaN]}')
    result = invoke("solve", *files)
    assert result.exit_code == 2
    assert "holds NaN, which is no number in JSON" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_readme_lists_the_columns() -> None:
    for name, column in COLUMNS.items():
        row = re.search(rf"^\| `{name}` \| (.*) \|$", README[README.index("### Top-k") :], re.MULTILINE)
        assert row, name
        assert row[1] == column.says
