"""The Validate page in a real browser: the example, solving, the download, good files and hostile ones."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from reader import Reader

from geomix_app.catalogue import catalogue
from geomix_core import solve_alpha
from geomix_core.errors import FileError
from geomix_core.files import read_arrays
from geomix_core.policies import PolicyBatch
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

    # The bundled rows, solved.
    reader.press(words.plain("page.validate.example"))
    reader.press(words.plain("page.validate.solve", rows="8"))
    main.locator('[data-testid="stDataFrame"]').wait_for()
    reader.wait()
    assert [f["inked"] > 0 for f in reader.figures()] == [True, True]
    assert "8 / 8" in main.inner_text()

    # What is downloaded is what was solved.
    with reader.page.expect_download() as download:
        reader.page.get_by_role("button", name=words.plain("page.validate.download"), exact=True).click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))
    kl = solve_alpha(PolicyBatch.from_logits(real_rows().theta, real_rows().target), "kl_symmetry")
    assert download.value.suggested_filename.endswith(".csv")
    np.testing.assert_allclose([float(r["alpha_kl"]) for r in rows], kl.alpha, rtol=0, atol=1e-9)

    # The independent check, and the language.
    reader.press(words.plain("page.validate.crosscheck"))
    main.get_by_text("brentq").wait_for()
    reader.speak("zh")
    assert reader.title() == catalogue("zh")("page.validate.title")
    assert catalogue("zh").plain("page.validate.download") in main.inner_text()


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
    assert "4 / 4" in main.inner_text()
    assert reader.exceptions() == []
