"""Metanetwork: the base class, which declares what a model is invariant to."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.nn.heads import EditHead
from gmn.symmetry import KINDS


class Metanetwork(nn.Module):
    """A network whose input is a parameter graph.

    Answers of shape (B, outputs) do not change when symmetries of the networks act on their
    parameters; edited networks move along. :class:`gmn.testing.MetanetworkLaws` tests
    what a model declares here.

    Args:
        head: as of its subclasses; an :class:`gmn.nn.EditHead` makes it equivariant.

    Attributes:
        symmetries: the parts of a spec's group that it respects, of :data:`gmn.symmetry.KINDS`.
        learning_rate: a good peak for :func:`gmn.train.train`.
        copies: edits per network; 0 if it answers with vectors.
    """

    symmetries: Collection[str] = ()
    learning_rate = 1e-3

    def __init__(self, head: object = None) -> None:
        super().__init__()
        self.copies = head.copies if isinstance(head, EditHead) else 0

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks.

        Returns:
            A tensor (B, ...); or edited networks, the first edit of all B, then the second.

        Raises:
            UnsupportedArchitecture: if it cannot read networks of this architecture.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        """One line; ``print(*model.named_modules())`` for the parts."""
        numbers = sum(parameter.numel() for parameter in self.parameters())
        kinds = [kind for kind in KINDS if kind in self.symmetries]
        listed = " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)
        verb = "equivariant" if self.copies else "invariant"
        return f"{type(self).__name__}: {numbers:,} parameters, {verb} to {listed or 'nothing'}"
