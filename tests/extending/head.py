"""A head of one's own: attention over neurons, beside the state of the whole network."""

import torch
from torch import nn

from gmn.nn import DualGMN


class Attentive(nn.Module):
    def __init__(self, hidden, outputs):
        super().__init__()
        self.score = nn.Linear(hidden, 1)
        self.answer = nn.Linear(2 * hidden, outputs)

    def forward(self, states, graph):
        weights = self.score(states.nodes).softmax(dim=1)
        pooled = (weights * states.nodes).sum(dim=1)
        return self.answer(torch.cat([pooled, states.summary], dim=1))


def model(spec, outputs):
    return DualGMN(hidden=16, depth=2, head=Attentive(16, outputs))
