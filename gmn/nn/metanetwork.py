"""Metanetwork: the base class, which declares what a model is invariant to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor, nn

from gmn.errors import ArgumentError
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.nn.heads import EditHead, require_head
from gmn.symmetry import KINDS


class Metanetwork(nn.Module):
    """A network whose input is a parameter graph.

    Answers of shape (B, outputs) do not change when symmetries of the networks act on their
    parameters; edited networks move along. :class:`gmn.testing.MetanetworkLaws` tests
    what a model declares here.

    Args:
        head: as of its subclasses; an :class:`gmn.nn.EditHead` makes it equivariant.

    Raises:
        ArgumentError: if the head is none, asks for no outputs, or a graph is none, or of another
            type or device than the parameters.

    Attributes:
        symmetries: the parts of a spec's group that it respects, of :data:`gmn.symmetry.KINDS`.
        learning_rate: a good peak for :func:`gmn.train.train`.
        copies: edits per network; 0 if it answers with vectors.
    """

    symmetries: Collection[str] = ()
    learning_rate = 1e-3

    def __init__(self, head: object = None) -> None:
        super().__init__()
        require_head(head)
        self.copies = head.copies if isinstance(head, EditHead) else 0

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks.

        Returns:
            A tensor (B, ...); or edited networks, the first edit of all B, then the second.

        Raises:
            UnsupportedArchitecture: if it cannot read networks of this architecture.
        """
        raise NotImplementedError

    def prepare(self, graphs: Iterable[ParameterGraph]) -> None:
        """Fits what is no matter of gradients to a population, such as the usual size of weights.

        :func:`gmn.train.train` calls it with the networks of the training split before the first
        step; in a loop of your own, call it yourself. Most metanetworks have nothing to fit.

        Args:
            graphs: networks, some at a time.
        """

    def __call__(self, graph: ParameterGraph) -> Any:
        """:meth:`forward`, with errors that name what the user can change."""
        require_graph("graph", graph)
        try:
            return super().__call__(graph)
        except RuntimeError as error:
            own = next(self.parameters(), None)
            if own is None or (own.dtype, own.device) == (graph.dtype, graph.device):
                raise
            raise ArgumentError(
                f"the graph holds {graph.dtype} on {graph.device}, but {type(self).__name__} "
                f"{own.dtype} on {own.device}; graph.to({str(own.device)!r}, {own.dtype}) moves it"
            ) from error

    def __repr__(self) -> str:
        """One line; ``print(*model.named_modules())`` for the parts."""
        numbers = sum(parameter.numel() for parameter in self.parameters())
        kinds = [kind for kind in KINDS if kind in self.symmetries]
        listed = " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)
        verb = "equivariant" if self.copies else "invariant"
        return f"{type(self).__name__}: {numbers:,} parameters, {verb} to {listed or 'nothing'}"
