"""What metanetworks learn from two populations, at equal epochs, and carry over to other widths.

`cnn`    accuracy of CNNs from their weights (Kendall τ, R²); the population of the demonstration.
`inr`    classes of MNIST digits from SIRENs that hold them.
`dilation` edits of these SIRENs that dilate the digit, four each.
`width`  R² of models trained on `cnn`, on test networks made 2, 4 and 8 times wider without a
         change of function.
`scaled` Kendall τ of models trained on `cnn`, on test networks whose hidden channels are rescaled
         by up to 10, 100, 1,000 and 10,000 without a change of function.

Populations: gmn zoo build cnn-mnist --size 1200 --out runs/cnn-mnist
             gmn zoo build inr-mnist --size 5000 --out runs/inr-mnist

Run: python -m benchmarks.learning cnn [--models dual-gmn,gmn,...] [--seeds 3] [--epochs 25]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from scipy import stats
from tqdm.auto import tqdm

import converters
import gmn
from baselines import ProbeNet
from gmn import comparison, registry, tasks
from gmn.augment import MovedCoordinates, Rescaled
from gmn.comparison.report import NAMES
from gmn.nn import DualGMN, EditHead, InvariantHead, Probes, ScaleGMN
from gmn.spec import GraphSpec
from gmn.tasks import Batch
from gmn.train import Recipe, predict, train
from gmn.zoo.architectures.networks import network
from gmn.zoo.architectures.widen import widen
from gmn.zoo.images import pixel_grid

SIDE = 14  # pixels of the populations' images
MODELS = {
    "cnn": "dual-gmn,dual-gmn-weights,probe-net,gmn,nfn-hnp,nfn-np,flat-mlp,layer-statistics",
    "dilation": "dual-gmn,gmn,scale-gmn-64,nfn-hnp,nfn-np,magep-nfn,unf,flat-mlp",
    "inr": "dual-gmn-grid,probe-net-grid,probe-net,dual-gmn-weights,layer-statistics,flat-mlp",
    "width": "dual-gmn,dual-gmn-weights,gmn",
    "scaled": "dual-gmn,dual-gmn-weights,probe-net,gmn,nfn-np,nfn-hnp,unf,monomial-nfn,magep-nfn,"
    "layer-statistics,flat-mlp",
}
# Beside installed models, names may be dual-gmn-grid, probe-net-grid (probes that start at the
# pixels), dual-gmn-K, probe-net-K (K probes; K is 2, 4, 8 or 16), dual-gmn-rounds, and scale-gmn-64
# (half as wide as published, as wide as the others; a quarter of the time).


def dual_on_grid(spec: GraphSpec, outputs: int) -> DualGMN:
    """DualGMN whose probes start at the pixels of the images."""
    return DualGMN(64, 2, InvariantHead(outputs), Probes(pixel_grid(SIDE, SIDE).unsqueeze(1)))


def probing_on_grid(spec: GraphSpec, outputs: int) -> ProbeNet:
    """Plain probing with probes that start at the pixels of the images."""
    return ProbeNet(Probes(pixel_grid(SIDE, SIDE).unsqueeze(1)), 1, outputs)


def dual_with(probes: int, spec: GraphSpec, outputs: int) -> DualGMN:
    """The preset with another number of probes."""
    return DualGMN(64, 2, InvariantHead(outputs), Probes.like(spec, probes))


def probing_with(probes: int, spec: GraphSpec, outputs: int) -> ProbeNet:
    """The preset with another number of probes."""
    answers = sum(nodes.size for nodes in spec.node_sets if nodes.role == "output")
    return ProbeNet(Probes.like(spec, probes), answers, outputs)


def dual_in_rounds(spec: GraphSpec, outputs: int) -> DualGMN:
    """The preset without probes, with synchronous rounds instead of sweeps."""
    return DualGMN(64, 4, InvariantHead(outputs), sweeps=False)


def scale_gmn_64(spec: GraphSpec, outputs: int | EditHead) -> ScaleGMN:
    """The preset, half as wide; layers are kept, which takes four fifths of the time."""
    head = outputs if isinstance(outputs, EditHead) else InvariantHead(outputs)
    return ScaleGMN(64, 4, head, recompute=False)


OWN: dict[str, registry.Factory] = {
    "dual-gmn-grid": dual_on_grid,
    "probe-net-grid": probing_on_grid,
    "dual-gmn-rounds": dual_in_rounds,
    "scale-gmn-64": scale_gmn_64,
    **{f"dual-gmn-{k}": partial(dual_with, k) for k in (2, 4, 8, 16)},
    **{f"probe-net-{k}": partial(probing_with, k) for k in (2, 4, 8, 16)},
}


def factories(names: str) -> dict[str, registry.Factory]:
    """Models by name: installed ones, and those of this benchmark."""
    return {name: OWN.get(name) or registry.find(name) for name in names.split(",")}


def learn(options: argparse.Namespace) -> None:
    """Trains all models on one population and prints the table."""
    folder, augment = options.runs / f"learning-{options.what}", None
    if options.what == "dilation":
        task = partial(tasks.task_of, options.runs / "inr-mnist", "inr-dilation", {"copies": 4})
    else:
        task = partial(tasks.task_of, options.runs / f"{options.what}-mnist")
    if options.what == "inr":
        augment = MovedCoordinates()
    recipe = Recipe(epochs=options.epochs, augment=augment)
    models, seeds, workers = factories(options.models), options.seeds, options.workers
    found = gmn.compare(task, models, seeds=seeds, recipe=recipe, workers=workers, folder=folder)
    print(found)
    comparison.save(found, folder)


@dataclass(frozen=True)
class Trial:
    """One model, to be trained with one seed on the CNNs and tested on changed ones."""

    model: str
    seed: int
    epochs: int
    runs: Path
    change: Callable[[Batch, int], Batch]
    degrees: tuple[int, ...]
    metric: str


def tested(trial: Trial) -> list[float]:
    """The metric on the test networks, at every degree of the change."""
    torch.set_num_threads(1)
    torch.manual_seed(trial.seed)
    task = tasks.AccuracyPrediction.open(trial.runs / "cnn-mnist")
    factory = factories(trial.model)[trial.model]
    model = factory(task.split("train")[0].graph.spec, task.outputs)
    train(model, task, Recipe(epochs=trial.epochs), trial.seed)
    found = []
    for degree in trial.degrees:
        parts = [trial.change(part, degree) for part in task.split("test")]
        if isinstance(model, torch.nn.Module):
            answers, target = predict(model, task, parts)
        else:
            answers = model.predict([part.graph for part in parts])
            target = torch.cat([part.target for part in parts])
        found.append(task.metrics(answers, target)[trial.metric])
    return found


def robustness(
    options: argparse.Namespace,
    change: Callable[[Batch, int], Batch],
    degrees: tuple[int, ...],
    metric: str,
) -> None:
    """Trains on the population, tests on changed networks; prints means and draws a picture."""
    names = options.models.split(",")
    trials = [
        Trial(name, seed, options.epochs, options.runs, change, degrees, metric)
        for name in names
        for seed in range(options.seeds)
    ]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as processes:
        found = list(tqdm(processes.map(tested, trials), total=len(trials), unit="run"))
    runs = torch.tensor(found).view(len(names), options.seeds, len(degrees))
    print("| model | " + " | ".join(f"{degree:,}" for degree in degrees) + " |")
    print("|---|" + "---|" * len(degrees))
    for name, own in zip(names, runs, strict=True):
        print(f"| {name} | " + " | ".join(with_interval(values) for values in own.T) + " |")
    means = dict(zip(names, runs.mean(dim=1).tolist(), strict=True))
    (options.runs / f"{options.what}.json").write_text(json.dumps(means))
    figure = drawn(means, degrees, LABELS[options.what], NAMES[metric])
    figure.savefig(options.runs / f"{options.what}.png", dpi=150)


def drawn(
    means: dict[str, list[float]], degrees: tuple[int, ...], change: str, metric: str
) -> Figure:
    """The metric of each model over the change, the most robust model first."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    styles = product(("-", "--", ":"), plt.rcParams["axes.prop_cycle"].by_key()["color"])
    for name in sorted(means, key=lambda name: -means[name][-1]):
        style, colour = next(styles)
        places = [f"{degree:,}" for degree in degrees]
        axes.plot(places, means[name], style, color=colour, marker="o", label=name)
    axes.set(xlabel=change, ylabel=f"{metric}, test networks")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def with_interval(values: torch.Tensor) -> str:
    """Mean over seeds and half-width of its 95 % confidence interval."""
    if len(values) < 2:
        return f"{values.item():.3f}"
    width = stats.t.ppf(0.975, len(values) - 1) * values.std().item() / len(values) ** 0.5
    return f"{values.mean().item():.3f} ± {width:.3f}"


