"""A description of one's own: learned vectors for roles and kinds, instead of fixed codes."""

import torch
from torch import nn

from gmn.nn import GMN

ROLES, KINDS = ["input", "hidden", "output"], ["weight", "bias", "gain", "shift"]


class Embedded(nn.Module):
    node_channels = edge_channels = 8

    def __init__(self):
        super().__init__()
        self.role, self.kind = nn.Embedding(len(ROLES) + 1, 8), nn.Embedding(len(KINDS) + 1, 8)

    def nodes(self, spec):
        rows = [_row(self.role, ROLES, n.role).expand(n.size, -1) for n in spec.node_sets]
        return torch.cat(rows)

    def edges(self, spec):
        return torch.cat([_row(self.kind, KINDS, e.kind) for e in spec.edge_sets])


def _row(table, names, name):  # the last row for names that are not listed
    return table.weight[[names.index(name) if name in names else -1]]


def model(spec, head):
    return GMN(16, 2, head, descriptions=Embedded())
