"""Loaders of whole shards: every network once a pass, well mixed, in any number of workers."""

from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from torch.utils.data import DataLoader

from gmn import zoo
from gmn.graph import ParameterGraph
from gmn.zoo.loading import Loader
from gmn.zoo.stored import KeptGraph, StoredGraph
from tests.gmn.lines import lines
from tests.traced import slow_but

SHARDS, PER_SHARD = 40, 25


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    return lines(tmp_path_factory.mktemp("zoo"), SHARDS, PER_SHARD)


@pytest.fixture(scope="module")
def mixed(many: zoo.Zoo, tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    folder = tmp_path_factory.mktemp("mixed")
    lines(folder / "other", 5, 30, first=10_000, inputs=4)
    return zoo.merge([many.folder, folder / "other"], folder / "both", progress=False)


def stream(
    population: zoo.Zoo, batch_size: int = 32, split: str | None = None, **options: int
) -> Loader:
    """Pairs of a graph and the numbers of its networks, shard by shard."""
    return population.loader(split, batch_size, target=None, **{"open_shards": 8, **options})  # type: ignore[arg-type]


def order_of(loader: Loader) -> torch.Tensor:
    return torch.cat([indices for _, indices in loader])


def graphs_of(found: ParameterGraph | list[ParameterGraph]) -> list[ParameterGraph]:
    return found if isinstance(found, list) else [found]


def test_a_batch_holds_the_networks_that_it_says(many: zoo.Zoo) -> None:
    for graph, indices in stream(many, 32):
        assert graph.spec is many.spec("linear-2")
        assert torch.equal(graph.values["bias"][:, 0].long(), indices)
        wanted = many.stacked(indices)["weight"]
        assert torch.equal(graph.values["weight"], wanted)


@pytest.mark.parametrize(
    ("batch_size", "open_shards"),
    slow_but(list(product((3, 32, 3000), (1, 7, 100))), [(3, 7), (32, 1), (3000, 100)]),
)
def test_every_network_comes_once(many: zoo.Zoo, batch_size: int, open_shards: int) -> None:
    loader = stream(many, batch_size, open_shards=open_shards)
    sizes = [len(indices) for _, indices in loader]
    assert sorted(order_of(loader).tolist()) == list(range(len(many)))
    assert len(loader) == len(sizes)
    # Only the last batch may be smaller.
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)


@pytest.mark.parametrize("kind", [StoredGraph, KeptGraph])
def test_stored_networks_are_those_that_a_graph_holds(
    many: zoo.Zoo, kind: type[StoredGraph]
) -> None:
    chosen = torch.randperm(len(many))[:300]
    graph, stored = many.graph(chosen), kind(many, chosen)
    assert (len(stored), stored.dtype, stored.device) == (300, graph.dtype, graph.device)
    assert stored.spec is graph.spec
    mask = torch.rand(300) < 0.3
    for index in (7, -1, slice(5, 60, 2), slice(4, 4), [3, 3, 250], torch.tensor([299, 0]), mask):
        for name, value in graph[index].values.items():
            assert torch.equal(stored[index].values[name], value)
    part = stored[100:200][50:]
    assert isinstance(part, StoredGraph) == (kind is StoredGraph)
    for name, value in graph.values.items():
        assert torch.equal(part.values[name], value[150:200])
        assert torch.equal(stored.values[name], value)
    with pytest.raises(IndexError):
        stored[300]
    assert len(kind(many, chosen)[4:4]) == 0
    assert repr(kind(many, chosen)) == repr(graph)
    for one in (graph, kind(many, chosen)):
        changed = one.replace({"bias": torch.zeros(300, 3)}).to(dtype=torch.float64)
        assert changed.dtype == torch.float64
        assert torch.equal(changed.values["weight"], graph.values["weight"].double())
        assert torch.equal(one.to_state_dict(7)["bias"], graph.values["bias"][7])
        assert torch.equal(one.pairs(one.spec.edge_sets[0]), graph.pairs(graph.spec.edge_sets[0]))
        assert len(type(graph).cat([one, graph[:2]])) == 302
    with pytest.raises(IndexError, match="there are 1000"):
        many.stored([1000])


def test_a_split_alone(many: zoo.Zoo) -> None:
    found = order_of(stream(many, 16, split="val"))
    assert sorted(found.tolist()) == many.indices("val").tolist()
    with pytest.raises(ValueError, match="train, val, test"):
        stream(many, 16, split="validation")
    with pytest.raises(ValueError, match="batch_size is 0"):
        stream(many, 0)
    with pytest.raises(ValueError, match="open_shards is 0"):
        stream(many, open_shards=0)


def test_batches_of_several_architectures_hold_one_each_and_alternate(mixed: zoo.Zoo) -> None:
    kinds, seen, rests = [], [], []
    for found, indices in stream(mixed, 16, open_shards=4):
        names = {mixed.rows[i]["architecture"] for i in indices.tolist()}
        graphs = graphs_of(found)
        assert [graph.spec for graph in graphs] == [mixed.spec(name) for name in sorted(names)]
        values = torch.cat([graph.values["bias"][:, 0] for graph in graphs]).long()
        assert values.tolist() == [int(mixed.rows[i]["id"]) for i in indices.tolist()]
        if len(graphs) == 1:
            kinds.append(names.pop())
        else:
            rests.append(len(indices))
        seen += indices.tolist()
    assert sorted(seen) == list(range(len(mixed)))
    assert sum(a != b for a, b in pairwise(kinds)) > 3
    assert len(rests) <= 2  # what is left in the end is mixed


