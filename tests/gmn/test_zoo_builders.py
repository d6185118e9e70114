"""The populations that can be built: every network a run of its own, and what it is stored as."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch.nn import functional

import converters
from baselines.attention.transformer_nfn import TransformerNFN
from gmn import zoo
from gmn.zoo import images
from gmn.zoo.architectures.networks import network
from gmn.zoo.architectures.transformers import SmallTransformer
from gmn.zoo.architectures.wild import wild_architectures
from gmn.zoo.building import catalogue
from gmn.zoo.building.builders import DEFAULT, Shard, finite
from gmn.zoo.building.catalogue import TRANSFORMER_RANGES
from gmn.zoo.images import ImageSet
from gmn.zoo.training.classifier_recipe import ClassifierRecipe
from gmn.zoo.training.classifying import (
    BATCH_SIZE,
    checkpoint_steps,
    draw_job,
    labels_and_masks,
    mean_gradients,
)
from gmn.zoo.training.ranges import Range
from gmn.zoo.training.states import stack
from gmn.zoo.training.transformer_recipe import TransformerRecipe
from gmn.zoo.training.transformer_training import (
    initialise,
    rate_factor,
    train_transformer,
)
from tests.gmn.alone import train_alone, train_together


def few(name: str, dtype: torch.dtype = torch.float64) -> ImageSet:
    full = images.load(name)
    return ImageSet(
        "few",
        full.train_images[:60].to(dtype),
        full.train_labels[:60],
        full.test_images[:50].to(dtype),
        full.test_labels[:50],
    )


def build(name: str, size: int, out, seed: int = 0, options=DEFAULT) -> zoo.Zoo:
    return zoo.build(name, size, seed, out, workers=1, progress=False, options=options)


# --- classifiers of many architectures -----------------------------------------------------------

SKIPPING = "1/8k3-gelu/4k5-leaky-relu/16k3-sigmoid+0/8k7-tanh+2/4k3-identity/10"


def test_architectures_of_the_wild_are_different_and_their_names_say_what_they_are():
    names = wild_architectures(200)
    assert len(set(names)) == 200
    assert wild_architectures(50) == names[:50]
    assert all(network(name).name == name for name in names)
    layers = [layer for name in names for layer in network(name).layers]
    assert {layer.channels for layer in layers} == {4, 8, 16, 32}
    assert {layer.kernel for layer in layers} == {3, 5, 7}
    assert len({layer.activation for layer in layers}) == 6
    assert {len(network(name).layers) for name in names} == {1, 2, 3, 4, 5}
    skips = {(at, layer.skip) for n in names for at, layer in enumerate(network(n).layers)}
    assert {(1, 0), (4, 0), (4, 3)} < skips  # from the image, and from any layer before the last
    assert not {(0, 0), (1, 1), (4, 4)} & skips


@pytest.mark.parametrize("architecture", [SKIPPING, "mlp-64-depth3"])
def test_other_classifiers_are_trained_side_by_side_as_each_alone(architecture):
    data, seeds = few("digits"), [5, 6]
    recipes = [ClassifierRecipe(steps, 0.01, 0.5, 1.0, 0.8, 0.2) for steps in (3, 6)]
    state, _ = train_together(network(architecture), recipes, data, seeds)
    for row, (recipe, seed) in enumerate(zip(recipes, seeds, strict=True)):
        alone = train_alone(architecture, recipe, data, seed)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name][row], value, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "name", [pytest.param("cnn-wild-digits", marks=pytest.mark.slow), "mlp-digits"]
)
def test_zoos_of_many_architectures(name, monkeypatch, tmp_path):
    chosen = catalogue.BUILDERS[name]
    few_names = (SKIPPING, chosen.architectures[0]) if "wild" in name else chosen.architectures[:2]
    shorter = replace(chosen.ranges, steps=replace(chosen.ranges.steps, high=6))
    small = replace(chosen, ranges=shorter, architectures=few_names)
    monkeypatch.setitem(catalogue.BUILDERS, name, small)
    built = build(name, 4, tmp_path)
    data = images.load("digits")
    assert built.architectures == sorted(few_names)
    for index in range(4):
        row = built.rows[index]
        assert row["architecture"] == few_names[index % 2]
        module = network(row["architecture"])
        module.load_state_dict(built.state(index))
        right = module(data.test_images).argmax(1) == data.test_labels
        assert row["test_accuracy"] == pytest.approx(float(right.double().mean()), abs=5e-3)
        assert built.spec(row["architecture"]).num_parameters == sum(
            value.numel() for value in module.parameters()
        )


def test_a_network_that_diverges_leaves_its_neighbours_alone():
    data, good = few("digits"), ClassifierRecipe(6, 0.01, 0.5, 1.0, 0.8, 0.2)
    recipes = [good, replace(good, learning_rate=1e300, weight_decay=0.0), good]
    state, metrics = train_together(network("cnn-relu"), recipes, data, [1, 2, 3])
    assert finite(state, metrics).tolist() == [True, False, True]
    for row, seed in ((0, 1), (2, 3)):
        alone = train_alone("cnn-relu", good, data, seed)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name][row], value, rtol=0, atol=1e-8)


def test_diverged_networks_are_counted_and_named_in_the_card(monkeypatch, tmp_path):
    chosen = catalogue.BUILDERS["mlp-digits"]
    wild = replace(
        chosen.ranges, steps=Range(4, 6), learning_rate=Range(1e-3, 1e40, logarithmic=True)
    )
    monkeypatch.setitem(catalogue.BUILDERS, "mlp-digits", replace(chosen, ranges=wild))
    built = build("mlp-digits", 12, tmp_path)
    card, ids = built.manifest["card"], {row["id"] for row in built.rows}
    assert 0 < card["diverged_and_kept_out"] < 12
    assert ids | set(card["diverged"]) == {f"{number:06d}" for number in range(12)}
    assert len(built) + card["diverged_and_kept_out"] == 12
    assert all(math.isfinite(row["test_loss"]) for row in built.rows)


# --- trajectories ---------------------------------------------------------------------------------


@pytest.fixture
def short_cnns(monkeypatch):
    chosen = catalogue.BUILDERS["cnn-digits"]
    ranges = replace(chosen.ranges, steps=Range(4, 9))
    monkeypatch.setitem(catalogue.BUILDERS, "cnn-digits", replace(chosen, ranges=ranges))


def test_checkpoints_are_the_states_that_a_run_goes_through():
    data, seeds = few("digits"), [5, 6, 7]
    recipes = [ClassifierRecipe(steps, 0.01, 0.5, 1.0, 0.8, 0.2) for steps in (4, 9, 6)]
    state, metrics = train_together(network("cnn-tanh"), recipes, data, seeds, checkpoints=3)
    assert len(metrics) == 9
    for run, (recipe, seed) in enumerate(zip(recipes, seeds, strict=True)):
        for number, step in enumerate(checkpoint_steps(recipe.steps, 3)):
            alone = train_alone("cnn-tanh", recipe, data, seed, until=step)
            row = 3 * run + number
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(state[name][row], value, rtol=0, atol=1e-8)
            scores = alone(data.test_images).detach()
            loss = float(functional.cross_entropy(scores, data.test_labels))
            assert metrics[row]["test_loss"] == pytest.approx(loss)


def test_gradients_are_those_of_the_mean_training_loss():
    data, module = few("digits"), network("cnn-relu").double()
    recipes = [ClassifierRecipe(5, 0.01, 0.5, 1.0, share, 0.4) for share in (0.5, 1.0)]
    jobs = [draw_job(module, recipe, seed, data) for seed, recipe in enumerate(recipes)]
    state = stack([job.initial for job in jobs])
    found = mean_gradients(module, state, data.train_images, *labels_and_masks(jobs))
    for row, job in enumerate(jobs):
        module.load_state_dict(job.initial)
        scores = module(data.train_images[job.visible])
        loss = functional.cross_entropy(scores, job.labels[job.visible])
        for name, value in zip(
            found, torch.autograd.grad(loss, list(module.parameters())), strict=True
        ):
            torch.testing.assert_close(found[name][row], value, rtol=0, atol=1e-12)


def test_a_zoo_of_trajectories(short_cnns, tmp_path):
    plain = build("cnn-digits", 4, tmp_path / "plain")
    options = zoo.Options(checkpoints=4, gradients=True)
    built = build("cnn-digits", 16, tmp_path / "long", options=options)
    rows = list(built.rows)
    assert [row["run"] for row in rows] == [i // 4 for i in range(16)]
    assert len({(row["run"], row["split"]) for row in rows}) == 4
    assert len({(row["run"], row["architecture"]) for row in rows}) == 4
    for run in range(4):
        steps = [row["step"] for row in rows[4 * run : 4 * run + 4]]
        assert steps == checkpoint_steps(rows[4 * run]["steps"], 4)
        for name, value in plain.state(run).items():  # run i is network i without checkpoints
            torch.testing.assert_close(built.state(4 * run + 3)[name], value, rtol=0, atol=1e-5)
    gradient = built.extra("gradient", [0, 1])
    assert {name: value.shape for name, value in gradient.items()} == {
        name: value.shape for name, value in built.stacked([0, 1]).items()
    }
    assert all(bool(value.isfinite().all()) for value in gradient.values())
    assert not torch.equal(gradient["head.weight"][0], gradient["head.weight"][1])


def test_choices_that_a_population_does_not_have_are_refused(short_cnns, tmp_path):
    with pytest.raises(ValueError, match="take 12"):
        build("cnn-digits", 9, tmp_path, options=zoo.Options(checkpoints=4))
    with pytest.raises(ValueError, match="shortest have 4 steps"):
        build("cnn-digits", 10, tmp_path, options=zoo.Options(checkpoints=5))
    with pytest.raises(ValueError, match="not of classifiers"):
        build("cnn-digits", 4, tmp_path, options=zoo.Options(views=2))
    with pytest.raises(ValueError, match="not of INRs"):
        build("inr-digits", 4, tmp_path, options=zoo.Options(gradients=True))
    with pytest.raises(ValueError, match="TicketBuilder has no choice of checkpoints"):
        build("tickets-digits", 4, tmp_path, options=zoo.Options(checkpoints=2))
    with pytest.raises(ValueError, match="at least 1"):
        zoo.Options(views=0)
    assert not list(tmp_path.iterdir())


# --- transformers --------------------------------------------------------------------------------


@pytest.fixture
def short_transformers(monkeypatch):
    chosen = catalogue.BUILDERS["transformer-digits"]
    monkeypatch.setitem(catalogue.BUILDERS, "transformer-digits", replace(chosen, steps=3))


def update(recipe: TransformerRecipe, rate: float, weight, gradient, memory: dict, step: int):
    """One step as the textbooks have it."""
    gradient = gradient + recipe.l2 * weight
    if recipe.optimiser == "sgd":
        return weight - rate * gradient
    if recipe.optimiser == "momentum":
        memory["v"] = 0.9 * memory.get("v", 0) + gradient
        return weight - rate * memory["v"]
    if recipe.optimiser == "rmsprop":
        memory["s"] = 0.99 * memory.get("s", 0) + 0.01 * gradient**2
        return weight - rate * gradient / (memory["s"].sqrt() + 1e-8)
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * gradient
    memory["s"] = 0.999 * memory.get("s", 0) + 0.001 * gradient**2
    mean, square = memory["m"] / (1 - 0.9**step), memory["s"] / (1 - 0.999**step)
    return weight - rate * mean / (square.sqrt() + 1e-8)


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop", "sgd", "momentum"])
def test_a_transformer_is_trained_by_its_recipe(optimiser):
    data = few("digits")
    recipe = TransformerRecipe(optimiser, 0.01, 0.2, 0.01, 0.5, 0.0)
    steps = 4
    module = network("transformer-8").double()
    kept, metrics = train_transformer(module, recipe, data, 7, steps, checkpoints=2)

    generator = torch.Generator().manual_seed(7)
    alone = network("transformer-8").double()

    initialise(alone, 0.2, generator)
    visible = torch.randperm(60, generator=generator)[:30]
    batches = visible[torch.randint(30, (steps, BATCH_SIZE), generator=generator)]
    memories: list[dict] = [{} for _ in alone.parameters()]
    for step, batch in enumerate(batches):
        loss = functional.cross_entropy(alone(data.train_images[batch]), data.train_labels[batch])
        gradients = torch.autograd.grad(loss, list(alone.parameters()))
        rate = 0.01 * rate_factor(step, steps)
        with torch.no_grad():
            for weight, gradient, memory in zip(
                alone.parameters(), gradients, memories, strict=True
            ):
                weight.copy_(update(recipe, rate, weight, gradient, memory, step + 1))
        if step in (1, 3):
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(kept[name][step // 2], value, rtol=0, atol=1e-8)
            scores = alone(data.train_images[visible]).detach()
            loss = float(functional.cross_entropy(scores, data.train_labels[visible]))
            assert metrics[step // 2]["train_loss"] == pytest.approx(loss)
    assert all(torch.equal(value, kept[name][1]) for name, value in module.state_dict().items())


def test_a_transformer_depends_on_its_number_and_seed_alone(short_transformers):
    builder = catalogue.BUILDERS["transformer-digits"]
    together, rows = builder.train(Shard(0, "transformer-8", (3, 4, 5)), 1)
    torch.rand(5)  # the global generator is nobody's business
    alone, row = builder.train(Shard(7, "transformer-8", (4,)), 1)
    other, _ = builder.train(Shard(7, "transformer-8", (4,)), 2)
    assert row[0] == rows[1]
    for name, value in alone.items():
        assert torch.equal(together[name][1], value[0])
    assert not torch.equal(alone["fc2.weight"], other["fc2.weight"])
    assert len({row["seed"] for row in rows}) == 3
    assert len({row["learning_rate"] for row in rows}) == 3


def test_dropout_is_of_training_only_and_of_the_seed():
    data, module = few("digits"), network("transformer-8").double()
    recipe = TransformerRecipe("sgd", 0.01, 0.2, 0.0, 1.0, 0.2)
    _, first = train_transformer(module, recipe, data, 1, 2)
    weights = module.fc1.weight.detach().clone()
    assert train_transformer(module, recipe, data, 1, 2)[1] == first
    assert torch.equal(module.fc1.weight, weights)
    train_transformer(module, replace(recipe, dropout=0.0), data, 1, 2)
    assert not torch.equal(module.fc1.weight, weights)


@pytest.mark.slow
def test_trajectories_of_transformers_have_gradients_too(short_transformers, tmp_path):
    plain = build("transformer-digits", 2, tmp_path / "plain")
    options = zoo.Options(checkpoints=3, gradients=True)
    built = build("transformer-digits", 6, tmp_path / "long", options=options)
    assert [(row["run"], row["step"]) for row in built.rows] == [
        (run, step) for run in (0, 1) for step in (1, 2, 3)
    ]
    for run in (0, 1):  # dropout and all: keeping states on the way changes nothing
        for name, value in plain.state(run).items():
            assert torch.equal(built.state(3 * run + 2)[name], value)
        assert plain.rows[run]["test_loss"] == built.rows[3 * run + 2]["test_loss"]
    data, row, module = images.load("digits"), built.rows[4], network("transformer-8").eval()
    builder = catalogue.BUILDERS["transformer-digits"]
    recipe = TransformerRecipe(**{name.name: row[name.name] for name in fields(TransformerRecipe)})
    visible = builder.job(module, recipe, row["seed"], data).visible
    module.load_state_dict(built.state(4))
    loss = functional.cross_entropy(module(data.train_images[visible]), data.train_labels[visible])
    found = built.extra("gradient", [4])
    for name, value in module.named_parameters():
        (expected,) = torch.autograd.grad(loss, value, retain_graph=True)
        torch.testing.assert_close(found[name][0], expected, rtol=1e-3, atol=1e-5)


def test_transformer_rows_and_card(short_transformers, tmp_path):
    built = build("transformer-digits", 4, tmp_path)
    data, row = images.load("digits"), built.rows[2]
    module = network("transformer-8").eval()
    module.load_state_dict(built.state(2))
    right = module(data.test_images).argmax(1) == data.test_labels
    assert row["test_accuracy"] == pytest.approx(float(right.double().mean()), abs=2.5e-3)
    drawn = TRANSFORMER_RANGES.learning_rate[row["optimiser"]]
    assert drawn.low <= row["learning_rate"] < drawn.high
    for key in ("init_std", "l2", "data_fraction", "dropout", "seed", "train_loss", "test_loss"):
        assert math.isfinite(row[key])
    assert sum(built.manifest["card"]["test_accuracy"]["transformer-8"]) == 4


def test_a_transformer_without_finite_loss_is_kept_out_and_counted(
    short_transformers, tmp_path, monkeypatch
):
    def one_diverges(*arguments):
        state, metrics = train_transformer(*arguments)
        calls.append(state)
        return state, [{**metrics[0], "test_loss": math.nan}] if len(calls) == 2 else metrics

    calls: list[dict] = []
    monkeypatch.setattr("gmn.zoo.building.transformer_builder.train_transformer", one_diverges)
    built = build("transformer-digits", 3, tmp_path)
    assert [row["id"] for row in built.rows] == ["000000", "000002"]
    assert built.manifest["card"]["diverged_and_kept_out"] == 1


def test_only_networks_with_finite_weights_and_metrics_are_kept():
    state = {"a": torch.tensor([[1.0], [math.inf], [1.0]]), "b": torch.zeros(3, 2, 2)}
    rows = [{"loss": 1.0, "id": "x"}, {"loss": 1.0, "id": "y"}, {"loss": math.nan, "id": "z"}]
    assert finite(state, rows).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "architecture", ["transformer-8", pytest.param("transformer-14", marks=pytest.mark.slow)]
)
def test_metanetworks_can_read_the_transformers(architecture):
    side = int(architecture.split("-")[1])
    module = network(architecture)
    image = torch.rand(1, 1, side, side)
    spec = converters.trace(module, (image,))
    assert converters.verify(module, (image,), spec, trials=2).ok
    reader = TransformerNFN(spec, channels=(2,), readout=3)
    assert reader(converters.to_graph(module, (image,))).shape == (1, 1)


def test_the_network_has_the_published_shapes():
    # All but the number of patches is as published: the embedding reads 4 × 4 pixels.
    ours, published = network("transformer-14"), SmallTransformer()
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in published.state_dict().items()}
    with pytest.raises(ValueError, match="one width"):
        network("transformer-14", widening=2)
