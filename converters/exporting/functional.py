"""Makes an exported graph functional: replaces in-place writes by operations with results.

Most writes in place are to a value that nothing else holds, such as ``nn.ReLU(inplace=True)`` after
a layer; they become the operation that gives a new value. Where a write goes through a view, to
what others hold, to a parameter, or where a region runs under ``torch.autocast``, torch traces the
program once more, which turns writes into ``select_scatter`` and its kin, but takes twice as long
as the export itself.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import GraphModule, Node

from .normal_form import is_idle_dropout

# Composite operators whose result is always a new tensor; others may return a view.
_FRESH_COMPOSITES = frozenset(
    {
        *("linear", "matmul", "conv1d", "conv2d", "conv3d"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
        *("max_pool1d", "max_pool2d", "max_pool3d", "softmax", "log_softmax"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
        "scaled_dot_product_attention",
    }
)
# Their results are views, though their schemas do not say so.
_SECRET_VIEWS = frozenset(
    {"_unsafe_view", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "native_dropout"}
)
_SILENT = frozenset({"detach_"})  # mutates no element


def functional(program: ExportedProgram) -> ExportedProgram:
    """The same function without in-place writes; the given program is changed.

    Results that are new values of buffers or inputs are no longer results.
    """
    _inline_grad_modes(program.graph_module)
    for node in list(program.graph.nodes):
        if is_idle_dropout(node):  # it hands on the very tensor, so writes to one reach the other
            node.replace_all_uses_with(node.all_input_nodes[0])
            program.graph.erase_node(node)
    for node in list(program.graph.nodes):
        if _is_write(node) and (plain := _plain(node)) is not None:
            _rewrite(node, plain)
    if any(_is_write(node) or _is_autocast(node) for node in program.graph.nodes):
        with torch.enable_grad():  # it miscounts the inputs of regions otherwise
            program = program.run_decompositions({})
        _drop_writes(program)
    return program


def _is_write(node: Node) -> bool:
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and target._schema.is_mutable
        and target._opname not in _SILENT
    )


def _is_autocast(node: Node) -> bool:
    return node.target is torch.ops.higher_order.wrap_with_autocast


# --- writes to values that nothing else holds ---------------------------------------------------


def _plain(node: Node) -> torch._ops.OpOverload | None:
    """The out-of-place form of an in-place operator on a value that nothing else holds."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    written = node.args[0] if node.args else None
    if not isinstance(written, Node) or not _is_fresh(written) or not _of_one_type(node):
        return None
    if not all(_is_fresh(user) for user in written.users if user < node):
        return None
    name, overload = target._opname.removesuffix("_"), target._overloadname
    plain = getattr(getattr(getattr(torch.ops, target.namespace), name, None), overload, None)
    if not isinstance(plain, torch._ops.OpOverload) or plain._schema.is_mutable:
        return None
    old, new = ([a.name for a in t._schema.arguments] for t in (target, plain))
    writes = [a.name for a in target._schema.arguments if a.alias_info and a.alias_info.is_write]
    return plain if old[1:] == new[1:] and writes == old[:1] else None


def _is_fresh(node: Node) -> bool:
    """Whether its result shares no memory with any other value."""
    target = node.target
    if target is operator.getitem:
        whole = node.all_input_nodes[0]
        twins = [user for user in whole.users if user.args[1:] == node.args[1:]]
        return twins == [node] and _is_fresh(whole)
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    if target._opname in _SECRET_VIEWS:
        return False
    if any(result.alias_info is not None for result in target._schema.returns):
        return False
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return not target.has_kernel_for_dispatch_key(composite) or target._opname in _FRESH_COMPOSITES


def _of_one_type(node: Node) -> bool:
    """Whether no operand would lead to another type or shape than that of the written value."""
    values = [operand.meta.get("val") for operand in node.all_input_nodes]
    tensors = [value for value in values if isinstance(value, Tensor)]
    result = node.meta.get("val")
    return (
        len(tensors) == len(values)
        and isinstance(result, Tensor)
        and {value.dtype for value in tensors} == {result.dtype}
    )


def _rewrite(node: Node, plain: torch._ops.OpOverload) -> None:
    """Replaces later reads of the overwritten value by reads of the new one."""
    written = node.args[0]
    assert isinstance(written, Node)
    node.target = plain
    written.replace_all_uses_with(node, delete_user_cb=lambda user: user > node)


# --- regions ------------------------------------------------------------------------------------


def _inline_grad_modes(module: GraphModule) -> None:
    """Puts the operations of ``no_grad`` and ``enable_grad`` regions in their place."""
    for child in module.children():
        if isinstance(child, GraphModule):
            _inline_grad_modes(child)
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is not torch.ops.higher_order.wrap_with_set_grad_enabled:
            continue
        region: Any = module.get_submodule(str(node.args[1].target))
        placeholders = [inner for inner in region.graph.nodes if inner.op == "placeholder"]
        values: dict[Node, Any] = dict(zip(placeholders, node.args[2:], strict=True))
        with graph.inserting_before(node):
            _copy_attributes(region, module)
            results: Any = graph.graph_copy(region.graph, values)
        for user in list(node.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()


def _copy_attributes(region: GraphModule, module: GraphModule) -> None:
    """Regions inside the region get names of their own in the module around it."""
    for inner in region.graph.nodes:
        if inner.op == "get_attr":
            count = 0
            while hasattr(module, name := f"region_{count}"):
                count += 1
            setattr(module, name, getattr(region, inner.target))
            inner.target = name


# --- what was written is no result --------------------------------------------------------------


def _drop_writes(program: ExportedProgram) -> None:
    output = next(iter(program.graph.find_nodes(op="output")))
    specs = program.graph_signature.output_specs
    kept = [index for index, spec in enumerate(specs) if spec.kind == OutputKind.USER_OUTPUT]
    results: Any = output.args[0]
    output.args = (tuple(results[index] for index in kept),)
    specs[:] = [specs[index] for index in kept]
