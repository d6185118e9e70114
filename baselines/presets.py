"""Baselines by name, in published configurations, for comparisons."""

from __future__ import annotations

from gmn.spec import GraphSpec

from .flat import FlatMLP
from .nfn import NFN
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
