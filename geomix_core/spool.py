"""Uploads on the disk instead of in memory: a private temporary file that is mapped, and has no name by then."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path, PurePath
from typing import IO, Any

from torch import Tensor

from geomix_core.errors import FileError
from geomix_core.file_words import show
from geomix_core.files import MAPPED, MAX_BYTES, open_arrays, read_arrays


def open_stream(name: str, stream: IO[bytes]) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """The arrays of an uploaded file and the maps that they lie in, as `files.open_arrays` gives them.

    Formats that can be mapped are copied to the system's temporary folder (TMPDIR), readable by this user alone; the
    file is unlinked before this returns, so that the disk is given back when the maps go, however the process ends.
    `name` is a stranger's and never becomes a path. Raises FileError.
    """
    extension = PurePath(name).suffix.lower()
    if extension not in MAPPED:
        return read_arrays(name, stream.read(MAX_BYTES + 1)), ()
    # Where a mapped file cannot be removed (Windows), it stays until the temporary folder is cleared.
    with tempfile.TemporaryDirectory(prefix="geomix-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"upload{extension}"
        try:
            with path.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
        except OSError as error:
            raise FileError(
                f"{show(name)} cannot be kept: the server's temporary folder has no room, or may not be written to."
            ) from error
        return open_arrays(path, name=name)
