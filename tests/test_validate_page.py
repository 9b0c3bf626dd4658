"""The Validate page under AppTest: what was found, solved, told and taken away; hostile files; top-k logprobs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
import safetensors.torch
import streamlit
import torch
from apptest import (
    address,
    assert_readable,
    figures,
    go,
    has,
    labels,
    open_app,
    points,
    run,
    scenario,
    trace,
    values,
    words,
)
from click.testing import CliRunner
from streamlit.testing.v1 import AppTest

from geomix_app.cli import main
from geomix_app.notation import SYMBOLS, number, parameter, percent
from geomix_app.scenario import REAL, UPLOAD, Scenario
from geomix_app.shell import plain
from geomix_app.views.uploads import FOLDER
from geomix_core import solve_alpha
from geomix_core.certificates import row_digests
from geomix_core.crosscheck import check_sample
from geomix_core.datasets import Dataset, bundled
from geomix_core.errors import FileError, GeomixError
from geomix_core.file_words import show
from geomix_core.fixed_alpha import CHOICES, losses_of
from geomix_core.found import find
from geomix_core.overview import by_attention, joined, overview
from geomix_core.policies import PolicyBatch
from geomix_core.progress import WEIGHTS
from geomix_core.result_files import read
from geomix_core.results import Columns, Plan, solve_chunks, verify_chunks
from geomix_core.scenarios import real_rows
from geomix_core.spool import open_stream
from geomix_core.summary import pair_summary

ROWS, TOKENS = 5, 7
RNG = np.random.default_rng(3)
THETA = RNG.normal(size=(ROWS, TOKENS)).astype(np.float32)
TARGET = RNG.normal(size=(ROWS, TOKENS)).astype(np.float32)
OTHER = RNG.normal(size=(ROWS, TOKENS)).astype(np.float32)
EVERY = ("kl_symmetry", "snr", "wald")

File = tuple[str, bytes, str]
STREAM = "application/octet-stream"
Downloads = dict[str, tuple[Callable[[], Any], str]]
"""What is offered for download: (what makes it, its file's name), by the button's key."""


def npy(name: str, array: np.ndarray, **options: Any) -> File:
    out = io.BytesIO()
    np.save(out, array, **options)
    return name, out.getvalue(), STREAM


def npz(name: str, **arrays: np.ndarray) -> File:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return name, out.getvalue(), STREAM


def tensors(name: str, **arrays: np.ndarray) -> File:
    return name, safetensors.numpy.save(arrays), STREAM


def press(at: AppTest, key: str, **values_: Any) -> AppTest:
    """Press the button with this label of the catalogue."""
    label = words(at)(f"page.validate.{key}", **values_)
    return run(next(b for b in at.button if b.label == label).click())


def offers(at: AppTest, key: str, **values_: Any) -> bool:
    """Whether there is such a button."""
    return words(at)(f"page.validate.{key}", **values_) in [b.label for b in at.button]


def upload(at: AppTest, *files: File, page: str = "validate") -> AppTest:
    return run(at.file_uploader(key=f"upload.{page}").set_value(list(files)))


def solved(rows: int = 8, *files: File, **query: str) -> AppTest:
    """The page with its rows solved: of these files, or the bundled ones."""
    at = open_app("validate", **query)
    return press(upload(at, *files), "solve", rows=f"{rows:,}") if files else press(at, "example")


def shown_table(at: AppTest) -> Any:
    """The table on the page in the order of the rows."""
    return at.dataframe[0].value.sort_values("row").reset_index(drop=True)


def data_of(theta: Any, target: Any, reference: Any = None, kind: Any = "logits") -> Dataset:
    """What the page should make of such arrays."""
    arrays = {"theta": theta, "target": target} | ({} if reference is None else {"reference": reference})
    pair = find({"x.npz": {name: torch.as_tensor(np.array(x)) for name, x in arrays.items()}}).pair
    assert pair is not None
    return Dataset(pair, kind)


def expected(data: Dataset, plan: Plan | None = None) -> Columns:
    """The table that the command line would write."""
    return joined(list(solve_chunks(data.pair, plan or Plan(EVERY, kind=data.kind))))


def equal(at: AppTest, table: Columns) -> None:
    """The numbers on the page are those of the table."""
    found = shown_table(at)
    for name in ("alpha_kl", "alpha_snr", "alpha_wald", "kl_theta_target", "kl_target_theta", "chernoff_information"):
        if name in found:
            assert [None if np.isnan(x) else x for x in found[name].astype(float)] == table[name], name


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Downloads:
    """What the page offers, which AppTest does not fetch."""
    offered: Downloads = {}

    def download_button(label: str, data: Callable[[], Any], name: str, mime: str, **options: Any) -> None:
        offered[options.get("key", label)] = data, name

    monkeypatch.setattr(streamlit, "download_button", download_button)
    return offered


PAIR = (npy("theta.npy", THETA), npy("target.npy", TARGET))


# --- the bundled rows --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> AppTest:
    """The bundled rows, solved by one click; tests only read it."""
    return solved()


def test_opens_with_an_uploader_an_example_and_no_figure() -> None:
    at = open_app("validate")
    assert at.file_uploader(key="upload.validate").label == words(at)("upload.label")
    assert words(at)("page.validate.intro") in [m.value for m in at.markdown]
    assert any(words(at)("page.validate.privacy") in c.value for c in at.caption)
    assert not figures(at)
    assert not at.dataframe
    assert not has(at, "multiselect", "served.validate"), "no folder is shared unless the operator says so"


def test_bundled_rows_are_the_command_line_s(example: AppTest) -> None:
    table = expected(bundled())
    equal(example, table)
    kl = solve_alpha(PolicyBatch.from_logits(real_rows().theta, real_rows().target), "kl_symmetry")
    for alpha, bound, exact in zip(table["alpha_kl"], table["bound"], kl.alpha.tolist(), strict=True):
        assert abs(alpha - exact) <= bound
    assert_readable(example)
    # All are simply solved: nothing is said of it row by row.
    assert not {"status", "status_snr", "problem"} & set(shown_table(example).columns)
    assert list(shown_table(example)["prompt"]) == [p.prompt for p in real_rows().prompts]


def test_answer_is_the_first_thing_and_has_today_s_numbers(example: AppTest) -> None:
    data = bundled()
    table = expected(data)
    found, losses = overview(table), losses_of(data, Plan(EVERY), table, range(8))
    text, first = words(example), example.main.markdown[0].value
    assert found.bound is not None
    assert text(
        "page.validate.answer", certified="8", rows="8", bound=number(found.bound, 1),
        median=parameter(float(np.median(table["alpha_kl"]))),
    ) in first  # fmt: skip
    lost, farther = (losses.quantile(c, "half") or 0 for c in ("snr", "kl_symmetry"))
    hard = "\u00a0"
    share = {"lost": percent(lost, 0).replace(" ", hard), "farther": percent(farther, 1).replace(" ", hard)}
    assert text("page.validate.answer_both", **share) in first
    assert [m.value for m in example.metric] == ["8", "0", "0", "0"]


def test_every_choice_of_alpha_is_compared(example: AppTest) -> None:
    data = bundled()
    losses = losses_of(data, Plan(EVERY), expected(data), range(8))
    text = words(example)
    (lines,) = [m.value.splitlines() for m in example.markdown if text("page.validate.loss_snr") in m.value]
    assert len(lines) == 2 + len(CHOICES)
    for choice in CHOICES:
        (line,) = [x for x in lines if x.startswith(f"| {text(f'page.validate.choice_{choice}')} |")]
        cells = [c.strip() for c in line.strip("|").split("|")][1:]
        for criterion, cell in zip(EVERY, cells, strict=True):
            median = losses.quantile(criterion, choice)
            assert median is not None
            if median > 0:
                assert cell.startswith(f"**{percent(median, 0 if median >= 0.1 or median < 5e-4 else 1)[:-2]}")
            else:
                assert cell.startswith(("0", "**0"))
    assert any(text("page.validate.fixed_rows", count="8", rows="8") in c.value for c in example.caption)


def test_figures_of_the_bundled_rows(example: AppTest) -> None:
    drawn, table = figures(example), expected(bundled())
    assert set(drawn) == {"alpha_histogram", "alpha_criteria", "alpha_distance"}
    for name in ("alpha_kl", "alpha_snr", "alpha_wald"):
        t = trace(drawn["alpha_distance"], SYMBOLS[name].html)
        np.testing.assert_array_equal(values(t["x"]), table["kl_target_theta"])
        np.testing.assert_array_equal(values(t["y"]), table[name])
        median = words(example).html("figure.rows.median", value=parameter(float(np.median(table[name]))))
        assert median in set(labels(drawn["alpha_histogram"]))
    assert [values(t["y"]).sum() for t in drawn["alpha_histogram"]["data"]] == [8, 8, 8]
    (both,) = drawn["alpha_criteria"]["data"]
    np.testing.assert_array_equal(values(both["x"]), table["alpha_kl"])
    np.testing.assert_array_equal(values(both["y"]), table["alpha_snr"])


def test_agreement_of_the_bundled_rows_is_counted(example: AppTest) -> None:
    table = expected(bundled())
    near = sum(abs(a - b) < 0.1 for a, b in zip(table["alpha_snr"], table["alpha_kl"], strict=True))
    text = words(example)
    (card,) = [m.value for m in example.markdown if text("claim.section_5_4_alpha.says") in m.value]
    assert text("page.validate.agree", near=near, rows=8, share=f"{number(100 * near / 8)} %") in card
    assert text("claim.holds" if near > 4 else "claim.fails") in card


def test_cross_check_says_how_many_rows_and_the_worst_difference() -> None:
    at = press(solved(), "crosscheck")
    found = check_sample(bundled(), expected(bundled()))
    assert found.checked == found.within == 8
    assert 0 < found.worst < 1e-4
    sentence = words(at)("page.validate.crosscheck_result", count=8, worst=number(found.worst, 2), within=8)
    assert [s.value for s in at.success] == [sentence]


# --- what is taken away ------------------------------------------------------------------------------------------


def odd_rows() -> tuple[np.ndarray, np.ndarray]:
    """Rows of every kind: ordinary, NaN, +inf, no token, identical, disjoint, cut, nearly identical."""
    rng = np.random.default_rng(5)
    theta, target = rng.normal(size=(2, 9, 12)).astype(np.float32)
    theta[1, 2], target[2, 0], theta[3] = np.nan, np.inf, -np.inf
    target[4] = theta[4]
    theta[5, :6], target[5, 6:] = -np.inf, -np.inf
    target[6, :6] = -np.inf
    target[7] = theta[7] + 1e-5 * rng.normal(size=12).astype(np.float32)
    return theta, target


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_page_download_command_line_and_verify_agree(
    odd: bool, weights: Any, downloads: Downloads, tmp_path: Path
) -> None:
    theta, target = odd_rows() if odd else (THETA, TARGET)
    files = (npy("theta.npy", theta), npy("target.npy", target))
    at = solved(len(theta), *files, weights=weights)
    for name, data, _ in files:
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name, *_ in files]
    wanted = {}
    for extension in (".csv", ".json", ".parquet"):
        make, name = downloads[f"b.table{extension}"]
        assert name.endswith(extension)
        (tmp_path / f"page{extension}").write_bytes(make())
        wanted[extension] = read(tmp_path / f"page{extension}")
        out = str(tmp_path / f"cli{extension}")
        options = ["--criterion", ",".join(EVERY), "--weights", weights, "--out", out]
        made = CliRunner().invoke(main, ["solve", *paths, *options])
        assert made.exit_code == (1 if odd else 0), made.output
        assert read(tmp_path / f"cli{extension}") == wanted[extension]
        checked = CliRunner().invoke(main, ["verify", str(tmp_path / f"page{extension}"), *paths])
        assert checked.exit_code == 0, checked.output
    assert wanted[".csv"] == wanted[".json"] == wanted[".parquet"]
    equal(at, wanted[".csv"])
    assert (tmp_path / "page.csv").read_bytes() == (tmp_path / "cli.csv").read_bytes()
    assert pyarrow.parquet.read_table(tmp_path / "page.parquet").num_rows == len(theta)


def test_bundled_rows_leave_a_table_that_verifies(downloads: Downloads, tmp_path: Path) -> None:
    at = solved()
    (tmp_path / "page.csv").write_bytes(downloads["b.table.csv"][0]())
    table = read(tmp_path / "page.csv")
    equal(at, table)
    assert table["digest"] == list(row_digests(real_rows().theta, real_rows().target))
    assert [d for part in verify_chunks(table, bundled().pair, "logits") for d in part.differences] == []


def test_csv_holds_no_text_of_the_files(downloads: Downloads) -> None:
    tokens = ["=1+1", "@SUM(A1)", "+cmd|x", "<b>", "\u202e", "a", "b"]
    names = ("tokens.json", json.dumps(tokens).encode(), "application/json")
    solved(ROWS, npy("=cmd.npy", THETA), npy("target.npy", TARGET), names)
    lines = downloads["b.table.csv"][0]().decode().splitlines()
    assert len(lines) == 1 + ROWS
    for cells in csv.reader(lines):
        assert not any(cell.startswith(("=", "@", "+")) for cell in cells)


def select(at: AppTest, *rows: int) -> AppTest:
    """Tick the lines of the table in which these rows stand."""
    order = list(at.dataframe[0].value["row"])
    places = [order.index(row) for row in rows]
    at.session_state["rows"] = {"selection": {"rows": places, "columns": [], "cells": []}}
    return run(at)


def test_q_of_chosen_rows_is_taken_away(downloads: Downloads) -> None:
    at = select(solved(ROWS, *PAIR), 4, 1)
    table = expected(data_of(THETA, TARGET))
    found = safetensors.torch.load(downloads["b.mixture"][0]())
    assert found["row"].tolist() == [4, 1]
    assert found["alpha"].tolist() == [table["alpha_kl"][4], table["alpha_kl"][1]]
    assert found["log_q"].dtype == torch.float32
    a = table["alpha_kl"][4]
    p, t = (torch.softmax(torch.from_numpy(x[4]).double(), -1) for x in (THETA, TARGET))
    q = p**a * t ** (1 - a)
    torch.testing.assert_close(found["log_q"][0].double().exp(), q / q.sum(), rtol=1e-5, atol=1e-8)
    run(at.button_group(key="mixture").set_value("alpha_snr"))
    assert safetensors.torch.load(downloads["b.mixture"][0]())["alpha"].tolist() == [
        table["alpha_snr"][4], table["alpha_snr"][1],
    ]  # fmt: skip


def test_rows_without_an_alpha_leave_no_q(downloads: Downloads) -> None:
    theta, target = odd_rows()
    at = select(solved(9, npy("theta.npy", theta), npy("target.npy", target)), 1)
    assert "b.mixture" not in downloads
    assert words(at)("page.validate.mixture_none") in [c.value for c in at.caption]


# --- options -----------------------------------------------------------------------------------------------------


def test_only_the_criteria_asked_for_are_solved(downloads: Downloads) -> None:
    at = upload(open_app("validate"), *PAIR)
    run(at.button_group(key="w.view.criteria").set_value([]))
    press(at, "solve", rows=str(ROWS))
    assert "alpha_snr" not in shown_table(at)
    assert set(figures(at)) == {"alpha_histogram", "alpha_distance"}
    equal(at, expected(data_of(THETA, TARGET), Plan(("kl_symmetry",))))
    assert_readable(at)


def test_the_range_of_eta_is_that_on_screen() -> None:
    at = upload(open_app("validate"), *PAIR)
    run(at.number_input(key="w.view.eta_low").set_value(0.1))
    run(at.number_input(key="w.view.eta_high").set_value(0.4))
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(THETA, TARGET), Plan(EVERY, eta_range=(0.1, 0.4))))
    run(at.number_input(key="w.view.eta_low").set_value(3.0))
    assert words(at)("page.validate.eta_bad") in [e.value for e in at.error]
    assert not at.dataframe


def test_rows_solved_with_other_options_are_kept_and_never_relabelled() -> None:
    at = solved(ROWS, *PAIR)
    run(at.button_group(key="w.weights").set_value("inverse"))
    assert not at.dataframe
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(THETA, TARGET), Plan(EVERY, "inverse")))
    run(at.button_group(key="w.weights").set_value("importance"))
    equal(at, expected(data_of(THETA, TARGET)))


# --- rows in Explore ---------------------------------------------------------------------------------------------


def test_bundled_row_opens_in_explore() -> None:
    at = select(solved(alpha="0.25"), 2)
    kl = shown_table(at)["alpha_kl"][2]
    press(at, "open", row=2)
    assert scenario(at) == Scenario(source=REAL, row=2, alpha=0.25)
    assert [s.value for s in at.subheader] == [words(at)("page.choosing.title")]
    assert parameter(kl) in at.main.markdown[0].value
    assert address(at) == {"row": "2", "alpha": "0.25", "lang": "en"}


def test_uploaded_row_opens_in_explore_and_stays_on_every_page() -> None:
    at = select(solved(ROWS, *PAIR, source="zipf", seed="3"), 4)
    press(at, "open", row=4)
    assert scenario(at) == Scenario(source=UPLOAD, row=4)
    batch = PolicyBatch.from_logits(THETA[4], TARGET[4])
    assert parameter(float(solve_alpha(batch, "kl_symmetry").alpha[0])) in at.main.markdown[0].value
    for page in ("policies", "geodesic", "progress", "validate"):
        go(at, page)
        assert scenario(at) == Scenario(source=UPLOAD, row=4)
        assert_readable(at)
    assert len(shown_table(at)) == ROWS


def test_swapped_example_opens_swapped() -> None:
    at = press(press(solved(), "swap"), "solve", rows="8")
    table = expected(bundled(swapped=True))
    equal(at, table)
    press(select(at, 3), "open", row=3)
    assert scenario(at).source == UPLOAD
    assert parameter(table["alpha_kl"][3]) in at.main.markdown[0].value


def test_names_and_prompts_travel_with_the_rows() -> None:
    tokens = [f"<i>{c}</i> *{c}*" for c in "abcdefg"]
    rows = [{"prompt": f"prompt [{i}](x)", "response": "so", "position": i} for i in range(ROWS)]
    named = ("tokens.json", json.dumps(tokens).encode(), "application/json")
    told = ("theta.rows.jsonl", "\n".join(map(json.dumps, rows)).encode(), "application/json")
    at = solved(ROWS, *PAIR, named, told)
    assert list(shown_table(at)["prompt"]) == [r["prompt"] for r in rows]
    press(select(at, 2), "open", row=2)
    go(at, "policies")
    # As text, never as markup.
    assert "prompt [2](x)" in [t.value for t in at.main.text]
    assert_readable(at)


def test_names_are_added_afterwards_and_solved_rows_stay() -> None:
    at = solved(ROWS, *PAIR)
    names = ("tokens.json", json.dumps(list("abcdefg")).encode(), "application/json")
    run(at.file_uploader(key="names.0").set_value([names]))
    assert not at.error
    assert len(shown_table(at)) == ROWS
    assert any(words(at)("page.validate.tokens_known", count="7") in m.value for m in at.markdown)
    wrong = ("tokens.json", json.dumps(list("abcdefghij")).encode(), "application/json")
    run(at.file_uploader(key="names.1").set_value([wrong]))
    assert len(at.error) == 1
    assert len(shown_table(at)) == ROWS


def test_another_file_is_asked_for_on_demand() -> None:
    at = press(select(solved(ROWS, *PAIR), 1), "open", row=1)
    press(go(at, "validate"), "replace")
    assert has(at, "file_uploader", "upload.validate")
    assert not at.dataframe
    # The uploaded row went with its file.
    assert scenario(at) == Scenario()
    assert go(at, "choosing").main.markdown


# --- what was found ----------------------------------------------------------------------------------------------

GOOD: dict[str, tuple[File, ...]] = {
    "two .npy": (npy("theta.npy", THETA), npy("target.npy", TARGET)),
    "two .npy, the target first": (npy("teacher.npy", TARGET), npy("student.npy", THETA)),
    "one .safetensors": (tensors("pair.safetensors", logits_theta=THETA, logits_t=TARGET),),
    "one .npz": (npz("pair.npz", theta=THETA, target=TARGET),),
    "one stacked .npy": (npy("both.npy", np.stack([THETA, TARGET])),),
    "in Fortran order": (npy("theta.npy", np.asfortranarray(THETA)), npy("target.npy", np.asfortranarray(TARGET))),
}


@pytest.mark.parametrize("what", GOOD)
def test_good_files_are_solved(what: str) -> None:
    at = solved(ROWS, *GOOD[what])
    assert not at.error
    equal(at, expected(data_of(THETA, TARGET)))


def test_files_are_reported_before_anything_is_solved() -> None:
    theta, target = odd_rows()
    theta[8] = theta[0]
    at = upload(open_app("validate"), npy("theta.npy", theta), npy("target.npy", target))
    text = words(at)
    assert not at.dataframe
    assert not figures(at)
    # The uploader would hold copies of the bytes; what is left takes names.
    assert {u.key for u in at.file_uploader} == {"names.0"}
    (table,) = [m.value for m in at.markdown if text("page.validate.array") in m.value]
    first, second = table.splitlines()[2:]
    assert "theta.npy" in first.replace("\\", "")
    assert "[9,\u00a012]\u00a0float32" in first
    assert first.rstrip(" |").endswith("**2** | **1**"), "NaN and no token; one row repeated"
    assert second.rstrip(" |").endswith("**1** | 0")
    said = "\n".join(m.value for m in at.markdown)
    assert text("page.validate.by_name") in said
    assert text("page.validate.identical", count="**1**") in said
    assert text("page.validate.disjoint", count="**1**") in said
    advice = [i.value for i in at.info]
    assert text("advice.bad_rows") in advice
    assert text("advice.repeated") in advice
    assert offers(at, "solve", rows="9")
    assert_readable(at)


def test_reference_of_the_file_is_used() -> None:
    at = solved(ROWS, tensors("three.safetensors", theta=THETA, target=TARGET, reference=OTHER))
    equal(at, expected(data_of(THETA, TARGET, OTHER)))
    press(select(at, 0), "open", row=0)
    assert words(at)("control.reference_upload") in [c.value for c in at.sidebar.caption]
    assert not has(at, "selectbox", "w.reference")


def test_names_that_say_nothing_are_pointed_out_and_swapped_by_a_click() -> None:
    at = upload(open_app("validate"), npy("first.npy", THETA), npy("second.npy", TARGET))
    assert words(at)("advice.by_order") in [i.value for i in at.info]
    press(press(at, "swap"), "solve", rows=str(ROWS))
    equal(at, expected(data_of(TARGET, THETA)))
    assert words(at)("advice.by_order") not in [i.value for i in at.info]


def test_roles_are_chosen_among_many_arrays() -> None:
    at = upload(open_app("validate"), npz("many.npz", a=THETA, b=OTHER, c=TARGET, d=OTHER, e=OTHER))
    assert len(at.warning) == 1
    assert not any(offers(at, "solve", rows=str(n)) for n in (ROWS, 0))
    run(at.selectbox(key="role.theta.-1").set_value(0))
    run(at.selectbox(key="role.target.-1").set_value(2))
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(THETA, TARGET)))
    # The reader may say otherwise at any time.
    run(at.selectbox(key="role.target.2").set_value(1))
    assert not at.dataframe
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(THETA, OTHER)))


def test_one_array_for_two_policies_is_refused() -> None:
    at = upload(open_app("validate"), npz("two.npz", theta=THETA, target=TARGET))
    run(at.selectbox(key="role.theta.0").set_value(1))
    assert len(at.error) == 1
    assert offers(at, "solve", rows=str(ROWS)), "nothing has changed"


def probabilities(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64))
    return np.asarray(e / e.sum(-1, keepdims=True))


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_kind_is_detected_shown_and_used(kind: str) -> None:
    theta, target = (probabilities(x) if kind == "probs" else np.log(probabilities(x)) for x in (THETA, TARGET))
    at = upload(open_app("validate"), npy("theta.npy", theta), npy("target.npy", target))
    named = words(at)(f"page.validate.kind_{kind}")
    assert any(f"of {named}, float64" in m.value for m in at.markdown)
    assert any(words(at)("page.validate.kind_by_numbers", kind=named, why="")[:-1] in m.value for m in at.markdown)
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(theta, target, kind=kind)))
    press(select(at, 1), "open", row=1)
    batch = PolicyBatch.from_logits(THETA[1].astype(float), TARGET[1].astype(float))
    assert parameter(float(solve_alpha(batch, "kl_symmetry").alpha[0])) in at.main.markdown[0].value


def test_unclear_numbers_are_never_guessed() -> None:
    theta, target = probabilities(THETA) / 2, probabilities(TARGET)
    at = upload(open_app("validate"), npy("theta.npy", theta), npy("target.npy", target))
    assert words(at)("page.validate.unsettled_kind") in [w.value for w in at.warning]
    assert not offers(at, "solve", rows=str(ROWS))
    run(at.button_group(key="kind.None.numbers").set_value("logits"))
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(theta, target)))


def test_reader_has_the_last_word_on_the_kind() -> None:
    at = upload(open_app("validate"), npy("theta.npy", probabilities(THETA)), npy("target.npy", probabilities(TARGET)))
    run(at.button_group(key="kind.probs.numbers").set_value("logits"))
    assert any(words(at)("page.validate.kind_by_reader", kind="logits") in m.value for m in at.markdown)
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(probabilities(THETA), probabilities(TARGET))))


# --- hostile and odd files ---------------------------------------------------------------------------------------


def bad_npy(**changes: Any) -> File:
    name, data, kind = npy("theta.npy", THETA)
    return name, data[: len(data) - changes.get("cut", 0)] + changes.get("more", b""), kind


OBJECTS = np.array([[None, "x"], [1.0, {}]], dtype=object)
TARGET_FILE = npy("target.npy", TARGET)

BAD: dict[str, tuple[File, ...]] = {
    "object dtype": (npy("theta.npy", OBJECTS, allow_pickle=True), TARGET_FILE),
    "truncated": (bad_npy(cut=9), TARGET_FILE),
    "cut inside its header": (bad_npy(cut=len(npy("x", THETA)[1]) - 20), TARGET_FILE),
    "trailing bytes": (bad_npy(more=b"\0" * 8), TARGET_FILE),
    "empty": (("theta.npy", b"", STREAM), TARGET_FILE),
    "other rows": (npy("theta.npy", THETA[:3]), TARGET_FILE),
    "other vocabulary": (npy("theta.npy", THETA[:, :4]), TARGET_FILE),
    "four dimensions": (npy("theta.npy", THETA[None, None]), npy("target.npy", TARGET[None, None])),
    "one array only": (npy("theta.npy", THETA),),
    "text renamed": (("theta.npy", b"not an array at all\n" * 10, STREAM), TARGET_FILE),
    "text as .safetensors": (("pair.safetensors", b"\xff" * 200, STREAM),),
    "text as .npz": (("pair.npz", b"PK" + b"\0" * 50, STREAM),),
    "oversized .safetensors header": (("pair.safetensors", (2**62).to_bytes(8, "little") + b"{}", STREAM),),
    "shape larger than the file": (
        (
            "theta.npy",
            bad_npy()[1].replace(b"(5, 7)", b"(5, 7777777777)").replace(b"          \n", b"\n", 1),
            STREAM,
        ),
        TARGET_FILE,
    ),
    "booleans": (npy("theta.npy", THETA > 0), TARGET_FILE),
    "complex": (npy("theta.npy", THETA.astype(np.complex64)), TARGET_FILE),
    "text dtype": (npy("theta.npy", THETA.astype("U8")), TARGET_FILE),
    "no rows": (npy("theta.npy", THETA[:0]), npy("target.npy", TARGET[:0])),
    "no tokens": (npy("theta.npy", THETA[:, :0]), npy("target.npy", TARGET[:, :0])),
    "names alone": (("tokenizer.json", b"[]", STREAM),),
    "three texts": tuple((f"{i}.json", b"[]", STREAM) for i in range(3)),
    "a hostile name": (("<b>$x$</b>[a](b)`c`.npy", b"junk", STREAM), TARGET_FILE),
}


@pytest.mark.parametrize(
    ("page", "what"),
    [("validate", what) for what in BAD] + [("policies", what) for what in ("object dtype", "other rows")],
)
def test_bad_file_is_refused_in_words_and_nothing_is_lost(page: str, what: str) -> None:
    files = BAD[what]
    at = open_app(page, source="three_tokens", alpha="0.25", lang="zh")
    before, drawn, query = scenario(at), figures(at), address(at)
    upload(at, *files, page=page)
    if all(name.endswith(".json") for name, *_ in files):
        message = words(at).plain("upload.texts_alone")
    else:
        with pytest.raises(FileError) as refusal:
            find({name: open_stream(name, io.BytesIO(data))[0] for name, data, _ in files})
        message = str(refusal.value)
    names = ", ".join(plain(show(name)) for name, *_ in files)
    assert [e.value for e in at.error] == [words(at)("upload.rejected", name=names, message=plain(message))]
    assert (scenario(at), figures(at), address(at)) == (before, drawn, query)
    # The app goes on: the uploader takes a good pair next.
    assert has(at, "file_uploader", f"upload.{page}")
    upload(at, *GOOD["two .npy"], page=page)
    assert not at.error
    assert not has(at, "file_uploader", f"upload.{page}")


def test_two_files_of_one_name_are_refused() -> None:
    at = upload(open_app("validate"), npy("x.npy", THETA), npy("x.npy", TARGET))
    assert len(at.error) == 1
    assert plain(words(at).plain("upload.twice", name="x.npy")) in at.error[0].value


HOSTILE = {
    "html": "<img src=x onerror=alert(1)><b>",
    "markdown": "[a](javascript:x) **b** $x$ `c` | d",
    "bidi": "a\u202eb\u2066c",
    "controls": "a\nb\x1b[31m\x00",
    "formula": "=cmd|' /C calc'!A0",
    "long": "x" * 500,
    "surrogate": "a\ud800b",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_names_are_shown_as_text(what: str) -> None:
    name = HOSTILE[what]
    found = find({name: {f"theta {name}": torch.from_numpy(THETA), f"target {name}": torch.from_numpy(TARGET)}})
    at = open_app("validate")
    at.session_state["found"], at.session_state["upload_files"] = found, (name,)
    run(at)
    press(at, "solve", rows=str(ROWS))
    at.session_state["view.reproduce"] = True
    run(at)
    for m in at.markdown:
        assert name not in m.value
        assert not {"\u202e", "\u2066", "\x1b", "\x00"} & set(m.value)
        assert "<img" not in m.value.replace("\\<img", "")
    assert_readable(at)


def test_bad_rows_are_named_and_the_others_solved() -> None:
    theta, target = odd_rows()
    at = solved(9, npy("theta.npy", theta), npy("target.npy", target))
    table, text = expected(data_of(theta, target)), words(at)
    equal(at, table)
    found, of = shown_table(at), overview(table)
    assert list(found["problem"]) == table["problem"]
    assert list(found["status"]) == [text.plain(f"status_name.{s}") for s in table["status"]]
    assert list(at.dataframe[0].value["row"]) == [table["row"][i] for i in by_attention(table)]
    assert list(at.dataframe[0].value["attention"])[:3] == [text.plain("page.validate.attention_refused")] * 3
    # Streamlit writes None into empty cells unless told otherwise.
    assert at.dataframe[0].proto.HasField("placeholder")
    assert at.dataframe[0].proto.placeholder not in ("None", "nan")
    assert [m.value for m in at.metric] == [
        str(of.groups["certified"]), str(of.groups["loose"]), str(of.groups["degenerate"]),
        str(of.groups["unanswered"]), str(of.groups["refused"]),
    ]  # fmt: skip
    assert of.groups["refused"] == 3
    said = "\n".join(m.value for m in at.markdown)
    for words_, count in of.problems.items():
        assert f"- **{count}** × {plain(words_)}" in said
    assert f"- **1** × {text('status.disjoint')}" in said
    for figure in figures(at).values():
        assert not any(np.isnan(values(t["y"])).any() for t in figure["data"])


@pytest.mark.parametrize("row", [1, 2])
def test_bad_row_opened_in_explore_says_why(row: int) -> None:
    theta, target = odd_rows()
    at = press(select(solved(9, npy("theta.npy", theta), npy("target.npy", target)), row), "open", row=row)
    assert len(at.error) == 1
    assert not figures(at)
    assert len(shown_table(go(at, "validate"))) == 9


def test_no_row_of_use() -> None:
    at = solved(ROWS, npy("theta.npy", np.full_like(THETA, np.nan)), npy("target.npy", TARGET))
    assert words(at)("page.validate.nothing") in [w.value for w in at.warning]
    assert [m.value for m in at.metric] == ["0", "0", "0", "5"]
    assert not figures(at)
    assert not offers(at, "crosscheck")


def test_one_token() -> None:
    at = solved(2, npy("theta.npy", THETA[:2, :1]), npy("target.npy", TARGET[:2, :1]))
    assert [m.value for m in at.metric] == ["0", "2", "0", "0"]
    assert_readable(at)


def test_many_rows_are_thinned_for_the_screen() -> None:
    rng = np.random.default_rng(0)
    theta, target = rng.normal(size=(2, 2500, 3)).astype(np.float32)
    at = solved(2500, npz("many.npz", theta=theta, target=target))
    assert len(shown_table(at)) == 2500
    assert all(points(figure) <= 2000 for figure in figures(at).values())
    assert any(words(at)("page.validate.fixed_sample", count="128", rows="2,500") in c.value for c in at.caption)


def test_a_stopped_run_keeps_what_it_has_and_goes_on() -> None:
    at = upload(open_app("validate"), *PAIR)
    data = data_of(THETA, TARGET)
    plan = Plan(EVERY)
    (chunk,) = solve_chunks(data.pair, plan)
    first = {name: column[:2] for name, column in chunk.items()}
    kept = at.session_state["runs"][plan]
    kept.chunks.append(first)
    kept.losses.append(losses_of(data, plan, first, [0, 1]))
    run(at)
    assert words(at)("page.validate.partial", done="2", rows="5") in [i.value for i in at.info]
    assert len(shown_table(at)) == 2
    press(at, "resume", rows="3")
    equal(at, expected(data))
    assert not offers(at, "resume", rows="3")


# --- files on the server -----------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shared"
    (folder / "run").mkdir(parents=True)
    np.save(folder / "run" / "theta.npy", THETA)
    np.save(folder / "run" / "target.npy", TARGET)
    np.save(tmp_path / "secret.npy", OTHER)
    (folder / "leak.npy").symlink_to(tmp_path / "secret.npy")
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


def test_files_in_the_shared_folder_are_mapped_and_solved(shared: Path) -> None:
    at = open_app("validate")
    box = at.multiselect(key="served.validate")
    assert box.options == ["run/target.npy", "run/theta.npy"]
    run(box.set_value(["run/theta.npy", "run/target.npy"]))
    press(at, "server_read")
    assert len(at.session_state["found"].pair.maps) == 2
    press(at, "solve", rows=str(ROWS))
    equal(at, expected(data_of(THETA, TARGET)))


def test_prompts_beside_a_served_file_are_shown(shared: Path) -> None:
    rows = [{"prompt": f"p{i}"} for i in range(ROWS)]
    (shared / "run" / "theta.rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    at = open_app("validate")
    run(at.multiselect(key="served.validate").set_value(["run/theta.npy", "run/target.npy"]))
    press(press(at, "server_read"), "solve", rows=str(ROWS))
    assert list(shown_table(at)["prompt"]) == [f"p{i}" for i in range(ROWS)]


@pytest.mark.parametrize("name", ["../secret.npy", "/etc/passwd", "leak.npy", "run", "missing.npy", "a\0b.npy"])
def test_nothing_else_on_the_disk_is_read(shared: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomix_app.views import uploads

    at = open_app("validate")
    # A browser may send any text, whatever the box offers.
    chosen = [name, "run/target.npy"]
    monkeypatch.setattr(streamlit, "multiselect", lambda *_, **__: chosen)
    press(run(at), "server_read")
    assert len(at.error) == 1
    assert str(shared.parent) not in at.error[0].value
    assert at.session_state["found"] is None if "found" in at.session_state else True
    with pytest.raises(GeomixError):
        uploads._opened(str(shared), chosen)


# --- top-k log-probabilities -------------------------------------------------------------------------------------


def responses(shift: float, k: int) -> bytes:
    """A response in OpenAI's shape: four positions, k of ten tokens each."""
    rng = np.random.default_rng(8)
    logits = rng.normal(size=(4, 10)) * 3 + shift * np.random.default_rng(9).normal(size=(4, 10))
    content = []
    for row in logits - np.logaddexp.reduce(logits, -1, keepdims=True):
        order = np.argsort(-row)[:k]
        top = [{"token": f"<t{i}>", "bytes": list(f"<t{i}>".encode()), "logprob": float(row[i])} for i in order]
        content.append({**top[0], "top_logprobs": top})
    return json.dumps({"choices": [{"logprobs": {"content": content}}]}).encode()


def test_top_k_files_show_intervals_and_what_they_leave_open() -> None:
    from geomix_core.intervals import solve_chunks as solve_intervals
    from geomix_core.topk import pair_topk, read_topk

    files = {f"{name}.json": responses(shift, 6) for name, shift in (("theta", 0.0), ("target", 0.5))}
    at = upload(open_app("validate"), *((name, data, "application/json") for name, data in files.items()))
    text = words(at)
    pair = pair_topk(*(read_topk(name, data) for name, data in files.items()))
    (table,) = solve_intervals(pair)
    found = at.dataframe[0].value.sort_values("row")
    assert list(found["status"]) == [text.plain(f"tail.{s}") for s in table["status"]]
    assert list(found["missing_theta"]) == table["missing_theta"]
    for said, low, high in zip(found["alpha_kl"], table["alpha_kl_low"], table["alpha_kl_high"], strict=True):
        assert said == f"{number(low)} … {number(high)}"
    determined = table["status"].count("determined")
    assert text("page.validate.tail_answer", determined=str(determined), rows="4") in at.main.markdown[0].value
    assert text("tail.not_determined") in [m.label for m in at.metric]
    assert_readable(at)
    press(at, "replace")
    assert has(at, "file_uploader", "upload.validate")


# --- the Policies page -------------------------------------------------------------------------------------------


def test_uploaded_on_the_policies_page_shows_its_first_row() -> None:
    at = upload(open_app("policies", source="zipf", alpha="0.25"), *PAIR, page="policies")
    assert scenario(at) == Scenario(source=UPLOAD, alpha=0.25)
    p = pair_summary(PolicyBatch.from_logits(THETA[0], TARGET[0]))
    assert number(p.kl_target_theta) in at.main.markdown[0].value
    picker = at.number_input(key="w.row")
    assert (picker.min, picker.max, picker.value) == (0, ROWS - 1, 0)
    run(picker.set_value(3))
    assert scenario(at).row == 3
    assert offers(go(at, "validate"), "solve", rows=str(ROWS))


def test_unclear_upload_on_the_policies_page_is_decided_on_this_one() -> None:
    files = (npy("theta.npy", probabilities(THETA) / 2), npy("target.npy", probabilities(TARGET)))
    at = upload(open_app("policies"), *files, page="policies")
    assert scenario(at) == Scenario()
    assert words(at)("upload.elsewhere") in [w.value for w in at.warning]
    assert words(go(at, "validate"))("page.validate.unsettled_kind") in [w.value for w in at.warning]


def test_same_rows_with_other_contents_are_not_mixed_up() -> None:
    at = upload(open_app("policies"), *PAIR, page="policies")
    first = at.main.markdown[0].value
    press(at, "replace")
    upload(at, npy("theta.npy", TARGET), npy("target.npy", THETA), page="policies")
    assert at.main.markdown[0].value != first
    p = pair_summary(PolicyBatch.from_logits(TARGET[0], THETA[0]))
    assert number(p.kl_target_theta) in at.main.markdown[0].value
