"""The INRs of MNIST and Fashion-MNIST that came with DWSNets (Navon et al. 2023)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

import converters
from gmn.errors import ZooError
from gmn.zoo.importing.layout import Architecture, Entry, Listing, State
from gmn.zoo.importing.layouts.sirens import PublishedSiren, siren_state
from gmn.zoo.importing.layouts.splits import SplitLayout, read_splits
from gmn.zoo.seeds import derive_seed

FOLDER = re.compile(r"(\w+_png_(training|testing)_(\d+)_(\d+))")
WEIGHTS = Path("checkpoints") / "model_final.pth"
VAL_ONE_IN = 12  # training images, where no split file is given: 5,000 of 60,000


class DwsInrs(SplitLayout):
    """Folders ``mnist_png_{training|testing}_{label}_{id}/checkpoints/model_final.pth``.

    Each holds a SIREN 2-32-32-1 of frequency 30 whose output is shifted by 0.5, under the keys
    ``seq.{layer}.weight`` and ``seq.{layer}.bias``.

    Args:
        source: the folder with these folders, or one above it.
        splits: the published JSON file of splits: for each of ``train``, ``val`` and ``test`` the
            paths of its networks, or an object with them under ``path``. Only the part of a path
            that names the network counts. None takes the testing images as test split, and about
            one in twelve of the training images for validation.
    """

    name = "dws-inrs"
    reference = "Navon et al. 2023, arXiv 2301.12780"

    def architecture(self, name: str) -> Architecture:
        """The one architecture, and a coordinate."""
        return PublishedSiren(shift=0.5), (torch.zeros(1, 2),)

    def listing(self) -> Listing:
        """All networks by folder; rows hold ``label``, ``image`` and ``part``."""
        folders = _folders(self.source)
        if not folders:
            raise ZooError(
                f"{self.source} has no folders like mnist_png_training_5_0, nor have the folders "
                "in it; give the folder into which the archive was unpacked"
            )
        if self.splits is None:
            chosen = {name: _own_split(name) for name in folders}
            rule = "testing images are the test split; one in 12 training images for validation"
        else:
            chosen = read_splits(self.splits, _name_in, "mnist_png_training_5_0")
            rule = "published file of splits"
        entries = tuple(
            _entry(name, folders[name], chosen[name]) for name in sorted(folders.keys() & chosen)
        )
        unlisted = len(folders.keys() - chosen.keys())
        absent = sorted(chosen.keys() - folders.keys())
        return Listing(
            entries,
            {"in no split of the published file": unlisted} if unlisted else {},
            tuple(f"{name}: in the file of splits, but there is no such folder" for name in absent),
            rule,
        )

    def read(self, entry: Entry) -> State:
        """Reads one file; code in it never runs."""
        return siren_state(converters.load_checkpoint(entry.place[0]))


def _folders(source: Path) -> dict[str, Path]:
    """Folders of networks by name: in a folder, or else in its subfolders."""
    if not source.is_dir():
        raise ZooError(f"{source} is no folder; give the one into which the archive was unpacked")
    inside = _folders_in(source)
    networks = [path for path in inside if FOLDER.fullmatch(path.name)]
    if not networks:
        nested = [path for folder in inside for path in _folders_in(folder)]
        networks = [path for path in nested if FOLDER.fullmatch(path.name)]
    result: dict[str, Path] = {}
    for path in networks:
        if path.name in result:
            raise ZooError(f"{path} and {result[path.name]} are both there; give one set's folder")
        result[path.name] = path
    sets = sorted({name.partition("_png_")[0] for name in result})
    if len(sets) > 1:
        raise ZooError(f"{source} holds networks of {' and '.join(sets)}; give one set's folder")
    return result


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as items:
        return sorted(Path(item.path) for item in items if item.is_dir())


def _entry(name: str, folder: Path, split: str) -> Entry:
    match = FOLDER.fullmatch(name)
    assert match is not None
    part, label, image = match[2], int(match[3]), int(match[4])
    row = {"id": name, "split": split, "label": label, "image": image, "part": part}
    return Entry(f"{name}/{WEIGHTS.as_posix()}", "siren-shifted", row, (folder / WEIGHTS, 0))


def _own_split(name: str) -> str:
    if "_testing_" in name:
        return "test"
    return "val" if derive_seed(0, "split", name) % VAL_ONE_IN == 0 else "train"


def _name_in(path: str) -> str | None:
    match = FOLDER.search(path)
    return None if match is None else match[1]
