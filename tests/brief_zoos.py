"""Populations whose networks train for a few steps, for tests that do not ask what they learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gmn.zoo.building import catalogue
from gmn.zoo.training.ranges import Range

STEPS = 10


def make_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """All populations of the catalogue train for at most ten steps, in this process."""
    for name, builder in catalogue.BUILDERS.items():
        chosen: Any = builder
        ranges = getattr(chosen, "ranges", None)
        if hasattr(ranges, "steps"):
            changed = replace(chosen, ranges=replace(ranges, steps=Range(5, STEPS)))
        else:
            changed = replace(chosen, steps=STEPS)
        monkeypatch.setitem(catalogue.BUILDERS, name, changed)
