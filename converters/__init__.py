"""From PyTorch modules and checkpoints to parameter graphs."""

from .inference.tracing import Rule
from .proof.experiment import FalseSymmetryWarning
from .proof.verify import Certificate, verify
from .rules import register
from .states.chains import Chain, infer_chain
from .states.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    read_checkpoint,
    read_values,
)
from .states.fit import fit_state
from .states.pretrained import from_config, from_pretrained, from_timm
from .trace import TraceError, to_graph, trace

__all__ = [
    "Certificate",
    "Chain",
    "Checkpoint",
    "CheckpointError",
    "FalseSymmetryWarning",
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
