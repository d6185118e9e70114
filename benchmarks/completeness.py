"""How complete the claimed groups are: continuous symmetries by the Jacobian's rank.

Prints a row for every network of the tests with up to 2,000 parameters: dimensions of the null
space at random weights, dimensions of the claimed group's orbit there, what was missed and which
entries it moves, numbers that no output reads, and the gap between singular values. With a file,
writes the rows as JSON, too.

Run: python -m benchmarks.completeness [--seconds 120] [--out rows.json]
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import converters
from converters.proof.completeness import measure
from converters.proof.situations import as_given
from tests.cases import CASES, Case


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=120, help="CPU time limit of a network")
    parser.add_argument("--out", type=Path, help="file for all rows, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | parameters | nullity | claimed | missed | unread | gap | s | they move |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for case in CASES:
        rows.append(_row(case, options.seconds))
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1))
    counted = [row for row in rows if "missed" in row]
    whole = sum(not row["missed"] for row in counted)
    print(f"\ncomplete: {whole} of {len(counted)}; not counted: {len(rows) - len(counted)}")


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises TimeoutError once so much CPU time has passed."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not counted within {seconds} s of CPU time")

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _row(case: Case, seconds: int) -> dict[str, Any]:
    model, inputs = case.model(), case.example()
    spec = converters.trace(model, inputs)
    row: dict[str, Any] = {"network": case.name, "parameters": spec.num_parameters}
    start = time.process_time()
    try:
        with limited(seconds):
            found = measure(model, as_given(inputs, None), spec, torch.Generator().manual_seed(0))
    except (ValueError, TimeoutError) as error:
        print(f"| {case.name} | {spec.num_parameters:,} | {error} | | | | | | |", flush=True)
        return row | {"reason": str(error)}
    taken = time.process_time() - start
    print(
        f"| {case.name} | {spec.num_parameters:,} | {found.nullity} | {found.claimed} | "
        f"{found.missed} | {found.unread} | {found.gap:.0e} | {taken:.1f} | "
        f"{', '.join(found.support)} |",
        flush=True,
    )
    return row | asdict(found)


if __name__ == "__main__":
    main()
