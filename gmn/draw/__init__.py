"""Pictures of specs (boxes and arrows) and of edge sets (heat maps)."""

from gmn.draw.heat import heat_map
from gmn.draw.network import draw

__all__ = ["draw", "heat_map"]
