"""The published layers of Transformer-NFN, term by term (arXiv 2410.04209): slow, and obvious.

Coefficients have indices (e, d) for output and input channels, then one per numbered position.
Blocks have no biases in attention, and coefficients of their own along their ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.attention.head_forms import BlockForm, RowForm, Space, State, rows_of
from baselines.attention.head_layers import EquivariantBlockLayer, InvariantBlockLayer

# Terms by output: name, einsum of input and coefficients, and which input.
GLOBAL = {
    "qk": ("bdhpq,edpq->be", "QK"),
    "vo": ("bdhpq,edp->be", "VO"),
    "a": ("bdjk,ed->be", "A"),
    "b": ("bdkq,edq->be", "B"),
    "ba": ("bdk,ed->be", "bA"),
    "bb": ("bdq,edq->be", "bB"),
}
HIDDEN = {
    "a_column": ("bdjk,ed->bek", "A"),
    "b_row": ("bdkq,edq->bek", "B"),
    "ba_same": ("bdk,ed->bek", "bA"),
}
MIDDLE = {"a_row": ("bdjk,ed->bej", "A"), "vo_column": ("bdhpj,edp->bej", "VO")}
EDGE = {"a_same": ("bdjk,ed->bejk", "A")}


@dataclass(frozen=True)
class Sizes:
    heads: int
    width: int
    keys: int
    values: int
    hidden: int

    @property
    def form(self) -> BlockForm:
        """The block as our layers see it: ends ordered, middle and hidden neurons movable."""
        ends, middle = RowForm(Space(self.width)), RowForm(Space(self.width, "m"))
        hidden = Space(self.hidden, "h")
        return BlockForm(self.heads, ends, ends, ends, middle, hidden, Space(self.width))


def with_sink(terms: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Terms with one more position of output, along the sink: coefficients for each."""
    found = {}
    for name, (equation, source) in terms.items():
        inputs, output = equation.split("->")
        found[name] = (f"{inputs}s->{output}s", source)
    return found


TERMS = {
    "Q": {"same": ("bdhqk,edpq->behpk", "Q")},
    "K": {"same": ("bdhqk,edpq->behpk", "K")},
    "V": {"same": ("bdhqk,edpq->behpk", "V")},
    "O": {"sum": ("bdhjk,ed->behj", "O"), "same": ("bdhjk,ed->behjk", "O")},
    "A": {**GLOBAL, **MIDDLE, **HIDDEN, **EDGE},
    "bA": {**GLOBAL, **HIDDEN},
    "B": with_sink({**GLOBAL, **HIDDEN}),
    "bB": with_sink(GLOBAL),
    "I": GLOBAL,
}


