"""What the experiment at the end of a trace costs.

Prints, for all networks of the tests together, and for every network that the tests build of a
library, the time to trace (warm) without and with the experiment, and how much of the claimed
group was tried.

Run: python -m benchmarks.experiment [transformers | torchvision | timm] [how many]
"""

from __future__ import annotations

import logging
import sys
import time
import warnings

import torch
from torch import Tensor, nn

import converters
from benchmarks.families import CATALOGUES
from gmn.spec import GraphSpec
from tests.cases import CASES
from tests.torchvision_operators import declare_operators


def main(library: str | None = None, most: str = "1000") -> None:
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", converters.FalseSymmetryWarning)
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    print("| network | parameters | without s | with s | ratio | tried | given up |")
    print("|---|---|---|---|---|---|---|")
    if library is None:
        rows = [_row(case.name, case.model(), case.example()) for case in CASES]
    else:
        declare_operators()
        names, build = CATALOGUES[library]
        rows = [_row(name, *build(name)) for name in list(names)[: int(most)]]
    without, with_it = (sum(column) for column in zip(*rows, strict=True))
    ratio = with_it / without
    print(f"\ntogether: {without:.1f} s without, {with_it:.1f} s with, {ratio:.2f} times")


def _row(name: str, model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, float]:
    converters.trace(model, inputs, experiment=False)
    without, claimed = _timed(model, inputs, experiment=False)
    with_it, spec = _timed(model, inputs, experiment=True)
    total, left = _claims(claimed), _claims(claimed) - _claims(spec)
    print(
        f"| {name} | {spec.num_parameters:,} | {without:.2f} | {with_it:.2f} | "
        f"{with_it / without:.2f} | {spec.untried or f'{len(spec.tried)} of {len(total)}'} | "
        f"{', '.join(sorted(left))} |",
        flush=True,
    )
    return without, with_it


def _timed(
    model: nn.Module, inputs: tuple[Tensor, ...], experiment: bool
) -> tuple[float, GraphSpec]:
    start = time.perf_counter()
    spec = converters.trace(model, inputs, experiment=experiment)
    return time.perf_counter() - start, spec


def _claims(spec: GraphSpec) -> set[str]:
    return set(spec.symmetries.names)


if __name__ == "__main__":
    main(*sys.argv[1:])
