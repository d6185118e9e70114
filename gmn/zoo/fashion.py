"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747), from the Debian package of its files.

``python -m gmn.zoo.fashion`` fetches the package with ``apt-get download``, which needs no
rights, and unpacks it into ``$GRAPH_METANETWORKS_CACHE``, by default
``~/.cache/graph-metanetworks``. Where ``apt-get install dataset-fashion-mnist`` was run, nothing
else is needed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gmn.foundation.files import LOCK, OutputFolder

PACKAGE = "dataset-fashion-mnist"
INSIDE = "usr/share/datasets/fashion-mnist"
TEST_IMAGES = 10_000
# Of the decompressed files: they are compressed anew in every package.
FILES = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
ADVICE = "Run: python -m gmn.zoo.fashion (or: apt-get install dataset-fashion-mnist)"


class MissingFashion(Exception):
    """The files of Fashion-MNIST are absent, or not the published ones."""


def folders() -> tuple[Path, Path]:
    """Where the files may lie: in the cache, or where the installed package puts them."""
    chosen = os.environ.get("GRAPH_METANETWORKS_CACHE")
    cache = Path(chosen) if chosen else Path.home() / ".cache" / "graph-metanetworks"
    return cache / "fashion-mnist", Path("/") / INSIDE


def read() -> tuple[Tensor, Tensor]:
    """All images and labels: the 60,000 of the training set, then the 10,000 of the test set.

    Returns:
        uint8, shape (70000, 1, 28, 28), and int64 labels.

    Raises:
        MissingFashion: If a file is absent, or its content is not the published one.
    """
    present = [folder for folder in folders() if (folder / next(iter(FILES))).is_file()]
    if not present:
        searched = " nor in ".join(map(str, folders()))
        raise MissingFashion(f"Fashion-MNIST is neither in {searched}. {ADVICE}")
    train, train_labels, test, test_labels = (_content(present[0] / name) for name in FILES)
    pixels = np.concatenate([train[16:], test[16:]]).reshape(-1, 1, 28, 28)
    labels = np.concatenate([train_labels[8:], test_labels[8:]])
    return torch.from_numpy(pixels), torch.from_numpy(labels).long()


def _content(path: Path) -> np.ndarray:
    """The bytes of a file, header included."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise MissingFashion(f"{path} cannot be read ({error}). {ADVICE}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != FILES[path.name]:
        raise MissingFashion(
            f"the content of {path} has SHA-256 {digest}, expected {FILES[path.name]}. "
            f"Delete the file. {ADVICE}"
        )
    return np.frombuffer(content, dtype=np.uint8)


def fetch() -> Path:
    """Downloads and unpacks the package.

    Returns:
        The folder that now holds the files.

    Raises:
        MissingFashion: If ``apt-get`` or ``dpkg`` is absent or fails, or the folder holds other
            files, or cannot be written.
    """
    target = folders()[0]
    output = OutputFolder(target, "data set", earlier=_unpacked_by_hand, error=MissingFashion)
    with output, tempfile.TemporaryDirectory() as work:
        try:
            subprocess.run(["apt-get", "download", PACKAGE], cwd=work, check=True)
            (archive,) = Path(work).glob(f"{PACKAGE}_*.deb")
            subprocess.run(["dpkg", "-x", str(archive), work], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise MissingFashion(
                f"the Debian package {PACKAGE} could not be fetched ({error}); on other systems "
                f"unpack its files {', '.join(FILES)} into {target}"
            ) from error
        for name in FILES:
            output.write(name, (Path(work) / INSIDE / name).read_bytes())
    return target


def _unpacked_by_hand(folder: Path) -> set[str] | None:
    """The published files, as they lie in a folder without marker; None beside others."""
    names = {path.name for path in folder.iterdir()} - {LOCK}
    return names if names <= FILES.keys() else None


if __name__ == "__main__":
    print(f"Fashion-MNIST is in {fetch()}: {len(read()[1]):,} images")
