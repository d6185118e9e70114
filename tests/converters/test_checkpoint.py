"""Checkpoints of every format come back bit for bit, and what is no checkpoint is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import converters
from converters import CheckpointError, load_checkpoint, read_checkpoint
from tests.converters import formats
from tests.converters.formats import FORMATS, network


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].device.type == "cpu"
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    state = network().state_dict()
    path = tmp_path / "weights.any"  # the suffix means nothing
    FORMATS[name](state, path)
    checkpoint = read_checkpoint(path)
    same(checkpoint.state, state)
    assert checkpoint.format == name.removesuffix(" compressed")
    assert checkpoint.ignored == ()


def test_our_tar_archives_are_pytorchs(tmp_path: Path) -> None:
    """The oracle for a format that no current PyTorch writes, but all read."""
    formats.save_tar(network().state_dict(), tmp_path / "a")
    same(torch.load(tmp_path / "a", weights_only=False), network().state_dict())


@pytest.mark.parametrize("name", ["torch zip", "torch stream", "torch tar", "torchscript"])
def test_strides_and_ties_survive(name: str, tmp_path: Path) -> None:
    FORMATS[name](network().state_dict(), tmp_path / "a")
    state = load_checkpoint(tmp_path / "a")
    assert state["0.weight"].stride() == (1, 4)
    assert state["2.weight"].data_ptr() == state["3.weight"].data_ptr()
    assert state["2.weight"].data_ptr() != state["0.weight"].data_ptr()


@pytest.mark.parametrize("save", [formats.save_zip, formats.save_stream])
@pytest.mark.parametrize(
    "value",
    [
        torch.randn(5).bfloat16(),
        torch.randn(5).half(),
        torch.randn(3, 2).to(torch.float8_e4m3fn),
        torch.randn(4, dtype=torch.complex64),
        torch.randn(4, dtype=torch.complex64).conj(),
        torch.randn(4, dtype=torch.complex64).conj().imag,
        torch.tensor(3.0),
        torch.arange(12.0).reshape(3, 4)[1:, ::2],
        torch.arange(3.0).expand(4, 3),
        torch.arange(3).to(torch.uint16),
    ],
    ids=lambda value: f"{value.dtype}-{list(value.shape)}",
)
def test_every_kind_of_tensor(save: Any, value: Tensor, tmp_path: Path) -> None:
    save({"w": torch.randn(2), "x": value, "p": nn.Parameter(torch.ones(2))}, tmp_path / "a")
    found = load_checkpoint(tmp_path / "a")["x"]
    assert found.dtype == value.dtype
    if value.dtype == torch.float8_e4m3fn:
        found, value = found.view(torch.uint8), value.view(torch.uint8)
    assert torch.equal(found.resolve_conj().resolve_neg(), value.resolve_conj().resolve_neg())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.eye(3).to_sparse(), "w is sparse; call to_dense()"),
        (torch.empty(2, device="meta"), "w is on the meta device"),
        (np.array([object()]), "w is an array of Python objects"),
    ],
)
def test_tensors_without_plain_values_are_refused(value: Any, reason: str, tmp_path: Path) -> None:
    torch.save({"w": value, "v": torch.randn(3)}, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"/a: ") as caught:
        load_checkpoint(tmp_path / "a")
    assert reason in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    torch.save(
        {"w": torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)}, tmp_path / "a"
    )
    with pytest.raises(CheckpointError, match="w is quantised; call dequantize"):
        load_checkpoint(tmp_path / "a")


# --- where the weights are ----------------------------------------------------------------------


def wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
    """Ways in which training scripts save weights, by the key that holds them."""
    model = network()
    model.load_state_dict(state)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    model.load_state_dict(state)
    settings = {"lr": 0.1, "layers": [4, 4], "mean": torch.zeros(3)}
    return {
        "": state,
        "model_state_dict": {
            "epoch": 3, "model_state_dict": state, "optimizer": optimizer.state_dict()
        },
        "state_dict": {
            "state_dict": state, "optimizer_states": [optimizer.state_dict()], "config": settings
        },
        "model.state_dict": {"model": {"state_dict": state, "seed": 0}, "step": torch.tensor(3)},
        "net": {"net": model, "ema": state},
        "1": [{"loss": 0.1}, state],
    }  # fmt: skip


@pytest.mark.parametrize("save", [formats.save_zip, formats.save_stream])
@pytest.mark.parametrize("key", wrapped(network().state_dict()))
def test_nesting(key: str, save: Any, tmp_path: Path) -> None:
    state = network().state_dict()
    save(wrapped(state)[key], tmp_path / "a")
    checkpoint = read_checkpoint(tmp_path / "a")
    same(checkpoint.state, state)
    assert checkpoint.key == key
    same(load_checkpoint(tmp_path / "a", key=key), state)


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    torch.save(wrapped(network().state_dict())["model_state_dict"], tmp_path / "a")
    checkpoint = read_checkpoint(tmp_path / "a")
    assert checkpoint.ignored == ("epoch (int)", "optimizer (optimizer)")
    assert "left out: epoch (int), optimizer (optimizer)" in str(checkpoint)


def test_a_key_chooses(tmp_path: Path) -> None:
    small, large = nn.Linear(2, 2).state_dict(), nn.Linear(9, 9).state_dict()
    torch.save({"gan": {"d": small, "g": large}}, tmp_path / "a")
    same(load_checkpoint(tmp_path / "a"), dict(large))
    same(load_checkpoint(tmp_path / "a", key="gan.d"), dict(small))
    assert len(load_checkpoint(tmp_path / "a", key="")) == 4
    with pytest.raises(CheckpointError, match=r"no key 'gan.x': instead of 'x' it has d, g"):
        load_checkpoint(tmp_path / "a", key="gan.x")


def test_weights_spread_over_mappings_need_a_key(tmp_path: Path) -> None:
    tree = {f"layer{i}": {"kernel": torch.randn(3, i + 3)} for i in range(3)}
    tree["last"] = {"matrix": torch.randn(2, 2)}
    tree["layer1"] = {"other": torch.randn(4, 4)}
    torch.save({"params": tree}, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"choose with key= .*'params.layer1' \(16 param"):
        load_checkpoint(tmp_path / "a")
    assert "layer2.kernel" in load_checkpoint(tmp_path / "a", key="params")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.module."])
def test_prefixes_that_all_names_have_are_taken_off(prefix: str, tmp_path: Path) -> None:
    state = {prefix + name: value for name, value in network().state_dict().items()}
    state["n_averaged"] = torch.tensor(7)
    torch.save(state, tmp_path / "a")
    checkpoint = read_checkpoint(tmp_path / "a")
    assert checkpoint.prefix == prefix
    assert checkpoint.state.keys() == {*network().state_dict(), "n_averaged"}


def test_prefixes_that_some_names_have_stay(tmp_path: Path) -> None:
    state = {"module.a": torch.randn(2), "head": torch.randn(2)}
    torch.save(state, tmp_path / "a")
    same(load_checkpoint(tmp_path / "a"), state)


class _Gone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 2)])
        self.last = nn.Linear(3, 2)
        self.last.weight = self.body[1].weight
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.note = {"a": 1}


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_module_of_a_class_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled whole while there was a module with its class."""
    gone = type("Gone", (_Gone,), {"__module__": "gone"})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gone", SimpleNamespace(Gone=gone))
        model = gone()
        state = model.state_dict()
        torch.save(model, tmp_path / "zip")
        torch.save({"m": nn.DataParallel(model)}, tmp_path / "wrapped")
        torch.save(model, tmp_path / "stream", _use_new_zipfile_serialization=False)
    with pytest.raises(ModuleNotFoundError, match="gone"):
        torch.load(tmp_path / "zip", weights_only=False)
    for name in ("zip", "stream", "wrapped"):
        found = load_checkpoint(tmp_path / name)
        same(found, state)
        assert found["last.weight"].data_ptr() == found["body.1.weight"].data_ptr()


