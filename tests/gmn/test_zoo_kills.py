"""A zoo whose writer is killed by SIGKILL, at any moment, becomes the same zoo, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gmn import zoo
from gmn.zoo.building import catalogue
from gmn.zoo.building.builders import Builder
from gmn.zoo.building.classifiers import ClassifierBuilder
from gmn.zoo.building.inrs import InrBuilder
from gmn.zoo.training.ranges import Range
from tests.gmn.lines import contents, spec

WRITES = """
import sys, torch
from gmn import zoo
from gmn.spec import GraphSpec

def write(folder, spec, shards=120, size=20):
    with zoo.ZooWriter(folder, "lines", shards * size, 0, {}) as writer:
        for number in writer.missing(shards):
            generator = torch.Generator().manual_seed(number)
            states = {
                "weight": torch.randn(size, 3, 2, generator=generator),
                "bias": torch.zeros(size, 3),
            }
            rows = [{"id": f"{number:03d}-{i:02d}", "y": i / 3} for i in range(size)]
            writer.write_shard(number, "linear", spec, states, rows)
        writer.finish(shards, {})

if __name__ == "__main__":
    spec = GraphSpec.from_json(sys.argv[2])
    print("ready", flush=True)
    write(sys.argv[1], spec)
"""


def test_a_writer_that_was_killed_goes_on_to_the_same_zoo(tmp_path: Path) -> None:
    names: dict[str, object] = {"__name__": "writes"}
    exec(WRITES, names)
    write = names["write"]
    assert callable(write)
    write(tmp_path / "whole", spec())
    out = tmp_path / "out"
    command = [sys.executable, "-c", WRITES, str(out), spec().to_json()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while len(list(out.glob("shard-*"))) < 10:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with pytest.raises(zoo.ZooError, match="unfinished"):
        zoo.open(out)
    assert len(list(out.glob("shard-*"))) < 120
    write(out, spec())
    assert contents(out) == contents(tmp_path / "whole")


BUILDS = """
import sys
from tests.gmn.test_zoo_kills import build
if __name__ == "__main__":
    build(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def build(name: str, out: str | Path, workers: int) -> zoo.Zoo:
    """Short trainings and small shards: 60 of them."""
    short: Builder = catalogue.BUILDERS[name]
    if isinstance(short, InrBuilder):
        short = replace(short, steps=10)
    elif isinstance(short, ClassifierBuilder):
        short = replace(short, ranges=replace(short.ranges, steps=Range(2, 8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(short), "shard_size", 10)
        patch.setitem(catalogue.BUILDERS, name, short)
        return zoo.build(name, 600, 5, out, workers, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers"), [("inr-digits", 2), ("cnn-digits", 1)])
def test_ten_kills_at_random_moments_leave_the_zoo_of_an_undisturbed_build(
    name: str, workers: int, tmp_path: Path
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(BUILDS)
    command = [sys.executable, str(script), name, str(out), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    moments = random.Random(0)
    for kill in range(10):
        wanted = _shards(out) + moments.randint(0, 3)
        process = subprocess.Popen(command, env=environment)
        while _shards(out) < max(wanted, 1):
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert _shards(out) < 60, f"kill {kill} came too late"
        with pytest.raises(zoo.ZooError, match="unfinished"):
            zoo.open(out)
    subprocess.run(command, check=True, env=environment)
    build(name, tmp_path / "whole", 3 - workers)
    assert contents(out) == contents(tmp_path / "whole")
    assert zoo.verify(out, progress=False).ok


def _shards(folder: Path) -> int:
    return len(list(folder.glob("shard-*")))
