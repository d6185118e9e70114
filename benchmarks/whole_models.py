"""One forward pass of DualGMN over whole models whose weights are mapped from files.

BERT of MiniLM's shape and GPT-2 in float32, Llama-3.2-1B's shape in bfloat16, all with random
weights that are written tensor by tensor into a temporary folder and deleted afterwards. Every
pass runs in a fresh process: seconds to open the files (which reads every number once, to refuse
NaN), seconds of the first forward pass, the process's peak, and how much of the process's own
memory (mapped pages apart, which the system takes back when it needs them) was added since before
the files were opened. Then the same pass over the same network moved by its symmetries: all of
them in float32, permutations in bfloat16, where they alone are exact.

With --train, one training step of DualGMN (64 channels, two layers) instead, forward and backward,
with and without recomputation: what the process's own memory grows by in the first step, with the C
library's own settings and with MALLOC_MMAP_THRESHOLD_ set, and CPU seconds of the second step.

Run: python -m benchmarks.whole_models [NAME ...] [--threads 2] [--train]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor

import converters
import gmn
from benchmarks.big_models import quiet
from gmn import symmetry
from gmn.nn import DualGMN, InvariantHead
from gmn.testing import relative_error
from tests.large import Built, bert_22m, gpt2, llama_1b, on_meta

T = TypeVar("T")
MIB = 2**20
SHARD = 2**28  # bytes after which a file is closed
MODELS: dict[str, tuple[Callable[[], Built], torch.dtype]] = {
    "bert-22m": (bert_22m, torch.float32),
    "gpt2-124m": (gpt2, torch.float32),
    "gpt2-124m-half": (gpt2, torch.float16),
    "llama-1b": (llama_1b, torch.bfloat16),
}
COLUMNS = (
    "model", "parameters", "edges", "neurons", "type", "weights MiB", "open s", "forward s",
    "peak MiB", "own MiB", "moved",
)  # fmt: skip
TRAINED = (
    "model", "parameters", "neurons", "type", "weights MiB", "recompute", "own MiB",
    "with threshold", "CPU s", "with threshold",
)  # fmt: skip
THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": str(MIB)}  # larger tensors go back to the system when freed


@dataclass(frozen=True)
class Job:
    """A model whose files lie in a folder, and whether to compute layers again in training."""

    name: str
    folder: Path
    threads: int
    recompute: bool = False


def write(job: Job) -> None:
    """Writes the spec and random weights in shards with an index."""
    build, dtype = MODELS[job.name]
    spec = converters.trace(*on_meta(build))
    (job.folder / "spec.json").write_text(spec.to_json())
    places: dict[str, str] = {}
    for number, shard in enumerate(_shards(spec, dtype)):
        file = f"model-{number:05}.safetensors"
        save_file(shard, job.folder / file)
        places |= dict.fromkeys(shard, file)
    index = job.folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))


def _shards(spec: gmn.GraphSpec, dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shard: dict[str, Tensor] = {}
    for entry in spec.entries:
        if entry.tied_to is None:
            shard[entry.name] = _random(entry, dtype, generator)
            if sum(tensor.nbytes for tensor in shard.values()) >= SHARD:
                yield shard
                shard = {}
    if shard:
        yield shard


def _random(entry: gmn.spec.StateEntry, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Weights of the size of a default initialisation; gains around one."""
    if not entry.floating:
        return torch.zeros(entry.shape, dtype=torch.long)
    values = torch.empty(entry.shape, dtype=dtype)
    if len(entry.shape) > 1:
        return values.normal_(std=1 / math.sqrt(entry.shape[-1]), generator=generator)
    return values.normal_(std=0.1, mean=float(entry.name.endswith("weight")), generator=generator)


