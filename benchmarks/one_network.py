"""What it costs to read one network beside running it once.

DualGMN (64 channels, two layers) reads one network, without gradients; the network answers one
input, an image or 128 tokens. Both take turns in a fresh process per network that keeps freed
memory (docs/performance.md). Printed are medians in CPU time, their ratio, the ratio of both's
matrix arithmetic (as torch counts it), operations that the metanetwork dispatches per edge set
(views included), and by how much reading raises the process's own memory. Refuses to measure while
other processes keep the cores busy.

Run: python -m benchmarks.one_network [NAME ...] [--threads 1] [--busy] [--out one_network.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import converters
import gmn
from benchmarks.against_published import refuse_if_busy
from benchmarks.big_models import quiet
from benchmarks.whole_models import MIB, Watch
from gmn.nn import DualGMN, InvariantHead
from tests.families import First
from tests.large import gpt2, vit_b16

ROUNDS = 7  # counted, after one that is not
TOKENS = 128
Built = tuple[nn.Module, Tensor]


class Block(nn.Module):
    """Two convolutions with batch normalisation around a residual connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes (1, channels, height, width)."""
        result: Tensor = self.second(self.first(x).relu()) + self.shortcut(x)
        return result.relu()


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def resnet(blocks: tuple[int, ...], width: int, side: int) -> Built:
    """A ResNet of basic blocks in four stages, each twice as wide as the one before."""
    small = width < 64
    layers: list[nn.Module] = [_convolution(3, width, 3 if small else 7, 1 if small else 2)]
    layers += [nn.ReLU()] + ([] if small else [nn.MaxPool2d(3, 2, 1)])
    inputs = width
    for stage, count in enumerate(blocks):
        for place in range(count):
            outputs = width * 2**stage
            layers.append(Block(inputs, outputs, 2 if stage and not place else 1))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10 if small else 1000)]
    return nn.Sequential(*layers).eval(), torch.randn(1, 3, side, side)


def _vit() -> Built:
    model, (image,) = vit_b16()
    return model, torch.randn_like(image)


def _bert() -> Built:
    """A classifier: of the bare encoder no hidden axis could move, so each position has neurons."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    model = First(BertForSequenceClassification(config), ("input_ids",)).eval()
    return model, torch.arange(TOKENS).unsqueeze(0)


def _gpt2() -> Built:
    model, _ = gpt2()
    return model, torch.arange(TOKENS).unsqueeze(0)


BLOCKS = {10: (1, 1, 1, 1), 34: (3, 4, 6, 3), 102: (8, 12, 20, 10)}
NETWORKS: dict[str, Callable[[], Built]] = {
    **{f"resnet-{n}": lambda blocks=b: resnet(blocks, 64, 224) for n, b in BLOCKS.items()},
    **{f"resnet-{n}, width 16": lambda blocks=b: resnet(blocks, 16, 32) for n, b in BLOCKS.items()},
    "vit-b/16": _vit,
    "bert-22m": _bert,
    "gpt2-124m": _gpt2,
}


class Operations(TorchDispatchMode):
    """Counts what is dispatched."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        self.count += 1
        return function(*arguments, **(options or {}))


def read(name: str, threads: int) -> dict[str, float]:
    """The row of a network; for a fresh process."""
    gmn.engines.keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, inputs = NETWORKS[name]()
    model.requires_grad_(False)
    spec = converters.trace(model, (inputs,))
    graph = gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict()])
    reader = DualGMN(64, 2, InvariantHead(1)).requires_grad_(False)
    with Watch() as watch:
        reader(graph)
    pairs = [
        (_seconds(lambda: model(inputs)), _seconds(lambda: reader(graph)))
        for _ in range(ROUNDS + 1)
    ]
    own, reading = zip(*pairs[1:], strict=True)
    with Operations() as operations:
        reader(graph)
    return {
        "parameters": spec.num_parameters,
        "edge_sets": len(spec.edge_sets),
        "own_ms": statistics.median(own) * 1e3,
        "reading_ms": statistics.median(reading) * 1e3,
        "ratio": statistics.median(b / a for a, b in pairs[1:]),
        "arithmetic_ratio": _flops(lambda: reader(graph)) / _flops(lambda: model(inputs)),
        "operations_per_edge_set": operations.count / len(spec.edge_sets),
        "own_memory_mib": watch.grown / MIB,
    }


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _flops(function: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Lines of the table in Markdown."""
    return [
        "| network | parameters | edge sets | own forward, CPU ms | read, CPU ms | ratio "
        "| of arithmetic | quotient | operations per edge set | memory MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['parameters']:,} | {row['edge_sets']} | {row['own_ms']:.1f} "
            f"| {row['reading_ms']:.1f} | {row['ratio']:.2f} | {row['arithmetic_ratio']:.2f} "
            f"| {row['ratio'] / row['arithmetic_ratio']:.2f} "
            f"| {row['operations_per_edge_set']:.1f} | {row['own_memory_mib']:.0f} |"
            for name, row in rows.items()
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine, too")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load = refuse_if_busy(arguments.busy)
    rows = {}
    for name in arguments.names or NETWORKS:
        with ProcessPoolExecutor(1, get_context("spawn"), quiet) as process:
            rows[name] = process.submit(read, name, arguments.threads).result()
        print(table({name: rows[name]})[-1], flush=True)
    print("\n".join(table(rows)))
    if arguments.out:
        conditions = {"torch": torch.__version__, "threads": arguments.threads}
        report = conditions | {"load_of_others": round(load, 2), "networks": rows}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
