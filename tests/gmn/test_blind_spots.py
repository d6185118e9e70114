"""Networks of equal parameters and other functions are told apart, by whatever reads them."""

from __future__ import annotations

import pytest
import torch

from tests.blind_spots import BUFFERS, COMPUTED, HEADS, MODELS, SHARED, Pair, changes
from tests.traced import one_in

REFUSED = "ScaleGMN"  # products of neurons, norms and attention


@pytest.mark.parametrize("pair", one_in(8, [*COMPUTED, *BUFFERS], lambda pair: pair.name))
def test_what_decides_the_function_is_seen(pair: Pair) -> None:
    for model, change in changes(pair).items():
        assert model == REFUSED if change is None else change > 1e-6, model


def test_dual_gmn_sees_which_queries_go_with_which_values() -> None:
    assert HEADS.difference() > 1e-2
    graphs = HEADS.graphs()
    for seed in range(3):
        torch.manual_seed(seed)
        net = MODELS["DualGMN"]().double()
        with torch.no_grad():
            one, other = (net(graph) for graph in graphs)
        assert float((one - other).abs().max() / one.abs().max()) > 1e-3


@pytest.mark.parametrize("pair", one_in(2, SHARED, lambda pair: pair.name))
def test_neurons_of_a_shared_axis_go_together(pair: Pair) -> None:
    assert pair.difference() > 1e-2
    found = {model: change for model, change in changes(pair).items() if model != REFUSED}
    assert min(change or 0.0 for change in found.values()) > 1e-6
