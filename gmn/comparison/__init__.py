"""The head-to-head: every model, every seed, one protocol, one table."""

from gmn.comparison.result import Comparison, Row, save
from gmn.comparison.running import compare

__all__ = ["Comparison", "Row", "compare", "save"]
