"""The Validate page under AppTest: the bundled rows, uploads good and bad, the table, the CSV, the cross-check."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
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
    values,
    words,
)
from streamlit.testing.v1 import AppTest

from geomix_app.notation import number, parameter
from geomix_app.scenario import REAL, UPLOAD, Scenario
from geomix_app.shell import plain
from geomix_core import solve_alpha
from geomix_core.crosscheck import cross_check
from geomix_core.errors import FileError
from geomix_core.files import find_policies, read_arrays
from geomix_core.policies import PolicyBatch
from geomix_core.progress import WEIGHTS
from geomix_core.reports import RowReport, solve_rows, summarise, to_csv
from geomix_core.scenarios import real_rows
from geomix_core.summary import pair_summary

ROWS, TOKENS = 5, 7
RNG = np.random.default_rng(3)
THETA = RNG.normal(size=(ROWS, TOKENS)).astype(np.float32)
TARGET = RNG.normal(size=(ROWS, TOKENS)).astype(np.float32)
OTHER = RNG.normal(size=(ROWS, TOKENS)).astype(np.float32)

File = tuple[str, bytes, str]
STREAM = "application/octet-stream"


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


def upload(at: AppTest, *files: File, page: str = "validate") -> AppTest:
    return run(at.file_uploader(key=f"upload.{page}").set_value(list(files)))


def solved(rows: int = 8, *files: File, **query: str) -> AppTest:
    """The page with its rows solved: of these files, or the bundled ones."""
    at = open_app("validate", **query)
    at = upload(at, *files) if files else press(at, "example")
    return press(at, "solve", rows=str(rows))


def table(at: AppTest) -> Any:
    return at.dataframe[0].value


def expected(theta: Any, target: Any, **options: Any) -> list[RowReport]:
    return [report for chunk in solve_rows(theta, target, **options) for report in chunk]


# --- the bundled rows --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> AppTest:
    """The bundled rows, solved; tests only read it."""
    return solved()


def test_opens_with_an_uploader_an_example_and_no_figure() -> None:
    at = open_app("validate")
    assert has(at, "file_uploader", "upload.validate")
    assert at.file_uploader(key="upload.validate").label == words(at)("upload.label")
    assert words(at)("page.validate.intro") in [m.value for m in at.markdown]
    assert words(at)("page.validate.privacy") in [c.value for c in at.caption]
    assert not figures(at)
    assert not at.dataframe


def test_bundled_rows_are_described_before_they_are_solved() -> None:
    at = press(open_app("validate"), "example")
    text = words(at)
    assert text(
        "page.validate.found",
        rows="8",
        tokens="49,152",
        theta="logits_theta",
        target="logits_t",
        by=text("page.validate.by_name"),
    ) in [m.value for m in at.markdown]
    assert not at.dataframe
    # The uploader would hold copies of the bytes.
    assert not at.file_uploader


def test_bundled_rows_are_the_solver_s(bundled: AppTest) -> None:
    rows = real_rows()
    batch = PolicyBatch.from_logits(rows.theta, rows.target)
    kl, snr = solve_alpha(batch, "kl_symmetry"), solve_alpha(batch, "snr")
    found = table(bundled)
    text = words(bundled)
    assert list(found["row"]) == list(range(8))
    np.testing.assert_allclose(found["alpha_kl"], kl.alpha, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["alpha_snr"], snr.alpha, rtol=0, atol=1e-12)
    assert list(found["status_kl"]) == [text.plain(f"status_name.{s}") for s in kl.status]
    assert list(found["status_snr"]) == [text.plain(f"status_name.{s}") for s in snr.status]
    for i in (0, 7):
        p = pair_summary(batch.rows(torch.tensor([i])))
        assert found["kl_target_theta"][i] == pytest.approx(p.kl_target_theta, rel=1e-9)
    assert (found["delta"].abs() < 1e-9).all()
    assert "problem" not in found
    assert_readable(bundled)


def test_summary_of_the_bundled_rows(bundled: AppTest) -> None:
    found = summarise(expected(real_rows().theta, real_rows().target))
    assert [m.value for m in bundled.metric] == [
        "8 / 8",
        parameter(found.alpha_kl[0.5]),
        f"{parameter(found.alpha_kl[0.05])} – {parameter(found.alpha_kl[0.95])}",
    ]


def test_agreement_of_the_bundled_rows_is_counted(bundled: AppTest) -> None:
    found = table(bundled)
    near = int(((found["alpha_snr"] - found["alpha_kl"]).abs() < 0.1).sum())
    text = words(bundled)
    (card,) = [m.value for m in bundled.markdown if text("claim.section_5_4_alpha.says") in m.value]
    assert text("page.validate.agree", near=near, rows=8, share=f"{number(100 * near / 8)} %") in card
    assert text("claim.holds" if near > 4 else "claim.fails") in card


def test_figures_of_the_bundled_rows(bundled: AppTest) -> None:
    drawn, found = figures(bundled), table(bundled)
    assert set(drawn) == {"alpha_histogram", "alpha_distance"}
    for criterion, t in zip(("kl", "snr"), drawn["alpha_distance"]["data"], strict=True):
        np.testing.assert_allclose(values(t["x"]), found["kl_target_theta"])
        np.testing.assert_allclose(values(t["y"]), found[f"alpha_{criterion}"])
    assert [values(t["y"]).sum() for t in drawn["alpha_histogram"]["data"]] == [8, 8]
    assert words(bundled).html("figure.rows.kl") in set(labels(drawn["alpha_histogram"]))


def test_csv_has_every_row_to_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[tuple[Callable[[], str], str, str]] = []

    def download_button(label: str, data: Callable[[], str], name: str, mime: str, **_: Any) -> None:
        offered.append((data, name, mime))

    monkeypatch.setattr(streamlit, "download_button", download_button)
    solved(ROWS, npy("theta.npy", THETA), npy("target.npy", TARGET))
    data, name, mime = offered[-1]
    assert name.endswith(".csv")
    assert mime == "text/csv"
    reports = expected(THETA, TARGET)
    assert data() == to_csv(reports)
    rows = list(csv.DictReader(io.StringIO(data())))
    kl = solve_alpha(PolicyBatch.from_logits(THETA, TARGET), "kl_symmetry")
    assert [float(r["alpha_kl"]) for r in rows] == kl.alpha.tolist()
    assert [r["status_kl"] for r in rows] == list(kl.status)


def test_cross_check_says_how_many_rows_and_the_worst_difference() -> None:
    at = press(solved(), "crosscheck")
    reports = expected(real_rows().theta, real_rows().target)
    found = cross_check(
        real_rows().theta, real_rows().target, [r.alpha_kl or 0 for r in reports], [r.row for r in reports]
    )
    assert found.checked == 8
    assert found.worst < 1e-9
    sentence = words(at)("page.validate.crosscheck_result", count=8, worst=number(found.worst, 2))
    assert [s.value for s in at.success] == [sentence]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_rows_are_solved_with_the_weights_on_screen(weights: str) -> None:
    at = open_app("validate", weights=weights)
    at = press(upload(at, npy("theta.npy", THETA), npy("target.npy", TARGET)), "solve", rows=str(ROWS))
    snr = solve_alpha(PolicyBatch.from_logits(THETA, TARGET), "snr", weights)  # type: ignore[arg-type]
    np.testing.assert_allclose(table(at)["alpha_snr"], snr.alpha, atol=1e-12)


def test_rows_solved_with_other_weights_are_not_shown() -> None:
    at = solved(ROWS, npy("theta.npy", THETA), npy("target.npy", TARGET))
    run(at.button_group(key="w.weights").set_value("inverse"))
    # They are solved again on demand, never relabelled.
    assert not at.dataframe
    press(at, "solve", rows=str(ROWS))
    snr = solve_alpha(PolicyBatch.from_logits(THETA, TARGET), "snr", "inverse")
    np.testing.assert_allclose(table(at)["alpha_snr"], snr.alpha, atol=1e-12)


def select(at: AppTest, row: int) -> AppTest:
    at.session_state["rows"] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return run(at)


def test_bundled_row_opens_in_explore() -> None:
    at = select(solved(alpha="0.25"), 2)
    kl = table(at)["alpha_kl"][2]
    press(at, "open", row=2)
    assert scenario(at) == Scenario(source=REAL, row=2, alpha=0.25)
    assert [s.value for s in at.subheader] == [words(at)("page.choosing.title")]
    assert parameter(kl) in at.main.markdown[0].value
    assert address(at) == {"row": "2", "alpha": "0.25", "lang": "en"}


def test_uploaded_row_opens_in_explore_and_stays_on_every_page() -> None:
    at = select(solved(ROWS, npy("theta.npy", THETA), npy("target.npy", TARGET), source="zipf", seed="3"), 4)
    press(at, "open", row=4)
    assert scenario(at) == Scenario(source=UPLOAD, row=4)
    batch = PolicyBatch.from_logits(THETA[4], TARGET[4])
    assert parameter(float(solve_alpha(batch, "kl_symmetry").alpha[0])) in at.main.markdown[0].value
    for page in ("policies", "geodesic", "progress", "validate"):
        go(at, page)
        assert scenario(at) == Scenario(source=UPLOAD, row=4)
        assert_readable(at)
    assert len(table(at)) == ROWS


def test_another_file_is_asked_for_on_demand() -> None:
    at = select(solved(ROWS, npy("theta.npy", THETA), npy("target.npy", TARGET)), 1)
    press(at, "open", row=1)
    go(at, "validate")
    press(at, "replace")
    assert has(at, "file_uploader", "upload.validate")
    assert not at.dataframe
    # The uploaded row went with its file.
    assert scenario(at) == Scenario()
    assert figures(go(at, "choosing"))


# --- uploads -----------------------------------------------------------------------------------------------------

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
    kl = solve_alpha(PolicyBatch.from_logits(THETA, TARGET), "kl_symmetry")
    np.testing.assert_allclose(table(at)["alpha_kl"], kl.alpha, atol=1e-12)


def test_reference_of_the_file_is_used() -> None:
    at = solved(ROWS, tensors("three.safetensors", theta=THETA, target=TARGET, reference=OTHER))
    snr = solve_alpha(PolicyBatch.from_logits(THETA, TARGET, OTHER), "snr")
    np.testing.assert_allclose(table(at)["alpha_snr"], snr.alpha, atol=1e-12)
    press(select(at, 0), "open", row=0)
    assert words(at)("control.reference_upload") in [c.value for c in at.sidebar.caption]
    assert not has(at, "selectbox", "w.reference")


def test_names_that_say_nothing_are_pointed_out() -> None:
    at = upload(open_app("validate"), npy("first.npy", THETA), npy("second.npy", TARGET))
    assert any(words(at)("page.validate.by_order") in m.value for m in at.markdown)


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
    "four files": tuple(npy(f"{i}.npy", THETA) for i in range(4)),
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
    "no theta by name": (npy("target.npy", TARGET), npy("reference.npy", OTHER)),
    "a hostile name": (("<b>$x$</b>[a](b)`c`.npy", b"junk", STREAM), TARGET_FILE),
}


@pytest.mark.parametrize(
    ("page", "what"),
    [("validate", what) for what in BAD] + [("policies", what) for what in ("object dtype", "other rows")],
)
def test_bad_file_is_refused_in_words_and_nothing_is_lost(page: str, what: str) -> None:
    files = BAD[what]
    with pytest.raises(FileError) as refusal:
        find_policies({name: read_arrays(name, data) for name, data, _ in files})
    at = open_app(page, source="three_tokens", alpha="0.25", lang="zh")
    before, drawn, query = scenario(at), figures(at), address(at)
    upload(at, *files, page=page)
    names = ", ".join(plain(name) for name, *_ in files)
    said = words(at)("upload.rejected", name=names, message=plain(str(refusal.value)))
    assert [e.value for e in at.error] == [said]
    assert (scenario(at), figures(at), address(at)) == (before, drawn, query)
    # The app goes on: the uploader takes a good pair next.
    assert has(at, "file_uploader", f"upload.{page}")
    upload(at, *GOOD["two .npy"], page=page)
    assert not at.error
    assert not at.file_uploader


def test_bad_rows_are_named_and_the_others_solved() -> None:
    theta, target = THETA.copy(), TARGET.copy()
    theta[1, 2], target[3, 0], theta[4] = np.nan, np.inf, -np.inf
    at = solved(ROWS, npy("theta.npy", theta), npy("target.npy", target))
    assert not at.exception
    found, text = table(at), words(at)
    reports = expected(theta, target)
    assert [bool(r.problem) for r in reports] == [False, True, False, True, True]
    invalid = text.plain("status_name.invalid")
    assert list(found["status_kl"] == invalid) == [False, True, False, True, True]
    assert list(found["problem"]) == [r.problem for r in reports]
    good = PolicyBatch.from_logits(THETA[[0, 2]], TARGET[[0, 2]])
    np.testing.assert_allclose(found["alpha_kl"][[0, 2]], solve_alpha(good, "kl_symmetry").alpha, atol=1e-12)
    assert found["alpha_kl"][[1, 3, 4]].isna().all()
    # Streamlit writes None into empty cells unless told otherwise.
    assert at.dataframe[0].proto.placeholder not in ("None", "nan")
    assert at.dataframe[0].proto.HasField("placeholder")
    assert at.metric[0].value == "2 / 5"
    counted = f"{text('page.validate.kl_statuses')}: **3** × {text('status.invalid')}"
    assert counted in [c.value for c in at.caption]


@pytest.mark.parametrize("row", [1, 3])
def test_bad_row_opened_in_explore_says_why(row: int) -> None:
    theta, target = THETA.copy(), TARGET.copy()
    theta[1, 2], target[3, 0] = np.nan, np.inf
    at = select(solved(ROWS, npy("theta.npy", theta), npy("target.npy", target)), row)
    press(at, "open", row=row)
    assert len(at.error) == 1
    assert not figures(at)
    go(at, "validate")
    assert len(table(at)) == ROWS


def test_no_row_of_use() -> None:
    theta = np.full_like(THETA, np.nan)
    at = solved(ROWS, npy("theta.npy", theta), npy("target.npy", TARGET))
    assert words(at)("page.validate.nothing") in [w.value for w in at.warning]
    assert [m.value for m in at.metric] == ["0 / 5", "—", "—"]
    assert not figures(at)
    label = words(at)("page.validate.crosscheck")
    assert label not in [b.label for b in at.button]


def test_rows_without_one_answer_have_a_status_and_never_nan() -> None:
    theta, target = THETA.copy(), TARGET.copy()
    theta[0], target[0] = 0, 0  # identical
    theta[1], target[1] = [-np.inf] * 3 + [0] * 4, [0] * 3 + [-np.inf] * 4  # disjoint
    target[2, :3] = -np.inf  # no coverage
    at = solved(ROWS, npy("theta.npy", theta), npy("target.npy", target))
    text, found = words(at), table(at)
    names = {s: text.plain(f"status_name.{s}") for s in ("identical", "disjoint", "no_coverage")}
    assert found["status_kl"][0] == names["identical"]
    assert found["status_kl"][1] == names["disjoint"]
    assert found["status_snr"][2] == names["no_coverage"]
    assert_readable(at)
    for figure in figures(at).values():
        assert not any(np.isnan(values(t["y"])).any() for t in figure["data"])


def test_many_rows_are_thinned_for_the_screen() -> None:
    rng = np.random.default_rng(0)
    theta, target = rng.normal(size=(2, 2500, 3)).astype(np.float32)
    at = open_app("validate")
    upload(at, npz("many.npz", theta=theta, target=target))
    press(at, "solve", rows="2,500")
    assert len(table(at)) == 2500
    assert all(points(figure) <= 2000 for figure in figures(at).values())


def test_uploaded_on_the_policies_page_shows_its_first_row() -> None:
    at = upload(open_app("policies", source="zipf", alpha="0.25"), *GOOD["two .npy"], page="policies")
    assert scenario(at) == Scenario(source=UPLOAD, alpha=0.25)
    p = pair_summary(PolicyBatch.from_logits(THETA[0], TARGET[0]))
    assert number(p.kl_target_theta) in at.main.markdown[0].value
    picker = at.number_input(key="w.row")
    assert (picker.min, picker.max, picker.value) == (0, ROWS - 1, 0)
    run(picker.set_value(3))
    assert scenario(at).row == 3
    assert len(go(at, "validate").button) > 0


def test_same_rows_with_other_contents_are_not_mixed_up() -> None:
    at = upload(open_app("policies"), *GOOD["two .npy"], page="policies")
    first = at.main.markdown[0].value
    label = words(at)("page.validate.replace")
    run(next(b for b in at.button if b.label == label).click())
    upload(at, npy("theta.npy", TARGET), npy("target.npy", THETA), page="policies")
    assert at.main.markdown[0].value != first
    p = pair_summary(PolicyBatch.from_logits(TARGET[0], THETA[0]))
    assert number(p.kl_target_theta) in at.main.markdown[0].value
