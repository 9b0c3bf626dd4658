"""Peak memory of solving memory-mapped files, in a process of its own.

python -m benchmarks.solver.memory THETA.npy TARGET.npy        (prints JSON; Linux only)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

VOCABULARY = 151_936
ROWS = (220, 880)
"""About 0.25 and 1 GiB in both files together: the peak should not depend on it."""


def measure() -> list[dict[str, float]]:
    """Write two files of each size and solve them in a fresh process; MiB beyond imports and a two-row warm-up."""
    if not Path("/proc/self/status").exists():
        return []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "theta.npy", Path(folder) / "target.npy"]
        return [_in_a_fresh_process(paths, rows) for rows in ROWS]


def _in_a_fresh_process(paths: list[Path], rows: int) -> dict[str, float]:
    for seed, path in enumerate(paths):
        _write(path, rows, seed)
    command = [sys.executable, "-m", __name__, *map(str, paths)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[2])
    return json.loads(answer.stdout)


def _write(path: Path, rows: int, seed: int) -> None:
    file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, VOCABULARY))
    rng = np.random.default_rng(seed)
    for row in file:
        row[:] = 2 * rng.standard_normal(VOCABULARY, dtype=np.float32)
    file.flush()


def _status(field: str) -> float:
    """A field of /proc/self/status in MiB. VmHWM is the peak of this process alone; ru_maxrss inherits its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _solve_and_watch(theta: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Peak of what is resident, mapped pages of the files included, and of what this process allocated itself."""
    from benchmarks.solver.competitors import solution

    solution(np.array(theta[:2]), np.array(target[:2]))
    resident, own = _status("VmHWM"), _status("RssAnon")
    peak, done = own, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    solution(theta, target)
    done.set()
    watcher.join()
    return {
        "rows": len(theta),
        "files_mib": (theta.nbytes + target.nbytes) / 2**20,
        "resident_extra_mib": _status("VmHWM") - resident,
        "allocated_extra_mib": peak - own,
    }


if __name__ == "__main__":
    print(json.dumps(_solve_and_watch(*(np.load(path, mmap_mode="r") for path in sys.argv[1:]))))
