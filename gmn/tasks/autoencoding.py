"""Task: encode weights in a vector and reconstruct them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn.errors import UnsupportedArchitecture
from gmn.foundation.arguments import require_type, require_whole
from gmn.graph import ParameterGraph
from gmn.registry import Estimator, Factory
from gmn.spec import GraphSpec
from gmn.spec.program import DEFAULT, ProgramError
from gmn.stack import StackedGraph
from gmn.tasks.answers import mean_squares
from gmn.tasks.autoencoder import Autoencoder, Decoder
from gmn.tasks.editing import CHUNK, LEAST_ERROR
from gmn.tasks.matching import matched
from gmn.tasks.rendering import PixelGrid, grid_of
from gmn.tasks.scales import scaled, spreads
from gmn.tasks.task import Task
from gmn.transport import NeuronSetLoss
from gmn.zoo import Zoo
from gmn.zoo.population import require_zoo

CLOUDS = {"sliced": NeuronSetLoss("sliced"), "tree": NeuronSetLoss("tree")}
LOSSES = ("function", "set", "weights", *CLOUDS)
MOST = 10_000  # networks that tell how far weights spread


class Autoencoding(Task):
    """Autoencoding of weights: networks from a vector each, judged by their outputs.

    The encoder is the metanetwork, with ``latent`` numbers; the decoder is an MLP onto the
    parameters (:class:`gmn.tasks.autoencoder.Decoder`). Whatever the loss, networks are judged by
    their outputs: on the pixels of INRs, else on random inputs of a fixed seed, uniform in [-1, 1].

    Losses: ``function`` is the mean squared error of outputs, which no symmetry changes. ``set`` is
    that of weights after the hidden units of the reconstruction were assigned to those of the
    input (:func:`gmn.tasks.matching.matched`). ``sliced`` and ``tree`` compare each hidden layer
    as a cloud of neurons instead (:class:`gmn.transport.NeuronSetLoss`, along lines that stay the
    same): they assign nothing, but see only the quantiles of weights between two hidden layers.
    These three do not depend on the order of units, but on scales and signs. ``weights`` is the
    squared error of weights as they stand. All but ``function`` divide each entry by the standard
    deviation of its weights. ``sliced+function`` is a sum, and so for any others.

    Args:
        population: a zoo of one architecture, with a program.
        latent: length of the vector of each network.
        loss: ``function``, ``set``, ``weights``, ``sliced``, ``tree``, or a sum of some.
        probes: random inputs, where networks are no INRs.
        height: rows of the image of an INR; None for those of the zoo's image set.
        width: columns of that image.
        corners: whether its outermost pixels lie in the corners of [-1, 1]².

    Raises:
        ValueError: if the zoo has several architectures, or there is no such loss.
    """

    name = "autoencoding"
    target = "output of the network"
    metric = "r2"
    answers_networks = True
    outputs: int

    def __init__(
        self,
        population: Zoo | None = None,
        latent: int = 64,
        loss: str = "function",
        probes: int = 64,
        height: int | None = None,
        width: int | None = None,
        corners: bool = False,
    ) -> None:
        if population is not None:
            require_zoo("population", population)
        require_whole("latent", latent, 1)
        require_whole("probes", probes, 1)
        require_type("loss", loss, str, f"one of {', '.join(LOSSES)}, or several joined by +")
        self.outputs, self.probes, self.losses = latent, probes, tuple(loss.split("+"))
        if unknown := [name for name in self.losses if name not in LOSSES]:
            raise ValueError(f"no loss is called {unknown[0]!r}; known: {', '.join(LOSSES)}")
        self.grid: PixelGrid | None = None
        if height is not None or width is not None or (population and _holds_images(population)):
            self.grid = grid_of(population, height, width, corners)
        self.kind = "function" if self.grid is None else "image"
        self.points = probes if self.grid is None else self.grid.height * self.grid.width
        super().__init__(population)

    @cached_property
    def _scales(self) -> dict[str, float]:
        """How far the weights of each entry spread; empty without a population."""
        return spreads(self.split("train")[0].graph[:MOST]) if self._splits else {}

    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """Images (B, channels, height, width), or outputs (B, numbers)."""
        with torch.no_grad():
            pieces = range(0, len(graph), CHUNK)
            return torch.cat([self._outputs(graph[i : i + CHUNK]) for i in pieces])

    def build(self, factory: Factory, spec: GraphSpec) -> nn.Module | Estimator:
        """An autoencoder with the metanetwork for its encoder."""
        encoder = factory(spec, self.outputs)
        if not isinstance(encoder, nn.Module):
            raise UnsupportedArchitecture("it is fitted at once, so it cannot be an encoder")
        start = None
        if self._splits:
            start = self.split("train")[0].graph[0].to_state_dict()
        return Autoencoder(encoder, Decoder(spec, self.outputs, start, self._scales))

    def loss(self, output: StackedGraph, target: Tensor) -> Tensor:
        """Mean loss of reconstructions, which come with their originals."""
        parts = [self._loss(name, output, target) for name in self.losses]
        return torch.stack(parts).sum()

    def _loss(self, name: str, output: StackedGraph, target: Tensor) -> Tensor:
        if name == "function":
            return functional.mse_loss(self.prediction(output), target)
        made, given = (scaled(graph, self._scales) for graph in output.graphs)
        if name in CLOUDS:
            loss: Tensor = CLOUDS[name](made, given)
            return loss
        return _squares(matched(made, given) if name == "set" else made, given)

    def prediction(self, output: ParameterGraph) -> Tensor:
        """Outputs of the reconstructed networks, in the shape of the targets."""
        return self._outputs(output)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Share of the variance between networks that is explained, and the mean squared error.

        Images also have a signal-to-noise ratio in decibels.
        """
        errors = mean_squares(prediction, target)
        spread = mean_squares(target.mean(dim=0, keepdim=True), target)
        metrics = {"r2": float(1 - errors.sum() / spread.sum()), "mse": float(errors.mean())}
        if self.grid is not None:
            metrics["psnr"] = float(-10 * errors.clamp(min=LEAST_ERROR).log10().mean())
        return metrics

    def baselines(self) -> dict[str, Tensor]:
        """The mean output of the training split."""
        mean = torch.cat([part.target for part in self.split("train")]).mean(0, keepdim=True)
        return {"always the mean": mean.expand(sum(map(len, self.split("test"))), *mean.shape[1:])}

    def settings(self) -> dict[str, Any]:
        """Length of the vector, loss and inputs."""
        grid = self.grid
        inputs = {} if grid is None else {"height": grid.height, "width": grid.width}
        corners = {} if grid is None else {"corners": grid.corners}
        common = {"latent": self.outputs, "loss": "+".join(self.losses), "probes": self.probes}
        return {**common, **inputs, **corners}

    def _outputs(self, graph: ParameterGraph) -> Tensor:
        if self.grid is not None:
            return self.grid.images(graph)
        program = graph.spec.program
        if program is None or any(given.dtype != DEFAULT for given in program.inputs):
            raise ProgramError("autoencoding needs networks that can be run on random numbers")
        generator = torch.Generator().manual_seed(0)
        given = [
            2 * torch.rand(self.probes, *i.shape, generator=generator) - 1 for i in program.inputs
        ]
        outputs = program.observe(
            graph.values, [g.to(graph.device, graph.dtype) for g in given], program.outputs
        )
        return torch.cat([values.flatten(1) for values in outputs], dim=1)


def _holds_images(population: Zoo) -> bool:
    """Whether networks are functions of two coordinates."""
    if (count := len(population.architectures)) > 1:
        raise ValueError(
            f"{population.folder}: autoencoding makes networks of one architecture, and there are "
            f"{count}; take one of them out of the population: gmn zoo filter {population.folder} "
            f"--where architecture=={population.architectures[0]} --out OUT"
        )
    program = population.spec(population.architectures[0]).program
    shapes = [given.shape for given in program.inputs] if program is not None else []
    return len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][1] == 2


def _squares(made: ParameterGraph, given: ParameterGraph) -> Tensor:
    """Mean squared difference of all parameters."""
    squares = [
        (made.values[e.name] - given.values[e.name]).square().flatten(1)
        for e in made.spec.entries
        if e.parameter and e.floating and e.tied_to is None
    ]
    return torch.cat(squares, dim=1).mean()
