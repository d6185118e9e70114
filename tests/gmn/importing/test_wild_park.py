"""The CNN Wild Park: many architectures, a file per checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn.tasks import task_of
from gmn.zoo import CnnWildPark, ZooError
from gmn.zoo.architectures.wild_network import WildCNN
from tests.gmn.importing.replicas import Harmful, command, import_, shorten

RUNS: dict[str, dict[str, Any]] = {  # widths, kernels, activations, residuals
    "cnn_0": {"w": [16, 8], "k": [3, 5], "a": ["relu", "tanh"], "r": [None, 0]},
    "cnn_1": {"w": [4, 8, 32], "k": [7, 3, 3], "a": ["gelu", "none", "sigmoid"], "r": [-1, -1, 1]},
    "cnn_2": {"w": [8, 4, 4], "k": [3, 3, 5], "a": ["leaky_relu", "silu", "relu"], "r": [-1, 0, 1]},
    "cnn_3": {"w": [16, 8], "k": [3, 5], "a": ["relu", "tanh"], "r": [None, 0]},
}
STEPS = (10, 20)
NAMES = {
    "cnn_0": "3/16k3-relu/8k5-tanh+0/10",
    "cnn_1": "3/4k7-gelu/8k3-identity/32k3-sigmoid+1/10",
    "cnn_2": "3/8k3-leaky-relu/4k3-silu+0/4k5-relu+1/10",
    "cnn_3": "3/16k3-relu/8k5-tanh+0/10",
}


def wild_state(run: str, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    widths = [3, *RUNS[run]["w"]]
    shapes: dict[str, tuple[int, ...]] = {}
    for number, kernel in enumerate(RUNS[run]["k"]):
        shapes[f"layers.{number}.weight"] = (widths[number + 1], widths[number], kernel, kernel)
        shapes[f"layers.{number}.bias"] = (widths[number + 1],)
    shapes |= {"fc.weight": (10, widths[-1]), "fc.bias": (10,)}
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def settings(run: str) -> dict[str, Any]:
    return {"activations": RUNS[run]["a"], "residuals": RUNS[run]["r"], "lr": 0.1}


def wild_replica(source: Path, style: str = "config") -> None:
    """In the styles that are assumed: settings in the file, or beside it."""
    for number, run in enumerate(RUNS):
        for step in STEPS:
            content = {"state_dict": wild_state(run, 100 * number + step), "test_acc": step / 100}
            if style == "config":
                path = source / run / f"epoch_{step}.pt"
                content["config"] = settings(run)
            else:
                path = source / run / f"checkpoint_{step:06d}" / "checkpoint.pt"
                content["test_acc"] = np.float64(step / 100)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, path)
        if style != "config":
            (source / run / "params.json").write_text(json.dumps(settings(run)))


def wild_scores(run: str, state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Layer by layer, with the residuals as an identity on the first channels."""
    acts = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "gelu": functional.gelu,
        "none": lambda x: x,
        "sigmoid": torch.sigmoid,
        "leaky_relu": functional.leaky_relu,
        "silu": functional.silu,
    }
    outputs = [images]
    for number, (act, source) in enumerate(zip(RUNS[run]["a"], RUNS[run]["r"], strict=True)):
        weight = state[f"layers.{number}.weight"].double()
        bias = state[f"layers.{number}.bias"].double()
        x = functional.conv2d(outputs[-1], weight, bias, padding="same")
        if source not in (None, -1):
            identity = torch.eye(len(weight), outputs[source].shape[1], dtype=torch.float64)
            x = x + torch.einsum("oi,bihw->bohw", identity, outputs[source])
        outputs.append(acts[act](x))
    pooled = outputs[-1].mean((2, 3))
    return pooled @ state["fc.weight"].double().T + state["fc.bias"].double()


@pytest.mark.parametrize("style", ["config", "folders"])
def test_networks_of_many_architectures(tmp_path: Path, style: str) -> None:
    wild_replica(tmp_path / "park", style)
    population = import_(CnnWildPark(tmp_path / "park"), tmp_path / "out")
    found = [(r["run"], r["step"], r["test_accuracy"], r["architecture"]) for r in population.rows]
    assert found == [(run, step, step / 100, NAMES[run]) for run in RUNS for step in STEPS]
    assert len({(row["run"], row["split"]) for row in population.rows}) == len(RUNS)
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    for index, row in enumerate(population.rows):
        network = WildCNN.of_name(row["architecture"]).double()
        network.load_state_dict(population.state(index))
        state = wild_state(row["run"], 100 * list(RUNS).index(row["run"]) + row["step"])
        expected = wild_scores(row["run"], state, images)
        torch.testing.assert_close(network(images), expected, rtol=1e-9, atol=1e-12)


def test_the_graphs_of_wild_networks_have_programs(tmp_path: Path) -> None:
    wild_replica(tmp_path / "park")
    population = import_(CnnWildPark(tmp_path / "park"), tmp_path / "out")
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    for index in (0, 2, 4):
        graph = population.graph([index]).to(dtype=torch.float64)
        program = graph.spec.program
        assert program is not None
        answer = program.observe(graph.values, [image.unsqueeze(1)], program.outputs)[0]
        row = population.rows[index]
        state = wild_state(row["run"], 100 * list(RUNS).index(row["run"]) + row["step"])
        expected = wild_scores(row["run"], state, image).flatten()
        torch.testing.assert_close(answer.flatten(), expected, rtol=1e-9, atol=1e-9)
    assert task_of(tmp_path / "out").name == "accuracy prediction"


