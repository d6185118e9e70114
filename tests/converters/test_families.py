"""Architectures that nobody here wrote: traced, covered, certified."""

from __future__ import annotations

import pytest
import torch

import converters
import gmn
from gmn.testing import assert_covers
from tests.families import FAMILIES, build
from tests.traced import slow_but

pytest.importorskip("transformers")


OFTEN = ("convnext", "gpt2")  # images, attention; experts are read in test_from_config


@pytest.mark.parametrize("name", slow_but(FAMILIES, OFTEN))
@pytest.mark.filterwarnings("ignore")
def test_family(name: str) -> None:
    model, inputs = build(name)
    spec = converters.trace(model, inputs, experiment=False)
    assert_covers(spec)
    state = model.state_dict()
    back = gmn.ParameterGraph.from_state_dicts(spec, [state]).to_state_dict()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    certificate = converters.verify(model, inputs, spec, trials=2)
    assert certificate.ok, str(certificate)
    assert spec.symmetries.permutations


@pytest.mark.filterwarnings("ignore")
def test_attention_is_what_it_is() -> None:
    """Heads move as wholes; units of queries and keys move together, those of values alone."""
    spec = converters.trace(*build("opt"))
    layer = "model.model.decoder.layers.0.self_attn"
    query, key, value = (
        spec.node_set(spec.edge_set(f"{layer}.{name}_proj.weight").target).axes for name in "qkv"
    )
    assert query == key
    assert query[0] == value[0]
    assert query[1] != value[1]
    assert spec.axis(query[1]).within == spec.axis(value[1]).within == (query[0],)
