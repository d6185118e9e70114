"""What metanetworks are asked: data, loss, metrics."""

from gmn.tasks.accuracy import AccuracyPrediction
from gmn.tasks.batches import Batch, minibatches
from gmn.tasks.choice import find, names, options_of, task_of
from gmn.tasks.classification import InrClassification
from gmn.tasks.editing import InrContrast, InrDilation, InrEditing, InrErosion
from gmn.tasks.labels import LabelError
from gmn.tasks.rendering import PixelGrid
from gmn.tasks.task import Task

__all__ = [
    "AccuracyPrediction",
    "Batch",
    "InrClassification",
    "InrContrast",
    "InrDilation",
    "InrEditing",
    "InrErosion",
    "LabelError",
    "PixelGrid",
    "Task",
    "find",
    "minibatches",
    "names",
    "options_of",
    "task_of",
]
