"""Every bomb is refused with a clear error, in little time and memory.

They are read in processes of their own, so that a fault is seen and nothing else suffers.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.converters.bombs import BOMBS

SECONDS, MEGABYTES = 10, 1000
# One of each container, which takes little time to make.
BRIEF = (
    *("pickle: a shared list in every call", "pickle: long names of classes"),
    "torch zip: a list of itself twice, 200 times",
    *("stream: keys that double", "tar: names that double", "zip: bzip2 that lies"),
    *("npz: an empty array of 2^70 rows", "gzip in gzip", "JSON: deep", "HDF5: an unknown filter"),
)
BY_COST = [n if n in BRIEF else pytest.param(n, marks=pytest.mark.slow) for n in BOMBS]


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What came of each bomb that is tested: error, processor seconds and megabytes."""
    folder = tmp_path_factory.mktemp("bombs")
    here = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["name"] for item in here if hasattr(item, "callspec")]
    for number, name in enumerate(names):
        BOMBS[name](folder / str(number))
    command = [sys.executable, "-m", "tests.converters.test_bombs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", BY_COST)
def test_a_bomb_is_refused(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    outcome = outcomes[name]
    assert outcome["error"].startswith("CheckpointError: "), outcome
    assert outcome["seconds"] < SECONDS, outcome
    assert outcome["megabytes"] < MEGABYTES, outcome


def read(path: Path) -> dict[str, Any]:
    """Reads a file in all ways, and says what came of it."""
    from converters import load_checkpoint, read_values
    from converters.states.checkpoint import read_nested

    before, start = _megabytes(), time.process_time()
    errors = []
    whole = lambda path: load_checkpoint(path, key="")  # noqa: E731
    readers = (load_checkpoint, whole, read_values, read_nested)
    for reader in readers:
        try:
            reader(path)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {str(error)[:300]}")
    seconds = (time.process_time() - start) / len(readers)
    wrong = [error for error in errors if not error.startswith("CheckpointError")]
    return {
        "error": (wrong or errors or ["none"])[0],
        "seconds": seconds,
        "megabytes": _megabytes() - before,
    }


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _apart(path: Path) -> str:
    """The outcome of a file as JSON, from a process with limits."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (2000 << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        os.write(writing, json.dumps(read(path)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    status = os.waitpid(child, 0)[1]
    died = {"error": f"the process ended with {status}", "seconds": 1e9, "megabytes": 1e9}
    return told or json.dumps(died)


if __name__ == "__main__":
    import h5py  # noqa: F401
    import torch

    import converters.states.checkpoint.load  # noqa: F401

    torch.set_num_threads(1)
    for file in sorted(Path(sys.argv[1]).iterdir(), key=lambda path: int(path.name)):
        print(_apart(file), flush=True)
