"""Architectures of torchvision and timm: traced, covered, certified. Needs the extra `vision`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

import converters
import gmn
from gmn import symmetry
from gmn.testing import assert_covers, relative_error
from tests.vision import TIMM, TORCHVISION, build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAMES = [("torchvision", name) for name in TORCHVISION] + [("timm", name) for name in TIMM]


@pytest.mark.parametrize(("library", "name"), NAMES, ids=map("-".join, NAMES))
def test_network(library: str, name: str) -> None:
    pytest.importorskip(library)
    model, inputs = build(library, name)
    spec = converters.trace(model, inputs)
    assert_covers(spec)
    state = model.state_dict()
    back = gmn.ParameterGraph.from_state_dicts(spec, [state]).to_state_dict()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    certificate = converters.verify(model, inputs, spec, trials=2)
    assert certificate.ok, str(certificate)
    assert not spec.unknown, spec.unknown
    assert_certificate_means_something(model, inputs, spec)


def assert_certificate_means_something(
    model: nn.Module, inputs: tuple[Tensor, ...], spec: gmn.GraphSpec, count: int = 4
) -> None:
    """A weight that does not move with the others changes the outputs: they depend on it."""
    model = model.double()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    element = symmetry.sample(spec, torch.Generator().manual_seed(0), scalings=False)
    moved = element.act(state)
    names = {
        e.parameter for e in spec.edge_sets if e.kind == "weight" and e.operation.name != "unused"
    }
    names = sorted(name for name in names if not torch.equal(moved[name], state[name]))
    expected = _outputs(model, state, inputs)
    for name in random.Random(0).sample(names, min(count, len(names))):
        found = _outputs(model, {**moved, name: state[name]}, inputs)
        changes = itertools.starmap(relative_error, zip(found, expected, strict=True))
        assert max(changes) > 1e-7, f"{name} does not matter for the outputs"


def _outputs(
    model: nn.Module, state: Mapping[str, Tensor], inputs: tuple[Tensor, ...]
) -> list[Tensor]:
    with torch.no_grad():
        result = functional_call(model, dict(state), tuple(value.double() for value in inputs))
    return [value for value in pytree.tree_leaves(result) if isinstance(value, Tensor)]