def read(job: Job) -> str:
    """Opens the files, reads the network, and reads it again when it has moved."""
    torch.set_num_threads(job.threads)
    spec = gmn.GraphSpec.from_json((job.folder / "spec.json").read_text())
    torch.manual_seed(0)
    net = DualGMN(64, 4, InvariantHead(8))
    with Watch() as watch, torch.no_grad():
        graph, opening = timed(lambda: _open(spec, job.folder))
        answer, forward = timed(lambda: net(graph))
    peak = _status("VmHWM")
    with torch.no_grad():
        change = relative_error(net(_moved(graph)), answer)
    return _row(
        job.name, f"{spec.num_parameters:,}", f"{sum(e.size for e in spec.edge_sets):,}",
        f"{spec.num_nodes:,}", *_type_and_size(graph), f"{opening:.2f}", f"{forward:.2f}",
        f"{peak / MIB:,.0f}", f"{watch.grown / MIB:,.0f}", f"{change:.0e}",
    )  # fmt: skip


def train(job: Job) -> tuple[list[str], int, float]:
    """Cells about the model, bytes that a training step adds, and CPU seconds of a second one."""
    torch.set_num_threads(job.threads)
    spec = gmn.GraphSpec.from_json((job.folder / "spec.json").read_text())
    torch.manual_seed(0)
    net = DualGMN(64, 2, InvariantHead(1), recompute=job.recompute)
    graph = _open(spec, job.folder)
    with Watch() as watch:
        net(graph).sum().backward()
    start = time.process_time()
    net(graph).sum().backward()
    seconds = time.process_time() - start
    about = [f"{spec.num_parameters:,}", f"{spec.num_nodes:,}", *_type_and_size(graph)]
    return about, watch.grown, seconds


def trained(job: Job) -> str:
    """The row of a model."""
    about, *own = fresh(train, job)
    with mock.patch.dict(os.environ, THRESHOLD):
        _, *set_apart = fresh(train, job)
    memory, seconds = zip(own, set_apart, strict=True)
    return _row(
        job.name, *about, "yes" if job.recompute else "no",
        *(f"{grown / MIB:,.0f}" for grown in memory), *(f"{spent:.1f}" for spent in seconds),
    )  # fmt: skip


def _type_and_size(graph: gmn.ParameterGraph) -> tuple[str, str]:
    spec = graph.spec
    weights = sum(graph.values[e.name].nbytes for e in spec.entries if e.tied_to is None)
    return str(graph.dtype).removeprefix("torch."), f"{weights / MIB:,.0f}"


def _open(spec: gmn.GraphSpec, folder: Path) -> gmn.ParameterGraph:
    found = converters.load_checkpoint(folder)
    state = {entry.name: found[entry.tied_to or entry.name] for entry in spec.entries}
    return gmn.ParameterGraph.from_state_dicts(spec, [state])


def _moved(graph: gmn.ParameterGraph) -> gmn.ParameterGraph:
    exact = graph.dtype == torch.bfloat16
    generator = torch.Generator().manual_seed(0)
    return symmetry.sample(graph.spec, generator, scalings=not exact).act_on_graph(graph)


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """The function's result and its seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


class Watch:
    """How far the process's own memory grows within a ``with`` block, read every 5 ms."""

    def __enter__(self) -> Watch:
        self._before = self._most = _status("RssAnon")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self._most = max(self._most, _status("RssAnon"))

    @property
    def grown(self) -> int:
        """Bytes."""
        return self._most - self._before


def _status(name: str) -> int:
    """A figure of /proc, in bytes. The peak there is this process's own, unlike getrusage's."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def fresh(function: Callable[[Job], T], job: Job) -> T:
    """Runs a function in a process of its own."""
    with get_context("spawn").Pool(1, quiet) as pool:
        return pool.apply(function, (job,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(MODELS):
        parser.error(f"no models are called {sorted(unknown)}; there are {', '.join(MODELS)}")
    columns = TRAINED if arguments.train else COLUMNS
    print(_row(*columns), _row(*["---"] * len(columns)), sep="\n", flush=True)
    for name in arguments.names or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(name, Path(folder), arguments.threads)
            fresh(write, job)
            if not arguments.train:
                print(fresh(read, job), flush=True)
                continue
            for recompute in (True, False):
                print(trained(replace(job, recompute=recompute)), flush=True)


if __name__ == "__main__":
    main()
