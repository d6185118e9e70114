"""Neural functional networks and simple reference models on parameter graphs."""

from baselines.attention.transformer_nfn import TransformerNFN
from baselines.flat import FlatMLP
from baselines.magep import MAGEP
from baselines.monomial import MonomialNFN
from baselines.nfn import NFN
from baselines.nft import NFT
from baselines.probing import ProbeNet
from baselines.statistics import StatNN, layer_statistics, rich_statistics
from baselines.unf import UNF
from gmn.errors import UnsupportedArchitecture

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
    "rich_statistics",
]
