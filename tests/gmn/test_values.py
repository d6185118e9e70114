"""Entries that are no real floating-point numbers: kept bit by bit, moved, and seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import symmetry
from gmn.explain import gradient, saliency
from gmn.graph import files
from gmn.nn import GMN, DualGMN, EditHead, NeuralGraphGNN, NeuralGraphTransformer, ScaleGMN
from gmn.spec import Scaling, ScalingTerm
from gmn.testing import assert_covers, assert_invariant, relative_error
from tests.gmn.odd_entries import graph_of, state_of, with_entries
from tests.traced import spec_of

NETS: dict[str, Callable[..., nn.Module]] = {
    "GMN": GMN,
    "DualGMN": DualGMN,
    "NG-GNN": NeuralGraphGNN,
    "NG-T": NeuralGraphTransformer,
    "ScaleGMN": ScaleGMN,
}
every_net = pytest.mark.parametrize("build", NETS.values(), ids=NETS.keys())
ON_GRAPH = ("mask", "grid", "whole", "chosen", "phases")


def net(build: Callable[..., nn.Module], **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build(hidden=16, depth=2, **options).double()


def bits(value: Tensor) -> Tensor:
    return value.contiguous().view(torch.uint8)


# --- values -------------------------------------------------------------------------------------


def test_every_entry_comes_back_bit_by_bit() -> None:
    state, graph = state_of(1), graph_of()
    for name, value in graph.to_state_dict(1).items():
        assert value.dtype == state[name].dtype
        assert torch.equal(bits(value), bits(state[name])), name


def test_a_mask_enters_as_zeros_and_ones() -> None:
    graph = graph_of()
    mask = graph.spec.edge_set("mask")
    assert graph.block(mask).tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]]
    lowest = state_of() | {"mask": state_of()["mask"].clamp(min=-1e30)}
    again = gmn.ParameterGraph.from_state_dicts(graph.spec, [lowest])
    assert torch.equal(again.block(mask)[0], graph.block(mask)[0])


def test_a_mask_added_to_biases_lies_below_them_and_moves_with_them() -> None:
    spec = with_entries()
    biased = torch.tensor([0.5, 1, -torch.inf, -3, -torch.inf, 1e4], dtype=torch.float64)
    state = state_of() | {"mask": biased}
    graph = gmn.ParameterGraph.from_state_dicts(spec, [state])
    assert graph.numbers("mask").tolist() == [[0.5, 1, -7, -3, -7, 1e4]]
    moved = symmetry.sample(spec, torch.Generator().manual_seed(1)).act_on_graph(graph)
    assert sorted(moved.values["mask"][0].tolist()) == sorted(biased.tolist())
    block = spec.edge_set("mask")
    assert torch.equal(
        graph.replace_pairs({"mask": graph.pairs(block)}).values["mask"], graph.values["mask"]
    )


def test_every_number_that_is_read_is_finite() -> None:
    graph = graph_of()
    for edges in graph.spec.edge_sets:
        found = graph.pairs(edges)
        assert found.dtype == torch.float64
        assert found.isfinite().all()
    assert graph.to_pyg().edge_attr.isfinite().all()


def test_complex_numbers_are_pairs() -> None:
    graph = graph_of()
    assert_covers(graph.spec)
    block = graph.block(graph.spec.edge_set("phases"))
    assert torch.equal(torch.view_as_complex(block.contiguous()), graph.values["phases"])
    assert graph.to(dtype=torch.float32).values["phases"].dtype == torch.complex64
    assert graph.to(dtype=torch.float64).values["phases"].dtype == torch.complex128


def test_conjugates_are_read_and_moved_right() -> None:
    state = state_of()
    view = state | {"phases": state["phases"].conj().resolve_conj().conj()}
    graphs = [gmn.ParameterGraph.from_state_dicts(with_entries(), [s]) for s in (state, view)]
    phases = graphs[0].spec.edge_set("phases")
    assert torch.equal(graphs[0].block(phases), graphs[1].block(phases))
    element = symmetry.sample(graphs[0].spec, torch.Generator().manual_seed(0))
    assert torch.equal(element.act(view)["phases"], element.act(state)["phases"])


def test_pairs_and_their_inverse() -> None:
    graph = graph_of()
    back = graph.replace_pairs({e.name: graph.pairs(e) for e in graph.spec.edge_sets})
    for name, value in graph.values.items():
        assert torch.equal(bits(back.values[name]), bits(value)), name


def test_files_keep_every_entry(tmp_path: Path) -> None:
    files.save(graph_of(), tmp_path / "graph")
    for name, value in files.load(tmp_path / "graph").values.items():
        assert torch.equal(bits(value), bits(graph_of().values[name])), name


def test_specs_without_complex_entries_and_contexts_still_open() -> None:
    whole = with_entries()
    edge_sets = tuple(replace(edges, context="") for edges in whole.edge_sets[:-1])
    spec = replace(whole, edge_sets=edge_sets, entries=whole.entries[:-2])
    text = spec.to_json()
    assert "complex" not in text
    assert "context" not in text
    assert gmn.GraphSpec.from_json(text) == spec


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask", torch.full((6,), torch.inf), "mask has NaN or infinite values"),
        ("grid", torch.full((6, 4), torch.nan), "grid has NaN or infinite values"),
        ("phases", torch.full((2, 6), torch.nan + 0j), "phases has NaN or infinite values"),
        ("phases", torch.ones(2, 6), "phases is torch.float32, this architecture needs complex"),
        ("whole", torch.ones(2, 6), "whole is torch.float32, this architecture needs integer"),
    ],
)  # fmt: skip
def test_other_values_are_refused(name: str, value: Tensor, message: str) -> None:
    with pytest.raises(gmn.StateDictError, match=message):
        gmn.ParameterGraph.from_state_dicts(with_entries(), [state_of() | {name: value}])


def test_no_scale_may_act_on_integers() -> None:
    spec = with_entries()
    axis = spec.edge_set("whole").dims[1].axis
    assert axis is not None
    scaling = Scaling("s", "positive", (axis,), (6,), (ScalingTerm("whole", (1,), 1.0),))
    with pytest.raises(gmn.SpecError, match="whole holds integers"):
        replace(spec, scalings=(scaling,))


# --- group action -------------------------------------------------------------------------------


def test_permutations_move_every_entry_exactly() -> None:
    spec, state = with_entries(), state_of()
    axis = spec.edge_set("mask").dims[0].axis
    assert axis is not None
    element = symmetry.only(spec, axis, torch.Generator().manual_seed(0))
    moved, order = element.act(state), element.permutations[axis]
    for name, place in (("mask", 0), ("grid", 0), ("whole", 1), ("chosen", 0), ("phases", 1)):
        assert moved[name].dtype == state[name].dtype
        assert torch.equal(moved[name], state[name].index_select(place, order)), name
    for name, value in element.inverse().act(moved).items():
        assert torch.equal(bits(value), bits(state[name])), name


def test_scales_act_on_both_parts_of_complex_numbers() -> None:
    spec, state = with_entries(), state_of()
    axis = spec.edge_set("phases").dims[1].axis
    assert axis is not None
    scaling = Scaling("s", "positive", (axis,), (6,), (ScalingTerm("phases", (1,), 2.0),))
    spec = replace(spec, scalings=(scaling,))
    element = symmetry.only(spec, "s", torch.Generator().manual_seed(0))
    expected = state["phases"] * element.scales["s"] ** 2
    torch.testing.assert_close(element.act(state)["phases"], expected)


EIGHT_BIT = [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", EIGHT_BIT)
def test_eight_bit_floats_move_and_are_read(dtype: torch.dtype) -> None:
    spec = spec_of("mlp-relu")
    state = {n: v.to(dtype) for n, v in state_of().items() if n[0].isdigit()}
    graph = gmn.ParameterGraph.from_state_dicts(spec, [state])
    element = symmetry.sample(spec, torch.Generator().manual_seed(0), scalings=False)
    moved = element.act(state)
    exact = element.act({n: v.float() for n, v in state.items()})
    assert all(torch.equal(moved[n].float(), exact[n]) for n in state)
    assert torch.equal(
        graph.pairs(spec.edge_sets[0]), graph.to(dtype=torch.float32).pairs(spec.edge_sets[0])
    )
    torch.manual_seed(0)
    answer = GMN(16, 2)(element.act_on_graph(graph))
    torch.manual_seed(0)
    torch.testing.assert_close(answer, GMN(16, 2)(graph))


@pytest.mark.parametrize("dtype", EIGHT_BIT)
def test_eight_bit_floats_that_are_not_finite_are_refused(dtype: torch.dtype) -> None:
    state = {n: v.to(dtype) for n, v in state_of().items() if n[0].isdigit()}
    state["0.bias"] = torch.full((6,), torch.nan).to(dtype)
    with pytest.raises(gmn.StateDictError, match=r"0\.bias has NaN"):
        gmn.ParameterGraph.from_state_dicts(spec_of("mlp-relu"), [state])


# --- metanetworks -------------------------------------------------------------------------------


@every_net
def test_invariant_to_permutations(build: Callable[..., nn.Module]) -> None:
    assert_invariant(net(build), graph_of(), symmetries={"permutations"})


@every_net
@pytest.mark.parametrize("name", ON_GRAPH)
def test_every_entry_is_seen(build: Callable[..., nn.Module], name: str) -> None:
    model, graph = net(build), graph_of(1)
    other = graph.replace({name: graph_of(2).values[name][1:]})
    with torch.no_grad():
        assert relative_error(model(other), model(graph)) > 1e-6


@every_net
def test_a_batch_is_its_networks(build: Callable[..., nn.Module]) -> None:
    graph, model = graph_of(3), net(build)
    graph = graph.replace({"mask": graph.values["mask"].index_fill(0, torch.tensor([1]), 0.5)})
    torch.testing.assert_close(model(graph), torch.cat([model(graph[i]) for i in range(3)]))


@every_net
def test_edits_leave_constants_alone(build: Callable[..., nn.Module]) -> None:
    graph = graph_of()
    edited = net(build, head=EditHead())(graph)
    for entry in graph.spec.entries:
        same = torch.equal(bits(edited.values[entry.name]), bits(graph.values[entry.name]))
        assert same != entry.learnable, entry.name


def test_attributions_of_constants_and_complex_numbers() -> None:
    graph, model = graph_of(), net(GMN)
    slopes = gradient(model, graph)
    assert slopes.values["phases"].is_complex()
    assert slopes.values["phases"].abs().min() > 0
    assert slopes.values["grid"].abs().min() > 0
    found = saliency(model, graph)
    parts = (torch.view_as_real(v["phases"]) for v in (slopes.values, graph.values))
    expected = torch.view_as_real(found.values["phases"])
    torch.testing.assert_close(expected, torch.stack([*parts]).prod(0).abs())
