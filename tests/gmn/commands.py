"""Runs the command as a user would, in this process, and reads what it wrote."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gmn import cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of ``gmn`` with these arguments."""
    monkeypatch.setattr("sys.argv", ["gmn", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))
