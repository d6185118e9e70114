"""The folders that Ray Tune writes: one per run, with its parameters, results and checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gmn.errors import ZooError

CHECKPOINT = re.compile(r"checkpoint_0*(\d+)")


def find_runs(source: Path) -> dict[str, Path]:
    """Folders of runs by name: in a folder, or else in its subfolders.

    A run has ``params.json``, ``result.json`` or checkpoints; whatever else it lacks is for the
    reader to say.

    Raises:
        ZooError: If there are none, or those of several experiments.
    """
    if not source.is_dir():
        raise ZooError(f"{source} is no folder; give the one into which the archive was unpacked")
    runs = _runs_in(source) or [run for folder in _folders(source) for run in _runs_in(folder)]
    if not runs:
        raise ZooError(
            f"{source} has no folders of runs, with a params.json in them, nor have the folders "
            "in it; give the folder of one zoo"
        )
    parents = sorted({run.parent.name for run in runs})
    if len(parents) > 1:
        raise ZooError(f"{source} holds several zoos, {', '.join(parents)}; give the folder of one")
    return {run.name: run for run in runs}


def _runs_in(folder: Path) -> list[Path]:
    return [path for path in _folders(folder) if _is_run(path)]


def _is_run(folder: Path) -> bool:
    names = ("params.json", "result.json")
    return any((folder / name).is_file() for name in names) or bool(find_checkpoints(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def find_checkpoints(run: Path) -> dict[int, Path]:
    """The files of a run by iteration: of folders ``checkpoint_000007`` or ``checkpoint_7``."""
    matches = ((CHECKPOINT.fullmatch(path.name), path) for path in run.iterdir())
    return {int(match[1]): path / "checkpoints" for match, path in matches if match}


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def read_results(path: Path) -> dict[int, dict[str, Any]]:
    """The lines of ``result.json`` by iteration; lines that are damaged are left away.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    result = {}
    for line in text.splitlines():
        try:
            content = json.loads(line)
            result[int(content["training_iteration"])] = content
        except (ValueError, KeyError, TypeError):
            continue  # a killed run leaves half a line: the reader misses the measures and says so
    return result
