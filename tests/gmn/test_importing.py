"""Published zoos: small replicas in the exact layout come in with nothing changed or lost."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gmn import cli, zoo
from gmn.tasks import task_of
from gmn.zoo import DwsInrs, NfnSirens, SmallCnnZoo, SmallTransformerZoo, ZooError
from gmn.zoo.importing import Layout, named_layout, run
from gmn.zoo.networks import SmallCNN

# --- the Small CNN Zoo: networks of three steps each, every third of them at the last one --------

NETWORKS, STEPS = 24, (0, 40, 86)
SHAPES = {  # in the order of the published rows: biases first
    "sequential/conv2d/bias:0": (16,),
    "sequential/conv2d/kernel:0": (3, 3, 1, 16),
    "sequential/conv2d_1/bias:0": (16,),
    "sequential/conv2d_1/kernel:0": (3, 3, 16, 16),
    "sequential/conv2d_2/bias:0": (16,),
    "sequential/conv2d_2/kernel:0": (3, 3, 16, 16),
    "sequential/dense/bias:0": (10,),
    "sequential/dense/kernel:0": (16, 10),
}


def cnn_replica(folder: Path, compressed: bool = True) -> np.ndarray:
    """Writes the three files; returns the weights."""
    folder.mkdir()
    rows = NETWORKS * len(STEPS)
    weights = 0.3 * np.random.default_rng(0).standard_normal((rows, 4970)).astype(np.float32)
    np.save(folder / "weights.npy", weights)
    with (folder / "layout.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["varname", "start_idx", "end_idx", "shape"])
        start = 0
        for name, shape in SHAPES.items():
            table.writerow([name, start, start + int(np.prod(shape)), str(shape)])
            start += int(np.prod(shape))
    write_metrics(folder, compressed)
    return weights


def write_metrics(folder: Path, compressed: bool = True, **changed: dict[int, str]) -> None:
    columns = ["", "step", "test_accuracy", "config.activation", "config.l2reg", "row"]
    lines = []
    for row in range(NETWORKS * len(STEPS)):
        cells = {
            "": str(row),
            "step": str(STEPS[row % 3]),
            "test_accuracy": str(0.1 + row / 100),
            "config.activation": ("relu", "tanh")[row // 3 % 2],
            "config.l2reg": "" if row == 2 else "1e-06",
            "row": "nine",
        }
        lines.append([changed.get(key, {}).get(row, cells[key]) for key in columns])
    opener = gzip.open if compressed else open
    with opener(folder / f"metrics.csv{'.gz' if compressed else ''}", "wt", newline="") as file:
        csv.writer(file).writerows([columns, *lines])


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


def import_(layout: Layout, out: Path) -> zoo.Zoo:
    return zoo.import_zoo(layout, out, progress=False)


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


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


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
    with pytest.raises(ValueError, match="no activation 'gelu'; known: relu, tanh"):
        SmallCnnZoo(tmp_path, activation="gelu")


# --- SIRENs ----------------------------------------------------------------------------------


def siren_layers(seed: int, outputs: int = 1) -> list[nn.Linear]:
    torch.manual_seed(seed)
    return [nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, outputs)]


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


def dws_replica(source: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        folder = source / name / "checkpoints"
        folder.mkdir(parents=True)
        state = {}
        for number, layer in enumerate(siren_layers(seed)):
            state[f"seq.{number}.weight"] = layer.weight.detach()
            state[f"seq.{number}.bias"] = layer.bias.detach()
        torch.save(state, folder / "model_final.pth")


NAMES = [f"mnist_png_training_{i % 3}_{i}" for i in range(7)] + [
    f"mnist_png_testing_{i % 3}_{i}" for i in range(3)
]


def dws_splits(path: Path, form: str) -> Path:
    lists = {"train": NAMES[:4], "val": NAMES[4:7], "test": NAMES[7:]}
    paths = {
        split: [f"/home/someone/mnist-inrs/{name}/checkpoints/model_final.pth" for name in names]
        for split, names in lists.items()
    }
    content = {k: {"path": v, "label": ["?"] * len(v)} for k, v in paths.items()}
    path.write_text(json.dumps(content if form == "objects" else paths))
    return path


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
        ("truncated", "no such file", "layer2.bias has NaN", "has shape (1, 2), not (32, 2)", ""),
        strict=True,
    ):
        assert part in reason
    assert not (tmp_path / "ran" / "it").exists()


class Harmful:
    """A pickle of this touches a file when it is opened by an ordinary reader."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


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


NFN_FILES = [  # folder, image
    ("randinit_smaller_0s", 44_999),
    ("randinit_smaller_1s", 45_000),
    ("randinit_smaller_1s", 49_999),
    ("randinit_smaller_2s", 50_000),
    ("randinit_smaller_2s", 7),
    ("randinit_smaller_aug0_2s", 7),
    ("randinit_smaller_aug12_2s", 7),
    ("randinit_smaller_aug0_2s", 50_000),
]


def nfn_replica(source: Path, outputs: int = 1) -> None:
    for seed, (folder, image) in enumerate(NFN_FILES):
        (source / folder).mkdir(parents=True, exist_ok=True)
        layers = siren_layers(seed, outputs)
        names = ("net.0.linear", "net.1.linear", "net.2")
        state = {}
        for name, layer in zip(names, layers, strict=True):
            state[f"{name}.weight"] = layer.weight.detach()
            state[f"{name}.bias"] = layer.bias.detach()
        torch.save(state, source / folder / f"net{image}.pth")


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


