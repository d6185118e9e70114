"""Reads arrays from numpy and HDF5 files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import CheckpointError, damage
from .mapped import MappedFile
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
        if isinstance(item, h5py.Dataset):
            leaves[name.replace("/", ".")] = _dataset_leaf(name, item, path, file.limit)

    with damage("the HDF5 file"), h5py.File(path, "r") as opened:
        opened.visititems(visit)
    return leaves


def _dataset_leaf(name: str, item: Any, path: Path, limit: int) -> LazyTensor:
    import h5py

    if item.is_virtual or item.external:
        raise CheckpointError(f"{name} lies in another file; copy it into this one")
    if item.nbytes > limit:
        raise CheckpointError(f"{name} claims {item.nbytes:,} bytes, far more than the file has")
    dtype = np_dtype(f"{item.dtype.kind}{item.dtype.itemsize}", item.dtype.byteorder)
    if dtype is None:
        return unreadable("an array of a type that torch does not have")

    def load() -> Tensor:
        with damage(f"the dataset {name}"), h5py.File(path, "r") as opened:
            return torch.from_numpy(np.asarray(opened[name], dtype.newbyteorder("=")))

    return LazyTensor(
        tuple(item.shape), torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype, load
    )
