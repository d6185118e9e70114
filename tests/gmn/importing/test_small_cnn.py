"""The Small CNN Zoo."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from gmn.zoo import SmallCnnZoo, ZooError
from gmn.zoo.architectures.networks import SmallCNN
from tests.gmn.importing.replicas import (
    NETWORKS,
    SHAPES,
    cnn_replica,
    import_,
    shorten,
    write_metrics,
)


def split_file(path: Path, numbers: list[int]) -> Path:
    path.write_text("".join(f"{number}\n" for number in (0, *numbers)))
    return path


def numpy_cnn(row: np.ndarray, images: np.ndarray, activation: str) -> np.ndarray:
    """Scores of images (B, height, width, 1): Keras' layers, loop by loop."""
    tensors, start = {}, 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        tensors[name.removeprefix("sequential/")] = row[start : start + size].reshape(shape)
        start += size
    act = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[activation]
    x = images
    for layer in ("conv2d", "conv2d_1", "conv2d_2"):
        kernel, bias = tensors[f"{layer}/kernel:0"], tensors[f"{layer}/bias:0"]
        size = (x.shape[1] - 3) // 2 + 1
        out = np.zeros((len(x), size, size, 16))
        for i in range(size):
            for j in range(size):
                patch = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                out[:, i, j] = np.tensordot(patch, kernel, axes=3) + bias
        x = act(out)
    return x.mean((1, 2)) @ tensors["dense/kernel:0"] + tensors["dense/bias:0"]


@pytest.mark.parametrize("compressed", [True, False])
def test_small_cnns_compute_what_the_published_rows_do(tmp_path: Path, compressed: bool) -> None:
    weights = cnn_replica(tmp_path / "cifar", compressed)
    population = import_(SmallCnnZoo(tmp_path / "cifar"), tmp_path / "out")
    assert [row["id"] for row in population.rows] == [f"{r:06d}" for r in range(2, 72, 3)]
    images = np.random.default_rng(1).standard_normal((2, 32, 32, 1))
    for index, row in enumerate(population.rows):
        module = SmallCNN(row["activation"], padding=0).double()
        module.load_state_dict(population.state(index))
        scores = module(torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
        expected = numpy_cnn(weights[int(row["id"])].astype(float), images, row["activation"])
        np.testing.assert_allclose(scores, expected, rtol=1e-10, atol=1e-12)


def test_small_cnns_keep_labels_and_hyper_parameters(tmp_path: Path) -> None:
    cnn_replica(tmp_path / "cifar")
    population = import_(SmallCnnZoo(tmp_path / "cifar"), tmp_path / "out")
    first = population.rows[0]
    assert first["test_accuracy"] == pytest.approx(0.12)
    assert (first["step"], first["activation"], first["l2reg"]) == (86.0, "relu", None)
    assert population.rows[1]["l2reg"] == 1e-06
    assert first["row"] == 0  # the zoo's own; the published column has another name
    assert first["published_row"] == "nine"
    assert population.architectures == ["keras-cnn-relu", "keras-cnn-tanh"]
    assert population.manifest["card"]["left_out"] == {"not at the last step, 86": 48}


def test_the_graphs_of_small_cnns_have_programs(tmp_path: Path) -> None:
    weights = cnn_replica(tmp_path / "cifar")
    population = import_(SmallCnnZoo(tmp_path / "cifar", activation="tanh"), tmp_path / "out")
    assert population.architectures == ["keras-cnn-tanh"]
    graph = population.graph([0, 3]).to(dtype=torch.float64)
    program = graph.spec.program
    assert program is not None
    images = np.random.default_rng(1).standard_normal((2, 32, 32, 1))
    given = torch.from_numpy(images).permute(0, 3, 1, 2).unsqueeze(1)  # two runs of one image
    answer = program.observe(graph.values, [given], program.outputs)[0].flatten(2)
    chosen = [int(population.rows[index]["id"]) for index in (0, 3)]
    expected = [numpy_cnn(weights[row].astype(float), images, "tanh") for row in chosen]
    np.testing.assert_allclose(answer.numpy(), np.stack(expected), rtol=1e-9, atol=1e-11)


def test_published_splits_of_small_cnns(tmp_path: Path) -> None:
    """Filtered first, then halved; the first half shuffled by ``random.Random(0)``."""
    cnn_replica(tmp_path / "cifar")
    order = list(range(72))
    random.Random(5).shuffle(order)
    path = split_file(tmp_path / "cifar_split.csv", order)
    layout = SmallCnnZoo(tmp_path / "cifar", splits=path, activation="relu")
    population = import_(layout, tmp_path / "out")
    wanted = [row for row in order if row % 6 == 2]  # of the last step, and of ReLU
    first = wanted[:6]
    random.Random(0).shuffle(first)
    found = {
        split: {int(row["id"]) for row in population.rows if row["split"] == split}
        for split in ("train", "val", "test")
    }
    assert found == {"train": set(first[:4]), "val": set(first[4:]), "test": set(wanted[6:])}


def test_small_cnns_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    weights = cnn_replica(tmp_path / "cifar")
    weights[5, 100] = np.nan
    np.save(tmp_path / "cifar" / "weights.npy", weights)
    write_metrics(tmp_path / "cifar", test_accuracy={8: "nan"})
    population = import_(SmallCnnZoo(tmp_path / "cifar"), tmp_path / "out")
    assert len(population) == NETWORKS - 2
    assert population.manifest["card"]["skipped"] == [
        "weights.npy row 8: its test_accuracy is no finite number",
        "weights.npy row 5: conv1.weight has NaN or infinite values",
    ]


def test_a_truncated_file_of_small_cnns_is_named(tmp_path: Path) -> None:
    for name in ("weights.npy", "metrics.csv.gz", "layout.csv"):
        folder = tmp_path / name.partition(".")[0]
        cnn_replica(folder)
        shorten(folder / name)
        with pytest.raises(ZooError, match=rf"{name}.*(unpack|has 7 tensors|has 3 layers)"):
            import_(SmallCnnZoo(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_files_of_small_cnns_are_named(tmp_path: Path) -> None:
    weights = cnn_replica(tmp_path / "cifar")
    other = split_file(tmp_path / "other.csv", list(range(71)))
    with pytest.raises(ZooError, match=r"other\.csv does not order the 72 rows"):
        import_(SmallCnnZoo(tmp_path / "cifar", splits=other), tmp_path / "out")
    np.save(tmp_path / "cifar" / "weights.npy", weights[:70])
    with pytest.raises(ZooError, match="has 70 rows, but the metrics have 72"):
        import_(SmallCnnZoo(tmp_path / "cifar"), tmp_path / "out")
    with pytest.raises(ZooError, match=r"no metrics\.csv"):
        import_(SmallCnnZoo(tmp_path), tmp_path / "out")
    with pytest.raises(ValueError, match="activation is 'gelu'; it is one of relu, tanh"):
        SmallCnnZoo(tmp_path, activation="gelu")
