"""Small random programs over tensors: data that prints as code, runs as a module and shrinks.

A program has leaves (inputs, parameters, buffers, constants), lines of code and outputs. Each line
comes from a template of `OPERATIONS`; what stands in braces there is filled in with values that
exist already, new leaves, dimensions and numbers that fit. All choices go through one function
`pick(options)`.

Inputs have two shapes, that of the example and that of fresh inputs (another batch size, and
sometimes a dimension that only the example has of size 1). Lines are run at both while they are
written, so every program runs at both. Names tell what a leaf is: `x0` an input, `p0` a parameter,
`b0` a buffer, `running_var0` a positive buffer, `k0` a constant; `v0` is computed.
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

T = TypeVar("T")
Pick = Callable[[Sequence[T]], T]

ATTENTION = "F.scaled_dot_product_attention"

# Fields: a any value; b another; same, wide, row, into, outof, bias, square, mats, table, part
# values of shapes that fit a; d, e dimensions of a; n the size of d; i an index and k a width
# within it, p a divisor, s a step; m a new size; c a number; index what stands in brackets.
ELEMENTWISE = {
    "relu": "torch.relu({a})",
    "tanh": "torch.tanh({a})",
    "gelu": "F.gelu({a})",
    "silu": "F.silu({a})",
    "sigmoid": "torch.sigmoid({a})",
    "abs": "{a}.abs()",
    "square": "{a}.square()",
    "power": "{a} ** 2",
    "cube": "{a}.pow(3)",
    "sin": "torch.sin({a})",
    "cos": "torch.cos({a})",
    "exp": "{a}.clamp(max=3).exp()",
    "log": "{a}.abs().log1p()",
    "sqrt": "{a}.abs().sqrt()",
    "reciprocal": "1 / (1 + {a}.abs())",
    "neg": "-{a}",
    "sign": "{a}.sign()",
    "leaky_relu": "F.leaky_relu({a}, 0.1)",
    "prelu": "F.prelu({a}, {one})",
    "elu": "F.elu({a})",
    "softplus": "F.softplus({a})",
    "hardtanh": "F.hardtanh({a})",
    "relu6": "F.relu6({a})",
    "softshrink": "F.softshrink({a}, 0.3)",
    "hardswish": "F.hardswish({a})",
    "clamp": "{a}.clamp(min=0)",
    "clamp both": "{a}.clamp(-0.5, 0.5)",
    "where": "torch.where({a} > 0, {a}, 0.1 * {a})",
    "where of two": "torch.where({a} > 0, {wide}, {a})",
    "masked_fill": "{a}.masked_fill({a} < 0, 0)",
    "masked_fill other": "{a}.masked_fill({wide} > 0, {c})",
    "mask by product": "{a} * ({a} > 0)",
    "maximum": "torch.maximum({a}, 0.2 * {a})",
    "times a number": "{c} * {a}",
    "plus a number": "{a} + {c}",
    "halve": "{a} / 2",
    "erf": "torch.erf({a})",
    "round": "{a}.round()",
    "clone": "{a}.clone()",
    "nan_to_num": "torch.nan_to_num({a})",
    "dropout": "F.dropout({a}, 0.5, False)",
}
BROADCAST = {
    "add": "{a} + {wide}",
    "add alpha": "torch.add({a}, {wide}, alpha={c})",
    "sub": "{a} - {wide}",
    "rsub": "{wide} - {a}",
    "mul": "{a} * {wide}",
    "mul itself": "{a} * {a}",
    "div": "{a} / (0.5 + {wide}.abs())",
    "div by": "{a} / {wide}",
    "max of two": "torch.maximum({a}, {wide})",
    "min of two": "torch.minimum({a}, {wide})",
    "lerp": "torch.lerp({a}, {same}, 0.3)",
    "lerp weight": "torch.lerp({a}, {same}, {wide})",
    "addcmul": "torch.addcmul({a}, {same}, {same}, value={c})",
    "residual": "{a} + torch.tanh({same})",
    "gate": "{a} * torch.sigmoid({same})",
    "swiglu": "F.silu({a}) * {same}",
    "film": "{a} * (1 + {wide}) + {wide}",
    "outer sum": "{a}.unsqueeze(-1) + {a}.unsqueeze(-2)",
    "hypot": "torch.hypot({a}, {wide})",
    "copysign": "{a}.abs() * {wide}.sign()",
}
PRODUCTS = {
    "linear": "F.linear({a}, {outof})",
    "linear bias": "F.linear({a}, {outof}, {bias})",
    "linear tanh weight": "F.linear({a}, torch.tanh({outof}))",
    "linear normalised weight": "F.linear({a}, F.normalize({outof}, dim=1))",
    "linear standardised weight": "F.linear({a}, {outof} - {outof_again}.mean(1, keepdim=True))",
    "linear of rows": "F.linear({a}, {outof}[:2])",
    "linear of a flat vector": "F.linear({a}, {flat}.view({m}, -1))",
    "linear low rank": "F.linear({a}, {tall} @ {short})",
    "matmul": "{a} @ {into}",
    "matmul transposed": "{a} @ {outof}.t()",
    "matmul bias": "{a} @ {into} + {bias}",
    "matmul square": "{a} @ {square}",
    "matmul gram weight": "{a} @ ({into} @ {into_again}.t())",
    "matmul softmax": "{a} @ ({into} @ {into_again}.t()).softmax(1)",
    "gram": "{a} @ {a}.mT",
    "gram of columns": "{a}.mT @ {a}",
    "batched": "{a} @ {mats}",
    "product of two": "{a} @ {b}.mT",
    "mixing": "{left} @ {a}",
    "einsum": "torch.einsum('...i,oi->...o', {a}, {outof})",
    "einsum rows": "torch.einsum('...i,...i->...', {a}, {same})",
    "einsum pairs": "torch.einsum('...id,...jd->...ij', {a}, {same})",
    "outer": "{a}.unsqueeze(-1) * {row}",
    "torch.outer": "torch.outer({a}.flatten()[:3], {row})",
    "mv": "{a} @ {row}",
    "tensordot": "torch.tensordot({a}, {into}, dims=1)",
    "dot": "({a} * {same}).sum()",
    "embedding of positions": "F.embedding(torch.arange({n}), {table}).sum() + {a}",
    "cosine": "F.cosine_similarity({a}, {wide}, dim=-1)",
    "distance": "({a}.unsqueeze(-2) - {outof}).square().sum(-1)",
}
MATRICES = {  # of rank 2
    "addmm": "torch.addmm({bias}, {a}, {into}, beta={c}, alpha={c2})",
    "t": "{a}.t()",
    "mm": "torch.mm({a}, {into})",
    "cdist": "torch.cdist({a}, {outof})",
    "bilinear": "F.bilinear({a}, {a}, {cube})",
    "einsum experts": "torch.einsum('bi,eih->beh', {a}, {experts})",
    "diagonal": "{a}.diagonal()",
    "tril": "{a}.tril()",
    "triu pairs": "({a} @ {a}.t()).triu(1)",
    "batch_norm": "F.batch_norm({a}, {mean}, {variance})",
    "batch_norm affine": "F.batch_norm({a}, {mean}, {variance}, {gain}, {gain2})",
    "transposed scale": "({a}.t() * {scale}).t()",
}
SEQUENCES = {  # of rank 3
    "bmm": "torch.bmm({a}, {a}.transpose(1, 2))",
    "conv1d": "F.conv1d({a}, {kernel}, padding=1)",
    "conv1d depthwise": "F.conv1d({a}, {depthwise}, padding=1, groups={channels})",
    "conv_transpose1d": "F.conv_transpose1d({a}, {kernel_t})",
    "avg_pool1d": "F.avg_pool1d({a}, 2)",
    "max_pool1d": "F.max_pool1d({a}, 2)",
    "attention": ATTENTION + "({a}, {a}, {a})",
    "attention of three": ATTENTION + "({a} @ {square}, {a} @ {square}, {a} @ {square})",
    "attention causal": ATTENTION + "({a} @ {square}, {a}, {a}, is_causal=True)",
    "attention by hand": "({a} @ {square} @ {a}.mT).softmax(-1) @ {a}",
    "attention to the learned": ATTENTION + "({a}, {memory}, {memory})",
    "prefix": "torch.cat([{token}.expand({a}.shape[0], -1, -1), {a}], 1)",
    "group_norm": "F.group_norm({a}, 1)",
    "instance_norm": "F.instance_norm({a})",
    "batch_norm sequence": "F.batch_norm({a}, {mean}, {variance}, {gain}, {gain2})",
}
IMAGES = {  # of rank 4
    "conv2d": "F.conv2d({a}, {kernel2d}, padding=1)",
    "conv2d bias": "F.conv2d({a}, {kernel2d}, {bias}, padding=1)",
    "avg_pool2d": "F.adaptive_avg_pool2d({a}, 1)",
    "max_pool2d": "F.max_pool2d({a}, 2)",
    "pixel_shuffle": "F.pixel_shuffle({a}, 2)",
    "heads attention": ATTENTION + "({a}, {a}, {a})",
    "batch_norm image": "F.batch_norm({a}, {mean}, {variance}, {gain}, {gain2})",
}
VIEWS = {
    "flatten": "{a}.flatten(1)",
    "flatten all": "{a}.flatten()",
    "unflatten": "{a}.unflatten({d}, ({p}, -1))",
    "unflatten to columns": "{a}.unflatten({d}, (-1, {p}))",
    "view": "{a}.contiguous().view({a}.shape[0], -1)",
    "reshape": "{a}.reshape(-1, {last})",
    "transpose": "{a}.transpose({d}, {e})",
    "permute": "{a}.permute({order})",
    "movedim": "{a}.movedim({d}, {e})",
    "unsqueeze": "{a}.unsqueeze({d})",
    "squeeze": "{a}.squeeze({d})",
    "expand": "{a}.unsqueeze({d}).expand({expanded})",
    "mT": "{a}.mT",
    "shuffle": "{a}.unflatten({d}, ({p}, -1)).transpose({d}, {after}).flatten({d}, {after})",
}
SLICES = {
    "select": "{a}.select({d}, {i})",
    "narrow": "{a}.narrow({d}, {i}, {k})",
    "index": "{a}[{index}]",
    "index by a list": "{a}.index_select({d}, torch.tensor([{i}, 0, {i}]))",
    "chunk": "{a}.chunk(2, {d})[0]",
    "chunks swapped": "torch.cat({a}.chunk(2, {d})[::-1], {d})",
    "chunk gate": "torch.mul(*{a}.split({half}, {d}))",
    "split": "{a}.split({k}, {d})[-1]",
    "unbind": "{a}.unbind({d})[{i}]",
    "unbind product": "{a}.unbind({d})[0] * {a}.unbind({d})[{i}]",
    "unbind sum": "sum({a}.unbind({d}))",
    "tensor_split": "{a}.tensor_split(2, {d})[1]",
    "differences": "{a}.diff(dim={d})",
    "even and odd": "{a}.unflatten({d}, (-1, 2)).unbind({after})[1]",
    "rotate half": "torch.cat([-{a}.chunk(2, -1)[1], {a}.chunk(2, -1)[0]], -1)",
    "rotate pairs": "torch.stack([-{a}[..., 1::2], {a}[..., ::2]], -1).flatten(-2)",
}
JOINED = {
    "cat": "torch.cat([{a}, {same}], {d})",
    "cat itself": "torch.cat([{a}, torch.relu({a})], {d})",
    "cat sine": "torch.cat([{a}.sin(), {a}.cos()], -1)",
    "cat slice": "torch.cat([{a}, {a}.narrow({d}, 0, 1)], {d})",
    "stack": "torch.stack([{a}, {same}], {d})",
    "pad": "F.pad({a}, (0, 1))",
    "pad left": "F.pad({a}, (1, 0), value={c})",
    "repeat": "{a}.repeat({repeats})",
    "tile": "{a}.tile(2)",
    "repeat_interleave": "{a}.repeat_interleave(2, {d})",
    "roll": "{a}.roll({s}, {d})",
    "flip": "{a}.flip({d})",
    "broadcast_to": "{a}.broadcast_to(2, *{a}.shape)",
}
REDUCTIONS = {
    "sum": "{a}.sum({d})",
    "sum keepdim": "{a}.sum({d}, keepdim=True)",
    "sum of all": "{a}.sum()",
    "mean": "{a}.mean({d})",
    "mean keepdim": "{a}.mean({d}, keepdim=True)",
    "centred": "{a} - {a}.mean({d}, keepdim=True)",
    "amax": "{a}.amax({d})",
    "amin keepdim": "{a}.amin({d}, keepdim=True)",
    "max": "{a}.max({d}).values",
    "var": "{a}.var({d})",
    "std": "({a}.var({d}, keepdim=True) + 0.1).sqrt()",
    "prod": "{a}.prod({d})",
    "norm": "{a}.norm(dim={d}, keepdim=True)",
    "vector_norm": "torch.linalg.vector_norm({a}, dim={d})",
    "logsumexp": "{a}.logsumexp({d})",
    "cumsum": "{a}.cumsum({d})",
    "topk": "{a}.topk({k}, {d}).values",
    "sort": "{a}.sort({d}).values",
}
NORMS = {
    "layer_norm": "F.layer_norm({a}, ({last},))",
    "layer_norm affine": "F.layer_norm({a}, ({last},), {row}, {row})",
    "rms_norm": "F.rms_norm({a}, ({last},))",
    "rms_norm affine": "F.rms_norm({a}, ({last},), {row})",
    "rms by hand": "{a} / ({a}.square().mean(-1, keepdim=True) + 0.01).sqrt()",
    "norm by hand": "{a} / {a}.norm(dim={d}, keepdim=True)",
    "standardised": "({a} - {a}.mean({d}, True)) / ({a}.var({d}, keepdim=True) + 0.1).sqrt()",
    "softmax": "{a}.softmax({d})",
    "softmax mix": "({a}.softmax({d}) * {same}).sum({d})",
    "log_softmax": "F.log_softmax({a}, {d})",
    "normalize": "F.normalize({a}, dim={d})",
    "l1 normalised": "{a} / (0.1 + {a}.abs().sum({d}, keepdim=True))",
}
COMPUTED = {
    "table at argmax": "{table}[{a}.argmax({d})]",
    "embedding at argmax": "F.embedding({a}.argmax({d}), {table})",
    "index_select at argmax": "{table}.index_select(0, {a}.argmax({d}).flatten())",
    "own argmax": "{a}.gather({d}, {a}.argmax({d}, keepdim=True))",
    "gather": "{same}.gather({d}, {a}.argmax({d}, keepdim=True))",
    "gather topk": "{same}.gather({d}, {a}.topk({k}, {d}).indices)",
    "gather sorted": "{same}.gather({d}, {a}.argsort({d}))",
    "take_along_dim": "torch.take_along_dim({same}, {a}.argmin({d}, keepdim=True), {d})",
    "one_hot": "F.one_hot({a}.argmax({d}), {n}).to({a}.dtype)",
    "one_hot lookup": "F.one_hot({a}.argmax({d}), {n}).to({a}.dtype) @ {table}",
    "table at sign": "{pair}[({a} > 0).long()]",
    "bucketize": "{five}[torch.bucketize({a}, torch.linspace(-1, 1, 4))]",
    "quantised": "{outof}[({a}.unsqueeze(-2) - {outof_again}).square().sum(-1).argmin(-1)]",
    "sparse top": "{a} * ({a} >= {a}.topk({k}, {d}).values.amin({d}, keepdim=True))",
    "scatter topk": "torch.zeros_like({a}).scatter({d}, {a}.topk({k}, {d}).indices, 1.0)",
}
SCATTERED = {
    "index_add": "torch.zeros_like({a}).index_add(0, torch.zeros(len({a}), dtype=torch.long), {a})",
    "index_add fixed": "{a}.index_add({d}, torch.tensor([{i}]), {a}.narrow({d}, 0, 1))",
    "index_copy": "{a}.index_copy({d}, torch.tensor([{i}]), {a}.narrow({d}, 0, 1))",
    "index_fill": "{a}.index_fill({d}, torch.tensor([{i}]), {c})",
    "select_scatter": "torch.select_scatter({a}, {a}.select({d}, 0).tanh(), {d}, {i})",
    "scatter_add": "{a}.scatter_add({d}, {a}.argsort({d}), {same})",
    "written in parts": "torch.cat([{a}.narrow({d}, 0, 1).tanh(), {a}.narrow({d}, 1, 1)], {d})",
}
PLACES = {  # what is written to
    "": "{a}",
    "brackets": "{a}[{index}]",
    "view": "{a}.view(-1)",
    "select": "{a}.select({d}, {i})",
    "narrow": "{a}.narrow({d}, {i}, {k})",
    "chunk": "{a}.chunk(2, {d})[1]",
    "unbind": "{a}.unbind({d})[{i}]",
    "transpose": "{a}.transpose({d}, {e})",
    "transposed row": "{a}.transpose({d}, {e})[0]",
    "unflatten": "{a}.unflatten({d}, ({p}, -1))",
    "squeezed": "{a}.unsqueeze({d}).squeeze()",
}
WRITES = {
    "mul_": "{place}.mul_({part})",
    "add_": "{place}.add_({part})",
    "sub_ alpha": "{place}.sub_({part}, alpha={c})",
    "copy_": "{place}.copy_({part})",
    "number": "{place}.mul_({c})",
    "zero_": "{place}.zero_()",
    "relu_": "{place}.relu_()",
    "neg_": "{place}.neg_()",
    "fill_": "{place}.fill_({c})",
    "assigned": "{place}[...] = {part}",
    "masked_fill_": "{place}.masked_fill_({part} > 0, {c})",
    "clamp_": "{place}.clamp_(min=0)",
}


@dataclass(frozen=True)
class Operation:
    """A template of a line of code; of values of one rank only where `rank` is given."""

    name: str
    template: str
    rank: int | None = None

    @property
    def fields(self) -> set[str]:
        return {field for _, field, _, _ in Formatter().parse(self.template) if field}


def _operations() -> Iterator[Operation]:
    for table in (ELEMENTWISE, BROADCAST, PRODUCTS, VIEWS, SLICES, JOINED, REDUCTIONS, NORMS):
        yield from (Operation(name, template) for name, template in table.items())
    for table in (COMPUTED, SCATTERED):
        yield from (Operation(name, template) for name, template in table.items())
    for rank, table in ((2, MATRICES), (3, SEQUENCES), (4, IMAGES)):
        yield from (Operation(name, template, rank) for name, template in table.items())
    for name, template in WRITES.items():
        yield Operation(f"{name} in place", template)


OPERATIONS = tuple(_operations())
_LAYERS = [o for o in OPERATIONS if o.name in {"linear", "linear bias", "matmul", "conv1d"}]
_COMMON = [*_LAYERS, *(o for o in OPERATIONS if o.name in {"relu", "tanh", "gelu"})]
_NAME = re.compile(r"\b(?:[xpbvk]|running_var)\d+\b")
_GLOBALS = {"torch": torch, "F": F}
_LARGEST, _DEEPEST, _HIGHEST = 300, 5, 1e3  # entries of a value, its dimensions, its numbers


@dataclass(frozen=True)
class Leaf:
    """What a program starts from; `fresh` is the shape of inputs it was not traced with."""

    name: str
    shape: tuple[int, ...]
    fresh: tuple[int, ...] = ()

    def sized(self, fresh: bool) -> tuple[int, ...]:
        return self.fresh if fresh and self.name.startswith("x") else self.shape


@dataclass(frozen=True)
class Step:
    """A line of code, and the operation it is an instance of."""

    line: str
    operation: str = ""

    @property
    def result(self) -> str | None:
        """The name that the line defines; None if it writes in place."""
        found = re.match(r"(v\d+) = ", self.line)
        return found.group(1) if found else None

    @property
    def operands(self) -> list[str]:
        names = _NAME.findall(self.line)
        return names[1:] if self.result else names


@dataclass(frozen=True)
class Program:
    """Leaves, lines that compute values from them, and which values are returned."""

    leaves: tuple[Leaf, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        inputs = self._named("x")
        held = [leaf for leaf in self.leaves if leaf.name[0] in "pbr"]
        shapes = ", ".join(
            f"{leaf.name} {leaf.shape}" + (f", fresh {leaf.fresh}" if leaf.fresh else "")
            for leaf in (*inputs, *held)
        )
        lines = [f"def forward({', '.join(['self', *(leaf.name for leaf in inputs)])}):"]
        lines += [f"# {shapes}"]
        lines += [f"{leaf.name} = self.{leaf.name}" for leaf in held]
        lines += [f"{leaf.name} = {_constant(leaf.shape)}" for leaf in self._named("k")]
        lines += [step.line for step in self.steps]
        lines += [f"return {', '.join(self.outputs)}"]
        return "\n    ".join(lines)

    def module(self) -> nn.Module:
        """The program as a module in evaluation mode, its entries drawn anew."""
        module = nn.Module()
        for leaf in self.leaves:
            value = _drawn(leaf, fresh=False)
            if leaf.name.startswith("p"):
                module.register_parameter(leaf.name, nn.Parameter(value))
            elif leaf.name[0] in "br":
                module.register_buffer(leaf.name, value)
        space = dict(_GLOBALS)
        exec(str(self), space)
        module.__class__ = type("Written", (nn.Module,), {"forward": space["forward"]})
        return module.eval()

    def inputs(self, fresh: bool = False, scale: float = 1.0) -> tuple[Tensor, ...]:
        return tuple(scale * _drawn(leaf, fresh) for leaf in self._named("x"))

    def values(self, fresh: bool) -> dict[str, Tensor]:
        """Every value once, by running the lines."""
        space = _values(self.leaves, fresh)
        for step in self.steps:
            exec(step.line, _GLOBALS, space)
        return space

    def _named(self, letter: str) -> list[Leaf]:
        return [leaf for leaf in self.leaves if leaf.name.startswith(letter)]


def program(leaves: dict[str, str], *lines: str) -> Program:
    """A program written down: shapes such as "2 3" or "2 3 -> 5 3" by name, and its lines.

    The last line is what it returns.
    """
    shapes = {
        name: [tuple(map(int, shape.split())) for shape in text.split("->")]
        for name, text in leaves.items()
    }
    *steps, last = lines
    outputs = tuple(last.removeprefix("return ").split(", "))
    return Program(
        tuple(Leaf(name, *both) for name, both in shapes.items()), tuple(map(Step, steps)), outputs
    )


def write(pick: Pick, longest: int = 12) -> Program | None:
    """Writes a program; None if its outputs depend on fewer than two parameters, or no input."""
    length = pick(range(4, longest + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lines are tried that do not fit
        writer = _Writer(pick)
        writer.layer()
        for _ in range(4 * length):
            if len(writer.steps) < length:
                writer.step(pick(_COMMON if pick(range(3)) == 0 else OPERATIONS))
        writer.layer()
        return writer.finish()


def drawn(seed: int, longest: int = 12) -> Program:
    """The program of a seed, without Hypothesis."""
    source = random.Random(seed)
    while (result := write(source.choice, longest)) is None:
        pass
    return result


def programs() -> st.SearchStrategy[Program]:
    """Programs as a strategy of Hypothesis, which draws seeds.

    Were each choice drawn by Hypothesis, a third of the programs would be repetitions: its
    mutations often change what is dead code in the end. `shrink` deletes operations instead.
    """
    return st.integers(0, 2**32 - 1).map(drawn)


def shrink(start: Program, fails: Callable[[Program], bool]) -> Program:
    """The program with as many operations deleted as it fails without."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _shorter(start):
            if _runs(candidate) and fails(candidate):
                start, smaller = candidate, True
                break
    return start


