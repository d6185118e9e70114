"""Reads a checkpoint of any supported format."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gmn.foundation.arguments import require_path

from .arrays import read_h5
from .choosing import choose
from .errors import CheckpointError, damage
from .legacy import is_legacy, is_tar, read_stream, read_tar
from .machine import read_pickle
from .mapped import MappedFile, Window
from .meter import Meter
from .nested import nested_values
from .safe import file_in_folder, parts_of_index, read_metadata, read_safetensors
from .tensors import LazyTensor, Store
from .values import plain_values
from .zipped import read_zip


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        state: the state dict: tensors on the CPU, of the file's types and strides. Tensors that
            shared memory when they were saved share it again.
        format: what the file is.
        key: where in the file the state dict lay, dotted; empty for the whole file.
        prefix: what was taken off every name, such as ``module.``.
        ignored: what else the file holds: names and, in brackets, what it is.
    """

    state: dict[str, Tensor]
    format: str
    key: str
    prefix: str
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        size = sum(tensor.numel() for tensor in self.state.values())
        lines = [f"{self.format}: {len(self.state)} tensors of {size:,} elements"]
        lines += [f"  read from the key {self.key}"] if self.key else []
        lines += [f"  {self.prefix!r} taken off every name"] if self.prefix else []
        if self.ignored:
            more = f" and {len(self.ignored) - 8} more" if len(self.ignored) > 8 else ""
            lines.append(f"  left out: {', '.join(self.ignored[:8])}{more}")
        return "\n".join(lines)


def load_checkpoint(path: str | os.PathLike[str], *, key: str | None = None) -> dict[str, Tensor]:
    """Reads the state dict of a checkpoint; code in the file never runs.

    The format is recognised by the first bytes, not by the name: PyTorch's zip format, its older
    stream and tar formats, TorchScript archives, plain pickles of tensors or arrays, safetensors, a
    JSON index of several such files, numpy's ``.npz``, HDF5 (needs the extra ``checkpoints``); or a
    folder that holds one of these. Tensors come onto the CPU wherever they were saved.

    What is stored as it is stays mapped from the file: safetensors, PyTorch's zip format and
    uncompressed ``.npz`` where alignment allows. Such tensors take no memory until they are
    read; writing to them does not reach the file, and the file must not be changed meanwhile.
    The checksums of mapped entries are not verified.

    Args:
        path: a file, or a folder with one checkpoint in it.
        key: the dotted path of the state dict in the file, as ``"model.state_dict"``, or of one
            tensor; empty for all tensors of the file. If None, the mapping with the most
            floating-point elements, the first of equals; optimizers do not count.

    Returns:
        Tensors by name, in the order of the file. ``module.`` and ``_orig_mod.`` are taken off
        names if all weights have them.

    Raises:
        CheckpointError: if the file is missing, empty, truncated, damaged, harmful, of an unknown
            format, or without weights; or if a weight is of a kind that cannot be read.

    Example:
        >>> import tempfile, torch, converters
        >>> model = torch.nn.Linear(2, 3)
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save({"epoch": 3, "state_dict": model.state_dict()}, file.name)
        ...     list(converters.load_checkpoint(file.name))
        ['weight', 'bias']
    """
    return read_checkpoint(path, key=key).state


def read_checkpoint(path: str | os.PathLike[str], *, key: str | None = None) -> Checkpoint:
    """Reads a checkpoint as :func:`load_checkpoint` does, and says what was left out.

    Args:
        path: a file, or a folder with one checkpoint in it.
        key: the dotted path of the state dict in the file; None to find it.

    Raises:
        CheckpointError: as :func:`load_checkpoint`.
    """
    file = require_path("path", path)
    try:
        if file.is_dir():
            file = file_in_folder(file)
        name, content, store, meter = _read(file)
        chosen = choose(content, store, meter, key)
        state = _load(chosen.leaves, meter)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from error
    return Checkpoint(state, name, chosen.key, chosen.prefix, chosen.ignored)


