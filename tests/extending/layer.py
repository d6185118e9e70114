"""A message-passing layer of one's own, and a metanetwork of three of them."""

import torch
from torch import nn

from gmn.nn import MessagePassing, MessagePassingNetwork


class Layer(MessagePassing):
    def __init__(self, hidden, edge_hidden):
        super().__init__(hidden, reduce=("mean", "max"))
        self.edge = nn.Linear(edge_hidden, hidden)
        self.out = nn.Linear(2 * hidden, hidden)

    def message(self, source, target, edge):
        return torch.relu(source - target + self.edge(edge))

    def update(self, nodes, messages):
        return nodes + self.out(messages)


def model(spec, head):
    return MessagePassingNetwork([Layer(16, 8) for _ in range(3)], 16, 8, head)
