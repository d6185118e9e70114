"""The Small Transformer Zoo."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gmn.tasks import task_of
from gmn.zoo import SmallTransformerZoo, ZooError
from tests.gmn.importing.replicas import (
    import_,
)

CHECKPOINTS = [  # of run, epoch and accuracy
    ("a1b2", 1, 1135),
    ("a1b2", 75, 9732),
    ("c_3", 75, 980),
    ("c_3", 100, 985),
    ("d4", 75, 10_000),
]


def transformer_state(seed: int) -> dict[str, Tensor]:
    """Under names like those of the publication."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embedding.patches.weight": (32, 1, 4, 4), "embedding.patches.bias": (32,)}
    for block in range(2):
        stem = f"encoder.layers.{block}"
        for kind in ("queries", "keys", "values", "out_projection"):
            shapes[f"{stem}.attention.{kind}.weight"] = (32, 32)
        shapes |= {f"{stem}.fc1.weight": (64, 32), f"{stem}.fc1.bias": (64,)}
        shapes |= {f"{stem}.fc2.weight": (32, 64), f"{stem}.fc2.bias": (32,)}
    shapes |= {"classifier.fc1.weight": (32, 32), "classifier.fc1.bias": (32,)}
    shapes |= {"classifier.fc2.weight": (10, 32), "classifier.fc2.bias": (10,)}
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def transformer_replica(source: Path) -> Path:
    """Writes the checkpoints; returns the path of the table of hyper-parameters."""
    source.mkdir()
    for seed, (run_id, epoch, accuracy) in enumerate(CHECKPOINTS):
        torch.save(transformer_state(seed), source / f"{run_id}_{epoch}_{accuracy}.pt")
    torch.save(transformer_state(0), source / "a1b2_best.pt")
    path = source.parent / "mnist.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["optimizer", "lr", "ckpt_epoch", "ckpt_file", "test_top1_accuracy"])
        for number, (run_id, epoch, accuracy) in enumerate(CHECKPOINTS):
            name = f"mnist/{run_id}_{epoch}_{accuracy}.pt"
            table.writerow(["adam", 0.1 * number, epoch, name, accuracy / 1e4])
    return path


def transformer(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """Scores of one image (28, 28), head by head and token by token."""
    w = {name: value.double() for name, value in state.items()}
    kernel, bias = w["embedding.patches.weight"][:, 0], w["embedding.patches.bias"]
    tokens = []
    for place in range(49):
        i, j = 4 * (place // 7), 4 * (place % 7)
        patch = image[i : i + 4, j : j + 4]
        token = (kernel * patch).sum((1, 2)) + bias
        for pair in range(16):
            angle = torch.tensor(place / 10_000 ** (2 * pair / 32), dtype=torch.float64)
            token[2 * pair] += angle.sin()
            token[2 * pair + 1] += angle.cos()
        tokens.append(token)
    x = torch.stack(tokens)

    def norm(x: Tensor) -> Tensor:
        spread = x.var(1, unbiased=False, keepdim=True) + 1e-5
        return (x - x.mean(1, keepdim=True)) / spread.sqrt()

    for block in range(2):
        stem = f"encoder.layers.{block}"
        q, k, v = (
            norm(x) @ w[f"{stem}.attention.{kind}.weight"].T
            for kind in ("queries", "keys", "values")
        )
        mixed = torch.zeros_like(v)
        for part in (slice(0, 16), slice(16, 32)):
            scores = (q[:, part] @ k[:, part].T / 4).softmax(1)
            mixed[:, part] = scores @ v[:, part]
        x = norm(mixed @ w[f"{stem}.attention.out_projection.weight"].T)
        x = (x @ w[f"{stem}.fc1.weight"].T + w[f"{stem}.fc1.bias"]).clamp(min=0)
        x = x @ w[f"{stem}.fc2.weight"].T + w[f"{stem}.fc2.bias"]
    x = (w["classifier.fc1.weight"] @ x.mean(0) + w["classifier.fc1.bias"]).clamp(min=0)
    return w["classifier.fc2.weight"] @ x + w["classifier.fc2.bias"]


def test_transformers(tmp_path: Path) -> None:
    metadata = transformer_replica(tmp_path / "mnist")
    population = import_(SmallTransformerZoo(tmp_path / "mnist", metadata), tmp_path / "out")
    found = [(row["run"], row["epoch"], row["test_accuracy"]) for row in population.rows]
    assert found == [("a1b2", 75, 0.9732), ("c_3", 75, 0.098), ("d4", 75, 1.0)]
    assert [row["lr"] for row in population.rows] == pytest.approx([0.1, 0.2, 0.4])
    assert population.manifest["card"]["left_out"] == {
        "not at epoch 75": 2,
        "not named run_epoch_accuracy.pt": 1,
    }
    graph = population.graph(range(3)).to(dtype=torch.float64)
    program = graph.spec.program
    assert program is not None
    image = torch.rand(28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    answer = program.observe(graph.values, [image.view(1, 1, 1, 28, 28)], program.outputs)[0]
    for row, seed in enumerate((1, 2, 4)):
        expected = transformer(transformer_state(seed), image)
        # The positions are a constant of the spec, in float32.
        torch.testing.assert_close(answer[row].flatten(), expected, rtol=1e-5, atol=1e-5)
    assert task_of(tmp_path / "out").name == "accuracy prediction"


def test_transformers_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    metadata = transformer_replica(tmp_path / "mnist")
    torch.save(transformer_state(9), tmp_path / "mnist" / "e5_75_9000.pt")
    torch.save(transformer_state(9), tmp_path / "mnist" / "f6_75_10001.pt")
    state = {k: v for k, v in transformer_state(1).items() if "embedding" not in k}
    torch.save(state, tmp_path / "mnist" / "c_3_75_980.pt")
    state = transformer_state(4)
    state["encoder.layers.1.attention.queries.bias"] = torch.zeros(32)
    torch.save(state, tmp_path / "mnist" / "d4_75_10000.pt")
    population = import_(SmallTransformerZoo(tmp_path / "mnist", metadata), tmp_path / "out")
    assert [row["run"] for row in population.rows] == ["a1b2"]
    skipped = population.manifest["card"]["skipped"]
    assert [line.split(":")[0] for line in skipped] == [
        "e5_75_9000.pt",
        "f6_75_10001.pt",
        "c_3_75_980.pt",
        "d4_75_10000.pt",
    ]
    for line, part in zip(
        skipped,
        ("has no row of it", "above 100 %", "networks of AG-News", "block2.queries.bias"),
        strict=True,
    ):
        assert part in line
    with pytest.raises(ZooError, match="7 left out: not at epoch 74"):
        import_(SmallTransformerZoo(tmp_path / "mnist", epoch=74), tmp_path / "other")
    (tmp_path / "bad.csv").write_text("lr\n1\n")
    with pytest.raises(ZooError, match=r"bad\.csv has no column ckpt_file"):
        import_(SmallTransformerZoo(tmp_path / "mnist", tmp_path / "bad.csv"), tmp_path / "other")
