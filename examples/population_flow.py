"""A population of networks that flows to another one: SIRENs of one digit to those of another.

Every network is a point; the points flow by Adam on exact or sliced transport to the networks of
the other digit. Coordinates are all weights (along the principal directions of the populations, as
many as there are), or the weights along the first 32 of these directions. Three kinds of weights
are compared:

  as they are   the networks of a zoo, each from an initialisation of its own
  aligned       the same, in canonical phases and signs, neurons matched to those of one network
  one start     the same images fitted again, all from one initialisation

What the networks render on their way is judged by the image most like it, among those that their
likes were fitted to, and the population at the end by metrics against held-out networks. A
flow to as many networks as there are points can only end in copies of them; a flow to four times as
many cannot, and has to make new networks.

Needs a zoo of SIRENs: gmn zoo build inr-mnist --size 5000 --out runs/inr-mnist
Writes to --out: table.md, results.json, populations.png
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from examples.flows import METHODS, flow
from examples.population_reports import SHOWN, Gallery, Outcome, drawn, table, title
from examples.populations import Coordinates, aligned, of_digit, pictures, refitted
from gmn import zoo
from gmn.graph import ParameterGraph
from gmn.tasks.rendering import PixelGrid
from gmn.transport import assigned_wasserstein, zoo_metrics

RATES = (1.5e-2, 5e-2)
MORE = 4  # times as many targets as points, where copies are impossible
# Methods, how many targets for each point, and whether dimensions are reduced.
FLOWS = (
    ("assignment", 1, False),
    ("sw2", 1, False),
    ("sw2", 1, True),
    ("db-tsw", 1, True),
    ("sw2", MORE, True),
)
JUDGED = 100  # times that W_2 is taken along a flow
TUNING_SEED = 1000
EXAMPLES = """examples:
  python -m examples.population_flow --digits 7 3
  python -m examples.population_flow --zoo runs/inr-mnist --networks 50 --steps 500
"""


@dataclass(frozen=True)
class Way:
    """Networks in one kind of coordinates.

    Attributes:
        name: of the kind.
        source: N networks of the first digit.
        targets: four times N of the second.
        held_out: N others of the second.
    """

    name: str
    source: ParameterGraph
    targets: ParameterGraph
    held_out: ParameterGraph

    @classmethod
    def of(cls, name: str, graph: ParameterGraph, count: int) -> Way:
        """From all networks, in this order."""
        return cls(
            name,
            graph[:count],
            graph[count : count * (1 + MORE)],
            graph[count * (1 + MORE) :],
        )

    def coordinates(self, dimensions: int) -> Coordinates:
        """The directions in which source and targets differ most."""
        return Coordinates.of(ParameterGraph.cat([self.source, self.targets]), dimensions)


def distances(points: Tensor, goal: Tensor) -> Tensor:
    """Exact W_2 per coordinate of B clouds to clouds of a multiple of their points, shape (B,)."""
    repeats = goal.shape[1] // points.shape[1]
    spread = assigned_wasserstein(points.repeat_interleave(repeats, dim=1), goal)
    return spread / points.shape[-1] ** 0.5


def path_of(
    start: Tensor, goal: Tensor, method: str, rates: list[float], steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Points along flows side by side, (moments, B, n, d), and their distances, (moments, B)."""
    moments = {round(steps * part / JUDGED) for part in range(JUDGED + 1)}
    path = flow(start, goal, METHODS[method].loss, rates, steps, Generator().manual_seed(seed))
    found = [
        (points, distances(points, goal))
        for step, points in enumerate(tqdm(path, method, steps + 1, leave=False, unit="step"))
        if step in moments
    ]
    points, values = zip(*found, strict=True)
    return torch.stack(points), torch.stack(values)


def tuned(start: Tensor, goal: Tensor, method: str, steps: int) -> list[float]:
    """The learning rate of each cloud that ends nearest to its goal."""
    found = []
    for rate in RATES:
        path = flow(
            start,
            goal,
            METHODS[method].loss,
            [rate] * len(start),
            steps,
            Generator().manual_seed(TUNING_SEED),
        )
        for points in tqdm(path, f"{method} at {rate:g}", steps + 1, leave=False, unit="step"):
            last = points
        found.append(distances(last, goal))
    return [RATES[number] for number in torch.stack(found).argmin(0).tolist()]


