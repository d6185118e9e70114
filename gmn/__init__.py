"""Graph metanetworks: neural networks whose inputs are neural networks."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmn import (  # noqa: F401 (checkers see that gmn.zoo is a module)
        augment,
        canonical,
        comparison,
        draw,
        engines,
        errors,
        explain,
        features,
        graph,
        nn,
        pyg,
        registry,
        spec,
        symmetry,
        tasks,
        testing,
        train,
        transport,
        zoo,
    )
    from gmn.comparison import compare
    from gmn.graph import ParameterGraph, StateDictError
    from gmn.graph.files import GraphFileError, load, save
    from gmn.spec import GraphSpec, SpecError

    __version__: str

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

_MODULES = (
    *("augment", "canonical", "comparison", "draw", "engines", "errors", "explain", "features"),
    *(
        "graph",
        "nn",
        "pyg",
        "registry",
        "spec",
        "symmetry",
        "tasks",
        "testing",
        "train",
        "transport",
    ),
    "zoo",
)
_PLACES = {
    "GraphFileError": "gmn.graph.files",
    "GraphSpec": "gmn.spec",
    "ParameterGraph": "gmn.graph",
    "SpecError": "gmn.spec",
    "StateDictError": "gmn.graph",
    "compare": "gmn.comparison",
    "load": "gmn.graph.files",
    "save": "gmn.graph.files",
}


def __getattr__(name: str) -> object:
    # Nothing is imported before it is used, so that `gmn --help` does not wait for torch.
    if name in _MODULES:
        return import_module(f"gmn.{name}")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "__version__":
        return import_module("importlib.metadata").version("graph-metanetworks")
    raise AttributeError(f"module 'gmn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
