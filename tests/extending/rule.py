"""A rule of one's own, for an operation with weights."""

import torch

from converters import Rule, register
from converters.writing import contracted, operands_of, path_of, unify


@torch.library.custom_op("extending::columns", mutates_args=())
def columns(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight


columns.register_fake(lambda x, weight: x.new_empty(*x.shape[:-1], weight.shape[1]))


def axes(trace, node):
    x, weight = (trace.axes(operand) for operand in operands_of(node))
    unify(x[-1], weight[0], path_of(node))
    trace.contract(weight[0])
    return [*x[:-1], weight[1]]


def action(actions, node):
    x, weight = operands_of(node)
    return contracted(actions, node, (x, ["b", "in"]), (weight, ["in", "out"]), ["b", "out"])


register(columns, Rule(axes, action, "permutations and scales of both ends", product=True))
