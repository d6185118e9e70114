"""What metanetworks learn from two populations, at equal epochs, and carry over to other widths.

`cnn`    accuracy of CNNs from their weights (Kendall τ, R²); the population of the demonstration.
`inr`    classes of MNIST digits from SIRENs that hold them.
`width`  R² of models trained on `cnn`, on test networks made 2, 4 and 8 times wider without a
         change of function.

Populations: gmn zoo build cnn-mnist --size 1200 --out runs/cnn-mnist
             gmn zoo build inr-mnist --size 5000 --out runs/inr-mnist

Run: python -m benchmarks.learning cnn [--models dual-gmn,gmn,...] [--seeds 3] [--epochs 25]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch

import converters
import gmn
from baselines import ProbeNet
from gmn import comparison, registry, tasks
from gmn.augment import MovedCoordinates
from gmn.nn import DualGMN, InvariantHead, Probes
from gmn.tasks.batches import Batch
from gmn.train import Recipe, predict, train
from gmn.zoo.fitting import pixel_grid
from gmn.zoo.networks import network
from gmn.zoo.widen import widen

SIDE = 14  # pixels of the populations' images
WIDENINGS = (1, 2, 4, 8)
MODELS = {
    "cnn": "dual-gmn,dual-gmn-weights,probe-net,gmn,nfn-hnp,nfn-np,flat-mlp,layer-statistics",
    "inr": "dual-gmn-grid,probe-net-grid,probe-net,dual-gmn-weights,layer-statistics,flat-mlp",
    "width": "dual-gmn,dual-gmn-weights,gmn",
}
# Beside installed models, names may be dual-gmn-grid, probe-net-grid (probes that start at the
# pixels), dual-gmn-K, probe-net-K (K probes; K is 2, 4, 8 or 16), and dual-gmn-rounds.


def dual_on_grid(spec: gmn.GraphSpec, outputs: int) -> DualGMN:
    """DualGMN whose probes start at the pixels of the images."""
    return DualGMN(64, 2, InvariantHead(outputs), Probes(pixel_grid(SIDE, SIDE).unsqueeze(1)))


def probing_on_grid(spec: gmn.GraphSpec, outputs: int) -> ProbeNet:
    """Plain probing with probes that start at the pixels of the images."""
    return ProbeNet(Probes(pixel_grid(SIDE, SIDE).unsqueeze(1)), 1, outputs)


def dual_with(probes: int, spec: gmn.GraphSpec, outputs: int) -> DualGMN:
    """The preset with another number of probes."""
    return DualGMN(64, 2, InvariantHead(outputs), Probes.like(spec, probes))


def probing_with(probes: int, spec: gmn.GraphSpec, outputs: int) -> ProbeNet:
    """The preset with another number of probes."""
    answers = sum(nodes.size for nodes in spec.node_sets if nodes.role == "output")
    return ProbeNet(Probes.like(spec, probes), answers, outputs)


def dual_in_rounds(spec: gmn.GraphSpec, outputs: int) -> DualGMN:
    """The preset without probes, with synchronous rounds instead of sweeps."""
    return DualGMN(64, 4, InvariantHead(outputs), sweeps=False)


OWN: dict[str, registry.Factory] = {
    "dual-gmn-grid": dual_on_grid,
    "probe-net-grid": probing_on_grid,
    "dual-gmn-rounds": dual_in_rounds,
    **{f"dual-gmn-{k}": partial(dual_with, k) for k in (2, 4, 8, 16)},
    **{f"probe-net-{k}": partial(probing_with, k) for k in (2, 4, 8, 16)},
}


def factories(names: str) -> dict[str, registry.Factory]:
    """Models by name: installed ones, and those of this benchmark."""
    return {name: OWN.get(name) or registry.find(name) for name in names.split(",")}


def learn(options: argparse.Namespace) -> None:
    """Trains all models on one population and prints the table."""
    task = partial(tasks.task_of, options.runs / f"{options.what}-mnist")
    augment = MovedCoordinates() if options.what == "inr" else None
    recipe = Recipe(epochs=options.epochs, augment=augment)
    found = gmn.compare(task, factories(options.models), seeds=options.seeds, recipe=recipe)
    print(found)
    comparison.save(found, options.runs / f"learning-{options.what}")


def transfer(options: argparse.Namespace) -> None:
    """Prints R² of each model on the test split, at every width, averaged over seeds."""
    torch.set_num_threads(1)
    task = tasks.AccuracyPrediction.open(options.runs / "cnn-mnist")
    wider = {
        factor: [_widened(part, factor) for part in task.split("test")] for factor in WIDENINGS
    }
    print("| model | " + " | ".join(f"{factor}×" for factor in WIDENINGS) + " |")
    for name, factory in factories(options.models).items():
        found: dict[int, list[float]] = {factor: [] for factor in WIDENINGS}
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = factory(task.split("train")[0].graph.spec, task.outputs)
            assert isinstance(model, torch.nn.Module)
            train(model, task, Recipe(epochs=options.epochs), seed)
            for factor, parts in wider.items():
                answers, target = predict(model, task, parts)
                found[factor].append(task.metrics(answers, target)["r2"])
        means = (statistics.fmean(values) for values in found.values())
        print(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |", flush=True)


def _widened(part: Batch, factor: int) -> Batch:
    """The same functions, computed by wider networks."""
    name = "cnn-tanh" if "tanh" in str(part.graph.spec) else "cnn-relu"
    example = (torch.zeros(1, 1, SIDE, SIDE),)
    wide = converters.trace(network(name, widening=factor), example)
    return Batch(widen(part.graph, wide, torch.Generator().manual_seed(factor)), part.target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(MODELS))
    parser.add_argument("--models", help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the populations lie")
    options = parser.parse_args()
    options.models = options.models or MODELS[options.what]
    (transfer if options.what == "width" else learn)(options)


if __name__ == "__main__":
    main()
