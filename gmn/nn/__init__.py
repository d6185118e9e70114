"""Message-passing metanetworks."""

from gmn.nn.dual import DualGMN
from gmn.nn.gmn import GMN
from gmn.nn.heads import InvariantHead

__all__ = ["GMN", "DualGMN", "InvariantHead"]
