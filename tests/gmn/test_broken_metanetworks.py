"""The battery of laws fails for metanetworks that break one, and names it."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.nn import GMN, InvariantHead, Metanetwork
from gmn.spec import GraphSpec
from gmn.testing import MetanetworkLaws
from tests.traced import one_in


class Broken(Metanetwork):
    """A sound metanetwork, and what is done to its input or answer."""

    symmetries = ("permutations", "exchanges")

    def __init__(self) -> None:
        super().__init__()
        self.sound = GMN(8, 1, InvariantHead(3))

    def forward(self, graph: ParameterGraph) -> Tensor:
        return self.sound(graph)


class SeesOneEntry(Broken):
    def forward(self, graph: ParameterGraph) -> Tensor:
        first = next(iter(graph.values.values())).flatten(1)[:, :1]
        return self.sound(graph) + first


class MixesNetworks(Broken):
    def forward(self, graph: ParameterGraph) -> Tensor:
        answer = self.sound(graph)
        return answer + answer.mean(dim=0)


class SkipsBiases(Broken):
    def forward(self, graph: ParameterGraph) -> Tensor:
        zeros = {n: 0 * v for n, v in graph.values.items() if n.endswith("bias")}
        return self.sound(graph.replace(zeros))


class Diverges(Broken):
    def forward(self, graph: ParameterGraph) -> Tensor:
        norms = [value.square().flatten(1).sum(dim=1).sqrt() for value in graph.values.values()]
        return self.sound(graph) + torch.stack(norms).sum(dim=0).unsqueeze(1)


class HasAnIdlePart(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(2, 2)


class ForgetsItsState(Broken):
    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.randn(3)

    def forward(self, graph: ParameterGraph) -> Tensor:
        return self.sound(graph) + self.noise.to(graph.dtype)


class Laws(MetanetworkLaws):
    names = ("perceptron", "gated-attention")
    edits = False

    def __init__(self, kind: type[Broken]) -> None:
        self.kind = kind

    def build(self, spec: GraphSpec, head: object) -> nn.Module:
        return self.kind()


BROKEN = [
    (SeesOneEntry, "answers_are_invariant", "SeesOneEntry is not invariant"),
    (MixesNetworks, "a_batch_is_its_networks", "other networks of a batch"),
    (SkipsBiases, "every_parameter_matters", r"0\.bias: must be seen"),
    (Diverges, "gradients_are_finite", "all 0: gradients of .*weight"),
    (HasAnIdlePart, "gradients_reach_every_parameter", "no gradient ever reaches idle.bias"),
    (ForgetsItsState, "state_dicts_come_back", "does not hold all of it"),
]


def tried(battery: Laws, label: str) -> None:
    """One law of the battery, on one network if it is about networks."""
    test = getattr(battery, label)
    test(*(["perceptron"] if "name" in signature(test).parameters else []))


@pytest.mark.parametrize(("kind", "law", "message"), BROKEN)
def test_one_law_is_broken(kind: type[Broken], law: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        tried(Laws(kind), f"test_{law}")


@pytest.mark.parametrize(("kind", "law", "message"), one_in(2, BROKEN, lambda row: row[1]))
def test_the_other_laws_hold(kind: type[Broken], law: str, message: str) -> None:
    battery = Laws(kind)
    for label in (label for label in dir(battery) if label.startswith("test_")):
        if label != f"test_{law}" and law != "answers_are_invariant":  # which breaks others, too
            tried(battery, label)
    with pytest.raises(AssertionError):
        battery.check()


def test_a_sound_model_passes() -> None:
    Laws(Broken).check()


def test_what_is_claimed_has_to_be_said() -> None:
    class Silent(Broken):
        symmetries = None

    with pytest.raises(TypeError, match="Silent does not say what it is invariant to"):
        Laws(Silent).test_answers_are_invariant("perceptron")
