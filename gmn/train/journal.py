"""Stores a run after every epoch, and logs it as CSV and for TensorBoard.

``run.pt`` holds the whole state and is replaced in one rename, so that a killed run goes on from
the last epoch that it finished. ``log.csv`` is written anew from the rows in the state.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import Any, TypedDict

import torch

from gmn import manifest
from gmn.train.run import Run
from gmn.zoo.store.files import write_atomically

STATE = "run.pt"
LOG = "log.csv"
BOARD = "tensorboard"


class Journal:
    """Keeps a run in a folder.

    Args:
        folder: folder of the run; made if absent.
        identity: what decides how the run goes; plain values. A folder keeps one run only.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self.identity = folder, identity
        self._board: Any = None
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self, run: Run) -> None:
        """Restores the folder's run into a fresh one, if there is a stored run.

        Raises:
            ValueError: if the folder holds another run, or its state is damaged.
        """
        path = self.folder / STATE
        if path.exists():
            saved = _read(path)
            _require_same(saved["identity"], self.identity, self.folder)
            try:
                run.load_state_dict(saved["run"])
                self._write_log(run)
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as e:
                raise _damaged(path) from e
        self._board = _open_board(self.folder / BOARD, run.epoch)

    def write(self, run: Run) -> None:
        """Stores the run after an epoch."""
        content = io.BytesIO()
        torch.save({"identity": self.identity, "run": run.state_dict()}, content)
        write_atomically(self.folder / STATE, content.getvalue())
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
        write_atomically(self.folder / LOG, text.getvalue().encode())


def epochs_logged(folder: Path) -> int:
    """Number of epochs in the log of a folder; 0 if there is none."""
    path = folder / LOG
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def _read(path: Path) -> dict[str, Any]:
    content = io.BytesIO(path.read_bytes())
    try:
        saved = torch.load(content, map_location="cpu", weights_only=True)
        return dict(manifest.check(saved, _Saved, path))
    except Exception as error:  # bytes that make no sense lead torch into anything
        raise _damaged(path) from error


class _Saved(TypedDict):
    identity: dict[str, Any]
    run: dict[str, Any]


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is damaged, so its run cannot go on; delete the folder to begin anew"
    )


def _require_same(stored: dict[str, Any], current: dict[str, Any], folder: Path) -> None:
    for key, value in current.items():
        if stored.get(key) != value:
            raise ValueError(
                f"{folder} already holds a run with {key} = {stored.get(key)!r}, not {value!r}. "
                "Choose another folder, or delete that one"
            )


def _open_board(folder: Path, epoch: int) -> Any:
    """A writer for TensorBoard where it is installed; rows from ``epoch`` on are written anew."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder, purge_step=epoch)
