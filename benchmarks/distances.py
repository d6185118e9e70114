"""Which distance between networks tells how different their functions are.

For samples of networks of a population, all pairs: Spearman's rank correlation of each distance
with the distance of functions, the root mean square difference of outputs on real inputs (test
images; the pixels of implicit representations). For classifiers `logits` and `probabilities`.

Rows: coordinates of neurons by kind of transport, weights as they stand and after alignment.
`io` are weights, `probe` the values of hidden neurons and outputs on 64 random inputs, `hidden`
those of hidden neurons alone, `embedding` states of a DualGMN that was never trained, `trained`
states of one that learned the population's task. SW_1 is TSW-SL with uniform splitting.

Run: python -m benchmarks.distances runs/cnn-mnist runs/inr-mnist runs/transformer-mnist
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm.auto import tqdm

from gmn import ParameterGraph, registry, transport, zoo
from gmn.nn import Probes
from gmn.tasks import task_of
from gmn.tasks.matching import matched
from gmn.train import Recipe, train
from gmn.transport.clouds import CoordinateFrame
from gmn.transport.neurons import FIXED, Clouds
from gmn.transport.trees import tree_sliced_pairs
from gmn.zoo import images
from gmn.zoo.images import pixel_grid

IMAGES = 128
PROBES = 64
TREES, LINES = 25, 4
PAIRS = 2048  # at once
Power = Callable[[Tensor], Tensor]  # pairs (P, 2) of networks to d^p (P,)


def kinds(cloud: Tensor) -> dict[str, tuple[int, Power]]:
    """By name, the order p of a distance, and its p-th power, for the clouds (B, n, d) of a layer.

    All pairs share lines and frame.
    """
    dimension = cloud.shape[-1]

    def systems(kind: str = "concurrent", orthogonal: bool = False) -> transport.Systems:
        chance = torch.Generator().manual_seed(0)
        return transport.Systems.sample(
            dimension, TREES, LINES, kind, orthogonal=orthogonal, generator=chance
        )

    frame = CoordinateFrame.of(cloud.flatten(0, 1))
    lines = systems().directions.flatten(0, 1)
    orthogonal = systems(orthogonal=dimension >= LINES)

    def pairwise(power: Callable[[Tensor, Tensor], Tensor]) -> Power:
        return lambda pairs: torch.cat(
            [power(cloud[i], cloud[j]) for i, j in (part.T for part in pairs.split(PAIRS))]
        )

    def tree(lines: transport.Systems, p: int = 1) -> Power:
        return lambda pairs: tree_sliced_pairs(cloud, cloud, pairs, lines, frame, p=p)

    sliced = partial(transport.sliced_wasserstein, directions=lines, root=False)
    return {
        "SW_1 = TSW-SL": (1, pairwise(partial(sliced, p=1))),
        "SW_2": (2, pairwise(sliced)),
        "Db-TSW": (1, tree(systems())),
        "Db-TSW, orthogonal": (1, tree(orthogonal)),
        "TSW-SL chains, by distance": (1, tree(systems("chain"))),
        "Sobolev, p = 2": (2, tree(systems(), p=2)),
        # Per coordinate, as slices are.
        "assignment": (
            2,
            pairwise(lambda x, y: transport.assigned_wasserstein(x, y, root=False) / dimension),
        ),
        "as numbered": (2, pairwise(lambda x, y: (x - y).square().mean((1, 2)))),
    }


def between(clouds: Clouds, pairs: Tensor) -> Iterator[tuple[str, Tensor]]:
    """By kind, the distances of pairs of networks: ``(mean over layers of d^p)^(1/p)``."""
    layers = {name: kinds(cloud) for name, cloud in clouds.items()}
    for kind, (order, _) in next(iter(layers.values())).items():
        powers = [own[kind][1](pairs) for own in layers.values()]
        yield kind, torch.stack(powers).mean(0) ** (1 / order)


def flat(graph: ParameterGraph) -> Tensor:
    """All parameters, shape (B, P)."""
    entries = [e for e in graph.spec.entries if e.floating and e.tied_to is None]
    return torch.cat([graph.values[entry.name].flatten(1) for entry in entries], dim=1)


def aligned(graph: ParameterGraph, pairs: Tensor) -> Tensor:
    """Distances of weights after the units of each pair's first network were put in order."""
    found = []
    for i, j in (part.T for part in pairs.split(PAIRS)):
        own, other = graph[i], graph[j]
        found.append((flat(matched(own, other)) - flat(other)).norm(dim=1))
    return torch.cat(found)


