"""Constants that may be added to parameters: those that a softmax or a normalisation takes away.

Going backwards through the graph, every value learns which shifts of it change nothing: those that
are constant along some of its axes. A softmax over keys ignores what is constant along keys,
LayerNorm what is constant along its features, batch normalisation what its running mean follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch.fx import Node
from torch.utils import _pytree as pytree

from gmn.spec import EdgeSet, Translation, TranslationTerm

from .axes import Atom, Axis, atoms, resolve, size_of, terms
from .blocks import Block
from .names import Names
from .rules.recurrent import GATES, bias_pairs, gates_that_add_biases
from .tracing import Tracing, arguments, atoms_of, count_terms, name_of, stacked

Held = Sequence[tuple[EdgeSet, Block]]


# A dimension, counted from the right as broadcasting does (-1 is the last), and an atom of it; None
# for the terms of a concatenation, one against the other.
Place = tuple[int, "Atom | None"]


# Operations whose result shifts with their bias, or with the columns of their weight.
_WRITERS = {
    *("linear", "addmm", "matmul", "bilinear", "embedding", "add"),
    *("layer_norm", "group_norm", "instance_norm", "batch_norm"),
    *(f"conv{way}{n}d" for way in ("", "_transpose") for n in (1, 2, 3)),
}


@dataclass(frozen=True)
class Slack:
    """Shifts of a value that change nothing.

    Attributes:
        constant: they must be constant along these.
        means: statistics that have to follow them.
    """

    constant: frozenset[Place] = frozenset()
    means: frozenset[str] = frozenset()


# One entry per term of a value's concatenated dimension; None where every shift changes something.
Slacks = tuple[Slack | None, ...]


def translations(trace: Tracing, held: Held, names: Names) -> Iterator[Translation]:
    """The constants that may be added to the parameters of edge sets.

    Args:
        trace: the trace, with axes settled.
        held: the edge sets that hold parameters and statistics, with their blocks.
        names: names of axes.
    """
    yield from _trades(trace, held, names)
    slacks = _slacks(trace)
    statistics = {edges.parameter: (edges, block) for edges, block in held if edges.kind == "mean"}
    for edges, block in held:
        slack = _slack_of(trace, block, slacks)
        if slack is None:
            continue
        constant = {atom for _, atom in slack.constant}
        free = [n for n, p in enumerate(block.pieces) if p.atom is None or p.atom not in constant]
        followers = [(edges, tuple(free))]
        for name in sorted(slack.means):
            mean, other = statistics[name]
            wanted = [block.pieces[n].atom for n in free]
            if [piece.atom for piece in other.pieces] != wanted:
                break
            followers.append((mean, tuple(range(len(wanted)))))
        else:
            pieces = [block.pieces[n] for n in free]
            yield Translation(
                f"{edges.name}.shift",
                tuple(names.axis(piece.atom) for piece in pieces),
                tuple(piece.size for piece in pieces),
                tuple(TranslationTerm(e.name, dims) for e, dims in followers),
            )


def _trades(trace: Tracing, held: Held, names: Names) -> Iterator[Translation]:
    """Recurrent cells have two biases of which most gates see the sum."""
    blocks: dict[str, list[tuple[EdgeSet, Block]]] = {}
    for edges, block in held:
        if edges.kind == "bias" and name_of(block.use.node).removesuffix("_cell") in GATES:
            blocks.setdefault(edges.parameter, []).append((edges, block))
    nodes = {b.use.node: None for found in blocks.values() for _, b in found}
    pairs = [(node, pair) for node in nodes for pair in bias_pairs(node)]
    for node, (one, other) in pairs:
        first, second = (trace.parameter_name(bias) for bias in (one, other))
        if first not in blocks or second not in blocks or not _read_together(trace, first, second):
            continue
        for gate in gates_that_add_biases(node):
            (edges, block), (others, _) = blocks[first][gate], blocks[second][gate]
            dims = tuple(range(len(block.pieces)))
            yield Translation(
                f"{edges.name}.trade",
                tuple(names.axis(piece.atom) for piece in block.pieces),
                tuple(piece.size for piece in block.pieces),
                (TranslationTerm(edges.name, dims), TranslationTerm(others.name, dims, -1.0)),
            )


def _read_together(trace: Tracing, first: str, second: str) -> bool:
    """Whether every operation that reads one of two biases reads the other as its partner."""
    readers = [[use.node for use in trace.uses_of(name)] for name in (first, second)]
    return first != second and readers[0] == readers[1]


def _slack_of(trace: Tracing, block: Block, slacks: dict[Node, Slacks]) -> Slack | None:
    """What may be added to the edges of a block."""
    use = block.use
    written = use.kind in ("weight", "bias", "shift") and name_of(use.node) in _WRITERS
    if not written or len(trace.uses_of(use.parameter)) > 1:
        return None
    own = slacks[use.node]
    number = block.term_at("target" if use.kind == "weight" else "both")
    slack = own[number] if number < len(own) else None
    present = {piece.atom for piece in block.pieces}
    own_atoms = atoms_of(*trace.parameters[use.parameter])
    result = trace.axes(use.node)
    for dim, atom in slack.constant if slack is not None else ():
        if atom is None and not present.isdisjoint(atoms(result[dim])):
            return None  # edges of one term cannot be shifted with those of another
        if atom is not None and atom not in present and atom in own_atoms:
            return None  # the numbers would have to agree along taps
        if atom in present and len(_dims_of(result, atom)) > 1:
            return None  # it cannot be said which of these dimensions the parameter runs along
    if slack is None or use.kind != "weight":
        return slack
    # A weight's shift is multiplied by the input: it may vary along everything but its target.
    target = {p.atom for p in block.pieces if p.port == "target"}
    constant = {atom for _, atom in slack.constant}
    fits = constant and constant <= target and not constant & (present - target)
    return slack if fits and not slack.means else None


def _dims_of(axes: Sequence[Axis], atom: Atom | None) -> list[int]:
    """The dimensions, from the right, that range over an atom or will once taken apart."""
    return [
        place - len(axes)
        for place, axis in enumerate(axes)
        if any(atom is other or atom in other.copies for other in atoms(axis))
    ]


def _places(axes: Sequence[Axis], dims: Iterable[int]) -> frozenset[Place]:
    """All atoms of some dimensions."""
    found: set[Place] = {(dim, atom) for dim in dims for atom in atoms_of(axes[dim])}
    return frozenset(found | {(dim, None) for dim in dims if len(terms(axes[dim])) > 1})


# --- backwards through the graph ----------------------------------------------------------------


def _slacks(trace: Tracing) -> dict[Node, Slacks]:
    """By value, which shifts of it change nothing: those that no reader minds."""
    found: dict[Node, Slacks] = {}
    for node in reversed([n for n in trace.values if n.op == "call_function"]):
        slacks: Slacks = (Slack(),) * _count(trace, node)
        for user in node.users:
            demanded = _demand(trace, user, node, found)
            slacks = tuple(map(_both, slacks, demanded or (None,) * len(slacks)))
        found[node] = slacks
    return found


def _both(one: Slack | None, other: Slack | None) -> Slack | None:
    if one is None or other is None:
        return None
    return Slack(one.constant | other.constant, one.means | other.means)


def _count(trace: Tracing, node: Node) -> int:
    """Number of parts of a value; those of several results follow one another."""
    value = trace.values[node]
    nested = bool(value) and isinstance(value[0], list)
    return sum(map(count_terms, value)) if nested else count_terms(value)


def _demand(trace: Tracing, user: Node, operand: Node, found: dict[Node, Slacks]) -> Slacks | None:
    """What a reader asks of shifts of one of its operands; None if it minds all of them."""
    rule = _READERS.get(name_of(user)) if user.op == "call_function" else None
    operands = [leaf for leaf in pytree.tree_leaves((user.args, user.kwargs)) if leaf is operand]
    if rule is None or user in trace.unknown or len(operands) > 1:
        return None
    demanded = rule(trace, user, operand, found[user])
    return demanded if demanded and len(demanded) == _count(trace, operand) else None


def _same(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """The result is the operand, or one of its parts, dimension by dimension."""
    return after if user.args[0] is operand else None


def _seen(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """The result is the operand with other dimensions: atoms tell which went where."""
    expands = name_of(user).startswith("expand")
    before, now = trace.axes(operand), trace.axes(user)
    if user.args[0] is not operand:
        return None
    return tuple(s if s is None else _turned_back(s, before, now, expands) for s in after)


def _turned_back(
    slack: Slack, before: Sequence[Axis], now: Sequence[Axis], expands: bool
) -> Slack | None:
    found: set[Place] = set()
    for dim, atom in slack.constant:
        if atom is None:
            same = [d for d in range(-len(before), 0) if resolve(before[d]) == resolve(now[dim])]
            if len(same) != 1:
                return None
            found.add((same[0], None))
            continue
        old, new = _dims_of(before, atom), _dims_of(now, atom)
        if expands and not old:
            continue  # copies are alike
        if len(old) != 1 or len(new) != 1:
            return None
        found.add((old[0], atom))
    return Slack(frozenset(found), slack.means)


def _item(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """One of several results: this reader leaves the others alone."""
    results, number = trace.values[operand], user.args[1]
    if not results or not isinstance(results[0], list) or not isinstance(number, int):
        return None
    counts = list(map(count_terms, results))
    start = sum(counts[:number])
    end = start + counts[number]
    return (Slack(),) * start + after + (Slack(),) * (sum(counts) - end)


def _selected(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """One of the values that are stacked in the operand."""
    call, axes = arguments(user), trace.axes(operand)
    dim, index = call["dim"] % len(axes) - len(axes), call["index"]
    if stacked(axes) != size_of(axes[dim]) or len(after) != 1:
        return None
    (slack,) = after
    if slack is not None:
        # Dimensions to the left of the one that is gone had one more to their right.
        constant = frozenset((d if d > dim else d - 1, atom) for d, atom in slack.constant)
        slack = Slack(constant, slack.means)
    return (Slack(),) * index + (slack,) + (Slack(),) * (size_of(axes[dim]) - index - 1)


def _joined(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """One of the values that are concatenated in the result."""
    call = arguments(user)
    counts = [count_terms([trace.axes(value)[call["dim"]]]) for value in call["tensors"]]
    place = call["tensors"].index(operand)
    start = sum(counts[:place])
    return after[start : start + counts[place]] if len(after) == sum(counts) else None


def _kept(slack: Slack, axes: Sequence[Axis]) -> Slack:
    """What a broadcast operand must be constant along: it is already where it has no dimension."""
    own = _places(axes, range(-len(axes), 0))
    return Slack(slack.constant & own, slack.means)


def _added(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    subtracted = name_of(user) == "sub" and user.args[1] is operand
    if subtracted and any(slack is not None and slack.means for slack in after):
        return None
    return tuple(s if s is None else _kept(s, trace.axes(operand)) for s in after)


def _multiplied(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """By something that does not vary along what the shift must not vary along."""
    if name_of(user) == "div" and user.args[0] is not operand:
        return None
    others = [trace.axes(other) for other in user.all_input_nodes if other is not operand]
    varying = {place for axes in others for place in _places(axes, range(-len(axes), 0))}
    return tuple(
        None if s is None or s.means or s.constant & varying else _kept(s, trace.axes(operand))
        for s in after
    )


def _scored(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """A matrix product: a shift of one factor varies along everything that the other one has."""
    slack = after[0] if len(after) == 1 else None
    own = -1 if user.args[1] is operand else -2
    if slack is None or slack.means or any(dim != own for dim, _ in slack.constant):
        return None
    return (slack,) * _count(trace, operand)


def _attended(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """What is added to all keys changes all scores of a query alike."""
    return _ignored(trace, operand, [-2]) if operand is arguments(user)["key"] else None


def _ignored(trace: Tracing, operand: Node, dims: Sequence[int]) -> Slacks | None:
    """Shifts that are constant along these dimensions are taken away."""
    axes = trace.axes(operand)
    return (Slack(_places(axes, dims)),) * _count(trace, operand)


def _normalised(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    call, rank = arguments(user), len(trace.axes(operand))
    if "normalized_shape" in call:
        return _ignored(trace, operand, range(-len(call["normalized_shape"]), 0))
    return _ignored(trace, operand, [call["dim"] % rank - rank])


def _centred(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    """Batch normalisation in evaluation subtracts a mean that can follow."""
    call, axes = arguments(user), trace.axes(operand)
    name = trace.parameter_name(call["running_mean"])
    if name is None or operand is not call["input"] or len(trace.uses_of(name)) > 1:
        return None
    dims = [dim for dim in range(-len(axes), 0) if dim != 1 - len(axes)]
    return (Slack(_places(axes, dims), frozenset({name})),)


def _masked(trace: Tracing, user: Node, operand: Node, after: Slacks) -> Slacks | None:
    hidden = arguments(user)["value"] == float("-inf") and operand is user.args[0]
    return after if hidden else None


_READERS: dict[str, Callable[[Tracing, Node, Node, Slacks], Slacks | None]] = {
    **dict.fromkeys(
        (
            *("dropout", "contiguous", "clone", "detach", "alias", "to", "_to_copy"),
            *("split", "split_with_sizes", "chunk"),
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
            *("permute", "transpose", "t", "mT", "movedim", "swapaxes", "swapdims"),
            *("expand", "expand_as"),
        ),
        _seen,
    ),
    "getitem": _item,
    "select": _selected,
    "cat": _joined,
    "add": _added,
    "sub": _added,
    "mul": _multiplied,
    "div": _multiplied,
    "matmul": _scored,
    "bmm": _scored,
    "scaled_dot_product_attention": _attended,
    "softmax": _normalised,
    "log_softmax": _normalised,
    "layer_norm": _normalised,
    "batch_norm": _centred,
    "masked_fill": _masked,
}
