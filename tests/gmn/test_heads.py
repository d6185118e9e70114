"""A head of a user's own works in every metanetwork."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.nn import GMN, DualGMN, NeuralGraphGNN, NeuralGraphTransformer, ScaleGMN, States
from gmn.testing import MetanetworkLaws
from tests.traced import BY_NAME, graph_of

HIDDEN = 16


class LargestNeuron(nn.Module):
    """Twenty lines of a stranger's: the hidden neuron that stands out most."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.score, self.answer = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, outputs)

    def forward(self, states: States, graph: ParameterGraph) -> Tensor:
        weights = self.score(states.nodes).softmax(dim=1)
        return self.answer((weights * states.nodes).sum(dim=1))


@pytest.mark.parametrize("net", [GMN, DualGMN, NeuralGraphGNN, NeuralGraphTransformer, ScaleGMN])
def test_laws_hold_with_it(net: Callable[..., nn.Module]) -> None:
    class Laws(MetanetworkLaws):
        names = ("perceptron", "convolutions")
        notices = ("parameters", "neurons", "operations")
        edits = False

        def build(self, spec: object, head: int) -> nn.Module:
            return net(HIDDEN, 3, LargestNeuron(head))

    laws = Laws()
    for name in laws.names:
        laws.test_answers_are_invariant(name)
        laws.test_every_parameter_matters(name)
        laws.test_one_sided_permutations_are_noticed(name)


def test_models_say_what_states_they_keep() -> None:
    seen: dict[str, States] = {}

    class Notes(nn.Module):
        def forward(self, states: States, graph: ParameterGraph) -> Tensor:
            seen[graph.spec.node_sets[0].role] = states
            return states.nodes.mean(dim=1)

    graph = graph_of(BY_NAME["mlp-relu"])
    edges = sum(part.num_pairs for part in graph.spec.edge_sets)
    for net, summary, kept in ((GMN, True, True), (DualGMN, True, False), (ScaleGMN, False, False)):
        assert net(HIDDEN, 2, Notes()).double()(graph).shape == (2, HIDDEN)
        (states,) = seen.values()
        assert states.nodes.shape == (2, graph.spec.num_nodes, HIDDEN)
        assert (states.summary is not None) == summary
        if kept:
            assert states.edges is not None
            assert states.edges.shape == (2, edges, HIDDEN)
        else:
            assert states.edges is None


def test_a_number_is_a_head() -> None:
    torch.manual_seed(0)
    assert GMN(HIDDEN, 1, 5).double()(graph_of(BY_NAME["cnn"])).shape == (2, 5)


def test_channels_that_do_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match="12 channels; DualGMN takes a multiple of 8"):
        DualGMN(12)
