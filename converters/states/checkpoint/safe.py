"""Reads safetensors files, and folders and indices of several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .errors import CheckpointError, damage
from .tensors import LazyTensor

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool, "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_LARGEST_INDEX = 256 << 20
_WEIGHTS = ("*.safetensors.index.json", "*.bin.index.json", "*.safetensors")
_PICKLES = ("pytorch_model.bin", "*.pt", "*.pth", "*.ckpt", "*.bin", "*.npz", "*.h5")


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a safetensors file; they stay mapped.

    Args:
        path: of the file.

    Raises:
        CheckpointError: if it is truncated or damaged.
    """
    with damage("the safetensors file"):
        file = safe_open(path, framework="pt")  # stays open, as long as a tensor may be asked for
        return {name: _leaf(file, name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file; empty if there is none.

    Args:
        path: of the file.

    Raises:
        CheckpointError: if it is truncated or damaged.
    """
    with damage("the safetensors file"), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _leaf(file: Any, name: str) -> LazyTensor:
    def load() -> Tensor:
        with damage("the safetensors file"):
            tensor: Tensor = file.get_tensor(name)
            return tensor

    piece = file.get_slice(name)
    kind = str(piece.get_dtype())
    if kind not in _DTYPES:
        return LazyTensor(
            (), torch.uint8, load, f"of the type {kind}, which has no PyTorch counterpart"
        )
    return LazyTensor(tuple(piece.get_shape()), _DTYPES[kind], load)


def parts_of_index(path: Path) -> dict[Path, set[str]]:
    """The files that a JSON index names, and the tensors that it wants from each.

    Args:
        path: a ``*.index.json`` as transformers writes it, with its ``weight_map``.

    Raises:
        CheckpointError: if it is no such file, or names files elsewhere or missing ones.
    """
    if path.stat().st_size > _LARGEST_INDEX:
        raise CheckpointError("a JSON file too large for an index of weights")
    with damage("the JSON file"):
        try:
            index = json.loads(path.read_bytes())
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files:
        raise CheckpointError(
            "a JSON file without weights; pass the checkpoint itself, or its folder"
        )
    result: dict[Path, set[str]] = {}
    for name, file in files.items():
        if not isinstance(file, str) or file in ("", ".", "..") or set("/\\\0") & set(file):
            raise CheckpointError(f"the index names {str(file)[:80]!r}, which is no file beside it")
        result.setdefault(path.parent / file, set()).add(name)
    missing = sorted(part.name for part in result if not part.is_file())
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(result)} files of the index are missing: "
            f"{', '.join(missing[:3])}; fetch them into {path.parent}"
        )
    return result


def file_in_folder(folder: Path) -> Path:
    """The one file in a folder that holds the weights, or is their index.

    Args:
        folder: an existing folder.

    Raises:
        CheckpointError: if there is none, or more than one.
    """
    for pattern in (*_WEIGHTS, _PICKLES[0]):
        matches = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise CheckpointError(_choose(matches))
    matches = sorted({p for pattern in _PICKLES for p in folder.glob(pattern) if p.is_file()})
    if len(matches) != 1:
        raise CheckpointError(_choose(matches) if matches else _nothing(folder))
    return matches[0]


def _choose(matches: list[Path]) -> str:
    names = ", ".join(path.name for path in matches[:5])
    return f"the folder holds {len(matches)} checkpoints ({names}); pass one of them"


def _nothing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())[:5]
    return f"the folder holds no checkpoint (it holds {', '.join(names) or 'nothing'})"
