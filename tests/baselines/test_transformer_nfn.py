"""Transformer-NFN: its laws, its terms, and what it must not overlook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

import gmn
from baselines import UnsupportedArchitecture
from baselines.attention.head_forms import BlockForm, RowForm, Space, State, rows_of
from baselines.attention.head_layers import EquivariantBlockLayer, InvariantBlockLayer
from baselines.attention.transformer_nfn import TransformerNFN
from baselines.layers.blocks import BlockTensors, from_blocks, to_blocks, transformer
from baselines.presets import transformer_nfn, transformer_nfn_certified
from gmn import symmetry
from gmn.nn import EditHead
from gmn.nn.memory import saved_bytes
from gmn.testing import assert_same_function, relative_error
from tests.baselines import small_transformers as small
from tests.baselines.published_transformer_nfn import (
    TERMS,
    Sizes,
    compact,
    published_equivariant,
    published_invariant,
    values,
)
from tests.traced import one_in, slow_but, spec_of

KINDS = (*small.KINDS, *small.CASES)
OPTIONS = {
    "published": {},
    "certified": {"group": "certified", "head_reads": 3},
    "deep": {"channels": (3, 4), "rank": 4},
    "balanced": {"channels": (2, 3), "group": "certified", "balanced": True, "rank": 3},
}
OFTEN = ("zoo", "pre-norm", "attention-packed")  # others among the slow tests
every_model = pytest.mark.parametrize(
    ("kind", "option"),
    [
        pytest.param(kind, option, marks=() if kind in OFTEN else pytest.mark.slow)
        for kind, option in product(KINDS, OPTIONS)
    ],
)


def spec(kind: str) -> gmn.GraphSpec:
    return small.spec(kind) if kind in small.KINDS else spec_of(kind)


def net(kind: str, option: str = "published", **more) -> TransformerNFN:
    torch.manual_seed(0)
    settings = {"channels": (4,), "readout": 5, **OPTIONS[option], **more}
    return TransformerNFN(spec(kind), **settings).double().requires_grad_(False)


def claimed(model: TransformerNFN, element: symmetry.Element) -> symmetry.Element:
    """The element without what the model does not claim."""
    parts = (element.permutations, element.scales, element.bases)
    kept = ({n: v for n, v in part.items() if n in model.claims} for part in parts)
    return symmetry.Element(element.spec, *kept)


def elements(model: TransformerNFN, kind: str) -> list[symmetry.Element]:
    seeds = (torch.Generator().manual_seed(seed) for seed in range(3))
    return [claimed(model, symmetry.sample(spec(kind), seed)) for seed in seeds]


# Laws


@every_model
def test_answers_are_invariant(kind: str, option: str) -> None:
    model, graph = net(kind, option), small.graph(kind)
    for element in elements(model, kind):
        assert relative_error(model(element.act_on_graph(graph)), model(graph)) < 1e-10


@pytest.mark.parametrize("option", OPTIONS)
def test_no_networks_get_no_answers(option: str) -> None:
    graph = small.graph("zoo")
    reader, editor = net("zoo", option), net("zoo", option, head=EditHead())
    assert reader(graph[:0]).shape == (0, *reader(graph).shape[1:])
    assert len(editor(graph[:0])) == 0


@every_model
def test_edits_are_equivariant(kind: str, option: str) -> None:
    model, graph = net(kind, option, head=EditHead()), small.graph(kind)
    for element in elements(model, kind):
        moved = element.act_on_graph(graph)
        before, after = model(moved), element.act_on_graph(model(graph))
        for name, value in after.values.items():
            change = value - moved.values[name]  # zero outside of blocks
            error = (before.values[name] - value).abs().max()
            assert error <= 1e-10 * change.abs().max()


@pytest.mark.parametrize("kind", slow_but(KINDS, OFTEN))
def test_what_is_claimed_keeps_the_function(kind: str) -> None:
    network = small.model(kind)
    state = network.state_dict()
    for option in ("certified", "balanced"):
        for element in elements(net(kind, option), kind):
            assert_same_function(network, state, element.act(state), small.inputs(kind))


@pytest.mark.parametrize("kind", one_in(2, KINDS))
def test_all_of_the_group_is_claimed(kind: str) -> None:
    """Permutations without exception, and both changes of basis of every head."""
    model, own = net(kind, "certified"), spec(kind)
    assert {axis.name for axis in own.symmetries.permutations} <= model.claims
    for block in transformer(own):
        assert {*block.gauges, *block.units} <= model.claims
        for name in block.gauges:
            assert own.axis(next(g for g in own.gauges if g.name == name).axes[-1]).size > 1


def test_the_published_group_is_read_off_the_spec() -> None:
    free, joined = net("zoo").claims, net("pre-norm").claims
    assert {"blocks.0.o", "blocks.1.o", "blocks.0.fc1"} <= free
    assert "blocks.0.fc2" not in free  # has coefficients of its own, though it may move
    assert not {"blocks.0.o", "embed"} & joined  # the residual stream, which is ordered here
    assert "embed" in net("free-stream", "certified").claims
    assert "embed" not in net("free-stream").claims


@pytest.mark.parametrize("kind", ["zoo", "pre-norm", "transformer"])
def test_scales_of_hidden_neurons_divide_out(kind: str) -> None:
    """Over six orders of magnitude, while the plain model notices them."""
    balanced, plain = net(kind, balanced=True), net(kind)
    scalings = balanced.claims - plain.claims
    assert len(scalings) == len(transformer(spec(kind)))
    graph, seed = small.graph(kind), torch.Generator().manual_seed(0)
    element = symmetry.sample(spec(kind), seed, spread=4.0, symmetries=["scalings"])
    element = claimed(balanced, element)
    assert all(float(s.max() / s.min()) > 100 for s in element.scales.values())
    moved = element.act_on_graph(graph)
    assert relative_error(balanced(moved), balanced(graph)) < 1e-10
    assert relative_error(plain(moved), plain(graph)) > 1e-3


# Not more than that


def edited(graph: gmn.ParameterGraph, change: Callable[[BlockTensors], BlockTensors]):
    first, *others = to_blocks(graph)
    return from_blocks(graph, [change(first), *others])


def rolled(value: Tensor) -> Tensor:
    return value.roll(1, 1)


def exchanged(value: Tensor, dim: int) -> Tensor:
    """The first unit of the first head and the first one of the second change places."""
    value = value.clone()
    units = value.select(dim, 0)
    value.select(dim, 0).copy_(units.roll(1, 1))
    return value


BASIS = torch.eye(4, dtype=torch.float64) + torch.ones(4, 4, dtype=torch.float64).tril(-1) / 3
TURN = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)).double())[0]
CHANGES: dict[str, Callable[[BlockTensors], BlockTensors]] = {
    "queries and values swapped": lambda b: replace(b, query=b.value, value=b.query),
    "queries and keys swapped": lambda b: replace(b, query=b.key, key=b.query),
    "units exchanged across heads, of queries": lambda b: replace(b, query=exchanged(b.query, 3)),
    "units exchanged across heads, of values": lambda b: replace(b, value=exchanged(b.value, 3)),
    "heads permuted, of queries": lambda b: replace(b, query=rolled(b.query)),
    "heads permuted, of outputs": lambda b: replace(b, output=rolled(b.output)),
    "one basis, of queries": lambda b: replace(b, query=b.query @ BASIS),
    "both bases alike": lambda b: replace(b, query=b.query @ BASIS, key=b.key @ BASIS),
    "one basis, of values": lambda b: replace(b, value=b.value @ BASIS),
    "hidden neurons permuted on one side": lambda b: replace(b, into=(b.into[0].flip(2),)),
    "the middle permuted on one side": lambda b: replace(b, output=b.output.flip(3)),
    "the middle turned": lambda b: replace(b, output=b.output @ TURN, into=(TURN.mT @ b.into[0],)),
    "one weight": lambda b: replace(b, key=b.key + torch.eye(6, 4, dtype=torch.float64)),
    "one bias": lambda b: replace(b, out_bias=b.out_bias + torch.arange(6.0)),
    "inputs permuted": lambda b: replace(b, query=b.query.flip(2)),
}


# Invariant to permutations of the stream, too, it takes a mean over rows and columns of queries
# times keys, which is that of keys times queries.
BLIND = {("queries and keys swapped", "certified")}


@pytest.mark.parametrize(
    ("change", "option"),
    [(c, o) for c in CHANGES for o in ("published", "certified") if (c, o) not in BLIND],
)
def test_what_changes_the_function_is_noticed(change: str, option: str) -> None:
    graph, network = small.graph("zoo", 1), small.model("zoo")
    other = edited(graph, CHANGES[change])
    with pytest.raises(AssertionError, match="different functions"):
        assert_same_function(
            network, graph.to_state_dict(), other.to_state_dict(), small.inputs("zoo")
        )
    model = net("zoo", option)
    assert relative_error(model(other), model(graph)) > 1e-6


REGROUPED: dict[str, Callable[[BlockTensors], BlockTensors]] = {
    "units of queries and keys exchanged": lambda b: replace(
        b, query=exchanged(b.query, 3), key=exchanged(b.key, 3)
    ),
    "units of values and outputs exchanged": lambda b: replace(
        b, value=exchanged(b.value, 3), output=exchanged(b.output, 2)
    ),
    "values given to other heads": lambda b: replace(
        b, value=rolled(b.value), output=rolled(b.output)
    ),
}


@pytest.mark.parametrize("change", REGROUPED)
def test_which_unit_is_whose_takes_a_readout_of_heads(change: str) -> None:
    """The published layers read sums over heads, which do not say so: a blind spot of theirs."""
    graph, network = small.graph("zoo", 1), small.model("zoo")
    other = edited(graph, REGROUPED[change])
    with pytest.raises(AssertionError, match="different functions"):
        assert_same_function(
            network, graph.to_state_dict(), other.to_state_dict(), small.inputs("zoo")
        )
    published, seeing = net("zoo"), net("zoo", head_reads=3)
    assert relative_error(published(other), published(graph)) < 1e-12
    assert relative_error(seeing(other), seeing(graph)) > 1e-6


@pytest.mark.parametrize("name", ["embed.weight", "fc1.bias", "blocks.0.norm2.weight"])
def test_other_parameters_count(name: str) -> None:
    graph = small.graph("gains")
    value = graph.values[name].clone()
    value.view(len(graph), -1)[:, 0] += 1
    for option in ("published", "certified"):
        model = net("gains", option)
        assert relative_error(model(graph.replace({name: value})), model(graph)) > 1e-6


# The compact form is the published layer

SIZES = Sizes(heads=2, width=5, keys=3, values=4, hidden=7)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 3), (3, 2)])
def test_compact_layers_are_the_published_ones(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    layer = EquivariantBlockLayer(SIZES.form, inputs, outputs).double()
    slow = published_equivariant(layer, SIZES, inputs, outputs)
    value = values(SIZES, inputs)
    found, expected = layer(compact(value)), compact(slow(value))
    for name, rows in expected.rows.items():
        for mine, theirs in (
            (found.rows[name].fixed, rows.fixed),
            (found.rows[name].nodes, rows.nodes),
        ):
            if theirs is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    for name, theirs in expected.features.items():
        torch.testing.assert_close(found.features[name], theirs, rtol=1e-12, atol=1e-12)
    assert count(layer) == count(slow)
    readout = InvariantBlockLayer(SIZES.form, inputs, outputs).double()
    slow = published_invariant(readout, SIZES, inputs, outputs)
    torch.testing.assert_close(readout(compact(value)), slow(value)["I"], rtol=1e-12, atol=1e-12)
    assert count(readout) == count(slow)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_published_term_is_there() -> None:
    """As many as the paper has for each output, the biases included; each changes the result."""
    terms = {
        name: len(found) + (name in ("A", "bA", "B", "bB", "I")) for name, found in TERMS.items()
    }
    assert terms == {"Q": 1, "K": 1, "V": 1, "O": 2, "A": 13, "bA": 10, "B": 10, "bB": 7, "I": 7}
    slow = published_equivariant(EquivariantBlockLayer(SIZES.form, 1, 1).double(), SIZES, 1, 1)
    value = values(SIZES, 1)
    for parameter in slow.parameters():
        before = slow(value)
        with torch.no_grad():
            parameter.add_(1)
        after = slow(value)
        assert max((after[n] - before[n]).abs().max() for n in before) > 1e-3


@pytest.mark.parametrize(("inputs", "parameters"), [(1, 1_567_640), (10, 15_664_520)])
def test_as_many_parameters_as_published(inputs: int, parameters: int) -> None:
    """Of two blocks of the Small Transformer Zoo; widths 32, 16 and 64."""
    form = Sizes(heads=2, width=32, keys=16, values=16, hidden=64).form
    assert 2 * count(EquivariantBlockLayer(form, inputs, 10)) == parameters


def forms() -> dict[str, BlockForm]:
    def rows(size: int, axis: str | None, bias: bool) -> RowForm:
        return RowForm(Space(size, axis), bias)

    stream, hidden = "s", Space(4, "h")
    fixed = rows(2, None, True)
    free = rows(3, stream, True)
    return {
        "published": Sizes(heads=2, width=2, keys=2, values=2, hidden=3).form,
        "ordered, with biases": BlockForm(
            2, fixed, fixed, fixed, rows(2, None, False), hidden, Space(2), 1, 1, True, True
        ),
        "one movable stream": BlockForm(
            2, free, free, free, rows(3, stream, False), hidden, Space(3, stream), 1, 1, True, True
        ),
        "three movable boundaries, gated": BlockForm(
            2, free, free, free, rows(3, "m", False), hidden, Space(3, "o"), 2, 0, False, True
        ),
        "attention alone": BlockForm(2, free, free, free, rows(3, stream, False), output_bias=True),
    }


def random_state(form: BlockForm, channels: int, networks: int) -> State:
    rows = {}
    for name in ("query", "key", "value", "output"):
        row: RowForm = getattr(form, name)
        units = 2 * form.heads
        fixed = torch.randn(networks, units, channels, row.fixed, dtype=torch.float64)
        nodes = torch.randn(networks, units, row.space.size, channels, dtype=torch.float64)
        rows[name] = rows_of(fixed, nodes if row.space.axis else None)
    features = {}
    for name, feature in form.features(channels).items():
        sizes = [space.size for space in form.spaces[name] if space.axis]
        features[name] = torch.randn(networks, *sizes, feature.channels, dtype=torch.float64)
    return State(rows, features)


@pytest.mark.parametrize("name", one_in(2, forms()))
def test_all_terms_are_independent(name: str) -> None:
    """As many independent maps as there are coefficients."""
    form = forms()[name]
    layer = EquivariantBlockLayer(form, 1, 1).double().requires_grad_(False)
    state = random_state(form, 1, 60)
    for parameter in layer.parameters():
        parameter.zero_()
    columns = []
    for parameter in layer.parameters():
        for place in range(parameter.numel()):
            parameter.view(-1)[place] = 1
            found = layer(state)
            parts = [r.fixed for r in found.rows.values()]
            parts += [r.nodes for r in found.rows.values() if r.nodes is not None]
            columns.append(torch.cat([v.flatten() for v in (*parts, *found.features.values())]))
            parameter.view(-1)[place] = 0
    matrix = torch.stack(columns)
    assert int(torch.linalg.matrix_rank(matrix / matrix.norm(dim=1, keepdim=True))) == len(columns)


# Behaviour


def test_a_batch_is_its_networks() -> None:
    graph, model = small.graph("pre-norm", 3), net("pre-norm", "certified")
    singles = torch.cat([model(graph[i]) for i in range(3)])
    torch.testing.assert_close(model(graph), singles)


def test_copies_of_edits_are_independent() -> None:
    graph, model = small.graph("zoo"), net("zoo", head=EditHead(3))
    answer = model(graph)
    assert len(answer) == 6
    name = "blocks.1.q.weight"
    first, second, _ = answer.values[name].chunk(3)
    assert (first - second).abs().max() > 1e-6
    assert torch.equal(answer.values["embed.weight"][:2], graph.values["embed.weight"])


def test_gradients_reach_all_weights_and_coefficients() -> None:
    graph = small.graph("gains")
    values = {n: v.clone().requires_grad_(v.is_floating_point()) for n, v in graph.values.items()}
    model = net("gains", "certified").requires_grad_()
    (model(gmn.ParameterGraph(graph.spec, values)) ** 2).sum().backward()
    for entry in graph.spec.entries:
        if entry.parameter:
            assert values[entry.name].grad.abs().sum() > 0, entry.name
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("option", OPTIONS)
def test_zero_weights_give_finite_answers_and_gradients(option: str) -> None:
    graph = small.graph("gains")
    values = {n: torch.zeros_like(v).requires_grad_() for n, v in graph.values.items()}
    answer = net("gains", option)(gmn.ParameterGraph(graph.spec, values))
    answer.sum().backward()
    assert answer.isfinite().all()
    assert all(v.grad is None or v.grad.isfinite().all() for v in values.values())


def test_wide_blocks_take_few_parameters() -> None:
    """Bounded rank: linear in the width, not its cube; and a movable stream takes none at all."""

    def layer(width: int, axis: str | None, rank: int | None) -> int:
        row = RowForm(Space(width, axis))
        form = BlockForm(8, row, row, row, row, Space(4 * width, "h"), Space(width, axis))
        with torch.device("meta"):
            return count(EquivariantBlockLayer(form, 1, 10, rank))

    assert layer(768, None, 64) < 6e6
    assert layer(768, None, 64) < 2.1 * layer(384, None, 64)
    assert layer(768, "s", None) == layer(8, "s", None) < 4_000


def test_products_of_bounded_rank_are_readouts_of_the_product() -> None:
    form = RowForm(Space(6))
    layer = InvariantBlockLayer(
        BlockForm(2, form, form, form, form, Space(4, "h"), Space(6)), 2, 1, rank=3
    ).double()
    scores = layer.mix.scores
    left, right = (rows_of(torch.randn(2, 8, 2, 6, dtype=torch.float64)) for _ in range(2))
    product = torch.einsum("budp,budq->bdpq", left.fixed, right.fixed) / 8**0.5
    # Channels are summed with one coefficient per channel on each side.
    full = torch.einsum("rdp,bdpq,rdq->br", scores.left, product, scores.right)
    torch.testing.assert_close(scores(left, right).squeeze(1), full)


@pytest.mark.slow
def test_layers_compile_in_one_graph() -> None:
    graph, model = small.graph("one-block"), net("one-block", "certified")

    def answers(states: list[State]) -> Tensor:
        parts = zip(model.layers[0], model.invariant, states, strict=True)
        return torch.cat([readout(layer(state)) for layer, readout, state in parts], dim=1)

    _, _, states, _ = model._inputs(graph)
    torch._dynamo.reset()
    compiled = torch.compile(answers, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(states), answers(states))
    whole = torch.compile(model, backend="eager")
    torch.testing.assert_close(whole(graph), model(graph))


def test_less_is_kept_for_the_backward_pass_than_as_published() -> None:
    sizes = Sizes(heads=2, width=32, keys=16, values=16, hidden=64)
    layer = EquivariantBlockLayer(sizes.form, 10, 10).double()
    slow = published_equivariant(layer, sizes, 10, 10)
    value = values(sizes, 10, networks=4)
    state = compact(value)
    with saved_bytes(layer) as compact_bytes:
        found = layer(state)
    with saved_bytes(slow) as published_bytes:
        expected = slow(value)
    assert found.features["into"].requires_grad
    assert expected["A"].requires_grad
    assert sum(compact_bytes.values()) < 0.8 * sum(published_bytes.values())


def test_other_blocks_are_refused() -> None:
    with pytest.raises(UnsupportedArchitecture, match=r"blocks\.0\.q\.weight .* was built for"):
        net("zoo")(small.graph("one-block"))
    with pytest.raises(UnsupportedArchitecture, match=r"blocks\.0\.q\.bias .* was built for"):
        net("zoo")(small.graph("gains"))


def test_saves_and_loads() -> None:
    graph, model = small.graph("zoo"), net("zoo", "certified")
    other = TransformerNFN(graph.spec, (4,), 5, group="certified", head_reads=3).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(graph), other(graph))


def test_presets_and_heads() -> None:
    graph = small.graph("zoo").to(dtype=torch.float32)
    for preset in (transformer_nfn, transformer_nfn_certified):
        assert preset(graph.spec, 3)(graph).shape == (2, 3)
    width = net("zoo").pooled
    assert net("zoo", head=nn.Linear(width, 7))(small.graph("zoo")).shape == (2, 7)


def test_the_published_configuration() -> None:
    """Of the Small Transformer Zoo: layers, invariants, and MLPs on the rest."""
    model = transformer_nfn(small.spec("zoo"), 1)
    assert [len(stage) for stage in model.layers] == [2]
    assert [part.width for part in model.others] == [10, 10]
    assert model.pooled == 40
