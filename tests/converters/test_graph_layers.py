"""Layers of PyTorch Geometric: the number of edges that they keep depends on values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv

import converters
from tests.traced import slow_but

EDGES = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 1, 2, 3, 4]])
LAYERS: dict[str, type[nn.Module]] = {
    "GCN": GCNConv, "SAGE": SAGEConv, "GraphConv": GraphConv, "GAT": GATConv,
}  # fmt: skip


class Two(nn.Module):
    """Two layers with a ReLU between, and a readout of the mean."""

    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.one, self.two, self.out = layer(3, 6), layer(6, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.out(self.two(torch.relu(self.one(x, edges)), edges).mean(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", slow_but(LAYERS, ["GAT"]))
def test_hidden_units_permute_and_scale(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = Two(LAYERS[name]).eval(), (torch.randn(5, 3), EDGES)
    spec = converters.trace(model, inputs)
    assert not spec.unknown
    assert 6 in {axis.size for axis in spec.symmetries.permutations}
    assert any(scaling.domain == "positive" for scaling in spec.scalings)
    certificate = converters.verify(model, inputs, spec, trials=3)
    assert certificate.ok, str(certificate)
