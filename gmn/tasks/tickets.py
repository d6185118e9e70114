"""Task: predict from an initialisation which weights iterative pruning keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gmn.foundation.arguments import require_type
from gmn.graph import ParameterGraph
from gmn.nn.heads import EditHead
from gmn.spec import GraphSpec
from gmn.tasks.answers import overlaps
from gmn.tasks.labels import LabelError
from gmn.tasks.task import Task
from gmn.zoo import Zoo
from gmn.zoo.architectures.networks import network
from gmn.zoo.building.tickets import MASK, TicketBuilder, random_masks
from gmn.zoo.population import require_zoo
from gmn.zoo.training.pruning import keep_largest, synaptic_flow

TIES = 1e-6  # what magnitudes count where nothing else tells weights apart
SHARPNESS = 2.0  # logits per standard deviation of a layer's scores


class WinningTickets(Task):
    """Winning tickets: masks from initialisations (Zhou et al. 2023), on the zoo's fixed split.

    A model edits an initialisation; the ticket keeps, in each layer, the weights that are largest
    after the edit. To change nothing is magnitude pruning at initialisation: there learning starts.
    The targets are the masks that iterative magnitude pruning found. The loss is their
    cross-entropy, under logits that are zero at the least weight kept and rise by 2 for each
    standard deviation of the layer's edited magnitudes. Predictions and targets are masks of shape
    (B, weights), of zeros and ones.

    Args:
        population: a zoo of initialisations and tickets, such as ``tickets-digits``.
        kept: number of weights that each layer keeps, by name of the weight; None for the mean of
            the tickets of the training split.

    Raises:
        LabelError: if the zoo holds no tickets, or several architectures.
        ValueError: if there is neither a population nor ``kept``.
    """

    name = "winning tickets"
    target = "winning ticket"
    kind = "mask"
    metric = "overlap"
    outputs = EditHead()

    def __init__(
        self, population: Zoo | None = None, kept: Mapping[str, int] | None = None
    ) -> None:
        if kept is not None:
            require_type("kept", kept, Mapping, "numbers of kept weights by layer")
        self.kept = dict(_mean_counts(population) if kept is None else kept)
        super().__init__(population)

    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """The masks (B, weights) of the tickets."""
        return self._flat(self.zoo.extra(MASK, indices))

    def loss(self, output: ParameterGraph, target: Tensor) -> Tensor:
        """Mean cross-entropy of the weights' logits on masks (B, weights)."""
        logits = [
            SHARPNESS * _above(output.values[name].abs().flatten(1), count)
            for name, count in self.kept.items()
        ]
        return functional.binary_cross_entropy_with_logits(torch.cat(logits, dim=1), target)

    def prediction(self, output: ParameterGraph) -> Tensor:
        """The masks (B, weights) that edited networks stand for."""
        return self._largest({name: output.values[name].abs() for name in self.kept})

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """The mean overlap: of the weights that the larger mask keeps, the share both keep."""
        return {"overlap": float(overlaps(prediction, target).mean())}

    def test_metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Also the mean test accuracy that networks reach when trained under the masks."""
        reached = float(self.accuracies(prediction).mean())
        return {**self.metrics(prediction, target), "accuracy": reached}

    def accuracies(self, masks: Tensor) -> Tensor:
        """Test accuracies of the test split's networks after training under masks.

        They are trained as in every round of the pruning.

        Args:
            masks: shape (networks, weights), in the order of the split.

        Returns:
            Shape (networks,).
        """
        (part,) = self.split("test")
        builder = TicketBuilder.of(self.zoo.manifest["configuration"])
        module = network(self.zoo.architectures[0])
        accuracies = [
            builder.accuracy(module, dict(part.graph[chosen].values), self._shaped(masks[chosen]))
            for chosen in torch.arange(len(part)).split(builder.shard_size)
        ]
        return torch.cat(accuracies)

    def baselines(self) -> dict[str, Tensor]:
        """Masks that need no model.

        Those that keep any weights, the largest initial weights, those with the most synaptic flow
        (which reads the initial weights alone, too), the weights where tickets of the training
        split keep most (at the input and the output: hidden neurons have no order), and
        the largest after weighing with how often those tickets keep them; the tickets themselves,
        and no pruning.
        """
        (part,) = self.split("test")
        sizes = {name: part.graph.values[name].abs() for name in self.kept}
        often = self._frequencies(part.graph.spec)
        assert part.numbers is not None
        seeds = [self.zoo.rows[index]["seed"] for index in part.numbers.tolist()]
        return {
            "random": self._flat(random_masks(sizes, self.kept, seeds)),
            "magnitude": self._largest(sizes),
            "SynFlow": self._flat(self._synaptic_flow(part.graph)),
            "mean ticket": self._largest({n: often[n] + TIES * v for n, v in sizes.items()}),
            "mean ticket x magnitude": self._largest({n: often[n] * v for n, v in sizes.items()}),
            "iterative magnitude pruning": part.target,
            "no pruning": torch.ones_like(part.target),
        }

    def _synaptic_flow(self, graph: ParameterGraph) -> dict[str, Tensor]:
        builder = TicketBuilder.of(self.zoo.manifest["configuration"])
        module = network(self.zoo.architectures[0])
        return synaptic_flow(module, dict(graph.values), builder.example(), self.kept)

    def settings(self) -> dict[str, Any]:
        """How many weights each layer keeps."""
        return {"kept": self.kept}

    def _frequencies(self, spec: GraphSpec) -> dict[str, Tensor]:
        """How often training tickets keep a weight, averaged over what permutations exchange."""
        masks = self.zoo.extra(MASK, self.zoo.indices("train"))
        return {name: _symmetrised(masks[name].double().mean(0), name, spec) for name in self.kept}

    def _largest(self, scores: Mapping[str, Tensor]) -> Tensor:
        return self._flat({n: keep_largest(scores[n], count) for n, count in self.kept.items()})

    def _flat(self, masks: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([masks[name].flatten(1).float() for name in self.kept], dim=1)

    def _shaped(self, masks: Tensor) -> dict[str, Tensor]:
        """Masks by name of the weight, from masks (B, weights)."""
        (part,) = self.split("test")
        shapes = [part.graph.values[name].shape[1:] for name in self.kept]
        pieces = masks.split([shape.numel() for shape in shapes], dim=1)
        named = zip(self.kept, pieces, shapes, strict=True)
        return {name: piece.unflatten(1, shape) for name, piece, shape in named}


def _mean_counts(population: Zoo | None) -> dict[str, int]:
    """How many weights of each layer the tickets of the training split keep on average."""
    if population is None:
        raise ValueError("winning tickets without a population: say with kept how many are kept")
    require_zoo("population", population)
    if MASK not in population.extras or len(population.architectures) != 1:
        raise LabelError(
            f"{population.folder} holds networks of {', '.join(population.architectures)}, with "
            f"{', '.join(population.extras) or 'nothing'} beside them; winning tickets are learnt "
            "from masks of one architecture, as in gmn zoo build tickets-digits"
        )
    masks = population.extra(MASK, population.indices("train"))
    return {name: round(float(m.double().mean() * m[0].numel())) for name, m in masks.items()}


def _above(scores: Tensor, count: int) -> Tensor:
    """Standardised scores (B, weights) above that of the least weight kept."""
    spread = scores.std(dim=1, keepdim=True)
    standard = (scores - scores.mean(dim=1, keepdim=True)) / spread
    # Detached only now: otherwise to shrink all scores would seem to lower most logits.
    return standard - standard.detach().topk(count, dim=1).values[:, -1:]


def _symmetrised(values: Tensor, name: str, spec: GraphSpec) -> Tensor:
    """Means over the axes of a weight whose neurons may be permuted."""
    axes = [dim.axis for dim in spec.edge_set(name).dims]
    movable = [n for n, axis in enumerate(axes) if axis is not None and spec.axis(axis).movable]
    return values.mean(dim=movable, keepdim=True) if movable else values
