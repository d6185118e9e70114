"""Zoos, trained models, runs, comparisons, graphs and indices that a hostile hand changed.

Nothing runs, nothing outside is touched, nothing hangs, and every refusal names the folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, os, resource, sys, warnings
from pathlib import Path
import torch
from tests.gmn import hostile

warnings.simplefilter("ignore")
torch.set_num_threads(1)
folder, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
hostile.make(folder / "whole")
os.chdir(folder)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
print(json.dumps(hostile.trials(folder / "whole", folder / "work", seed, rounds)))
"""


def check(folder: Path, seed: int, rounds: int) -> None:
    """In a process of its own: memory beyond 1 GiB more is an error, and a crash is seen."""
    command = [sys.executable, "-c", CODE, str(folder), str(seed), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told["faults"], "\n".join(told["faults"][:20])
    assert told["longest"] < 10
    # Some changes do no harm: the trials are no sham.
    assert set(told["read"]) >= {"zoo", "model", "runs", "graph"}
    assert sum(told["read"].values()) < rounds


def test_changed_folders(tmp_path: Path) -> None:
    check(tmp_path, seed=0, rounds=60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_changed_folders(seed: int, tmp_path: Path) -> None:
    check(tmp_path, seed, rounds=3000)
