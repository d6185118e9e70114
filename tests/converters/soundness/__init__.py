"""Small modules on which inference of symmetries may go wrong, with what is true of them."""

from . import common, dimensions, entries, flow, parameters
from .case import CASES, Case

__all__ = ["CASES", "Case", "common", "dimensions", "entries", "flow", "parameters"]
