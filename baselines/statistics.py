"""Layer statistics with gradient boosting (Unterthiner et al. 2020, arXiv 2002.11448)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gmn.errors import ArgumentError, UnsupportedArchitecture
from gmn.foundation.arguments import require_callable, require_several, require_type, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.graph.statistics import edge_statistics, quantiles
from gmn.spec import EdgeSet

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def layer_statistics(graph: ParameterGraph) -> Tensor:
    """Mean, variance and quantiles (0, ¼, ½, ¾, 1) of every edge set, running statistics included.

    Returns:
        Tensor of shape (B, 7 × edge sets), float64.
    """
    require_graph("graph", graph)
    rows = []
    for edges in _own(graph):
        values = graph.pairs(edges).flatten(1).detach().double()
        moments = torch.stack([values.mean(1), values.var(1, unbiased=False)], dim=1)
        rows.append(torch.cat([moments, quantiles(values, QUANTILES)], dim=1))
    return torch.cat(rows, dim=1)


def rich_statistics(graph: ParameterGraph) -> Tensor:
    """:func:`gmn.graph.statistics.edge_statistics` of every edge set: norms and spectra, too.

    Returns:
        Tensor of shape (B, EDGE_STATISTICS × edge sets), float64.
    """
    require_graph("graph", graph)
    graph = graph.to(dtype=torch.float64)
    return torch.cat([edge_statistics(graph, edges).detach() for edges in _own(graph)], dim=1)


def _own(graph: ParameterGraph) -> list[EdgeSet]:
    return [edges for edges in graph.spec.edge_sets if edges.tied_to is None]


class StatNN:
    """Gradient boosting on statistics of weights; fitted at once, on the CPU.

    Args:
        outputs: 1 to predict a number; the number of classes to predict their probabilities.
        statistics: from a graph of B networks to their statistics (B, n).
    """

    def __init__(
        self, outputs: int = 1, statistics: Callable[[ParameterGraph], Tensor] = layer_statistics
    ) -> None:
        self.outputs = require_whole("outputs", outputs, 1)
        require_callable("statistics", statistics, "a function such as layer_statistics")
        self.statistics = statistics
        self._model: Any = None

    def fit(self, graphs: Sequence[ParameterGraph], targets: Tensor, seed: int = 0) -> StatNN:
        """Fits to targets of shape (sum of batch sizes,): numbers, or classes from zero.

        Raises:
            ImportError: if LightGBM is not installed.
            UnsupportedArchitecture: if networks differ in their number of layers.
        """
        try:
            from lightgbm import LGBMClassifier, LGBMRegressor
        except ImportError as error:
            raise ImportError(
                "StatNN needs LightGBM: pip install 'graph-metanetworks[baselines]'"
            ) from error
        rows = _rows(self.statistics, graphs)
        require_type("targets", targets, Tensor, "a tensor with one target per network")
        if len(rows) != len(targets):
            raise ArgumentError(f"{len(targets)} targets for {len(rows)} networks; give one each")
        if not bool(targets.isfinite().all()):
            raise ArgumentError("targets hold NaN or infinity; leave such networks out")
        booster = LGBMRegressor if self.outputs == 1 else LGBMClassifier
        self._model = booster(
            n_estimators=600,
            learning_rate=0.03,
            num_leaves=15,
            min_child_samples=10,
            subsample=0.8,
            subsample_freq=1,
            colsample_bytree=0.5,
            random_state=seed,
            n_jobs=1,
            deterministic=True,
            verbosity=-1,
        )
        self._model.fit(rows, targets.cpu().numpy())
        return self

    def predict(self, graphs: Sequence[ParameterGraph]) -> Tensor:
        """Predictions of shape (sum of batch sizes,), or probabilities with one column per class.

        Raises:
            RuntimeError: before :meth:`fit`.
        """
        if self._model is None:
            raise RuntimeError("StatNN predicts after fit")
        rows = _rows(self.statistics, graphs)
        if self.outputs == 1:
            return torch.as_tensor(self._model.predict(rows), dtype=torch.float32)
        # The booster has columns only for the classes that it has seen.
        result = torch.zeros(len(rows), self.outputs)
        result[:, self._model.classes_] = torch.as_tensor(
            self._model.predict_proba(rows), dtype=torch.float32
        )
        return result


def _rows(statistics: Callable[[ParameterGraph], Tensor], graphs: Sequence[ParameterGraph]) -> Any:
    require_several("graphs", graphs, "graphs")
    for graph in graphs:
        require_graph("a graph", graph)
    if not sum(map(len, graphs)):
        raise ArgumentError("graphs hold no networks; give at least one")
    if len(counts := {len(_own(graph)) for graph in graphs}) > 1:
        raise UnsupportedArchitecture(
            f"layer statistics: networks of {min(counts)} to {max(counts)} edge sets have tables "
            "of different length; give networks of equally many layers"
        )
    return torch.cat([statistics(graph) for graph in graphs]).cpu().numpy()
