"""The populations that can be built by name."""

from __future__ import annotations

from gmn.zoo.builders import Builder
from gmn.zoo.classifiers import ClassifierBuilder
from gmn.zoo.inrs import InrBuilder
from gmn.zoo.recipe import Range, RecipeRanges
from gmn.zoo.tickets import TicketBuilder

# Length and strength of training spread the accuracies, and both leave their trace in the weights.
# Wide ranges of the last three would not: accuracy could no longer be read off a network.
CNN_RANGES = RecipeRanges(
    steps=Range(5, 600, logarithmic=True),
    learning_rate=Range(3e-3, 2e-2, logarithmic=True),
    weight_decay=Range(2e-2, 6.0, logarithmic=True),
    init_scale=Range(0.9, 1.1),
    data_fraction=Range(0.6, 1.0),
    label_noise=Range(0.0, 0.1),
)

BUILDERS: dict[str, Builder] = {
    "cnn-mnist": ClassifierBuilder("mnist", ("cnn-relu", "cnn-tanh"), CNN_RANGES),
    "cnn-digits": ClassifierBuilder("digits", ("cnn-relu", "cnn-tanh"), CNN_RANGES),
    "inr-mnist": InrBuilder("mnist", ("siren",), steps=150, learning_rate=1e-3),
    "inr-digits": InrBuilder("digits", ("siren",), steps=150, learning_rate=1e-3),
    "tickets-mnist": TicketBuilder("mnist", ("mlp-196",)),
    "tickets-digits": TicketBuilder("digits", ("mlp-64",)),
}


def builder(name: str) -> Builder:
    """The builder of this name.

    Args:
        name: One of the keys of ``BUILDERS``, such as ``"cnn-mnist"`` or ``"inr-mnist"``.

    Returns:
        What the population is made of.

    Raises:
        ValueError: If no population has this name.
    """
    if name not in BUILDERS:
        raise ValueError(f"no population is called {name!r}; known: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[name]