class _Writer:
    """Draws lines one after another and runs them at both sizes."""

    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.leaves: list[Leaf] = []
        self.steps: list[Step] = []
        self.spaces: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        shape = (2, *(pick((2, 3, 4, 5)) for _ in range(pick((1, 1, 1, 2, 2, 3)))))
        single = pick(range(12)) == 0 and len(shape) > 2
        example = (shape[0], 1, *shape[2:]) if single else shape
        self._leaf("x", example, (3, *shape[1:]))

    def layer(self) -> None:
        """Adds a layer in three of four programs: axes that end in outputs cannot move."""
        results = [step.result for step in self.steps if step.result]
        if self.pick(range(4)):
            self.step(self.pick(_LAYERS), results[-1] if results else None)

    def step(self, operation: Operation, a: str | None = None) -> None:
        """Adds a line, unless what is drawn does not fit."""
        template, kind, place = operation.template, operation.name, ""
        leaves, spaces = len(self.leaves), [dict(space) for space in self.spaces]
        names = [n for n in self.spaces[0] if "{place}" not in template or self._writable(n)]
        names = [n for n in names if operation.rank in (None, self.spaces[0][n].dim())]
        if not names:
            return
        if "{place}" in template:
            through = self.pick(list(PLACES))
            place, kind = PLACES[through], f"{kind} {through}"
            template = template.replace("{place}", place)
        latest = [name for name in names if name.startswith("v")][-3:]
        a = a or self.pick([*names, *latest, *latest, *latest[-1:] * 4])
        try:
            code, written = _Filling(self, a).fill(template, place), bool(place)
            line = code if written else f"v{len(self.steps)} = {code}"
            for space in self.spaces:
                exec(line, _GLOBALS, space)
            fits = written or all(_fits(space[f"v{len(self.steps)}"]) for space in self.spaces)
        except (RuntimeError, IndexError, ValueError, TypeError, _Unfit):
            fits = False
        if fits:
            self.steps.append(Step(line, kind.strip()))
        else:
            del self.leaves[leaves:]
            for space, before in zip(self.spaces, spaces, strict=True):
                space.clear()
                space.update(before)

    def finish(self) -> Program | None:
        results = [step.result for step in self.steps if step.result]
        if not results:
            return None
        outputs = (results[-1],) if self.pick(range(4)) else tuple(dict.fromkeys(results[-2:]))
        result = _live(Program(tuple(self.leaves), tuple(self.steps), outputs))
        letters = [leaf.name[0] for leaf in result.leaves]
        return result if letters.count("p") > 1 and "x" in letters else None

    def value(self, shape: Sequence[int], fresh: Sequence[int], kinds: str = "pppkb") -> str:
        """A value of this shape at both sizes: one that exists, or a new leaf of these kinds."""
        exists = [name for name in self.spaces[0] if self._shapes(name) == (shape, fresh)]
        new = [letter for letter in kinds if shape == fresh]
        if not exists + new:
            raise _Unfit
        chosen = self.pick(exists[-4:] + new)
        return self._leaf(chosen, tuple(shape)) if chosen in new else chosen

    def _shapes(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(self.spaces[0][name].shape), tuple(self.spaces[1][name].shape)

    def _leaf(self, kind: str, shape: tuple[int, ...], fresh: tuple[int, ...] = ()) -> str:
        name = f"{kind}{sum(leaf.name.startswith(kind) for leaf in self.leaves)}"
        leaf = Leaf(name, shape, fresh)
        self.leaves.append(leaf)
        for size, space in enumerate(self.spaces):
            space[name] = _drawn(leaf, fresh=size == 1)
        return name

    def _writable(self, name: str) -> bool:
        held = {_storage(self.spaces[0][leaf.name]) for leaf in self.leaves}
        return _storage(self.spaces[0][name]) not in held


class _Unfit(Exception):
    """What was drawn does not fit the values that are there."""


class _Filling:
    """Fills in one template for one value: dimensions first, then what depends on their sizes."""

    def __init__(self, writer: _Writer, a: str) -> None:
        self.writer, self.pick, self.a = writer, writer.pick, a
        self.shape, self.fresh = writer._shapes(a)
        self.filled: dict[str, str] = {"a": a}

    def fill(self, template: str, place: str = "") -> str:
        """The template as code; `place` is the part of it that is written to."""
        fields = {field for _, field, _, _ in Formatter().parse(template) if field}
        sized = {"n", "i", "k", "p", "s", "half", "table"} & fields
        if {"d", "e", "after", *sized} & fields:
            self._dims(fields, bool(sized))
        m = self.pick((2, 3, 4))
        # Operands that must agree share the size m; one that exists already decides it.
        for field in sorted(fields - {*self.filled, "part"}, key=_last):
            self.filled[field], m = self._field(field, m)
        if "part" in fields:
            self.filled["part"] = self._part(place.format(**self.filled))
        return template.format(**self.filled)

    def _dims(self, fields: set[str], fixed: bool) -> None:
        same = [n == k > 1 for n, k in zip(self.shape, self.fresh, strict=True)]
        options = [dim for dim, ok in enumerate(same) if ok or not fixed]
        if not options or ("e" in fields and len(self.shape) < 2):
            raise _Unfit
        self.dim = self.pick(options)
        rank = len(self.shape)
        from_front = "after" in fields or self.pick((True, False))
        self.filled["d"] = str(self.dim if from_front else self.dim - rank)
        self.filled["after"] = str(self.dim + 1)
        self.filled["e"] = str((self.dim + 1 + self.pick(range(max(rank - 1, 1)))) % rank)

    def _field(self, field: str, m: int) -> tuple[str, int]:
        if field in _NUMBERS:
            return str(_NUMBERS[field](self)), m
        if field == "m":
            return str(m), m
        if field.endswith("_again"):
            return self.filled[field.removesuffix("_again")], m
        if field == "b":
            return self.pick(list(self.writer.spaces[0])), m
        if field in _WITH_M:
            return self._with_m(field, m)
        kinds = {"mean": "b", "variance": ("running_var",), "scale": "kkb"}.get(field, "pppkb")
        return self.writer.value(*self._wanted(field), kinds), m

    def _with_m(self, field: str, m: int) -> tuple[str, int]:
        """An operand whose own size m others share."""
        shape = _WITH_M[field](self.shape, m)
        if any(n != k for n, k in zip(self.shape[-1:], self.fresh[-1:], strict=True)):
            raise _Unfit
        return self.writer.value(shape, shape), m

    def _wanted(self, field: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of an operand at both sizes."""
        if field == "wide":
            keep = [self.pick((True, True, False)) for _ in self.shape]
            first = self.pick(range(len(self.shape) + 1))
            return tuple(
                tuple(n if k else 1 for n, k in zip(shape, keep, strict=True))[first:]
                for shape in (self.shape, self.fresh)
            )
        make = _SHAPES[field]
        return tuple(make(self, shape) for shape in (self.shape, self.fresh))

    def _part(self, place: str) -> str:
        """A value that can be written to the place."""
        shapes = [tuple(eval(place, _GLOBALS, space).shape) for space in self.writer.spaces]
        first = self.pick(range(len(shapes[0]) + 1))
        return self.writer.value(shapes[0][first:], shapes[1][first:])

    def index(self) -> str:
        """What may stand in brackets: mostly a slice of one dimension."""
        chosen = self.pick(range(len(self.shape)))
        fixed = self.shape[chosen] == self.fresh[chosen] > 1
        slices = ["0", "-1", "1:", ":-1", "::2", "1::2"] if fixed else ["0", ":-1", "::2"]
        slices += ["[0, 1, 0]", "None"] if fixed else []
        where = [":"] * chosen + [self.pick(slices)]
        after = len(self.shape) - chosen - 1
        if after and self.pick(range(4)) == 0:
            where += ["0"]
        return ", ".join(where) if chosen < 2 else f"..., {where[-1]}" + ", :" * after


_NUMBERS: dict[str, Callable[[_Filling], object]] = {
    "n": lambda f: f.shape[f.dim],
    "i": lambda f: f.pick(range(f.shape[f.dim])),
    "k": lambda f: f.pick(range(1, f.shape[f.dim] - int(f.filled.get("i", 0)) + 1)),
    "p": lambda f: f.pick([n for n in (2, 3, 4, 5) if f.shape[f.dim] % n == 0] or [1]),
    "s": lambda f: f.pick(range(1, f.shape[f.dim])),
    "half": lambda f: f.shape[f.dim] // 2,
    "c": lambda f: f.pick((2, 0.5, -1, 3, 0)),
    "c2": lambda f: f.pick((1, 0.5, -2)),
    "last": lambda f: f.shape[-1] if f.shape and f.shape[-1] == f.fresh[-1] else _unfit(),
    "channels": lambda f: f.shape[1],
    "index": lambda f: f.index() if f.shape else _unfit(),
    "order": lambda f: ", ".join(map(str, f.pick(_orders(len(f.shape))))),
    "expanded": lambda f: ", ".join("3" if n == f.dim else "-1" for n in range(len(f.shape) + 1)),
    "repeats": lambda f: ", ".join(str(f.pick((1, 1, 2))) for _ in f.shape),
}
_SHAPES: dict[str, Callable[[_Filling, tuple[int, ...]], tuple[int, ...]]] = {
    "same": lambda f, s: s,
    "one": lambda f, s: (1,),
    "row": lambda f, s: s[-1:] or _unfit(),
    "square": lambda f, s: s[-1:] * 2 or _unfit(),
    "mats": lambda f, s: (*s[:-2], s[-1], f.pick((2, 3))) if len(s) > 2 else _unfit(),
    "left": lambda f, s: (3, s[-2]) if len(s) > 1 else _unfit(),
    "table": lambda f, s: (s[f.dim], 3),
    "pair": lambda f, s: (2, 3),
    "five": lambda f, s: (5, 2),
    "memory": lambda f, s: (1, 3, s[-1]),
    "token": lambda f, s: (1, 1, s[-1]),
    "scale": lambda f, s: (s[1], 1),
    **dict.fromkeys(("mean", "variance", "gain", "gain2"), lambda f, s: (s[1],)),
}
_WITH_M: dict[str, Callable[[tuple[int, ...], int], tuple[int, ...]]] = {
    "into": lambda s, m: (s[-1], m) if s else _unfit(),
    "outof": lambda s, m: (m, s[-1]) if s else _unfit(),
    "flat": lambda s, m: (m * s[-1],) if s else _unfit(),
    "tall": lambda s, m: (m, 2),
    "short": lambda s, m: (2, s[-1]) if s else _unfit(),
    "bias": lambda s, m: (m,),
    "cube": lambda s, m: (m, s[-1], s[-1]),
    "experts": lambda s, m: (2, s[-1], m),
    "kernel": lambda s, m: (m, s[1], 3),
    "kernel_t": lambda s, m: (s[1], m, 2),
    "depthwise": lambda s, m: (s[1], 1, 3),
    "kernel2d": lambda s, m: (m, s[1], 3, 3),
}


def _last(field: str) -> tuple[bool, str]:
    """Sorts fields that look at others behind them."""
    return field.endswith("_again") or field == "k", field


def _unfit() -> tuple[int, ...]:
    raise _Unfit


def _orders(rank: int) -> list[list[int]]:
    whole = [*range(rank)]
    return [whole[::-1], [*whole[1:], 0], [*whole[:1], *whole[:0:-1]]] if rank > 1 else [whole]


def _constant(shape: tuple[int, ...]) -> str:
    size = torch.Size(shape).numel()
    return f"torch.linspace(-1.3, 1.7, {size}).view({', '.join(map(str, shape)) or '()'})"


def _drawn(leaf: Leaf, fresh: bool) -> Tensor:
    if leaf.name.startswith("k"):
        return eval(_constant(leaf.shape), _GLOBALS)
    value = torch.randn(leaf.sized(fresh))
    return value.square() + 0.3 if leaf.name.startswith("running_var") else value


def _values(leaves: Sequence[Leaf], fresh: bool) -> dict[str, Tensor]:
    return {leaf.name: _drawn(leaf, fresh) for leaf in leaves}


def _fits(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and 0 < value.numel() <= _LARGEST
        and value.dim() <= _DEEPEST
        and bool(value.isfinite().all())
        and float(value.abs().max()) < _HIGHEST
    )


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _live(result: Program) -> Program:
    """The program without what its outputs do not depend on; writes reach all of a storage."""
    values = result.values(fresh=False)
    live, kept = {*result.outputs}, []
    for step in reversed(result.steps):
        if step.result is None:
            reached = {_storage(values[name]) for name in live}
            needed = _storage(values[step.operands[0]]) in reached
        else:
            needed = step.result in live
        if needed:
            live |= {*step.operands}
            kept.append(step)
    leaves = tuple(leaf for leaf in result.leaves if leaf.name in live)
    return replace(result, leaves=leaves, steps=tuple(kept[::-1]))


def _runs(candidate: Program) -> bool:
    """Whether it still is a program of an input and a parameter."""
    try:
        for fresh in (False, True):
            values = candidate.values(fresh)
            held = {_storage(values[leaf.name]) for leaf in candidate.leaves}
            written = [step.operands[0] for step in candidate.steps if step.result is None]
            if any(_storage(values[name]) in held for name in written):
                return False
            if not all(_fits(values[name]) for name in candidate.outputs):
                return False
    except (RuntimeError, IndexError, ValueError, TypeError, NameError):
        return False
    letters = {leaf.name[0] for leaf in candidate.leaves}
    return {"x", "p"} <= letters


def _shorter(start: Program) -> Iterator[Program]:
    """Programs with an output, a line or the way to a value less."""
    for output in start.outputs if len(start.outputs) > 1 else ():
        yield _live(replace(start, outputs=(output,)))
    for place in range(len(start.steps) - 1, -1, -1):
        step = start.steps[place]
        without = (*start.steps[:place], *start.steps[place + 1 :])
        for operand in dict.fromkeys(step.operands) if step.result else [""]:
            yield from _tried(replace(start, steps=without), step.result, operand)


def _tried(start: Program, name: str | None, instead: str) -> Iterator[Program]:
    """The program with one name for another, if its lines run then."""
    if name is not None:
        steps = tuple(
            replace(step, line=re.sub(rf"\b{name}\b", instead, step.line)) for step in start.steps
        )
        outputs = tuple(instead if output == name else output for output in start.outputs)
        start = replace(start, steps=steps, outputs=outputs)
    try:
        yield _live(start)
    except (RuntimeError, IndexError, ValueError, TypeError, NameError):
        return
