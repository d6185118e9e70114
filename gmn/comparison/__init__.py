"""Comparison of models on one task: same minibatches, several seeds, one table."""

from gmn.comparison.result import Comparison, Row, save
from gmn.comparison.running import compare

__all__ = ["Comparison", "Row", "compare", "save"]
