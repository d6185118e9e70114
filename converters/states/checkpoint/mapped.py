"""Memory-mapped files as tensors, without reading their bytes."""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor

from .errors import CheckpointError
from .meter import Meter


class _FileMap(mmap.mmap):
    """A map that zipfile takes for a file; before Python 3.13 a plain one lacks this."""

    def seekable(self) -> bool:
        return True


class MappedFile:
    """The bytes of a file, mapped privately: writing to its tensors never reaches the file.

    Args:
        path: an existing file that is not empty.

    Attributes:
        meter: what reading it may cost.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.bytes = _FileMap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.meter = Meter(len(self.bytes))

    def __len__(self) -> int:
        return len(self.bytes)

    def tensor(self, start: int, size: int, alignment: int = 1) -> Tensor:
        """``size`` bytes from ``start`` as a uint8 tensor with a storage of its own.

        It stays mapped, unless it starts where elements of ``alignment`` bytes may not: then it is
        a copy.

        Raises:
            CheckpointError: if the file ends before.
        """
        if start < 0 or size < 0 or start + size > len(self):
            raise CheckpointError(
                f"truncated: bytes {start} to {start + size} are needed, "
                f"the file has {len(self)}; fetch or save it again"
            )
        if size == 0:
            return torch.empty(0, dtype=torch.uint8)
        mapped = torch.frombuffer(self.bytes, dtype=torch.uint8, count=size, offset=start)
        return mapped.clone() if start % alignment else mapped


class Window:
    """A part of a file as the stream that a pickle is read from; it never reads beyond.

    Args:
        data: bytes, or a map of a file.
        start: first byte.
        stop: one past the last byte.
    """

    _LINE = 1 << 16

    def __init__(self, data: bytes | mmap.mmap, start: int, stop: int) -> None:
        self._data, self._at, self._stop = data, start, stop

    def tell(self) -> int:
        """Position in the data."""
        return self._at

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes.

        Raises:
            CheckpointError: if so many are not left.
        """
        end = self._at + size
        if size < 0 or end > self._stop:
            raise CheckpointError(
                "truncated: the file ends within a pickle; fetch or save it again"
            )
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def byte(self) -> int:
        """The next byte.

        Raises:
            CheckpointError: if none is left.
        """
        at = self._at
        if at >= self._stop:
            raise CheckpointError(
                "truncated: the file ends within a pickle; fetch or save it again"
            )
        self._at = at + 1
        return self._data[at]

    def readline(self) -> bytes:
        """A line with its end.

        Raises:
            CheckpointError: if no line ends within 64 KiB.
        """
        end = self._data.find(b"\n", self._at, min(self._stop, self._at + self._LINE))
        if end < 0:
            raise CheckpointError("damaged: a name in a pickle has no end; fetch or save it again")
        return self.read(end + 1 - self._at)
