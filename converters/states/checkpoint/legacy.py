"""Reads the formats of ``torch.save`` before 1.6: pickle streams and tar archives."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from torch import UntypedStorage

from .errors import CheckpointError, damage
from .machine import Global, read_pickle
from .mapped import MappedFile, Window
from .meter import Meter
from .tensors import LazyTensor, StorageRef, Store, count, key_of, storage_ref, view_leaf

MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST_RECORDS = 1_000_000


def is_legacy(file: MappedFile) -> bool:
    """Whether the first pickle of a file is the number that marks PyTorch's stream."""
    try:
        start = Window(file.bytes, 0, min(len(file), 32))
        return bool(read_pickle(start, file.meter) == MAGIC)
    except CheckpointError:
        return False


class _MappedStore(Store):
    """Storages at known places of the file.

    Attributes:
        places: by key, where the storage starts and how many bytes it has.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._open: dict[str, UntypedStorage] = {}
        self.places: dict[str, tuple[int, int]] = {}

    def enter(self, stream: Window, ref: StorageRef) -> Window:
        """Notes the storage that starts at the stream: its number of elements, then those.

        Returns:
            The stream behind it.
        """
        (size,) = struct.unpack("<q", stream.read(8))
        count(size, "the size of a storage")
        if size < ref.size:
            raise CheckpointError(
                f"truncated: storage {ref.key[:40]!r} has {size:,} elements, not {ref.size:,}"
            )
        start, length = stream.tell(), size * ref.dtype.itemsize
        if start + length > len(self._file):
            raise CheckpointError(
                f"truncated: storage {ref.key[:40]!r} ends beyond the file; fetch or save it again"
            )
        self.places[ref.key] = start, length
        return Window(self._file.bytes, start + length, len(self._file))

    def open(self, ref: StorageRef) -> UntypedStorage:
        if ref.key not in self.places:
            raise CheckpointError(f"truncated: storage {ref.key[:40]!r} is missing")
        if ref.key not in self._open:
            start, length = self.places[ref.key]
            mapped = self._file.tensor(start, length, ref.dtype.itemsize)
            self._open[ref.key] = mapped.untyped_storage()
        storage = self._open[ref.key]
        if storage.nbytes() < (ref.start + ref.size) * ref.dtype.itemsize:
            raise CheckpointError(f"damaged: storage {ref.key[:40]!r} is too short for its tensors")
        return storage


def read_stream(file: MappedFile) -> tuple[Any, Store]:
    """Reads a stream: magic number, version, system, object, keys of storages, storages.

    Args:
        file: the checkpoint.

    Returns:
        The object, and where its storages are.

    Raises:
        CheckpointError: if the file is truncated, damaged or harmful.
    """
    stream = Window(file.bytes, 0, len(file))
    refs: dict[str, StorageRef] = {}
    read_pickle(stream, file.meter)
    if read_pickle(stream, file.meter) != _PROTOCOL:
        raise CheckpointError("written by a PyTorch whose format is not known; save it again")
    system = read_pickle(stream, file.meter)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise CheckpointError("the weights are stored with the most significant byte first")
    content = read_pickle(stream, file.meter, _references(refs))
    keys = read_pickle(stream, file.meter)
    if not isinstance(keys, list):
        raise CheckpointError("damaged: the list of storages is none")
    store = _MappedStore(file)
    with damage("the list of storages"):
        for key in keys:
            ref = refs.get(key_of(key))
            if ref is None:
                raise CheckpointError(f"damaged: nothing uses storage {key_of(key)[:40]!r}")
            stream = store.enter(stream, ref)
    return content, store


def _references(refs: dict[str, StorageRef]) -> Callable[[Any], Any]:
    def refer(identifier: Any) -> Any:
        kind = identifier[0] if isinstance(identifier, tuple) and identifier else None
        if kind in ("module", b"module") and len(identifier) > 1:
            return identifier[1]  # a class, beside its source code as text
        if kind not in ("storage", b"storage") or len(identifier) != 6:
            raise CheckpointError("damaged: a storage is not described as such")
        _, storage, key, _, size, view = identifier
        whole = storage_ref(storage, key, size)
        refs[whole.key] = whole
        return storage_ref(storage, key, size, view)

    return refer


def is_tar(file: MappedFile) -> bool:
    """Whether the file is a tar archive."""
    return file.bytes[257:262] == b"ustar"


def read_tar(file: MappedFile) -> tuple[Any, Store]:
    """Reads a tar archive of the members ``storages``, ``tensors`` and ``pickle``.

    Args:
        file: the checkpoint.

    Returns:
        The object, and where its storages are.

    Raises:
        CheckpointError: if the file is truncated, damaged, harmful, or another archive.
    """
    members = _members(file)
    if not {"storages", "tensors", "pickle"} <= members.keys():
        raise CheckpointError(
            f"a tar archive that PyTorch did not write (it holds "
            f"{', '.join(list(members)[:3]) or 'nothing'}); unpack it and pass the file within"
        )
    store = _MappedStore(file)
    with damage("the tar archive"):
        storages = _tar_storages(Window(file.bytes, *members["storages"]), file, store)
        stream = Window(file.bytes, *members["tensors"])
        tensors = _tar_tensors(stream, file.meter, store, storages)

    def refer(identifier: Any) -> Any:
        if isinstance(identifier, tuple) and identifier:
            return identifier[0]  # a class, beside its source code as text
        with damage("a reference to a tensor"):
            return tensors[key_of(identifier)]

    return read_pickle(Window(file.bytes, *members["pickle"]), file.meter, refer), store


def _members(file: MappedFile) -> dict[str, tuple[int, int]]:
    """Where every member's content starts and stops."""
    result: dict[str, tuple[int, int]] = {}
    at = 0
    with damage("the tar archive"):
        while at + 512 <= len(file) and file.bytes[at] and len(result) < _MOST_RECORDS:
            header = file.bytes[at : at + 512]
            size = int(header[124:136].strip(b"\0 ") or b"0", 8)
            name = header[:100].rstrip(b"\0").decode("utf-8", "replace").removeprefix("./")
            if size < 0 or at + 512 + size > len(file):
                raise CheckpointError(
                    f"truncated: the member {name[:80]!r} ends beyond the file; fetch it again"
                )
            result[name] = at + 512, at + 512 + size
            at += 512 + (size + 511) // 512 * 512
    return result


