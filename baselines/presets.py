"""Baselines by name, in published configurations, for comparisons."""

from __future__ import annotations

from gmn.nn.probes import Probes
from gmn.spec import GraphSpec

from .flat import FlatMLP
from .nfn import NFN
from .probing import ProbeNet
from .statistics import StatNN


def nfn_hnp(spec: GraphSpec, outputs: int) -> NFN:
    """NFN with HNP layers of (16, 16, 5) channels, as for CNN generalisation in the paper."""
    return NFN(spec, channels=(16, 16, 5), variant="HNP", head=outputs)


def nfn_np(spec: GraphSpec, outputs: int) -> NFN:
    """NFN with NP layers of (16, 16, 5) channels and position embeddings (NP-PosEmb)."""
    return NFN(spec, channels=(16, 16, 5), variant="NP", head=outputs)


def flat_mlp(spec: GraphSpec, outputs: int) -> FlatMLP:
    """An MLP on the flattened parameters."""
    return FlatMLP(spec, outputs=outputs)


def layer_statistics(spec: GraphSpec, outputs: int) -> StatNN:
    """Layer statistics with gradient boosting; reads any set of architectures with equal layers."""
    return StatNN(outputs)


def probe_net(spec: GraphSpec, outputs: int) -> ProbeNet:
    """Plain probing with 64 learned inputs; reads all architectures with inputs of one shape."""
    answers = sum(nodes.size for nodes in spec.node_sets if nodes.role == "output")
    return ProbeNet(Probes.like(spec, 64), answers, outputs)
