"""Metrics of generated populations: discrepancy, coverage, nearest neighbours, novelty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gmn.foundation.arguments import require_type
from gmn.graph import ParameterGraph
from gmn.transport.networks import NetworkDistance


@dataclass(frozen=True)
class ZooMetrics:
    """Metrics of generated networks against real ones.

    Attributes:
        mmd: squared maximum mean discrepancy (Gretton et al. 2012, unbiased) under the kernel
            ``exp(-d² / 2m²)`` with ``m`` the median distance between real networks; about 0 for
            samples of one distribution, and then of either sign.
        coverage: share of the real networks that are the nearest one to some generated network
            (Achlioptas et al. 2018); larger is better.
        accuracy: of telling generated from real by the nearest other network (1-NNA, Lopez-Paz and
            Oquab 2017); 0.5 is best, 1 means told apart, 0 means memorised.
        novelty: median over generated networks of the distance to the nearest network of the
            training set, over the median distance of a real network to its nearest one there;
            near 0 for copies, near 1 for networks as new as held-out ones.
    """

    mmd: float
    coverage: float
    accuracy: float
    novelty: float


def zoo_metrics(
    generated: ParameterGraph,
    reference: ParameterGraph,
    training: ParameterGraph,
    distance: NetworkDistance | None = None,
) -> ZooMetrics:
    """Compares generated networks with held-out ones, and with those that were learned from.

    Args:
        generated: the generated networks.
        reference: real networks that were held out; at least two.
        training: real networks that the generator has seen.
        distance: between networks; the default one if None.

    Raises:
        ValueError: if there are fewer than two generated or reference networks, or they cannot be
            compared.
    """
    distance = NetworkDistance() if distance is None else distance
    require_type("distance", distance, NetworkDistance, "a gmn.transport.NetworkDistance")
    return metrics_of(
        generated=distance.matrix(generated),
        crossed=distance.matrix(generated, reference),
        reference=distance.matrix(reference),
        learned=distance.matrix(generated, training),
        held_out=distance.matrix(reference, training),
    )


def metrics_of(
    generated: Tensor,  # shape: (G, G)
    crossed: Tensor,  # shape: (G, R)
    reference: Tensor,  # shape: (R, R)
    learned: Tensor,  # shape: (G, T)
    held_out: Tensor,  # shape: (R, T)
) -> ZooMetrics:
    """The metrics from distances: generated to generated, to reference, and so on.

    Raises:
        ValueError: if there are fewer than two generated or reference networks.
    """
    if min(crossed.shape) < 2:
        raise ValueError(f"{crossed.shape[0]} generated and {crossed.shape[1]} real networks: two")
    novelty = learned.min(1).values.median() / held_out.min(1).values.median()
    return ZooMetrics(
        mmd=_discrepancy(generated, crossed, reference),
        coverage=len(crossed.argmin(1).unique()) / crossed.shape[1],
        accuracy=_accuracy(generated, crossed, reference),
        novelty=float(novelty),
    )


def _discrepancy(generated: Tensor, crossed: Tensor, reference: Tensor) -> float:
    width = _others(reference).median()

    def kernel(distances: Tensor) -> Tensor:
        return (-(distances**2) / (2 * width**2)).exp().mean()

    value = kernel(_others(generated)) + kernel(_others(reference)) - 2 * kernel(crossed)
    return float(value)


def _others(distances: Tensor) -> Tensor:
    """Off-diagonal entries of a matrix of distances."""
    return distances[~torch.eye(len(distances), dtype=torch.bool, device=distances.device)]


def _accuracy(generated: Tensor, crossed: Tensor, reference: Tensor) -> float:
    everything = torch.cat(
        [torch.cat([generated, crossed], 1), torch.cat([crossed.T, reference], 1)]
    )
    everything = everything + torch.diag(torch.full((len(everything),), torch.inf)).to(everything)
    label = torch.arange(len(everything), device=everything.device) < len(generated)
    return float((label[everything.argmin(1)] == label).double().mean())
