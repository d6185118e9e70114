"""Networks of any size: large blocks pass through a metanetwork in pieces, never as a whole."""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import converters
import gmn
from gmn import symmetry
from gmn.canonical.shifts import Change, changes
from gmn.graph import pieces
from gmn.nn import DualGMN, EditHead, InvariantHead
from gmn.nn.dual import stream
from gmn.testing import relative_error
from tests.cases import Case
from tests.large import bert_22m, on_meta
from tests.traced import BY_NAME, graph_of, one_in, several_cases

TYPES = [torch.bfloat16, torch.float16, torch.float32]


def net(head: InvariantHead | EditHead | None = None) -> DualGMN:
    torch.manual_seed(0)
    return DualGMN(16, 2, InvariantHead(3) if head is None else head).double()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 7)
    monkeypatch.setattr(stream, "SMALL", 0)


@pytest.mark.usefixtures("small_pieces")
@several_cases
def test_streamed_answers_are_those_of_whole_blocks(case: Case) -> None:
    # Values of another type than the net's, so that every block is streamed without gradients.
    graph, model = graph_of(case).to(dtype=torch.float32), net()
    whole = model(graph.to(dtype=torch.float64)).detach()
    with torch.no_grad():
        streams = stream.blocks_of(graph, torch.float64).streams
        assert set(streams) == {e.name for e in graph.spec.edge_sets if not e.diagonal and e.size}
        assert relative_error(model(graph), whole) <= 1e-12
        assert relative_error(model(graph.to(dtype=torch.float64)), whole) <= 1e-12


def with_gradients(graph: gmn.ParameterGraph) -> gmn.ParameterGraph:
    """Values that need gradients, so that no block is streamed."""
    values = {e.name: graph.values[e.name] for e in graph.spec.entries if e.tied_to is None}
    return graph.replace(
        {
            name: value.clone().requires_grad_(value.is_floating_point() or value.is_complex())
            for name, value in values.items()
        }
    )


