"""How learnable is a zoo? Statistics with boosting from below, the images themselves from above.

Prints the time of the build, the distribution of test accuracy, and Kendall's tau between true and
predicted test accuracy on the networks of the val and test splits, for

* statistics of each weight tensor with gradient boosting, fitted on the train split;
* the oracle: accuracy or loss of each network on a few training images, no fitting.

Run: python benchmarks/zoo_oracle.py --out /tmp/zoo [--name cnn-mnist --size 1200 --seed 0]
"""

from __future__ import annotations

import argparse
import time

import torch
from lightgbm import LGBMRegressor
from scipy.stats import kendalltau
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional

from gmn import zoo
from gmn.zoo import images
from gmn.zoo.networks import network

QUANTILES = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
PROBES = (8, 32, 128, 512)


def statistics(state: dict[str, Tensor]) -> Tensor:
    """Mean, variance, quantiles and norm of each tensor, shape (networks, 8 * tensors)."""
    columns = []
    for value in state.values():
        flat = value.flatten(1)
        summary = torch.stack([flat.mean(1), flat.var(1), flat.norm(dim=1)], dim=1)
        columns += [summary, flat.quantile(QUANTILES, dim=1).T]
    return torch.cat(columns, dim=1)


def tau(prediction: Tensor, truth: Tensor) -> float:
    return float(kendalltau(prediction.numpy(), truth.numpy()).statistic)


def boosting(population: zoo.Zoo, held_out: Tensor, accuracy: Tensor) -> Tensor:
    """Predicted accuracy of the held-out networks; the architecture is one of the features."""
    features = torch.zeros(len(population), 0)
    for kind, architecture in enumerate(population.architectures):
        chosen = of_architecture(population, architecture)
        part = statistics(population.stacked(chosen))
        if not features.shape[1]:
            features = torch.zeros(len(population), part.shape[1] + 1)
        features[chosen] = torch.cat([part, torch.full((len(chosen), 1), float(kind))], dim=1)
    train = population.indices("train")
    model = LGBMRegressor(
        n_estimators=300,
        learning_rate=0.03,
        num_leaves=15,
        min_child_samples=8,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.5,
        random_state=0,
        n_jobs=1,
        verbose=-1,
    )
    model.fit(features[train].numpy(), accuracy[train].numpy())
    return torch.from_numpy(model.predict(features[held_out].numpy()))


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
    predicted = boosting(population, held_out, accuracy)
    print(f"tau, statistics + boosting: {tau(predicted, accuracy[held_out]):.3f}")
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
