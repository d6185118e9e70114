"""Line widths and colours that show a weight for each edge set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gmn.foundation.arguments import require_type
from gmn.spec import EdgeSet, GraphSpec

PALE, STRONG = (0.78, 0.78, 0.78), (0.70, 0.09, 0.17)
THIN, THICK = 0.8, 5.0


class Emphasis:
    """Colours and line widths by the share of each edge set; all alike without weights.

    Args:
        spec: the architecture.
        weights: by edge set, a number that is not negative; missing ones count 0. A further use of
            a tensor has the share of the first one.

    Raises:
        ValueError: if a weight is negative, or belongs to no edge set of the spec.
    """

    def __init__(self, spec: GraphSpec, weights: Mapping[str, float] | None) -> None:
        if weights is not None:
            require_type("weights", weights, Mapping, "numbers by edge set: {'0.weight': 1.0}")
        self.on = weights is not None
        given = {} if weights is None else {name: float(w) for name, w in weights.items()}
        if unknown := given.keys() - {edges.name for edges in spec.edge_sets}:
            raise ValueError(f"weights of edge sets that the spec does not have: {sorted(unknown)}")
        if negative := sorted(name for name, weight in given.items() if not weight >= 0):
            raise ValueError(f"weights must be at least 0; they are not at {', '.join(negative)}")
        total = sum(given.values()) or 1.0
        self._shares = {
            edges.name: given.get(edges.tied_to or edges.name, 0.0) / total
            for edges in spec.edge_sets
        }
        between: dict[tuple[str, str], float] = {}
        for edges in spec.edge_sets:
            ends = edges.source, edges.target
            between[ends] = between.get(ends, 0.0) + self._shares[edges.name]
        self._largest = max(between.values(), default=0.0) or 1.0

    def share(self, edges: Sequence[EdgeSet]) -> float:
        """The share of all weights that some edge sets have together."""
        return sum(self._shares[one.name] for one in edges)

    def colour(self, edges: Sequence[EdgeSet]) -> tuple[float, float, float]:
        """From grey to red."""
        height = min(1.0, self.share(edges) / self._largest) ** 0.5
        red, green, blue = (
            p + (s - p) * height for p, s in zip(PALE, STRONG, strict=True)
        )  # fmt: skip
        return red, green, blue

    def width(self, edges: Sequence[EdgeSet]) -> float:
        """Of a line, in points."""
        return THIN + (THICK - THIN) * min(1.0, self.share(edges) / self._largest)

    def percent(self, edges: Sequence[EdgeSet]) -> str:
        """The share in words."""
        share = 100 * self.share(edges)
        return f"{share:.0f} %" if share >= 1 or share == 0 else "< 1 %"
