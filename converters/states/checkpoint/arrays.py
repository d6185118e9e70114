"""Reads arrays from numpy and HDF5 files."""

from __future__ import annotations

import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError, damage
from .mapped import MappedFile
from .meter import DEEPEST, Meter
from .tensors import LazyTensor, array_leaf, np_dtype, unreadable

_LONGEST_HEADER = 1 << 16


def npy_leaf(content: Tensor) -> LazyTensor:
    """The array of a ``.npy`` file, whose elements stay where they are.

    Args:
        content: the file as uint8.

    Raises:
        CheckpointError: if the file is damaged, or holds pickled objects.
    """
    with damage("the numpy array"):
        stream = io.BytesIO(content[:_LONGEST_HEADER].numpy().tobytes())
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(stream, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject:
        raise CheckpointError(
            "the archive holds pickled Python objects, which are never unpickled; save plain "
            "arrays: numpy.savez(path, **{name: array})"
        )
    if any(size < 0 for size in shape):
        raise CheckpointError(f"damaged: an array has the shape {shape}")
    code = f"{dtype.kind}{dtype.itemsize}"
    data = content[stream.tell() :]
    if data.data_ptr() % dtype.itemsize if dtype.itemsize else False:
        data = data.clone()
    return array_leaf(data, np_dtype(code, dtype.byteorder), tuple(shape), fortran)


def read_h5(path: Path, file: MappedFile) -> dict[str, LazyTensor]:
    """The arrays of an HDF5 file by their path, with dots for slashes; Keras files among them.

    Unlike all other formats this one is read by a library (HDF5, through h5py) that does not
    promise to withstand files made to harm it.

    Args:
        path: of the file.
        file: its bytes.

    Raises:
        CheckpointError: if h5py is not installed, or the file is damaged or points to others.
    """
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError(
            "HDF5 files need h5py: pip install 'graph-metanetworks[checkpoints]'"
        ) from error
    leaves: dict[str, LazyTensor] = {}

    def visit(name: str, item: Any) -> None:
        if name.count("/") > DEEPEST:
            raise CheckpointError(f"damaged: nested more than {DEEPEST} deep at {name[:80]!r}")
        file.meter.build()
        file.meter.name(len(name))
        if isinstance(item, h5py.Dataset):
            leaves[name.replace("/", ".")] = _dataset_leaf(name, item, path, file.meter)

    with damage("the HDF5 file"), h5py.File(path, "r") as opened:
        opened.visititems(visit)
    return leaves


def _dataset_leaf(name: str, item: Any, path: Path, meter: Meter) -> LazyTensor:
    import h5py

    if item.is_virtual or item.external:
        raise CheckpointError(f"{name} lies in another file; copy it into this one")
    meter.load(item.nbytes, name)
    if item.chunks is not None:
        meter.load(math.prod(item.chunks) * item.dtype.itemsize, f"a chunk of {name}")
    dtype = np_dtype(f"{item.dtype.kind}{item.dtype.itemsize}", item.dtype.byteorder)
    if dtype is None:
        return unreadable("an array of a type that torch does not have")

    def load() -> Tensor:
        with damage(f"the dataset {name}"), h5py.File(path, "r") as opened:
            _check_filters(name, opened[name], meter)
            return torch.from_numpy(np.asarray(opened[name], dtype.newbyteorder("=")))

    return LazyTensor(
        tuple(item.shape), torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype, load
    )


_GZIP = 1
_FILTERS = (_GZIP, 2, 3, 32000)  # shuffle, checksums and LZF, whose results are bounded


def _check_filters(name: str, dataset: Any, meter: Meter) -> None:
    """Refuses filters that HDF5 would load as plug-ins, or unpack without a bound.

    HDF5 lets gzip fill as much memory as it wants: so every chunk is unpacked here before, piece
    by piece, until it is longer than a chunk can be.
    """
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if unknown := [number for number in filters if number not in _FILTERS]:
        raise CheckpointError(
            f"{name} is packed by the filter {unknown[0]} of HDF5, which is not read; write it "
            "again with gzip, LZF, or without compression"
        )
    if filters.count(_GZIP) > 1:
        raise CheckpointError(f"{name} is packed by gzip twice; write it again")
    if _GZIP not in filters:
        return
    longest = math.prod(dataset.chunks) * dataset.dtype.itemsize + 64  # and a checksum
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    meter.build(len(chunks))
    for chunk in chunks:
        skipped = chunk.filter_mask >> filters.index(_GZIP) & 1
        packed = dataset.id.read_direct_chunk(chunk.chunk_offset)[1]
        if not skipped and _unpacked(packed, longest) > longest:
            raise CheckpointError(
                f"damaged: a chunk of {name} unpacks to more than its {longest:,} bytes"
            )


def _unpacked(packed: bytes, most: int) -> int:
    """Bytes that gzip makes of a chunk; counted until there are more than ``most``."""
    stream, total = zlib.decompressobj(), 0
    while packed and total <= most:
        total += len(stream.decompress(packed, 1 << 20))
        packed = stream.unconsumed_tail
    return total
