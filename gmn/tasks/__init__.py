"""What metanetworks are asked: data, loss, metrics."""

from gmn.tasks.accuracy import AccuracyPrediction
from gmn.tasks.batches import Batch, minibatches

__all__ = ["AccuracyPrediction", "Batch", "minibatches"]
