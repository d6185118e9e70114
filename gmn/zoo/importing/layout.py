"""The interface that every published layout implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gmn.zoo.store.files import Row

State = dict[str, Tensor]
Architecture = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Entry:
    """One network of a published zoo.

    Attributes:
        name: its name in messages: its file, or its position in one.
        architecture: A name from :attr:`Layout.architectures`.
        row: its id, split, labels and hyper-parameters.
        place: the file and, for files of many networks, the position in it.
    """

    name: str
    architecture: str
    row: Row
    place: tuple[Path, int]


@dataclass(frozen=True)
class Listing:
    """What a published zoo holds, before any weight is read.

    Attributes:
        entries: the networks to import; ids are unique.
        left_out: number of networks that were not asked for, by reason.
        skipped: networks that were asked for but cannot be read, each with the reason.
        split_rule: where the splits come from, in a sentence.
    """

    entries: tuple[Entry, ...]
    left_out: Mapping[str, int]
    skipped: tuple[str, ...]
    split_rule: str


class Layout(ABC):
    """A published zoo on disk.

    Attributes:
        name: name of the layout.
        reference: the paper whose networks these are.
    """

    name: str
    reference: str

    def __getstate__(self) -> dict[str, Any]:
        """What it takes to read networks in another process.

        Cached properties stay behind: a mapped file would come along with all that is in it.
        """
        cached = {
            name
            for cls in type(self).__mro__
            for name, value in vars(cls).items()
            if isinstance(value, cached_property)
        }
        return {name: value for name, value in vars(self).items() if name not in cached}

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """The options that decide what is imported, as JSON values."""

    @abstractmethod
    def listing(self) -> Listing:
        """What there is to import.

        Raises:
            ZooError: If the files that describe the zoo are missing or damaged.
        """

    @abstractmethod
    def architecture(self, name: str) -> Architecture:
        """A network of an architecture that entries name, and inputs to trace it with."""

    @abstractmethod
    def read(self, entry: Entry) -> State:
        """The weights of one network, under the names of the module of its architecture.

        They may stay mapped from a file.

        Raises:
            ValueError: If they cannot be read; the message says why.
        """
