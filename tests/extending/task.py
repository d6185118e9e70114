"""A task of one's own: how large the weights of a network are."""

import torch

from gmn.tasks import Task


class Size(Task):
    name = "size of weights"
    target = "log of the root mean square"

    def targets(self, graph, indices):
        weights = [graph.pairs(e).flatten(1) for e in graph.spec.edge_sets if e.kind == "weight"]
        return torch.cat(weights, dim=1).square().mean(dim=1).log() / 2