def read_values(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint holds beside its tensors, as plain values; code in the file never runs.

    Of safetensors it is the metadata of the header, all of it text. Tensors and arrays of one
    element are numbers, larger ones are left out; classes and functions are their dotted names,
    and objects the mappings of their attributes.

    Args:
        path: a file, or a folder with one checkpoint in it.

    Returns:
        Mappings, lists, text, numbers, truth values and None by name.

    Raises:
        CheckpointError: as :func:`load_checkpoint`, but not for the lack of weights.

    Example:
        >>> import tempfile, torch, converters
        >>> content = {"epoch": 3, "loss": torch.tensor(0.5), "net": {"weight": torch.ones(2, 2)}}
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save(content, file.name)
        ...     converters.read_values(file.name)
        {'epoch': 3, 'loss': 0.5}
    """
    file = require_path("path", path)
    try:
        if file.is_dir():
            file = file_in_folder(file)
        name, content, store, meter = _read(file)
        if name == "safetensors":
            return dict(read_metadata(file))
        values = plain_values(content, store, meter)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from error
    return values if isinstance(values, dict) else {}


def read_nested(path: str | os.PathLike[str]) -> Any:
    """What was given to ``torch.save``, tensors and all; code in the file never runs.

    Args:
        path: a file that ``torch.save`` wrote.

    Returns:
        Dicts, lists, tuples, text, numbers, truth values, None and tensors on the CPU. Keys that
        were whole numbers are text; state dicts keep their ``_metadata``.

    Raises:
        CheckpointError: if the file is missing, damaged or harmful, or holds anything else.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save({"epoch": 3, "rates": [torch.tensor(0.5)]}, file.name)
        ...     read_nested(file.name)
        {'epoch': 3, 'rates': [tensor(0.5000)]}
    """
    try:
        file = _mapped(require_path("path", path))
        _, content, store = read_zip(file)
        with damage("the file"):
            return nested_values(content, store, file.meter)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def _load(leaves: dict[str, LazyTensor], meter: Meter) -> dict[str, Tensor]:
    problems = [f"{name} is {leaf.problem}" for name, leaf in leaves.items() if leaf.problem]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(f"{problems[0]}{more}")
    meter.load(sum(leaf.bytes for leaf in leaves.values()))
    state = {}
    for name, leaf in leaves.items():
        with damage(f"the tensor {name[:80]!r}"):
            state[name] = leaf.load()
    return state


# --- formats ------------------------------------------------------------------------------------


Content = tuple[str, Any, Store | None, Meter]


def _read(path: Path, parts: bool = True) -> Content:
    """The format, the content, its storages, and what reading it may cost.

    ``parts`` says whether the file may be an index of others.
    """
    file = _mapped(path)
    head = file.bytes[:64]
    header = int.from_bytes(head[:8], "little") if head[8:9] == b"{" else None
    if header is not None and header <= len(file):
        return "safetensors", read_safetensors(path), None, file.meter
    for start, reader in _FORMATS:
        if head.startswith(start):
            return (*reader(path, file), file.meter)
    if is_tar(file):
        return "torch tar", *read_tar(file), file.meter
    if head.lstrip()[:1] == b"{" and parts:
        return _read_index(path)
    if header is not None and header < 1 << 32:
        raise CheckpointError("a truncated safetensors file; fetch or save it again")
    raise CheckpointError(_foreign(head))


def _mapped(path: Path) -> MappedFile:
    if not path.exists():
        raise CheckpointError("there is no such file or folder")
    if not path.is_file():
        raise CheckpointError("neither a file nor a folder")
    if path.stat().st_size == 0:
        raise CheckpointError("the file is empty (0 bytes); fetch or save it again")
    return MappedFile(path)


def _read_index(path: Path) -> Content:
    leaves: dict[str, LazyTensor] = {}
    size = 0
    for part, names in parts_of_index(path).items():
        _, content, store, meter = _read(part, parts=False)
        chosen = choose(content, store, meter, None)
        tensors = {chosen.prefix + name: leaf for name, leaf in chosen.leaves.items()}
        absent = sorted(names - tensors.keys())
        if absent:
            raise CheckpointError(
                f"{part.name} lacks {absent[0]!r}, which the index places there; fetch it again"
            )
        leaves |= {name: leaf for name, leaf in tensors.items() if name in names}
        size += part.stat().st_size
    return "several files", leaves, None, Meter(size)


def _zip(_: Path, file: MappedFile) -> tuple[str, Any, Store | None]:
    return read_zip(file)


def _pickle(_: Path, file: MappedFile) -> tuple[str, Any, Store | None]:
    if is_legacy(file):
        return "torch stream", *read_stream(file)
    return "pickle", read_pickle(Window(file.bytes, 0, len(file)), file.meter), None


def _h5(path: Path, file: MappedFile) -> tuple[str, Any, Store | None]:
    leaves = read_h5(path, file)
    return "hdf5", {k: v for k, v in leaves.items() if not k.startswith("optimizer")}, None


_FORMATS: tuple[tuple[bytes, Callable[[Path, MappedFile], tuple[str, Any, Store | None]]], ...] = (
    (b"PK\x03\x04", _zip),
    (b"PK\x05\x06", _zip),
    (b"\x80", _pickle),
    (b"\x89HDF\r\n\x1a\n", _h5),
)

_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run: git lfs pull"),
    (
        b"<",
        "a web page or XML, not a checkpoint; the download led to a page, fetch the file itself",
    ),
    (b"\x93NUMPY", "one numpy array without a name; save with numpy.savez(path, name=array)"),
    (b"GGUF", "a GGUF file of quantised weights; get the original safetensors"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x08", "perhaps an ONNX file, which is not read; save the PyTorch weights instead"),
)


def _foreign(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, reason in _FOREIGN:
        if text.startswith(start):
            return reason
    if not head.strip(b"\0"):
        return "it starts with zeros: an unfinished download; fetch it again"
    return (
        f"no known format: it starts with {head[:12]!r}. Known are PyTorch's formats, "
        "TorchScript, safetensors, npz and HDF5"
    )
