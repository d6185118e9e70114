"""Graph metanetworks: neural networks whose inputs are neural networks."""

from importlib import import_module
from importlib.metadata import version

from gmn import symmetry
from gmn.files import GraphFileError, load, save
from gmn.graph import ParameterGraph, StateDictError
from gmn.spec import GraphSpec, SpecError

__all__ = [
    "GraphFileError",
    "GraphSpec",
    "ParameterGraph",
    "SpecError",
    "StateDictError",
    "compare",
    "load",
    "save",
    "symmetry",
]
__version__ = version("graph-metanetworks")

_MODULES = (
    *("augment", "canonical", "comparison", "draw", "engines", "errors", "explain", "features"),
    *("graph", "nn", "registry", "spec", "symmetry", "tasks", "testing", "train", "transport"),
    "zoo",
)


def __getattr__(name: str) -> object:
    # `import gmn` stays fast and imports neither converters nor PyG.
    if name == "compare":
        return import_module("gmn.comparison").compare
    if name in _MODULES:
        return import_module(f"gmn.{name}")
    raise AttributeError(f"module 'gmn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
