"""A zoo whose writer is killed by SIGKILL, at any moment, becomes the same zoo, bit for bit."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gmn import zoo
from gmn.zoo import provenance
from tests.gmn.lines import contents, spec

WRITES = """
import sys, torch
from gmn import zoo
from gmn.spec import GraphSpec

def write(folder, spec, shards=400, size=20):
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
    for least in (20, 60):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        while len(list(out.glob("shard-*"))) < least:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with pytest.raises(zoo.ZooError, match="unfinished"):
            zoo.open(out)
    assert len(list(out.glob("shard-*"))) < 400
    write(out, spec())
    assert contents(out) == contents(tmp_path / "whole")


BUILDS = """
import sys
from gmn import zoo
if __name__ == "__main__":
    zoo.build(sys.argv[1], int(sys.argv[2]), 5, sys.argv[3], workers=2, progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("inr-digits", 1500), ("cnn-digits", 250)])
def test_ten_kills_at_random_moments_leave_the_zoo_of_an_undisturbed_build(
    name: str, size: int, tmp_path: Path
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(BUILDS)
    command = [sys.executable, str(script), name, str(size), str(out)]
    moments = random.Random(0)
    found = []
    for _ in range(10):
        starts = _starts(out)
        process = subprocess.Popen(command)
        while _starts(out) == starts and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found.append(len(list(out.glob("shard-*"))))
    # The kills met the build, not its end.
    assert found[-1] > found[0]
    assert found[5] < max(found[-1], 10)
    subprocess.run(command, check=True)
    zoo.build(name, size, 5, tmp_path / "whole", workers=1, progress=False)
    assert contents(out) == contents(tmp_path / "whole")
    assert zoo.verify(out, progress=False).ok


def _starts(folder: Path) -> int:
    return sum(event["event"] == "start" for event in provenance.read_journal(folder))