def functions(population: zoo.Zoo, graph: ParameterGraph) -> dict[str, Tensor]:
    """By name, what networks compute, shape (B, numbers)."""
    program = graph.spec.program
    data = images.load(str(population.manifest["configuration"]["images"]))
    side = data.test_images.shape[-1]
    if program.inputs[0].shape[1:] == (2,):
        inputs = pixel_grid(side, side).unsqueeze(1)
        return {"outputs": program.observe(graph.values, [inputs], program.outputs)[0].flatten(1)}
    inputs = data.test_images[:: len(data.test_images) // IMAGES][:IMAGES].unsqueeze(1)
    logits = program.observe(graph.values, [inputs], program.outputs)[0].view(
        len(graph), len(inputs), -1
    )
    return {"logits": logits.flatten(1), "probabilities": logits.softmax(-1).flatten(1)}


def trained(folder: Path, epochs: int) -> Callable[[ParameterGraph], Tensor]:
    """States of a DualGMN that has learned the population's task from its training split."""
    task = task_of(folder)
    torch.manual_seed(0)
    model = task.build(registry.find("dual-gmn"), task.split("train")[0].graph.spec)
    result = train(model, task, Recipe(epochs=epochs))
    print(f"{folder.name}: a DualGMN with {result.metrics}")
    return lambda graph: model.eval().embed(graph)


def views(
    graph: ParameterGraph, learned: Callable[[ParameterGraph], Tensor]
) -> Iterator[tuple[str, Clouds]]:
    """Clouds by coordinates."""
    spec = graph.spec
    yield "io", transport.weight_clouds(graph)
    torch.manual_seed(0)
    with torch.no_grad():
        probed = transport.probe_clouds(graph, Probes.like(spec, PROBES).inputs())
    yield "probe", probed
    yield "hidden", {name: cloud for name, cloud in probed.items() if name != FIXED}
    fresh = registry.find("dual-gmn")(spec, 1).eval()
    yield "embedding", transport.embedding_clouds(graph, fresh.embed)
    yield "trained", transport.embedding_clouds(graph, learned)


def correlations(
    population: zoo.Zoo, chosen: Tensor, learned: Callable[[ParameterGraph], Tensor]
) -> dict[str, dict[str, float]]:
    """By name of a distance, its correlation with each distance of functions."""
    graph = population.graph(chosen)
    pairs = torch.combinations(torch.arange(len(graph)))
    i, j = pairs.T
    wanted = {n: (f[i] - f[j]).norm(dim=1) for n, f in functions(population, graph).items()}

    def scores(distances: Tensor) -> dict[str, float]:
        return {n: float(spearmanr(distances, truth).statistic) for n, truth in wanted.items()}

    found = {"weights": scores((flat(graph)[i] - flat(graph)[j]).norm(dim=1))}
    found["weights, aligned"] = scores(aligned(graph, pairs))
    for coords, clouds in views(graph, learned):
        for kind, distances in between(clouds, pairs):
            found[f"{coords}: {kind}"] = scores(distances)
    return found


def table(results: dict[str, list[dict[str, dict[str, float]]]]) -> str:
    """Markdown: means over samples, with half the range between them."""
    first = {name: samples[0] for name, samples in results.items()}
    columns = [(name, f) for name, one in first.items() for f in next(iter(one.values()))]
    lines = ["| distance | " + " | ".join(f"{name}, {f}" for name, f in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for row in next(iter(first.values())):
        cells = []
        for name, function in columns:
            values = [sample[row][function] for sample in results[name]]
            spread = (max(values) - min(values)) / 2
            cells.append(f"{statistics.fmean(values):.3f} ± {spread:.3f}")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("populations", nargs="+", type=Path)
    parser.add_argument("--networks", type=int, default=100, help="of each sample")
    parser.add_argument("--samples", type=int, default=3, help="disjoint ones")
    parser.add_argument("--epochs", type=int, default=5, help="of the DualGMN that gives states")
    parser.add_argument("--out", type=Path, default=Path("runs/distances.json"))
    options = parser.parse_args()
    results = {}
    for folder in options.populations:
        population = zoo.open(folder)
        learned = trained(folder, options.epochs)
        every = population.indices(architecture=population.architectures[0])
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))
        parts = every[order].split(options.networks)[: options.samples]
        with torch.no_grad():
            results[folder.name] = [
                correlations(population, part, learned) for part in tqdm(parts, desc=folder.name)
            ]
        options.out.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
