"""Transformer-NFN's layers in compact form beside the published form, term by term.

Two blocks of the size of the published zoo (D 32, two heads, 64 hidden neurons), batches of 32: one
equivariant and one invariant layer for each, forward and backward, both forms taking turns. Prints
milliseconds (minimum and median) and MiB kept for the backward pass.

Run: python -m benchmarks.transformer_layers [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from baselines.attention.head_forms import State
from baselines.attention.head_layers import EquivariantBlockLayer, InvariantBlockLayer
from gmn.comparison.cost import MIB
from gmn.nn.memory import saved_bytes
from tests.baselines.published_transformer_nfn import Published, Sizes, compact, values

SIZES = Sizes(heads=2, width=32, keys=16, values=16, hidden=64)
BATCH, BLOCKS, REPEATS = 32, 2, 15
EQUIVARIANT = ("Q", "K", "V", "O", "A", "bA", "B", "bB")
RECTIFIED = ("A", "bA", "B", "bB")


class Compact(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = EquivariantBlockLayer(SIZES.form, inputs, outputs)
        self.last = InvariantBlockLayer(SIZES.form, outputs, 10)

    def forward(self, state: State) -> Tensor:
        return self.last(self.layer(state).rectified())


class Written(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = Published(SIZES, inputs, outputs, EQUIVARIANT)
        self.last = Published(SIZES, outputs, 10, ("I",))

    def forward(self, state: dict[str, Tensor]) -> Tensor:
        found = self.layer(state)
        return self.last({n: v.relu() if n in RECTIFIED else v for n, v in found.items()})["I"]


def compare(inputs: int) -> None:
    given = [
        {name: value.float() for name, value in values(SIZES, inputs, BATCH).items()}
        for _ in range(BLOCKS)
    ]
    forms: dict[str, tuple[nn.ModuleList, list[State] | list[dict[str, Tensor]]]] = {
        "compact": (nn.ModuleList(Compact(inputs, 10) for _ in given), [compact(g) for g in given]),
        "as published": (nn.ModuleList(Written(inputs, 10) for _ in given), given),
    }

    def run(name: str) -> None:
        models, states = forms[name]
        models.zero_grad()
        total = sum(
            model(state).square().sum() for model, state in zip(models, states, strict=True)
        )
        total.backward()  # type: ignore[union-attr]

    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(REPEATS + 2):
        for name in forms:
            start = time.perf_counter()
            run(name)
            times[name].append((time.perf_counter() - start) * 1e3)
    for name, (models, _) in forms.items():
        own = times[name][2:]
        with saved_bytes(models) as saved:
            run(name)
        kept = sum(saved.values()) / MIB
        shown = f"{min(own):.1f} | {statistics.median(own):.1f} | {kept:.1f}"
        print(f"| {inputs} → 10 | {name} | {shown} |")
    first, second = (statistics.median(times[name][2:]) for name in forms)
    print(f"compact is {second / first:.2f} times as fast (median)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    print("| channels | form | ms (min) | ms (median) | MiB kept |\n|---|---|---|---|---|")
    for inputs in (1, 10):
        compare(inputs)


if __name__ == "__main__":
    main()
