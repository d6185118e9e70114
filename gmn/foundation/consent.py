"""Decides which code may run because a file names it: what is installed, and what the user trusts.

A trained model's card names a model and a task. Names that installed packages offer are followed.
Any other module would be a stranger's code with the user's rights: it runs if the user named it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

from gmn.errors import ConsentError

_OWN = ("gmn", "converters", "baselines")
_HOME = Path(__file__).parents[2]


@dataclass(frozen=True)
class Consent:
    """The user's word on what a file may import.

    Attributes:
        file: that names the code.
        trusted: modules, or packages with all that is in them.
    """

    file: Path
    trusted: Collection[str] = ()

    def attribute(self, reference: str) -> Any:
        """The object at ``module:name``, if the module is trusted.

        It is imported from where Python finds it; the current folder is not added to these places.

        Raises:
            ConsentError: if the module is not trusted.
            ValueError: if it cannot be imported or has no such name, or the reference is none.
        """
        module, _, name = reference.partition(":")
        if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(f"{self.file} names {reference[:80]!r}, which is no module:name")
        if not self._covers(module):
            raise ConsentError(self._refusal(reference, "no installed package offers it"))
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{reference}: {error}. The current folder is not searched for what a file names: "
                "install the package, or put its folder into PYTHONPATH"
            ) from error
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{reference}: {error}") from error

    def load(self, point: EntryPoint) -> Any:
        """The object of an entry point, unless a file in the current folder takes its place.

        Raises:
            ConsentError: if Python would import another module than the installed one.
        """
        if self._covers(point.module) or not _is_shadowed(point.module):
            return point.load()
        why = "the current folder holds it in the place of what is installed"
        raise ConsentError(self._refusal(point.value, why))

    def _covers(self, module: str) -> bool:
        return any(module == name or module.startswith(f"{name}.") for name in self.trusted)

    def _refusal(self, reference: str, why: str) -> str:
        module = reference.partition(":")[0]
        return (
            f"{self.file} asks for {reference}, but {why}: the Python module {module} "
            f"({_place(module)}) would run on this machine with all your rights. Nothing was run. "
            f"If you trust those who wrote it, say so: --trust {module} (in Python "
            f"trust=[{module!r}])"
        )


def offers(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name, of packages that are installed: not in the current folder.

    ``python -m`` and notebooks search the current folder first, and it may hold a made-up package.
    """
    found: dict[str, EntryPoint] = {}
    for package in distributions(path=_places()):
        for point in package.entry_points.select(group=group):
            found.setdefault(point.name, point)
    return found


def _places() -> list[str]:
    """The search path without the current folder, where that is only searched for being current.

    An installation may lie in it, too: an entry further behind stays.
    """
    places = [place for place in sys.path if place]
    here = bool(places) and Path(places[0]).absolute() == Path.cwd()
    return places[1:] if here else places


def _is_shadowed(module: str) -> bool:
    top = module.partition(".")[0]
    found = _spec(top)
    if found is None:
        return False
    if top in _OWN:  # installed together, in one folder
        return _HOME not in _folders(found)
    if Path.cwd() not in _folders(found):
        return False
    installed = PathFinder.find_spec(top, _places())
    return installed is None or installed.origin != found.origin


def _folders(spec: ModuleSpec) -> list[Path]:
    """The folders in which a top-level module or package lies."""
    if spec.submodule_search_locations is not None:
        return [Path(place).absolute().parent for place in spec.submodule_search_locations]
    return [Path(spec.origin).absolute().parent] if spec.has_location and spec.origin else []


def _spec(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)  # of a top-level module: nothing is imported
    except ValueError:  # a module without a spec, such as __main__
        return None


def _place(module: str) -> str:
    spec = _spec(module.partition(".")[0])
    if spec is None:
        return "which Python does not find"
    folders = _folders(spec)
    return f"from {spec.origin or folders[0]}" if folders else "a part of Python"