def flown(
    kinds: list[Way], method: str, dimensions: int, targets: int, steps: int, seed: int
) -> list[tuple[list[ParameterGraph], list[float], float, int]]:
    """For each kind of weights: networks along the flow, distances, learning rate, dimensions."""
    coordinates = [way.coordinates(dimensions) for way in kinds]
    pairs = list(zip(coordinates, kinds, strict=True))
    start = torch.stack([each.points(way.source) for each, way in pairs])
    goal = torch.stack([each.points(way.targets[:targets]) for each, way in pairs])
    rates = tuned(start, goal, method, steps)
    points, values = path_of(start, goal, method, rates, steps, seed)
    return [
        (
            [each.networks(cloud) for cloud in points[:, number]],
            values[:, number].tolist(),
            rates[number],
            start.shape[2],
        )
        for number, each in enumerate(coordinates)
    ]


def first_below(values: list[float], share: float) -> int | None:
    """The first moment at which the distance is at most this share of the first one."""
    found = (number for number, value in enumerate(values) if value <= share * values[0])
    return next(found, None)


def ways(population: zoo.Zoo, indices: Tensor, count: int, seed: int) -> list[Way]:
    """The networks in three kinds of coordinates."""
    raw = population.graph(indices)
    return [
        Way.of("as they are", raw, count),
        Way.of("aligned", aligned(raw), count),
        Way.of("one start", refitted(population, indices, seed), count),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Flows all populations by all methods, prints a table and draws networks on their way."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.population_flow",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--zoo", type=Path, default=Path("runs/inr-mnist"), help="folder")
    parser.add_argument("--digits", type=int, nargs=2, default=(7, 3), help="from, to")
    parser.add_argument("--networks", type=int, default=60, help="that flow (default: 60)")
    parser.add_argument("--dimensions", type=int, default=32, help="of a point (default: 32)")
    parser.add_argument("--steps", type=int, default=1000, help="of Adam (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of random lines and the one start")
    parser.add_argument("--out", type=Path, default=Path("runs/population-flow"), help="folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        population = zoo.open(options.zoo)
    except zoo.ZooError as error:
        parser.error(f"{error}. Build one: gmn zoo build inr-mnist --size 5000 --out {options.zoo}")

    count, (first, second) = options.networks, options.digits
    chosen = [of_digit(population, digit, count * (2 + MORE)) for digit in (first, second)]
    gallery = Gallery(
        torch.cat([pictures(population, numbers[: count * MORE]) for numbers in chosen]),
        torch.arange(2 * count * MORE) >= count * MORE,
    )
    kinds = ways(population, torch.cat([chosen[0][:count], chosen[1]]), count, options.seed)
    outcomes, rows = [], []
    for method, times, reduced in tqdm(FLOWS, "flows", unit="flow"):
        dimensions = options.dimensions if reduced else count * (1 + MORE)
        found = flown(kinds, method, dimensions, times * count, options.steps, options.seed)
        for way, (along, values, rate, size) in zip(kinds, found, strict=True):
            half, last = first_below(values, 0.5), len(along) - 1
            outcome = Outcome(
                way=way.name,
                method=method,
                dimensions=size,
                targets=times * count,
                rate=rate,
                ends=(values[0], values[-1]),
                judged=tuple(
                    None if m is None else gallery.judged(along[m]) for m in (0, half, last)
                ),
                metrics=zoo_metrics(along[-1], way.held_out, way.targets[: times * count]),
            )
            outcomes.append(outcome)
            moments = [*(first_below(values, share) for share in SHOWN), last]
            grid = PixelGrid(*gallery.images.shape[-2:])
            seen = [None if m is None else grid.images(along[m][:2]) for m in moments]
            rows.append((f"{way.name}\n{title(outcome)}", seen))
    order = sorted(range(len(rows)), key=lambda n: n % len(kinds))
    text = table([outcomes[n] for n in order], gallery.judged(kinds[0].held_out), second)
    (options.out / "table.md").write_text(text + "\n")
    (options.out / "results.json").write_text(json.dumps([asdict(each) for each in outcomes]))
    drawn([rows[number] for number in order], 2).savefig(options.out / "populations.png", dpi=110)
    print(text)


if __name__ == "__main__":
    main()
