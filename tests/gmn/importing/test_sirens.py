"""The SIRENs of DWS and of NFN."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gmn import zoo
from gmn.zoo import DwsInrs, NfnSirens, ZooError
from tests.gmn.importing.replicas import (
    NAMES,
    Harmful,
    dws_replica,
    dws_splits,
    import_,
    nfn_replica,
    siren_layers,
)


def published_inr(layers: list[nn.Linear], points: Tensor, shift: float) -> Tensor:
    """Sines of frequency 30 between the layers, none after the last."""
    x = points
    for layer in layers[:-1]:
        x = torch.sin(30 * (x @ layer.weight.T + layer.bias))
    return x @ layers[-1].weight.T + layers[-1].bias + shift


def require_same_images(population: zoo.Zoo, seeds: list[int], shift: float) -> None:
    """The graph of every network gives the image of the published layers."""
    points = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = population.graph(range(len(population))).to(dtype=torch.float64)
    program = graph.spec.program
    assert program is not None
    answer = program.observe(graph.values, [points.unsqueeze(1)], program.outputs)[0].flatten(2)
    for row, seed in enumerate(seeds):
        outputs = answer.shape[-1]
        layers = [layer.double() for layer in siren_layers(seed, outputs)]
        expected = published_inr(layers, points, shift)
        torch.testing.assert_close(answer[row], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["objects", "lists"])
def test_dws_inrs_with_published_splits(tmp_path: Path, form: str) -> None:
    dws_replica(tmp_path / "data" / "mnist-inrs", NAMES)
    splits = dws_splits(tmp_path / "splits.json", form)
    population = import_(DwsInrs(tmp_path / "data", splits), tmp_path / "out")
    found = {row["id"]: (row["split"], row["label"], row["image"]) for row in population.rows}
    assert found == {
        name: ("train" if i < 4 else "val" if i < 7 else "test", i % 3 if i < 7 else i - 7, i % 7)
        for i, name in enumerate(NAMES)
    }
    seeds = [NAMES.index(row["id"]) for row in population.rows]
    require_same_images(population, seeds, shift=0.5)


def test_dws_inrs_without_a_file_of_splits(tmp_path: Path) -> None:
    dws_replica(tmp_path / "data", NAMES)
    population = import_(DwsInrs(tmp_path / "data"), tmp_path / "out")
    for row in population.rows:
        assert (row["split"] == "test") == (row["part"] == "testing")


def test_dws_inrs_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    source = tmp_path / "mnist-inrs"
    dws_replica(source, NAMES)
    files = [source / name / "checkpoints" / "model_final.pth" for name in NAMES]
    files[0].write_bytes(files[0].read_bytes()[:300])
    files[1].unlink()
    state = torch.load(files[2], weights_only=True)
    state["seq.1.bias"][3] = torch.inf
    torch.save(state, files[2])
    torch.save({name: value[:1] for name, value in state.items()}, files[3])
    (tmp_path / "ran").mkdir()
    torch.save(Harmful(str(tmp_path / "ran" / "it")), files[4])
    dws_replica(source, ["mnist_png_training_9_99"])  # in no split
    splits = dws_splits(tmp_path / "splits.json", "objects")
    content = json.loads(splits.read_text())
    content["test"]["path"].append("mnist_png_testing_1_77")
    splits.write_text(json.dumps(content))
    population = import_(DwsInrs(source, splits), tmp_path / "out")
    assert [row["id"] for row in population.rows] == sorted(NAMES[5:])
    card = population.manifest["card"]
    assert card["left_out"] == {"in no split of the published file": 1}
    skipped = dict(line.split(": ", 1) for line in card["skipped"])
    assert list(skipped) == [
        "mnist_png_testing_1_77",
        *sorted(f"{name}/checkpoints/model_final.pth" for name in NAMES[:5]),
    ]
    reasons = [skipped[f"{name}/checkpoints/model_final.pth"] for name in NAMES[:5]]
    for reason, part in zip(
        reasons,
        ("truncated", "no such file", "layer2.bias has NaN", "has shape (1, 2)", ""),
        strict=True,
    ):
        assert part in reason
    assert not (tmp_path / "ran" / "it").exists()


def test_wrong_folders_of_dws_inrs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has no folders like mnist_png_training_5_0"):
        import_(DwsInrs(tmp_path), tmp_path / "out")
    with pytest.raises(ZooError, match="is no folder"):
        import_(DwsInrs(tmp_path / "absent"), tmp_path / "out")
    dws_replica(tmp_path / "a", NAMES[:2])
    dws_replica(tmp_path / "b", ["fmnist_png_training_0_0"])
    with pytest.raises(ZooError, match="networks of fmnist and mnist; give one"):
        import_(DwsInrs(tmp_path), tmp_path / "out")
    broken = tmp_path / "splits.json"
    broken.write_text('{"train": []}')
    with pytest.raises(ZooError, match=r"splits\.json is no file of splits"):
        import_(DwsInrs(tmp_path / "a", broken), tmp_path / "out")
    broken.write_text(json.dumps({"train": NAMES[:1], "val": NAMES[:1], "test": []}))
    with pytest.raises(ZooError, match="is in two splits, train, val"):
        import_(DwsInrs(tmp_path / "a", broken), tmp_path / "out")


@pytest.mark.parametrize("outputs", [1, 3])
def test_nfn_sirens(tmp_path: Path, outputs: int) -> None:
    nfn_replica(tmp_path / "siren_wts", outputs)
    population = import_(NfnSirens(tmp_path / "siren_wts"), tmp_path / "out")
    found = [(row["image"], row["label"], row["split"], row["view"]) for row in population.rows]
    assert found == [
        (7, 2, "train", 0),
        (44_999, 0, "train", 0),
        (45_000, 1, "val", 0),
        (49_999, 1, "val", 0),
        (50_000, 2, "test", 0),
    ]
    assert population.manifest["card"]["left_out"] == {
        "further networks of training images": 2,
        "further networks of others": 1,
    }
    require_same_images(population, [4, 0, 1, 2, 3], shift=0.0)


def test_nfn_sirens_with_copies_of_training_images(tmp_path: Path) -> None:
    nfn_replica(tmp_path / "wts")
    population = import_(NfnSirens(tmp_path / "wts", copies=True), tmp_path / "out")
    views = [(row["image"], row["view"]) for row in population.rows if row["split"] == "train"]
    assert views == [(7, 0), (7, 1), (7, 13), (44_999, 0)]
    assert population.manifest["card"]["left_out"] == {"further networks of others": 1}


def test_wrong_folders_of_nfn_sirens_are_named(tmp_path: Path) -> None:
    nfn_replica(tmp_path / "wts")
    with pytest.raises(ZooError, match="give the folder siren_mnist_wts"):
        import_(NfnSirens(tmp_path), tmp_path / "out")
    (tmp_path / "wts" / "randinit_smaller_9s").mkdir()
    (tmp_path / "wts" / "randinit_smaller_9s" / "net7.pth").write_bytes(b"")
    with pytest.raises(ZooError, match="claim the same image"):
        import_(NfnSirens(tmp_path / "wts"), tmp_path / "out")
    (tmp_path / "wts" / "larger_9s").mkdir()
    (tmp_path / "wts" / "larger_9s" / "net7.pth").write_bytes(b"")
    with pytest.raises(ZooError, match="several kinds, larger, randinit_smaller"):
        import_(NfnSirens(tmp_path / "wts"), tmp_path / "out")
