"""How much of each `transformers` family the converter understands.

Prints, for every family of tests/families.py (small random configurations): parameters, the share
of them next to at least one movable axis, node sets, operations without a rule, the time to trace
(warm), and the largest relative change of outputs under the certified group (float64).

Run: python -m benchmarks.families
"""

from __future__ import annotations

import logging
import time
import warnings

import torch

import converters
from tests.families import FAMILIES, build


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    print("| family | parameters | movable | node sets | unknown operations | trace s | error |")
    print("|---|---|---|---|---|---|---|")
    shares = []
    for name in FAMILIES:
        model, inputs = build(name)
        converters.trace(model, inputs)
        start = time.perf_counter()
        spec = converters.trace(model, inputs)
        seconds = time.perf_counter() - start
        moving = {axis.name for axis in spec.symmetries.permutations}
        held = [e for e in spec.edge_sets if e.tied_to is None and spec.is_parameter(e)]
        next_to = sum(e.size for e in held if any(dim.axis in moving for dim in e.dims))
        shares.append(next_to / spec.num_parameters)
        certificate = converters.verify(model, inputs, spec, trials=4)
        print(
            f"| {name} | {spec.num_parameters:,} | {shares[-1]:.0%} | {len(spec.node_sets)} | "
            f"{len(spec.unknown)} | {seconds:.2f} | {certificate.max_error:.0e}"
            f"{'' if certificate.ok else ' FAILED'} |",
            flush=True,
        )
    print(f"\nmedian share: {torch.tensor(shares).median():.1%}")


if __name__ == "__main__":
    main()
