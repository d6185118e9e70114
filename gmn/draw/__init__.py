"""Pictures: a spec as boxes and arrows, the values of an edge set as colours."""

from gmn.draw.heat import heat_map
from gmn.draw.network import draw

__all__ = ["draw", "heat_map"]
