"""Freed memory is kept for the next step, where the C library can."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gmn.engines import keep_freed_memory
from gmn.engines.allocator import _has_glibc

FAULTS = """
import resource, torch
from gmn.engines import keep_freed_memory

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(2**24).sum()  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(1)
returned, kept = faults(3), keep_freed_memory()
faults(20)  # until the heap is as large as it becomes
print(kept, returned, faults(3))
"""


@pytest.mark.skipif(not _has_glibc(), reason="another C library")
def test_freed_memory_is_not_paid_for_again() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS]
    printed = subprocess.check_output(command, env=environment, text=True).split()
    assert printed[0] == "True"
    returned, kept = map(int, printed[1:])
    assert returned > 1000
    assert kept < returned / 100


def test_settings_of_the_environment_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not keep_freed_memory()
