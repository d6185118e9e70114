"""Heads: what a metanetwork answers with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmn.spec import GraphSpec


@dataclass(frozen=True)
class InvariantHead:
    """A vector per network that does not depend on the order of its hidden neurons.

    Attributes:
        outputs: length of the vector.
    """

    outputs: int = 1

    def build(self, width: int) -> InvariantReadout:
        """The head's module for node, edge and global states of ``width`` channels."""
        return InvariantReadout(width, self.outputs)


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

    def forward(self, spec: GraphSpec, nodes: Tensor, edges: Tensor, state: Tensor) -> Tensor:
        """Reads out the states of a batch.

        Args:
            spec: the architecture.
            nodes: shape (B, N, width).
            edges: shape (B, P, width).
            state: shape (B, width), the global state.

        Returns:
            Tensor of shape (B, outputs).
        """
        pooled = _role_means(spec, nodes) @ self.nodes(nodes)  # (B, roles, width)
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

    def forward(self, spec: GraphSpec, nodes: Tensor, state: Tensor) -> Tensor:
        """Reads out states of nodes (B, N, width) and of networks (B, width): (B, outputs)."""
        pooled = _role_means(spec, nodes) @ self.nodes(nodes)
        return self.answer(torch.cat([pooled.flatten(1), state], dim=1))


class RoleReadout(nn.Module):
    """Means over the nodes of each role, into an MLP; for networks without a global state."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.nodes = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.answer = nn.Sequential(
            nn.Linear(len(ROLES) * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, outputs)
        )

    def forward(self, spec: GraphSpec, nodes: Tensor) -> Tensor:
        """Reads out states of nodes (B, N, width): (B, outputs)."""
        return self.answer((_role_means(spec, nodes) @ self.nodes(nodes)).flatten(1))


def _role_means(spec: GraphSpec, like: Tensor) -> Tensor:
    """Averaging matrix of shape (roles, N); ordered neurons count as hidden."""
    sizes = torch.tensor([nodes.size for nodes in spec.node_sets])
    roles = ["hidden" if nodes.role == "ordered" else nodes.role for nodes in spec.node_sets]
    number = torch.tensor([ROLES.index(role) for role in roles]).repeat_interleave(sizes)
    member = (number.unsqueeze(0) == torch.arange(len(ROLES)).unsqueeze(1)).to(like)
    return member / member.sum(dim=1, keepdim=True).clamp(min=1)
