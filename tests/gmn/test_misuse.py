"""Arguments that cannot be used are refused where they enter, by name, value and way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import baselines.presets
import converters
import gmn
from converters.testing import assert_sound
from gmn import zoo
from gmn.errors import ArgumentError, ZooError
from gmn.nn import (
    GMN,
    DualGMN,
    EditHead,
    InvariantHead,
    MessagePassingNetwork,
    NeuralGraphGNN,
    NeuralGraphTransformer,
    Probes,
    ScaleGMN,
    presets,
)

MODULE = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
GRAPH = converters.to_graph(MODULE, (torch.zeros(1, 4),))
SPEC = GRAPH.spec
GRAPHS = GRAPH.cat([GRAPH] * 5)
STATE = MODULE.state_dict()


@pytest.fixture(scope="module")
def population(folder: Path) -> zoo.Zoo:
    return zoo.open(folder)


# Networks by number

MASKS: list[Callable[[list[bool]], Any]] = [torch.tensor, np.array, list]


@pytest.mark.parametrize("made", MASKS, ids=["tensor", "array", "list"])
def test_masks_choose_networks(population: zoo.Zoo, made: Callable[[list[bool]], Any]) -> None:
    mask = made([number in (3, 5) for number in range(len(population))])
    wanted = population.graph([3, 5])
    found = [
        population.graph(mask),
        population[mask],
        population.stored(mask),
        population.stored(range(40))[made([number in (3, 5) for number in range(40)])],
    ]
    for graph in found:
        torch.testing.assert_close(graph.values, wanted.values, rtol=0, atol=0)
    labels = population.labels("test_accuracy")[[3, 5]]
    torch.testing.assert_close(population.labels("test_accuracy", mask), labels, rtol=0, atol=0)
    assert population.numbers(mask).tolist() == [3, 5]


def test_a_mask_filters_and_exports(population: zoo.Zoo, tmp_path: Path) -> None:
    mask = torch.zeros(len(population), dtype=torch.bool)
    mask[[3, 5]] = True
    chosen = zoo.filtered(population, mask, tmp_path / "some", progress=False)
    ids = [population.rows[number]["id"] for number in (3, 5)]
    assert [row["id"] for row in chosen.rows] == ids
    table = zoo.export(population, tmp_path / "files", mask, progress=False)
    assert [line.split(",")[0].strip('"') for line in table.read_text().splitlines()[1:]] == ids


def test_the_same_numbers_of_another_selection_are_other_networks(
    population: zoo.Zoo, tmp_path: Path
) -> None:
    zoo.filtered(population.select(split="test"), [0, 1], tmp_path, progress=False)
    with pytest.raises(ZooError, match="already holds a zoo"):
        zoo.filtered(population, [0, 1], tmp_path, progress=False)


WRONG_NUMBERS = {
    "mask of another length": [True, False],
    "fractions": [0.7, 1.2],
    "array of fractions": np.array([0.5]),
    "tensor of fractions": torch.tensor([0.5]),
    "text": "abc",
    "texts": ["a", "b"],
    "nothing": None,
    "two dimensions": [[0, 1]],
    "tensor of two dimensions": torch.tensor([[0, 1]]),
    "ragged": [[0], [1, 2]],
    "mapping": {"a": 1},
    "beyond 64 bits": [10**30],
    "mixed": [1, "a"],
    "NaN": [float("nan")],
    "truth value": True,
    "fraction": 1.5,
    "ellipsis": ...,
}


@pytest.mark.parametrize("wrong", WRONG_NUMBERS.values(), ids=WRONG_NUMBERS.keys())
def test_what_is_no_number_of_a_network(population: zoo.Zoo, wrong: Any) -> None:
    several: list[Callable[[Any], Any]] = [
        population.graph,
        population.stacked,
        population.stored,
        population.architecture,
        population.locations,
        lambda numbers: population.extra("gradient", numbers),
    ]
    if wrong is not None:  # all labels
        several.append(lambda numbers: population.labels("test_accuracy", numbers))
    for call in several:
        with pytest.raises(ArgumentError, match=r"^indices "):
            call(wrong)
    for indexed in (
        population,
        GRAPHS,
        gmn.stack.stack([GRAPHS, GRAPHS]),
        population.stored([1]),
    ):
        with pytest.raises(ArgumentError, match=r"^index(es|) "):
            indexed[wrong]


def test_networks_that_are_not_there(population: zoo.Zoo) -> None:
    for indexed in (GRAPHS, population.stored(range(5))):
        for wrong in (5, -6, [5]):
            with pytest.raises(IndexError):
                indexed[wrong]
    with pytest.raises(IndexError, match="network 99 asked for, but there are 80"):
        population.graph([99])
    with pytest.raises(ArgumentError, match="indices is 3; give whole numbers, such as"):
        population.graph(3)  # type: ignore[arg-type]


def test_numbers_of_any_kind_are_numbers() -> None:
    for index in (2, np.int64(2), torch.tensor(2), [2], (2,), range(2, 3), np.array([2])):
        assert len(GRAPHS[index]) == 1  # type: ignore[index]
    assert len(GRAPHS[[]]) == len(GRAPHS[:0]) == 0


# Metanetworks

COUNTS: dict[str, Any] = {"-1": -1, "1.5": 1.5, "8": "8", "True": True, "[8]": [8], "None": None}
MADE: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[str, ...]]] = {
    "GMN": (GMN, {}, ("hidden", "depth")),
    "DualGMN": (DualGMN, {}, ("hidden", "depth")),
    "ScaleGMN": (ScaleGMN, {}, ("hidden", "depth")),
    "NG-GNN": (NeuralGraphGNN, {}, ("hidden", "depth", "edge_hidden")),
    "NG-T": (
        NeuralGraphTransformer, {}, ("hidden", "depth", "edge_hidden", "attention", "heads"),
    ),
    "Probes": (Probes.like, {"spec": SPEC}, ("count",)),
    "InvariantHead": (InvariantHead, {}, ("outputs",)),
    "EditHead": (EditHead, {}, ("copies",)),
    "MAGEP": (baselines.MAGEP, {"spec": SPEC}, ("invariants",)),
    "NFT": (baselines.NFT, {"spec": SPEC}, ("channels", "depth", "heads")),
    "UNF": (baselines.UNF, {"spec": SPEC}, ("fold", "apart")),
    "ProbeNet": (
        baselines.ProbeNet,
        {"probes": Probes.like(SPEC, 2), "answers": 3},
        ("answers", "outputs", "hidden"),
    ),
    "StatNN": (baselines.StatNN, {}, ("outputs",)),
}  # fmt: skip


def _counts() -> Iterator[Any]:
    for name, (make, given, counts) in MADE.items():
        for count in counts:
            yield pytest.param(make, given, count, id=f"{name}-{count}")


@pytest.mark.parametrize(("make", "given", "count"), [*_counts()])
def test_counts_are_whole_numbers(
    make: Callable[..., Any], given: dict[str, Any], count: str
) -> None:
    for wrong in COUNTS.values():
        with pytest.raises(ArgumentError, match=f"{count} is .*it has to be a whole number"):
            make(**{**given, count: wrong})


METANETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    "GMN": lambda head: GMN(8, 1, head),
    "GMN sparse": lambda head: GMN(8, 1, head, "sparse"),
    "DualGMN": lambda head: DualGMN(8, 1, head, Probes.like(SPEC, 2)),
    "DualGMN of weights": lambda head: DualGMN(8, 2, head),
    "ScaleGMN": lambda head: ScaleGMN(8, 1, head),
    "ScaleGMN in both directions": lambda head: ScaleGMN(8, 1, head, bidirectional=True),
    "NG-GNN": lambda head: NeuralGraphGNN(8, 1, head, 8),
    "NG-T": lambda head: NeuralGraphTransformer(8, 1, head, 8, attention=8, heads=2),
    "MAGEP": lambda head: baselines.MAGEP(SPEC, (4,), head),
    "NFN": lambda head: baselines.NFN(SPEC, (4,), "HNP", head),
    "NP-NFN": lambda head: baselines.NFN(SPEC, (4,), "NP", head),
    "NFT": lambda head: baselines.NFT(SPEC, 8, 1, 2, head),
    "UNF": lambda head: baselines.UNF(SPEC, (4,), head),
    "FlatMLP": lambda head: baselines.FlatMLP(SPEC, (4,), head),
    "Monomial-NFN": lambda head: baselines.MonomialNFN(SPEC, (4,), head),
}
each_metanetwork = pytest.mark.parametrize("make", METANETWORKS.values(), ids=METANETWORKS.keys())


@each_metanetwork
def test_heads_are_heads(make: Callable[[Any], nn.Module]) -> None:
    for wrong in (-1, 0, 1.5, "1", [1], InvariantHead):
        with pytest.raises(ArgumentError, match=r"^head is "):
            make(wrong)
    assert make(InvariantHead(3))(GRAPHS).shape == (5, 3)


@each_metanetwork
def test_only_graphs_are_read(make: Callable[[Any], nn.Module]) -> None:
    net = make(1)
    for wrong in (None, STATE, SPEC, MODULE, [GRAPHS], torch.zeros(3)):
        with pytest.raises(ArgumentError, match=r"^graph is .*to_graph\(module, inputs\)"):
            net(wrong)


@each_metanetwork
def test_no_networks_give_no_answers(make: Callable[[Any], nn.Module]) -> None:
    assert make(3)(GRAPHS[:0]).shape == (0, 3)
    assert len(make(EditHead(2))(GRAPHS[:0])) == 0


@each_metanetwork
def test_another_type_of_numbers_is_named(make: Callable[[Any], nn.Module]) -> None:
    try:
        answer = make(1)(GRAPHS.to(dtype=torch.float64))
    except ArgumentError as error:
        assert "float64 on cpu, but" in str(error)  # noqa: PT017 (DualGMN converts by itself)
        assert "graph.to('cpu', torch.float32) moves it" in str(error)  # noqa: PT017
    else:
        assert answer.shape == (5, 1)


@pytest.mark.parametrize(
    "make", [baselines.NFN, baselines.UNF, baselines.MAGEP, baselines.MonomialNFN]
)
def test_channels_are_several_numbers(make: Any) -> None:
    for wrong in (8, None, "8", (), (0,), (-1,), (1.5,)):
        with pytest.raises(ArgumentError, match="channels"):
            make(SPEC, wrong)
    for wrong in (None, GRAPHS, MODULE):
        with pytest.raises(ArgumentError, match=r"^spec is .*graph.spec"):
            make(wrong)


def test_parts_of_metanetworks() -> None:
    with pytest.raises(ArgumentError, match="executor is 'fast'; it is one of dense, sparse"):
        GMN(executor="fast")  # type: ignore[arg-type]
    for wrong in (3, "raw", gmn.features.Raw):
        with pytest.raises(ArgumentError, match=r"features is .*FanIn\(\)"):
            GMN(features=wrong)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match=r"descriptions is .*SpecDescriptions\(\)"):
            DualGMN(descriptions=wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="probes is 3"):
        DualGMN(probes=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="a layer is 1; give one derived from"):
        MessagePassingNetwork([1, 2])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="with k at least 1"):
        Probes(torch.zeros(0, 4))
    with pytest.raises(ArgumentError, match="variant is 'XY'; it is one of NP, HNP, DWS"):
        baselines.NFN(SPEC, variant="XY")  # type: ignore[arg-type]


def test_statistics_are_fitted_to_as_many_targets() -> None:
    with pytest.raises(ArgumentError, match="3 targets for 5 networks"):
        baselines.StatNN().fit([GRAPHS], torch.zeros(3))
    with pytest.raises(ArgumentError, match="graphs hold no networks"):
        baselines.StatNN().fit([], torch.zeros(0))
    for wrong in (None, [0.0] * 5, 3):
        with pytest.raises(ArgumentError, match=r"targets is .*a tensor with one target"):
            baselines.StatNN().fit([GRAPHS], wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="targets hold NaN"):
        baselines.StatNN().fit([GRAPHS], torch.full((5,), torch.nan))


# Shards

LINEAR = converters.trace(nn.Linear(2, 3), (torch.zeros(1, 2),))
SHARD = {"weight": torch.zeros(3, 3, 2), "bias": torch.zeros(3, 3)}
ROWS = [{"id": f"{number}", "split": "train"} for number in range(3)]
WRONG_SHARDS: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"state": {**SHARD, "weight": torch.zeros(3, 5, 2)}}, "weight has shape"),
    "missing": ({"state": {"weight": SHARD["weight"]}}, "missing bias"),
    "extra": ({"state": {**SHARD, "more": torch.zeros(3)}}, "unexpected more"),
    "integers": ({"state": {**SHARD, "bias": torch.zeros(3, 3).long()}}, "bias is torch.int64"),
    "one network": ({"state": nn.Linear(2, 3).state_dict()}, "weight has shape"),
    "arrays": ({"state": {n: v.numpy() for n, v in SHARD.items()}}, "torch tensors by name"),
    "list": ({"state": [SHARD]}, "torch tensors by name"),
    "no rows": ({"rows": None}, "rows is None"),
    "texts as rows": ({"rows": ["a", "b", "c"]}, "a row is 'a'"),
    "huge": ({"rows": [{**row, "y": 10**30} for row in ROWS]}, "does not fit in 64 bits"),
    "column": ({"rows": [{**row, 3: 1} for row in ROWS]}, "a column is 3"),
    "spec": ({"spec": None}, "spec is None"),
    "number": ({"number": -1}, "number is -1"),
    "fraction": ({"number": 1.5}, "number is 1.5"),
    "architecture": ({"architecture": None}, "architecture is None"),
    "left out": ({"left_out": "abc"}, "left_out is 'abc'"),
}


@pytest.mark.parametrize(("given", "message"), WRONG_SHARDS.values(), ids=WRONG_SHARDS.keys())
def test_shards_fit_their_spec(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    usual = {"number": 0, "architecture": "linear", "spec": LINEAR, "state": SHARD, "rows": ROWS}
    with (
        zoo.ZooWriter(tmp_path, "lines", 3, 0, {}) as writer,
        pytest.raises((ArgumentError, ZooError), match=message),
    ):
        writer.write_shard(**{**usual, **given})
    assert not list(tmp_path.glob("shard-*"))


def test_writers_take_plain_values(tmp_path: Path) -> None:
    for wrong, message in (
        (("x", -1, 0, {}), "size is -1"),
        (("x", "3", 0, {}), "size is '3'"),
        ((3, 3, 0, {}), "name is 3"),
        (("x", 3, 0.5, {}), "seed is 0.5"),
        (("x", 3, 0, {"a": torch.zeros(1)}), "configuration: .* not JSON serializable"),
    ):
        with pytest.raises(ArgumentError, match=message):
            zoo.ZooWriter(tmp_path, *wrong)  # type: ignore[arg-type]


# Populations

LOADERS: dict[str, dict[str, Any]] = {
    "batch_size": {"batch_size": 1.5},
    "open_shards": {"open_shards": 0},
    "seed": {"seed": 2**70},
    "target": {"target": 3},
    "transform": {"transform": 3},
}


@pytest.mark.parametrize(("name", "given"), LOADERS.items(), ids=LOADERS.keys())
def test_loaders(population: zoo.Zoo, name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"^{name} is "):
        population.loader(**given)


def test_selections_and_folders(population: zoo.Zoo, tmp_path: Path) -> None:
    for wrong in (3, None, {"a": 1}):
        with pytest.raises(ArgumentError, match="where is "):
            population.select(wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="ids is '0-1'; give a list of ids"):
        population.select(ids="0-1")
    with pytest.raises(KeyError, match="no architecture 'zz'; known: cnn-relu"):
        population.spec("zz")
    for one in (population.folder, str(population.folder)):
        with pytest.raises(ArgumentError, match=r"folders is .*; give a list of folders of zoos"):
            zoo.merge(one, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="prefixes is 'ab'"):
        zoo.merge([population.folder] * 2, tmp_path / "out", prefixes="ab")
    for wrong in ({"size": 0}, {"size": 1.5}, {"seed": None}, {"workers": 0}, {"engine": "ray"}):
        given: dict[str, Any] = {"name": "cnn-digits", "size": 2, "seed": 0, "out": tmp_path}
        with pytest.raises(ArgumentError, match=f"^{next(iter(wrong))} is "):
            zoo.build(**{**given, **wrong})


# Graphs, symmetries, attributions, distances


def _raises(message: str, *calls: Callable[[], Any]) -> None:
    for call in calls:
        with pytest.raises(ArgumentError, match=message):
            call()


def test_graphs_are_made_of_tensors_of_their_spec() -> None:
    graph, make = gmn.ParameterGraph, gmn.ParameterGraph.from_state_dicts
    arrays = {name: value.numpy() for name, value in STATE.items()}
    _raises("spec is ", lambda: graph(None, {}), lambda: make(MODULE, [STATE]))  # type: ignore[arg-type]
    _raises("torch tensors by name", lambda: graph(SPEC, [1]), lambda: make(SPEC, [MODULE]))  # type: ignore[arg-type, list-item]
    _raises("torch tensors by name", lambda: make(SPEC, [arrays]), lambda: make(SPEC, ["a.pt"]))  # type: ignore[list-item]
    with pytest.raises(gmn.StateDictError, match=r"0.weight is torch.sparse_coo; call to_dense"):
        make(SPEC, [{**STATE, "0.weight": STATE["0.weight"].to_sparse()}])
    _raises("states is .*give a list of state dicts", lambda: make(SPEC, STATE))  # type: ignore[arg-type]
    _raises("a graph of cat is", lambda: graph.cat([GRAPH, STATE]))  # type: ignore[list-item]
    _raises(r"give a type by name: to\(dtype", lambda: GRAPH.to(torch.float64))  # type: ignore[arg-type]
    name = SPEC.edge_sets[0].name
    _raises("not \\(5, 24, 1\\)", lambda: GRAPHS.replace_pairs({name: torch.zeros(5, 1, 24)}))
    _raises("values is ", lambda: GRAPHS.replace(None), lambda: GRAPHS.replace({name: 0.0}))  # type: ignore[arg-type, dict-item]
    for call in (GRAPHS.numbers, GRAPHS.block, GRAPHS.pairs):
        with pytest.raises(KeyError, match="is called 'zz'; others"):
            call("zz")
    for wrong in (3, None, ["0.weight"]):
        for get in (GRAPHS.block, GRAPHS.pairs):
            _raises("edges is .*give an edge set", lambda get=get, w=wrong: get(w))
    with pytest.raises(KeyError, match="no entry is called 'zz'"):
        GRAPHS.replace({"zz": torch.zeros(5)})
    for far in (99, -9):
        with pytest.raises(IndexError, match=f"network {far} asked for, but there are 5"):
            GRAPHS.to_state_dict(far)
        with pytest.raises(IndexError, match=f"network {far} asked for, but there are 5"):
            gmn.pyg.to_hetero(GRAPHS, far)
    _raises("network is ", lambda: GRAPHS.to_state_dict([0, 1]), lambda: GRAPHS.to_networkx("a"))  # type: ignore[arg-type]
    _raises("graph holds no networks", GRAPHS[:0].to_pyg)
    _raises("graphs is one graph", lambda: gmn.stack.stack(GRAPHS))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, STATE, SPEC, MODULE], ids=["None", "state", "spec", "net"])
def test_functions_of_graphs_take_graphs(wrong: Any) -> None:
    forms = (gmn.canonical.canonical, gmn.canonical.balanced, gmn.canonical.without_shifts)
    calls: list[Callable[[], Any]] = [
        *(lambda form=form: form(wrong) for form in forms),
        lambda: gmn.explain.saliency(GMN(8, 1), wrong),
        lambda: gmn.explain.integrated_gradients(GMN(8, 1), wrong),
        lambda: gmn.transport.weight_clouds(wrong),
        lambda: gmn.nn.read_all(GMN(8, 1), [wrong]),
        lambda: gmn.testing.assert_invariant(lambda graph: torch.zeros(1), wrong),
        lambda: gmn.pyg.to_pyg(wrong),
        lambda: baselines.layer_statistics(wrong),
        lambda: zoo.widen(wrong, SPEC, torch.Generator()),
        lambda: gmn.augment.SampledSymmetry()(wrong, torch.Generator()),
        lambda: gmn.augment.Rescaled(2.0)(wrong, torch.Generator()),
    ]
    _raises(r"graph is .*to_graph\(module, inputs\)", *calls)
    _raises("^a is ", lambda: gmn.transport.network_distance(wrong, GRAPHS))


def test_symmetries() -> None:
    sample, element = gmn.symmetry.sample, gmn.symmetry.sample(SPEC)
    _raises("spec is ", lambda: sample(None), lambda: sample(GRAPHS))  # type: ignore[arg-type]
    _raises("generator is 0", lambda: sample(SPEC, 0))  # type: ignore[arg-type]
    _raises("spec is ", lambda: gmn.symmetry.only(None, "a"))  # type: ignore[arg-type]
    for wrong in (-1, float("nan"), float("inf"), "a"):
        _raises("spread is ", lambda wrong=wrong: sample(SPEC, spread=wrong))
        _raises("spread is ", lambda wrong=wrong: gmn.augment.SampledSymmetry(wrong))
    _raises("no tensor for 0.weight", lambda: element.act({}), lambda: element.act(None))  # type: ignore[arg-type]
    _raises("shape \\(3, 3\\) for", lambda: element.act({**STATE, "0.weight": torch.zeros(3, 3)}))
    _raises("another spec", lambda: element.after(sample(LINEAR)), lambda: element.after(None))  # type: ignore[arg-type]
    for reach in (0, 0.5, -1, float("nan"), "a"):
        _raises("reach is ", lambda reach=reach: gmn.augment.Rescaled(reach))
    move = gmn.augment.move_coordinates
    _raises("read 4 coordinates", lambda: move(GRAPHS, torch.eye(3), torch.zeros(3)))
    _raises("give one of each, or one for all", lambda: move(
        GRAPHS, torch.eye(4).expand(3, 4, 4), torch.zeros(4)))  # fmt: skip


def test_attributions() -> None:
    net, explain = GMN(8, 1, 2), gmn.explain
    _raises("net is None", lambda: explain.gradient(None, GRAPHS))  # type: ignore[arg-type]
    for wrong in (1.5, "a", None):
        _raises("output is ", lambda wrong=wrong: explain.saliency(net, GRAPHS, wrong))
    for points in (0, -1, 1.5):
        _raises("points is ", lambda p=points: explain.integrated_gradients(net, GRAPHS, points=p))
    _raises("baseline holds 2 networks for 5", lambda: explain.integrated_gradients(
        net, GRAPHS, baseline=GRAPHS[:2]))  # fmt: skip
    _raises("does not depend on the weights", lambda: explain.gradient(
        lambda graph: torch.zeros(len(graph), 2), GRAPHS))  # fmt: skip


def test_laws_are_tried_at_least_once_and_not_kept_by_nan() -> None:
    doubles = GRAPHS.to(dtype=torch.float64)

    def broken(graph: gmn.ParameterGraph) -> gmn.ParameterGraph:
        return graph.replace({n: v * torch.nan for n, v in graph.values.items()})

    for check in (gmn.testing.assert_invariant, gmn.testing.assert_equivariant):
        _raises("trials is 0", lambda check=check: check(broken, doubles, trials=0))  # type: ignore[operator]
    with pytest.raises(AssertionError, match="is not equivariant"):
        gmn.testing.assert_equivariant(broken, doubles)
    with pytest.raises(AssertionError, match="is not invariant"):
        gmn.testing.assert_invariant(lambda graph: torch.full((5, 1), torch.nan), doubles)
    _raises("found has shape", lambda: gmn.testing.relative_error(torch.zeros(1), torch.zeros(3)))


def test_distances() -> None:
    transport, x = gmn.transport, torch.randn(5, 3)
    distances = (
        transport.sliced_wasserstein,
        transport.tree_sliced_wasserstein,
        transport.max_tree_sliced_wasserstein,
        transport.assigned_wasserstein,
    )
    for distance in distances:
        _raises("x is ", lambda d=distance: d(None, None), lambda d=distance: d(x.numpy(), x))
        with pytest.raises(ValueError, match="of at least 16 bits"):
            distance(x.to(torch.float8_e4m3fn), x.to(torch.float8_e4m3fn))
        assert distance(x.half(), x.half() + 1).isfinite()
    for distance in (distances[0], distances[1], distances[3]):
        for p in (0, float("nan"), float("inf"), "a", None):
            _raises("p is ", lambda d=distance, p=p: d(x, x, p=p))
    _raises("weights is ", lambda: distances[0](x, x, weights=torch.ones(5)))  # type: ignore[arg-type]
    _raises("directions have shape", lambda: distances[0](x, x, directions=torch.zeros(4, 2)))
    _raises("directions are none", lambda: distances[0](x, x, directions=torch.zeros(0, 3)))
    _raises("splitting is 'a'", lambda: distances[1](x, x, splitting="a"))  # type: ignore[arg-type]
    for steps in (0, -1, 1.5):
        _raises("steps is ", lambda s=steps: distances[2](x, x, steps=s))
    for delta in (-1, float("nan"), "a"):
        _raises("delta is ", lambda d=delta: transport.ByDistance(d))
    _raises("lines is 0", lambda: transport.NetworkDistance(lines=0))
    _raises("seed is ", lambda: transport.NetworkDistance(seed=2**70))
    _raises("networks holds no", lambda: transport.NeuronSetLoss()(GRAPHS[:0], GRAPHS[:0]))
    _raises("states of all neurons are \\(5, 13, d\\)", lambda: transport.embedding_clouds(
        GRAPHS, lambda graph: torch.zeros(5, 2, 2)))  # fmt: skip


def test_traces_take_modules() -> None:
    inputs = (torch.zeros(1, 4),)
    for call in (converters.trace, converters.to_graph, converters.verify):
        for wrong in (None, nn.Linear, STATE, torch.relu, "a.pt"):
            _raises("model is .*give a torch.nn.Module", lambda c=call, w=wrong: c(w, inputs))
    for trials in (-1, 1.5):
        _raises("trials is ", lambda t=trials: converters.verify(MODULE, inputs, trials=t))
    _raises("spec is 3", lambda: converters.verify(MODULE, inputs, 3))  # type: ignore[arg-type]


# Tasks and training

SETTINGS: dict[str, list[Any]] = {
    "epochs": [0, -1, 1.5, "a", None],
    "batch_size": [0, 1.5, None],
    "learning_rate": [0, -1, float("nan"), float("inf"), "a"],
    "weight_decay": [-1, float("nan"), None],
    "clip": [0, -1, float("inf"), None],
    "augment": [3, "a"],
    "patience": [0, 1.5, "a"],
    "ema": [0, 1, float("nan"), "a"],
    "bf16": [None, 1, "yes"],
}


@pytest.mark.parametrize(("name", "values"), SETTINGS.items(), ids=SETTINGS.keys())
def test_recipes(name: str, values: list[Any]) -> None:
    for wrong in values:
        with pytest.raises(ValueError, match=f"^{name} is "):
            gmn.train.Recipe(**{name: wrong})


def test_tasks_and_their_options(folder: Path) -> None:
    tasks = gmn.tasks
    _raises("population is ", lambda: tasks.AccuracyPrediction(folder))  # type: ignore[arg-type]
    _raises("options is ", lambda: tasks.task_of(folder, "accuracy", ["a"]))  # type: ignore[arg-type]
    _raises("name is None", lambda: tasks.find(None), lambda: gmn.registry.find(None))  # type: ignore[arg-type]
    for wrong in (0, -1, 1.5, "a"):
        _raises("classes is ", lambda w=wrong: tasks.InrClassification(None, w))
        _raises("copies is ", lambda w=wrong: tasks.InrDilation(None, w, 4, 4))
        _raises("latent is ", lambda w=wrong: tasks.Autoencoding(None, w))
        _raises("height is ", lambda w=wrong: tasks.PixelGrid(w, 3))


def test_trainings_and_comparisons(population: zoo.Zoo, tmp_path: Path) -> None:
    train, fit = gmn.train.train, gmn.train.fit
    task, net, brief = gmn.tasks.task_of(population), GMN(4, 1), gmn.train.Recipe(epochs=1)
    for model in (None, GMN, "gmn"):
        _raises("model is .*Estimator", lambda m=model: train(m, task, brief))
    _raises("task is ", lambda: train(net, population, brief))  # type: ignore[arg-type]
    _raises("recipe is ", lambda: train(net, task, {"epochs": 1}))  # type: ignore[arg-type]
    for seed in (2**70, 1.5, None):
        _raises("seed is ", lambda s=seed: train(net, task, brief, s))
        _raises("seed is ", lambda s=seed: fit(population, "gmn", tmp_path, brief, s))
    _raises("model is an object", lambda: fit(population, net, tmp_path))  # type: ignore[arg-type]
    _raises("device abacus: ", lambda: fit(population, "gmn", tmp_path, device="abacus"))
    _raises(
        "device meta: it holds no values", lambda: fit(population, "gmn", tmp_path, device="meta")
    )
    _raises("out is None", lambda: fit(population, "gmn", None))  # type: ignore[arg-type]
    compare = gmn.compare
    _raises("model 'a' is a module", lambda: compare(population, {"a": net}))  # type: ignore[dict-item]
    _raises("models is 'gmn'; give a list", lambda: compare(population, "gmn"))
    for wrong in ({"seeds": 0}, {"workers": 0}, {"recipe": 3}, {"engine": "ray"}):
        name = next(iter(wrong))
        _raises(f"{name} is ", lambda w=wrong: compare(population, ["gmn"], **w))
    _raises("batch_size is 0", lambda: gmn.train.predict(net, task, task.split("test"), 0))
    _raises("parts is empty", lambda: gmn.train.predict(net, task, []))


def test_heads_are_those_of_the_task(population: zoo.Zoo, tmp_path: Path) -> None:
    """Said before the first epoch, and nothing is written."""
    number = gmn.tasks.task_of(population)
    images = gmn.tasks.InrDilation(None, 2, 4, 4)
    images._splits, images._zoo = number._splits, population
    brief = gmn.train.Recipe(epochs=1)
    for task, head, message in (
        (number, 3, r"with numbers of shape \(1, 3\); for .* give it head=1"),
        (number, EditHead(), r"with 1 networks; for .* give it head=1"),
        (images, 1, r"with numbers of shape \(1, 1\); for .* give it head=EditHead\(copies=2\)"),
        (images, EditHead(), r"with 1 networks; for .* give it head=EditHead\(copies=2\)"),
    ):
        _raises(message, lambda t=task, h=head: gmn.train.train(
            GMN(4, 1, h), t, brief, folder=tmp_path / "out"))  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [None, 3, [Path("a")], ""], ids=["None", "3", "list", "empty"])
def test_folders_are_paths(wrong: Any) -> None:
    for call in (zoo.open, zoo.verify, zoo.reindex, gmn.load, gmn.train.load, gmn.tasks.task_of):
        _raises("folder is .*give a path", lambda c=call: c(wrong))
    _raises("folder is .*give a path", lambda: gmn.save(GRAPH, wrong))
    for read in (converters.load_checkpoint, converters.read_checkpoint, converters.read_values):
        _raises("path is .*give a path", lambda r=read: r(wrong))
    for layout in (zoo.NfnSirens, zoo.SmallCnnZoo, zoo.SmallTransformerZoo, zoo.ModelZoos):
        _raises("source is .*give a path", lambda made=layout: made(wrong))
    _raises("layout is ", lambda: zoo.import_zoo(wrong, "out"))


# What is no metanetwork, no state dict, no trained model, no population, no spec

THINGS: list[Any] = [None, 3, "abc", [None], torch.zeros(2), nn.Linear]


def test_laws_take_metanetworks() -> None:
    testing, doubles = gmn.testing, GRAPHS.to(dtype=torch.float64)
    inputs = (torch.zeros(1, 4),)
    for wrong in (None, 3, "abc", [None]):
        for check in (testing.assert_invariant, testing.assert_equivariant):
            _raises("^net is ", lambda c=check, w=wrong: c(w, doubles))
        _raises("^operation is ", lambda w=wrong: assert_sound(w, [torch.zeros(2)]))
    _raises("the answer of net is .*from graphs to tensors", lambda: testing.assert_invariant(
        lambda graph: None, doubles))  # fmt: skip
    _raises("the answer of net is ", lambda: testing.assert_equivariant(
        lambda graph: torch.zeros(1), doubles))  # type: ignore[arg-type, return-value]  # fmt: skip
    for tolerance in (-1, float("nan"), "a", None):
        for check in (testing.assert_invariant, testing.assert_equivariant):
            _raises(
                "^tolerance is ", lambda c=check, t=tolerance: c(GMN(8, 1), doubles, tolerance=t)
            )
    same = testing.assert_same_function
    for wrong in THINGS:
        _raises("^model is ", lambda w=wrong: same(w, STATE, STATE, inputs))
        _raises("^first is ", lambda w=wrong: same(MODULE, w, STATE, inputs))
        _raises("^second is ", lambda w=wrong: same(MODULE, STATE, w, inputs))
        if not isinstance(wrong, torch.Tensor):  # the one input
            _raises("^inputs is ", lambda w=wrong: same(MODULE, STATE, STATE, w))
        _raises("^spec is ", lambda w=wrong: testing.assert_covers(w))
    _raises("^operands is ", lambda: assert_sound(torch.relu, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", THINGS, ids=["None", "3", "abc", "list", "tensor", "class"])
def test_each_of_its_kind(wrong: Any, folder: Path) -> None:
    calls: dict[str, list[Callable[[], Any]]] = {
        "spec": [
            lambda: converters.fit_state(wrong, STATE),
            lambda: presets.ng_gnn(wrong, 1),
            lambda: baselines.presets.probe_net(wrong, 1),
        ],
        "state": [
            lambda: converters.fit_state(SPEC, wrong),
            lambda: converters.infer_chain(wrong),
        ],
        "trained": [
            lambda: gmn.train.csv_text(wrong, []),
            lambda: gmn.train.text_table(wrong, []),
            lambda: gmn.train.predict_files(wrong, []),
        ],
        "edges": [
            lambda: gmn.pyg.edge_type(wrong),
            lambda: gmn.features.fan_in(wrong),
        ],
        "graph": [lambda: gmn.features.value_features(wrong, SPEC.edge_sets[0])],
        "operation": [lambda: gmn.features.operation_code(wrong)],
        "description": [lambda: gmn.features.with_taps(None, SPEC.edge_sets[0])],  # type: ignore[arg-type]
        "recipe": [lambda: gmn.train.peak_rate(MODULE, wrong)],
        "task": [lambda: gmn.train.answer(GMN(8, 1), wrong, GRAPHS)],
        "an? answers?": [lambda: gmn.train.json_text([wrong])],
        "a graph": [lambda: gmn.stack.StackedGraph([wrong])],
    }
    if not isinstance(wrong, list):  # which no cache can hold
        describe = gmn.features.node_descriptions, gmn.features.edge_descriptions
        calls["spec"] += [lambda d=d: d(wrong) for d in describe]
        calls["edges"].append(lambda: gmn.features.tap_descriptions(wrong))
    if wrong is not None:
        calls |= {
            "population": [
                lambda: gmn.tasks.Autoencoding(wrong),
                lambda: gmn.tasks.InrContrast(wrong),
                lambda: gmn.tasks.WinningTickets(wrong),
            ],
            "kept": [lambda: gmn.tasks.WinningTickets(kept=wrong)],
            "weights": [lambda: gmn.draw.draw(SPEC, weights=wrong)],
            "fourier": [lambda: baselines.NFN(SPEC, fourier=wrong)],
            "distance": [
                lambda: gmn.transport.zoo_metrics(GRAPHS, GRAPHS, GRAPHS, wrong),
            ],
            "activation": [lambda: converters.infer_chain(STATE, wrong)],
        }
    if not isinstance(wrong, str):
        calls["name"] = [lambda: SPEC.edge_set(wrong), lambda: gmn.registry.find(wrong)]
        calls["reference"] = [lambda: gmn.registry.attribute(wrong)]
    if not isinstance(wrong, torch.Tensor) and wrong is not None:
        x = torch.zeros(3, 2)
        calls["directions"] = [lambda: gmn.transport.sliced_wasserstein(x, x, directions=wrong)]
    for name, several in calls.items():
        _raises(f"^{name} is ", *several)
