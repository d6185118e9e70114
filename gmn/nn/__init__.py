"""Metanetworks that pass messages along the weights of parameter graphs."""

from gmn.nn.dual.dual_gmn import DualGMN
from gmn.nn.dual.probes import Probes
from gmn.nn.gmn import GMN
from gmn.nn.heads import EditHead, InvariantHead, States
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.mixed import read_all
from gmn.nn.neural_graph_gnn import NeuralGraphGNN
from gmn.nn.neural_graph_transformer import NeuralGraphTransformer
from gmn.nn.passing.message_network import MessagePassingNetwork
from gmn.nn.passing.message_passing import MessagePassing
from gmn.nn.scaled.scale_gmn import ScaleGMN

__all__ = [
    "GMN",
    "DualGMN",
    "EditHead",
    "InvariantHead",
    "MessagePassing",
    "MessagePassingNetwork",
    "Metanetwork",
    "NeuralGraphGNN",
    "NeuralGraphTransformer",
    "Probes",
    "ScaleGMN",
    "States",
    "read_all",
]
