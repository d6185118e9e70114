"""A feature of one's own: parameters by how they compare with the others of their edge set."""

import torch

from gmn.nn import NeuralGraphGNN


class Standardised:
    channels = 2

    def __call__(self, graph, edges):
        values = graph.pairs(edges)
        mean = values.mean(dim=(1, 2), keepdim=True)
        size = (values - mean).square().mean(dim=(1, 2), keepdim=True).add(1e-6).sqrt()
        return torch.stack([values, (values - mean) / size], dim=-1)


def model(spec, head):
    return NeuralGraphGNN(16, 2, head, edge_hidden=8, features=Standardised())
