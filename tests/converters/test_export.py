"""The exported program: functional, with one name per operation, and the module's own function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import converters
from converters.exporting import functional
from converters.exporting.export import export, shape_of_value
from converters.exporting.operators import exists, is_random, qualified_name
from converters.exporting.storage import View, shared_views
from tests.cases import Case
from tests.traced import one_in, several_cases


class Net(nn.Module):
    """A function of inputs, and of modules and parameters by name."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(self, *inputs, **named)


def double(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return model.double().eval()


def operations(program: ExportedProgram) -> list[Node]:
    return [node for node in program.graph.nodes if node.op == "call_function"]


def names(program: ExportedProgram) -> list[str]:
    found = [qualified_name(node).removeprefix("aten::") for node in operations(program)]
    return [name for name in found if "getitem" not in name]


def run(program: ExportedProgram, model: nn.Module, *inputs: Any) -> tuple[Tensor, ...]:
    """The program itself, on entries of the module and these inputs."""
    entries = dict(model.named_parameters(remove_duplicate=False))
    entries |= dict(model.named_buffers(remove_duplicate=False))
    given, values = iter(pytree.tree_leaves(inputs)), []
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            values.append(next(given))
        else:
            found = entries.get(str(spec.target))
            values.append(program.constants[str(spec.target)] if found is None else found)
    with torch.no_grad():
        return Interpreter(program.graph_module).run(*values)


def assert_functional(program: ExportedProgram) -> None:
    for node in operations(program):
        assert isinstance(node.target, torch._ops.OpOverload) or "getitem" in node.name
        if isinstance(node.target, torch._ops.OpOverload):
            assert not node.target._schema.is_mutable, node.target


def assert_same_function(program: ExportedProgram, model: nn.Module, *inputs: Any) -> None:
    with torch.no_grad():
        copies = pytree.tree_map_only(Tensor, torch.clone, inputs)
        expected = [v for v in pytree.tree_leaves(model(*copies)) if isinstance(v, Tensor)]
    found = run(program, model, *inputs)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@several_cases
def test_every_case_is_functional_and_the_same_on_other_inputs(case: Case) -> None:
    model = case.model()
    program = export(model, case.example())
    assert_functional(program)
    assert_same_function(program, model, *case.example(seed=1))


def view_then_write(s: Net, x: Tensor) -> Tensor:
    h = s.a(x)
    view = h.view(h.shape)
    h.mul_(3)
    return view


def parts_of_parts(s: Net, x: Tensor) -> Tensor:
    h = s.a(x)
    h[:, :2].mul_(3)
    h[:, 3] = 1
    h.t().add_(s.a.bias[:, None])
    return h


def filled_buffer(s: Net, x: Tensor) -> Tensor:
    out = x.new_empty(len(x), 12)
    out[:, :6], out[:, 6:] = s.a(x).relu(), s.a(x).tanh()
    return out


def written_input(s: Net, x: Tensor) -> Tensor:
    x += 1
    return s.a(x)


def counted(s: Net, x: Tensor) -> Tensor:
    s.steps += 1
    return s.a(x)


def types_that_differ(s: Net, x: Tensor) -> Tensor:
    h = s.a(x).float()
    h.add_(x.sum())  # stays float32
    return h.double()


def alias_that_was_written(s: Net, x: Tensor) -> Tensor:
    h = s.a(x).float()
    alias = h.add_(x.sum())  # cannot become a plain operation
    h.relu_()
    return alias.double()


def results_of_one_operation(s: Net, x: Tensor) -> Tensor:
    largest, _ = s.a(x).max(1)
    return largest.mul_(2)


def several_readers(s: Net, x: Tensor) -> Tensor:
    h = s.a(x)
    before = h.sum()
    h.relu_().mul_(2)
    return h + before


def grad_modes(s: Net, x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = s.a(x)
        with torch.no_grad():
            y = y.relu()
    return y


def autocast(s: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False), torch.enable_grad():
        return s.a(x).relu_()


WRITING = {
    "a write seen through a view": view_then_write,
    "writes to parts": parts_of_parts,
    "a tensor that is filled": filled_buffer,
    "a write to an input": written_input,
    "a write to a buffer": counted,
    "a write that keeps a type": types_that_differ,
    "a write after one that keeps a type": alias_that_was_written,
    "a write to one of two results": results_of_one_operation,
    "readers before and after": several_readers,
    "gradient modes": grad_modes,
    "autocast": autocast,
    "masked": lambda s, x: s.a(x).masked_fill_(x[:, :1] > 0, 0).clone().relu_(),
    "by mask": lambda s, x: torch.where(x > 0, s.a(x)[:, :4].zero_(), 2.0),
    "data": lambda s, x: F.linear(x.data, s.a.weight.data) + s.a.bias.detach(),
}


@pytest.mark.parametrize("name", one_in(2, WRITING))
def test_writes_and_regions_are_gone(name: str) -> None:
    model = double(Net(WRITING[name], a=nn.Linear(4, 6)))
    model.register_buffer("steps", torch.zeros(()))
    program = export(model, (torch.randn(5, 4).double(),))
    assert_functional(program)
    assert_same_function(program, model, torch.randn(5, 4).double())
    assert not any("assert" in name or "clone" in name for name in names(program))


@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [
        (lambda: nn.BatchNorm2d(6), (2, 6, 5, 5), ["batch_norm"]),
        (lambda: nn.InstanceNorm2d(6, affine=True), (2, 6, 5, 5), ["instance_norm"]),
        (lambda: nn.GroupNorm(2, 6), (2, 6, 5, 5), ["group_norm"]),
        (lambda: nn.LayerNorm(6), (2, 6), ["layer_norm"]),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(True)), (2, 6), ["linear", "relu"]),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout()), (2, 6), ["linear"]),
        (lambda: nn.LSTM(6, 5, 2, bidirectional=True), (3, 2, 6), ["lstm"]),
        (lambda: nn.GRU(6, 5), (3, 2, 6), ["gru"]),
        (lambda: nn.Upsample(scale_factor=2), (2, 6, 5, 5), ["upsample_nearest2d"]),
        (
            lambda: Net(lambda s, x: F.silu(x, inplace=False).softmax(-1)),
            (2, 6),
            ["silu", "softmax"],
        ),
        (
            lambda: Net(lambda s, x: F.scaled_dot_product_attention(x, x, x)),
            (2, 3, 6),
            ["scaled_dot_product_attention"],
        ),
        (lambda: Net(lambda s, x: torch.einsum("bi,bi->b", x, x)), (2, 6), ["einsum"]),
        (lambda: Net(lambda s, x: x.movedim(0, -1).mT), (2, 3, 6), ["permute", "transpose"]),
        (lambda: Net(lambda s, x: x.multiply(2).clip(0)), (2, 6), ["mul", "clamp"]),
        (lambda: Net(lambda s, x: x.view(-1).view(3, 4)), (2, 6), ["reshape", "reshape"]),
        (lambda: Net(lambda s, x: x.narrow(1, -4, 2) + 1), (2, 6), ["slice", "add"]),
        (lambda: Net(lambda s, x: torch.add(*x.chunk(2, 1))), (2, 6), ["split", "add"]),
        (
            lambda: Net(lambda s, x: torch.mul(*torch.broadcast_tensors(x, x[:1]))),
            (2, 6),
            ["slice", "expand", "mul"],
        ),
        (lambda: Net(lambda s, x: x.float().to(torch.float32) * 2), (2, 6), ["to", "mul"]),
        (lambda: Net(lambda s, x: torch.cat([x.new_empty(0), x]) * 2), (2, 6), ["mul"]),
    ],
)
@pytest.mark.parametrize(
    "twice", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["once", "traced twice"]
)
def test_operations_keep_one_name(
    build: Callable[[], nn.Module],
    shape: tuple[int, ...],
    expected: list[str],
    twice: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a write through a view makes torch trace everything once more."""
    if twice:
        monkeypatch.setattr(functional, "_is_autocast", lambda node: True)
    model, x = double(build()), torch.randn(shape).double()
    program = export(model, (x,))
    assert [name for name in names(program) if name != "new_zeros" and name != "zeros"] == expected
    assert_same_function(program, model, torch.randn(shape).double())


def test_statistics_of_the_batch_are_batch_norm_and_no_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(functional, "_is_autocast", lambda node: True)

    def function(s: Net, x: Tensor) -> Tensor:
        norm = s.norm
        return F.batch_norm(s.a(x), norm.running_mean, norm.running_var, training=True)

    model = double(Net(function, a=nn.Linear(4, 6), norm=nn.BatchNorm1d(6)))
    program = export(model, (torch.randn(5, 4).double(),))
    assert_functional(program)
    assert names(program) == ["linear", "batch_norm"]
    assert_same_function(program, model, torch.randn(5, 4).double())


# --- inputs and outputs -------------------------------------------------------------------------


@dataclasses.dataclass
class Given:
    x: Tensor
    scale: Tensor | None = None


@dataclasses.dataclass
class Answer:
    y: Tensor
    more: dict[str, Any]


class Cache:
    """An object that torch knows nothing about."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


def asked(s: Net, given: Given, *, shift: Tensor | None = None, flag: bool = False) -> Answer:
    h = s.a(given.x)
    h = h if given.scale is None else h * given.scale
    h = h if shift is None else h + shift
    return Answer(h, {"flag": flag, "parts": [None, h.sum(1), Cache(h)]})


def test_keywords_and_dataclasses_go_in_and_out() -> None:
    model, x = double(Net(asked, a=nn.Linear(4, 6))), torch.randn(5, 4).double()
    named = {"flag": True, "shift": torch.ones(6).double()}
    program = export(model, (Given(x, 2 * torch.ones(6).double()),), named)
    assert names(program) == ["linear", "mul", "add", "sum"]
    output = program.graph.find_nodes(op="output")[0]
    assert [shape_of_value(node) for node in output.args[0]] == [(5, 6), (5,)]


def test_keyword_inputs_are_traced() -> None:
    model = Net(lambda s, *, x: s.b(s.a(x).relu()), a=nn.Linear(4, 6), b=nn.Linear(6, 2))
    inputs = {"x": torch.randn(5, 4)}
    spec = converters.trace(model, (), inputs)
    assert [axis.size for axis in spec.symmetries.permutations] == [6]
    assert converters.to_graph(model, (), inputs).spec == spec


def test_one_tensor_passed_twice_stays_two_inputs() -> None:
    model, x = double(Net(lambda s, x, y: s.a(x) * s.a(y), a=nn.Linear(4, 6))), torch.randn(5, 4)
    program = export(model, (x.double(), x.double()))
    assert_same_function(program, model, torch.randn(5, 4).double(), torch.randn(5, 4).double())


def test_hooks_run_before_results_are_taken_and_nothing_stays_behind() -> None:
    model = double(Net(lambda s, x: s.a(x), a=nn.Linear(4, 6))).train()
    model.register_forward_hook(lambda module, inputs, result: {"y": result.relu()})
    program = export(model, (torch.randn(5, 4).double(),))
    assert names(program) == ["linear", "relu"]
    assert len(model._forward_hooks) == 1
    assert model.training


def test_modules_on_the_meta_device_are_exported() -> None:
    model = Net(lambda s, x, y: s.a(x[y[:, 0] > 0]), a=nn.Linear(4, 6)).to("meta")
    program = export(model, (torch.randn(5, 4), torch.randn(5, 2)))
    assert names(program) == ["select", "gt", "index", "linear"]


# --- sizes that depend on values ----------------------------------------------------------------


class Experts(nn.Module):
    """A mixture of experts that each run on the rows that chose them."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        result = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            row, place = torch.where(chosen == number)
            result.index_add_(0, row, expert(x[row]) * weights[row, place, None])
        return result


def test_sizes_that_depend_on_values_are_different_numbers_and_neither_zero_nor_one() -> None:
    model = double(Experts())
    program = export(model, (torch.randn(9, 4).double(),))
    rows = [shape_of_value(n)[0] for n in operations(program) if "linear" in n.name][1:]
    assert len(set(rows)) == 3
    assert min(rows) > 1
    assert_functional(program)
    assert_same_function(program, model, torch.randn(9, 4).double())


def test_numbers_for_sizes_keep_the_equations_of_the_module() -> None:
    def function(s: Net, x: Tensor) -> Tensor:
        found = x[x[:, 0] > 0]
        torch._check(found.shape[0] % 3 == 0)
        return s.a(found).view(-1, 3, 6)

    program = export(Net(function, a=nn.Linear(4, 6)), (torch.randn(9, 4),))
    shape = shape_of_value(operations(program)[-1])
    assert shape[1:] == (3, 6)
    assert shape_of_value(operations(program)[-2])[0] == 3 * shape[0]


# --- errors -------------------------------------------------------------------------------------


def branches(s: Net, x: Tensor) -> Tensor:
    return s.a(x) if x.sum() > 0 else x


ERRORS: dict[str, tuple[nn.Module, Any, str]] = {
    "lazy": (
        nn.Sequential(nn.ReLU(), nn.LazyLinear(8)),
        (torch.zeros(2, 4),),
        r"1 \(LazyLinear\): weight has no shape yet. Run the module once",
    ),
    "a branch": (
        Net(branches, a=nn.Linear(4, 4)),
        (torch.zeros(2, 4),),
        r"test_export.py, line \d+: return s.a\(x\) if x.sum\(\) > 0 else x\): what it does next "
        "depends on the values of its inputs",
    ),
    "numpy": (
        Net(lambda s, x: torch.from_numpy(x.numpy())),
        (torch.zeros(2, 4),),
        r"test_export.py, line \d+",
    ),
    "no result": (Net(lambda s, x: 3), (torch.zeros(2, 4),), "returns no tensor"),
    "a list": (nn.Linear(4, 4), [torch.zeros(2, 4)], "pass a tuple"),
    "another shape": (nn.Linear(5, 4), (torch.zeros(2, 4),), "torch.export cannot follow it"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_culprit(name: str) -> None:
    model, inputs, message = ERRORS[name]
    with pytest.raises(converters.TraceError, match=message):
        converters.trace(model, inputs)


# --- operators ----------------------------------------------------------------------------------


def test_operations_are_known_by_namespace() -> None:
    assert exists("relu")
    assert exists("aten::special_i0")
    assert exists("graph_metanetworks::leaf")
    assert not exists("hers::nothing")
    assert not exists("my_operation")


@pytest.mark.parametrize(
    ("function", "random"),
    [
        (lambda x: F.dropout(x, 0.5, True), True),
        (lambda x: F.alpha_dropout(x, 0.5, True), True),
        (lambda x: torch.bernoulli(x.sigmoid()), True),
        (lambda x: x + torch.rand_like(x), True),
        (lambda x: F.rrelu(x, training=True), True),
        (lambda x: F.rrelu(x), False),
        (lambda x: x + torch.empty_like(x).normal_(), True),
        (lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), True),
        (lambda x: F.scaled_dot_product_attention(x, x, x), False),
        (lambda x: F.dropout(x, 0.5, False) * 2, False),
    ],
)
def test_operations_that_draw_numbers_say_so(
    function: Callable[[Tensor], Tensor], random: bool
) -> None:
    program = export(Net(lambda s, x: function(x)), (torch.randn(2, 3, 4),))
    assert any(is_random(node) for node in operations(program)) == random


# --- entries that share memory ------------------------------------------------------------------


def shared(change: Callable[[nn.Linear, nn.Linear], None]) -> dict[str, View]:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))
    change(model[0], model[1])  # type: ignore[arg-type]
    return shared_views(model)


def test_entries_that_share_memory_are_found() -> None:
    numbers = torch.randn(12, 6)

    def transposed(one: nn.Linear, other: nn.Linear) -> None:
        other.weight.data = one.weight.data.t()

    def same_data(one: nn.Linear, other: nn.Linear) -> None:
        other.weight = nn.Parameter(one.weight.detach())

    def tied(one: nn.Linear, other: nn.Linear) -> None:
        other.weight = one.weight

    def overlapping(one: nn.Linear, other: nn.Linear) -> None:
        one.weight, other.weight = nn.Parameter(numbers[:8]), nn.Parameter(numbers[4:])

    def side_by_side(one: nn.Linear, other: nn.Linear) -> None:
        one.weight, other.weight = nn.Parameter(numbers[::2]), nn.Parameter(numbers[1::2])

    def expanded(one: nn.Linear, other: nn.Linear) -> None:
        other.weight = nn.Parameter(torch.randn(1, 6).expand(4, 6))

    assert shared(transposed) == {"1.weight": View("0.weight", (1, 0))}
    assert shared(same_data) == {"1.weight": View("0.weight", (0, 1))}
    assert shared(overlapping) == {"1.weight": View("0.weight", None)}
    assert shared(expanded) == {"1.weight": View("1.weight", None)}
    assert not shared(tied)
    assert not shared(side_by_side)
    assert not shared_views(nn.Linear(3, 3, device="meta"))
