"""Layers and networks of PyTorch Geometric on a small graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.examples import AllTensors, Factory, Model, numbers

NODES, LINKS, WIDTH, OUT, ATTRIBUTES = 9, 24, 12, 16, 5


def _links(generator: torch.Generator) -> Tensor:
    return torch.randint(0, NODES, (2, LINKS), generator=generator)


def _kinds(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 3, (LINKS,), generator=generator)


def _degrees() -> Tensor:
    return torch.tensor([0, 2, 5, 2])


def _mlp(inputs: int = WIDTH, outputs: int = OUT) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 20), nn.ReLU(), nn.Linear(20, outputs))


PLAIN: tuple[Factory, ...] = (numbers(NODES, WIDTH), _links)
WITH_ATTRIBUTES: tuple[Factory, ...] = (*PLAIN, numbers(LINKS, ATTRIBUTES))
WITH_KINDS: tuple[Factory, ...] = (*PLAIN, _kinds)
Maker = Callable[[Any], nn.Module]  # given torch_geometric.nn

LAYERS: dict[str, tuple[Maker, tuple[Factory, ...]]] = {
    "AntiSymmetricConv": (lambda g: g.AntiSymmetricConv(WIDTH), PLAIN),
    "ARMAConv": (lambda g: g.ARMAConv(WIDTH, OUT, num_stacks=2, num_layers=2), PLAIN),
    "CGConv": (lambda g: g.CGConv(WIDTH, dim=ATTRIBUTES), WITH_ATTRIBUTES),
    "ChebConv": (lambda g: g.ChebConv(WIDTH, OUT, K=3), PLAIN),
    "ClusterGCNConv": (lambda g: g.ClusterGCNConv(WIDTH, OUT), PLAIN),
    "DirGNNConv": (lambda g: g.DirGNNConv(g.SAGEConv(WIDTH, OUT)), PLAIN),
    "EdgeConv": (lambda g: g.EdgeConv(_mlp(2 * WIDTH)), PLAIN),
    "EGConv": (lambda g: g.EGConv(WIDTH, OUT, num_heads=4, num_bases=3), PLAIN),
    "FAConv": (lambda g: _Twice(g.FAConv(WIDTH)), PLAIN),
    "FeaStConv": (lambda g: g.FeaStConv(WIDTH, OUT, heads=3), PLAIN),
    "FiLMConv": (lambda g: g.FiLMConv(WIDTH, OUT), PLAIN),
    "GATConv": (lambda g: g.GATConv(WIDTH, OUT, heads=2), PLAIN),
    "GATv2Conv": (lambda g: g.GATv2Conv(WIDTH, OUT, heads=2), PLAIN),
    "GatedGraphConv": (lambda g: g.GatedGraphConv(OUT, num_layers=2), PLAIN),
    "GCN2Conv": (lambda g: _Twice(g.GCN2Conv(WIDTH, alpha=0.1)), PLAIN),
    "GCNConv": (lambda g: g.GCNConv(WIDTH, OUT), PLAIN),
    "GENConv": (lambda g: g.GENConv(WIDTH, OUT), PLAIN),
    "GeneralConv": (lambda g: g.GeneralConv(WIDTH, OUT, attention=True, heads=2), PLAIN),
    "GINConv": (lambda g: g.GINConv(_mlp(), train_eps=True), PLAIN),
    "GINEConv": (lambda g: g.GINEConv(_mlp(), edge_dim=ATTRIBUTES), WITH_ATTRIBUTES),
    "GMMConv": (lambda g: g.GMMConv(WIDTH, OUT, dim=ATTRIBUTES, kernel_size=3), WITH_ATTRIBUTES),
    "GPSConv": (lambda g: g.GPSConv(WIDTH, g.GINConv(_mlp(WIDTH, WIDTH)), heads=2), PLAIN),
    "GraphConv": (lambda g: g.GraphConv(WIDTH, OUT), PLAIN),
    "LEConv": (lambda g: g.LEConv(WIDTH, OUT), PLAIN),
    "MFConv": (lambda g: g.MFConv(WIDTH, OUT, max_degree=4), PLAIN),
    "MixHopConv": (lambda g: g.MixHopConv(WIDTH, OUT), PLAIN),
    "NNConv": (lambda g: g.NNConv(WIDTH, OUT, _mlp(ATTRIBUTES, WIDTH * OUT)), WITH_ATTRIBUTES),
    "PNAConv": (
        lambda g: g.PNAConv(
            WIDTH, OUT, ["mean", "max", "std"], ["identity", "amplification"], _degrees()
        ),
        PLAIN,
    ),
    "ResGatedGraphConv": (lambda g: g.ResGatedGraphConv(WIDTH, OUT), PLAIN),
    "RGATConv": (lambda g: g.RGATConv(WIDTH, OUT, 3, heads=2), WITH_KINDS),
    "RGCNConv": (lambda g: g.RGCNConv(WIDTH, OUT, 3, num_bases=2), WITH_KINDS),
    "SAGEConv": (lambda g: g.SAGEConv(WIDTH, OUT), PLAIN),
    "SAGEConv-pool": (lambda g: g.SAGEConv(WIDTH, OUT, aggr="max", project=True), PLAIN),
    "SGConv": (lambda g: g.SGConv(WIDTH, OUT, K=2), PLAIN),
    "SSGConv": (lambda g: g.SSGConv(WIDTH, OUT, alpha=0.1, K=2), PLAIN),
    "SuperGATConv": (lambda g: g.SuperGATConv(WIDTH, OUT, heads=2), PLAIN),
    "TAGConv": (lambda g: g.TAGConv(WIDTH, OUT), PLAIN),
    "TransformerConv": (
        lambda g: g.TransformerConv(WIDTH, OUT, heads=2, edge_dim=ATTRIBUTES, beta=True),
        WITH_ATTRIBUTES,
    ),
}
MODELS: dict[str, tuple[Maker, tuple[Factory, ...]]] = {
    "EdgeCNN": (lambda g: g.EdgeCNN(WIDTH, OUT, 2, 4), PLAIN),
    "GAT": (lambda g: g.GAT(WIDTH, OUT, 2, 4, heads=2), PLAIN),
    "GCN": (lambda g: g.GCN(WIDTH, OUT, 3, 4, norm="batch"), PLAIN),
    "GCN-jumping": (lambda g: g.GCN(WIDTH, OUT, 3, 4, jk="cat"), PLAIN),
    "GIN": (lambda g: g.GIN(WIDTH, OUT, 2, 4, norm="layer"), PLAIN),
    "GraphSAGE": (lambda g: g.GraphSAGE(WIDTH, OUT, 3, 4), PLAIN),
    "PNA": (
        lambda g: g.PNA(
            *(WIDTH, OUT, 2, 4),
            aggregators=["mean", "max"],
            scalers=["identity"],
            deg=_degrees(),
        ),
        PLAIN,
    ),
    "whole-graph": (lambda g: _Classifier(g), PLAIN),
}  # fmt: skip
CATALOGUE = LAYERS | MODELS


class _Twice(nn.Module):
    """A layer that also reads the first features."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Tensor, links: Tensor) -> Tensor:
        result: Tensor = self.layer(values, values, links)
        return result


class _Classifier(nn.Module):
    """Two layers, the mean over all nodes, and a linear layer."""

    def __init__(self, geometric: Any) -> None:
        super().__init__()
        self.first, self.second = geometric.GCNConv(WIDTH, OUT), geometric.GraphConv(OUT, OUT)
        self.head = nn.Linear(OUT, 3)

    def forward(self, values: Tensor, links: Tensor) -> Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(values, links)), links))
        result: Tensor = self.head(hidden.mean(0))
        return result


def names() -> list[str]:
    """Layers, then networks."""
    return list(CATALOGUE)


def build(name: str) -> Model:
    """A layer or a network."""
    import torch_geometric.nn

    make, factories = CATALOGUE[name]
    torch.manual_seed(0)
    return Model(AllTensors(make(torch_geometric.nn)).eval(), factories)