def test_published_splits_by_run(tmp_path: Path) -> None:
    wild_replica(tmp_path / "park")
    path = tmp_path / "splits.json"
    content = {
        "train": {"path": [f"dataset/cnn_park/cnn_0/epoch_{s}.pt" for s in STEPS], "score": [1, 2]},
        "val": {"path": ["cnn_1"]},
        "test": {"path": ["./cnn_2", "cnn_9"]},
    }
    path.write_text(json.dumps(content))
    population = import_(CnnWildPark(tmp_path / "park", path), tmp_path / "out")
    found = {row["run"]: row["split"] for row in population.rows}
    assert found == {"cnn_0": "train", "cnn_1": "val", "cnn_2": "test"}
    card = population.manifest["card"]
    assert card["skipped"] == ["cnn_9: in the file of splits, but there is no such run"]
    assert card["left_out"] == {"of runs in no split of the published file": 2}


def rewrite(path: Path, **changed: Any) -> None:
    content = torch.load(path, weights_only=False)  # a file of this test
    content |= changed
    torch.save({name: value for name, value in content.items() if value is not None}, path)


def test_checkpoints_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    park = tmp_path / "park"
    wild_replica(park)
    for number in range(12):
        (park / f"odd_{number:02d}").mkdir()
    files = [park / f"odd_{number:02d}" / "epoch_10.pt" for number in range(12)]
    source, state = (park / "cnn_0" / "epoch_10.pt").read_bytes(), wild_state("cnn_0", 1)
    for path in files:
        path.write_bytes(source)
    shorten(files[0])
    rewrite(files[1], config=None)
    rewrite(files[2], test_acc=None)
    rewrite(files[3], test_acc=97.5)
    rewrite(files[4], config={"activations": ["relu", "softmin"], "residuals": [-1, -1]})
    rewrite(files[5], config={"activations": ["relu"], "residuals": [-1, -1]})
    rewrite(files[6], config={"activations": ["relu", "relu"], "residuals": [-1, 1]})
    rewrite(files[7], state_dict=state | {"layers.1.bias": torch.full((8,), torch.nan)})
    rewrite(files[8], state_dict=state | {"layers.1.weight": torch.zeros(8, 15, 5, 5)})
    rewrite(files[9], state_dict=state | {"norm.weight": torch.ones(8), "norm.bias": torch.ones(8)})
    rewrite(files[10], state_dict=state | {"layers.0.weight": torch.zeros(16, 3, 2, 2)})
    torch.save(Harmful(str(tmp_path / "ran")), files[11])
    torch.save(state, park / "stray.pt")
    (park / "cnn_1" / "again_10.pt").write_bytes((park / "cnn_1" / "epoch_10.pt").read_bytes())
    population = import_(CnnWildPark(park), tmp_path / "out")
    assert len(population) == len(RUNS) * len(STEPS)
    skipped = dict(line.split(": ", 1) for line in population.manifest["card"]["skipped"])
    reasons = [
        "truncated",
        "no activations or activation in its file or configuration; it has test_acc",
        "no test_acc or test_accuracy in its file or configuration; it has activations",
        "its test accuracy is 97.5, no share of 1",
        "no activation 'softmin' is known",
        "its activations are ['relu'], not a list with one of 2 layers each",
        "layer 2 has the residual 1, not None, -1 or a layer with at least one layer in between",
        "convs.1.bias has NaN",
        "layers have [16, 8] outputs, but the next have [15, 8] inputs",
        "layers of weights of [2, 4, 4, 1] dimensions",
        "a kernel of 2 × 2; wanted are odd squares",
        "",
    ]
    for path, reason in zip(files, reasons, strict=True):
        assert reason in skipped.pop(path.relative_to(park).as_posix())
    assert "wanted are run/step.pt" in skipped.pop("stray.pt")
    assert "again_10.pt is that step" in skipped.pop("cnn_1/epoch_10.pt")
    assert not skipped
    assert not (tmp_path / "ran").exists()


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="absent is no folder"):
        import_(CnnWildPark(tmp_path / "absent"), tmp_path / "out")
    with pytest.raises(ZooError, match="the source is empty"):
        import_(CnnWildPark(tmp_path), tmp_path / "out")
    for name in ("3/10", "3/16k3/10", "a/16k3-relu/10"):
        with pytest.raises(ValueError, match="is no name such as"):
            WildCNN.of_name(name)


def test_the_command_for_the_wild_park(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild_replica(tmp_path / "park")
    arguments = ["cnn-wild-park", str(tmp_path / "park"), "--out", str(tmp_path / "out")]
    assert command(monkeypatch, *arguments) == 0


def test_names_make_the_same_networks() -> None:
    for name in NAMES.values():
        network = WildCNN.of_name(name)
        assert network.name == name
        assert isinstance(network.head, nn.Linear)
