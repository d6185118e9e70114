"""The operations that a program may call: those of torch that compute, and do nothing else."""

from __future__ import annotations

import operator
from typing import Any

import torch

from gmn.errors import UnsupportedArchitecture

# Strides depend on how operations before were run; where a view is possible, this gives one, too.
INSTEAD = {"view.default": "reshape.default"}
# A program may come from anywhere. Most operations with an underscore, and those of the parts
# below, are torch's own plumbing: they read files or memory as they are told to, or believe indices
# that others have checked before. The last ones loop as often as a number says, not a size.
# fmt: off
PRIVATE = frozenset({
    "__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "_aminmax", "_assert_async", "_assert_scalar",
    "_assert_tensor_metadata", "_cdist_forward", "_conj", "_conj_physical", "_convolution",
    "_embedding_bag", "_embedding_bag_forward_only", "_fft_c2c", "_fft_c2r", "_fft_r2c",
    "_fused_rms_norm", "_is_all_true", "_is_any_true", "_linalg_det", "_linalg_eigh",
    "_linalg_slogdet", "_linalg_solve_ex", "_linalg_svd", "_log_softmax", "_logcumsumexp",
    "_masked_softmax", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training", "_neg_view", "_pad_circular", "_pad_enum",
    "_prelu_kernel", "_reshape_alias", "_reshape_copy", "_safe_softmax",
    "_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu",
    "_shape_as_tensor", "_softmax", "_stack", "_to_copy", "_trilinear", "_unsafe_index",
    "_unsafe_index_put", "_unsafe_view", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "_weight_norm", "_weight_norm_interface",
})
# fmt: on
FOREIGN = (
    *("backward", "sparse", "nested", "storage", "resize", "fbgemm", "cudnn", "mkldnn", "miopen"),
    *("polynomial", "mvlgamma", "multigammaln"),
)
ALSO = frozenset({"from_file", "set_", "set", "set_data", "record_stream", "segment_reduce"})


class ProgramError(UnsupportedArchitecture):
    """A program cannot run; the message says why."""


def function_of(operation: str) -> Any:
    """The function of an operation, such as ``linear.default``.

    Raises:
        ProgramError: if there is none, or if it does more than compute.
    """
    if operation == "getitem":
        return operator.getitem
    name, _, overload = INSTEAD.get(operation, operation).partition(".")
    function: Any = getattr(getattr(torch.ops.aten, name, None), overload, None)
    known = isinstance(function, torch._ops.OpOverload) and _computes(name)
    # Variants that write into what they are given believe its shape.
    if not known or any(argument.is_out for argument in function._schema.arguments):
        raise ProgramError(f"aten.{operation} is no operation that a program may call")
    return function


def require_arguments(operation: str, arguments: list[Any], options: dict[str, Any]) -> None:
    """Refuses numbers in the place of types, layouts and formats, which torch believes unseen.

    Raises:
        ProgramError: then; a type is given by name, the others are those of the run.
    """
    if operation == "getitem":
        return
    schema = function_of(operation)._schema.arguments
    given = {**dict(zip((each.name for each in schema), arguments, strict=False)), **options}
    for each in schema:
        value = given.get(each.name)
        by_name = isinstance(value, dict) and value.keys() == {"dtype"}
        if value is not None and not by_name and _is_enumerated(each):
            raise ProgramError(f"{operation}: {each.name} is no number that a program may choose")


def _is_enumerated(argument: Any) -> bool:
    kind = str(argument.real_type)
    return any(name in kind for name in ("ScalarType", "Layout", "MemoryFormat"))


def _computes(name: str) -> bool:
    if name.startswith("_"):
        return name in PRIVATE
    quantized = name.startswith(("quantize", "dequantize"))
    return not (quantized or name in ALSO or any(part in name for part in FOREIGN))


def writes(operation: str) -> bool:
    """Whether an operation changes what it is given."""
    return operation != "getitem" and bool(function_of(operation)._schema.is_mutable)


def has_batching_rule(operation: str) -> bool:
    """Whether ``torch.vmap`` knows an operation."""
    if operation == "getitem":
        return True
    name = function_of(operation).name()
    keys = ("FuncTorchBatched", "CompositeImplicitAutograd")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys)
