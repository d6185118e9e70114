"""Keeps modules that have a rule of their own as single operations of the exported graph.

That is how a module is traced that ``torch.export`` cannot follow: its forward pass is replaced by
an operation whose results have the shapes that the module gave on the example inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

CLASSES: dict[str, type[nn.Module]] = {}
_results: list[list[Tensor]] = []  # of every call of a leaf, on the meta device


@torch.library.custom_op("graph_metanetworks::leaf", mutates_args=())
def _leaf(operands: list[Tensor], module: str, call: int) -> list[Tensor]:
    raise RuntimeError("stands for a module while it is exported; it cannot run")


@_leaf.register_fake
def _(operands: list[Tensor], module: str, call: int) -> list[Tensor]:
    like = operands[0]
    return [like.new_empty(result.shape, dtype=result.dtype) for result in _results[call]]


def name_of_class(kind: type[nn.Module]) -> str:
    """The name under which the table of rules holds a module class."""
    return f"{kind.__module__}.{kind.__qualname__}"


@contextmanager
def as_operations(
    model: nn.Module, example_inputs: tuple[Any, ...], example_kwargs: Mapping[str, Any]
) -> Iterator[None]:
    """Makes every registered module inside ``model`` one operation while it is exported."""
    leaves = [m for m in model.modules() if m is not model and name_of_class(type(m)) in CLASSES]
    if not leaves:
        yield
        return
    calls = _record(model, leaves, example_inputs, example_kwargs)
    own = {module: vars(module).get("forward") for module in leaves}
    for module in leaves:
        vars(module)["forward"] = _operation(module, iter(calls[module]))
    try:
        yield
    finally:
        for module, forward in own.items():
            del vars(module)["forward"]
            if forward is not None:
                vars(module)["forward"] = forward
        _results.clear()


LeafCall = tuple[int, pytree.TreeSpec]


def _record(
    model: nn.Module,
    leaves: list[nn.Module],
    example_inputs: tuple[Any, ...],
    example_kwargs: Mapping[str, Any],
) -> dict[nn.Module, list[LeafCall]]:
    """Runs the model once: the number of every call of a leaf, and how its results are nested."""
    calls: dict[nn.Module, list[LeafCall]] = {module: [] for module in leaves}

    def note(module: nn.Module, _: object, output: object) -> None:
        results, nesting = pytree.tree_flatten(output)
        calls[module].append((len(_results), nesting))
        _results.append([result.to("meta") for result in results])

    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        model(*example_inputs, **example_kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _operation(module: nn.Module, calls: Iterator[LeafCall]) -> Any:
    name = name_of_class(type(module))

    def forward(*args: Any, **kwargs: Any) -> Any:
        call, nesting = next(calls)
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        results = _leaf([*given, *module.parameters()], name, call)
        return pytree.tree_unflatten(results, nesting)

    return forward
