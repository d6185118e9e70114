"""A small population of INRs of digits, fitted in a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gmn import zoo
from gmn.zoo.building import catalogue


def small_inrs(folder: Path, size: int = 100, steps: int = 40) -> zoo.Zoo:
    """SIRENs of images of 8 × 8 pixels; few steps, so they are blurred."""
    with pytest.MonkeyPatch.context() as patch:
        quick = replace(catalogue.BUILDERS["inr-digits"], steps=steps)
        patch.setitem(catalogue.BUILDERS, "inr-digits", quick)
        return zoo.build("inr-digits", size, 0, folder, workers=1, progress=False)