def _tar_storages(stream: Window, file: MappedFile, store: _MappedStore) -> dict[str, StorageRef]:
    result: dict[str, StorageRef] = {}
    for _ in range(_records(stream, file.meter)):
        key, _, kind = read_pickle(stream, file.meter)
        ref = storage_ref(kind, key, 0)
        at = stream.tell()
        stream = store.enter(stream, ref)
        (size,) = struct.unpack("<q", Window(file.bytes, at, at + 8).read(8))
        result[ref.key] = StorageRef(ref.key, ref.dtype, size)
    for target, root, start, size in read_pickle(stream, file.meter):
        whole = result[key_of(root)]
        result[key_of(target)] = StorageRef(
            whole.key, whole.dtype, count(size, "a storage"), count(start, "a storage")
        )
    return result


def _tar_tensors(
    stream: Window, meter: Meter, store: Store, storages: dict[str, StorageRef]
) -> dict[str, LazyTensor | StorageRef]:
    result: dict[str, LazyTensor | StorageRef] = dict(storages)
    for _ in range(_records(stream, meter)):
        key, storage, kind = read_pickle(stream, meter)
        if not isinstance(kind, Global):
            raise CheckpointError("damaged: a tensor has no type")
        (dimensions,) = struct.unpack("<i4x", stream.read(8))
        shape = struct.unpack(f"<{dimensions}q", stream.read(8 * dimensions))
        strides = struct.unpack(f"<{dimensions}q", stream.read(8 * dimensions))
        (offset,) = struct.unpack("<q", stream.read(8))
        whole = storages[key_of(storage)]
        result[key_of(key)] = view_leaf(store, whole, offset, shape, strides)
    return result


def _records(stream: Window, meter: Meter) -> int:
    total = count(read_pickle(stream, meter), "a number of records")
    if total > _MOST_RECORDS:
        raise CheckpointError(f"damaged: {total:,} records")
    return total
