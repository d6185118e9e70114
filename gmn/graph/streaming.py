"""Writes a parameter graph network by network, in the memory of a few."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from gmn.foundation.files import cannot_write
from gmn.graph.files import WEIGHTS, graph_folder, write_graph
from gmn.graph.parameter_graph import ParameterGraph, StateDictError
from gmn.graph.values import as_real
from gmn.spec import GraphSpec

KEPT_BYTES = 64_000_000  # of networks that wait to be written together


class GraphWriter:
    """Writes what :func:`gmn.save` would write of all networks together.

    Values wait in one file per entry of the state dict, from which the weights are made at the
    end; networks that are mapped from files, however large, are never held in memory.

    Use it in a ``with`` statement; without :meth:`finish` the folder stays as it was.

    Args:
        spec: the architecture of the networks.
        folder: where to write: absent, empty, or holding a graph.

    Raises:
        OutputError: if the folder holds anything else, or cannot be written to.
    """

    def __init__(self, spec: GraphSpec, folder: str | os.PathLike[str]) -> None:
        self.spec, self.count = spec, 0
        self._output = graph_folder(folder)
        self._waiting: list[dict[str, Tensor]] = []
        self._bytes = 0
        self._kinds: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self._parts: dict[str, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        for part in self._parts.values():
            part.unlink(missing_ok=True)
        self._output.close()

    def add(self, graph: ParameterGraph) -> None:
        """Adds networks.

        Args:
            graph: B networks of the architecture.

        Raises:
            ValueError: if they are of another architecture.
            StateDictError: if their numbers have another type than those before.
        """
        if graph.spec != self.spec:
            raise ValueError("these networks are of another architecture")
        values = {
            entry.name: as_real(graph.values[entry.name].detach())
            for entry in self.spec.entries
            if entry.tied_to is None
        }
        kinds = {name: (value.dtype, tuple(value.shape[1:])) for name, value in values.items()}
        for name, (dtype, _) in (self._kinds or kinds).items():
            if kinds[name][0] != dtype:
                raise StateDictError(
                    f"{name} is in {kinds[name][0]}, in the networks before in {dtype}; convert "
                    "them to one type first"
                )
        if not self._parts:
            stem = self._output.path / f".{WEIGHTS}"
            names = enumerate(kinds)
            self._parts = {n: Path(f"{stem}-{i}.{os.getpid()}.gmn-part") for i, n in names}
        self._kinds = kinds
        size = sum(value.nbytes for value in values.values())
        if size < KEPT_BYTES:  # copied, as a file stays open while its values are mapped
            values = {name: value.clone() for name, value in values.items()}
        self._waiting.append(values)
        self._bytes += size
        self.count += len(graph)
        if self._bytes >= KEPT_BYTES:
            self._flush()

    def finish(self) -> None:
        """Makes the files of the graph.

        Raises:
            OutputError: if they cannot be written.
            ValueError: if there are no networks.
        """
        if not self.count:
            raise ValueError("no networks: a graph holds at least one")
        self._flush()
        values = {name: self._mapped(name) for name in self._kinds}
        write_graph(self._output, self.spec, values)

    def _flush(self) -> None:
        try:
            for name in self._kinds:
                with self._parts[name].open("ab") as file:
                    for values in self._waiting:
                        values[name].contiguous().reshape(-1).view(torch.uint8).numpy().tofile(file)
        except OSError as reason:
            raise cannot_write(self._output.path, reason) from reason
        self._waiting, self._bytes = [], 0

    def _mapped(self, name: str) -> Tensor:
        dtype, shape = self._kinds[name]
        path = self._parts[name]
        size = path.stat().st_size
        if not size:
            return torch.empty(self.count, *shape, dtype=dtype)
        flat = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return flat.view(dtype).view(self.count, *shape)
