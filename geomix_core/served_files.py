"""Files that the operator of a server lets its visitors read: those inside one folder, and nothing else on the disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from geomix_core.errors import FileError
from geomix_core.file_words import show
from geomix_core.files import EXTENSIONS

MOST = 500
"""Files that are listed, and …"""
MOST_SEEN = 20_000
"""… names that are looked at for it."""


def inside(folder: str | Path, name: str) -> Path:
    """The file of that relative name in the folder, with every symbolic link followed. Raises FileError.

    Whoever may write into the folder can still swap files while one is opened: it is meant for the operator's own.
    """
    shown = show(name)
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in parts or "\0" in name:
        raise FileError(f"{shown} is not a name inside the shared folder: expected one such as run1/theta.npy.")
    try:
        base = Path(folder).resolve(strict=True)
        path = (base / name).resolve(strict=True)
        mode = path.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links that lead to each other
        raise FileError(f"{shown} is not in the shared folder. Choose one of the files that are listed.") from error
    if not path.is_relative_to(base):
        raise FileError(f"{shown} leads out of the shared folder: only files that lie in it are read.")
    if not stat.S_ISREG(mode):
        raise FileError(
            f"{shown} is a folder, a device or a pipe: expected a file with one of {', '.join(EXTENSIONS)}."
        )
    return path


def listed(folder: str | Path) -> list[str]:
    """Names of the readable files in the folder, sorted: at most `MOST`. Links to folders are not followed."""
    found: list[str] = []
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > MOST_SEEN or len(found) == MOST:
                return sorted(found)
            relative = (Path(place) / name).relative_to(folder).as_posix()
            if Path(name).suffix.lower() in EXTENSIONS and _readable(folder, relative):
                found.append(relative)
    return sorted(found)


def _readable(folder: str | Path, name: str) -> bool:
    try:
        return os.access(inside(folder, name), os.R_OK)
    except FileError:
        return False
