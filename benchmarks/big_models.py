"""What large models cost: tracing without their weights, converting their checkpoints.

The first table traces models of real size on the meta device, each in a fresh process, after a
small model has warmed the exporter up: the exporter's time and this library's (median of three
runs), tensors allocated, growth of the process. The second one converts state dicts: one in memory,
one mapped from a safetensors file (opening it included), four at once.

Run: python -m benchmarks.big_models
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import converters
import gmn
from tests.large import CHECKPOINTS, Built, gpt2_xl, llama_1b, on_meta
from tests.memory import allocated

MIB = 2**20
TRACED: dict[str, Callable[[], Built]] = {
    **CHECKPOINTS,
    "llama-3.2-1b": llama_1b,
    **{f"gpt2-xl, {layers} layers": partial(gpt2_xl, layers) for layers in (12, 24, 48, 96)},
}


def main() -> None:
    print(
        "| model | parameters | weights MiB | operations | export s | own s | own ms/operation "
        "| tensors made MiB | growth MiB | JSON kB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in TRACED:
        print(in_fresh_process(trace_row, name), flush=True)
    print(
        "\n| checkpoint | MiB | convert ms | made MiB | mapped file ms | made MiB | 4 networks ms "
        "| made / size | back ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in CHECKPOINTS:
        print(in_fresh_process(convert_row, name), flush=True)


def in_fresh_process(function: Callable[[str], str], name: str) -> str:
    with multiprocessing.get_context("spawn").Pool(1, quiet) as pool:
        return pool.apply(function, (name,))


def quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)


def trace_row(name: str) -> str:
    model, inputs = on_meta(TRACED[name])
    converters.trace(nn.Linear(2, 2), (torch.zeros(1, 2),))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runs = [timed_trace(model, inputs) for _ in range(3)]
    seconds, exporting, nodes, spec = sorted(runs, key=lambda run: run[0])[1]
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    made = allocated(lambda: converters.trace(model, inputs))[1]
    own = seconds - exporting
    return (
        f"| {name} | {spec.num_parameters:,} | {4 * spec.num_parameters / MIB:,.0f} | {nodes:,} "
        f"| {exporting:.2f} | {own:.2f} | {1e3 * own / nodes:.2f} | {made / MIB:.3f} "
        f"| {growth:.0f} | {len(spec.to_json()) / 1e3:.0f} |"
    )


def timed_trace(
    model: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[float, float, int, gmn.GraphSpec]:
    """Seconds in all and in the exporter, nodes of the exported graph, and the spec."""
    found: list[tuple[float, int]] = []
    export = torch.export.export

    def timed(*args: Any, **options: Any) -> torch.export.ExportedProgram:
        start = time.perf_counter()
        program = export(*args, **options)
        found.append((time.perf_counter() - start, len(program.graph.nodes)))
        return program

    with mock.patch.object(torch.export, "export", timed):
        start = time.perf_counter()
        spec = converters.trace(model, inputs)
        seconds = time.perf_counter() - start
    return seconds, *found[0], spec


def convert_row(name: str) -> str:
    model, _ = CHECKPOINTS[name]()
    spec = converters.trace(*on_meta(CHECKPOINTS[name]))
    state = model.state_dict()
    size = sum(value.nbytes for value in state.values())
    one, one_made = measured(lambda: gmn.ParameterGraph.from_state_dicts(spec, [state]))
    four, four_made = measured(lambda: gmn.ParameterGraph.from_state_dicts(spec, [state] * 4))
    graph = gmn.ParameterGraph.from_state_dicts(spec, [state])
    back, _ = measured(graph.to_state_dict)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file(state, path)
        mapped, _ = measured(lambda: gmn.ParameterGraph.from_state_dicts(spec, [load_file(path)]))
        opened = load_file(path)
        mapped_made = allocated(lambda: gmn.ParameterGraph.from_state_dicts(spec, [opened]))[1]
    return (
        f"| {name} | {size / MIB:,.0f} | {one:.0f} | {one_made / MIB:.3f} | {mapped:.0f} "
        f"| {mapped_made / MIB:.3f} | {four:.0f} | {four_made / size / 4:.3f} | {back:.1f} |"
    )


def measured(function: Callable[[], object], repeats: int = 11) -> tuple[float, int]:
    """Median milliseconds after two runs that are not counted, and bytes of tensors made."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[2:]), allocated(function)[1]


if __name__ == "__main__":
    main()
