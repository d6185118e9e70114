"""How long commands and imports take to start, beside ``import torch``, in turn in one run.

Every line runs in a process of its own, one after the other, round by round. Printed are medians of
the processes' CPU seconds (user and system), and their ratio to those of ``import torch``. The
goal: ``gmn --help`` in less than half of it, ``import gmn, torch`` in at most a tenth more.

Run: python -m benchmarks.start_up [--rounds 7] [--out start_up.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
BASE = "import torch"
LINES = {
    BASE: ("-c", "import torch"),
    "gmn --help": ("-m", "gmn.cli", "--help"),
    "gmn --version": ("-m", "gmn.cli", "--version"),
    "import gmn": ("-c", "import gmn"),
    "import gmn, torch": ("-c", "import gmn, torch"),
    "import gmn; gmn.nn.GMN": ("-c", "import gmn; gmn.nn.GMN"),
}


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    """CPU time of one process of Python, user and system, with what it started."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every line in every round; a first round, which fills caches, is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in LINES}
    for _ in range(rounds + 1):
        for name, arguments in LINES.items():
            seconds[name].append(cpu_seconds(arguments))
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="file for all figures, as JSON")
    options = parser.parse_args()
    seconds = measure(options.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("| | CPU s | of `import torch` |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| `{name}` | {median:.2f} | {median / medians[BASE]:.2f} |")
    if options.out:
        options.out.write_text(json.dumps({"medians": medians, "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
