"""How complete the claimed groups are: continuous symmetries by the Jacobian's rank.

Prints a row for every network of the tests with up to 2,000 parameters: dimensions of the null
space at random weights, dimensions of the claimed group's orbit there, what was missed and which
entries it moves, numbers that no output reads, and the gap between singular values. With a file,
writes the rows as JSON, too.

Run: python -m benchmarks.completeness [rows.json]
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import converters
from converters.proof.completeness import measure
from converters.proof.situations import as_given
from tests.cases import CASES, Case


def main(out: str | None = None) -> None:
    torch.set_num_threads(1)
    print("| network | parameters | nullity | claimed | missed | unread | gap | s | they move |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = [_row(case) for case in CASES]
    counted = [row for row in rows if "missed" in row]
    whole = sum(not row["missed"] for row in counted)
    print(f"\ncomplete: {whole} of {len(counted)}; not counted: {len(rows) - len(counted)}")
    if out is not None:
        Path(out).write_text(json.dumps(rows, indent=1))


def _row(case: Case) -> dict[str, Any]:
    model, inputs = case.model(), case.example()
    spec = converters.trace(model, inputs)
    row: dict[str, Any] = {"network": case.name, "parameters": spec.num_parameters}
    start = time.perf_counter()
    try:
        found = measure(model, as_given(inputs, None), spec, torch.Generator().manual_seed(0))
    except ValueError as error:
        print(f"| {case.name} | {spec.num_parameters:,} | {error} | | | | | | |", flush=True)
        return row
    seconds = time.perf_counter() - start
    print(
        f"| {case.name} | {spec.num_parameters:,} | {found.nullity} | {found.claimed} | "
        f"{found.missed} | {found.unread} | {found.gap:.0e} | {seconds:.1f} | "
        f"{', '.join(found.support)} |",
        flush=True,
    )
    return row | asdict(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
