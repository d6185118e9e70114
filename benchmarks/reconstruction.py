"""How well networks are reconstructed from 64 numbers, by the loss that the autoencoder descends.

The encoder is a DualGMN with probes on a 7 × 7 grid, the decoder an MLP; see gmn.tasks.Autoencoding
for the losses. Each loss gets the learning rate that does best on the validation split
with a seed that is not reported. Populations:

`deep`     MNIST SIRENs 2-32-32-1, each from an initialisation of its own; the first networks of
           each split of gmn zoo build inr-mnist --size 5000 --out runs/inr-mnist
`shallow`  SIRENs 2-128-1 of scikit-learn's digits, all from one initialisation: weights tell about
           the image, and a network is the set of its neurons
`shuffled` the same with the neurons of each network in a random order of its own

Prints R² and PSNR of rendered images of test networks, and the squared error of their weights after
matching neurons, in units of each entry's variance. All results go into a file of JSON lines,
RUNS/reconstruction/results.jsonl; a stopped run goes on.

Run: python -m benchmarks.reconstruction shuffled [--losses function,set,sliced] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

import gmn
from benchmarks.learning import with_interval
from examples.shallow_sirens import fitted, shuffled
from gmn import zoo
from gmn.nn import DualGMN, InvariantHead, Probes
from gmn.tasks import Autoencoding
from gmn.train import Recipe, predict, train
from gmn.zoo import Zoo, images
from gmn.zoo.images import pixel_grid

SIDES = {"deep": 14, "shallow": 8, "shuffled": 8}  # pixels of the images
SPLITS = {"train": 800, "val": 150, "test": 300}
LOSSES = "function,weights,set,sliced,tree,sliced+function"
RATES = "0.003,0.01"
TUNING = 1000  # the seed that rates are chosen by
SHOWN = ("r2", "psnr", "weights")


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        population: its name.
        loss: of the autoencoder.
        rate: peak learning rate.
        seed: of weights and minibatches.
        epochs: passes over the training split.
    """

    population: str
    loss: str
    rate: float
    seed: int
    epochs: int


def population_of(name: str, runs: Path) -> Zoo:
    """The networks of a population; made when first asked for."""
    folder = runs / "reconstruction" / name
    if name == "deep":
        whole = zoo.open(runs / "inr-mnist")
        chosen = [whole.indices(split)[:size] for split, size in SPLITS.items()]
        return zoo.filtered(whole, torch.cat(chosen), folder, progress=False)
    if (folder / "zoo.json").exists():
        return zoo.open(folder)
    pixels, _ = images.load_all("digits")
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    size = sum(SPLITS.values())
    graph, ratios = fitted(pixels[order[:size]])
    graph = shuffled(graph) if name == "shuffled" else graph
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    rows = [
        {"id": f"{number:05d}", "split": split, "psnr": round(float(ratio), 2)}
        for number, (split, ratio) in enumerate(zip(splits, ratios, strict=True))
    ]
    with zoo.ZooWriter(folder, name, size, 0, {}) as writer:
        writer.write_shard(0, "siren-2-128-1", graph.spec, graph.values, rows)
        writer.finish(1, {"median psnr": round(float(ratios.median()), 1)})
    return zoo.open(folder)


def encoder(spec: gmn.GraphSpec, outputs: int) -> DualGMN:
    """DualGMN whose probes start on a grid."""
    return DualGMN(32, 1, InvariantHead(outputs), Probes(pixel_grid(7, 7).unsqueeze(1)))


def task_of(name: str, population: Zoo, loss: str) -> Autoencoding:
    """Autoencoding of a population with a loss."""
    return Autoencoding(population, loss=loss, height=SIDES[name], width=SIDES[name])


def done(trial: Trial, task: Autoencoding) -> dict[str, float]:
    """Trains an autoencoder; its metrics on the validation and test splits."""
    torch.manual_seed(trial.seed)
    start = time.process_time()
    model = task.build(encoder, task.split("train")[0].graph.spec)
    assert isinstance(model, torch.nn.Module)
    recipe = Recipe(epochs=trial.epochs, learning_rate=trial.rate)
    result = train(model, task, recipe, trial.seed)
    seconds = time.process_time() - start
    checked = task.metrics(*predict(model, task, task.split("val")))
    weights = task_of(trial.population, task.zoo, "set")
    (part,) = weights.split("test")
    with torch.no_grad():
        error = float(weights.loss(model(part.graph), part.target))
    return result.metrics | {"weights": error, "val_r2": checked["r2"], "seconds": seconds}


class Results:
    """What trials have given, in a file that grows line by line.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [json.loads(line) for line in lines if line.endswith("}}")]
        self.found = {json.dumps(each["trial"]): each["found"] for each in kept}

    def of(self, trial: Trial, task: Autoencoding) -> dict[str, float]:
        """The metrics of a trial, which is done if it is not in the file."""
        key = json.dumps(asdict(trial))
        if key not in self.found:
            self.found[key] = done(trial, task)
            with self.path.open("a") as file:
                line = json.dumps({"trial": asdict(trial), "found": self.found[key]})
                file.write(f"\n{line}")
        return self.found[key]


def row_of(loss: str, population: Zoo, results: Results, options: argparse.Namespace) -> str:
    """Tunes the learning rate of a loss, trains with every seed, and says what came out."""
    task = task_of(options.population, population, loss)

    def run(rate: float, seed: int) -> dict[str, float]:
        return results.of(Trial(options.population, loss, rate, seed, options.epochs), task)

    rates = [float(rate) for rate in options.rates.split(",")]
    if len(rates) > 1:
        tried = tqdm(rates, desc=f"{loss}, learning rates", leave=False)
        checked = {rate: run(rate, TUNING)["val_r2"] for rate in tried}
        rates.sort(key=checked.__getitem__)
    rate = rates[-1]
    seeds = tqdm(range(options.seeds), desc=f"{loss}, seeds", leave=False)
    found = [run(rate, seed) for seed in seeds]
    cells = [with_interval(torch.tensor([each[name] for each in found])) for name in SHOWN]
    seconds = sum(each["seconds"] for each in found) / len(found)
    return f"| {loss} | {' | '.join(cells)} | {rate} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("population", choices=list(SIDES))
    parser.add_argument("--losses", default=LOSSES, help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rates", default=RATES, help="learning rates; one is taken as it is")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where populations lie")
    options = parser.parse_args()
    torch.set_num_threads(1)
    population = population_of(options.population, options.runs)
    results = Results(options.runs / "reconstruction" / "results.jsonl")
    rows = [row_of(loss, population, results, options) for loss in options.losses.split(",")]
    print("| loss | R² of images | PSNR | matched weights | learning rate | CPU seconds |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
