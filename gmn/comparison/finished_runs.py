"""Stores finished runs of a comparison as JSON lines, so that none is trained twice.

``runs.jsonl`` begins with the protocol. A comparison that was stopped, or one of further models or
seeds, takes from there what was trained under the same protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gmn.comparison.jobs import RunResult
from gmn.foundation import manifest
from gmn.foundation.files import OutputFolder
from gmn.foundation.manifest import ManifestError

FILE = "runs.jsonl"
RESULTS = ("comparison.json", "comparison.txt", "comparison.png")


def comparison_folder(folder: Path, inputs: Iterable[Path] = ()) -> OutputFolder:
    """The right to write a comparison into a folder, which one process has at a time.

    Args:
        folder: made if absent.
        inputs: folders that are read.

    Raises:
        OutputError: if the folder holds anything else, another process writes to it, or it cannot
            be written to.
    """
    return OutputFolder(folder, "comparison", inputs=inputs, earlier=_files_of_0_1)


def _files_of_0_1(folder: Path) -> set[str] | None:
    """The files of a comparison that was written before folders had markers."""
    lines = _lines(folder / FILE)
    if not lines or not isinstance(lines[0], dict) or "recipe" not in lines[0]:
        return None
    return {FILE, *RESULTS}


class FinishedRuns:
    """The finished runs in a folder.

    Args:
        output: the folder.
        protocol: makes what has to be equal for runs to be comparable, as JSON values; called where
            there are runs to compare with, or else when the first one is kept.

    Raises:
        ValueError: if the folder holds runs of another protocol, or of another version.
    """

    def __init__(self, output: OutputFolder, protocol: Callable[[], dict[str, Any]]) -> None:
        self.output, self.path = output, output.path / FILE
        self._protocol, lines = protocol, _lines(self.path)
        self._begun = bool(lines)
        if lines:
            # Runs of versions without devices are of the CPU.
            stored = manifest.check(lines[0], dict[str, Any], self.path)
            _require_same({"device": "cpu", **stored}, self._first(), self.path)
        runs = [self._run(line) for line in lines[1:]]
        self._runs = {(run.model, run.seed): run for run in runs}

    def find(self, model: str, seed: int) -> RunResult | None:
        """The run of a model with a seed, if it was finished."""
        return self._runs.get((model, seed))

    def add(self, run: RunResult) -> None:
        """Keeps a finished run."""
        if not self._begun:
            self.output.write(FILE, json.dumps(self._first()).encode())
            self._begun = True
        # A break before it: the last line may be torn.
        self.output.append(FILE, f"\n{json.dumps(asdict(run))}")

    def _first(self) -> dict[str, Any]:
        """The first line as it is read back."""
        values: dict[str, Any] = json.loads(json.dumps(self._protocol()))
        return values

    def _run(self, line: dict[str, Any]) -> RunResult:
        try:
            return manifest.check(line, RunResult, self.path)
        except ManifestError as error:
            raise ValueError(f"{self.path} holds no runs of this version: {error}") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; one that a killed process tore is left out."""
    lines = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            lines.append(manifest.parse(line, path))
        except ManifestError:
            continue
    return lines


def _require_same(stored: dict[str, Any], current: dict[str, Any], path: Path) -> None:
    for key, value in current.items():
        other = stored.get(key)
        if isinstance(other, dict) and isinstance(value, dict):
            _require_same(other, value, path)
        elif other != value:
            raise ValueError(
                f"{path} holds runs with {key} = {other!r}, not {value!r}. Choose another folder, "
                "or --overwrite that one"
            )
