"""Bare weights: the chain that is guessed has the symmetries of the network they come from."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import converters
import gmn
from converters import CheckpointError, infer_chain
from gmn.spec import GraphSpec
from gmn.zoo.architectures.networks import SmallCNN
from tests.traced import slow_but


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def deep() -> nn.Module:
    """Layer 10 comes after layer 2, whatever the alphabet says."""
    sizes = [3, 4, 5, 6, 7, 8, 9]
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip


def sequence() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.Flatten(), nn.Linear(60, 5)
    )


CHAINS = {
    "mlp": (mlp, (torch.zeros(2, 3),)),
    "deep": (deep, (torch.zeros(2, 3),)),
    "cnn": (cnn, (torch.zeros(2, 2, 10, 10),)),
    "global pooling": (lambda: SmallCNN("relu"), (torch.zeros(2, 1, 14, 14),)),
    "1d": (sequence, (torch.zeros(2, 2, 10),)),
    "one layer": (lambda: nn.Linear(3, 2), (torch.zeros(2, 3),)),
}


def group(spec: GraphSpec) -> tuple[object, ...]:
    """Axes that move, and what is scaled by which power: what an act of the group depends on."""
    scalings = {(s.domain, frozenset(s.terms)) for s in spec.scalings}
    return {(axis.name, axis.size) for axis in spec.symmetries.permutations}, scalings


@pytest.mark.parametrize("name", slow_but(CHAINS, ["mlp", "cnn", "1d", "one layer"]))
@pytest.mark.parametrize(
    "stored", [pytest.param("as it is", marks=pytest.mark.slow), "safetensors"]
)
def test_the_guess_has_the_networks_symmetries(name: str, stored: str) -> None:
    build, inputs = CHAINS[name]
    model = build()
    state = dict(model.state_dict())
    if stored == "safetensors":  # which forgets the order
        state = load(save({key: value.clone() for key, value in state.items()}))
    chain = infer_chain(state)
    assert chain.module.state_dict().keys() == state.keys()
    found = converters.trace(chain.module, chain.inputs)
    assert group(found) == group(converters.trace(model, inputs))
    graph = gmn.ParameterGraph.from_state_dicts(found, [state])
    assert all(torch.equal(graph.to_state_dict()[key], value) for key, value in state.items())


def test_a_file_that_keeps_no_order() -> None:
    state = SmallCNN("relu").state_dict()
    mixed = {name: state[name] for name in sorted(state, key=lambda name: name[::-1], reverse=True)}
    assert list(mixed).index("conv3.weight") < list(mixed).index("conv2.weight")
    assert "the layers run in the order conv1, conv2, conv3, head" in str(infer_chain(mixed))


def test_assumptions_are_said() -> None:
    text = str(infer_chain(cnn().state_dict(), nn.Tanh()))
    assert text.splitlines() == [
        "assumed, since weights alone do not tell:",
        "  - the layers run in the order 0, 1, 3, 6, 9, 11",
        "  - 1 normalises before the activation",
        "  - 3 has 6 groups",
        "  - 9 reads 4 channels of 4×4 positions, channels first; any pooling before it takes "
        "means",
        "  - Tanh() follows every layer but the last",
    ]
    assert "reads every channel's mean" in str(infer_chain(SmallCNN("relu").state_dict()))
    assert "0 is a linear layer, no embedding" in str(
        infer_chain(nn.Sequential(nn.Linear(9, 4, bias=False)).state_dict())
    )


def test_the_activation_decides_the_scalings() -> None:
    state = mlp().state_dict()
    domains = {}
    for activation in (nn.ReLU(), nn.Tanh(), nn.GELU(), converters.states.chains.Sine()):
        chain = infer_chain(state, activation)
        spec = converters.trace(chain.module, chain.inputs)
        domains[type(activation).__name__] = {scaling.domain for scaling in spec.scalings}
    assert domains["ReLU"] == {"positive"}
    assert domains["Tanh"] == {"sign"}
    assert domains["GELU"] == set()
    assert "sign" in domains["Sine"]
    assert "positive" not in domains["Sine"]


def square(*names: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.zeros(4, 4) for name in names}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({}, "there are no weights"),
        (nn.LSTM(2, 3).state_dict(), "weight_ih_l0 is no entry of a plain chain"),
        (nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)).state_dict(), "look alike"),
        (nn.Sequential(nn.Linear(2, 3), nn.PReLU(3)).state_dict(), "look alike"),
        (nn.Sequential(nn.ConvTranspose2d(2, 3, 3)).state_dict(), "as in a transposed convolution"),
        ({"a.bias": torch.zeros(3)}, "a is no linear layer"),
        ({"weight": torch.zeros(3, 2), "a.weight": torch.zeros(2, 3)}, "weights of the whole"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 1)).state_dict(), "0 gives 3, 1 takes 4"),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)).state_dict(), "the input gives 0"),
        (nn.Sequential(nn.Linear(3, 6), nn.Conv2d(6, 2, 1)).state_dict(), "0 gives 6, 1 takes 6"),
        (nn.Sequential(nn.Conv2d(3, 6, 1), nn.Linear(7, 2)).state_dict(), "0 gives 6, 1 takes 7"),
        (square("second", "first"), "second, first as in the file, and first, second by name"),
    ],
)
def test_what_is_no_chain_is_refused(state: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        infer_chain(state)
    assert reason in str(caught.value)
    assert "--model package.module:factory" in str(caught.value)
