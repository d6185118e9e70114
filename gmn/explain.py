"""Attributions: which weights a metanetwork's prediction depends on, by gradients.

Every function returns a graph of the same spec whose values are attributions instead of weights, so
edge sets, pictures and symmetries apply to them. PyG's explainers are not used: they mask the edges
and node features of one ``Data`` object, where a kernel is many edges and a batch of networks is a
disconnected graph, and metanetworks that work on blocks have no such edges. The attributions are
the same as those of its ``CaptumExplainer`` on values.

Networks of a batch are explained one by one, as long as the metanetwork reads them one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_callable, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.graph.values import as_real, is_finite, like

Net = Callable[[ParameterGraph], Tensor]  # answers (B, outputs)


def gradient(net: Net, graph: ParameterGraph, output: int = 0) -> ParameterGraph:
    """The derivative of one output by every parameter, every statistic and every constant.

    Of integers and masks it is 0: they cannot change by small amounts.

    It is orthogonal to every continuous symmetry that the metanetwork is invariant to: along it,
    the answer does not change.

    Args:
        net: the metanetwork, in the mode to explain; its own gradients are left alone.
        graph: B networks.
        output: index of the output to explain.

    Raises:
        ValueError: if the answer is not of shape (B, outputs), or has fewer outputs.
    """
    require_graph("graph", graph)
    require_callable("net", net, "a metanetwork")
    values = _floating(graph)
    leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
    with torch.enable_grad():
        answer = _answer(net, graph.replace(leaves), output)
        if not answer.requires_grad:
            raise ArgumentError("net's answer has no gradient: it does not depend on the weights")
        gradients = torch.autograd.grad(answer.sum(), [*leaves.values()], allow_unused=True)
    slopes = dict(zip(leaves, gradients, strict=True))
    return _attributed(graph, {n: v for n, v in slopes.items() if v is not None})


def saliency(net: Net, graph: ParameterGraph, output: int = 0) -> ParameterGraph:
    """The absolute value of gradient times value: the first-order effect of removing a weight.

    Other than the gradient's size, it does not depend on positive scales, if the metanetwork does
    not: what moves the values up moves the gradient down.

    Args:
        net: the metanetwork, in the mode to explain.
        graph: B networks.
        output: index of the output to explain.

    Raises:
        ValueError: if the answer is not of shape (B, outputs), or has fewer outputs.
    """
    slopes, values = gradient(net, graph, output).values, _floating(graph)
    return _attributed(graph, {n: _size(_times(slopes[n], v)) for n, v in values.items()})


def integrated_gradients(
    net: Net,
    graph: ParameterGraph,
    output: int = 0,
    baseline: ParameterGraph | None = None,
    points: int = 32,
) -> ParameterGraph:
    """Integrated gradients: contributions along the straight line from a baseline to the weights.

    The sum over all parameters is the difference of the answers to the network and to the baseline,
    up to the error of the quadrature (Gauss-Legendre; more ``points``, less error). A metanetwork
    that is invariant to scales is steep where all weights of a neuron are small, and jumps at 0,
    which no quadrature can follow: give it a baseline near by.

    Source: Sundararajan et al., *Axiomatic Attribution for Deep Networks* (ICML 2017).

    Args:
        net: the metanetwork, in the mode to explain.
        graph: B networks.
        output: index of the output to explain.
        baseline: where the way begins; None for parameters of 0 with the network's own statistics.
        points: number of gradients.

    Raises:
        ValueError: if the answer is not of shape (B, outputs), or has fewer outputs, or the
            baseline has another spec.
    """
    require_graph("graph", graph)
    require_whole("points", points, 1)
    if baseline is not None:
        require_graph("baseline", baseline)
    start = _without_parameters(graph) if baseline is None else baseline
    if start.spec != graph.spec:
        raise ValueError("the baseline has another spec than the networks")
    if len(start) not in (1, len(graph)):
        raise ArgumentError(f"baseline holds {len(start)} networks for {len(graph)}; give as many")
    differences = {n: v - start.values[n] for n, v in _floating(graph).items()}
    totals = {name: torch.zeros_like(difference) for name, difference in differences.items()}
    for node, weight in zip(*numpy.polynomial.legendre.leggauss(points), strict=True):
        between = {
            n: start.values[n] + (1 + node) / 2 * difference
            for n, difference in differences.items()
        }
        slopes = gradient(net, graph.replace(between), output).values
        totals = {n: total + weight / 2 * slopes[n] for n, total in totals.items()}
    return _attributed(
        graph, {n: _times(totals[n], difference) for n, difference in differences.items()}
    )


def shares(attribution: ParameterGraph) -> dict[str, Tensor]:
    """Each edge set's part of all attribution, by size: shape (B,), summing to 1.

    Further uses of a tensor are not counted again. For pictures: ``draw(spec, weights=shares)``
    takes them for one network.
    """
    require_graph("attribution", attribution)
    sizes = {
        edges.name: attribution.block(edges).abs().reshape(len(attribution), -1).sum(1)
        for edges in attribution.spec.edge_sets
        if edges.tied_to is None
    }
    total = torch.stack([*sizes.values()]).sum(0)
    return {n: size / torch.where(total > 0, total, 1) for n, size in sizes.items()}


def _floating(graph: ParameterGraph) -> dict[str, Tensor]:
    entries = [e for e in graph.spec.entries if e.tied_to is None and (e.floating or e.complex)]
    values = {entry.name: graph.values[entry.name] for entry in entries}
    return {name: value for name, value in values.items() if is_finite(value)}


def _times(slopes: Tensor, values: Tensor) -> Tensor:
    """Products number by number; real parts with real parts, imaginary with imaginary ones."""
    return like(as_real(slopes.detach()) * as_real(values.detach()), values)


def _size(values: Tensor) -> Tensor:
    """Absolute numbers, of both parts of complex ones."""
    return like(as_real(values).abs(), values)


def _answer(net: Net, graph: ParameterGraph, output: int) -> Tensor:
    """One number per network."""
    answers = net(graph)
    if answers.dim() != 2 or len(answers) != len(graph):
        raise ValueError(
            f"the metanetwork answers {len(graph)} networks with shape {tuple(answers.shape)}; "
            "what is explained is one column of a matrix (networks, outputs)"
        )
    if not 0 <= require_whole("output", output) < answers.shape[1]:
        raise ValueError(f"there is no output {output}: the answer has {answers.shape[1]}")
    return answers[:, output]


def _attributed(graph: ParameterGraph, attributions: dict[str, Tensor]) -> ParameterGraph:
    """A graph of attributions; 0 where nothing was found."""
    zeros = {n: torch.zeros_like(v) for n, v in graph.values.items() if n not in attributions}
    return graph.replace({**zeros, **attributions})


def _without_parameters(graph: ParameterGraph) -> ParameterGraph:
    parameters = {entry.name for entry in graph.spec.entries if entry.parameter}
    values = _floating(graph)
    return graph.replace({n: torch.zeros_like(v) for n, v in values.items() if n in parameters})
