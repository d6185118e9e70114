"""Formats predictions for files as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import cast

from rich import box
from rich.console import Console
from rich.table import Table

from gmn.foundation.arguments import require_several, require_type
from gmn.train.own_files import Answer
from gmn.train.trained import Trained

# Wide enough that no file name is cut.
_WIDEST = 10_000


def text_table(trained: Trained, answers: Sequence[Answer]) -> str:
    """One line per file: its architecture, and a number, a class with its probability, or files."""
    _require_trained(trained)
    _require_answers(answers)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("file", "architecture", trained.task.target):
        table.add_column(column, no_wrap=True)
    for answer in answers:
        table.add_row(str(answer.file), answer.architecture or "-", _in_words(trained, answer))
    console = Console(file=io.StringIO(), width=_WIDEST, markup=False, emoji=False, highlight=False)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def _require_trained(trained: object) -> None:
    require_type("trained", trained, Trained, "what gmn.train.load(folder) returns")


def _require_answers(answers: object) -> None:
    require_several("answers", answers, "answers, as gmn.train.predict_files gives them")
    for one in cast(Sequence[object], answers):
        require_type("an answer", one, Answer, "those that gmn.train.predict_files gives")


def _in_words(trained: Trained, answer: Answer) -> str:
    if answer.prediction is None:
        return f"error: {answer.error}"
    if answer.prediction.dim() == 0:
        return f"{float(answer.prediction):.4f}"
    if trained.task.answers_networks:
        if answer.written:
            return ", ".join(map(str, answer.written))
        sizes = " × ".join(map(str, answer.prediction.shape))
        return f"{sizes} outputs; with a folder (--out) the networks are written"
    best = int(answer.prediction.argmax())
    name = trained.task.class_name(best)
    return f"{name} (probability {float(answer.prediction[best]):.4f})"


def json_text(answers: Sequence[Answer]) -> str:
    """A list with one object per file: file, architecture, prediction, written files, error."""
    _require_answers(answers)
    return json.dumps(
        [
            {
                "file": str(answer.file),
                "architecture": answer.architecture,
                "prediction": None if answer.prediction is None else answer.prediction.tolist(),
                "written": [str(path) for path in answer.written],
                "error": answer.error,
            }
            for answer in answers
        ]
    )


def csv_text(trained: Trained, answers: Sequence[Answer]) -> str:
    """One row per file; probabilities of classes have a column each.

    The columns are ``file``, ``architecture``, ``prediction`` (a number, a class, or the written
    networks, separated by semicolons), ``probability_0`` and so on for classes, and ``error``.
    """
    _require_trained(trained)
    _require_answers(answers)
    outputs = trained.task.outputs
    classes = outputs if trained.task.kind == "class" and isinstance(outputs, int) else 0
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    probabilities = [f"probability_{trained.task.class_name(index)}" for index in range(classes)]
    writer.writerow(["file", "architecture", "prediction", *probabilities, "error"])
    for answer in answers:
        values = _cells(trained, answer) or [None] * (1 + classes)
        writer.writerow([answer.file, answer.architecture or "", *values, answer.error or ""])
    return text.getvalue()


def _cells(trained: Trained, answer: Answer) -> list[float | str | None]:
    if answer.prediction is None:
        return []
    if trained.task.answers_networks:
        return [";".join(map(str, answer.written))]
    if answer.prediction.dim() == 0:
        return [float(answer.prediction)]
    best = trained.task.class_name(int(answer.prediction.argmax()))
    return [best, *answer.prediction.tolist()]
