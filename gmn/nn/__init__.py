"""Message-passing metanetworks."""

from gmn.nn.dual import DualGMN
from gmn.nn.editing import EditHead
from gmn.nn.gmn import GMN
from gmn.nn.heads import InvariantHead, States
from gmn.nn.message_network import MessagePassingNetwork
from gmn.nn.message_passing import MessagePassing
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.mixed import read_all
from gmn.nn.neural_graph_gnn import NeuralGraphGNN
from gmn.nn.neural_graph_transformer import NeuralGraphTransformer
from gmn.nn.probes import Probes
from gmn.nn.scale_gmn import ScaleGMN

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
