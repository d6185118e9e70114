"""The laws of this library, one assertion each."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from gmn import symmetry
from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_callable, require_number, require_type, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph, require_spec
from gmn.graph.topology import pair_index
from gmn.graph.values import require_tensors
from gmn.spec import GraphSpec


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected entry (or over 1, if all are 0).

    Infinite where either holds NaN, or both infinity: such answers are never close.

    Raises:
        ArgumentError: if they are no tensors, or their shapes differ.
    """
    for name, value in (("found", found), ("expected", expected)):
        require_type(name, value, Tensor, "a tensor")
    if found.shape != expected.shape:
        raise ArgumentError(
            f"found has shape {tuple(found.shape)}, expected {tuple(expected.shape)}; they are "
            "compared number by number"
        )
    if not expected.numel():
        return 0.0
    size = float(expected.detach().abs().max())
    change = float((found - expected).detach().abs().max())
    error = change / size if size else change
    return math.inf if math.isnan(error) else error


def assert_invariant(
    net: Callable[[ParameterGraph], Tensor],
    graph: ParameterGraph,
    *,
    scalings: bool = False,
    trials: int = 3,
    tolerance: float = 1e-9,
    generator: torch.Generator | None = None,
    symmetries: Collection[str] | None = None,
) -> float:
    """Asserts that symmetries of the networks do not change the net's answer.

    Args:
        net: maps a graph to a tensor; put it and the graph in float64 for the default tolerance.
        graph: networks to act on.
        scalings: whether the net claims invariance to the whole group, not to permutations alone.
        trials: number of random group elements.
        tolerance: largest allowed relative change.
        generator: source of randomness, on the CPU; seeded with 0 if None.
        symmetries: the parts of the group that the net claims, of :data:`gmn.symmetry.KINDS`; None
            for what ``scalings`` says.

    Returns:
        The largest relative change found.

    Raises:
        AssertionError: if the answer changes by more.
    """
    __tracebackhide__ = True
    require_graph("graph", graph)
    _require_law(net, "a metanetwork, from graphs to tensors", tolerance)
    require_whole("trials", trials, 1)
    with torch.no_grad():
        expected = net(graph)
        require_type("the answer of net", expected, Tensor, "a net from graphs to tensors")
        errors = [
            relative_error(net(element.act_on_graph(graph)), expected)
            for element in _elements(graph, generator, scalings, symmetries, trials)
        ]
    worst = max(errors)
    assert worst <= tolerance, (
        f"{type(net).__name__} is not invariant: a symmetry of the networks changes its answer by "
        f"{worst:.1e} (relative; allowed {tolerance:.0e})"
    )
    return worst


def _require_law(net: object, what: str, tolerance: float) -> None:
    require_callable("net", net, what)
    require_number("tolerance", tolerance, least=0)


def _elements(
    graph: ParameterGraph,
    generator: torch.Generator | None,
    scalings: bool,
    symmetries: Collection[str] | None,
    trials: int,
) -> Iterator[symmetry.Element]:
    require_graph("graph", graph)
    require_whole("trials", trials, 1)
    source = torch.Generator().manual_seed(0) if generator is None else generator
    for _ in range(trials):
        yield symmetry.sample(graph.spec, source, scalings=scalings, symmetries=symmetries)


def assert_equivariant(
    net: Callable[[ParameterGraph], ParameterGraph],
    graph: ParameterGraph,
    *,
    scalings: bool = False,
    trials: int = 3,
    tolerance: float = 1e-9,
    generator: torch.Generator | None = None,
    symmetries: Collection[str] | None = None,
) -> float:
    """Asserts that a net from graphs to graphs commutes with the symmetries of the networks.

    Args:
        net: maps a graph to a graph of the same spec.
        graph: networks to act on; this and all other arguments are those of
            :func:`assert_invariant`.
        scalings: whether it claims the whole group.
        trials: number of random group elements.
        tolerance: of relative differences, entry by entry of the state dict.
        generator: source of randomness.
        symmetries: the parts of the group that it claims.

    Returns:
        The largest relative difference found.

    Raises:
        AssertionError: if acting before and after the net differ by more.
    """
    __tracebackhide__ = True
    _require_law(net, "an editor, from graphs to graphs", tolerance)
    worst = 0.0
    with torch.no_grad():
        for element in _elements(graph, generator, scalings, symmetries, trials):
            require_graph("the answer of net", edited := net(graph))
            before, after = net(element.act_on_graph(graph)), element.act_on_graph(edited)
            for name, expected in after.values.items():
                if expected.is_floating_point() or expected.is_complex():
                    worst = max(worst, relative_error(before.values[name], expected))
    assert worst <= tolerance, (
        f"{type(net).__name__} is not equivariant: moving its input and moving its output differ "
        f"by {worst:.1e} (relative; allowed {tolerance:.0e})"
    )
    return worst


def assert_same_function(
    model: nn.Module,
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    *,
    tolerance: float = 1e-10,
) -> float:
    """Asserts that two state dicts make the module compute the same outputs.

    Args:
        model: the architecture, in the mode to compare it in.
        first: one state dict; float64 for the default tolerance.
        second: the other.
        inputs: positional inputs, of the state dicts' type.
        tolerance: largest allowed relative difference of any output.

    Returns:
        The largest relative difference found.

    Raises:
        AssertionError: if the outputs differ by more.
    """
    __tracebackhide__ = True
    require_type("model", model, nn.Module, "a torch.nn.Module")
    require_type("inputs", inputs, (tuple, Tensor), "a tuple of positional inputs, such as (x,)")
    require_number("tolerance", tolerance, least=0)
    for name, state in (("first", first), ("second", second)):
        require_tensors(name, state)
    with torch.no_grad():
        outputs = [
            pytree.tree_leaves(functional_call(model, dict(state), inputs, tie_weights=False))
            for state in (first, second)
        ]
    worst = max(relative_error(b, a) for a, b in zip(*outputs, strict=True))
    assert worst <= tolerance, (
        f"the state dicts compute different functions: outputs differ by {worst:.1e} "
        f"(relative; allowed {tolerance:.0e})"
    )
    return worst


def assert_covers(spec: GraphSpec) -> None:
    """Asserts that every parameter element lies in exactly one edge set, counted one by one.

    Raises:
        AssertionError: naming the first entry with an element that is missing or held twice.
    """
    require_spec("spec", spec)
    __tracebackhide__ = True
    counts = {e.name: torch.zeros(e.numbers, dtype=torch.long) for e in spec.entries}
    for edges in spec.edge_sets:
        if edges.tied_to is None:
            positions = torch.tensor(edges.offset)
            for dim in edges.dims:
                positions = positions.unsqueeze(-1) + torch.arange(dim.size) * dim.stride
            flat = counts[edges.parameter].view(-1)
            flat.index_add_(0, positions.flatten(), torch.ones(edges.size, dtype=torch.long))
            assert pair_index(spec, edges).shape[1] * edges.num_taps == edges.size
    for entry in spec.entries:
        if entry.learnable and entry.tied_to is None:
            found = counts[entry.name].unique().tolist()
            assert found in ([], [1]), f"{entry.name}: its elements lie in {found} edge sets"
