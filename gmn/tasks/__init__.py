"""What metanetworks are asked: data, loss, metrics."""

from gmn.tasks.accuracy import AccuracyPrediction
from gmn.tasks.batches import Batch, minibatches
from gmn.tasks.choice import task_of
from gmn.tasks.classification import InrClassification

__all__ = ["AccuracyPrediction", "Batch", "InrClassification", "minibatches", "task_of"]
