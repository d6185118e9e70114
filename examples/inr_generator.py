"""A small generator of networks: from noise to the weights of SIRENs that hold digits.

SIRENs of one hidden layer are fitted to images; the neurons of each come in an order of their own.
A sliced Wasserstein autoencoder (Kolouri et al., arXiv 1804.01947) learns them: an encoder that
reads each network as a set, a decoder that writes weights, and a sliced Wasserstein distance that
makes the codes of a batch look like noise; afterwards the decoder makes networks from noise. What
differs is how a decoded network is compared with the one that was encoded:

  stored   squared differences of the weights as they stand;
  matched  the same, after the neurons of all networks were matched to those of one of them;
  sliced   NeuronSetLoss: the sliced distance of the two sets of neurons;
  tree     the same with Db-TSW, on systems of four lines;
  images   squared differences of the images they render: no weights at all, for comparison;
  batches  not at all, and no encoder: a batch of generated networks is compared with a batch of
           real ones, by the sliced distance of two clouds in which each point is a network.

Generated networks are judged by MMD, coverage, 1-NNA and novelty, as sets of neurons and as images,
beside networks that were not generated: held-out ones (nothing can do better), training networks
in another order of neurons (their novelty has to be 0), training networks with noise, and samples
of a normal distribution fitted to each weight after matching.

Run: python -m examples.inr_generator
     python -m examples.inr_generator --ways sliced,images --steps 2000 --seed 1 --out runs/more
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from tqdm.auto import tqdm

from examples.inr_population import Population, chance, judged, known
from gmn.graph import ParameterGraph
from gmn.tasks.autoencoder import Decoder
from gmn.tasks.rendering import PixelGrid
from gmn.tasks.scales import scaled
from gmn.transport import NeuronSetLoss, ZooMetrics, sliced_wasserstein
from gmn.zoo import images

NOISE = 16  # numbers that a network is made from
HIDDEN = 256  # units of each layer of the encoder
BATCH = 64
LEARNING_RATE = 3e-3
PRIOR = 0.3  # weight of the distance between codes and noise
SLICES = 32  # of distances between sets of neurons, drawn anew at every step
SHOWN = 12
WAYS = ("stored", "matched", "sliced", "tree", "images", "batches")

Loss = Callable[[ParameterGraph, ParameterGraph], Tensor]


def losses(population: Population, generator: Generator) -> dict[str, Loss]:
    """By name, how made networks are compared with those they should be."""

    def squares(seen_as: Callable[[ParameterGraph], Tensor]) -> Loss:
        return lambda made, real: (seen_as(made) - seen_as(real)).square().mean()

    def as_sets(loss: NeuronSetLoss) -> Loss:
        units = population.units
        return lambda made, real: loss(scaled(made, units), scaled(real, units))

    def as_batches(made: ParameterGraph, real: ParameterGraph) -> Tensor:
        clouds = population.sets(made), population.sets(real)
        return sliced_wasserstein(*clouds, root=False, generator=generator)

    return {
        "stored": squares(population.flat),
        "matched": squares(population.flat),
        "sliced": as_sets(NeuronSetLoss("sliced", SLICES, generator)),
        "tree": as_sets(NeuronSetLoss("tree", SLICES, generator)),
        "images": squares(population.rendered),
        "batches": as_batches,
    }


def generator_of(
    population: Population, way: str, steps: int, seed: int
) -> Callable[[int], ParameterGraph]:
    """Trains a generator.

    Args:
        population: what to learn from.
        way: one of :data:`WAYS`.
        steps: of Adam.
        seed: of weights, minibatches, noise and lines.

    Returns:
        What makes so many networks.
    """
    torch.manual_seed(seed)
    generator = chance(seed)
    training = population.in_one_order() if way == "matched" else population.training
    loss = losses(population, generator)[way]
    with torch.no_grad():
        points = population.sets(training)
        points = (points - points.mean(0)) / points.std(0).mean()
        half = len(training) // 2  # different networks are one unit apart, in any loss
        unit = loss(training[:half], training[half : 2 * half])
    encoder = nn.Sequential(
        nn.Linear(points.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
        nn.Linear(HIDDEN, NOISE),
    )  # fmt: skip
    decoder = Decoder(training.spec, NOISE, training.to_state_dict(0), population.units)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in tqdm(range(steps), desc=way, unit="step", leave=False):
        chosen = torch.randint(len(training), (BATCH,), generator=generator)
        noise = torch.randn(BATCH, NOISE, generator=generator)
        if way == "batches":
            total = loss(decoder(noise), training[chosen]) / unit
        else:
            codes = encoder(points[chosen])
            apart = sliced_wasserstein(codes, noise, root=False, generator=generator)
            total = loss(decoder(codes), training[chosen]) / unit + PRIOR * apart
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()

    @torch.no_grad()
    def make(count: int) -> ParameterGraph:
        return decoder(torch.randn(count, NOISE, generator=chance(seed + 1)))

    return make


def table(rows: dict[str, dict[str, ZooMetrics]]) -> str:
    """As Markdown: four metrics of sets of neurons, and the same of images."""
    names = ("MMD²", "coverage", "1-NNA", "novelty")
    head = [f"{name} ({what})" for what in ("neurons", "images") for name in names]
    lines = ["| networks | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for name, found in rows.items():
        cells = [f"{value:.3f}" for metrics in found.values() for value in asdict(metrics).values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def drawn(networks: dict[str, ParameterGraph], grid: PixelGrid) -> Figure:
    """The images that the first networks of each kind hold, a row for each kind."""
    figure, axes = plt.subplots(
        len(networks), SHOWN, figsize=(8, 0.55 * len(networks)), squeeze=False
    )
    for row, (name, graph) in zip(axes, networks.items(), strict=True):
        pictures = grid.images(graph[:SHOWN])
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture[0].numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_axis_off()
        row[0].text(-0.2, 0.5, name, transform=row[0].transAxes, ha="right", va="center", size=8)
    figure.subplots_adjust(left=0.27, right=0.995, top=0.99, bottom=0.01, wspace=0.05, hspace=0.1)
    return figure


def _ways(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := [way for way in chosen if way not in WAYS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(WAYS)}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits networks, trains generators, prints the table and draws samples."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", choices=list(images.READERS), default="digits")
    parser.add_argument("--training", type=int, default=800, help="networks to learn from")
    parser.add_argument("--held-out", type=int, default=150, help="networks to judge by, twice")
    parser.add_argument("--ways", type=_ways, default=WAYS, help=f"some of {','.join(WAYS)}")
    parser.add_argument("--steps", type=int, default=600, help="of each generator")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/inr-generator"), help="folder for what is written"
    )
    options = parser.parse_args(arguments)
    try:
        population = Population.of(options.images, options.training, options.held_out, options.seed)
    except (ValueError, images.MissingImages) as error:
        parser.error(str(error))
    networks = known(population, options.seed)
    for way in options.ways:
        make = generator_of(population, way, options.steps, options.seed)
        networks[f"generated: {way}"] = make(len(population.reference))
    rows = {
        name: judged(graph, population)
        for name, graph in tqdm(networks.items(), desc="judging", leave=False)
    }
    print(table(rows))
    options.out.mkdir(parents=True, exist_ok=True)
    plain = {name: {what: asdict(m) for what, m in found.items()} for name, found in rows.items()}
    (options.out / "metrics.json").write_text(json.dumps(plain, indent=1))
    figure = drawn(networks, population.grid)
    figure.savefig(options.out / "samples.png", dpi=130)
    plt.close(figure)
    print(f"wrote metrics.json and samples.png into {options.out}")


if __name__ == "__main__":
    main()
