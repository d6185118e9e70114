"""Architectures of torchvision and timm: traced, covered, certified. Needs the extra `vision`."""

from __future__ import annotations

import copy
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
    model: nn.Module, inputs: tuple[Tensor, ...], spec: gmn.GraphSpec, count: int = 8
) -> None:
    """Outputs depend on most weights: they change if one does not move with the others."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    element = symmetry.sample(spec, torch.Generator().manual_seed(0), scalings=False)
    moved = element.act(state)
    weights = {edges.parameter for edges in spec.edge_sets if edges.kind == "weight"}
    names = sorted(name for name in weights if not torch.equal(moved[name], state[name]))
    names = random.Random(0).sample(names, min(count, len(names)))
    expected = _outputs(model, moved, inputs)
    changes = {
        name: max(
            map(relative_error, _outputs(model, {**moved, name: state[name]}, inputs), expected)
        )
        for name in names
    }
    assert sum(change > 1e-5 for change in changes.values()) >= 0.75 * len(names), changes


def _outputs(
    model: nn.Module, state: Mapping[str, Tensor], inputs: tuple[Tensor, ...]
) -> list[Tensor]:
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    with torch.no_grad():
        result = functional_call(
            copy.deepcopy(model, tensors), dict(state), inputs, tie_weights=False
        )
    return [value for value in pytree.tree_leaves(result) if isinstance(value, Tensor)]
