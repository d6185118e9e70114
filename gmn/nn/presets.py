"""Metanetworks by name, for comparisons; those of papers in their published configurations.

Each takes the spec of the networks and the head: a number of outputs, or an
:class:`gmn.nn.EditHead` for edited networks.
"""

from __future__ import annotations

from gmn.graph.required import require_spec
from gmn.nn.dual.dual_gmn import DualGMN
from gmn.nn.dual.probes import Probes
from gmn.nn.gmn import GMN
from gmn.nn.heads import EditHead
from gmn.nn.neural_graph_gnn import NeuralGraphGNN
from gmn.nn.neural_graph_transformer import NeuralGraphTransformer
from gmn.nn.scaled.scale_gmn import ScaleGMN
from gmn.registry import ByQuestion
from gmn.spec import GraphSpec
from gmn.symmetry import KINDS


def gmn(spec: GraphSpec, outputs: int | EditHead) -> GMN:
    """GMN of a size that trains in minutes on a CPU; it reads any architecture."""
    return GMN(hidden=24, depth=3, head=outputs)


def dual_gmn_function(spec: GraphSpec, outputs: int | EditHead) -> DualGMN:
    """DualGMN with 64 probes; it reads every architecture with inputs of the spec's shape."""
    return DualGMN(64, 2, outputs, Probes.like(spec, 64))


def dual_gmn_training(spec: GraphSpec, outputs: int | EditHead) -> DualGMN:
    """The same, and it sees statistics of the weights as training left them.

    It minds the order of neurons and branches as little as ever, but not their scales.
    """
    return DualGMN(64, 2, outputs, Probes.like(spec, 64), symmetries=KINDS[:2])


dual_gmn = ByQuestion(dual_gmn_function, dual_gmn_training)


def dual_gmn_passes(spec: GraphSpec, outputs: int | EditHead) -> DualGMN:
    """DualGMN that runs no program: passes of 64 learned inputs; it reads any architecture."""
    return DualGMN(hidden=64, depth=2, head=outputs, passes=64)


def dual_gmn_passes_training(spec: GraphSpec, outputs: int | EditHead) -> DualGMN:
    """The same, and it sees statistics of the weights as training left them."""
    return DualGMN(hidden=64, depth=2, head=outputs, passes=64, symmetries=KINDS[:2])


dual_gmn_weights = ByQuestion(dual_gmn_passes, dual_gmn_passes_training)


def dual_gmn_linear(spec: GraphSpec, outputs: int | EditHead) -> DualGMN:
    """DualGMN without probes and passes, of depth 4: ``dual-gmn-weights`` of version 0.1."""
    return DualGMN(hidden=64, depth=4, head=outputs)


def ng_gnn(spec: GraphSpec, outputs: int | EditHead) -> NeuralGraphGNN:
    """NG-GNN: 64 channels, 4 layers, edges of 32 (Kofinas et al., 2024).

    Messages also run in reverse, as in the paper, unless the networks are convolutional.
    """
    return _ng_gnn(spec, outputs, 64, 32)


def ng_t(spec: GraphSpec, outputs: int | EditHead) -> NeuralGraphTransformer:
    """NG-T: 64 channels, 4 layers of 8 heads, edges of 32 (Kofinas et al., 2024)."""
    return NeuralGraphTransformer(
        hidden=64, depth=4, head=outputs, edge_hidden=32, attention=128, heads=8
    )


def ng_gnn_published(spec: GraphSpec, outputs: int | EditHead) -> NeuralGraphGNN:
    """NG-GNN as wide as the authors' runs on CNNs: 256 channels of nodes and edges, 4 layers."""
    return _ng_gnn(spec, outputs, 256, 256)


def ng_t_published(spec: GraphSpec, outputs: int | EditHead) -> NeuralGraphTransformer:
    """NG-T as wide as the authors' runs on CNNs: nodes of 128, edges of 64, attention of 256."""
    return NeuralGraphTransformer(
        hidden=128, depth=4, head=outputs, edge_hidden=64, attention=256, heads=8
    )


def _ng_gnn(
    spec: GraphSpec, outputs: int | EditHead, hidden: int, edge_hidden: int
) -> NeuralGraphGNN:
    require_spec("spec", spec)
    return NeuralGraphGNN(
        hidden=hidden,
        depth=4,
        head=outputs,
        edge_hidden=edge_hidden,
        reverse=not any(edges.num_taps > 1 for edges in spec.edge_sets),
    )


def scale_gmn(spec: GraphSpec, outputs: int | EditHead) -> ScaleGMN:
    """ScaleGMN, forward: 128 channels, 4 layers (Kalogeropoulos et al., 2024)."""
    return ScaleGMN(hidden=128, depth=4, head=outputs)


def scale_gmn_bidirectional(spec: GraphSpec, outputs: int | EditHead) -> ScaleGMN:
    """ScaleGMN in both directions: 128 channels, 4 layers (Kalogeropoulos et al., 2024)."""
    return ScaleGMN(hidden=128, depth=4, head=outputs, bidirectional=True)
