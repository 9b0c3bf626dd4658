"""Files written whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geomix_core import outputs
from geomix_core.errors import FileError
from geomix_core.outputs import held, whole

HOLDS = "import sys; from geomix_core.outputs import held\nwith held(sys.argv[1]): print('held', flush=True); input()"
WRITES = """
import sys, pathlib
from geomix_core.outputs import whole
with whole(pathlib.Path(sys.argv[1])) as stream:
    stream.write(b"half"); stream.flush(); print("half", flush=True); input()
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    """A process that has said its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def end(process: subprocess.Popen[str], kill: bool = False) -> None:
    if kill:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate(None if kill else "\n", timeout=60)


@pytest.fixture(params=["unnamed", "named"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: with and without files that have no name."""
    if request.param == "named":
        monkeypatch.setattr(outputs, "_unnamed", lambda folder: None)
    return str(request.param)


# --- whole -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("either")
def test_a_file_is_there_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with whole(path) as stream:
        stream.write(b"after")
        stream.flush()
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["out"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.usefixtures("either")
def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")

    def interrupted() -> None:
        with whole(path) as stream:
            stream.write(b"after")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.usefixtures("either")
def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole(tmp_path / "none" / "out"):
        raise AssertionError


def test_a_file_that_gets_no_name_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "")

    monkeypatch.setattr(os, "link", no)
    with whole(tmp_path / "out") as stream:
        stream.write(b"x" * 100_000)
    assert (tmp_path / "out").read_bytes() == b"x" * 100_000
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    process = start(WRITES, tmp_path / "out")
    end(process, kill=True)
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


# --- held --------------------------------------------------------------------------------------------------------


def test_a_second_process_is_told_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    process = start(HOLDS, path)
    try:
        with pytest.raises(FileError, match=rf"out\.csv is being written by process {process.pid} on "), held(path):
            raise AssertionError
        with held(tmp_path / "other.csv"):
            pass
    finally:
        end(process)
    with held(path):
        assert os.listdir(tmp_path) == ["out.csv.lock"]
    assert os.listdir(tmp_path) == []


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    end(start(HOLDS, path), kill=True)
    assert os.listdir(tmp_path) == ["out.csv.lock"]
    with held(path):
        pass
    assert os.listdir(tmp_path) == []


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    """Each raises a counter that only a lock keeps right, again and again, while others delete the lock's file."""
    code = """
import sys, pathlib
from geomix_core.errors import FileError
from geomix_core.outputs import held
path = pathlib.Path(sys.argv[1]); done = 0; print("started", flush=True)
while done < 60:
    try:
        with held(path):
            path.write_text(str(int(path.read_text()) + 1))
        done += 1
    except FileError:
        pass
"""
    path = tmp_path / "counter"
    path.write_text("0")
    processes = [start(code, path) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert path.read_text() == "240"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"lock cannot be written: FileNotFoundError"), held(tmp_path / "none" / "a"):
        raise AssertionError


def test_a_strangers_lock_file_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_bytes(b"process \x1b[2J\xff")
    assert outputs._holder(tmp_path / "a.lock") == "another process"
    assert outputs._holder(tmp_path / "none.lock") == "another process"


def test_without_locks_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "")

    monkeypatch.setattr(fcntl, "flock", no)
    with held(tmp_path / "a"):
        pass