def test_every_pass_has_another_order_which_the_seed_decides(many: zoo.Zoo) -> None:
    loader, again, other = stream(many, 32), stream(many, 32), stream(many, 32, seed=1)
    first = order_of(loader)
    assert loader.generator is not None
    state = loader.generator.get_state()
    second = order_of(loader)
    assert not torch.equal(first, second)
    assert torch.equal(order_of(again), first)
    assert not torch.equal(order_of(other), first)
    resumed = stream(many, 32)
    assert resumed.generator is not None
    resumed.generator.set_state(state)
    assert torch.equal(order_of(resumed), second)


def test_the_order_tells_nothing_of_the_place_on_disk(many: zoo.Zoo) -> None:
    position = torch.arange(len(many))
    found = [
        spearmanr(order_of(stream(many, 32, seed=seed)), position).statistic for seed in range(20)
    ]
    # The order of the shards alone is random: a deviation of 1 / sqrt(40) each.
    assert abs(sum(found) / len(found)) < 3 / (SHARDS * len(found)) ** 0.5
    assert max(abs(value) for value in found) < 4 / SHARDS**0.5


def test_a_batch_mixes_the_open_shards(many: zoo.Zoo) -> None:
    """At least as many shards in a batch as when each network's shard is drawn by itself."""
    shards = torch.tensor([row["shard"] for row in many.rows])
    found = [
        len(shards[indices].unique())
        for _, indices in stream(many, 32, open_shards=8)
        if len(indices) == 32
    ]
    expected = 8 * (1 - (1 - 1 / 8) ** 32)
    assert sum(found) / len(found) > expected - 0.2
    assert min(found) >= 5


def test_only_the_shards_of_a_group_stay_open(
    many: zoo.Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    alive: list[weakref.ref[torch.Tensor]] = []
    plain = many.reader.open

    def counted(number: int) -> zoo.store.shards.OpenShard:
        shard = plain(number)
        alive.append(weakref.ref(shard.state["weight"]))
        return shard

    many.reader.keep(set())
    monkeypatch.setattr(many.reader, "open", counted)
    found = []
    for _ in stream(many, 25, open_shards=5):  # which leaves nothing for the next shards
        found.append(sum(tensor() is not None for tensor in alive))
    assert len(alive) == SHARDS
    assert max(found) == 5
    for _ in stream(many, 32, open_shards=5):  # of which some wait, in the files that they are in
        found.append(sum(tensor() is not None for tensor in alive))
    assert max(found) <= 3 * 5


@pytest.mark.parametrize("persistent", [pytest.param(False, marks=pytest.mark.slow), True])
def test_workers_divide_the_networks(mixed: zoo.Zoo, persistent: bool) -> None:
    loader = DataLoader(
        stream(mixed, 32),
        batch_size=None,
        num_workers=2,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(3),
    )
    passes = [[indices for _, indices in loader] for _ in range(2)]
    for found in passes:
        assert sorted(torch.cat(found).tolist()) == list(range(len(mixed)))
    assert not torch.equal(torch.cat(passes[0]), torch.cat(passes[1]))


@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_divide_minibatches_of_all_networks(mixed: zoo.Zoo, shuffle: bool) -> None:
    loader = mixed.loader("train", 16, target=None, shuffle=shuffle)
    divided = DataLoader(loader, batch_size=None, num_workers=2, persistent_workers=True)
    passes = [torch.cat([indices for _, indices in divided]) for _ in range(2)]
    for found in passes:
        assert torch.equal(found.sort().values, mixed.indices("train"))
    assert torch.equal(*passes) != shuffle


def test_transforms_differ_between_workers(many: zoo.Zoo) -> None:
    def drawn(graph: ParameterGraph, generator: torch.Generator) -> ParameterGraph:
        value = torch.rand((), generator=generator)
        return graph.replace({"bias": value.expand(len(graph), 3)})

    loader = many.loader(None, 100, target=None, transform=drawn)
    divided = DataLoader(loader, batch_size=None, num_workers=2)
    values = [float(graph.values["bias"][0, 0]) for _ in range(2) for graph, _ in divided]
    assert len(set(values)) == len(values) == 20


def test_more_workers_than_shards(tmp_path: Path) -> None:
    few = lines(tmp_path, shards=1)
    loader = DataLoader(stream(few, 8), batch_size=None, num_workers=2)
    found = [(graph.values["bias"][:, 0].long(), indices) for graph, indices in loader]
    assert sorted(torch.cat([i for _, i in found]).tolist()) == list(range(len(few)))
    assert all(torch.equal(biases, indices) for biases, indices in found)


@pytest.mark.slow
@pytest.mark.parametrize("open_shards", [None, 5])
def test_workers_may_be_spawned(many: zoo.Zoo, open_shards: int | None) -> None:
    loader = many.loader(None, 100, target=None, shuffle=True, open_shards=open_shards)
    spawned = DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    found = [(graph.values["bias"][:, 0].long(), indices) for graph, indices in spawned]
    assert sorted(torch.cat([i for _, i in found]).tolist()) == list(range(len(many)))
    assert all(torch.equal(biases, indices) for biases, indices in found)
