"""Reads checkpoint files safely: code in them never runs.

``load`` decides by the first bytes which reader a file needs; ``zipped``, ``legacy``, ``safe`` and
``arrays`` read the formats; ``machine`` carries out pickles on inert data; ``tensors`` tells
tensors from other calls; ``choosing`` finds the state dict among what a file holds, ``nested``
gives all of it.
"""

from .errors import CheckpointError
from .load import Checkpoint, load_checkpoint, read_checkpoint, read_nested, read_values

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "load_checkpoint",
    "read_checkpoint",
    "read_nested",
    "read_values",
]
