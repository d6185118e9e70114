"""Images as sets of neurons: SIRENs with one hidden layer.

``f(x) = Σ_i a_i sin(20 (w_i · x + b_i)) + c``. A neuron is four numbers, ``(w_i, b_i, a_i)``; the
network is the set of its neurons, and ``c``. All networks of a population begin at one
initialisation and stay near it, as there are many neurons, so that weights tell about images; then
the neurons of each are put into an order of its own, so that a neuron's number tells nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

import converters
from gmn import symmetry
from gmn.graph import ParameterGraph
from gmn.zoo.images import pixel_grid
from gmn.zoo.training.fitting import fit, initial_state

NEURONS = 128
STEPS, LEARNING_RATE = 150, 1e-3
AT_ONCE = 200  # networks that are fitted side by side


class ShallowSiren(nn.Module):
    """An image as a network from coordinates to brightness: 2-128-1 with sines, 513 parameters."""

    frequency = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(2, NEURONS)
        self.layer2 = nn.Linear(NEURONS, 1)

    def layers(self) -> tuple[nn.Linear, ...]:
        """The linear layers from input to output."""
        return self.layer1, self.layer2

    def forward(self, coordinates: Tensor) -> Tensor:
        """Brightness (points, 1) at each of the points (points, 2)."""
        return self.layer2(torch.sin(self.frequency * self.layer1(coordinates)))


def fitted(
    images: Tensor,  # shape: (N, 1, height, width)
    seed: int = 0,
    progress: bool = True,
) -> tuple[ParameterGraph, Tensor]:
    """Fits a network to each image, from one initialisation for all.

    Args:
        images: in [0, 1], shape (N, 1, height, width).
        seed: of the initialisation.
        progress: whether to show a bar.

    Returns:
        The N networks, and the peak signal-to-noise ratio of each in decibels, shape (N,).
    """
    module, grid = ShallowSiren(), pixel_grid(*images.shape[-2:])
    start = initial_state(module, torch.Generator().manual_seed(seed))
    states, ratios = [], []
    with tqdm(total=len(images), desc="fitting", unit="network", disable=not progress) as bar:
        for pixels in images.flatten(1).split(AT_ONCE):
            begun = {n: v.expand(len(pixels), *v.shape) for n, v in start.items()}
            state, psnr = fit(module, begun, grid, pixels, STEPS, LEARNING_RATE)
            states.append(state)
            ratios.append(psnr)
            bar.update(len(pixels))
    values = {name: torch.cat([state[name] for state in states]) for name in start}
    return ParameterGraph(converters.trace(module, (grid[:1],)), values), torch.cat(ratios)


def shuffled(graph: ParameterGraph, seed: int = 0) -> ParameterGraph:
    """The networks with the neurons of each in a random order of its own."""
    chance = torch.Generator().manual_seed(seed)
    parts = [
        symmetry.sample(graph.spec, chance, scalings=False).act_on_graph(graph[number])
        for number in range(len(graph))
    ]
    return ParameterGraph.cat(parts)
