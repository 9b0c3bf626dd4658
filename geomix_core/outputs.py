"""Files that are written whole or not at all (`whole`), by one process at a time (`held`)."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from geomix_core.errors import FileError

LOCK_SUFFIX = ".lock"
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
_AT = 1 << 30
"""The byte that is locked on Windows, where nobody can read what is locked."""


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A stream that becomes the file `path` when the block ends; until then, and if it raises, `path` is as it was.

    Where the system has files without a name (Linux), not even a killed process leaves anything. Raises OSError.
    """
    # In the same folder, so that the last step is one rename.
    temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(8)}.tmp"
    unnamed = _unnamed(path.parent)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666) if unnamed is None else unnamed
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if unnamed is not None:
                _give_name(unnamed, temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _unnamed(folder: Path) -> int | None:
    if not (hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError:
        return None  # the file system has none; what else is wrong, the caller's own attempt says


def _give_name(handle: int, path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Only with a folder's handle does Python pass on that the link in /proc is to be followed.
        os.link(f"/proc/self/fd/{handle}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    except OSError:
        shutil.copyfile(f"/proc/self/fd/{handle}", path)  # rather than lose hours of work to an odd file system
    finally:
        os.close(folder)


@contextmanager
def held(out: str | Path) -> Iterator[None]:
    """Keep other processes from writing `out` during the block, by a lock on the file `out`.lock.

    The system lets go of it when the process ends, however it ends: a file that a killed process left locks nothing.
    Raises FileError that names the process which holds it, or says that it cannot be written.
    """
    path = Path(f"{out}{LOCK_SUFFIX}")
    try:
        stream = _locked(path)
    except _Held as error:
        raise FileError(
            f"{out} is being written by {_holder(path)}. Wait for it to end, or give another --out."
        ) from error
    except OSError as error:
        raise FileError(f"{path} cannot be written: {type(error).__name__}.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no file that is open
            path.unlink()
        stream.close()


def _locked(path: Path) -> IO[bytes]:
    while True:
        stream = path.open("a+b")
        try:
            _lock(stream)
            # Another process may have deleted the file after it was opened here: then this locks nothing.
            if _is_there(path, stream):
                stream.truncate(0)
                stream.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                stream.flush()
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


class _Held(Exception):
    """Another process has the lock."""


def _lock(stream: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            stream.seek(_AT)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise _Held from error
    else:
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _Held from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # some network file systems have none: as good as alone
                raise


def _is_there(path: Path, stream: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        words = path.read_bytes()[:200].decode("utf-8", "replace")
    except OSError:
        words = ""
    return words if words.startswith("process ") and words.isprintable() else "another process"
