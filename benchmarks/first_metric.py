"""Seconds until a command shows the first loss and the first metric; of two checkouts, in turn.

Each line of output is a command in a process of its own, from its start on; the command is ended
once it has shown its first metric, of the validation after an epoch. Run it on a machine at rest,
and twice: the first time files are read from the disk.

Run: python -m benchmarks.first_metric ZOO [--against CHECKOUT] [--model gmn] [--most 120]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parents[1]
LOSS = re.compile(r"loss [-\d]")
METRIC = re.compile(r"(?:tau|accuracy|mse|r2|overlap|/0:) -?\d")
COMMANDS = {
    "train": ("train", "-m"),
    "compare": ("compare", "--seeds", "1", "-m"),
}


def first_seen(
    checkout: Path, command: tuple[str, ...], zoo: Path, model: str, most: float
) -> dict[str, float]:
    """Seconds until a line of progress names a loss, and a metric."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    seen: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [command[0], str(zoo), *command[1:], model, "--out", f"{folder}/out"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "gmn.cli", *arguments],
            cwd=checkout,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        text = ""
        while "metric" not in seen and process.poll() is None:
            now = time.perf_counter() - start
            if now > most:
                break
            text += (process.stderr.read() or b"").decode(errors="replace")
            for name, pattern in (("loss", LOSS), ("metric", METRIC)):
                if name not in seen and pattern.search(text):
                    seen[name] = now
            time.sleep(0.02)
        process.terminate()
        process.wait()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo", type=Path, help="folder of a zoo")
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--model", default="gmn")
    parser.add_argument("--most", type=float, default=120, help="seconds after which to give up")
    options = parser.parse_args()
    print("| command | checkout | first loss, s | first metric, s |\n|---|---|---|---|")
    for name, command in COMMANDS.items():
        for checkout in filter(None, (options.against, HERE)):
            seen = first_seen(
                checkout, command, options.zoo.absolute(), options.model, options.most
            )
            figures = (f"{seen[key]:.1f}" if key in seen else "–" for key in ("loss", "metric"))
            print(f"| {name} | {checkout} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
