"""Values under revision, block by block: changed parameters are copied once, others are shared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gmn.graph.topology import view_block
from gmn.graph.values import as_real, computable, like
from gmn.spec import EdgeSet, GraphSpec


class Draft:
    """Values of an architecture that may be changed block by block; the given ones stay.

    Args:
        spec: the architecture.
        values: stacked tensors by name, of all parameters that are asked for.
        dtype: type to compute in; None for the values' own (eight-bit floats: float32).
    """

    def __init__(
        self, spec: GraphSpec, values: Mapping[str, Tensor], dtype: torch.dtype | None = None
    ) -> None:
        self.spec = spec
        self._values, self._dtype = values, dtype
        self._fresh: dict[str, Tensor] = {}

    def block(self, edges: EdgeSet | str) -> Tensor:
        """An edge set's values (B, *shape), as a view of a copy that may be changed in place."""
        edges = self.spec.edge_set(edges) if isinstance(edges, str) else edges
        if edges.parameter not in self._fresh:
            value = computable(as_real(self._values[edges.parameter]))
            self._fresh[edges.parameter] = value.to(self._dtype, copy=True).contiguous()
        return view_block(self._fresh[edges.parameter], edges)

    def changed(self) -> dict[str, Tensor]:
        """What was asked for, in the types of the given values."""
        return {name: like(new, self._values[name]) for name, new in self._fresh.items()}
