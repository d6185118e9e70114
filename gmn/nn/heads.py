"""Heads: modules from states of neurons to vectors, classes or edits.

A head of your own is a module ``head(states, graph)`` from :class:`States` to anything, such as::

    class Mean(nn.Module):
        def __init__(self, hidden, outputs):
            super().__init__()
            self.linear = nn.Linear(hidden, outputs)

        def forward(self, states, graph):
            return self.linear(states.nodes.mean(dim=1))

    GMN(hidden=64, head=Mean(64, 3))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gmn.errors import ArgumentError
from gmn.foundation.arguments import in_words, require_whole
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec


@dataclass(frozen=True, eq=False)
class States:
    """The states of B networks after a metanetwork's last layer.

    Attributes:
        nodes: states of all neurons (B, N, hidden), in the order of the spec's node sets. They
            permute with the neurons, and other symmetries of the model do not change them.
        summary: state of each network (B, hidden); None if the model keeps none.
        edges: states of all edges (B, P, hidden), in the order of the spec's edge sets and, in
            each, of :func:`gmn.graph.topology.pair_index`; None if the model keeps none of this
            form.
    """

    nodes: Tensor
    summary: Tensor | None = None
    edges: Tensor | None = None


@dataclass(frozen=True)
class InvariantHead:
    """A vector per network that does not depend on the order of its hidden neurons.

    Attributes:
        outputs: length of the vector.
    """

    outputs: int = 1

    def __post_init__(self) -> None:
        require_whole("outputs", self.outputs, 1)


@dataclass(frozen=True)
class EditHead:
    """Answers with edited networks instead of vectors.

    Attributes:
        copies: edits per network, whose outputs a task averages (k-fold output expansion). The
            answer holds the first edit of all B networks, then the second of all, and so on.
    """

    copies: int = 1

    def __post_init__(self) -> None:
        require_whole("copies", self.copies, 1)


Head: TypeAlias = int | InvariantHead | EditHead | nn.Module
"""A number of outputs, an equivariant head, or a module of your own."""


def require_head(head: object) -> None:
    """Refuses what is no :data:`Head`, nor None.

    Raises:
        ArgumentError: if it is of another type, or asks for less than one output.
    """
    if isinstance(head, type):
        raise ArgumentError(f"head is {in_words(head)}; give an object, such as {head.__name__}()")
    if head is not None and not isinstance(head, InvariantHead | EditHead | nn.Module):
        require_whole("head", head, 1)


def readout_of(head: Head | None, own: Callable[[int], nn.Module]) -> nn.Module | None:
    """The readout to vectors; None if networks are edited.

    Args:
        head: the head that the user passed; one output if None.
        own: makes the model's own readout, given the number of outputs.
    """
    if isinstance(head, nn.Module):
        return head
    if isinstance(head, EditHead):
        return None
    return own(head.outputs if isinstance(head, InvariantHead) else 1 if head is None else head)


ROLES = ("input", "hidden", "output")


class InvariantReadout(nn.Module):
    """Means over the nodes of each role and over all edges, with the global state, into an MLP."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.nodes = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.edges = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.answer = nn.Sequential(
            nn.Linear((len(ROLES) + 2) * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, outputs)
        )

    def forward(self, states: States, graph: ParameterGraph) -> Tensor:
        """Reads out the states of neurons, edges and networks: shape (B, outputs)."""
        nodes, edges, state = states.nodes, states.edges, states.summary
        assert edges is not None
        assert state is not None
        pooled = _role_means(graph.spec, nodes) @ self.nodes(nodes)  # (B, roles, width)
        mean_edge = self.edges(edges).sum(dim=1) / max(edges.shape[1], 1)
        return self.answer(torch.cat([pooled.flatten(1), mean_edge, state], dim=1))


class NodeReadout(nn.Module):
    """Means over the nodes of each role, with the global state, into an MLP."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.nodes = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.answer = nn.Sequential(
            nn.Linear((len(ROLES) + 1) * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, outputs)
        )

    def forward(self, states: States, graph: ParameterGraph) -> Tensor:
        """Reads out the states of neurons and of networks: shape (B, outputs)."""
        assert states.summary is not None
        pooled = _role_means(graph.spec, states.nodes) @ self.nodes(states.nodes)
        return self.answer(torch.cat([pooled.flatten(1), states.summary], dim=1))


class RoleReadout(nn.Module):
    """Means over the nodes of each role, into an MLP; for networks without a global state."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.nodes = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.answer = nn.Sequential(
            nn.Linear(len(ROLES) * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, outputs)
        )

    def forward(self, states: States, graph: ParameterGraph) -> Tensor:
        """Reads out the states of neurons: shape (B, outputs)."""
        pooled = _role_means(graph.spec, states.nodes) @ self.nodes(states.nodes)
        return self.answer(pooled.flatten(1))


def _role_means(spec: GraphSpec, like: Tensor) -> Tensor:
    """Averaging matrix of shape (roles, N); ordered neurons count as hidden."""
    sizes = torch.tensor([nodes.size for nodes in spec.node_sets])
    roles = ["hidden" if nodes.role == "ordered" else nodes.role for nodes in spec.node_sets]
    role = torch.tensor([ROLES.index(role) for role in roles]).repeat_interleave(sizes)
    member = (role.unsqueeze(0) == torch.arange(len(ROLES)).unsqueeze(1)).to(like)
    return member / member.sum(dim=1, keepdim=True).clamp(min=1)
