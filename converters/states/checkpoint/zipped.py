"""Reads zip archives: those of ``torch.save`` and ``torch.jit.save``, and numpy's ``.npz``."""

from __future__ import annotations

import struct
import zipfile
from typing import IO, Any, cast

import torch
from torch import Tensor, UntypedStorage

from .arrays import npy_leaf
from .errors import CheckpointError, damage
from .machine import read_pickle
from .mapped import MappedFile, Window
from .tensors import StorageRef, Store, storage_ref

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MOST_ENTRIES = 1_000_000
_LARGEST_PICKLE = 1 << 30
_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """The entries of a zip archive, mapped where they are stored as they are.

    Args:
        file: the archive.

    Raises:
        CheckpointError: if it is damaged, encrypted, or would unpack to far more than it holds.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        with damage("the zip archive"):
            self._zip = zipfile.ZipFile(cast(IO[bytes], file.bytes))
        self.entries = {info.filename: info for info in self._zip.infolist()}
        if len(self.entries) > _MOST_ENTRIES:
            raise CheckpointError(f"the zip archive has {len(self.entries):,} entries: refused")
        file.meter.unpack(sum(info.file_size for info in self.entries.values()))

    def read(self, name: str) -> bytes:
        """The content of a small entry, unpacked and checked."""
        with damage(f"the entry {name[:80]!r}"):
            info = self.entries[name]
            if info.compress_type not in _COMPRESSION:
                # Python unpacks bzip2 and LZMA without a bound, and nothing writes weights so.
                raise CheckpointError(
                    f"the entry {name[:80]!r} is compressed by a method that no format of weights "
                    "has; pack the archive again with deflate, or without compression"
                )
            with self._zip.open(info) as stream:
                return stream.read(info.file_size)  # without a number it may unpack far more

    def tensor(self, name: str, alignment: int = 1) -> Tensor:
        """The content of an entry as uint8, mapped if it is stored as it is.

        Raises:
            CheckpointError: if the entry is missing, damaged, or encrypted.
        """
        info = self.entries.get(name)
        if info is None:
            raise CheckpointError(
                f"truncated: the archive has no entry {name[:80]!r}; fetch or save it again"
            )
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            unpacked = self.read(name)
            return torch.frombuffer(bytearray(unpacked), dtype=torch.uint8) if unpacked else _EMPTY
        return self._file.tensor(self._start(info), info.file_size, alignment)

    def _start(self, info: zipfile.ZipInfo) -> int:
        with damage(f"the entry {info.filename[:80]!r}"):
            magic, name, extra = _LOCAL_HEADER.unpack_from(self._file.bytes, info.header_offset)
        if magic != b"PK\x03\x04" or info.compress_size != info.file_size:
            raise CheckpointError(
                f"damaged: the entry {info.filename[:80]!r} is not where the archive says"
            )
        return int(info.header_offset + _LOCAL_HEADER.size + name + extra)


_EMPTY = torch.empty(0, dtype=torch.uint8)


def read_zip(file: MappedFile) -> tuple[str, Any, Store | None]:
    """Reads a zip archive of any of the known kinds.

    Args:
        file: the archive.

    Returns:
        The format's name, the content, and where its storages are.

    Raises:
        CheckpointError: if it is damaged, harmful, or neither PyTorch's nor numpy's.
    """
    archive = Archive(file)
    if archive.entries and all(name.endswith(".npy") for name in archive.entries):
        leaves = {n.removesuffix(".npy"): npy_leaf(archive.tensor(n)) for n in archive.entries}
        return "npz", leaves, None
    pickles = [name for name in archive.entries if name.endswith("data.pkl")]
    roots = [name.removesuffix("data.pkl") for name in pickles if name.count("/") <= 1]
    if len(roots) != 1:
        raise CheckpointError(_what_else(archive))
    root = roots[0]
    scripted = f"{root}constants.pkl" in archive.entries
    _check_byte_order(archive, root)
    if archive.entries[f"{root}data.pkl"].file_size > _LARGEST_PICKLE:
        raise CheckpointError("its pickle is larger than 1 GiB; save the state dict alone")
    store = _ZipStore(archive, root)
    data = archive.read(f"{root}data.pkl")
    content = read_pickle(Window(data, 0, len(data)), file.meter, _refer)
    return "torchscript" if scripted else "torch zip", content, store


def _check_byte_order(archive: Archive, root: str) -> None:
    name = f"{root}byteorder"
    if name in archive.entries and archive.read(name) != b"little":
        raise CheckpointError(
            "the weights are stored with the most significant byte first; save them again on an "
            "x86 or ARM machine"
        )


def _what_else(archive: Archive) -> str:
    names = " ".join(list(archive.entries)[:1000])
    if "model.json" in names or "archive_format" in names or "serialized_exported" in names:
        return (
            "a TorchScript archive of before 2020 or a torch.export archive; open it with the "
            "PyTorch that wrote it and save its state_dict()"
        )
    return (
        "a zip archive with neither PyTorch's data.pkl nor numpy arrays (it holds "
        f"{', '.join(list(archive.entries)[:3]) or 'nothing'}); unpack it and pass the file within"
    )


def _refer(identifier: Any) -> StorageRef:
    if not (isinstance(identifier, tuple) and len(identifier) == 5 and identifier[0] == "storage"):
        raise CheckpointError("damaged: a storage is not described as such")
    _, kind, key, _, size = identifier  # the device is left out: everything is read on the CPU
    return storage_ref(kind, key, size)


class _ZipStore(Store):
    """Every storage is an entry ``data/KEY``."""

    def __init__(self, archive: Archive, root: str) -> None:
        self._archive, self._root = archive, root
        self._open: dict[str, UntypedStorage] = {}

    def open(self, ref: StorageRef) -> UntypedStorage:
        if ref.key not in self._open:
            content = self._archive.tensor(f"{self._root}data/{ref.key}", ref.dtype.itemsize)
            self._open[ref.key] = content.untyped_storage()
        storage = self._open[ref.key]
        if storage.nbytes() < ref.size * ref.dtype.itemsize:
            raise CheckpointError(
                f"truncated: storage {ref.key[:40]!r} has {storage.nbytes():,} bytes, its tensors "
                f"need {ref.size * ref.dtype.itemsize:,}"
            )
        return storage
