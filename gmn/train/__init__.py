"""Trains metanetworks on tasks, stores runs, and applies trained models."""

from gmn.tasks.task import Task
from gmn.train.distributed import Ranks, ranks
from gmn.train.evaluate import answer, predict
from gmn.train.loop import Report, Result, train
from gmn.train.own_files import Answer, predict_files
from gmn.train.predictions import csv_text, json_text, text_table
from gmn.train.recipe import Augment, Recipe, peak_rate
from gmn.train.trained import Trained, TrainedFileError, fit, load

__all__ = [
    "Answer",
    "Augment",
    "Ranks",
    "Recipe",
    "Report",
    "Result",
    "Task",
    "Trained",
    "TrainedFileError",
    "answer",
    "csv_text",
    "fit",
    "json_text",
    "load",
    "peak_rate",
    "predict",
    "predict_files",
    "ranks",
    "text_table",
    "train",
]
