"""What becomes of networks that somebody else trained: the table in README.md.

Prints a row per architecture: the files that have it, the floating-point numbers in each, node
sets, the share of parameters beside an axis that may move, the time to trace (warm), and over all
files the largest relative change of any output: when the weights move along the group one thing at
a time and all at once, in float64 (the certificate), and all at once, in the files' own float32.

Run: make checkpoints, then python -m benchmarks.pretrained
"""

from __future__ import annotations

import time
import warnings
from itertools import groupby

import torch

import converters
import gmn
from gmn import symmetry
from gmn.testing import assert_same_function
from tests.pretrained import PRETRAINED, Pretrained, movable_share


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(
        "| package | networks | architecture | numbers | node sets | movable | trace s "
        "| float64 | float32 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for _, group in groupby(PRETRAINED, key=lambda network: network.architecture):
        print(_row(list(group)), flush=True)


def _row(networks: list[Pretrained]) -> str:
    first = networks[0]
    converters.trace(first.build(), first.example())
    start = time.perf_counter()
    spec = converters.trace(first.build(), first.example())
    seconds = time.perf_counter() - start
    errors = [_errors(network, spec) for network in networks]
    names = first.name if len(networks) == 1 else f"{first.name} and {len(networks) - 1} more"
    exact, rounded = (max(column) for column in zip(*errors, strict=True))
    return (
        f"| {first.package.name} {first.package.version} | {names} | {first.architecture} "
        f"| {first.floats:,} | {len(spec.node_sets)} | {movable_share(spec):.2%} "
        f"| {seconds:.2f} | {exact:.0e} | {rounded:.0e} |"
    )


def _errors(network: Pretrained, spec: gmn.GraphSpec) -> tuple[float, float]:
    """Largest relative changes of outputs, by the certificate and in float32."""
    model, inputs = network.model(), network.example()
    certificate = converters.verify(model, inputs, spec, trials=4)
    state = model.state_dict()
    moved = symmetry.sample(spec, torch.Generator().manual_seed(1)).act(state)
    rounded = assert_same_function(model, state, moved, inputs, tolerance=1e-3)
    return max(certificate.max_error, *certificate.errors.values(), 0.0), rounded


if __name__ == "__main__":
    main()
