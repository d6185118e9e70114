"""Our metanetworks obey the laws that are shipped for everybody's."""

from __future__ import annotations

from torch import nn

import gmn
from gmn.nn import EditHead, InvariantHead
from gmn.spec import GraphSpec
from tests.gmn.test_scale_gmn import REFUSED
from tests.metanetwork_laws import Laws
from tests.traced import COVERING, SEVERAL

Head = int | EditHead
ATTENTION = "gated-attention"


def of(head: Head) -> InvariantHead | EditHead:
    return head if isinstance(head, EditHead) else InvariantHead(head)


class TestGMN(Laws):
    covering = COVERING

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.GMN(12, 2, of(head))


class TestDualGMN(Laws):
    covering = SEVERAL

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.DualGMN(16, 2, of(head))


class TestNeuralGraphGNN(Laws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.NeuralGraphGNN(12, 2, of(head), edge_hidden=8)


class TestNeuralGraphGNNForward(Laws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        # Messages that only run forward take three layers to tell the stream's neurons apart, past
        # the heads: with two, columns of queries in a transformer may trade places unseen.
        return gmn.nn.NeuralGraphGNN(12, 3, of(head), edge_hidden=8, reverse=False)


class TestNeuralGraphTransformer(Laws):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.NeuralGraphTransformer(12, 2, of(head), edge_hidden=8, attention=16, heads=2)


class TestScaleGMN(Laws):
    """Of the architectures whose scales some weight undoes; what it refuses is tested elsewhere."""

    # Those first on which every parameter of the model is read.
    names = tuple(
        n
        for n in dict.fromkeys(["perceptron", "prelu", "heads", "cnn-grouped", *Laws.names])
        if n not in (*REFUSED, ATTENTION)
    )
    notices = ("parameters", "neurons", "operations")
    few = frozenset({"residual-block"})

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.ScaleGMN(12, 3, of(head))


class TestScaleGMNBidirectional(TestScaleGMN):
    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.ScaleGMN(12, 3, of(head), bidirectional=True)
