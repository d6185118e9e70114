"""Stores a run after every epoch, and logs it as CSV and for TensorBoard.

``run.pt`` holds the whole state and is replaced in one rename, so that a killed run goes on from
the last epoch that it finished. ``log.csv`` is written anew from the rows in the state.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import torch

from converters.states.checkpoint import read_nested
from gmn.foundation import manifest
from gmn.foundation.files import OutputFolder
from gmn.train.run import Run

STATE = "run.pt"
LOG = "log.csv"
BOARD = "tensorboard"
CARD = "model.json"
WEIGHTS = "model.safetensors"
# What values raise that are none of a run.
_SENSELESS = (
    ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def run_folder(folder: Path, inputs: Iterable[Path]) -> OutputFolder:
    """The right to write a run into a folder, which one process has at a time.

    Args:
        folder: folder of the run; made if absent.
        inputs: files and folders that are read.

    Raises:
        OutputError: if the folder holds anything else, another process writes to it, or it cannot
            be written to.
    """
    return OutputFolder(folder, "training run", inputs=inputs, earlier=_files_of_0_1)


def _files_of_0_1(folder: Path) -> set[str] | None:
    """The files of a run that was written before folders had markers."""
    try:
        _read(folder / STATE)
    except (OSError, ValueError):
        return None
    return {STATE, LOG, BOARD, CARD, WEIGHTS}


class Journal:
    """Keeps a run in a folder.

    Args:
        output: folder of the run.
        identity: makes what decides how the run goes; plain values. A folder keeps one run only.
    """

    def __init__(self, output: OutputFolder, identity: Callable[[], dict[str, Any]]) -> None:
        self.output, self._identity = output, identity
        self._board: Any = None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides how the run goes.

        Made when it is compared or stored: after the first epoch of a new run, by when most of the
        targets that it tells of are computed.
        """
        return self._identity()

    def resume(self, run: Run) -> None:
        """Restores the folder's run into a fresh one, if there is a stored run.

        Raises:
            ValueError: if the folder holds another run, or its state is damaged.
        """
        path = self.output.path / STATE
        if path.exists():
            saved = _read(path)
            _require_same(saved["identity"], self.identity, self.output.path)
            try:
                run.load_state_dict(saved["run"])
                self._write_log(run)
            except _SENSELESS as e:
                raise _damaged(path) from e
        self._board = _open_board(self.output, run.epoch)

    def write(self, run: Run) -> None:
        """Stores the run after an epoch."""
        content = io.BytesIO()
        torch.save({"identity": self.identity, "run": run.state_dict()}, content)
        self.output.write(STATE, content.getvalue())
        self._write_log(run)
        if self._board is not None:
            for name, value in run.log[-1].items():
                self._board.add_scalar(name, value, run.epoch - 1)
            self._board.flush()

    def close(self) -> None:
        """Closes the log of TensorBoard, if there is one."""
        if self._board is not None:
            self._board.close()

    def _write_log(self, run: Run) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, run.log[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(run.log)
        self.output.write(LOG, text.getvalue().encode())


def epochs_logged(folder: Path) -> int:
    """Number of epochs in the log of a folder; 0 if there is none."""
    path = folder / LOG
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        saved: dict[str, Any] = {**manifest.check(read_nested(path), _StoredRun, path)}
        moments = saved["run"]["optimiser"]["state"]  # by number, which the reader made text
        saved["run"]["optimiser"]["state"] = {int(key): value for key, value in moments.items()}
        return saved
    except _SENSELESS as e:
        raise _damaged(path) from e


class _StoredRun(TypedDict):
    identity: dict[str, Any]
    run: dict[str, Any]


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged, so its run cannot go on; take another folder, or --overwrite this one"
    )


def _require_same(stored: dict[str, Any], current: dict[str, Any], folder: Path) -> None:
    for key, value in current.items():
        if stored.get(key) != value:
            raise ValueError(
                f"{folder} already holds a run with {key} = {stored.get(key)!r:.200}, not "
                f"{value!r:.200}. Choose another folder, or --overwrite that one"
            )


def _open_board(output: OutputFolder, epoch: int) -> Any:
    """A writer for TensorBoard where it is installed; rows from ``epoch`` on are written anew."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    output.claim(BOARD)
    return SummaryWriter(output.path / BOARD, purge_step=epoch)
