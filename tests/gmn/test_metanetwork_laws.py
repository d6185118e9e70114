"""Our metanetworks obey the laws that are shipped for everybody's."""

from __future__ import annotations

import pytest
from torch import nn

from gmn.graph import ParameterGraph
from gmn.nn import (
    GMN,
    DualGMN,
    EditHead,
    InvariantHead,
    NeuralGraphGNN,
    NeuralGraphTransformer,
    ScaleGMN,
)
from gmn.spec import GraphSpec
from gmn.testing import MetanetworkLaws
from gmn.testing.networks import NETWORKS
from tests.gmn.test_scale_gmn import REFUSED
from tests.traced import BY_NAME, COVERING, graph_of

Head = int | EditHead
ATTENTION = "gated-attention"


WIDE = {  # laws about what is computed; by default the others hold on the shipped networks only
    "test_answers_are_invariant",
    "test_edits_move_with_the_networks",
    "test_every_parameter_matters",
    "test_one_sided_permutations_are_noticed",
}


class Laws(MetanetworkLaws):
    """On the shipped networks and all cases; those that are not `covering` are slow tests."""

    names = (*NETWORKS, *BY_NAME)
    covering: frozenset[str] = frozenset()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "name" in metafunc.fixturenames:
            often = {*NETWORKS, *(self.covering if metafunc.function.__name__ in WIDE else ())}
            marks = {name: () if name in often else pytest.mark.slow for name in self.names}
            metafunc.parametrize("name", [pytest.param(n, marks=m) for n, m in marks.items()])

    def graph(self, name: str, networks: int = 2) -> ParameterGraph:
        own = name in NETWORKS
        return super().graph(name, networks) if own else graph_of(BY_NAME[name], networks)


def of(head: Head) -> InvariantHead | EditHead:
    return head if isinstance(head, EditHead) else InvariantHead(head)


class TestGMN(Laws):
    covering = COVERING

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return GMN(12, 2, of(head))


class TestDualGMN(Laws):
    covering = COVERING

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return DualGMN(16, 2, of(head))


class TestNeuralGraphGNN(Laws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return NeuralGraphGNN(12, 2, of(head), edge_hidden=8)


class TestNeuralGraphGNNForward(Laws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return NeuralGraphGNN(12, 2, of(head), edge_hidden=8, reverse=False)


class TestNeuralGraphTransformer(Laws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return NeuralGraphTransformer(12, 2, of(head), edge_hidden=8, attention=16, heads=2)


class TestScaleGMN(Laws):
    """Of the architectures whose scales some weight undoes; what it refuses is tested elsewhere."""

    names = tuple(n for n in Laws.names if n not in (*REFUSED, ATTENTION))
    notices = ("operations",)

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return ScaleGMN(12, 3, of(head))


class TestScaleGMNBidirectional(TestScaleGMN):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return ScaleGMN(12, 3, of(head), bidirectional=True)
