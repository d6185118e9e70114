"""Our baselines obey the laws that are shipped for everybody's metanetworks."""

from __future__ import annotations

from torch import nn

from baselines import NFN, NFT, FlatMLP, MonomialNFN
from baselines.magep import MAGEP
from baselines.presets import probe_net
from baselines.unf import UNF
from gmn.nn import EditHead
from gmn.spec import GraphSpec
from gmn.testing.laws import DAMAGE
from gmn.testing.networks import NETWORKS
from tests.baselines import scaled_chains
from tests.cases import CASES
from tests.metanetwork_laws import Laws
from tests.traced import RIGID, SEVERAL

Head = int | EditHead
PERCEPTRONS = ("perceptron", "perceptron-tanh")


def bold(net: nn.Module) -> nn.Module:
    """Edits of size one, so that laws are about the changes."""
    for name, parameter in net.named_parameters():
        if name.endswith("size"):
            nn.init.ones_(parameter)
    return net


class ChainLaws(Laws):
    names = (*PERCEPTRONS, *(case.name for case in CASES if case.chain))
    covering = frozenset({"mlp-no-bias", "cnn", "cnn-flatten", "cnn-1d", "single-layer"})
    few = frozenset({"cnn"})
    notices: tuple[str, ...] = ("parameters", "neurons")


class TestHNP(ChainLaws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(NFN(spec, (4, 3), "HNP", head))


class TestNP(ChainLaws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(NFN(spec, (4, 3), "NP", head))


class TestNPPublished(ChainLaws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(NFN(spec, (4, 3), "NP", head, published=True))


class TestDWS(ChainLaws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(NFN(spec, (4, 3), "DWS", head))


class TestNFT(ChainLaws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(NFT(spec, 8, 2, 2, head))


class TestFlatMLP(ChainLaws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(FlatMLP(spec, (16,), head))


class TestProbeNet(ChainLaws):
    edits = False

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return probe_net(spec, head)


class TestUNF(Laws):
    names = (*NETWORKS, *(case.name for case in CASES if case.name not in RIGID))
    covering = SEVERAL
    notices = ("parameters", "neurons")

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(UNF(spec, (3, 2), head))


class TestUNFShared(TestUNF):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(UNF(spec, (3, 2), head, apart=0))


class TestMonomialNFN(ChainLaws):
    """Under positive scales it reads little more than signs; its own tests say what."""

    notices = ()
    names = (*PERCEPTRONS, *(case.name for case in CASES if case in scaled_chains.SCALED))

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(MonomialNFN(spec, (4, 3), head))


class TestMonomialNFNPublished(TestMonomialNFN):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(MonomialNFN(spec, (4, 3), head, published=True))


class TestMAGEP(TestMonomialNFN):
    notices = ChainLaws.notices

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(MAGEP(spec, (4, 3, 2), head, invariants=5))


class TestMAGEPPublished(TestMAGEP):
    def test_gradients_are_finite(self, name: str) -> None:
        """But at weights of ten thousand, whose products overflow: why ours are divided."""
        bearable = [damage for label, damage in DAMAGE.items() if label != "large"]
        assert not self._not_finite(self.graph(name), bearable)

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return bold(MAGEP(spec, (4, 3, 2), head, invariants=5, published=True))
