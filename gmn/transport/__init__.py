"""Optimal transport between sets of neurons, and distances between networks made of it."""

from gmn.transport.assignment import assigned_wasserstein, assignment
from gmn.transport.clouds import CoordinateFrame
from gmn.transport.clouds import CoordinateFrame as Frame  # its name before 0.1 was released
from gmn.transport.loss import NeuronSetLoss
from gmn.transport.maximum import max_tree_sliced_wasserstein
from gmn.transport.networks import NetworkDistance, network_distance
from gmn.transport.neurons import embedding_clouds, probe_clouds, weight_clouds
from gmn.transport.populations import ZooMetrics, zoo_metrics
from gmn.transport.sliced import sliced_wasserstein
from gmn.transport.splitting import ByDistance, Learned, Splitting, Uniform
from gmn.transport.systems import Systems
from gmn.transport.trees import tree_sliced_wasserstein

__all__ = [
    "ByDistance",
    "CoordinateFrame",
    "Frame",
    "Learned",
    "NetworkDistance",
    "NeuronSetLoss",
    "Splitting",
    "Systems",
    "Uniform",
    "ZooMetrics",
    "assigned_wasserstein",
    "assignment",
    "embedding_clouds",
    "max_tree_sliced_wasserstein",
    "network_distance",
    "probe_clouds",
    "sliced_wasserstein",
    "tree_sliced_wasserstein",
    "weight_clouds",
    "zoo_metrics",
]
