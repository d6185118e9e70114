"""Streaming: every network once a pass, well mixed, from many shards, in any number of workers."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from torch.utils.data import DataLoader

from gmn import zoo
from gmn.zoo.stored import StoredGraph
from gmn.zoo.stream import Stream
from tests.gmn.lines import lines

SHARDS, PER_SHARD = 40, 25


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    return lines(tmp_path_factory.mktemp("zoo"), SHARDS, PER_SHARD)


@pytest.fixture(scope="module")
def mixed(many: zoo.Zoo, tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    folder = tmp_path_factory.mktemp("mixed")
    lines(folder / "other", 5, 30, first=10_000, inputs=4)
    return zoo.merge([many.folder, folder / "other"], folder / "both", progress=False)


def order_of(stream: Stream) -> torch.Tensor:
    return torch.cat([indices for _, indices in stream])


def test_a_batch_holds_the_networks_that_it_says(many: zoo.Zoo) -> None:
    for graph, indices in many.stream(32):
        assert graph.spec is many.spec("linear-2")
        assert torch.equal(graph.values["bias"][:, 0].long(), indices)
        wanted = many.stacked(indices)["weight"]
        assert torch.equal(graph.values["weight"], wanted)


@pytest.mark.parametrize("batch_size", [3, 32, 3000])
@pytest.mark.parametrize("open_shards", [1, 7, 100])
def test_every_network_comes_once(many: zoo.Zoo, batch_size: int, open_shards: int) -> None:
    stream = many.stream(batch_size, open_shards=open_shards)
    sizes = [len(indices) for _, indices in stream]
    assert sorted(order_of(stream).tolist()) == list(range(len(many)))
    assert stream.networks == len(many)
    # Only the last batch may be smaller.
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)


def test_stored_networks_are_those_that_a_graph_holds(many: zoo.Zoo) -> None:
    chosen = torch.randperm(len(many))[:300]
    graph, stored = many.graph(chosen), many.stored(chosen)
    assert (len(stored), stored.dtype, stored.device) == (300, graph.dtype, graph.device)
    assert stored.spec is graph.spec
    mask = torch.rand(300) < 0.3
    for index in (7, -1, slice(5, 60, 2), slice(4, 4), [3, 3, 250], torch.tensor([299, 0]), mask):
        for name, value in graph[index].values.items():
            assert torch.equal(stored[index].values[name], value)
    part = stored[100:200][50:]
    assert isinstance(part, StoredGraph)
    for name, value in graph.values.items():
        assert torch.equal(part.values[name], value[150:200])
        assert torch.equal(stored.values[name], value)
    with pytest.raises(IndexError):
        stored[300]
    assert repr(many.stored(chosen)) == repr(graph)
    for one in (graph, many.stored(chosen)):
        changed = one.replace({"bias": torch.zeros(300, 3)}).to(dtype=torch.float64)
        assert changed.dtype == torch.float64
        assert torch.equal(changed.values["weight"], graph.values["weight"].double())
        assert torch.equal(one.to_state_dict(7)["bias"], graph.values["bias"][7])
        assert torch.equal(one.pairs(one.spec.edge_sets[0]), graph.pairs(graph.spec.edge_sets[0]))
        assert len(type(graph).cat([one, graph[:2]])) == 302
    with pytest.raises(IndexError, match="the zoo has 1000"):
        many.stored([1000])


def test_a_split_alone(many: zoo.Zoo) -> None:
    found = order_of(many.stream(16, split="val"))
    assert sorted(found.tolist()) == many.indices("val").tolist()
    with pytest.raises(ValueError, match="train, val, test"):
        many.stream(16, split="validation")
    with pytest.raises(ValueError, match="must be positive"):
        many.stream(0)


def test_batches_of_several_architectures_hold_one_each_and_alternate(mixed: zoo.Zoo) -> None:
    kinds, seen = [], []
    for graph, indices in mixed.stream(16, open_shards=4):
        names = {mixed.rows[i]["architecture"] for i in indices.tolist()}
        assert len(names) == 1
        assert graph.spec is mixed.spec(next(iter(names)))
        kinds.append(names.pop())
        seen += indices.tolist()
    assert sorted(seen) == list(range(len(mixed)))
    assert sum(a != b for a, b in pairwise(kinds)) > 3


def test_every_pass_has_another_order_which_the_seed_decides(many: zoo.Zoo) -> None:
    stream, again, other = many.stream(32), many.stream(32), many.stream(32, seed=1)
    passes = [order_of(stream) for _ in range(2)]
    assert not torch.equal(passes[0], passes[1])
    assert torch.equal(order_of(again), passes[0])
    assert not torch.equal(order_of(other), passes[0])
    resumed = many.stream(32)
    resumed.epoch = 1
    assert torch.equal(order_of(resumed), passes[1])


def test_the_order_tells_nothing_of_the_place_on_disk(many: zoo.Zoo) -> None:
    position = torch.arange(len(many))
    found = [
        spearmanr(order_of(many.stream(32, seed=seed)), position).statistic for seed in range(20)
    ]
    # The order of the shards alone is random: a deviation of 1 / sqrt(40) each.
    assert abs(sum(found) / len(found)) < 3 / (SHARDS * len(found)) ** 0.5
    assert max(abs(value) for value in found) < 4 / SHARDS**0.5


def test_a_batch_mixes_the_open_shards(many: zoo.Zoo) -> None:
    """At least as many shards in a batch as when each network's shard is drawn by itself."""
    shards = torch.tensor([row["shard"] for row in many.rows])
    found = [
        len(shards[indices].unique())
        for _, indices in many.stream(32, open_shards=8)
        if len(indices) == 32
    ]
    expected = 8 * (1 - (1 - 1 / 8) ** 32)
    assert sum(found) / len(found) > expected - 0.2
    assert min(found) >= 5


def test_only_the_shards_of_a_group_are_open(
    many: zoo.Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    alive: list[weakref.ref[torch.Tensor]] = []
    plain = many.reader.open

    def counted(number: int) -> zoo.store.shards.OpenShard:
        shard = plain(number)
        alive.append(weakref.ref(shard.state["weight"]))
        return shard

    monkeypatch.setattr(many.reader, "open", counted)
    most = 0
    for _ in many.stream(32, open_shards=5):
        most = max(most, sum(tensor() is not None for tensor in alive))
    assert len(alive) == SHARDS
    assert most == 5


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_divide_the_networks(mixed: zoo.Zoo, persistent: bool) -> None:
    loader = DataLoader(
        mixed.stream(32),
        batch_size=None,
        num_workers=2,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(3),
    )
    passes = [[indices for _, indices in loader] for _ in range(2)]
    for found in passes:
        assert sorted(torch.cat(found).tolist()) == list(range(len(mixed)))
    assert not torch.equal(torch.cat(passes[0]), torch.cat(passes[1]))


def test_more_workers_than_shards(tmp_path: Path) -> None:
    few = lines(tmp_path, shards=1)
    loader = DataLoader(few.stream(8), batch_size=None, num_workers=2)
    found = [(graph.values["bias"][:, 0].long(), indices) for graph, indices in loader]
    assert sorted(torch.cat([i for _, i in found]).tolist()) == list(range(len(few)))
    assert all(torch.equal(biases, indices) for biases, indices in found)
