"""Graph metanetworks: neural networks whose inputs are neural networks."""

from importlib.metadata import version

from gmn import symmetry
from gmn.graph import ParameterGraph, StateDictError
from gmn.spec import GraphSpec, SpecError

__all__ = ["GraphSpec", "ParameterGraph", "SpecError", "StateDictError", "symmetry"]
__version__ = version("graph-metanetworks")
