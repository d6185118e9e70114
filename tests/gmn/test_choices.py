"""The names in help texts are those that the library knows."""

from __future__ import annotations

from gmn.cli import choices, sources
from gmn.zoo import importing
from gmn.zoo.building import catalogue
from gmn.zoo.upkeep import exporting


def test_choices_are_what_there_is() -> None:
    assert tuple(sources.ACTIVATIONS) == choices.ACTIVATIONS
    assert tuple(catalogue.BUILDERS) == choices.POPULATIONS
    assert tuple(importing.LAYOUTS) == choices.LAYOUTS
    assert choices.FORMATS == exporting.FORMATS
