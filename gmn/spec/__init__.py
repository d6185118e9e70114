"""GraphSpec: the architecture of a network as a value, without its weights.

A spec says which neurons a network has (*node sets*), which parameter connects which neurons
(*edge sets*), and which transformations of the parameters leave the network's function unchanged
(*symmetries*). It is traced once per architecture and then applied to any number of state dicts.

Three words recur. An **axis** is an index set that permutations act on. A **node set** is a set of
neurons indexed by one axis, or by several (attention units: head × unit). An **edge set** is a
block of one parameter tensor; each of its dimensions runs over an axis or over *taps*, positions
that carry meaning and never move (kernel offsets, flattened pixels).
"""

from gmn.spec.graph_spec import FORMAT_VERSION, GraphSpec, SpecError
from gmn.spec.parts import Axis, Dim, EdgeSet, NodeSet, Operation, Port, Role, StateEntry
from gmn.spec.symmetries import (
    Domain,
    Exchange,
    Gauge,
    MatrixGroup,
    Scaling,
    ScalingTerm,
    Symmetries,
    Through,
    Translation,
    TranslationTerm,
)

__all__ = [
    "FORMAT_VERSION",
    "Axis",
    "Dim",
    "Domain",
    "EdgeSet",
    "Exchange",
    "Gauge",
    "GraphSpec",
    "MatrixGroup",
    "NodeSet",
    "Operation",
    "Port",
    "Role",
    "Scaling",
    "ScalingTerm",
    "SpecError",
    "StateEntry",
    "Symmetries",
    "Through",
    "Translation",
    "TranslationTerm",
]
