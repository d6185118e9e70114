"""Models that tests name as ``tests.gmn.editors:NAME``."""

from __future__ import annotations

from typing import Any

from gmn.nn import DualGMN, InvariantHead
from gmn.nn.heads import EditHead
from gmn.spec import GraphSpec


def small(spec: GraphSpec, outputs: Any) -> DualGMN:
    """A small DualGMN for any kind of answer."""
    head = outputs if isinstance(outputs, EditHead) else InvariantHead(outputs)
    return DualGMN(hidden=16, depth=2, head=head)
