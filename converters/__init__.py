"""From PyTorch modules and checkpoints to parameter graphs."""

from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, read_checkpoint
from .rules import register
from .trace import TraceError, to_graph, trace
from .tracing import Rule
from .verify import Certificate, verify

__all__ = [
    "Certificate",
    "Checkpoint",
    "CheckpointError",
    "Rule",
    "TraceError",
    "load_checkpoint",
    "read_checkpoint",
    "register",
    "to_graph",
    "trace",
    "verify",
]
