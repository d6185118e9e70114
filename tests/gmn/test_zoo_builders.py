"""The populations that can be built: every network a run of its own, and what it is stored as."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import converters
from baselines.transformer_nfn import TransformerNFN
from gmn import zoo
from gmn.zoo import catalogue, images
from gmn.zoo.builders import Shard, finite
from gmn.zoo.catalogue import TRANSFORMER_RANGES
from gmn.zoo.images import ImageSet
from gmn.zoo.networks import network
from gmn.zoo.transformer_recipe import TransformerRecipe
from gmn.zoo.transformer_training import BATCH_SIZE, initialise, rate_factor, train_transformer
from gmn.zoo.transformers import SmallTransformer


def few(name: str, dtype: torch.dtype = torch.float64) -> ImageSet:
    full = images.load(name)
    return ImageSet(
        "few",
        full.train_images[:60].to(dtype),
        full.train_labels[:60],
        full.test_images[:50].to(dtype),
        full.test_labels[:50],
    )


def build(name: str, size: int, out, seed: int = 0) -> zoo.Zoo:
    return zoo.build(name, size, seed, out, workers=1, progress=False)


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
    metrics = train_transformer(module, recipe, data, 7, steps)

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
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=0, atol=1e-8)
    scores = alone(data.train_images[visible]).detach()
    assert metrics["train_loss"] == pytest.approx(
        float(functional.cross_entropy(scores, data.train_labels[visible]))
    )


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
    first = train_transformer(module, recipe, data, 1, 2)
    weights = module.fc1.weight.detach().clone()
    assert train_transformer(module, recipe, data, 1, 2) == first
    assert torch.equal(module.fc1.weight, weights)
    train_transformer(module, replace(recipe, dropout=0.0), data, 1, 2)
    assert not torch.equal(module.fc1.weight, weights)


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
    def one_diverges(module, recipe, data, seed, steps):
        metrics = train_transformer(module, recipe, data, seed, steps)
        calls.append(seed)
        return {**metrics, "test_loss": math.nan} if len(calls) == 2 else metrics

    calls: list[int] = []
    monkeypatch.setattr("gmn.zoo.transformer_builder.train_transformer", one_diverges)
    built = build("transformer-digits", 3, tmp_path)
    assert [row["id"] for row in built.rows] == ["000000", "000002"]
    assert built.manifest["card"]["diverged_and_kept_out"] == 1


def test_only_networks_with_finite_weights_and_metrics_are_kept():
    state = {"a": torch.tensor([[1.0], [math.inf], [1.0]]), "b": torch.zeros(3, 2, 2)}
    rows = [{"loss": 1.0, "id": "x"}, {"loss": 1.0, "id": "y"}, {"loss": math.nan, "id": "z"}]
    assert finite(state, rows).tolist() == [True, False, False]


@pytest.mark.parametrize("architecture", ["transformer-8", "transformer-14"])
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
