"""Bounds what reading a file may cost, by its size: bytes, objects, depth and time."""

from __future__ import annotations

import time

from .errors import CheckpointError

DEEPEST = 48  # levels of mappings and lists around weights
# The most that may become of a file's bytes: its tensors may overlap or be stretched views, and
# archives may be compressed, but beyond this the file was made to exhaust the reader's memory.
_STRETCH = 100
_ALLOWANCE = 64 << 20
_OBJECTS_PER_BYTE = 1  # files of weights have some 0.3
_FREE_OBJECTS = 300_000
_MOST_OBJECTS = 6_000_000  # of 1,000 tensors and their optimizer: about 100,000
_FREE_SECONDS = 7.0
_BYTES_PER_SECOND = 2 << 20
_SOURCE = "get the weights from a source you trust"


class Meter:
    """What reading one file has cost, and may cost.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = _STRETCH * size + _ALLOWANCE
        self._names = self._bytes
        self._objects = min(_OBJECTS_PER_BYTE * size + _FREE_OBJECTS, _MOST_OBJECTS)
        self._built, self._checked = 0, 0
        self._end = time.thread_time() + _FREE_SECONDS + size / _BYTES_PER_SECOND

    def unpack(self, claimed: int) -> None:
        """Allows an archive's entries, before any is unpacked.

        Raises:
            CheckpointError: if they claim far more bytes than the file has.
        """
        if claimed > self._bytes:
            raise CheckpointError(
                f"a zip bomb: {self._size:,} bytes claim to unpack to {claimed:,}; nothing was "
                f"unpacked. G{_SOURCE[1:]}"
            )

    def load(self, claimed: int, what: str = "its tensors") -> None:
        """Allows tensors, before any is loaded.

        Raises:
            CheckpointError: if they claim far more bytes than the file has.
        """
        if claimed > self._bytes:
            verb = "claim" if what.endswith("s") else "claims"
            raise CheckpointError(
                f"{what} {verb} {claimed:,} bytes, far more than the file has; {_SOURCE}"
            )

    def build(self, count: int = 1) -> None:
        """Allows further objects: instructions carried out, entries looked at or copied.

        Raises:
            CheckpointError: if there are far more than weights need, or they took too long.
        """
        self._built += count
        if self._built > self._objects:
            raise CheckpointError(
                f"its {self._size:,} bytes stand for more than {self._objects:,} objects, far more "
                "than weights need; save the state dict alone"
            )
        if self._built >= self._checked:
            self._checked = self._built + 4096
            if time.thread_time() > self._end:
                raise CheckpointError(
                    f"its {self._size:,} bytes take far longer to read than weights do; save the "
                    "state dict alone"
                )

    def name(self, length: int) -> None:
        """Allows a further name, which may be put together of others.

        Raises:
            CheckpointError: if names fill far more bytes than the file has.
        """
        self.build()
        self._names -= length
        if self._names < 0:
            raise CheckpointError(f"its names fill far more bytes than the file has; {_SOURCE}")
