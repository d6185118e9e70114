"""A baseline of one's own: deep sets, one for each edge set of a fixed architecture."""

import torch
from torch import nn


class DeepSets(nn.Module):
    symmetries = ("permutations",)

    def __init__(self, spec, outputs):
        super().__init__()
        self.each = nn.ModuleDict()
        for number, edges in enumerate(spec.edge_sets):
            self.each[str(number)] = nn.Sequential(nn.Linear(edges.num_taps, 32), nn.SiLU())
        self.answer = nn.Linear(32 * len(spec.edge_sets), outputs)

    def forward(self, graph):
        sets = zip(self.each.values(), graph.spec.edge_sets, strict=True)
        means = [net(graph.pairs(edges)).mean(dim=1) for net, edges in sets]
        return self.answer(torch.cat(means, dim=1))


def model(spec, outputs):
    return DeepSets(spec, outputs)
