"""The Validate page in a real browser: the example, solving, the download, good files and hostile ones."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from reader import Reader
from safetensors.torch import save_file

from geomix_app.catalogue import catalogue
from geomix_app.notation import parameter
from geomix_core import solve_alpha
from geomix_core.datasets import bundled
from geomix_core.errors import FileError
from geomix_core.files import read_arrays
from geomix_core.overview import joined
from geomix_core.policies import PolicyBatch
from geomix_core.results import Plan, solve_chunks
from geomix_core.scenarios import real_rows


class Trap:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_validate_page(reader: Reader, tmp_path: Path) -> None:
    reader.open("validate")
    words = reader.text
    main = reader.page.locator('[data-testid="stMain"]')
    assert reader.title() == catalogue("en")("page.validate.title")

    # A hostile file is refused in words, is not unpickled, and the page goes on.
    bad = tmp_path / "theta.npy"
    np.save(bad, np.array([Trap(tmp_path / "mark"), 1.0], dtype=object), allow_pickle=True)
    with pytest.raises(FileError) as refusal:
        read_arrays(bad.name, bad.read_bytes())
    reader.page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(bad)
    alert = main.locator('[data-testid="stAlert"]')
    alert.wait_for()
    assert words.plain("upload.rejected", name="theta.npy", message=str(refusal.value)) in alert.inner_text()
    assert not (tmp_path / "mark").exists()
    assert reader.exceptions() == []

    # The bundled rows, solved by one click.
    reader.press(words.plain("page.validate.example"))
    main.locator('[data-testid="stDataFrame"]').wait_for()
    reader.wait()
    assert [f["inked"] > 0 for f in reader.figures()] == [True, True, True]
    table = joined(list(solve_chunks(bundled().pair, Plan(("kl_symmetry", "snr", "wald")))))
    # The answer is on the first screen, with today's numbers.
    answer = main.get_by_text(parameter(float(np.median(table["alpha_kl"])))).first
    box = answer.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 300
    last = main.locator('[data-testid="stPlotlyChart"]').nth(1).bounding_box()
    assert last is not None
    assert last["y"] + last["height"] < 900, "and so are the first figures"

    # What is downloaded is what was solved.
    with reader.page.expect_download() as download:
        reader.page.get_by_role("button", name=words.plain("page.validate.download_csv"), exact=True).click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))
    assert download.value.suggested_filename.endswith(".csv")
    assert [float(r["alpha_kl"]) for r in rows] == table["alpha_kl"]
    kl = solve_alpha(PolicyBatch.from_logits(real_rows().theta, real_rows().target), "kl_symmetry")
    np.testing.assert_allclose(table["alpha_kl"], kl.alpha, rtol=0, atol=max(table["bound"]))

    # The independent check, and the language.
    reader.press(words.plain("page.validate.crosscheck"))
    main.get_by_text("brentq").wait_for()
    reader.speak("zh")
    assert reader.title() == catalogue("zh")("page.validate.title")
    assert catalogue("zh").plain("page.validate.download_json") in main.inner_text()


def test_uploaded_pair_is_solved(reader: Reader, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    theta, target = rng.normal(size=(2, 4, 6)).astype(np.float32)
    for name, array in (("theta", theta), ("target", target)):
        np.save(tmp_path / f"{name}.npy", array)
    reader.open("validate", lang="zh")
    files = [tmp_path / "theta.npy", tmp_path / "target.npy"]
    reader.page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(files)
    solve = reader.text.plain("page.validate.solve", rows="4")
    reader.page.get_by_role("button", name=solve, exact=True).wait_for()
    reader.press(solve)
    main = reader.page.locator('[data-testid="stMain"]')
    main.locator('[data-testid="stDataFrame"]').wait_for()
    metrics = main.locator('[data-testid="stMetricValue"]').all_inner_texts()
    assert [m.strip() for m in metrics] == ["4", "0", "0", "0"]
    assert reader.exceptions() == []


def test_hostile_names_run_nothing(reader: Reader, tmp_path: Path) -> None:
    """Names of arrays, tokens and prompts that are markup: they are shown as text, on this page and in Explore."""
    markup = "<img src=x onerror='window.broken=1'>"
    rng = np.random.default_rng(0)
    theta, target = (torch.from_numpy(x) for x in rng.normal(size=(2, 3, 4)).astype(np.float32))
    save_file({f"theta {markup}": theta, f"target {markup}": target}, tmp_path / "logits.safetensors")
    (tmp_path / "tokens.json").write_text(json.dumps([f"{markup}{i}\u202e" for i in range(4)]))
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": f"{markup}{i}"}) for i in range(3)))
    reader.open("validate")
    files = [tmp_path / name for name in ("logits.safetensors", "tokens.json", "rows.jsonl")]
    reader.page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(files)
    reader.press(reader.text.plain("page.validate.solve", rows="3"))
    main = reader.page.locator('[data-testid="stMain"]')
    main.locator('[data-testid="stDataFrame"]').wait_for()
    assert f"theta {markup}" in main.inner_text()
    # And in Explore, where the tokens are drawn.
    reader.open("policies")
    main.get_by_text(reader.text.plain("page.policies.upload"), exact=True).click()
    reader.page.locator('[data-testid="stFileUploaderDropzoneInput"]').first.set_input_files(files)
    main.get_by_text(f"{markup}0").first.wait_for()
    reader.wait()
    assert reader.page.evaluate("window.broken") is None
    assert reader.page.locator("img[src='x']").count() == 0
    assert reader.exceptions() == []
