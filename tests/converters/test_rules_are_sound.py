"""What every rule of the table claims is true of its operation, by itself, on random operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor, nn
from torch.nn import functional as F

import converters
from converters.rules import RULES
from converters.testing import Law, assert_sound
from tests.converters.laws import FORMS, Form, r
from tests.traced import slow_but

# Names that never reach a rule by themselves: exports rewrite them, or are without them.
REWRITTEN = {
    *("view", "_unsafe_view", "_reshape_alias", "mT", "numpy_T", "movedim", "swapaxes", "swapdims"),
    *("moveaxis", "concat", "concatenate", "chunk", "unsafe_split", "unsafe_chunk", "broadcast_to"),
    *("ger", "clip", "true_divide", "fix", "arctan", "special_expm1", "_to_copy", "native_dropout"),
    *("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "lift_fresh", "positive"),
    *("identity", "resolve_conj", "resolve_neg", "detach_copy", "_reshape_copy", "sym_size"),
    *("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "softsign", "tanhshrink"),
    *("_fused_rms_norm", *(f"adaptive_max_pool{n}d_with_indices" for n in (1, 2, 3))),
}
LONG = "lstm"  # takes as long as ten others
# Whatever they hold is not told by their operands.
WITHOUT_VALUES = {
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"),
    *("rand", "randn", "rand_like", "randn_like", "randint", "bernoulli"),
    *("_embedding_bag", "_embedding_bag_forward_only"),
}


def _programs(forms: list[Form]) -> list[Law]:
    """All forms of one operation in one program, but for modules, which stand alone."""
    plain = [f for f in forms if not isinstance(f.operation, nn.Module)]
    found = [Law.of(f.operation, f.operands, (), f.kwargs, data=f.data)
             for f in forms if isinstance(f.operation, nn.Module)]  # fmt: skip
    if plain:
        operands = [leaf for form in plain for leaf in form.operands]
        data = []
        count = 0
        for form in plain:
            tensors = [leaf for leaf in form.operands if isinstance(leaf, Tensor)]
            data += [count + number for number in form.data]
            count += len(tensors)
        found.append(Law.of(_all(plain), operands, data=data))
    return found


def _all(forms: list[Form]) -> Callable[..., Any]:
    def run(*operands: Any) -> list[Any]:
        waiting = iter(operands)
        return [
            form.operation(*(next(waiting) for _ in form.operands), **form.kwargs) for form in forms
        ]

    return run


def _of_every_rule() -> list[ParameterSet]:
    """Operations: every third rule is tried on one by default, and all on all when slow."""
    first: dict[Any, str] = {}
    for name in FORMS:
        first.setdefault((RULES[name].axes, RULES[name].action), name)
    return slow_but(FORMS, [name for name in list(first.values())[::3] if name != LONG])


@pytest.mark.parametrize("name", _of_every_rule())
def test_what_a_rule_claims_is_true(name: str) -> None:
    torch.manual_seed(0)
    for law in _programs(FORMS[name]):
        assert f"aten::{name}" in law.operations
        law.check(1, torch.Generator().manual_seed(0))


def test_every_rule_has_forms() -> None:
    ours = {name for name in RULES if "." not in name and "::" not in name}
    assert not ours - {*FORMS, *REWRITTEN, *WITHOUT_VALUES}


# Operation, operands, and how many scales, signs, shifts and permutations pass: rules claim enough.
CLAIMS: dict[str, tuple[Callable[..., Any], list[Tensor], list[int]]] = {
    "relu": (torch.relu, [r(4, 6)], [4, 0, 0, 2]),
    "tanh": (torch.tanh, [r(4, 6)], [0, 4, 0, 2]),
    "gelu": (F.gelu, [r(4, 6)], [0, 0, 0, 2]),
    "abs": (torch.abs, [r(4, 6)], [4, 4, 0, 2]),
    "neg": (torch.neg, [r(4, 6)], [4, 4, 4, 2]),
    "sqrt": (torch.sqrt, [r(4, 6).exp()], [4, 0, 0, 2]),
    "one softmax": (lambda x: torch.softmax(x, 1), [r(4, 6)], [0, 0, 2, 2]),
    "the largest": (lambda x: x.amax(1), [r(4, 6)], [2, 0, 2, 2]),
    "a sum": (torch.add, [r(4, 6), r(6)], [2, 2, 6, 2]),
    "a product": (torch.mul, [r(4, 6), r(6)], [6, 6, 6, 2]),
    "a linear layer": (F.linear, [r(4, 6), r(5, 6), r(5)], [4, 4, 10, 3]),
    "a layer norm": (lambda x: F.layer_norm(x, (6,)), [r(4, 6)], [0, 2, 2, 2]),
    "a root mean square norm": (lambda x: F.rms_norm(x, (6,)), [r(4, 6)], [0, 4, 0, 2]),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_rules_claim_enough(name: str) -> None:
    operation, operands, counts = CLAIMS[name]
    law = Law.of(operation, operands)
    assert [len(found) for found in law.freedom.values()] == counts


def _false(trace: Any, node: Any) -> Any:
    return list(trace.axes(node.args[0]))


def test_a_false_rule_is_named_with_what_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = converters.Rule(_false, RULES["tanh"].action, "wrong")
    monkeypatch.setitem(RULES, "gelu", wrong)
    with pytest.raises(AssertionError, match=r"aten::gelu is false: under signs of operand_0"):
        assert_sound(F.gelu, [r(4, 6)])
