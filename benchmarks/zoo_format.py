"""How fast zoos are written, opened, read and streamed, on synthetic weights.

``python -m benchmarks.zoo_format`` writes 100,000 networks of 5,170 parameters (2 GB) to a
temporary folder, measures, and deletes them. One thread, float32. Rates are per second of processor
time (``_cpu``), which other programs on the machine do not change, and by the clock (``_wall``).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import DataLoader

import converters
from gmn import zoo

Rates = dict[str, int]

PER_SHARD = 1000
BATCH = 256


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(14, 64), nn.ReLU(), nn.Linear(64, 56), nn.ReLU(), nn.Linear(56, 10)
    )


def write(folder: Path, shards: int) -> Rates:
    """Networks written per second."""
    module = network()
    spec = converters.trace(module, (torch.zeros(1, 14),))
    rng = np.random.default_rng(0)
    spent = Clock()
    with zoo.ZooWriter(folder, "synthetic", shards * PER_SHARD, 0, {}) as writer:
        for number in range(shards):
            torch.manual_seed(number)
            states = {k: torch.randn(PER_SHARD, *v.shape) for k, v in module.state_dict().items()}
            values = rng.random((PER_SHARD, 4))
            rows = [
                {
                    "id": f"{number * PER_SHARD + i:08d}",
                    "split": ("train", "train", "train", "val", "test")[i % 5],
                    "test_accuracy": float(values[i, 0]),
                    "train_accuracy": float(values[i, 1]),
                    "learning_rate": float(values[i, 2]),
                    "weight_decay": float(values[i, 3]),
                    "steps": i,
                    "seed": number * PER_SHARD + i,
                }
                for i in range(PER_SHARD)
            ]
            with spent:
                writer.write_shard(number, "mlp", spec, states, rows)
        with spent:
            writer.finish(shards, {"remark": "random weights"})
    return spent.rates(shards * PER_SHARD)


class Clock:
    """Sums the seconds spent inside ``with`` blocks, by the processor and by the wall."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    def __enter__(self) -> None:
        self.cpu -= time.process_time()
        self.wall -= time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time()
        self.wall += time.perf_counter()

    def rates(self, count: int) -> Rates:
        return {"cpu": round(count / self.cpu), "wall": round(count / self.wall)}


def best(function: Callable[[], object], times: int = 5) -> float:
    """Processor seconds of the fastest of several calls."""
    found = []
    for _ in range(times):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def warm_shard(population: zoo.Zoo, batch: int) -> float:
    """Networks per second, gathered in random order from one shard that was read before."""
    population.graph(range(PER_SHARD))
    orders = [torch.randperm(PER_SHARD)[:batch] for _ in range(max(1, 10_000 // batch))]
    seconds = best(lambda: [population.graph(order) for order in orders])
    return len(orders) * batch / seconds


def from_files(population: zoo.Zoo, batch: int) -> Rates:
    """Networks per second in random minibatches of all, as training reads what memory cannot hold.

    Every shard was read before: the first pass of a process also compares their checksums.
    """
    graph, clock = population.stored(range(len(population))), Clock()
    orders = torch.randperm(len(population)).split(batch)[: max(1, 10_000 // batch)]
    population.graph(range(0, len(population), PER_SHARD))
    with clock:
        for order in orders:
            assert len(graph[order]) == batch
    return clock.rates(len(orders) * batch)


def stream(folder: Path, workers: int, passes: int, answer: multiprocessing.Queue) -> None:
    """In a process of its own: networks per second of each pass, peak memory, quality of mixing."""
    torch.set_num_threads(1)
    population = zoo.open(folder)
    size = BATCH if workers == 0 else 4 * BATCH
    source = population.loader(batch_size=size, target=None, open_shards=8)
    before = _peak()
    batches = DataLoader(source, batch_size=None, num_workers=workers) if workers else source
    rates, seen, kinds = [], [], []
    shards = population.index["shard"].to_numpy()
    for _ in range(passes):
        clock, seen = Clock(), []
        with clock:
            for _graph, indices in batches:
                seen.append(indices.clone())
        rates.append(clock.rates(sum(len(indices) for indices in seen)))
    order = torch.cat(seen)
    assert len(order.unique()) == len(order) == len(population)
    kinds = [len(np.unique(shards[indices.numpy()])) for indices in seen]
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    answer.put(
        {
            "networks_per_second": rates,
            "peak_mb": _peak(),
            "peak_mb_before_the_first_batch": before,
            "peak_mb_of_a_worker": round(children / 1024) if workers else None,
            "position_correlation": float(spearmanr(order, np.arange(len(order))).statistic),
            "shards_per_batch": float(np.mean(kinds)),
        }
    )


def _peak() -> int:
    """Largest resident memory of this process so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)


def streamed(folder: Path, workers: int) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=stream, args=(folder, workers, 1 if workers else 2, answer))
    process.start()
    found: dict[str, object] = answer.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="Where the temporary zoo is written.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shards = max(1, arguments.networks // PER_SHARD)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name) / "zoo"
        facts: dict[str, object] = {"networks": shards * PER_SHARD}
        facts["written_per_second"] = write(folder, shards)
        facts["open_seconds"] = round(best(lambda: zoo.open(folder)), 3)
        population = zoo.open(folder)
        facts["labels_seconds"] = round(best(lambda: population.labels("test_accuracy")), 4)
        size = population.manifest["shards"][0]["bytes"]
        facts["bytes_per_network_in_shards"] = size / PER_SHARD
        facts["bytes_per_weight_bytes"] = size / PER_SHARD / (4 * 5170)
        facts["bytes_per_index_row"] = population.manifest["index"]["bytes"] / len(population)
        facts["bytes_of_manifest_per_shard"] = (folder / "zoo.json").stat().st_size / shards
        for batch in (32, 256, 1000):
            facts[f"warm_shard_per_second_batches_of_{batch}"] = round(
                warm_shard(population, batch)
            )
        for batch in (32, 256):
            facts[f"from_files_per_second_batches_of_{batch}"] = from_files(population, batch)
        clock = Clock()
        with clock:
            assert zoo.verify(folder, progress=False).ok
        facts["verified_per_second"] = clock.rates(len(population))
        for workers in (0, 2):
            facts[f"stream_{workers}_workers"] = streamed(folder, workers)
            print(json.dumps(facts, indent=1), flush=True)
    print(json.dumps({**facts, "cores": os.cpu_count()}, indent=1))


if __name__ == "__main__":
    main()
