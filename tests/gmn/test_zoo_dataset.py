"""A zoo is a data set of PyTorch: indexing, iteration, selection, loaders."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import Dataset, Subset, random_split

from gmn import zoo
from gmn.augment import SampledSymmetry
from gmn.graph import ParameterGraph
from gmn.nn import GMN, read_all
from gmn.tasks import AccuracyPrediction, minibatches
from tests.gmn.population import PER_ARCHITECTURE, small_zoo


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    return small_zoo(tmp_path_factory.mktemp("dataset") / "zoo")


def test_one_network_comes_with_its_row(population: zoo.Zoo) -> None:
    assert isinstance(population, Dataset)
    graph = population[3]
    assert len(graph) == 1
    assert graph.rows == [population.rows[3]]
    expected = population.state(3)
    assert all(torch.equal(v, expected[k]) for k, v in graph.to_state_dict().items())
    assert torch.equal(population[-1].values["conv1.bias"][0], population.state(79)["conv1.bias"])
    with pytest.raises(IndexError, match="network 80 asked for"):
        population[80]


def test_slices_are_graphs_or_one_for_each_architecture(population: zoo.Zoo) -> None:
    assert len(population[:8]) == 8
    assert population[:2].rows == population.rows[:2]
    found = population[PER_ARCHITECTURE - 2 : PER_ARCHITECTURE + 3]
    assert isinstance(found, list)
    assert [len(graph) for graph in found] == [2, 3]
    mixed = population[[70, 1, 71]]
    rows = population.rows
    assert [graph.rows for graph in mixed] == [[rows[70], rows[71]], [rows[1]]]
    with pytest.raises(IndexError, match="no networks"):
        population[5:5]


def test_iteration_and_splits_of_pytorch(population: zoo.Zoo) -> None:
    assert [graph.rows[0]["id"] for graph in population] == [r["id"] for r in population.rows]
    first, second = random_split(population, [60, 20])
    assert isinstance(first, Subset)
    assert len(first) + len(second) == len(population)
    assert isinstance(first[0], ParameterGraph)


def test_rows_go_along(population: zoo.Zoo) -> None:
    graph = population[:4]
    assert graph[1:3].rows == graph.rows[1:3]
    assert graph[torch.tensor([True, False, False, True])].rows == [graph.rows[0], graph.rows[3]]
    assert graph[[2, 0]].rows == [graph.rows[2], graph.rows[0]]
    assert graph.to(dtype=torch.float64).rows == graph.rows
    assert graph.replace({"conv1.bias": graph.values["conv1.bias"] + 1}).rows == graph.rows
    assert ParameterGraph.cat([graph[:1], graph[2:]]).rows == [graph.rows[i] for i in (0, 2, 3)]
    plain = ParameterGraph(graph.spec, graph.values)
    assert plain.rows is None
    assert ParameterGraph.cat([graph, plain]).rows is None
    with pytest.raises(ValueError, match="1 rows for 4 networks"):
        ParameterGraph(graph.spec, graph.values, [{}])


def test_labels_by_name(population: zoo.Zoo) -> None:
    assert torch.equal(population.labels["test_accuracy"], population.labels("test_accuracy"))
    assert set(population.labels) >= {"test_accuracy", "steps"}
    assert "test_accuracy" in str(population.labels)
    with pytest.raises(KeyError, match="no label is called 'loss'"):
        population.labels["loss"]


def test_selected_networks_are_a_zoo(population: zoo.Zoo) -> None:
    good = population.select(where="test_accuracy>=0.5", split="train")
    assert isinstance(good, zoo.Zoo)
    assert 0 < len(good) < len(population)
    assert bool((good.labels["test_accuracy"] >= 0.5).all())
    assert all(row["split"] == "train" for row in good.rows)
    ids = [row["id"] for row in population.rows]
    number = ids.index(good.rows[5]["id"])
    assert all(torch.equal(v, good.state(5)[k]) for k, v in population.state(number).items())
    tanh = good.select(architecture="cnn-tanh")
    assert tanh.architectures == ["cnn-tanh"]
    assert tanh.select(["steps<20"]).rows == [r for r in tanh.rows if r["steps"] < 20]
    again = pickle.loads(pickle.dumps(tanh))
    assert again.rows == tanh.rows
    assert torch.equal(again[0].values["conv1.weight"], tanh[0].values["conv1.weight"])
    assert population.architectures == ["cnn-relu", "cnn-tanh"]


def test_loaders_give_every_network_once(population: zoo.Zoo) -> None:
    accuracies = population.labels["test_accuracy"]
    for shuffle in (False, True):
        loader = population.loader("train", batch_size=10, shuffle=shuffle)
        seen = [targets for _, targets in loader]
        assert len(seen) == len(loader)
        found = torch.cat(seen).sort().values
        assert torch.equal(found, accuracies[population.indices("train")].sort().values)
    assert torch.equal(
        torch.cat([t for _, t in population.loader(batch_size=7)]), accuracies
    )  # in the order of the zoo
    (two,) = population.loader("test", 100, target=["test_accuracy", "steps"], shuffle=True)
    assert two[1].shape == (16, 2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        population.loader(batch_size=0)


def test_minibatches_are_ready_for_a_model(population: zoo.Zoo) -> None:
    net, kinds = GMN(8, 1), set()
    for graph, targets in population.loader("train", batch_size=10, shuffle=True):
        kinds.add(type(graph))
        answer = read_all(net, graph) if isinstance(graph, list) else net(graph)
        assert len(answer) == len(targets)
    assert kinds == {list, ParameterGraph}


def test_training_sees_the_same_minibatches(population: zoo.Zoo) -> None:
    """Networks, targets and order of the loader are those of the task's own."""
    task = AccuracyPrediction(population)
    order = torch.Generator().manual_seed(4)
    loader = population.loader("train", batch_size=8, shuffle=True, seed=4)
    for pieces, (_, targets) in zip(
        minibatches(task.split("train"), 8, order), loader, strict=True
    ):
        assert torch.equal(torch.cat([piece.target for piece in pieces]), targets)


def test_transforms_and_passes_differ_and_repeat(population: zoo.Zoo) -> None:
    def passes(seed: int) -> list[list[torch.Tensor]]:
        loader = population.select(architecture="cnn-relu").loader(
            "train", 24, shuffle=True, seed=seed, transform=SampledSymmetry()
        )
        return [[graph.values["conv2.weight"] for graph, _ in loader] for _ in range(2)]

    first, second = passes(0)
    assert not torch.equal(first[0], second[0])
    again = [values for each in passes(0) for values in each]
    assert all(torch.equal(a, b) for a, b in zip(first + second, again, strict=True))
    assert not torch.equal(first[0], passes(1)[0][0])