def widened(part: Batch, factor: int) -> Batch:
    """The same functions, computed by wider networks."""
    name = "cnn-tanh" if "tanh" in str(part.graph.spec) else "cnn-relu"
    example = (torch.zeros(1, 1, SIDE, SIDE),)
    wide = converters.trace(network(name, widening=factor), example)
    return Batch(widen(part.graph, wide, torch.Generator().manual_seed(factor)), part.target)


def rescaled(part: Batch, reach: int) -> Batch:
    """The same functions with every hidden channel rescaled."""
    return Batch(Rescaled(reach)(part.graph, torch.Generator().manual_seed(reach)), part.target)


LABELS = {
    "width": "width, as a multiple of that in training",
    "scaled": "scales of hidden channels, up to",
}
CHANGES: dict[str, tuple[Callable[[Batch, int], Batch], tuple[int, ...], str]] = {
    "width": (widened, (1, 2, 4, 8), "r2"),
    "scaled": (rescaled, (1, 10, 100, 1000, 10000), "tau"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=list(MODELS))
    parser.add_argument("--models", help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the populations lie")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    options = parser.parse_args()
    options.models = options.models or MODELS[options.what]
    if options.what in CHANGES:
        robustness(options, *CHANGES[options.what])
    else:
        learn(options)


if __name__ == "__main__":
    main()
