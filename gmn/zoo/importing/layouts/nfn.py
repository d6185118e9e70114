"""The SIRENs of MNIST, Fashion-MNIST and CIFAR-10 that came with NFN (Zhou et al. 2023)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import converters
from gmn.errors import ZooError
from gmn.foundation.arguments import require_path
from gmn.zoo.importing.layout import Architecture, Entry, Layout, Listing, State
from gmn.zoo.importing.layouts.sirens import PublishedSiren, siren_state

BOUNDS = ((45_000, "train"), (50_000, "val"))  # by number of the image; the rest are for testing
FOLDER = re.compile(r"(?P<prefix>.+?)(?:_aug(?P<copy>\d+))?_(?P<label>\d+)s")
FILE = re.compile(r"net(\d+)\.pth")


class NfnSirens(Layout):
    """Files ``{prefix}_{label}s/net{image}.pth`` in ``siren_{mnist|fashion|cifar}_wts``.

    Each holds the state dict of a SIREN 2-32-32-1 or 2-32-32-3 of frequency 30 with a linear last
    layer. Images are counted through torchvision's training and then its test images. Folders
    ``{prefix}_aug{copy}_{label}s`` hold further networks of the same images.

    Args:
        source: the folder ``siren_..._wts``.
        copies: whether to import the further networks of training images, too. Those of other
            images are never used: validation and test are on the first network of each image.
    """

    name = "nfn-sirens"
    reference = "Zhou et al. 2023, arXiv 2302.14040"

    def __init__(self, source: str | Path, copies: bool = False) -> None:
        self.source = require_path("source", source)
        self.copies = copies

    def configuration(self) -> dict[str, Any]:
        """Whether further networks of training images are imported."""
        return {"copies": self.copies}

    def architecture(self, name: str) -> Architecture:
        """``"siren-1"`` or ``"siren-3"``, and a coordinate."""
        return PublishedSiren(outputs=int(name.removeprefix("siren-"))), (torch.zeros(1, 2),)

    def listing(self) -> Listing:
        """All networks by file; rows hold ``label``, ``image`` and ``view``."""
        files = sorted(self._files)
        prefixes = sorted({prefix for prefix, *_ in files})
        if len(prefixes) > 1:
            raise ZooError(
                f"{self.source} holds networks of several kinds, {', '.join(prefixes)}; put those "
                "of each into a folder of their own"
            )
        architecture = self._architecture([path for *_, path in files])
        entries = []
        unwanted = {"further networks of training images": 0, "further networks of others": 0}
        for _, view, image, label, path in files:
            split = next((name for bound, name in BOUNDS if image < bound), "test")
            if view and split != "train":
                unwanted["further networks of others"] += 1
            elif view and not self.copies:
                unwanted["further networks of training images"] += 1
            else:
                row = {"id": f"{image:05d}-{view:02d}", "split": split, "label": label}
                row |= {"image": image, "view": view}
                name = path.relative_to(self.source).as_posix()
                entries.append(Entry(name, architecture, row, (path, 0)))
        _require_distinct(entries, self.source)
        left_out = {reason: count for reason, count in unwanted.items() if count}
        rule = "by number of the image: below 45,000 for training, below 50,000 for validation"
        return Listing(tuple(entries), left_out, (), rule)

    def read(self, entry: Entry) -> State:
        """Reads one file; code in it never runs."""
        return siren_state(converters.load_checkpoint(entry.place[0]))

    @cached_property
    def _files(self) -> list[tuple[str, int, int, int, Path]]:
        """Prefix, view, image, label and path of every network."""
        files = list(_search(self.source))
        if not files:
            raise ZooError(
                f"{self.source} has no files like randinit_smaller_3s/net17.pth; give the folder "
                "siren_mnist_wts, siren_fashion_wts or siren_cifar_wts itself"
            )
        return files

    def _architecture(self, paths: list[Path]) -> str:
        """By the first file that can be read: a set is of grey images or of coloured ones."""
        problem = ""
        for path in paths:
            try:
                outputs = len(siren_state(converters.load_checkpoint(path))["layer3.bias"])
            except ValueError as error:
                problem = problem or str(error)
                continue
            return f"siren-{outputs}"
        raise ZooError(f"no network in {self.source} can be read: {problem}")


def _search(source: Path) -> Iterator[tuple[str, int, int, int, Path]]:
    if not source.is_dir():
        raise ZooError(f"{source} is no folder; give the one into which the archive was unpacked")
    for folder in source.iterdir():
        match = FOLDER.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        view = 0 if match["copy"] is None else int(match["copy"]) + 1
        for path in folder.iterdir():
            if file := FILE.fullmatch(path.name):
                yield match["prefix"], view, int(file[1]), int(match["label"]), path


def _require_distinct(entries: list[Entry], source: Path) -> None:
    """An image has one label: two would make two rows of one id."""
    seen: dict[str, str] = {}
    for entry in entries:
        if (other := seen.setdefault(entry.row["id"], entry.name)) != entry.name:
            raise ZooError(f"{source}: {other} and {entry.name} claim the same image; remove one")
