"""What several suites learn from: a small zoo, and the task on it. Nothing may be written to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmn.tasks import AccuracyPrediction
from tests.gmn.population import small_zoo


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zoo")
    small_zoo(path)
    return path


@pytest.fixture(scope="session")
def task(folder: Path) -> AccuracyPrediction:
    return AccuracyPrediction.open(folder)
