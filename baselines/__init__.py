"""Parameter-sharing neural functional networks, and sober references, on parameter graphs."""

from gmn.errors import UnsupportedArchitecture

from .flat import FlatMLP
from .nfn import NFN
from .probing import ProbeNet
from .statistics import StatNN, layer_statistics

__all__ = ["NFN", "FlatMLP", "ProbeNet", "StatNN", "UnsupportedArchitecture", "layer_statistics"]
