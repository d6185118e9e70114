"""Neural functional networks and simple reference models on parameter graphs."""

from gmn.errors import UnsupportedArchitecture

from .flat import FlatMLP
from .magep import MAGEP
from .monomial import MonomialNFN
from .nfn import NFN
from .nft import NFT
from .probing import ProbeNet
from .statistics import StatNN, layer_statistics
from .transformer_nfn import TransformerNFN
from .unf import UNF

__all__ = [
    "MAGEP",
    "NFN",
    "NFT",
    "UNF",
    "FlatMLP",
    "MonomialNFN",
    "ProbeNet",
    "StatNN",
    "TransformerNFN",
    "UnsupportedArchitecture",
    "layer_statistics",
]
