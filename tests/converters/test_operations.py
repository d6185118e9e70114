"""Which permutations single operations leave, and that they take the others away."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import converters
from tests.modules import Offset, Remembering
from tests.traced import one_in, spec_of

# Sizes of the axes that may be permuted.
MOVABLE = {
    "written": [6, 2, 3],  # also columns that read the same number
    "overwritten": [2, 5],
    "shifted-tokens": [6],
    "shifted-units": [],
    "unread": [6],
    "picked": [],
    "repeated": [4, 3, 5, 2],  # also copies
    "bounded": [5],
    "fused": [5],
    "best": [6],  # the largest are the same in any order
    "windows": [4, 6],
    "sampled": [5],
    "width-one": [6, 3],
    "width-three": [3],
    "heads": [2, 4, 3],
}


@pytest.mark.parametrize("name", one_in(2, MOVABLE))
def test_what_may_be_permuted(name: str) -> None:
    spec = spec_of(name)
    assert [axis.size for axis in spec.symmetries.permutations] == MOVABLE[name]
    assert not spec.unknown


def test_exponents_and_bounds_move_with_their_channels() -> None:
    spec = spec_of("bounded")
    assert {spec.edge_set(name).target for name in ("bound", "exponent")} == {"first"}


@pytest.mark.parametrize(
    ("constant", "movable"), [(torch.zeros(6), [6]), (torch.arange(6.0), [])], ids=["alike", "not"]
)
def test_constants_that_are_alike_let_neurons_move(constant: torch.Tensor, movable: list) -> None:
    model, inputs = Offset(constant), (torch.randn(4, 3),)
    spec = converters.trace(model, inputs)
    assert [axis.size for axis in spec.symmetries.permutations] == movable
    assert converters.verify(model, inputs, spec).ok


def test_constants_in_the_state_dict_are_weights() -> None:
    model = Offset(torch.zeros(6))
    model.register_buffer("constant", torch.zeros(6))
    spec = converters.trace(model, (torch.randn(4, 3),))
    assert [axis.size for axis in spec.symmetries.permutations] == [6]
    assert spec.constants == {"constant"}  # and moves with the neurons


def test_a_certificate_does_not_see_what_a_module_remembers() -> None:
    model, inputs = Remembering(), (torch.randn(4, 3),)
    assert isinstance(model, nn.Module)
    certificate = converters.verify(model, inputs)
    assert certificate.errors
    assert certificate.ok, str(certificate)
    assert not model.memory
