"""Winning tickets: found side by side as each alone, stored with their networks, and learnt."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn import symmetry, zoo
from gmn.comparison import compare, report
from gmn.graph import ParameterGraph
from gmn.nn import DualGMN, EditHead
from gmn.tasks import LabelError, WinningTickets, task_of
from gmn.tasks.answers import overlaps
from gmn.tasks.choice import describe, rebuilt
from gmn.train import Recipe, train
from gmn.zoo import images
from gmn.zoo.architectures.networks import MLP
from gmn.zoo.building import catalogue
from gmn.zoo.building.builders import Shard
from gmn.zoo.building.tickets import MASK, TicketBuilder, random_masks
from gmn.zoo.training import pruning
from gmn.zoo.training.classifying import initial_state
from gmn.zoo.training.pruning import TrainingSetup, accuracies, keep_largest, prune, synaptic_flow
from tests.gmn.population import small_zoo

pytestmark = pytest.mark.usefixtures("quick_costs")

NAME = "tickets-digits"
WEIGHTS = [f"layer{number}.weight" for number in (1, 2, 3)]


@pytest.fixture(autouse=True, scope="module")
def short_runs():
    """Few, short rounds, so that this file takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        tickets = catalogue.BUILDERS[NAME]
        short = replace(tickets, keep=0.2, rounds=2, steps=20, batch_size=16, learning_rate=3e-2)
        patch.setitem(catalogue.BUILDERS, NAME, short)
        yield


def build(out: Path, size: int = 52) -> zoo.Zoo:
    return zoo.build(NAME, size, 0, out, workers=1, progress=False)


@pytest.fixture(scope="module")
def built(short_runs, tmp_path_factory) -> zoo.Zoo:
    return build(tmp_path_factory.mktemp("tickets"))


@pytest.fixture(scope="module")
def task(built) -> WinningTickets:
    return WinningTickets(built)


def setup(steps: int = 15) -> TrainingSetup:
    data, chance = images.load("digits"), torch.Generator().manual_seed(1)
    batches = torch.randint(len(data.train_labels), (steps, 32), generator=chance)
    return TrainingSetup(data.train_images.flatten(1).double(), data.train_labels, batches, 1e-2)


def starts(count: int) -> dict[str, Tensor]:
    states = [
        initial_state(MLP(64), 1.0, torch.float64, torch.Generator().manual_seed(seed))
        for seed in range(count)
    ]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def prune_alone(
    initial: dict[str, Tensor], given: TrainingSetup, counts: list[dict[str, int]]
) -> list[dict[str, Tensor]]:
    """The slow and obvious way: one module, torch.optim, pruned weights zero after each step."""
    masks = {name: torch.ones_like(initial[name]) for name in counts[0]}
    rounds = []
    for kept in counts:
        module = MLP(64).double()
        module.load_state_dict(initial)
        weights = {name: module.get_parameter(name) for name in masks}
        optimiser = torch.optim.Adam(module.parameters(), lr=given.learning_rate)
        for name, weight in weights.items():
            weight.data *= masks[name]
        for step, batch in enumerate(given.batches):
            optimiser.param_groups[0]["lr"] = given.learning_rate * (1 - step / len(given.batches))
            optimiser.zero_grad()
            functional.cross_entropy(module(given.images[batch]), given.labels[batch]).backward()
            optimiser.step()
            for name, weight in weights.items():
                weight.data *= masks[name]
        for name, weight in weights.items():
            sizes = torch.where(masks[name] > 0, weight.detach().abs(), -1.0).flatten()
            chosen = sizes.argsort(descending=True)[: kept[name]]
            masks[name] = torch.zeros_like(sizes).index_fill(0, chosen, 1.0).view_as(weight)
        rounds.append(copy.copy(masks))
    return rounds


