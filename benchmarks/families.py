"""How much of each model family the converter understands.

Prints, for every network of a library that the tests build (small random ones of `transformers`,
`torchvision` or `timm`): parameters, the share of them next to at least one movable axis, node
sets, operations without a rule, the time to trace (warm), and the largest relative change of
outputs under the certified group (float64), over single axes and scales and over random elements
of the whole; where the share is below 95 %, which neurons keep their places.

Run: python -m benchmarks.families [transformers | torchvision | timm]
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

import converters
import gmn
from tests import families, vision
from tests.torchvision_operators import declare_operators

CATALOGUES = {
    "transformers": (families.FAMILIES, families.build),
    "torchvision": (vision.TORCHVISION, partial(vision.build, "torchvision")),
    "timm": (vision.TIMM, partial(vision.build, "timm")),
}
ENOUGH = 0.95


def main(library: str = "transformers") -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    declare_operators()
    names, build = CATALOGUES[library]
    print(
        "| network | parameters | movable | node sets | unknown operations | trace s | error |"
        " held in place |"
    )
    print("|---|---|---|---|---|---|---|---|")
    shares = [row(name, build) for name in names]
    print(f"\nmedian share: {torch.tensor(shares).median():.1%}")


def row(name: str, build: Callable[[str], tuple[nn.Module, tuple[Tensor, ...]]]) -> float:
    """Prints one row; returns the share of parameters next to a movable axis."""
    model, inputs = build(name)
    converters.trace(model, inputs)
    start = time.perf_counter()
    spec = converters.trace(model, inputs)
    seconds = time.perf_counter() - start
    share = 1 - sum(edges.size for edges in _held(spec)) / spec.num_parameters
    certificate = converters.verify(model, inputs, spec, trials=2)
    error = max([certificate.max_error, *certificate.errors.values()])
    print(
        f"| {name} | {spec.num_parameters:,} | {share:.1%} | {len(spec.node_sets)} | "
        f"{len(spec.unknown)} | {seconds:.2f} | {error:.0e}{'' if certificate.ok else ' FAILED'} | "
        f"{_why(spec) if share < ENOUGH else ''} |",
        flush=True,
    )
    return share


def _held(spec: gmn.GraphSpec) -> Iterator[gmn.EdgeSet]:
    """Edge sets of parameters without a movable axis."""
    moving = {axis.name for axis in spec.symmetries.permutations}
    for edges in spec.edge_sets:
        own = edges.tied_to is None and spec.is_parameter(edges)
        if own and not any(dim.axis in moving for dim in edges.dims):
            yield edges


def _why(spec: gmn.GraphSpec) -> str:
    """The node set that most of the parameters in place belong to, and its role."""
    sizes: dict[str, int] = {}
    for edges in _held(spec):
        sizes[edges.target] = sizes.get(edges.target, 0) + edges.size
    largest = spec.node_set(max(sizes, key=lambda name: sizes[name]))
    stream = "the output is the residual stream" if largest.role == "output" else largest.role
    return f"{stream} (`{largest.name}`)"


if __name__ == "__main__":
    main(*sys.argv[1:])
