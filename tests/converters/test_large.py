"""Large models: traced without weights, in time proportional to operations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from converters.inference.axes import Atom, resolve, unify
from tests.families import build
from tests.large import CHECKPOINTS, Built, gpt2_xl, llama_1b, on_meta
from tests.memory import allocated
from tests.traced import BY_NAME, slow_but, spec_of

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["resnet", "cnn-grouped", "packed-gate", "tied-hidden"], ["cnn-grouped", "tied-hidden"]
    ),
)
def test_weights_are_not_needed(name: str) -> None:
    case = BY_NAME[name]
    with torch.device("meta"):  # not model.to("meta"), which unties weights
        model = case.build().double()
    assert converters.trace(model, case.example()) == spec_of(name)


@pytest.mark.parametrize("name", slow_but(["llama", "bert", "mamba"], default=["bert"]))
def test_families_trace_without_weights(name: str) -> None:
    bare, full = converters.trace(*on_meta(lambda: build(name))), converters.trace(*build(name))
    assert _without_contexts(bare) == _without_contexts(full)


def _without_contexts(spec: gmn.GraphSpec) -> gmn.GraphSpec:
    """Contexts tell of constants beside the state dict, which have no values on the meta device."""
    edge_sets = tuple(replace(edges, context="") for edges in spec.edge_sets)
    return replace(spec, edge_sets=edge_sets)


def test_one_input_passed_three_times_stays_one() -> None:
    """`nn.MultiheadAttention` asks whether query, key and value are the same tensor."""
    model, x = nn.MultiheadAttention(8, 2), torch.zeros(3, 1, 8)
    spec = converters.trace(model, (x, x, x))
    assert converters.trace(model.to("meta"), (x, x, x)) == spec


def traced_without_memory(build: Callable[[], Built], parameters: int) -> gmn.GraphSpec:
    model, inputs = on_meta(build)
    spec, made = allocated(lambda: converters.trace(model, inputs))
    assert spec.num_parameters == parameters
    assert made < 2**20, f"{made:,} bytes of tensors for {4 * parameters:,} bytes of weights"
    assert not spec.unknown
    return spec


def test_two_layers_of_llama_allocate_no_weights() -> None:
    traced_without_memory(lambda: llama_1b(layers=2), 384_313_344)


@pytest.mark.slow
def test_llama_allocates_no_weights() -> None:
    spec = traced_without_memory(llama_1b, 1_235_814_400)
    assert len(spec.to_json()) < 2**20
    assert gmn.GraphSpec.from_json(spec.to_json()) == spec


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_real_sizes_trace_and_convert_without_copies(name: str) -> None:
    model, inputs = on_meta(CHECKPOINTS[name])
    spec = converters.trace(model, inputs)
    state = {
        entry.name: torch.ones(entry.shape, dtype=None if entry.floating else torch.int64)
        for entry in spec.entries
    }
    graph, made = allocated(lambda: gmn.ParameterGraph.from_state_dicts(spec, [state]))
    assert made <= 1e-3 * sum(value.nbytes for value in state.values())
    assert all(graph.values[name].data_ptr() == value.data_ptr() for name, value in state.items())


def test_weights_are_needed_for_values_and_certificates() -> None:
    model, inputs = on_meta(lambda: (nn.Linear(2, 3), (torch.zeros(1, 2),)))
    with pytest.raises(gmn.StateDictError, match=r"weight is on the meta device.*load a check"):
        converters.to_graph(model, inputs)
    with pytest.raises(ValueError, match=r"weight is on the meta device.*load a checkpoint"):
        converters.verify(model, inputs)


def test_long_chains_of_joined_axes_resolve() -> None:
    """A residual stream joins its axis once per layer; walking the chain must not recurse."""
    chain = [Atom(4) for _ in range(5000)]
    for first, second in pairwise(chain):
        unify((first,), (second,), "residual")
    root = resolve((chain[-1],))
    assert all(resolve((atom,)) == root for atom in chain)


class Residual(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(8, 2)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.leave(x)


@contextmanager
def counted_lines() -> Iterator[list[int]]:
    """Counts the lines that run in `converters`, a measure of time without noise."""
    count, before = [0], sys.gettrace()

    def step(frame: FrameType, event: str, argument: object) -> Any:
        count[0] += event == "line"
        return step

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        own = str(frame.f_globals.get("__name__", "")).startswith("converters.")
        return step if own else None

    sys.settrace(enter)
    try:
        yield count
    finally:
        sys.settrace(before)


def test_time_is_proportional_to_operations() -> None:
    lines = []
    for depth in (4, 8):
        with counted_lines() as count:
            converters.trace(Residual(depth), (torch.zeros(1, 3),))
        lines.append(count[0])
    # A small part grows with the square: what each bias adds to a stream reaches all later readers.
    assert lines[1] <= 2.1 * lines[0]


class Rows(nn.Module):
    """Row after row is written with what the rows before it hold, as in a scan that is unrolled."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.first = size, nn.Linear(3, size * size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).view(-1, self.size, self.size)
        for i in range(1, self.size):
            x[:, i, :i] = x[:, i, :i] + x[:, :i, :i].sum(1)
        return x


@pytest.mark.slow
def test_slices_of_many_sizes_are_no_more_than_so_many_parts() -> None:
    """Work is by pairs of parts, and a dimension has as many as slices begin or end in it."""
    lines = []
    for size in (24, 48):
        with counted_lines() as count:
            converters.trace(Rows(size), (torch.zeros(2, 3),), experiment=False)
        lines.append(count[0])
    assert lines[1] <= 2.5 * lines[0]


@pytest.mark.slow
def test_gpt2_traces_in_time_proportional_to_layers() -> None:
    lines = []
    for layers in (6, 12, 24):
        model, inputs = on_meta(lambda layers=layers: gpt2_xl(layers))  # type: ignore[misc]
        with counted_lines() as count:
            converters.trace(model, inputs)
        lines.append(count[0])
    assert lines[2] - lines[1] <= 2.1 * (lines[1] - lines[0])
