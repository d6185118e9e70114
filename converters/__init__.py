"""From PyTorch modules and checkpoints to parameter graphs."""

from .rules import register
from .trace import TraceError, to_graph, trace
from .verify import Certificate, verify

__all__ = ["Certificate", "TraceError", "register", "to_graph", "trace", "verify"]
