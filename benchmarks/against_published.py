"""Steps of NFN-HNP and NFN-NP as published beside ours and DualGMN, in turn, in one process.

The published layers are those of the package ``nfn`` (Zhou et al. 2023, MIT licence), used as its
documentation says: three layers of (16, 16, 5) channels, pooling, and a head of two hidden layers
of 1,000, on batches of 32 of the networks of benchmarks/steps.py. All models take one step each,
forward and backward, round by round; printed are medians in CPU time and in wall time, how far the
middle half of the rounds spreads, and ratios to the published NFN-HNP: medians of the rounds'
ratios. Refuses to measure while other processes keep the cores busy.

Run: pip install --no-deps nfn==0.1.2 einops && python -m benchmarks.against_published
     [--threads 1] [--rounds 15] [--busy] [--out against_published.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import gmn
from benchmarks.steps import BATCH, NETWORKS, Place, graph_of, kept, model_of

OURS = ("nfn-hnp", "nfn-np", "dual-gmn-weights", "dual-gmn", "gmn")
BASE = "published nfn-hnp"
CHANNELS = (1, 16, 16, 5)
IDLE = 0.3  # load of other processes, in cores


def published(variant: str, graph: gmn.ParameterGraph) -> tuple[nn.Module, object]:
    """The published model of a variant, and its input."""
    from nfn import common, layers  # type: ignore[import-not-found]

    values = {name: value.unsqueeze(1) for name, value in graph.values.items()}
    weights, biases = (
        tuple(v for name, v in values.items() if name.endswith(end)) for end in ("weight", "bias")
    )
    features = common.WeightSpaceFeatures(weights, biases)
    spec = common.network_spec_from_wsfeat(features, set_all_dims=True)
    linear, pool = {"hnp": layers.HNPLinear, "np": layers.NPLinear}[variant], layers.HNPPool
    parts: list[nn.Module] = []
    for before, after in pairwise(CHANNELS):
        options = {"io_embed": True} if variant == "np" else {}
        parts += [linear(spec, before, after, **options), layers.TupleOp(nn.ReLU())]
    pooled = CHANNELS[-1] * pool.get_num_outs(spec)
    head = nn.Sequential(
        nn.Linear(pooled, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 1)
    )
    return nn.Sequential(*parts, pool(spec), nn.Flatten(start_dim=1), head), features


def step(model: nn.Module, inputs: object) -> tuple[float, float]:
    """CPU and wall milliseconds of one forward and backward pass."""
    model.zero_grad()
    wall, cpu = time.perf_counter(), time.process_time()
    answer: Tensor = model(inputs)
    answer.sum().backward()
    return (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def contestants(network: str, place: Place) -> dict[str, tuple[nn.Module, object]]:
    """Models with their inputs, the published ones first."""
    graph = graph_of(network, place)
    torch.manual_seed(0)
    found = {f"published nfn-{variant}": published(variant, graph) for variant in ("hnp", "np")}
    ours = {name: model_of(name, graph) for name in OURS}
    return found | {name: (model, graph) for name, model in ours.items() if model is not None}


def measure(network: str, place: Place, rounds: int) -> dict[str, dict[str, float]]:
    """Medians by model, after two rounds that are not counted."""
    models = contestants(network, place)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(rounds + 2):
        for name, (model, inputs) in models.items():
            times[name].append(step(model, inputs))
    counted = {name: values[2:] for name, values in times.items()}
    return {
        name: {
            "cpu_ms": statistics.median(cpu for cpu, _ in values),
            "wall_ms": statistics.median(wall for _, wall in values),
            "spread": _spread([cpu for cpu, _ in values]),
            "cpu_ratio": _ratio(values, counted[BASE], 0),
            "wall_ratio": _ratio(values, counted[BASE], 1),
            "kept_mib": kept(*models[name]),  # type: ignore[arg-type]
            "parameters": sum(p.numel() for p in models[name][0].parameters()),
        }
        for name, values in counted.items()
    }


def _ratio(
    own: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]], i: int
) -> float:
    return statistics.median(a[i] / b[i] for a, b in zip(own, base, strict=True))


def _spread(values: Sequence[float]) -> float:
    """Distance of the quartiles, as a share of the median."""
    first, middle, last = statistics.quantiles(values, n=4)
    return (last - first) / middle


def load_of_others(seconds: float = 2.0) -> float:
    """Cores that other processes keep busy, by the system's counters; 0 where there are none."""
    if not Path("/proc/stat").exists():
        return 0.0
    before = _ticks()
    time.sleep(seconds)
    passed = [after - was for was, after in zip(before, _ticks(), strict=True)]
    idle = passed[3] + passed[4]
    return (1 - idle / max(sum(passed), 1)) * (os.cpu_count() or 1)


def refuse_if_busy(busy: bool) -> float:
    """The load of others; ends the process if there is any, unless ``busy``."""
    load = load_of_others()
    if load > IDLE and not busy:
        raise SystemExit(
            f"other processes keep {load:.1f} cores busy, so times would mean little; wait, or "
            "measure all the same with --busy (ratios of CPU time stand it best)"
        )
    return load


def _ticks() -> list[int]:
    """Time of all cores by kind: user, nice, system, idle, waiting for disks, ..."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    return [int(number) for number in line.split()[1:9]]


def table(network: str, rows: dict[str, dict[str, float]]) -> list[str]:
    """Lines of the table in Markdown."""
    columns = "parameters | CPU ms | spread | wall ms | CPU ratio | wall ratio | MiB kept"
    return [
        f"| {network} | {columns} |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {row['parameters']:,} | {row['cpu_ms']:.1f} | {row['spread']:.0%} "
            f"| {row['wall_ms']:.1f} | {row['cpu_ratio']:.2f} | {row['wall_ratio']:.2f} "
            f"| {row['kept_mib']:.1f} |"
            for name, row in rows.items()
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine, too")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load = refuse_if_busy(arguments.busy)
    place = Place("cpu", arguments.threads)
    report: dict[str, object] = {
        "torch": torch.__version__,
        "threads": arguments.threads,
        "batch": BATCH,
        "rounds": arguments.rounds,
        "load_of_others": round(load, 2),
        "load_average": os.getloadavg()[0],
    }
    for network in NETWORKS:
        rows = measure(network, place, arguments.rounds)
        report[network] = rows
        print("\n" + "\n".join(table(network, rows)), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
