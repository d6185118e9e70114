"""Step times and kept memory of every metanetwork beside those of another commit, in one run.

Each side runs in a process of its own; both take one step after the other, in turn, on the same
networks (a CNN 1-16-16-16-10, a SIREN 2-32-32-1, a small transformer; batches of 32). Prints
medians in processor time, their ratio, and MiB kept for the backward pass; `--out` writes the same
as JSON.

Run: git worktree add ../other COMMIT && python -m benchmarks.steps_against ../other
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PAIRS = 7  # counted, after two that are not
WORKER = """
import sys, time, torch
from benchmarks import steps
from benchmarks.steps import Place, graph_of, kept, model_of, step
steps.NETWORKS["transformer"] = (lambda: steps.network("transformer-8"), (1, 1, 8, 8))
place = Place("cpu", 1)
models = {}
for line in sys.stdin:
    action, network, name = line.split()
    if (network, name) not in models:
        graph = graph_of(network, place)
        torch.manual_seed(0)
        try:
            model = model_of(name, graph)
            if model is not None:
                model(graph)
        except (AttributeError, KeyError, ValueError):  # a model, or networks, of the other commit
            model = None
        models[network, name] = model, graph
    model, graph = models[network, name]
    if action == "kept":
        answer = -1.0 if model is None else kept(model, graph)
    else:
        start = time.process_time()
        step(model, graph)
        answer = time.process_time() - start
    print(answer, flush=True)
"""


class Side:
    """One checkout in a process of its own."""

    def __init__(self, root: Path) -> None:
        paths = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=root,
            env=os.environ | paths,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, action: str, network: str, model: str) -> float:
        """Milliseconds of a step, or MiB kept; negative for what is no module."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(action, network, model, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def compare(network: str, model: str, sides: tuple[Side, Side]) -> dict[str, float] | None:
    """Medians and the median of the pairs' ratios; None for what is no module."""
    kept = [side.ask("kept", network, model) for side in sides]
    if min(kept) < 0:
        return None
    pairs = [[1e3 * side.ask("step", network, model) for side in sides] for _ in range(PAIRS + 2)]
    pairs = pairs[2:]
    before, after = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "before_ms": before,
        "after_ms": after,
        "ratio": statistics.median(new / old for old, new in pairs),
        "before_kept_mib": kept[0],
        "after_kept_mib": kept[1],
    }


def head(network: str) -> str:
    """The first two lines of a network's table."""
    columns = f"| {network} | before ms | after ms | ratio | before MiB kept | after |"
    return columns + "\n|---|---|---|---|---|---|"


def line(name: str, row: dict[str, float]) -> str:
    """A model's line."""
    cells = (f"{row[key]:.2f}" if key == "ratio" else f"{row[key]:.1f}" for key in row)
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    from gmn import registry

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="checkout of the commit to compare with")
    parser.add_argument("--models", help="names, separated by commas; all if left out")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sides = Side(arguments.other.resolve()), Side(HERE)
    results: dict[str, dict[str, dict[str, float]]] = {}
    names = arguments.models.split(",") if arguments.models else registry.names()
    for network in ("cnn", "siren", "transformer"):
        print("\n" + head(network))
        for name in names:
            if (row := compare(network, name, sides)) is None:
                continue
            results.setdefault(network, {})[name] = row
            print(line(name, row), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
