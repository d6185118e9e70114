"""Autoencoding of weights: losses that see what they should, and training end to end."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import gmn
from gmn import symmetry, zoo
from gmn.comparison import report
from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.stack import stack
from gmn.tasks import Autoencoding, PixelGrid, task_of
from gmn.tasks.autoencoder import Decoder
from gmn.tasks.choice import describe, rebuilt
from gmn.tasks.matching import matched
from gmn.train import Recipe, load, train
from tests.gmn.commands import run
from tests.gmn.editors import small
from tests.gmn.inrs import small_inrs
from tests.gmn.population import small_zoo
from tests.traced import BY_NAME, graph_of

pytestmark = pytest.mark.usefixtures("quick_costs")


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    return small_inrs(tmp_path_factory.mktemp("inrs"), 60, 10)


# --- matching -----------------------------------------------------------------------------------


def moved(graph: ParameterGraph, seed: int) -> ParameterGraph:
    """The networks with their units in another order, each its own."""
    chance = torch.Generator().manual_seed(seed)
    parts = [
        symmetry.sample(graph.spec, chance, symmetries={"permutations"}).act_on_graph(graph[i])
        for i in range(len(graph))
    ]
    return ParameterGraph.cat(parts)


def distance(first: ParameterGraph, second: ParameterGraph) -> Tensor:
    return torch.stack(
        [
            (v - second.values[n]).detach().square().reshape(len(v), -1).sum(1)
            for n, v in first.values.items()
        ]
    ).sum(0)


def noisy(graph: ParameterGraph, size: float) -> ParameterGraph:
    chance = torch.Generator().manual_seed(9)
    values = {
        n: v + size * v.std() * torch.randn(v.shape, generator=chance, dtype=v.dtype)
        for n, v in graph.values.items()
    }
    return graph.replace(values)


def chain(*widths: int) -> ParameterGraph:
    import converters

    torch.manual_seed(0)
    sizes = list(pairwise(widths))
    layers = [part for a, b in sizes for part in (nn.Linear(a, b), nn.Tanh())][:-1]
    spec = converters.trace(nn.Sequential(*layers), (torch.zeros(1, widths[0]),))
    states = [{e.name: torch.randn(e.shape).double() for e in spec.entries} for _ in range(3)]
    return ParameterGraph.from_state_dicts(spec, states)


@pytest.mark.parametrize("widths", [(3, 8, 2), (2, 16, 16, 16, 16, 16, 1)])
def test_the_order_of_units_is_found_again(widths: tuple[int, ...]) -> None:
    graph = chain(*widths)
    close = noisy(graph, 0.05)
    expected = distance(close, graph)
    found = matched(moved(close, 1), graph)
    torch.testing.assert_close(distance(found, graph), expected)
    assert float(distance(moved(close, 1), graph).min()) > 10 * float(expected.max())


def test_one_layer_is_matched_as_well_as_can_be() -> None:
    first, second = chain(3, 4, 2), noisy(chain(3, 4, 2), 3.0)
    best = []
    for order in permutations(range(4)):
        values = dict(second.values)
        values["0.weight"], values["0.bias"] = (
            values[f"0.{n}"][:, order] for n in ("weight", "bias")
        )
        values["2.weight"] = values["2.weight"][:, :, order]
        best.append(distance(second.replace(values), first))
    torch.testing.assert_close(distance(matched(second, first), first), torch.stack(best).amin(0))


def test_far_networks_are_matched_alike_in_any_order() -> None:
    first, second = chain(3, 8, 8, 8, 2), noisy(chain(3, 8, 8, 8, 2), 3.0)
    expected = distance(matched(second, first), first)
    torch.testing.assert_close(distance(matched(moved(second, 1), first), first), expected)
    other = moved(first, 2)
    torch.testing.assert_close(distance(matched(second, other), other), expected)
    assert bool((expected < distance(second, first)).all())


@pytest.mark.parametrize(
    "name", ["mlp-tanh", "cnn-flatten", "resnet", "transformer", "tied-hidden"]
)
def test_matching_only_moves_units(name: str) -> None:
    graph = graph_of(BY_NAME[name], 2)
    assert float(distance(matched(graph, graph), graph).max()) == 0
    made = matched(moved(graph, 3), graph)
    for name, value in made.values.items():
        found, before = (v.reshape(2, -1).sort(dim=1).values for v in (value, graph.values[name]))
        assert torch.equal(found, before), name


def test_gradients_pass_through_matching() -> None:
    graph = chain(3, 4, 2)
    leaves = {n: v.clone().requires_grad_() for n, v in moved(graph, 1).values.items()}
    made = matched(graph.replace(leaves), noisy(graph, 0.1))
    sum(value.square().sum() for value in made.values.values()).backward()  # type: ignore[union-attr]
    for value in leaves.values():
        assert value.grad is not None
        torch.testing.assert_close(value.grad, 2 * value.detach())  # every weight counts once


# --- losses -------------------------------------------------------------------------------------


def test_losses_see_what_they_should(population: zoo.Zoo) -> None:
    (part,) = Autoencoding(population).split("train")
    given, close = part.graph[:4], noisy(part.graph[:4], 0.01)
    chance = torch.Generator().manual_seed(0)
    flipped = symmetry.sample(given.spec, chance, symmetries={"scalings"}).act_on_graph(close)
    seen = {
        way: [
            float(Autoencoding(population, loss=way).loss(stack([made, given]), part.target[:4]))
            for made in (close, moved(close, 1), flipped)
        ]
        for way in ("function", "set", "weights", "sliced", "tree", "sliced+function")
    }
    same = seen["function"]
    assert same[0] > 0
    assert same[1:] == pytest.approx([same[0]] * 2, rel=1e-3)
    assert seen["set"][0] == pytest.approx(seen["weights"][0], rel=1e-5)
    for way in ("set", "sliced", "tree"):
        assert seen[way][1] == pytest.approx(seen[way][0], rel=1e-4)
        assert seen[way][2] > 5 * seen[way][0]  # signs and phases are not followed
    assert min(seen["weights"][1:]) > 10 * seen["weights"][0]
    assert seen["sliced+function"] == pytest.approx(
        [a + b for a, b in zip(seen["sliced"], seen["function"], strict=True)]
    )
    for loss in ("sets", "sliced+sets"):
        with pytest.raises(ValueError, match="'sets'; known: function, set, weights, sliced, tree"):
            Autoencoding(population, loss=loss)


@pytest.mark.parametrize("way", ["set", "sliced", "tree"])
def test_the_order_of_units_costs_nothing(population: zoo.Zoo, way: str) -> None:
    task = Autoencoding(population, loss=way)
    (part,) = task.split("train")
    given = part.graph[:4]
    leaves = {n: v.clone().requires_grad_() for n, v in given.values.items()}
    made = moved(given.replace(leaves), 1)
    assert float(task.loss(stack([made, given]), part.target[:4]).detach()) < 1e-6
    task.loss(stack([noisy(made, 0.1), given]), part.target[:4]).backward()
    for value in leaves.values():
        assert value.grad is not None
        assert float(value.grad.abs().min()) >= 0
        assert float(value.grad.abs().max()) > 0


def one_hidden_layer(folder: Path) -> zoo.Zoo:
    """Networks 2-8-1 along a line in weight space, their units in random order."""
    base = chain(2, 8, 1).to(dtype=torch.float32)
    chance = torch.Generator().manual_seed(0)
    places = 2 * torch.rand(60, generator=chance) - 1
    values = {
        n: torch.stack([v[0] + t * v[1] for t in places.tolist()]) for n, v in base.values.items()
    }
    graph = moved(ParameterGraph(base.spec, values), 0)
    splits = ("train", "train", "train", "val", "test")
    rows = [
        {"id": f"{i:02d}", "split": splits[i % 5], "place": float(places[i])} for i in range(60)
    ]
    with zoo.ZooWriter(folder, "lines", 60, 0, {}) as writer:
        writer.write_shard(0, "mlp", graph.spec, graph.values, rows)
        writer.finish(1, {})
    return zoo.open(folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sliced", "tree"])
def test_clouds_of_one_hidden_layer_are_the_network(tmp_path: Path, way: str) -> None:
    task = Autoencoding(one_hidden_layer(tmp_path), latent=4, loss=way, height=6, width=6)
    torch.manual_seed(0)
    model = task.build(small, task.split("train")[0].graph.spec)
    found = train(model, task, Recipe(epochs=25, batch_size=12, learning_rate=5e-3))
    assert found.metrics["r2"] > 0.8


def test_metrics(population: zoo.Zoo) -> None:
    task = Autoencoding(population)
    (part,) = task.split("test")
    assert part.target.shape[1:] == (1, 8, 8)
    torch.testing.assert_close(part.target, PixelGrid(8, 8).images(part.graph))
    assert task.metrics(part.target, part.target)["r2"] == 1
    mean = part.target.mean(0, keepdim=True).expand_as(part.target)
    assert task.metrics(mean, part.target)["r2"] == pytest.approx(0, abs=1e-6)
    assert task.metrics(part.target + 0.1, part.target)["psnr"] == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize(
    "way",
    ["set", *(pytest.param(w, marks=pytest.mark.slow) for w in ("function", "weights", "tree"))],
)
def test_every_loss_trains(population: zoo.Zoo, way: str) -> None:
    task = Autoencoding(population, latent=16, loss=way)
    graph = task.split("train")[0].graph
    torch.manual_seed(0)
    model = task.build(small, graph.spec)
    assert isinstance(model, nn.Module)
    losses = []
    for epochs in (1, 6):
        train(model, task, Recipe(epochs=epochs, batch_size=12, learning_rate=epochs * 5e-4))
        with torch.no_grad():
            losses.append(float(task.loss(model(graph), task.split("train")[0].target)))
    assert losses[1] < 0.9 * losses[0]


# --- the model ----------------------------------------------------------------------------------


def test_a_decoder_begins_at_a_network(population: zoo.Zoo) -> None:
    state = population.state(3)
    decoder = Decoder(population.spec("siren"), 5, state, {})
    nn.init.zeros_(decoder.body[-1].weight)
    nn.init.zeros_(decoder.body[-1].bias)
    made = decoder(torch.randn(2, 5))
    for name, value in state.items():
        assert torch.equal(made.values[name][1], value)


def test_what_cannot_be_autoencoded_is_refused(population: zoo.Zoo, tmp_path: Path) -> None:
    cnns = small_zoo(tmp_path)
    with pytest.raises(ValueError, match="networks of one architecture, and there are 2; take"):
        Autoencoding(cnns)
    task = Autoencoding(population, latent=4)
    with pytest.raises(UnsupportedArchitecture, match="fitted at once, so it cannot be an encoder"):
        task.build(gmn.registry.find("layer-statistics"), population.spec("siren"))
    model = task.build(small, population.spec("siren"))
    assert isinstance(model, nn.Module)
    with pytest.raises(UnsupportedArchitecture, match="of one architecture"):
        model(cnns.graph([0]))
    normed = graph_of(BY_NAME["batch-norm"]).spec
    with pytest.raises(UnsupportedArchitecture, match="is a running statistic"):
        Decoder(normed, 4)


def test_networks_without_images_are_asked_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cnns = small_zoo(tmp_path)
    monkeypatch.setattr(zoo.Zoo, "architectures", property(lambda self: ["cnn-tanh"]))
    task = Autoencoding(cnns, latent=4, probes=5)
    assert (task.kind, task.grid) == ("function", None)
    assert task.split("test")[0].target.shape == (8, 5 * 10)
    assert set(task.metrics(*2 * (task.split("test")[0].target,))) == {"r2", "mse"}
    assert rebuilt(describe(task)).settings() == {"latent": 4, "loss": "function", "probes": 5}


# --- the commands -------------------------------------------------------------------------------


def test_from_the_command_line(
    population: zoo.Zoo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, out = tmp_path / "model", tmp_path / "made"
    names = ["-m", "tests.gmn.editors:small", "--task", "autoencoding", "-O", "latent=8"]
    loss = ["-O", "loss=sliced+function"]
    command = ["train", str(population.folder), *names, *loss, "-o", str(model)]
    assert run(monkeypatch, *command, "--epochs", "1") == 0
    assert "for comparison, always the mean: r2 " in capsys.readouterr().out
    save_file(population.state(0), tmp_path / "a.safetensors")
    files = [str(tmp_path / "a.safetensors"), "--out", str(out)]
    trust = "tests.gmn.editors"
    assert run(monkeypatch, "predict", str(model), *files, "--trust", trust) == 0
    trained = load(model, trust=[trust])
    assert trained.task.settings()["loss"] == "sliced+function"
    (made,) = trained.networks(population.graph([0]))
    written = load_file(out / "a.safetensors")
    assert all(torch.equal(v, written[n]) for n, v in made.to_state_dict().items())


def test_comparisons_show_outputs(population: zoo.Zoo) -> None:
    from functools import partial

    found = gmn.compare(
        partial(task_of, population.folder, "autoencoding", {"latent": 4}),
        {"small": small, "layer-statistics": gmn.registry.find("layer-statistics")},
        seeds=1,
        recipe=Recipe(epochs=1),
        workers=1,
        progress=False,
    )
    assert found.refused == {"layer-statistics": "it is fitted at once, so it cannot be an encoder"}
    assert "R²" in str(found)
    assert "MSE" in str(found)
    figure = report.output_plot(found)
    assert len(figure.axes) == 1
    assert len(report.plot(found).axes) == 3 * 6
