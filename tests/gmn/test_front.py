"""What a user meets first: names to find, and short prints of what was made."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

import gmn
from gmn import symmetry
from gmn.tasks import AccuracyPrediction
from gmn.train import Recipe, train
from tests.traced import BY_NAME, graph_of


def test_completion_shows_rooms_and_no_plumbing() -> None:
    for name in ("compare", "nn", "zoo", "tasks", "train", "transport", "canonical", "explain"):
        assert name in dir(gmn)
    for name in dir(gmn):
        found = getattr(gmn, name)
        assert not isinstance(found, ModuleType) or found is import_module(f"gmn.{name}")
    assert not {"import_module", "version", "cli", "stack"} & set(dir(gmn))


def test_elements_tell_how_much_moves() -> None:
    spec = graph_of(BY_NAME["mlp-relu"]).spec
    element = symmetry.sample(spec, torch.Generator().manual_seed(0), scalings=True)
    assert repr(element) == "Element(2 permutations, 2 scales)"
    assert repr(symmetry.Element(spec, {}, {})) == "Element(identity)"


def test_tasks_and_results_tell_their_sizes(folder: Path) -> None:
    task = AccuracyPrediction.open(folder)
    assert repr(task) == "AccuracyPrediction(train 48, val 16, test 16)"
    assert repr(AccuracyPrediction()) == "AccuracyPrediction(without networks)"
    result = train(gmn.nn.GMN(4, 1), task, Recipe(epochs=1))
    assert repr(result).startswith("Result(tau ")
    assert repr(result).endswith("; 16 networks, best epoch 0)")
