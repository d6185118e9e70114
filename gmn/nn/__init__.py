"""Message-passing metanetworks."""

from gmn.nn.gmn import GMN
from gmn.nn.heads import InvariantHead

__all__ = ["GMN", "InvariantHead"]