COUNTS = [
    {"layer1.weight": k, "layer2.weight": k // 2, "layer3.weight": 60} for k in (700, 250, 90)
]


def test_pruning_many_is_pruning_each_alone():
    initial, given = starts(3), setup()
    rounds, _ = prune(MLP(64), initial, given, COUNTS)
    for row in range(3):
        alone = prune_alone({n: v[row] for n, v in initial.items()}, given, COUNTS)
        for found, wanted in zip(rounds, alone, strict=True):
            for name in WEIGHTS:
                assert torch.equal(found[name][row], wanted[name]), name


def test_masks_are_nested_and_keep_exactly_so_many():
    initial = starts(2)
    before = {name: torch.ones_like(initial[name]) for name in WEIGHTS}
    untouched = {name: value.clone() for name, value in initial.items()}
    rounds, dense = prune(MLP(64), initial, setup(), COUNTS)
    for masks, counts in zip(rounds, COUNTS, strict=True):
        for name in WEIGHTS:
            assert masks[name].flatten(1).sum(1).tolist() == [counts[name]] * 2
            assert bool((masks[name] <= before[name]).all())
        before = masks
    assert all(torch.equal(initial[name], untouched[name]) for name in initial)
    assert not torch.equal(dense["layer1.weight"], initial["layer1.weight"])


def test_what_is_pruned_stays_zero_while_the_rest_learns():
    initial, given = starts(2), setup(steps=60)
    masks = {n: keep_largest(initial[n].abs(), initial[n][0].numel() // 3) for n in WEIGHTS}
    trained = given.train(MLP(64), initial, masks)
    for name in WEIGHTS:
        assert bool((trained[name][masks[name] == 0] == 0).all())
        assert bool((trained[name][masks[name] == 1] != initial[name][masks[name] == 1]).any())
    before = accuracies(MLP(64), initial, given.images, given.labels)
    after = accuracies(MLP(64), trained, given.images, given.labels)
    assert bool((after > before + 0.3).all())


def test_moved_initialisations_have_moved_tickets():
    """The group law: permuting hidden neurons permutes the masks, and nothing else."""
    initial, given = starts(1), setup()
    one, two = (torch.randperm(32, generator=torch.Generator().manual_seed(s)) for s in (0, 1))

    def move(values: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = dict(values)
        moved["layer1.weight"] = values["layer1.weight"][:, one]
        moved["layer2.weight"] = values["layer2.weight"][:, two][:, :, one]
        moved["layer3.weight"] = values["layer3.weight"][:, :, two]
        return moved

    here, there = (prune(MLP(64), start, given, COUNTS)[0] for start in (initial, move(initial)))
    for masks, others in zip(here, there, strict=True):
        assert all(torch.equal(move(masks)[name], others[name]) for name in WEIGHTS)


def test_the_zoo_holds_initialisations_beside_their_tickets(built):
    assert built.extras == [MASK]
    builder = catalogue.BUILDERS[NAME]
    counts = builder.counts(MLP(64))[-1]
    assert counts == {"layer1.weight": 410, "layer2.weight": 205, "layer3.weight": 143}
    masks, states = built.extra(MASK, [3, 51]), built.stacked([3, 51])
    for name, count in counts.items():
        assert masks[name].dtype == torch.bool
        assert masks[name].flatten(1).sum(1).tolist() == [count] * 2
    for row, number in enumerate((3, 51)):
        chance = torch.Generator().manual_seed(built.rows[number]["seed"])
        wanted = initial_state(MLP(64), 1.0, torch.float32, chance)
        assert all(torch.equal(states[name][row], value) for name, value in wanted.items())
    card = built.manifest["card"]
    assert card["weights_kept"] == {"mlp-64": counts}
    reached = [row["ticket_accuracy"] for row in built.rows]
    assert card["mean_accuracy"]["ticket"] == pytest.approx(sum(reached) / len(reached), abs=1e-4)


def test_rows_say_what_training_under_each_mask_reaches(built):
    builder, initial = TicketBuilder.of(built.manifest["configuration"]), built.stacked([0, 1])
    assert builder == catalogue.BUILDERS[NAME]
    counts, seeds = builder.counts(MLP(64))[-1], [row["seed"] for row in built.rows[:2]]
    masks = {
        "ticket": {name: mask.float() for name, mask in built.extra(MASK, [0, 1]).items()},
        "random": random_masks({name: initial[name] for name in counts}, counts, seeds),
        "magnitude": {name: keep_largest(initial[name].abs(), k) for name, k in counts.items()},
        "dense": {name: torch.ones_like(initial[name]) for name in counts},
    }
    for name, mask in masks.items():
        found = builder.accuracy(MLP(64), initial, mask)
        wanted = torch.tensor([row[f"{name}_accuracy"] for row in built.rows[:2]])
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.01)


@pytest.mark.slow
def test_a_build_can_be_repeated_and_resumed(built, tmp_path):
    again = build(tmp_path / "again")
    first, second = (
        {f.name: f.read_bytes() for f in z.folder.glob("shard-*")} for z in (built, again)
    )
    assert first == second
    assert len(first) == 2
    (again.folder / "shard-00001.safetensors").unlink()
    resumed = build(again.folder)
    assert {f.name: f.read_bytes() for f in resumed.folder.glob("shard-*")} == first
    larger = build(tmp_path / "larger", size=54)
    assert torch.equal(larger.extra(MASK, [50])[WEIGHTS[0]], built.extra(MASK, [50])[WEIGHTS[0]])


def edited(graph: ParameterGraph, masks: dict[str, Tensor]) -> ParameterGraph:
    """A network whose large weights are those of masks."""
    return graph.replace({name: 0.1 * graph.values[name] + masks[name] for name in WEIGHTS})


def test_the_loss_prefers_the_ticket(task, built):
    (part,) = task.split("test")
    true = {name: mask.float() for name, mask in built.extra(MASK, part.numbers).items()}
    false = random_masks({n: part.graph.values[n] for n in WEIGHTS}, task.kept, range(len(part)))
    right, wrong = edited(part.graph, true), edited(part.graph, false)
    assert float(task.loss(right, part.target)) < 0.8 * float(task.loss(wrong, part.target))
    assert torch.equal(task.prediction(right), part.target)
    assert task.metrics(part.target, part.target) == {"overlap": 1.0}
    found = task.metrics(task.prediction(wrong), part.target)["overlap"]
    assert found == pytest.approx(758 / 3392, abs=0.06)


def test_the_loss_does_not_ask_for_smaller_weights(task):
    (part,) = task.split("test")
    size = torch.ones((), requires_grad=True)
    scaled = part.graph.replace({name: part.graph.values[name] * size for name in WEIGHTS})
    task.loss(scaled, part.target).backward()
    assert size.grad is not None
    assert abs(float(size.grad)) < 1e-5


def test_to_change_nothing_is_magnitude_pruning(task):
    (part,) = task.split("test")
    known = task.baselines()
    assert torch.equal(task.prediction(part.graph), known["magnitude"])
    untrained = DualGMN(16, 2, task.outputs)
    close = overlaps(task.prediction(untrained(part.graph)), known["magnitude"])
    assert float(close.min()) > 0.9


def test_moving_hidden_neurons_moves_the_prediction(task):
    (part,) = task.split("test")
    graph, chance = part.graph.to(dtype=torch.float64), torch.Generator().manual_seed(5)
    torch.manual_seed(0)
    model = DualGMN(16, 2, EditHead()).double()
    element = symmetry.sample(graph.spec, chance, scalings=False)
    moved = element.act_on_graph(graph)
    with torch.no_grad():
        here, there = task._shaped(task.prediction(model(graph))), task.prediction(model(moved))
    masks = graph.replace({name: here[name].double() for name in WEIGHTS})
    wanted = element.act_on_graph(masks).values
    assert torch.equal(task._flat({name: wanted[name] for name in WEIGHTS}), there)


KEPT = {"layer1.weight": 60, "layer2.weight": 40, "layer3.weight": 30}


def initialisations(networks: int = 3) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(4)
    states = [initial_state(MLP(64), 1.0, torch.float64, chance) for _ in range(networks)]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def test_synaptic_flow_is_the_product_of_all_paths(monkeypatch):
    monkeypatch.setattr(pruning, "FLOW_ROUNDS", 1)
    initial = initialisations()
    masks = synaptic_flow(MLP(64), initial, torch.zeros(1, 64), KEPT)
    first, second, third = (initial[name].abs() for name in WEIGHTS)
    into = first.sum(2)  # of each neuron of the first layer, from inputs of one
    scores = {
        "layer1.weight": first * (third.sum(1, keepdim=True) @ second).mT,
        "layer2.weight": second * third.sum(1).unsqueeze(2) * into.unsqueeze(1),
        "layer3.weight": third * (second @ into.unsqueeze(2)).mT,
    }
    for name, count in KEPT.items():
        assert torch.equal(masks[name], keep_largest(scores[name], count))


def test_synaptic_flow_keeps_counts_and_moves_with_neurons():
    initial, order = initialisations(), torch.randperm(32, generator=torch.Generator())
    masks = synaptic_flow(MLP(64), initial, torch.zeros(1, 64), KEPT)
    moved = dict(initial)
    moved["layer1.weight"] = initial["layer1.weight"][:, order]
    moved["layer2.weight"] = initial["layer2.weight"][:, :, order]
    found = synaptic_flow(MLP(64), moved, torch.zeros(1, 64), KEPT)
    assert torch.equal(found["layer1.weight"], masks["layer1.weight"][:, order])
    assert torch.equal(found["layer2.weight"], masks["layer2.weight"][:, :, order])
    for name, count in KEPT.items():
        assert (masks[name].flatten(1).sum(1) == count).all()


def test_baselines_are_those_of_the_zoo(task, built):
    numbers, known = built.indices("test").tolist(), task.baselines()
    for baseline, column in (
        ("random", "random"),
        ("magnitude", "magnitude"),
        ("iterative magnitude pruning", "ticket"),
        ("no pruning", "dense"),
    ):
        found = task.accuracies(known[baseline])
        wanted = torch.tensor([built.rows[number][f"{column}_accuracy"] for number in numbers])
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.01)
    for masks in known.values():
        assert masks.shape == task.split("test")[0].target.shape
    dense = task.metrics(known["no pruning"], task.split("test")[0].target)
    assert dense["overlap"] == pytest.approx(758 / 3392)


def test_the_mean_ticket_keeps_the_pixels_that_tickets_keep(task, built):
    often = built.extra(MASK, built.indices("train"))["layer1.weight"].float().mean((0, 1))
    mean = task._shaped(task.baselines()["mean ticket"])["layer1.weight"].mean((0, 1))
    assert 0 < int((mean > 0).sum()) < 64
    assert float(often[mean > 0].min()) >= float(often[mean == 0].max())


def test_a_model_learns_and_a_comparison_shows_the_baselines(built):
    assert isinstance(task_of(built.folder), WinningTickets)
    result = compare(
        partial(task_of, built.folder),
        {"dual": lambda spec, head: DualGMN(16, 2, head)},
        seeds=1,
        recipe=Recipe(epochs=2, batch_size=16),
        workers=1,
        progress=False,
    )
    assert list(result.rows[0].metrics) == ["overlap", "accuracy"]
    assert result.baselines["iterative magnitude pruning"]["overlap"] == 1
    assert "mean ticket x magnitude" in str(result)
    assert len(report.plot(result).axes) == 2
    assert len(result.to_json()) < 20_000


class Pixels(nn.Module):
    """Multiplies the weights of each pixel by a factor of its own."""

    learning_rate = 5e-2

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(64))

    def forward(self, graph: ParameterGraph) -> ParameterGraph:
        first = graph.values["layer1.weight"]
        return graph.replace({"layer1.weight": first * self.factor.exp()})


class UpperHalf(WinningTickets):
    """Tickets that are known: the largest weights, of the first layer those of 32 pixels alone."""

    def targets(self, graph: ParameterGraph, numbers: Tensor) -> Tensor:
        sizes = {name: graph.values[name].abs() for name in WEIGHTS}
        sizes["layer1.weight"] = sizes["layer1.weight"] * (torch.arange(64) < 32)
        return self._largest(sizes)


def test_a_model_learns_what_tickets_have_in_common(built):
    task, model = UpperHalf(built), Pixels()
    (part,) = task.split("test")
    before = task.metrics(task.prediction(model(part.graph)), part.target)["overlap"]
    result = train(model, task, Recipe(epochs=15, batch_size=8))
    found = task.prediction(model(part.graph))
    assert before < 0.8
    assert result.metrics["overlap"] > 0.95
    assert torch.equal(result.prediction, found)
    assert result.metrics == task.test_metrics(found, part.target)


def test_a_task_without_data_says_what_answers_stand_for(task):
    again = rebuilt(describe(task))
    graph = task.split("val")[0].graph
    assert torch.equal(again.prediction(graph), task.prediction(graph))
    with pytest.raises(ValueError, match="kept"):
        WinningTickets()


def test_other_populations_are_refused(tmp_path):
    with pytest.raises(LabelError, match=r"cnn-relu, cnn-tanh, with nothing.*tickets-digits"):
        WinningTickets(small_zoo(tmp_path))


def test_mnist_has_tickets_too():
    small = TicketBuilder("mnist", ("mlp-196",), rounds=1, steps=2)
    state, rows, extras = small.train_with_extras(Shard(0, "mlp-196", (0, 1)), 0)
    assert state["layer1.weight"].shape == extras[MASK]["layer1.weight"].shape == (2, 32, 196)
    assert isinstance(rows[0]["ticket_accuracy"], float)
    assert isinstance(MLP(196), nn.Module)