# --- transformers --------------------------------------------------------------------------------

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


# --- all layouts ---------------------------------------------------------------------------------


def test_an_import_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "mnist-inrs"
    dws_replica(source, NAMES)
    broken = source / NAMES[0] / "checkpoints" / "model_final.pth"
    broken.write_bytes(broken.read_bytes()[:300])
    monkeypatch.setattr(run, "SHARD_SIZE", 3)
    whole = import_(DwsInrs(source), tmp_path / "whole")
    read, reads = DwsInrs.read, []

    def stopping(self: DwsInrs, entry: object) -> object:
        reads.append(entry)
        if len(reads) == 8:
            raise KeyboardInterrupt
        return read(self, entry)

    monkeypatch.setattr(DwsInrs, "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_(DwsInrs(source), tmp_path / "out")
    with pytest.raises(ZooError, match="unfinished"):
        zoo.open(tmp_path / "out")
    reads.clear()
    reads += [None] * 100
    again = import_(DwsInrs(source), tmp_path / "out")
    assert len(reads) - 100 == 4 + 1  # two shards were there; one network is read to say why not
    assert again.rows == whole.rows
    assert again.manifest["card"] == whole.manifest["card"]
    for index in range(len(whole)):
        for name, value in whole.state(index).items():
            assert torch.equal(again.state(index)[name], value)
    reads.clear()
    reads += [None] * 100
    assert import_(DwsInrs(source), tmp_path / "out").rows == whole.rows
    assert len(reads) == 100


def test_an_import_does_not_go_on_with_another_source(tmp_path: Path) -> None:
    nfn_replica(tmp_path / "wts")
    import_(NfnSirens(tmp_path / "wts"), tmp_path / "out")
    with pytest.raises(ZooError, match="already holds a zoo"):
        import_(NfnSirens(tmp_path / "wts", copies=True), tmp_path / "out")
    shorten(tmp_path / "wts" / "randinit_smaller_2s" / "net7.pth")
    with pytest.raises(ZooError, match="already holds a zoo"):
        import_(NfnSirens(tmp_path / "wts"), tmp_path / "out")


def test_a_source_without_a_good_network_is_refused(tmp_path: Path) -> None:
    dws_replica(tmp_path / "data", NAMES[:1])
    (tmp_path / "data" / NAMES[0] / "checkpoints" / "model_final.pth").write_bytes(b"")
    with pytest.raises(ZooError, match=r"no network can be used: .*the file is empty"):
        import_(DwsInrs(tmp_path / "data"), tmp_path / "out")


def test_tasks_on_imported_zoos(tmp_path: Path) -> None:
    cnn_replica(tmp_path / "cifar")
    import_(SmallCnnZoo(tmp_path / "cifar"), tmp_path / "cnns")
    accuracy = task_of(tmp_path / "cnns")
    assert accuracy.name == "accuracy prediction"
    assert sum(len(b) for s in ("train", "val", "test") for b in accuracy.split(s)) == NETWORKS
    dws_replica(tmp_path / "mnist-inrs", NAMES)
    import_(DwsInrs(tmp_path / "mnist-inrs"), tmp_path / "inrs")
    classes = task_of(tmp_path / "inrs")
    assert (classes.name, classes.outputs) == ("INR classification", 3)
    assert classes.split("test")[0].target.tolist() == [0, 1, 2]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["gmn", "zoo", "import", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "mnist-inrs", str(tmp_path / "out")
    dws_replica(source, NAMES)
    (source / NAMES[0] / "checkpoints" / "model_final.pth").write_bytes(b"")
    splits = str(dws_splits(tmp_path / "splits.json", "objects"))
    assert command(monkeypatch, "dws-inrs", str(source), "--splits", splits, "--out", out) == 0
    printed = capsys.readouterr().out.replace("\n", "")
    assert f"skipped {NAMES[0]}/checkpoints/model_final.pth" in printed
    assert "the file is empty" in printed
    assert len(zoo.open(out)) == len(NAMES) - 1
    assert command(monkeypatch, "dws-inrs", str(source), "--copies", "--out", out) == 2
    assert "dws-inrs has no option 'copies'" in capsys.readouterr().err
    assert command(monkeypatch, "nothing", str(source), "--out", out) == 2
    assert (
        "known: small-cnn-zoo, dws-inrs, nfn-sirens, small-transformer-zoo"
        in capsys.readouterr().err
    )


def test_named_layouts_take_their_own_options(tmp_path: Path) -> None:
    layout = named_layout("nfn-sirens", tmp_path, {"copies": True, "splits": None})
    assert isinstance(layout, NfnSirens)
    assert layout.copies
    with pytest.raises(ValueError, match="nfn-sirens has no option 'splits'; it has: copies"):
        named_layout("nfn-sirens", tmp_path, {"splits": "a.json"})
    zeroth = named_layout("small-transformer-zoo", tmp_path, {"epoch": 0, "copies": False})
    assert zeroth.configuration()["epoch"] == 0