def test_tensors_saved_on_a_gpu_come_onto_the_cpu(tmp_path: Path) -> None:
    """The device is a text in the pickle; here it is put there by hand."""
    import zipfile

    torch.save({"w": torch.arange(4.0)}, tmp_path / "cpu")
    with zipfile.ZipFile(tmp_path / "cpu") as old, zipfile.ZipFile(tmp_path / "a", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
                assert b"cuda:0" in content
            new.writestr(name, content)
    same(load_checkpoint(tmp_path / "a"), {"w": torch.arange(4.0)})


def test_keras_files_without_their_optimizer(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a", "w") as file:
        file["model_weights/dense/kernel:0"] = np.ones((2, 3), ">f4")
        file["optimizer_weights/dense/m"] = np.ones((9, 9), "f4")
    assert torch.equal(
        load_checkpoint(tmp_path / "a")["model_weights.dense.kernel:0"], torch.ones(2, 3)
    )


def test_arrays_of_other_orders(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "a.npz", fortran=np.asfortranarray(values), big=values.astype(">f8"))
    same(
        load_checkpoint(tmp_path / "a.npz"), dict.fromkeys(["fortran", "big"], torch.tensor(values))
    )


def test_weights_stay_mapped(tmp_path: Path) -> None:
    """Loading 64 MB takes next to no memory, and writing to it leaves the file alone."""
    torch.save({"w": torch.ones(16 << 20)}, tmp_path / "a")
    formats.save_safetensors({"w": torch.ones(16 << 20)}, tmp_path / "b")
    code = (
        "import resource, converters\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "converters.load_checkpoint('small')\n"
        "for name in 'ab':\n"
        "    before = peak()\n"
        "    state = converters.load_checkpoint(name)\n"
        "    print(peak() - before)\n"
        "    state['w'][0] = 7\n"
    )
    formats.save_zip(network().state_dict(), tmp_path / "small")
    before = [(tmp_path / name).read_bytes() for name in "ab"]
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    grown = [int(line) for line in printed.stdout.split()]
    assert len(grown) == 2
    assert max(grown) < 16 << 10, f"{grown} KiB"
    assert [(tmp_path / name).read_bytes() for name in "ab"] == before


# --- folders and indices ------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["model.safetensors"], ["pytorch_model.bin"], ["last.ckpt"]])
def test_a_folder_with_one_checkpoint(names: list[str], tmp_path: Path) -> None:
    save = formats.save_safetensors if "safetensors" in names[0] else formats.save_zip
    save(network().state_dict(), tmp_path / names[0])
    (tmp_path / "config.json").write_text("{}")
    same(load_checkpoint(tmp_path), network().state_dict())


def test_a_folder_with_an_index(tmp_path: Path) -> None:
    state = network().state_dict()
    formats.save_index(state, tmp_path / "model.safetensors.index.json")
    same(load_checkpoint(tmp_path), state)
    torch.save(dict(list(state.items())[:2]), tmp_path / "one.bin")
    torch.save(dict(list(state.items())[2:]), tmp_path / "two.bin")
    places = {name: "one.bin" if i < 2 else "two.bin" for i, name in enumerate(state)}
    (tmp_path / "x").mkdir()
    for part in ("one.bin", "two.bin"):
        (tmp_path / part).rename(tmp_path / "x" / part)
    index = tmp_path / "x" / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    same(load_checkpoint(tmp_path / "x"), state)


def test_folders_that_say_too_little(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no checkpoint \(it holds nothing\)"):
        load_checkpoint(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save(network().state_dict(), tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds 2 checkpoints \(a.pt, b.pt\)"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ({"w": "../a"}, "is no file beside it"),
        ({"w": "/etc/passwd"}, "is no file beside it"),
        ({"w": ".."}, "is no file beside it"),
        ({"w": 3}, "is no file beside it"),
        ({"w": "missing"}, "1 of 1 files of the index are missing: missing"),
        ({"gone": "part.safetensors"}, "part.safetensors lacks 'gone'"),
        ({"w": "index"}, "no known format"),
        ({}, "a JSON file without weights"),
        ([], "a JSON file without weights"),
    ],
)
def test_indices_that_lead_astray(places: object, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    torch.save({"w": torch.randn(2)}, tmp_path / "a")
    formats.save_safetensors({"w": torch.randn(2)}, folder / "part.safetensors")
    (folder / "index").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(folder / "index")


# --- what is no checkpoint ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"\n  <html>", "a web page"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\x93NUMPY\x01\x00", "one numpy array without a name"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (b"\0" * 100, "an unfinished download"),
        (b'{"a": 1}', "a JSON file without weights"),
        (b"{" * 100_000, "the JSON file is truncated or damaged"),
        (b"Once upon a time", "no known format: it starts with b'Once upon a '"),
        (b"PK\x03\x04rest", "the zip archive is truncated or damaged"),
        (b"\x80", "truncated"),
        (b"\x80\x02.", "the pickle is truncated or damaged"),
        (b"\x80\x02K\x01.", "no floating-point tensors"),
        ((1 << 30).to_bytes(8, "little") + b'{"a":', "a truncated safetensors file"),
    ],
)
def test_other_files_are_named(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "weights.pt")
    assert reason in str(caught.value)
    assert str(tmp_path / "weights.pt") in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_files_without_weights(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3), "b": 1.0}, tmp_path / "a")
    with pytest.raises(CheckpointError, match="no floating-point tensors"):
        load_checkpoint(tmp_path / "a")


