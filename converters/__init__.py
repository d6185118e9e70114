"""From PyTorch modules and checkpoints to parameter graphs."""

from .rules import register
from .trace import TraceError, to_graph, trace
from .tracing import Rule
from .verify import Certificate, verify

__all__ = ["Certificate", "Rule", "TraceError", "register", "to_graph", "trace", "verify"]
