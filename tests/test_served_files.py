"""geomix_core.served_files: files inside the shared folder, and nothing else on the disk."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomix_core import served_files
from geomix_core.errors import FileError
from geomix_core.served_files import inside, listed


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The shared folder, beside a secret."""
    folder = tmp_path / "shared"
    (folder / "run").mkdir(parents=True)
    (tmp_path / "secret.npy").write_bytes(b"secret")
    (tmp_path / "shared2").mkdir()
    (tmp_path / "shared2" / "other.npy").write_bytes(b"secret")
    for name in ("theta.npy", "run/target.npy", "run/notes.txt", "run/θ .npy"):
        (folder / name).write_bytes(b"x")
    (folder / "inner.npy").symlink_to("run/target.npy")
    (folder / "leak.npy").symlink_to(tmp_path / "secret.npy")
    (folder / "relative.npy").symlink_to("../secret.npy")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "away").symlink_to("/")
    (folder / "loop.npy").symlink_to("loop.npy")
    (folder / "broken.npy").symlink_to("nothing.npy")
    os.mkfifo(folder / "pipe.npy")
    (folder / "device.npy").symlink_to("/dev/zero")
    (folder / "dir.npy").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(folder)  # paths of sockets are short
        bound.bind("socket.npy")
        os.chdir(here)
    return folder


@pytest.mark.parametrize("name", ["theta.npy", "run/target.npy", "run/θ .npy", "./theta.npy", "run//target.npy"])
def test_files_inside_are_read(shared: Path, name: str) -> None:
    assert inside(shared, name).read_bytes() == b"x"


def test_a_link_inside_leads_to_its_file(shared: Path) -> None:
    assert inside(shared, "inner.npy") == (shared / "run" / "target.npy").resolve()


REFUSED = {
    "../secret.npy": "not a name inside",
    "run/../../secret.npy": "not a name inside",
    "run/../theta.npy": "not a name inside",
    "..": "not a name inside",
    "..\\secret.npy": "not a name inside",
    "../shared2/other.npy": "not a name inside",
    "/etc/passwd": "not a name inside",
    "//etc/passwd": "not a name inside",
    "C:\\secret.npy": "not a name inside",
    "\\\\host\\share\\x.npy": "not a name inside",
    "theta.npy\0.txt": "not a name inside",
    "leak.npy": "leads out",
    "relative.npy": "leads out",
    "folder/secret.npy": "leads out",
    "away/etc/passwd": "leads out",
    "device.npy": "leads out",
    "loop.npy": "not in the shared folder",
    "broken.npy": "not in the shared folder",
    "missing.npy": "not in the shared folder",
    "theta.npy/x": "not in the shared folder",
    "x" * 5000: "not in the shared folder",
    "pipe.npy": "a folder, a device or a pipe",
    "socket.npy": "a folder, a device or a pipe",
    "dir.npy": "a folder, a device or a pipe",
    "run": "a folder, a device or a pipe",
    "": "a folder, a device or a pipe",
    ".": "a folder, a device or a pipe",
    "~/secret.npy": "not in the shared folder",
    "$HOME/secret.npy": "not in the shared folder",
    "%2e%2e/secret.npy": "not in the shared folder",
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_in_words(shared: Path, name: str) -> None:
    with pytest.raises(FileError, match=REFUSED[name]) as caught:
        inside(shared, name)
    message = str(caught.value)
    assert str(shared.parent) not in message, "no path of the server"
    assert len(message) < 400


def test_a_device_inside_would_be_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Making one takes root: the folder is /dev for once.
    for name in ("zero", "null", "tty"):
        if Path("/dev", name).exists():
            with pytest.raises(FileError, match="a device"):
                inside("/dev", name)


PIECES = (".", "..", "/", "\\", "a", "~", "\0", ":", " ", "secret.npy", "up", "shared", "shared2", "C:", "%2e")


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_no_name_reaches_a_secret(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    base = tmp_path_factory.getbasetemp() / "served"
    if not base.exists():
        (base / "shared").mkdir(parents=True)
        (base / "shared" / "a").write_bytes(b"x")
        (base / "shared" / "up").symlink_to("..")
        (base / "secret.npy").write_bytes(b"secret")
    try:
        path = inside(base / "shared", name)
    except FileError:
        return
    assert path.read_bytes() == b"x"


def test_what_is_listed_can_be_read(shared: Path) -> None:
    names = listed(shared)
    assert names == ["inner.npy", "run/target.npy", "run/θ .npy", "theta.npy"]
    for name in names:
        assert inside(shared, name).is_file()


def test_a_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        (tmp_path / f"{i:02}.npy").write_bytes(b"x")
    monkeypatch.setattr(served_files, "MOST", 10)
    assert listed(tmp_path) == [f"{i:02}.npy" for i in range(10)]
    monkeypatch.setattr(served_files, "MOST_SEEN", 5)
    assert len(listed(tmp_path)) == 5
    assert listed(tmp_path / "nothing") == []
