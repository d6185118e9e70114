"""GraphSpec refuses what is inconsistent and says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import converters
import gmn
from tests.traced import BY_NAME, spec_of


def test_prints_a_readable_table() -> None:
    text = repr(spec_of("cnn"))
    assert text.startswith("GraphSpec: ")
    assert "input → 0" in text
    assert "S5" in text
    assert "conv2d(dilation=1×1, groups=1, padding=1×1, stride=2×2)" in text


def test_looks_up_by_name() -> None:
    spec = spec_of("resnet")
    assert spec.node_set("0").size == 4
    assert spec.edge_set("0.weight").target == "0"
    assert spec.axis("0").movable
    assert spec.entry("0.bias").shape == (4,)
    assert [e.name for e in spec.buffers][:2] == ["2.norm1.running_mean", "2.norm1.running_var"]
    with pytest.raises(KeyError):
        spec.node_set("nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a graph spec"),
        ("[]", "not a graph spec"),
        ('{"format": 99, "spec": {}}', "format 99; this version reads 1"),
        ('{"format": 1, "spec": {}}', "not a graph spec"),
        ('{"format": 1, "spec": {"entries": 3}}', "should be a list"),
        ('{"format": 1, "spec": {"colour": []}}', "no field colour"),
    ],
)
def test_refuses_other_texts(text: str, message: str) -> None:
    with pytest.raises(gmn.SpecError, match=message):
        gmn.GraphSpec.from_json(text)


def test_refuses_damaged_json() -> None:
    document = json.loads(spec_of("mlp-relu").to_json())
    document["spec"]["edge_sets"][0]["dims"][0]["port"] = "sideways"
    with pytest.raises(gmn.SpecError, match="'sideways' is none of"):
        gmn.GraphSpec.from_json(json.dumps(document))


def test_opens_specs_that_were_written_before_contexts_and_constants() -> None:
    spec = gmn.GraphSpec.from_json((Path(__file__).parent / "two_layers_0_1.json").read_text())
    assert spec.fingerprint.startswith("54831aea3ca2")  # as it was then: zoos are told by it
    assert (spec.tried, spec.untried, spec.constants) == ((), "", frozenset())
    assert gmn.GraphSpec.from_json(spec.to_json()) == spec
    model, inputs = BY_NAME["two-layers"].model(), BY_NAME["two-layers"].example()
    state = model.state_dict()
    graph = gmn.ParameterGraph.from_state_dicts(spec, [state])
    assert all(torch.equal(value, state[name]) for name, value in graph.to_state_dict(0).items())
    assert spec.program is not None
    assert converters.verify(model, inputs, spec).ok


def test_refuses_inconsistency() -> None:
    spec = spec_of("mlp-relu")
    first, *others = spec.edge_sets
    with pytest.raises(gmn.SpecError, match="names repeat"):
        replace(spec, edge_sets=(first, first, *others))
    with pytest.raises(gmn.SpecError, match="edge sets hold 0 of its 18 elements"):
        replace(spec, edge_sets=tuple(others), scalings=())
    with pytest.raises(gmn.SpecError, match="no node set is called 'nowhere'"):
        replace(spec, edge_sets=(replace(first, target="nowhere"), *others))
    with pytest.raises(gmn.SpecError, match="shape"):
        replace(spec, node_sets=(replace(spec.node_sets[0], shape=(7,)), *spec.node_sets[1:]))
    with pytest.raises(gmn.SpecError, match="no axis is called"):
        replace(spec, axes=spec.axes[1:])
    with pytest.raises(gmn.SpecError, match="no state-dict entry"):
        replace(spec, edge_sets=(replace(first, parameter="ghost"), *others))
    with pytest.raises(gmn.SpecError, match="no edge set"):
        replace(spec, edge_sets=spec.edge_sets, scalings=(_dangling(spec),))


def test_nothing_is_larger_than_the_weights() -> None:
    """So what reads a spec from a file takes memory in proportion to it."""
    spec = spec_of("cnn")
    first, *others = spec.edge_sets
    dim, *dims = first.dims
    for changed in (
        replace(first, offset=10**9),
        replace(first, offset=-1),
        replace(first, dims=(replace(dim, stride=-1), *dims)),
        replace(first, dims=(replace(dim, stride=0), *dims)),
        replace(first, dims=(replace(dim, stride=2**40), *dims)),
        replace(
            first,
            name="again",
            tied_to=first.name,
            dims=(*first.dims, gmn.spec.Dim(2**40, 1, "tap")),
        ),
    ):
        kept = spec.edge_sets if changed.tied_to else tuple(others)
        with pytest.raises(gmn.SpecError, match=r"does not lie within 0\.weight"):
            replace(spec, edge_sets=(*kept, changed))
    for size, message in ((2**40, "neurons for"), (-1, "negative")):
        far = gmn.spec.Axis("far", size, movable=True)
        nodes = gmn.spec.NodeSet("far", "hidden", ("far",), (size,))
        with pytest.raises(gmn.SpecError, match=message):
            replace(spec, axes=(*spec.axes, far), node_sets=(*spec.node_sets, nodes))
    assert spec.program is not None
    for shape in ((2**40,), (2, -1)):
        wide = replace(spec.program.inputs[0], shape=shape)
        with pytest.raises(gmn.SpecError, match="an input of shape"):
            replace(spec, program=replace(spec.program, inputs=(wide,)))
    seen = spec.program.observations[0]
    for false in (
        replace(seen, nodes="ghost"),
        replace(seen, reader="ghost"),
        replace(seen, sides=()),
        replace(seen, sides=(gmn.spec.program.Side(0, (gmn.spec.program.Factor(2**40, 0),)),)),
    ):
        with pytest.raises(gmn.SpecError, match=f"{seen.value}.*(is called 'ghost'|neurons, not)"):
            replace(spec, program=replace(spec.program, observations=(false,)))
    scaling = spec.scalings[0]
    with pytest.raises(gmn.SpecError, match="is not that of its axes"):
        replace(spec, scalings=(replace(scaling, shape=(10**9,)),))
    term = replace(scaling.terms[0], dims=(7,))
    with pytest.raises(gmn.SpecError, match=r"dims \(7,\) of .* are not of its shape"):
        replace(spec, scalings=(replace(scaling, terms=(term,)),))


def _dangling(spec: gmn.GraphSpec) -> object:
    scaling = spec.scalings[0]
    return replace(scaling, terms=(replace(scaling.terms[0], edge_set="ghost"),))


def test_fingerprints_tell_architectures_apart() -> None:
    names = ["mlp-relu", "mlp-tanh", "cnn", "cnn-flatten", "resnet", "mlp-no-bias"]
    assert len({spec_of(name).fingerprint for name in names}) == len(names)
    assert len({spec_of(name) for name in names}) == len(names)


def _through(**changes: object) -> gmn.GraphSpec:
    """A spec whose last translation passes its weight in another way."""
    spec = spec_of("attention-grouped")
    *others, carry = spec.translations
    plain, term = carry.terms
    assert term.through is not None
    terms = (plain, replace(term, through=replace(term.through, **changes)))
    return replace(spec, translations=(*others, replace(carry, terms=terms)))


def test_a_weight_on_the_way_of_numbers_has_to_take_them() -> None:
    spec = spec_of("attention-grouped")
    (through,) = (t.through for t in spec.translations[-1].terms if t.through)
    assert _through() == spec
    assert len(spec.edge_set("o.weight").dims) == 4  # heads of a group are summed over
    for changes in (
        {"source": through.source[:1]},
        {"source": (0, 9)},
        {"target": (through.target[0], through.target[0])},
        {"edge_set": "q.bias"},
    ):
        with pytest.raises(gmn.SpecError, match="does not take numbers of shape"):
            _through(**changes)
    with pytest.raises(gmn.SpecError, match="no edge set 'nothing' to pass"):
        _through(edge_set="nothing")
    with pytest.raises(gmn.SpecError, match=r"it moves o\.bias, which its numbers pass"):
        _through(edge_set="o.bias")
    *others, carry = spec.translations
    with pytest.raises(gmn.SpecError, match="its first term must be without a weight"):
        replace(spec, translations=(*others, replace(carry, terms=carry.terms[::-1])))


def test_terms_without_a_weight_are_written_as_before() -> None:
    document = json.loads(spec_of("attention").to_json())
    keys, values = document["spec"]["translations"]
    assert keys["terms"] == [{"edge_set": "k.bias", "dims": [0, 1]}]
    assert values["terms"][1]["through"]["edge_set"] == "o.weight"
