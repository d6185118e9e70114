"""From PyTorch modules and checkpoints to parameter graphs."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conversion import TraceError, to_graph, trace
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

_PLACES = {
    "Certificate": ".proof.verify",
    "Chain": ".states.chains",
    "Checkpoint": ".states.checkpoint",
    "CheckpointError": ".states.checkpoint",
    "FalseSymmetryWarning": ".proof.experiment",
    "Rule": ".inference.tracing",
    "TraceError": ".conversion",
    "fit_state": ".states.fit",
    "from_config": ".states.pretrained",
    "from_pretrained": ".states.pretrained",
    "from_timm": ".states.pretrained",
    "infer_chain": ".states.chains",
    "load_checkpoint": ".states.checkpoint",
    "read_checkpoint": ".states.checkpoint",
    "read_values": ".states.checkpoint",
    "register": ".rules",
    "to_graph": ".conversion",
    "trace": ".conversion",
    "verify": ".proof.verify",
}


def __getattr__(name: str) -> object:
    # Nothing is imported before it is used, so that `gmn --help` does not wait for torch.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name], __name__), name)
    raise AttributeError(f"module 'converters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
