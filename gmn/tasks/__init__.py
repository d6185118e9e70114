"""Tasks: targets, losses and metrics for the networks of a zoo."""

from gmn.tasks.accuracy import AccuracyPrediction
from gmn.tasks.autoencoding import Autoencoding
from gmn.tasks.choice import find, names, options_of, task_of
from gmn.tasks.classification import Classification, InrClassification
from gmn.tasks.editing import InrContrast, InrDilation, InrEditing, InrErosion
from gmn.tasks.labels import LabelError
from gmn.tasks.regression import Regression
from gmn.tasks.rendering import PixelGrid
from gmn.tasks.task import Task
from gmn.tasks.tickets import WinningTickets
from gmn.zoo.loading import Batch, minibatches

__all__ = [
    "AccuracyPrediction",
    "Autoencoding",
    "Batch",
    "Classification",
    "InrClassification",
    "InrContrast",
    "InrDilation",
    "InrEditing",
    "InrErosion",
    "LabelError",
    "PixelGrid",
    "Regression",
    "Task",
    "WinningTickets",
    "find",
    "minibatches",
    "names",
    "options_of",
    "task_of",
]
