"""Published presets have the published numbers of parameters, or as many less as is explained."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

import converters
import gmn
from gmn import registry
from gmn.zoo.architectures.networks import network

CHANNELS = ((1, 16), (16, 16), (16, 5))  # of the layers of the NFN family
PRODUCTS, OUTPUTS = sum(c * e for c, e in CHANNELS), sum(e for _, e in CHANNELS)


@cache
def small_cnn() -> gmn.GraphSpec:
    """That of the Small CNN Zoo: 1-16-16-16 channels, kernels of 3 by 3, 10 classes."""
    spec = converters.trace(network("cnn-relu"), (torch.zeros(1, 1, 14, 14),))
    assert spec.num_parameters == 4_970
    return spec


def count(name: str, spec: gmn.GraphSpec | None = None) -> int:
    model = registry.find(name)(small_cnn() if spec is None else spec, 1)
    assert isinstance(model, nn.Module)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "published"),
    [("monomial-nfn-published", 254_619), ("magep-nfn-published", 998_121)],
)
def test_published_counts(name: str, published: int) -> None:
    assert count(name) == published


def test_what_published_hnp_has_twice() -> None:
    """Means of what it reads value by value, and a constant for each group of maps."""
    taps, outputs = 9, 10
    entries = 3 * (taps + 1) + 2 * outputs  # that a layer writes, per channel
    overall = entries * (taps + 1 + 1)  # means of the first and last weight and the last bias
    of_inputs = taps * taps  # W^(2) reads W^(1) input by input, and their mean
    of_outputs = taps + 1  # W^(3), b^(3) read W^(4) output by output, and their mean
    # Four for the weights between hidden layers; two for the first and last, and for hidden biases.
    constants = 2 * 3 * taps + taps + outputs + 3
    twice = PRODUCTS * (overall + of_inputs + of_outputs) + OUTPUTS * constants
    assert twice == 228_444
    assert count("nfn-hnp-published") == 2_811_743 - twice


def test_what_published_np_has_twice() -> None:
    """Constants alone: four for every weight and tap, two for every bias; one of each would do."""
    taps, biases = 9 + 9 + 9 + 1, 4
    assert count("nfn-np-published") == 2_031_390 - OUTPUTS * (3 * taps + biases)


def test_small_networks_have_all_of_unf() -> None:
    """A matrix for every ordered pair of tensors, and no less, where these are few."""
    siren = converters.trace(network("siren"), (torch.zeros(1, 2),))
    assert count("unf") == 2_410_977
    assert count("unf", siren) == 98_305
