"""The populations that can be built by name."""

from __future__ import annotations

from dataclasses import replace

from gmn.zoo.architectures.wild import wild_architectures
from gmn.zoo.building.backdoor_builder import BackdoorBuilder
from gmn.zoo.building.builders import Builder
from gmn.zoo.building.classifiers import ClassifierBuilder
from gmn.zoo.building.inrs import InrBuilder
from gmn.zoo.building.tickets import TicketBuilder
from gmn.zoo.building.transformer_builder import TransformerBuilder
from gmn.zoo.building.ways_builder import WaysBuilder
from gmn.zoo.training.augmentation import AUGMENTATIONS
from gmn.zoo.training.backdoor import BackdoorRanges
from gmn.zoo.training.classifier_recipe import ClassifierRanges
from gmn.zoo.training.ranges import Range
from gmn.zoo.training.transformer_recipe import TransformerRanges
from gmn.zoo.training.ways import WaysRanges

# Length and strength of training spread the accuracies, and both leave their trace in the weights.
# Wide ranges of the last three would not: accuracy could no longer be read off a network.
CNN_RANGES = ClassifierRanges(
    steps=Range(5, 600, logarithmic=True),
    learning_rate=Range(3e-3, 2e-2, logarithmic=True),
    weight_decay=Range(2e-2, 6.0, logarithmic=True),
    init_scale=Range(0.9, 1.1),
    data_fraction=Range(0.6, 1.0),
    label_noise=Range(0.0, 0.1),
)

# The published axes, with learning rates for 500 steps instead of 47,000: too low ones would teach
# most networks nothing, and so would the highest of those without skip connections.
ADAPTIVE_STD, SGD_STD = Range(0.1, 0.5), Range(0.1, 0.3)
TRANSFORMER_RANGES = TransformerRanges(
    learning_rate={
        "adam": Range(3e-4, 3e-2, logarithmic=True),
        "rmsprop": Range(1e-4, 1e-2, logarithmic=True),
        "sgd": Range(3e-3, 1e-1, logarithmic=True),
        "momentum": Range(5e-4, 2e-2, logarithmic=True),
    },
    init_std={
        "adam": ADAPTIVE_STD,
        "rmsprop": ADAPTIVE_STD,
        "sgd": SGD_STD,
        "momentum": SGD_STD,
    },
    l2=Range(1e-8, 1e-2, logarithmic=True),
    data_fraction=Range(0.7, 1.0),
    dropout=Range(0.0, 0.2),
)
TRANSFORMER_STEPS = 500

# Deep ones without skip connections, and sigmoids, need more steps and less decay to leave chance:
# from 30 steps on, two of five networks stayed there; from 100 on, one of five.
WILD_RANGES = replace(
    CNN_RANGES,
    steps=Range(100, 600, logarithmic=True),
    weight_decay=Range(1e-3, 1.0, logarithmic=True),
)
# Rates of each optimiser with which accuracies overlap, and decays that shrink weights alike.
WAYS_RANGES = WaysRanges(
    steps=Range(150, 600, logarithmic=True),
    learning_rate={
        "adam": Range(2e-3, 1e-2, logarithmic=True),
        "adamw": Range(2e-3, 1e-2, logarithmic=True),
        "momentum": Range(2e-2, 1e-1, logarithmic=True),
        "rmsprop": Range(1e-3, 5e-3, logarithmic=True),
    },
    weight_decay={
        "adam": Range(1e-5, 1e-3, logarithmic=True),
        "adamw": Range(2e-2, 1.0, logarithmic=True),
        "momentum": Range(1e-4, 1e-2, logarithmic=True),
        "rmsprop": Range(1e-5, 1e-3, logarithmic=True),
    },
    init_scale=Range(0.9, 1.1),
    augmentations=tuple(AUGMENTATIONS),
    data_fraction=Range(0.6, 1.0),
)

BACKDOOR_RANGES = BackdoorRanges(
    steps=Range(150, 400, logarithmic=True),
    learning_rate=Range(3e-3, 1e-2, logarithmic=True),
    weight_decay=Range(2e-2, 1.0, logarithmic=True),
    init_scale=Range(0.9, 1.1),
    data_fraction=Range(0.6, 1.0),
    poison_steps=Range(80, 150, logarithmic=True),
    poison_share=Range(0.2, 0.5),
    side=14,
)
WILD = wild_architectures(50)


def _mlps(pixels: int) -> tuple[str, ...]:
    return tuple(f"mlp-{pixels}-depth{depth}" for depth in (1, 2, 3))


BUILDERS: dict[str, Builder] = {
    "cnn-mnist": ClassifierBuilder("mnist", ("cnn-relu", "cnn-tanh"), CNN_RANGES),
    "cnn-digits": ClassifierBuilder("digits", ("cnn-relu", "cnn-tanh"), CNN_RANGES),
    "cnn-wild-mnist": ClassifierBuilder("mnist", WILD, WILD_RANGES),
    "cnn-wild-digits": ClassifierBuilder("digits", WILD, WILD_RANGES),
    "mlp-mnist": ClassifierBuilder("mnist", _mlps(196), CNN_RANGES),
    "mlp-digits": ClassifierBuilder("digits", _mlps(64), CNN_RANGES),
    "cnn-training-mnist": WaysBuilder("mnist", ("cnn-relu", "cnn-tanh"), WAYS_RANGES),
    "cnn-training-digits": WaysBuilder("digits", ("cnn-relu", "cnn-tanh"), WAYS_RANGES),
    "cnn-backdoor-mnist": BackdoorBuilder("mnist", ("cnn-relu", "cnn-tanh"), BACKDOOR_RANGES),
    "cnn-backdoor-digits": BackdoorBuilder(
        "digits", ("cnn-relu", "cnn-tanh"), replace(BACKDOOR_RANGES, side=8)
    ),
    "inr-mnist": InrBuilder("mnist", ("siren",), steps=150, learning_rate=1e-3),
    "transformer-mnist": TransformerBuilder(
        "mnist", ("transformer-14",), TRANSFORMER_RANGES, TRANSFORMER_STEPS
    ),
    "transformer-digits": TransformerBuilder(
        "digits", ("transformer-8",), TRANSFORMER_RANGES, TRANSFORMER_STEPS
    ),
    "inr-fashion": InrBuilder("fashion", ("siren",), steps=150, learning_rate=1e-3),
    "inr-digits": InrBuilder("digits", ("siren",), steps=150, learning_rate=1e-3),
    "tickets-mnist": TicketBuilder("mnist", ("mlp-196",)),
    "tickets-digits": TicketBuilder("digits", ("mlp-64",)),
}


def builder(name: str) -> Builder:
    """The builder of this name.

    Args:
        name: one of the keys of ``BUILDERS``, such as ``"cnn-mnist"`` or ``"inr-mnist"``.

    Returns:
        What the population is made of.

    Raises:
        ValueError: If no population has this name.
    """
    if name not in BUILDERS:
        raise ValueError(f"no population is called {name!r}; known: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[name]
