"""Populations of implicit neural representations: one small network per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gmn.zoo import images
from gmn.zoo.architectures.networks import Siren, network
from gmn.zoo.building.builders import DEFAULT, Builder, Options, Shard
from gmn.zoo.building.cards import quantiles
from gmn.zoo.images import pixel_grid
from gmn.zoo.seeds import derive_seed
from gmn.zoo.store.files import Row
from gmn.zoo.training.fitting import fit, initial_state
from gmn.zoo.training.states import State, stack

# Of the images, not of the networks: all views of an image are in one split.
VAL_SHARE, TEST_SHARE = 0.08, 0.2  # the latter where a set has no official test images


@dataclass(frozen=True)
class InrBuilder(Builder):
    """SIRENs that each hold one image, from an initialisation of its own.

    Networks go through the images in a fixed, shuffled order, with so many of each in a row as
    there are views. Beyond the last image they go through them again: further views.

    Attributes:
        images: name of the image set; train and test images together.
        architectures: names of the architectures.
        steps: number of full-batch steps of Adam.
        learning_rate: learning rate at the first step; it falls to zero along half a cosine.
        options: number of views of each image.
    """

    images: str
    architectures: tuple[str, ...]
    steps: int
    learning_rate: float
    options: Options = DEFAULT

    shard_size = 100

    def configured(self, options: Options) -> InrBuilder:
        """With several views of each image in a row, if chosen."""
        if options != replace(DEFAULT, views=options.views):
            raise ValueError("checkpoints and gradients are of classifiers, not of INRs")
        return replace(self, options=options)

    def configuration(self) -> dict[str, Any]:
        """All fields, the shares of the splits, and the size of shards."""
        fixed = {name: value for name, value in asdict(self).items() if name != "options"}
        shares = {"val_share": VAL_SHARE, "test_share": TEST_SHARE}
        return {**fixed, **self.options.chosen(), **shares, "shard_size": self.shard_size}

    def example(self) -> Tensor:
        """The coordinates of all pixels, shape (pixels, 2)."""
        return pixel_grid(*_shuffled_images(self.images).images.shape[-2:])

    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        """Fits the networks of one shard; rows hold image, view, digit, PSNR and seed."""
        shuffled = _shuffled_images(self.images)
        seeds = [derive_seed(seed, "network", index) for index in shard.networks]
        module = network(shard.architecture)
        if not isinstance(module, Siren):
            raise TypeError(f"{shard.architecture} is a {type(module).__name__}, not a Siren")
        initial = stack([initial_state(module, torch.Generator().manual_seed(s)) for s in seeds])
        assigned = [self._image_and_view(index, len(shuffled.labels)) for index in shard.networks]
        chosen = torch.tensor([image for image, _ in assigned])
        pixels = shuffled.images[chosen].flatten(1)
        state, psnr = fit(module, initial, self.example(), pixels, self.steps, self.learning_rate)
        rows: list[Row] = [
            {
                "split": shuffled.splits[image],
                "label": int(shuffled.labels[image]),
                "image": int(shuffled.order[image]),
                "view": view,
                "psnr": round(float(psnr[row]), 2),
                "seed": seeds[row],
            }
            for row, (image, view) in enumerate(assigned)
        ]
        return state, rows

    def _image_and_view(self, index: int, total: int) -> tuple[int, int]:
        """The position of the image that a network holds, and the view of it."""
        views = self.options.views
        passes, position = divmod(index, views * total)
        return position // views, passes * views + position % views

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Quantiles of the PSNR in decibels, and the number of networks per label."""
        labels = Counter(row["label"] for row in rows)
        return {
            "psnr": quantiles([row["psnr"] for row in rows], 1),
            "labels": {str(label): labels[label] for label in sorted(labels)},
        }


@dataclass(frozen=True)
class _ShuffledImages:
    """All images of a set in the order in which networks take them.

    Attributes:
        images: pixels in [0, 1], shape (images, 1, height, width).
        labels: shape (images,).
        order: index of each image in the set as it was read, shape (images,).
        splits: split of each image.
    """

    images: Tensor
    labels: Tensor
    order: Tensor
    splits: tuple[str, ...]


@lru_cache(maxsize=1)
def _shuffled_images(name: str) -> _ShuffledImages:
    """Shuffles a set by a fixed seed: splits must not differ between populations of one set."""
    pixels, labels = images.load_all(name)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    per_class = len(labels) / len(labels.unique())
    test = images.official_test(name)
    if test is None:
        test = images.stratified(labels, round(TEST_SHARE * per_class))
        held_out = images.stratified(labels, round((TEST_SHARE + VAL_SHARE) * per_class))
    else:
        held_out = test.clone()
        held_out[~test] = images.stratified(labels[~test], round(VAL_SHARE * per_class))
    splits = [
        "test" if test[image] else "val" if held_out[image] else "train" for image in order.tolist()
    ]
    return _ShuffledImages(pixels[order], labels[order], order, tuple(splits))