class Published(nn.Module):
    """One published layer: the equivariant one, or (with outputs ``I``) the invariant one.

    Args:
        sizes: of the block.
        inputs: channels before.
        outputs: channels after.
        names: what is computed, of :data:`TERMS`.
    """

    def __init__(self, sizes: Sizes, inputs: int, outputs: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names, self.count = names, outputs
        spaces = {"e": outputs, "d": inputs, **dict.fromkeys("pqs", sizes.width)}
        self.terms = nn.ParameterDict()
        for name in names:
            for term, (equation, _) in TERMS[name].items():
                letters = equation.split("->")[0].split(",")[1]
                shape = [spaces[letter] for letter in letters]
                self.terms[f"{name} {term}"] = nn.Parameter(0.1 * torch.randn(shape))
            if name in ("A", "bA", "B", "bB", "I"):
                shape = [outputs, sizes.width] if name in ("B", "bB") else [outputs]
                self.terms[f"{name} bias"] = nn.Parameter(0.1 * torch.randn(shape))

    def forward(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Q, K, V (b, d, h, D, k), O (b, d, h, k, D), A (b, d, D, A), bA, B (b, d, A, D), bB."""
        state = {
            **state,
            "QK": torch.einsum("bdhpk,bdhqk->bdhpq", state["Q"], state["K"]),
            "VO": torch.einsum("bdhpk,bdhkq->bdhpq", state["V"], state["O"]),
        }
        return {name: self._output(name, state) for name in self.names}

    def _output(self, name: str, state: dict[str, Tensor]) -> Tensor:
        wanted = {
            **dict.fromkeys("QKVO", "behpk"), "A": "bejk", "bA": "bek", "B": "beks", "bB": "bes",
            "I": "be",
        }[name]  # fmt: skip
        total: Tensor | None = None
        for term, (equation, source) in TERMS[name].items():
            found = torch.einsum(equation, state[source], self.terms[f"{name} {term}"])
            letters = equation.split("->")[1]
            letters = letters.replace("j", "p") if name == "O" else letters
            for place, letter in enumerate(wanted):
                if letter not in letters:
                    found = found.unsqueeze(place)
            total = found if total is None else total + found
        assert total is not None
        if f"{name} bias" in self.terms:
            bias = self.terms[f"{name} bias"]
            shape = [1, self.count, *(1 for _ in wanted[2:])]
            if name in ("B", "bB"):
                shape[-1] = bias.shape[1]
            total = total + bias.view(shape)
        return total


def values(sizes: Sizes, channels: int, networks: int = 3) -> dict[str, Tensor]:
    """Random features of a block."""
    w, h = sizes.width, sizes.heads
    shapes = {
        "Q": (h, w, sizes.keys),
        "K": (h, w, sizes.keys),
        "V": (h, w, sizes.values),
        "O": (h, sizes.values, w),
        "A": (w, sizes.hidden),
        "bA": (sizes.hidden,),
        "B": (sizes.hidden, w),
        "bB": (w,),
    }
    return {
        name: torch.randn(networks, channels, *shape, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def compact(value: dict[str, Tensor]) -> State:
    """The layout of our layers: one row per unit, channels last."""
    rows = {
        long: rows_of(value[name].permute(0, 2, 4, 1, 3).flatten(1, 2))
        for long, name in (("query", "Q"), ("key", "K"), ("value", "V"))
    }
    output = value["O"].permute(0, 2, 3, 4, 1).flatten(1, 2)
    rows["output"] = rows_of(output.new_zeros(*output.shape[:2], output.shape[3], 0), output)
    features = {
        "into": value["A"].permute(0, 2, 3, 1),
        "into_bias": value["bA"].mT,
        "out": value["B"].permute(0, 2, 3, 1).flatten(2),
        "out_bias": value["bB"].mT.flatten(1),
    }
    return State(rows, features)


def published_equivariant(
    layer: EquivariantBlockLayer, sizes: Sizes, inputs: int, outputs: int
) -> Published:
    """The published layer with the coefficients of a compact one."""
    result = Published(sizes, inputs, outputs, ("Q", "K", "V", "O", "A", "bA", "B", "bB"))
    result.double()
    d, e, width = inputs, outputs, sizes.width
    terms = dict(result.terms)
    with torch.no_grad():
        for name, long in (("Q", "query"), ("K", "key"), ("V", "value")):
            matrix = layer.heads[long].flat.weight.view(e, width, d, width)
            terms[f"{name} same"].copy_(matrix.permute(0, 2, 1, 3))
        output = layer.heads["output"]
        terms["O sum"].copy_(output.flat.weight / width**0.5)
        terms["O same"].copy_(output.nodes.weight)
        columns = {"A": slice(0, e), "bA": slice(e, 2 * e)}
        _copy_global(terms, layer.mix, sizes, d, e, columns)
        ends = {"B": 2 * e, "bB": 2 * e + width * e}
        for place in range(width):
            columns = {n: slice(at + place * e, at + (place + 1) * e) for n, at in ends.items()}
            _copy_global(terms, layer.mix, sizes, d, e, columns, place)
        hidden, middle, edge = layer.mix.mix[1].weight, layer.mix.mix[2].weight, layer.mix.mix[3]
        for name, start in (("A", 0), ("bA", e)):
            _copy_hidden(terms, name, hidden[start : start + e], sizes, d)
        for place in range(width):
            start = 2 * e + place * e
            _copy_hidden(terms, "B", hidden[start : start + e], sizes, d, place)
        terms["A a_row"].copy_(middle / sizes.hidden**0.5)
        contraction = layer.mix.contractions["value output"].weight
        terms["A vo_column"].copy_(contraction / (sizes.heads * sizes.values) ** 0.5)
        terms["A a_same"].copy_(edge.weight)
    return result


def published_invariant(
    layer: InvariantBlockLayer, sizes: Sizes, inputs: int, outputs: int
) -> Published:
    """The published invariant layer with the coefficients of a compact one."""
    result = Published(sizes, inputs, outputs, ("I",)).double()
    with torch.no_grad():
        columns = {"I": slice(0, outputs)}
        _copy_global(dict(result.terms), layer.mix, sizes, inputs, outputs, columns)
    return result


def _copy_global(
    terms: dict[str, Tensor],
    mix: nn.Module,
    sizes: Sizes,
    d: int,
    e: int,
    columns: dict[str, slice],
    place: int | None = None,
) -> None:
    """Coefficients of the global numbers, one position of the sink at a time."""
    width, hidden = sizes.width, sizes.hidden
    linear = mix.mix[0]
    for name, rows in columns.items():
        lengths = [d * width**2, d * width, d, d, d * width, d * width]
        qk, vo, a, ba, b, bb = linear.weight[rows].split(lengths, dim=1)
        found = {
            "qk": qk.view(e, d, width, width) / (sizes.heads * sizes.keys) ** 0.5,
            "vo": vo.view(e, d, width) / (sizes.heads * sizes.values * width) ** 0.5,
            "a": a / (width * hidden) ** 0.5,
            "ba": ba / hidden**0.5,
            "b": b.view(e, width, d).mT / hidden**0.5,
            "bb": bb.view(e, width, d).mT,
            "bias": linear.bias[rows],
        }
        for term, value in found.items():
            target = terms[f"{name} {term}"]
            (target if place is None else target[..., place]).copy_(value)


def _copy_hidden(
    terms: dict[str, Tensor],
    name: str,
    rows: Tensor,
    sizes: Sizes,
    d: int,
    place: int | None = None,
) -> None:
    a, ba, b = rows.split([d, d, d * sizes.width], dim=1)
    found = {
        "a_column": a / sizes.width**0.5,
        "ba_same": ba,
        "b_row": b.view(len(rows), sizes.width, d).mT,
    }
    for term, value in found.items():
        target = terms[f"{name} {term}"]
        (target if place is None else target[..., place]).copy_(value)
