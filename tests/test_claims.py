"""Figures in the documents are those of the benchmarks' files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import (
    against_published,
    growth,
    one_network,
    steps_against,
    training_questions,
)

BENCHMARKS = Path(against_published.__file__).parent


@pytest.mark.parametrize("file", ["against_published", "against_published_2_threads"])
@pytest.mark.parametrize("network", ["cnn", "siren"])
def test_times_beside_published_codes(network: str, file: str) -> None:
    rows = json.loads((BENCHMARKS / f"{file}.json").read_text())[network]
    page = (BENCHMARKS / "README.md").read_text()
    assert "\n".join(against_published.table(network, rows)) in page


def test_times_of_one_network() -> None:
    report = json.loads((BENCHMARKS / "one_network.json").read_text())
    page = (BENCHMARKS / "README.md").read_text()
    assert "\n".join(one_network.table(report["networks"])) in page


def test_growth() -> None:
    report = json.loads((BENCHMARKS / "growth.json").read_text())
    page = (BENCHMARKS / "README.md").read_text()
    assert "\n".join(growth.table(report["models"])) in page


def test_steps_beside_the_first_version() -> None:
    report = json.loads((BENCHMARKS / "against_0_1.json").read_text())
    page = (BENCHMARKS / "README.md").read_text()
    for network, rows in report.items():
        lines = [steps_against.line(name, row) for name, row in rows.items()]
        assert "\n".join([steps_against.head(network), *lines]) in page


def test_questions_about_training() -> None:
    report = json.loads((BENCHMARKS / "training_questions.json").read_text())
    page = (BENCHMARKS / "README.md").read_text()
    assert "\n".join(training_questions.table(report)) in page
