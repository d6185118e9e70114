"""Metanetworks by name, for comparisons."""

from __future__ import annotations

from gmn.nn.dual import DualGMN
from gmn.nn.gmn import GMN
from gmn.nn.heads import InvariantHead
from gmn.spec import GraphSpec


def gmn(spec: GraphSpec, outputs: int) -> GMN:
    """GMN of a size that trains in minutes on a CPU; it reads any architecture."""
    return GMN(hidden=24, depth=3, head=InvariantHead(outputs))


def dual_gmn(spec: GraphSpec, outputs: int) -> DualGMN:
    """DualGMN without probes; it reads any architecture."""
    return DualGMN(hidden=64, depth=4, head=InvariantHead(outputs))
