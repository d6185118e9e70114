"""Writers of every checkpoint format, for tests: a state dict in, a file out."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

State = Mapping[str, Tensor]


def network() -> nn.Sequential:
    """Floating and integer entries, a strided weight, a tied one, and one without elements."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    )
    model[3].weight = model[2].weight
    model[0].weight = nn.Parameter(torch.randn(3, 4).T)
    model.register_buffer("empty", torch.zeros(0, 3))
    return model


def save_zip(state: object, path: Path) -> None:
    torch.save(state, path)


def save_stream(state: object, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_safetensors(state: State, path: Path) -> None:
    save_file({name: value.contiguous().clone() for name, value in state.items()}, path)


def save_npz(state: State, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: value.numpy() for name, value in state.items()})


def save_npz_compressed(state: State, path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **{name: value.numpy() for name, value in state.items()})


def save_h5(state: State, path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in state.items():
            file[name.replace(".", "/")] = value.numpy()


def save_arrays(state: State, path: Path) -> None:
    """A plain pickle of numpy arrays, as some model zoos publish."""
    path.write_bytes(pickle.dumps({k: v.numpy() for k, v in state.items()}, protocol=2))


def save_script(state: State, path: Path) -> None:
    """A scripted copy of the network with these weights."""
    model = network()
    model.load_state_dict(dict(state))
    torch.jit.save(torch.jit.script(model), path)


def save_index(state: State, path: Path) -> None:
    """Two safetensors files and an index, which is written to ``path``."""
    names = list(state)
    places = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(names)}
    for part in sorted(set(places.values())):
        chosen = {name: state[name] for name in names if places[name] == part}
        save_safetensors(chosen, path.parent / part)
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))


class _OldTensor:
    """What a pickle of PyTorch 0.1 refers to by a number."""

    def __init__(self, number: int) -> None:
        self.number = number


class _OldPickler(pickle.Pickler):
    def persistent_id(self, value: object) -> str | None:
        return str(value.number) if isinstance(value, _OldTensor) else None


def save_tar(state: State, path: Path) -> None:
    """The tar archive of PyTorch 0.1: members ``storages``, ``tensors`` and ``pickle``."""
    storages, tensors, pickled = io.BytesIO(), io.BytesIO(), io.BytesIO()
    keys: dict[int, int] = {}
    views = []
    for value in state.values():
        keys.setdefault(value.untyped_storage().data_ptr(), len(keys) + 1)
    first = {keys[v.untyped_storage().data_ptr()]: v for v in reversed(list(state.values()))}
    pickle.dump(len(first), storages, protocol=2)
    for key, value in first.items():
        kind = getattr(torch, f"{_STORAGE_NAMES[value.dtype]}Storage")
        pickle.dump((key, "cpu", kind), storages, protocol=2)
        raw = bytes(value.untyped_storage())
        storages.write(struct.pack("<q", len(raw) // value.element_size()) + raw)
    pickle.dump(views, storages, protocol=2)
    pickle.dump(len(state), tensors, protocol=2)
    names: OrderedDict[str, _OldTensor] = OrderedDict()
    for number, (name, value) in enumerate(state.items(), start=100):
        names[name] = _OldTensor(number)
        key = keys[value.untyped_storage().data_ptr()]
        kind = getattr(torch, f"{_STORAGE_NAMES[value.dtype]}Tensor")
        pickle.dump((number, key, kind), tensors, protocol=2)
        tensors.write(struct.pack("<i4x", value.dim()))
        tensors.write(struct.pack(f"<{value.dim()}q", *value.shape))
        tensors.write(struct.pack(f"<{value.dim()}q", *value.stride()))
        tensors.write(struct.pack("<q", value.storage_offset()))
    _OldPickler(pickled, protocol=2).dump(names)
    system = pickle.dumps({"little_endian": sys.byteorder == "little"}, protocol=2)
    members = {"sys_info": system, "pickle": pickled.getvalue(), "tensors": tensors.getvalue()}
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in {**members, "storages": storages.getvalue()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


_STORAGE_NAMES = {torch.float32: "Float", torch.int64: "Long"}

FORMATS: dict[str, Callable[[State, Path], None]] = {
    "torch zip": save_zip,
    "torch stream": save_stream,
    "torch tar": save_tar,
    "torchscript": save_script,
    "pickle": save_arrays,
    "safetensors": save_safetensors,
    "several files": save_index,
    "npz": save_npz,
    "npz compressed": save_npz_compressed,
    "hdf5": save_h5,
}