def test_other_archives_are_named(tmp_path: Path) -> None:
    import tarfile
    import zipfile

    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"neither PyTorch's data.pkl nor .*readme.txt"):
        load_checkpoint(tmp_path / "a")
    with tarfile.open(tmp_path / "b", "w") as tar:
        tar.add(tmp_path / "a", "readme.txt")
    with pytest.raises(CheckpointError, match=r"a tar archive that PyTorch did not write"):
        load_checkpoint(tmp_path / "b")
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "c.pt2")
    with pytest.raises(CheckpointError, match=r"torch.export"):
        load_checkpoint(tmp_path / "c.pt2")


def test_h5_without_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.save_h5(network().state_dict(), tmp_path / "a")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CheckpointError, match=r"graph-metanetworks\[checkpoints\]"):
        load_checkpoint(tmp_path / "a")


def test_a_loaded_state_makes_the_graph_of_the_module(tmp_path: Path) -> None:
    model = network().eval()
    torch.save({"model": model.state_dict(), "epoch": 1}, tmp_path / "a")
    spec = converters.trace(model, (torch.zeros(2, 3),))
    graph = converters.to_graph(model, (torch.zeros(2, 3),))
    import gmn

    found = gmn.ParameterGraph.from_state_dicts(spec, [load_checkpoint(tmp_path / "a")])
    same(found.to_state_dict(), graph.to_state_dict())
    other = OrderedDict(nn.Linear(2, 2).state_dict())
    torch.save(other, tmp_path / "b")
    with pytest.raises(gmn.StateDictError, match="not a state dict of this architecture: missing"):
        gmn.ParameterGraph.from_state_dicts(spec, [load_checkpoint(tmp_path / "b")])
