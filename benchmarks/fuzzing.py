"""Claims about random programs, held against the programs themselves.

Draws programs from consecutive seeds, traces each without the experiment that would drop false
claims, and lets every claimed generator act on random weights (see tests/converters/fuzzing.py).
Prints every fault with the program that shows it, shrunk by deleting operations; then how many
programs were refused, have symmetries, have false claims, and are complete: as many continuous
symmetries claimed as the Jacobian of outputs with respect to parameters has. Operations are
counted as they occur in programs after dead code is gone.

Run: python -m benchmarks.fuzzing [--programs 20000] [--first 0] [--complete] [--out fuzzing.json]
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.converters.fuzzing import Finding, examine, missed, shrunk
from tests.converters.oracle import doubles
from tests.converters.programs import drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first program")
    parser.add_argument("--complete", action="store_true", help="count what is not claimed, too")
    parser.add_argument("--out", type=Path, help="file for all figures, as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    start = time.perf_counter()
    report = run(range(options.first, options.first + options.programs), options.complete)
    report["seconds"] = round(time.perf_counter() - start, 1)
    print("\n".join(_lines(report)))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def run(seeds: range, complete: bool) -> dict[str, object]:
    """The figures of the programs of these seeds."""
    counts, operations, missing = Counter[str](), Counter[str](), Counter[int]()
    faults: list[dict[str, object]] = []
    for seed in seeds:
        with doubles():
            program = drawn(seed)
        finding = examine(program)
        operations.update(step.operation for step in program.steps)
        counts.update(_marks(finding))
        if finding.faults:
            small = shrunk(finding)
            print(f"seed {seed}: {small}\n", flush=True)
            faults.append({"seed": seed, "faults": small.faults, "program": str(small.program)})
        elif complete and finding.spec is not None:
            missing[missed(finding)] += 1
    return {
        "programs": len(seeds),
        **{mark: counts[mark] for mark in MARKS},
        "complete": missing[0],
        "counted": sum(number for dimensions, number in missing.items() if dimensions >= 0),
        "missed dimensions": dict(sorted(missing.items())),
        "faults": faults,
        "operations": dict(operations.most_common()),
    }


MARKS = ("refused", "with symmetries", "false claims", "other faults")


def _marks(finding: Finding) -> Iterator[str]:
    if finding.refusal:
        yield "refused"
    if finding.spec is not None and finding.spec.symmetries.names:
        yield "with symmetries"
    if any(kind.startswith("false") for kind in finding.kinds):
        yield "false claims"
    elif finding.faults:
        yield "other faults"


def _lines(report: dict[str, object]) -> Iterator[str]:
    operations = report["operations"]
    assert isinstance(operations, dict)
    yield "| operation | programs' lines |"
    yield "|---|---|"
    yield from (f"| {name} | {count} |" for name, count in operations.items())
    yield ""
    for name in ("programs", *MARKS, "complete", "counted", "missed dimensions", "seconds"):
        yield f"{name}: {report[name]}"


if __name__ == "__main__":
    main()
