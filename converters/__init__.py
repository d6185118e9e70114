"""From PyTorch modules and checkpoints to parameter graphs."""

from .chains import Chain, infer_chain
from .checkpoint import Checkpoint, CheckpointError, load_checkpoint, read_checkpoint, read_values
from .fit import fit_state
from .pretrained import from_config, from_pretrained, from_timm
from .rules import register
from .trace import TraceError, to_graph, trace
from .tracing import Rule
from .verify import Certificate, verify

__all__ = [
    "Certificate",
    "Chain",
    "Checkpoint",
    "CheckpointError",
    "Rule",
    "TraceError",
    "fit_state",
    "from_config",
    "from_pretrained",
    "from_timm",
    "infer_chain",
    "load_checkpoint",
    "read_checkpoint",
    "read_values",
    "register",
    "to_graph",
    "trace",
    "verify",
]
