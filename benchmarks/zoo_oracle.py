"""How learnable is a zoo? Statistics with boosting from below, the images themselves from above.

Prints the time of the build, the distribution of test accuracy, and Kendall's tau between true and
predicted test accuracy on the networks of the val and test splits, for

* statistics of each weight tensor with gradient boosting, fitted on the train split;
* the oracle: accuracy or loss of each network on a few training images, no fitting.

Run: python benchmarks/zoo_oracle.py --out runs/cnn-mnist [--name cnn-mnist --size 1200 --seed 0]
"""

from __future__ import annotations

import argparse
import time

import torch
from scipy.stats import kendalltau
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional

from baselines import StatNN
from gmn import zoo
from gmn.zoo import images
from gmn.zoo.architectures.networks import network

PROBES = (8, 32, 128, 512)


def tau(prediction: Tensor, truth: Tensor) -> float:
    return float(kendalltau(prediction.numpy(), truth.numpy()).statistic)


def boosting(population: zoo.Zoo, accuracy: Tensor) -> Tensor:
    """Accuracy of every network as predicted after fitting on the train split."""
    parts = [population.indices("train", kind) for kind in population.architectures]
    graphs = [population.graph(part) for part in parts]
    model = StatNN().fit(graphs, accuracy[torch.cat(parts)])
    predicted = torch.zeros(len(population))
    for kind in population.architectures:
        chosen = of_architecture(population, kind)
        predicted[chosen] = model.predict([population.graph(chosen)])
    return predicted


def of_architecture(population: zoo.Zoo, architecture: str) -> Tensor:
    splits = [population.indices(split, architecture) for split in ("train", "val", "test")]
    return torch.cat(splits)


def oracle(population: zoo.Zoo, data: images.ImageSet, count: int) -> tuple[Tensor, Tensor]:
    """Accuracy and negative loss of every network on `count` training images."""
    picks = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(0))
    inputs, labels = data.train_images[picks[:count]], data.train_labels[picks[:count]]
    accuracy, loss = torch.zeros(len(population)), torch.zeros(len(population))
    for architecture in population.architectures:
        chosen, module = of_architecture(population, architecture), network(architecture)
        forward = vmap(lambda state, m=module: functional_call(m, state, (inputs,)), chunk_size=50)
        scores = forward(population.stacked(chosen))
        expected = labels.expand(len(chosen), -1)
        accuracy[chosen] = (scores.argmax(2) == expected).float().mean(1)
        losses = functional.cross_entropy(scores.transpose(1, 2), expected, reduction="none")
        loss[chosen] = losses.mean(1)
    return accuracy, -loss


def report(population: zoo.Zoo) -> None:
    accuracy = population.labels("test_accuracy")
    held_out = torch.cat([population.indices("val"), population.indices("test")])
    card = population.manifest["card"]
    print(f"{population}; kept out: {card['diverged_and_kept_out']}; splits: {card['splits']}")
    for architecture, counts in card["test_accuracy"].items():
        print(f"test accuracy by tenths, {architecture}: {counts}")
    levels = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    print("test accuracy, quantiles:", [round(v, 3) for v in accuracy.quantile(levels).tolist()])
    predicted = boosting(population, accuracy)
    print(f"tau, statistics + boosting: {tau(predicted[held_out], accuracy[held_out]):.3f}")
    with torch.no_grad():
        data = images.load(population.manifest["configuration"]["images"])
        for count in PROBES:
            right, loss = oracle(population, data, count)
            by_accuracy = tau(right[held_out], accuracy[held_out])
            by_loss = tau(loss[held_out], accuracy[held_out])
            print(f"tau, oracle on {count} images: accuracy {by_accuracy:.3f}, loss {by_loss:.3f}")
    train_accuracy = population.labels("train_accuracy")
    print(f"tau, train accuracy: {tau(train_accuracy[held_out], accuracy[held_out]):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--name", default="cnn-mnist")
    parser.add_argument("--size", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    population = zoo.build(arguments.name, arguments.size, arguments.seed, arguments.out)
    print(f"built or opened in {time.perf_counter() - start:.1f} s")
    report(population)


if __name__ == "__main__":
    main()