def gradients(model: nn.Module, graph: gmn.ParameterGraph) -> Tensor:
    """Gradients of all parameters for what tells every output apart, in one row."""
    answer = model(graph)
    parameters = list(model.parameters())
    found = torch.autograd.grad(answer.square().sum(), parameters, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.usefixtures("small_pieces")
@several_cases
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_through_streams_are_those_of_whole_blocks(case: Case, recompute: bool) -> None:
    graph, model = graph_of(case).to(dtype=torch.float32), net()
    model.recompute = recompute
    assert stream.blocks_of(graph, torch.float64).streams
    whole = gradients(model, with_gradients(graph))
    assert whole.isfinite().all()
    # Pairing divides by what heads differ in, and rounding errors with it.
    most = 1e-10 if case.name == "heads" else 1e-12
    assert relative_error(gradients(model, graph), whole) <= most


@pytest.mark.usefixtures("small_pieces")
def test_values_may_not_change_before_they_are_read_again() -> None:
    graph, model = graph_of(BY_NAME["cnn"]).to(dtype=torch.float32), net()
    answer = model(graph).sum()
    for value in graph.values.values():
        value.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        answer.backward()


@pytest.mark.usefixtures("small_pieces")
def test_streams_after_autocast() -> None:
    graph, model = graph_of(BY_NAME["transformer"]).to(dtype=torch.bfloat16), net().float()
    with torch.autocast("cpu", torch.bfloat16):
        answer = model(graph).sum()
    answer.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.usefixtures("small_pieces")
def test_values_with_tangents_are_not_streamed() -> None:
    graph = graph_of(BY_NAME["cnn"]).to(dtype=torch.float32)
    with forward_ad.dual_level():
        name = graph.spec.edge_sets[0].parameter
        value = forward_ad.make_dual(graph.values[name], torch.ones_like(graph.values[name]))
        assert not stream.blocks_of(graph.replace({name: value}), torch.float64).streams


@pytest.mark.usefixtures("small_pieces")
@several_cases
def test_a_streamed_block_looked_up_is_the_whole_block(case: Case) -> None:
    graph = graph_of(case).to(dtype=torch.float32)
    held = stream.blocks_of(with_gradients(graph), torch.float64)
    streamed = stream.blocks_of(graph, torch.float64)
    assert not held.streams
    for edges in graph.spec.edge_sets:
        torch.testing.assert_close(streamed[edges.name], held[edges.name], rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", ["transformer", "mlp-sine", "cnn"])
def test_edits_of_streamed_networks(name: str) -> None:
    graph, model = graph_of(BY_NAME[name]), net(EditHead())
    whole = model(graph)
    with torch.no_grad():
        streamed = model(graph)
    for key, value in whole.values.items():
        torch.testing.assert_close(streamed.values[key], value.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("small_pieces")
def test_what_changes_a_weight_changes_its_tied_uses() -> None:
    graph = graph_of(BY_NAME["tied-hidden"])
    tied = next(edges for edges in graph.spec.edge_sets if edges.tied_to)
    own = graph.spec.edge_set(str(tied.tied_to))
    noted = {own.name: Change(torch.randn(2, *own.shape, dtype=torch.float64))}
    found = stream._stream(graph, tied, noted, torch.float64).full()
    changed = graph.replace({own.parameter: graph.values[own.parameter].clone()})
    noted[own.name].apply(changed.block(own))
    torch.testing.assert_close(found, stream.taps_last(changed.block(tied), tied))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("gradients", [False, True])
def test_values_are_read_in_the_type_of_the_metanetwork(
    dtype: torch.dtype, gradients: bool
) -> None:
    graph = graph_of(BY_NAME["transformer"]).to(dtype=dtype)
    with torch.set_grad_enabled(gradients):
        assert relative_error(net()(graph), net()(graph.to(dtype=torch.float64))) <= 1e-12


def test_mapped_values_stay_where_they_are(tmp_path: Path) -> None:
    graph = graph_of(BY_NAME["transformer"]).to(dtype=torch.bfloat16)
    gmn.save(graph, tmp_path)
    mapped = gmn.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(net()(mapped), net()(graph))


# --- pieces -------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 7, 100, 10_000])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 2, 1), (1, 3, 0, 2)])
def test_pieces_cover_a_tensor_once(most: int, order: tuple[int, ...]) -> None:
    tensor = torch.zeros(2, 5, 1, 9).permute(order)
    for at in pieces.cut(tensor, most):
        assert tensor[at].numel() <= most
        tensor[at] += 1
    assert (tensor == 1).all()


def test_pieces_follow_memory() -> None:
    tensor = torch.arange(60).reshape(3, 4, 5).permute(2, 0, 1)
    starts = [int(tensor[at].min()) for at in pieces.cut(tensor, 10)]
    assert starts == sorted(starts)


@pytest.mark.parametrize("dims", [[1], [0, 2], [0, 1, 2]])
def test_means_in_pieces(monkeypatch: pytest.MonkeyPatch, dims: list[int]) -> None:
    monkeypatch.setattr(pieces, "PIECE", 7)
    tensor = torch.randn(3, 4, 5).to(torch.bfloat16)
    expected = tensor.double().mean(dim=dims, keepdim=True)
    torch.testing.assert_close(pieces.mean(tensor, dims, torch.float64), expected)


# --- memory -------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made, views apart."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {_place(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _place(leaf) not in given:
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return result


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Centred(nn.Module):
    """A stream that a norm centres, so that what writes to it is centred first."""

    def __init__(self, tokens: int, width: int, inner: int) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(tokens, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.last, self.end = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.end(self.last(x))


@cache
def large(name: str) -> gmn.ParameterGraph:
    """Networks with blocks of 4 M and more elements and few neurons."""
    torch.manual_seed(0)
    model: nn.Module
    if name == "centred":
        model, example = Centred(2048, 2048, 4096), torch.zeros(1, 3).long()
    elif name == "mlp":
        layers = [nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.Linear(2048, 10)]
        model, example = nn.Sequential(*layers), torch.zeros(1, 64)
    else:
        convolutions = [nn.Conv2d(3, 1024, 3), nn.ReLU(), nn.Conv2d(1024, 512, 3)]
        model, example = nn.Sequential(*convolutions), torch.zeros(1, 3, 8, 8)
    spec = converters.trace(model, (example,), experiment=False)
    return gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict()])


@pytest.mark.parametrize(
    ("dtype", "name"),
    one_in(2, product((torch.bfloat16, torch.float32), ("centred", "mlp", "convolutions"))),
)
def test_no_block_is_copied_whole(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 2**17)
    graph, model = large(name).to(dtype=dtype), DualGMN(16, 1)
    block = max(edges.size for edges in graph.spec.edge_sets)
    with Largest() as made:
        model(graph).sum().backward()
    # A piece whose taps are weighed in four ways, or the descriptions of neurons.
    assert made.bytes <= 4 * max(4 * 2**17, 80 * graph.spec.num_nodes)
    assert made.bytes < 2 * block


def test_the_measure_of_memory_sees_a_copy() -> None:
    values = torch.zeros(1000, 1000, dtype=torch.bfloat16)
    with Largest() as made:
        values.T[:, :10].float()
        assert made.bytes == 40_000
        values.T.float()
    assert made.bytes == 4_000_000


def test_taking_out_shifts_notes_numbers_only() -> None:
    graph = large("centred").to(dtype=torch.bfloat16)
    noted = changes(graph, torch.float32)
    assert any("down.weight" in name for name in noted)
    for change in noted.values():
        assert change.added is not None
        assert change.added.numel() <= 4096


# --- a real architecture ------------------------------------------------------------------------


def _random(spec: gmn.GraphSpec) -> gmn.ParameterGraph:
    generator = torch.Generator().manual_seed(0)

    def values(entry: gmn.spec.StateEntry) -> Tensor:
        if not entry.floating:
            return torch.zeros(1, *entry.shape, dtype=torch.long)
        return torch.randn(1, *entry.shape, generator=generator) / math.sqrt(entry.shape[-1])

    return gmn.ParameterGraph(spec, {e.name: values(e) for e in spec.entries if not e.tied_to})


@pytest.mark.slow
def test_bert_is_read_invariantly_in_single_precision() -> None:
    spec = converters.trace(*on_meta(bert_22m))
    graph, model = _random(spec), DualGMN(64, 4)
    moved = symmetry.sample(spec, torch.Generator().manual_seed(0)).act_on_graph(graph)
    with torch.no_grad():
        assert relative_error(model(moved), model(graph)) <= 1e-4
