"""Our metanetworks obey the laws that are shipped for everybody's."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn

import gmn
from gmn import registry
from gmn.errors import UnsupportedArchitecture
from gmn.nn import EditHead, InvariantHead
from gmn.spec import GraphSpec
from gmn.symmetry import KINDS
from tests.gmn.test_scale_gmn import REFUSED
from tests.metanetwork_laws import Laws
from tests.traced import COVERING, SEVERAL, graph_of, read_by

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
    smallest = 1e-11  # layers after the first begin faintly

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.DualGMN(16, 2, of(head))


class TestDualGMNAboutTraining(Laws):
    smallest = 1e-11

    def build(self, spec: GraphSpec, head: Head) -> nn.Module:
        return gmn.nn.DualGMN(16, 2, of(head), symmetries=KINDS[:2]).eval()


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


@pytest.mark.parametrize("name", registry.names())
def test_no_networks_get_no_answers(name: str) -> None:
    graph = graph_of(read_by(name), networks=1).to(dtype=torch.float32)
    for head in (3, EditHead()):
        with suppress(UnsupportedArchitecture):  # those that do not edit
            model = registry.find(name)(graph.spec, head)
            if isinstance(model, nn.Module):
                answer = model(graph[:0])
                assert len(answer) == 0
                assert head != 3 or answer.shape == (0, 3)
