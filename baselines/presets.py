"""Factories of the baselines in published configurations, by the names that comparisons use.

Each takes the spec of the networks and the outputs: their number, or an
:class:`gmn.nn.EditHead` for edited networks.
"""

from __future__ import annotations

from baselines.attention.transformer_nfn import TransformerNFN
from baselines.flat import FlatMLP
from baselines.magep import MAGEP
from baselines.monomial import MonomialNFN
from baselines.nfn import NFN
from baselines.nft import NFT
from baselines.probing import ProbeNet
from baselines.statistics import StatNN, rich_statistics
from baselines.unf import UNF
from gmn.errors import UnsupportedArchitecture
from gmn.graph.required import require_spec
from gmn.nn import EditHead
from gmn.nn.dual.probes import Probes
from gmn.spec import GraphSpec


def nfn_hnp(spec: GraphSpec, outputs: int | EditHead) -> NFN:
    """NFN with HNP layers of (16, 16, 5) channels, as for CNN generalisation in the paper."""
    return NFN(spec, channels=(16, 16, 5), variant="HNP", head=outputs)


def nfn_np(spec: GraphSpec, outputs: int | EditHead) -> NFN:
    """NFN with NP layers of (16, 16, 5) channels and position embeddings (NP-PosEmb)."""
    return NFN(spec, channels=(16, 16, 5), variant="NP", head=outputs)


def nfn_hnp_published(spec: GraphSpec, outputs: int | EditHead) -> NFN:
    """NFN-HNP without the maps that the published layer lacks."""
    return NFN(spec, channels=(16, 16, 5), variant="HNP", head=outputs, published=True)


def nfn_np_published(spec: GraphSpec, outputs: int | EditHead) -> NFN:
    """NFN-NP with positions before every layer and the pooling of HNP, as published."""
    return NFN(spec, channels=(16, 16, 5), variant="NP", head=outputs, published=True)


def dws(spec: GraphSpec, outputs: int | EditHead) -> NFN:
    """The linear form of DWSNets: 4 layers of 32 channels, as for INRs in the paper."""
    return NFN(spec, channels=(32, 32, 32, 32), variant="DWS", head=outputs)


def nft(spec: GraphSpec, outputs: int | EditHead) -> NFT:
    """NFT of 32 channels and 4 blocks; the paper has 256 and 6, which keep gigabytes."""
    return NFT(spec, channels=32, depth=4, heads=4, head=outputs)


def unf(spec: GraphSpec, outputs: int | EditHead) -> UNF:
    """UNF of (16, 16, 16) channels and a head of 512, as for recurrent networks in the paper."""
    return UNF(spec, channels=(16, 16, 16), head=outputs)


def monomial_nfn(spec: GraphSpec, outputs: int | EditHead) -> MonomialNFN:
    """Monomial-NFN of (16, 16, 5) channels and a head of 200, as for ReLU CNNs in the paper."""
    return MonomialNFN(spec, channels=(16, 16, 5), head=outputs)


def monomial_nfn_published(spec: GraphSpec, outputs: int | EditHead) -> MonomialNFN:
    """Monomial-NFN with the published maps alone, and an affine map of what is pooled."""
    return MonomialNFN(spec, channels=(16, 16, 5), head=outputs, published=True)


def magep_nfn(spec: GraphSpec, outputs: int | EditHead) -> MAGEP:
    """MAGEP-NFN: 20 channels, two polynomial layers, 20 invariants, as for CNNs in the paper."""
    return MAGEP(spec, channels=(20, 20, 20), head=outputs, invariants=20)


def magep_nfn_published(spec: GraphSpec, outputs: int | EditHead) -> MAGEP:
    """MAGEP-NFN with the published monomials, at the size that they come in."""
    return MAGEP(spec, channels=(20, 20, 20), head=outputs, invariants=20, published=True)


def transformer_nfn(spec: GraphSpec, outputs: int | EditHead) -> TransformerNFN:
    """Transformer-NFN in the published configuration: one layer of 10 channels, 10 invariants."""
    return TransformerNFN(spec, channels=(10,), readout=10, head=outputs)


def transformer_nfn_certified(spec: GraphSpec, outputs: int | EditHead) -> TransformerNFN:
    """Transformer-NFN with all certified permutations and a readout of single heads."""
    return TransformerNFN(
        spec, channels=(10, 10), readout=10, head=outputs, group="certified", head_reads=16
    )


def flat_mlp(spec: GraphSpec, outputs: int | EditHead) -> FlatMLP:
    """An MLP on the flattened parameters."""
    return FlatMLP(spec, head=outputs)


def layer_statistics(spec: GraphSpec, outputs: int | EditHead) -> StatNN:
    """Layer statistics with gradient boosting; reads any set of architectures with equal layers.

    Raises:
        UnsupportedArchitecture: if asked for edited networks.
    """
    return StatNN(_count_of_outputs(outputs, "layer-statistics sees summaries of whole layers"))


def boosted_rich_statistics(spec: GraphSpec, outputs: int | EditHead) -> StatNN:
    """Quantiles, moments, norms and spectra of each layer with gradient boosting.

    Raises:
        UnsupportedArchitecture: if asked for edited networks.
    """
    count = _count_of_outputs(outputs, "rich-statistics sees summaries of whole layers")
    return StatNN(count, rich_statistics)


def probe_net(spec: GraphSpec, outputs: int | EditHead) -> ProbeNet:
    """Plain probing with 64 learned inputs; reads all architectures with inputs of one shape.

    Raises:
        UnsupportedArchitecture: if asked for edited networks.
    """
    require_spec("spec", spec)
    count = _count_of_outputs(outputs, "probe-net sees outputs of networks only")
    answers = sum(nodes.size for nodes in spec.node_sets if nodes.role == "output")
    return ProbeNet(Probes.like(spec, 64), answers, count)


def _count_of_outputs(outputs: int | EditHead, reads: str) -> int:
    if isinstance(outputs, EditHead):
        raise UnsupportedArchitecture(
            f"{reads}, not single weights, so it cannot say how to change them: it does not edit "
            "networks. Models that read weights do, such as dual-gmn or nfn-np"
        )
    return outputs
