"""Builds tensors from the recorded calls that stand for them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, UntypedStorage

from .errors import CheckpointError
from .machine import Global, RecordedCall

DTYPES = {str(v).removeprefix("torch."): v for v in vars(torch).values() if type(v) is torch.dtype}
STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool, "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.qint8, "QUInt8Storage": torch.quint8, "QInt32Storage": torch.qint32,
    "QUInt4x2Storage": torch.quint4x2, "QUInt2x4Storage": torch.quint2x4,
}  # fmt: skip
_LARGEST = 1 << 48  # no count or offset of a real file is larger
_MOST_DIMENSIONS = 64
_DEEPEST = 8
_LONGEST_KEY = 1000


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is not loaded yet: its shape, type and how to load it.

    Attributes:
        shape: of the tensor.
        dtype: of the tensor.
        load: makes it.
        problem: why it cannot be made; empty if it can.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]
    problem: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of its elements laid out one after the other."""
        return self.size * self.dtype.itemsize


def unreadable(problem: str) -> LazyTensor:
    """A tensor of a kind that is not read, and why."""
    return LazyTensor((), torch.uint8, lambda: torch.empty(0), problem)


@dataclass(frozen=True)
class StorageRef:
    """A run of elements that tensors view.

    Attributes:
        key: its name in the file.
        dtype: of the elements.
        size: number of elements.
        start: first element, where it is a part of the storage of that key.
    """

    key: str
    dtype: torch.dtype
    size: int
    start: int = 0


