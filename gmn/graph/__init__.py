"""Parameter graphs: the weights of networks, laid out by their spec, and their files."""

from gmn.graph.parameter_graph import ParameterGraph, StateDictError

__all__ = ["ParameterGraph", "StateDictError"]
