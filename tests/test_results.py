"""geomix_core.results, result_files and kinds: the table against the solvers, its files, the journal, and checks."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from strategies import draw, draw_reference
from test_certificates import with_every_status

from geomix_core import formats, result_files
from geomix_core.certificates import row_digests
from geomix_core.criteria import chernoff_information, solve_alpha
from geomix_core.divergences import kl
from geomix_core.errors import FileError, OptionError
from geomix_core.files import LogitPair, find_policies
from geomix_core.kinds import Kind, detect, kind_of
from geomix_core.logit_maxima import maximise_logits
from geomix_core.logits import solve_logits
from geomix_core.policies import PolicyBatch
from geomix_core.result_files import EXTENSIONS, Journal, encode, read, write
from geomix_core.results import (
    CERTIFICATE,
    COLUMNS,
    Columns,
    Plan,
    Tally,
    differing_row,
    distances,
    one_kind,
    solve_chunks,
    verify_chunks,
)
from geomix_core.row_chunks import problem_of
from geomix_core.status import Status

ALL = Plan(("kl_symmetry", "snr", "wald"))


def pair_of(*arrays: Any) -> LogitPair:
    named = zip(("theta", "target", "reference"), arrays, strict=False)
    return find_policies({"x.npz": {name: torch.as_tensor(x) for name, x in named}})


def table_of(pair: LogitPair, plan: Plan = ALL, **options: Any) -> Columns:
    chunks = list(solve_chunks(pair, plan, **options))
    return {name: [value for chunk in chunks for value in chunk[name]] for name in COLUMNS}


def differences(table: Columns, pair: LogitPair, kind: Kind = "logits") -> dict[int, str]:
    return dict(pair for part in verify_chunks(table, pair, kind, 100) for pair in part.differences)


@pytest.fixture(scope="module")
def every() -> tuple[LogitPair, Columns]:
    pair = pair_of(*with_every_status())
    return pair, table_of(pair)


# --- solving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["importance", "inverse"])
@pytest.mark.parametrize("with_reference", [False, True])
def test_the_table_is_what_the_solvers_say(weights: Any, with_reference: bool) -> None:
    theta, target = (x.astype(np.float32) for x in draw("gaussian", 7, 60, 1))
    reference = draw_reference(7, 60, 1).astype(np.float32) if with_reference else None
    pair = pair_of(theta, target) if reference is None else pair_of(theta, target, reference)
    table = table_of(pair, Plan(("kl_symmetry", "snr", "wald"), weights, (0.3, 3.0)), chunk_elements=130)
    solution = solve_logits(theta, target)
    for name, values in {
        "alpha_kl": solution.alpha, "bound": solution.bound, "low": solution.low, "high": solution.high,
        "delta": solution.delta, "variance": solution.variance,
    }.items():  # fmt: skip
        assert table[name] == values.tolist()
    for criterion, value in (("snr", "snr"), ("wald", "wald_progress")):
        best = maximise_logits(
            theta, target, reference, criterion=criterion, weights=weights, eta_range=(0.3, 3.0)  # type: ignore[arg-type]
        )  # fmt: skip
        assert table[f"alpha_{criterion}"] == best.alpha.tolist()
        assert table[value] == best.value.tolist()
        assert table[f"status_{criterion}"] == [str(word) for word in best.status]
    assert table["row"] == list(range(7))
    assert table["digest"] == list(row_digests(theta, target))
    assert set(table["eta_high"]) == {3.0}
    assert differences(table, pair) == {}


def test_the_numbers_are_those_of_one_row_at_a_time(every: tuple[LogitPair, Columns]) -> None:
    pair, table = every
    for i in range(len(pair.theta)):
        if table["status"][i] == "invalid":
            assert table["problem"][i] == problem_of({"theta": pair.theta[i], "target": pair.target[i]}) != ""
            continue
        row = PolicyBatch.from_logits(pair.theta[i], pair.target[i])
        middle, best = solve_alpha(row, "kl_symmetry"), solve_alpha(row, "snr")
        assert (table["status"][i], table["status_snr"][i]) == (str(middle.status[0]), str(best.status[0]))
        disjoint = middle.status[0] == Status.DISJOINT
        expected = {
            "kl_theta_target": kl(row.theta, row.target).item(),
            "kl_target_theta": kl(row.target, row.theta).item(),
            "chernoff_information": None if disjoint else chernoff_information(row).item(),
            "alpha_kl": None if disjoint else middle.alpha.item(),
            "snr": best.maxima[0][0].value if best.maxima[0] else table["snr"][i],
        }
        for name, b in expected.items():
            a = table[name][i]
            assert (a is None) == (b is None), name
            assert a is None or a == b or abs(a - b) <= 5e-5 * max(1, abs(b)), name


@pytest.mark.parametrize("family", ["gaussian", "peaked", "near", "tied", "zipf"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_distances_against_the_careful_sums(family: str, dtype: torch.dtype) -> None:
    theta, target = (torch.from_numpy(x).to(dtype) for x in draw(family, 5, 300, 2))
    theta[1] = target[1]
    theta[2, 4] = -torch.inf
    target[3, 5] = -5000 if dtype != torch.float16 else -torch.inf
    found = distances(theta, target, [True] * 4 + [False], np.array([0.3, 0.5, 0.6, np.nan, 0.5]), threads=1)
    batch = PolicyBatch.from_logits(theta[:4], target[:4])
    np.testing.assert_allclose(found[0, :4], kl(batch.theta, batch.target), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(found[1, :4], kl(batch.target, batch.theta), rtol=1e-9, atol=1e-14)
    assert np.isnan(found[:, 4]).all()
    assert np.isnan(found[2, 3])
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-14)


def test_small_divergences_keep_their_digits() -> None:
    theta = np.random.default_rng(0).normal(size=(2, 1000))
    target = theta + 1e-7 * np.random.default_rng(1).normal(size=theta.shape)
    found = distances(torch.from_numpy(theta), torch.from_numpy(target), [True, True], None)
    batch = PolicyBatch.from_logits(theta, target)
    assert found[0].tolist() == kl(batch.theta, batch.target).tolist()


def test_a_tally_counts(every: tuple[LogitPair, Columns]) -> None:
    tally = Tally()
    tally.add(every[1])
    assert tally.rows == 6
    assert tally.status["status"]["invalid"] == 1
    assert tally.bound is not None
    assert 0 < tally.bound < 1e-4
    assert sum(tally.problems.values()) == 1
    assert not tally.complete


@pytest.mark.parametrize(
    "options",
    [
        {"criteria": ()},
        {"criteria": ("kl",)},
        {"criteria": ("snr", "snr")},
        {"weights": "uniform"},
        {"eta_range": (2.0, 1.0)},
        {"eta_range": (0.0, math.inf)},
        {"eta_range": (math.nan, 1.0)},
        {"kind": "auto"},
    ],
)
def test_plans_that_cannot_be(options: Any) -> None:
    with pytest.raises(OptionError):
        Plan(**options)


# --- what the numbers are ----------------------------------------------------------------------------------------


def test_kinds_are_found_with_their_evidence() -> None:
    logits = torch.from_numpy(draw("gaussian", 5, 50, 0)[0])
    assert detect(logits).kind == "logits"
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert detect(logits.log_softmax(-1).to(dtype)).kind == "log_probs"
        assert detect(logits.softmax(-1).to(dtype)).kind == "probs"
    assert "sum to 1" in detect(logits.softmax(-1)).evidence
    unclear = detect(logits.softmax(-1) * 0.7)
    assert unclear.kind == "unclear"
    assert "0.7" in unclear.evidence
    logits[0, 0] = torch.nan
    assert "4 of 5" in detect(logits).evidence
    assert detect(torch.full((2, 3), torch.nan)).kind == "logits"


def test_arrays_of_different_kinds_are_not_guessed() -> None:
    logits = torch.from_numpy(draw("gaussian", 5, 50, 0)[0])
    plain, logs, probs, unclear = map(detect, (logits, logits.log_softmax(-1), logits.softmax(-1), torch.zeros(2, 2)))
    assert kind_of({"theta": plain, "target": logs}) == "logits"
    assert kind_of({"theta": logs, "target": logs}) == "log_probs"
    assert kind_of({"theta": probs, "target": probs}) == "probs"
    for found in ({"theta": probs, "target": plain}, {"theta": unclear, "target": unclear}):
        with pytest.raises(FileError, match="--kind"):
            kind_of(found)


def test_probabilities_are_solved_by_their_logarithms() -> None:
    theta, target = (torch.from_numpy(x) for x in draw("gaussian", 6, 40, 3))
    pair = pair_of(theta.softmax(-1), target.softmax(-1))
    pair.theta[1, 0], pair.theta[2, 0], pair.target[3] = -1, torch.nan, 0.5
    plan = Plan(kind="probs")
    table = table_of(pair, plan, chunk_elements=80)
    logits = table_of(pair_of(theta, target))
    for i in (0, 4, 5):
        assert table["alpha_kl"][i] == pytest.approx(logits["alpha_kl"][i], abs=1e-4)
        assert table["snr"][i] == pytest.approx(logits["snr"][i], abs=1e-6)
    assert [table["status"][i] for i in (1, 2, 3)] == ["invalid"] * 3
    for i, words in ((1, "negative"), (2, "NaN"), (3, "target has probabilities that do not sum to 1")):
        assert words in table["problem"][i]
    assert differences(table, pair, "probs") == {}
    assert one_kind(table) == "probs"


# --- verified ----------------------------------------------------------------------------------------------------


def test_every_status_verifies(every: tuple[LogitPair, Columns]) -> None:
    assert differences(every[1], every[0]) == {}


@pytest.mark.parametrize(
    ("column", "row", "value", "words"),
    [
        ("alpha_kl", 0, 0.4, "order"),
        ("alpha_kl", 0, None, "no alpha_kl"),
        ("bound", 0, 1e-9, "bound"),
        ("low", 0, 0.4999, "low"),
        ("variance", 0, 1.0, "variance"),
        ("status", 0, "disjoint", "disjoint"),
        ("status", 5, "solved", "status"),
        ("status", 0, "invalid", "invalid"),
        ("digest", 3, "0" * 32, "digest"),
        ("kl_theta_target", 0, 3.0, "kl_theta_target"),
        ("kl_target_theta", 3, math.inf, "kl_target_theta"),
        ("chernoff_information", 1, 0.47, "chernoff_information"),
        ("chernoff_information", 4, 0.47, "chernoff_information"),
        ("snr", 0, 2.8, "snr"),
        ("alpha_snr", 0, 0.9, "snr"),
        ("alpha_snr", 0, 7.0, "alpha_snr"),
    ],
)
def test_what_was_changed_is_named(
    every: tuple[LogitPair, Columns], column: str, row: int, value: Any, words: str
) -> None:
    pair, table = every
    changed = table | {column: [value if i == row else x for i, x in enumerate(table[column])]}
    found = differences(changed, pair)
    assert list(found) == [row]
    assert words in found[row]


def test_rows_that_are_missing_or_too_many(every: tuple[LogitPair, Columns]) -> None:
    pair, table = every
    some = {name: [values[i] for i in (0, 2, 3, 4, 5)] for name, values in table.items()}
    assert "not in the results" in differences(some, pair)[1]
    short = LogitPair(pair.theta[:5], pair.target[:5], None, pair.names, "name")
    assert differences(table, short) == {5: "the input has only 5 rows"}


def test_swapped_policies_are_caught(every: tuple[LogitPair, Columns]) -> None:
    pair, table = every
    swapped = LogitPair(pair.target, pair.theta, None, pair.names, "name")
    assert set(differences(table, swapped)) == {0, 1, 3, 4, 5}, "row 2 is identical"


def test_the_order_of_the_rows_does_not_matter(every: tuple[LogitPair, Columns]) -> None:
    pair, table = every
    assert differences({name: values[::-1] for name, values in table.items()}, pair) == {}


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_is_written_is_read(extension: str, every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    pair, table = every
    path = tmp_path / f"results{extension}"
    halves = [
        {name: values[:4] for name, values in table.items()},
        {name: values[4:] for name, values in table.items()},
    ]
    write(path, halves)
    assert read(path) == table
    assert differences(read(path), pair) == {}
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "no temporary file is left"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_csv_json_and_parquet_as_others_read_them(every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    table = every[1]
    for extension in EXTENSIONS:
        write(tmp_path / f"r{extension}", [table])
    with (tmp_path / "r.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["alpha_kl"] for row in rows][4:] == ["", ""]
    assert float(rows[0]["alpha_kl"]) == table["alpha_kl"][0]
    assert rows[4]["kl_theta_target"] == "inf"

    def no_constant(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads((tmp_path / "r.json").read_text("utf-8"), parse_constant=no_constant)
    assert found["rows"][4]["kl_theta_target"] == "inf"
    assert found["columns"].keys() == COLUMNS.keys()
    parquet = pq.read_table(tmp_path / "r.parquet")
    assert parquet["kl_theta_target"].to_pylist()[4] == math.inf
    assert parquet["alpha_kl"].null_count == 2


def test_a_write_that_fails_leaves_what_was_there(every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def chunks() -> Any:
        yield every[1]
        raise Stop

    for extension in EXTENSIONS:
        path = tmp_path / f"r{extension}"
        path.write_text("before")
        with pytest.raises(Stop):
            write(path, chunks())
        assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == len(EXTENSIONS)
    with pytest.raises(FileError, match="cannot be written"):
        write(tmp_path / "nowhere" / "r.csv", [every[1]])
    for name in ("r.txt", "r", "r.csv.gz"):
        with pytest.raises(FileError, match=r"\.csv, \.json, \.parquet"):
            write(tmp_path / name, [every[1]])


def changed_csv(table: Columns, tmp_path: Path, change: Any) -> Path:
    path = tmp_path / "r.csv"
    write(path, [table])
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "no column row"),
        (lambda data: b"row,status\n0,solved\n", "no column alpha_kl"),
        (lambda data: data.split(b"\n")[0], "no rows"),
        (lambda data: data[:-120], "fields"),
        (lambda data: data.replace(b"\n1,", b"\n0,", 1), "one twice"),
        (lambda data: data.replace(b"\n1,", b"\n-1,", 1), "without a number"),
        (lambda data: data.replace(b"\n1,", b"\n1.5,", 1), "no number in column row"),
        (lambda data: data.replace(b"\n1,", b"\n" + b"9" * 5000 + b",", 1), "row"),
        (lambda data: data.replace(b"\n1,", b"\n99999999999999999999,", 1), "column row"),
        (lambda data: data.replace(b",identical,0.5,", b",identical,nan,"), "alpha_kl"),
        (lambda data: data.replace(b",identical,0.5,", b",identical,=1+1,"), "alpha_kl"),
        (lambda data: data.replace(b",identical,", b",excellent,", 1), "status"),
        (lambda data: data.replace(b"alpha_kl", b"row", 1), "two columns"),
        (lambda data: data + b'"open', "CSV"),
        (lambda data: b"\xff\xfe" + data, "damaged"),
        (lambda data: data + b"\0" * 10 + b"\n", "fields"),
        (lambda data: data + b"x" * 200_000 + b"\n", "CSV"),
    ],
)
def test_bad_results(change: Any, words: str, every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    with pytest.raises(FileError, match=words) as caught:
        read(changed_csv(every[1], tmp_path, change))
    assert "r.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("r.json", b""),
        ("r.json", b"[" * 100_000),
        ("r.json", b"[]"),
        ("r.json", b'{"format": "geomix-results", "version": 2, "rows": []}'),
        ("r.json", b'{"format": "geomix-results", "version": 1, "rows": [1]}'),
        ("r.json", b'{"format": "geomix-results", "version": 1, "rows": [{"row": true}]}'),
        ("r.json", b'{"format": "geomix-results", "version": 1, "rows": []}'),
        ("r.json", b'{"format": "geomix-results", "version": 1, "rows": [{"row": 1e400}]}'),
        ("r.parquet", b""),
        ("r.parquet", b"PAR1" + b"\xff" * 20 + b"PAR1"),
        ("r.pkl", b"\x80\x04."),
    ],
)
def test_what_are_no_results(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileError):
        read(tmp_path / name)


# --- .parquet, read in a process of its own ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def as_parquet(every: tuple[LogitPair, Columns], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parquet") / "r.parquet"
    write(path, [every[1]])
    return path


def test_results_in_parquet_come_back_without_pyarrow_here(every: tuple[LogitPair, Columns], as_parquet: Path) -> None:
    assert read(as_parquet) == every[1]
    code = (
        "import sys; from geomix_core.result_files import read; read(sys.argv[1]); "
        "sys.exit(any(name.startswith('pyarrow') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code, str(as_parquet)], check=True, timeout=120)


def test_results_in_many_groups_of_rows(every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    table = {name: values * 200 for name, values in every[1].items()}
    table["row"] = list(range(len(table["row"])))
    write(tmp_path / "r.parquet", [{name: values[:7] for name, values in table.items()}])
    pq.write_table(pa.Table.from_pydict(table), tmp_path / "r.parquet", row_group_size=100)
    assert read(tmp_path / "r.parquet") == table


def test_damaged_footers(as_parquet: Path, tmp_path: Path) -> None:
    """Read, or refused in words; the process that reads them may end as it likes."""
    data = as_parquet.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    rng = np.random.default_rng(0)
    path = tmp_path / "r.parquet"
    messages: list[str] = []
    for i in range(24):
        damaged = bytearray(data)
        for at in rng.integers(start, len(data) - 4, 1 + i % 4):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except FileError as error:
            messages.append(str(error))
    assert len(messages) > 8
    assert all("r.parquet" in message for message in messages)
    path.write_bytes(data[: start + 50] + data[-8:])
    with pytest.raises(FileError, match="damaged"):
        read(path)


@pytest.mark.parametrize("code", ["import os; os.abort()", "print('{}')", "print('x')", "raise MemoryError"])
def test_a_reader_that_ends_is_damage(code: str, as_parquet: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "child.py").write_text(code)
    monkeypatch.setattr(formats, "_CHILD", tmp_path / "child.py")
    with pytest.raises(FileError, match=r"r\.parquet is damaged"):
        read(as_parquet)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("status", pa.array([b"solved"] * 6), "status in .* holds binary: expected numbers or text"),
        ("delta", pa.array([[1.0]] * 6), "delta in .* holds list"),
        ("delta", pa.array([True] * 6), "delta in .* holds bool"),
        ("delta", pa.array([0] * 6, pa.timestamp("s")), "delta in .* holds timestamp"),
        ("delta", pa.array([math.nan] * 6), "column delta"),
        ("row", pa.array([0.5] * 6), "column row"),
        ("problem", pa.array(["x" * 4_000_000] * 6).dictionary_encode(), "holds dictionary"),
        ("problem", pa.array(["x" * 4_000_000] * 6), "too large"),
    ],
)
def test_values_in_parquet_that_cannot_stand_there(
    column: str, values: pa.Array, words: str, as_parquet: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(result_files, "MAX_BYTES", 1 << 24)
    table = pq.read_table(as_parquet)
    table = table.set_column(table.schema.get_field_index(column), column, values)
    pq.write_table(table, tmp_path / "r.parquet", compression="zstd")
    assert (tmp_path / "r.parquet").stat().st_size < 1 << 18
    with pytest.raises(FileError, match=words):
        read(tmp_path / "r.parquet")


def test_results_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not there"):
        read(tmp_path / "r.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(FileError, match="not a file"):
        read(tmp_path / "d.csv")


def test_columns_that_verify_needs_are_columns() -> None:
    assert set(CERTIFICATE) <= set(COLUMNS)
    assert all(column.says for column in COLUMNS.values())


# --- the journal -------------------------------------------------------------------------------------------------


def chunks_of(pair: LogitPair) -> list[Columns]:
    return list(solve_chunks(pair, ALL, chunk_elements=80))


def test_a_journal_goes_on(every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    chunks, out = chunks_of(every[0]), tmp_path / "r.csv"
    journal = Journal.resume(out, {"options": 1})
    journal.append(chunks[0])
    journal.append(chunks[1])
    path = tmp_path / "r.csv.partial"
    path.write_bytes(path.read_bytes() + b'{"row": [4, 5], "stat')
    again = Journal.resume(out, {"options": 1})
    assert again.done == journal.done == 4
    again.append(chunks[2])
    assert list(again.chunks()) == chunks
    assert Journal.resume(out, {"options": 1}).done == 6
    again.remove()
    assert not path.exists()


def test_a_journal_of_another_run_is_refused(every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    Journal.begin(out, {"options": {"a": 1}, "input": [2]})
    with pytest.raises(FileError, match="--resume"):
        Journal.begin(out, {"options": {"a": 1}, "input": [2]})
    with pytest.raises(FileError, match="other options"):
        Journal.resume(out, {"options": {"a": 2}, "input": [2]})
    with pytest.raises(FileError, match="other input"):
        Journal.resume(out, {"options": {"a": 1}, "input": [3]})


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"[]\n",
        b"\x80\x04.\n",
        b"[" * 100_000 + b"\n",
        b'{"row": [0]}\n',
    ],
)
def test_a_damaged_journal_is_refused(line: bytes, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    journal = Journal.begin(out, {})
    journal.path.write_bytes(journal.path.read_bytes() + line)
    with pytest.raises(FileError, match=r"damaged"):
        Journal.resume(out, {})
    journal.path.write_bytes(line)
    with pytest.raises(FileError):
        Journal.resume(out, {})


def test_a_journal_whose_rows_do_not_follow_is_refused(every: tuple[LogitPair, Columns], tmp_path: Path) -> None:
    chunks = chunks_of(every[0])
    journal = Journal.begin(tmp_path / "r.csv", {})
    journal.append(chunks[0])
    journal.append(chunks[2])
    with pytest.raises(FileError, match="follow"):
        Journal.resume(tmp_path / "r.csv", {})


def test_a_row_of_other_numbers_is_seen(every: tuple[LogitPair, Columns]) -> None:
    pair, (first, *_) = every[0], chunks_of(every[0])
    assert differing_row(first, pair) is None
    other = LogitPair(pair.theta + 1, pair.target, None, pair.names, "name")
    assert differing_row(first, other) == 0


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_download_is_the_file(every: tuple[LogitPair, Columns], extension: str, tmp_path: Path) -> None:
    write(tmp_path / f"a{extension}", [every[1]])
    (tmp_path / f"b{extension}").write_bytes(encode(extension, [every[1]]))
    assert read(tmp_path / f"b{extension}") == read(tmp_path / f"a{extension}")
    if extension != ".parquet":
        assert (tmp_path / f"a{extension}").read_bytes() == (tmp_path / f"b{extension}").read_bytes()