class Store(ABC):
    """Where the bytes of a file's storages are."""

    @abstractmethod
    def open(self, ref: StorageRef) -> UntypedStorage:
        """The bytes of a storage; the same object for the same storage.

        Raises:
            CheckpointError: if the file does not have that many.
        """

    def tensor(
        self, ref: StorageRef, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> Tensor:
        """A view of a storage."""
        result = torch.empty(0, dtype=ref.dtype)
        if math.prod(shape) == 0:
            return torch.empty(shape, dtype=ref.dtype)
        return result.set_(self.open(ref), ref.start + offset, shape, strides)


def storage_ref(kind: object, key: object, size: object, view: object = None) -> StorageRef:
    """The storage that a pickle refers to.

    Args:
        kind: the storage class, by name.
        key: name of the storage in the file.
        size: number of elements.
        view: None, or (key, first element, number of elements) of a part of it.

    Raises:
        CheckpointError: if this makes no sense.
    """
    name = kind.path.rpartition(".")[2] if isinstance(kind, Global) else ""
    if name not in STORAGES:
        raise CheckpointError(f"damaged: a storage is of the unknown kind {name[:40]!r}")
    whole = StorageRef(key_of(key), STORAGES[name], count(size, "the size of a storage"))
    if view is None:
        return whole
    if not (isinstance(view, (tuple, list)) and len(view) == 3):
        raise CheckpointError("damaged: a part of a storage is not described as such")
    start, part = (count(value, "a part of a storage") for value in view[1:])
    if start + part > whole.size:
        raise CheckpointError("damaged: a part of a storage lies outside of it")
    return StorageRef(whole.key, whole.dtype, part, start)


def count(value: object, what: str) -> int:
    """A count from a file, checked to be a non-negative integer.

    Raises:
        CheckpointError: if it is none.
    """
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise CheckpointError(f"damaged: {what} is not a number that a file could hold")
    return value


def view_leaf(
    store: Store, ref: StorageRef, offset: object, shape: object, strides: object
) -> LazyTensor:
    """A tensor that views a storage.

    Raises:
        CheckpointError: if it reaches beyond the storage.
    """
    begin = count(offset, "a tensor's offset")
    sizes, steps = _counts(shape), _counts(strides)
    if len(sizes) != len(steps):
        raise CheckpointError("damaged: a tensor has not one stride for every dimension")
    last = begin + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if math.prod(sizes) and last >= ref.size:
        raise CheckpointError(
            f"damaged: a tensor of shape {sizes} needs {last + 1:,} elements, its storage "
            f"{ref.key[:40]!r} has {ref.size:,}"
        )
    if "q" in str(ref.dtype):
        return unreadable("quantised; call dequantize() before saving")
    return LazyTensor(sizes, ref.dtype, lambda: store.tensor(ref, begin, sizes, steps))


def _counts(value: object) -> tuple[int, ...]:
    if isinstance(value, RecordedCall) and value.path == "torch.Size" and len(value.arguments) == 1:
        value = value.arguments[0]
    if not isinstance(value, (tuple, list)) or len(value) > _MOST_DIMENSIONS:
        raise CheckpointError("damaged: a tensor's shape is none")
    result = tuple(count(size, "a tensor's shape") for size in value)
    if math.prod(size for size in result if size) >= _LARGEST:
        raise CheckpointError("damaged: a tensor's shape is larger than any file")
    return result


def key_of(value: object) -> str:
    """The key of a storage or tensor as text.

    Raises:
        CheckpointError: if it is neither short text nor a count: others may stand for anything.
    """
    if isinstance(value, (str, bytes)) and len(value) > _LONGEST_KEY:
        raise CheckpointError(f"damaged: the key of a storage has {len(value):,} letters")
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return value if isinstance(value, str) else str(count(value, "the key of a storage"))


def read_leaf(node: object, store: Store, depth: int = 0) -> LazyTensor | None:
    """The tensor that a node of a pickle stands for, or None if it stands for none.

    Args:
        node: any value that :func:`converters.states.checkpoint.machine.read_pickle` gives.
        store: where the bytes are.
        depth: how many wrappers were taken off.

    Raises:
        CheckpointError: if it is a tensor that makes no sense.
    """
    if isinstance(node, LazyTensor):
        return node
    if not isinstance(node, RecordedCall) or depth > _DEEPEST:
        return None
    if node.path in _VIEWS:
        return _read_view(node, store)
    if node.path in _WRAPPERS:
        position = _WRAPPERS[node.path]
        if len(node.arguments) <= position:
            return None
        return read_leaf(node.arguments[position], store, depth + 1)
    if node.path == "torch._tensor._rebuild_from_type_v2" and len(node.arguments) > 2:
        function, _, arguments = node.arguments[:3]
        if isinstance(function, Global) and isinstance(arguments, tuple):
            return read_leaf(RecordedCall(function, arguments), store, depth + 1)
    if node.path in _ARRAYS:
        return _read_array(node)
    return unreadable(_OTHERS[node.path]) if node.path in _OTHERS else None


_VIEWS = {
    "torch._utils._rebuild_tensor": None,
    "torch._utils._rebuild_tensor_v2": 6,
    "torch._utils._rebuild_tensor_v3": 7,
}  # position of the metadata
_WRAPPERS = {
    "torch._utils._rebuild_parameter": 0,
    "torch._utils._rebuild_parameter_with_state": 0,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": 0,
    "torch._utils._rebuild_device_tensor_from_numpy": 0,
    "torch._utils._rebuild_xla_tensor": 0,
    "torch.nn.parameter.Parameter": 0,
    "torch.nn.parameter.Buffer": 0,
    "torch.autograd.variable.Variable": 0,
}
_ARRAYS = {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
_OTHERS = {
    "torch._utils._rebuild_qtensor": "quantised; call dequantize() before saving",
    "torch._utils._rebuild_sparse_tensor": "sparse; call to_dense() before saving",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse; call to_dense() before saving",
    "torch._utils._rebuild_nested_tensor": "a nested tensor; save its parts",
    "torch._utils._rebuild_meta_tensor_no_storage": "on the meta device, without values",
    "torch._utils._rebuild_wrapper_subclass": "of a wrapper class; save a plain tensor",
}


def _read_view(node: RecordedCall, store: Store) -> LazyTensor:
    if len(node.arguments) < 4:
        raise CheckpointError("damaged: a tensor is described incompletely")
    ref, offset, shape, strides = node.arguments[:4]
    if not isinstance(ref, StorageRef):
        raise CheckpointError("damaged: a tensor has no storage")
    if node.path.endswith("v3"):
        ref = _retyped(ref, node.arguments[6] if len(node.arguments) > 6 else None)
    leaf = view_leaf(store, ref, offset, shape, strides)
    index = _VIEWS[node.path]
    metadata = node.arguments[index] if index and len(node.arguments) > index else None
    if not isinstance(metadata, dict) or leaf.problem:
        return leaf
    return LazyTensor(leaf.shape, leaf.dtype, lambda: _conjugated(leaf.load(), metadata))


def _retyped(ref: StorageRef, dtype: object) -> StorageRef:
    name = dtype.path.removeprefix("torch.") if isinstance(dtype, Global) else ""
    if name not in DTYPES:
        raise CheckpointError(f"a tensor is of the unknown type {name[:40]!r}; convert it first")
    size = DTYPES[name].itemsize
    if ref.start:
        raise CheckpointError("damaged: a part of a storage is of another type")
    return StorageRef(ref.key, DTYPES[name], ref.size * ref.dtype.itemsize // size)


def _conjugated(tensor: Tensor, metadata: dict[str, Any]) -> Tensor:
    tensor = tensor.conj() if metadata.get("conj") is True else tensor
    return tensor.neg() if metadata.get("neg") is True else tensor


def _read_array(node: RecordedCall) -> LazyTensor | None:
    """A numpy array: its state is (version, shape, type, whether in Fortran order, bytes)."""
    state = node.state
    if not (isinstance(state, tuple) and len(state) == 5):
        return None
    _, shape, kind, fortran, data = state
    code = kind.arguments[0] if isinstance(kind, RecordedCall) and kind.arguments else None
    order = (
        kind.state[1] if isinstance(kind, RecordedCall) and isinstance(kind.state, tuple) else "|"
    )
    data = encoded(data)
    if not isinstance(code, str) or data is None:
        return unreadable("an array of Python objects, which are never unpickled")
    return array_leaf(data, np_dtype(code, order), _counts(shape), fortran is True)


def encoded(data: object) -> bytes | str | None:
    """Bytes, or the text that they are, one letter each: a file may use one text many times.

    Protocol 2 writes bytes as ``_codecs.encode(text, "latin1")``, and none as ``bytes()``.
    """
    if isinstance(data, (bytes, str)):
        return data
    if isinstance(data, RecordedCall) and data.path in ("builtins.bytes", "__builtin__.bytes"):
        return b"" if not data.arguments else None
    if isinstance(data, RecordedCall) and data.path == "_codecs.encode" and data.arguments:
        text = data.arguments[0]
        return text if isinstance(text, str) else None
    return None


def as_bytes(data: bytes | str) -> bytes:
    """What :func:`encoded` found, as bytes."""
    return data if isinstance(data, bytes) else data.encode("latin1", "replace")


def np_dtype(code: str, order: object = "|") -> np.dtype[Any] | None:
    """The numpy type of a code such as ``f4``, or None if torch has none such."""
    if code not in _NUMPY:
        return None
    return np.dtype(code).newbyteorder(">" if order == ">" else "<")


_NUMPY = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"}


def array_leaf(
    data: Any, dtype: np.dtype[Any] | None, shape: tuple[int, ...], fortran: bool
) -> LazyTensor:
    """A tensor of an array's bytes, without a copy where they can be used as they are.

    Args:
        data: the bytes: bytes, text of as many letters, or a uint8 tensor.
        dtype: type of the elements; None if torch has none such.
        shape: of the array.
        fortran: whether the first index runs fastest.

    Raises:
        CheckpointError: if the number of bytes is not that of the shape.
    """
    if dtype is None:
        return unreadable("an array of a type that torch does not have")
    if math.prod(size for size in shape if size) >= _LARGEST:
        raise CheckpointError(f"damaged: an array has the shape {shape}, larger than any file")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise CheckpointError(
            f"damaged: an array of shape {shape} and type {dtype} has {len(data):,} bytes"
        )

    def load() -> Tensor:
        if isinstance(data, Tensor):
            raw = data.numpy()
        else:
            raw = np.frombuffer(bytearray(as_bytes(data)), np.uint8)
        array = raw.view(dtype) if raw.size else np.empty(0, dtype)
        if dtype.byteorder == ">":
            array = array.astype(dtype.newbyteorder("<"))
        flat = torch.from_numpy(array)
        if not fortran:
            return flat.reshape(shape)
        return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape))))

    return LazyTensor(shape, torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype, load)
