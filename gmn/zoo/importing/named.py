"""The published layouts, by the name that the command line uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from gmn.foundation.arguments import require_type
from gmn.zoo.importing.layout import Layout
from gmn.zoo.importing.layouts.dws import DwsInrs
from gmn.zoo.importing.layouts.field_arena import NeuralFieldArena
from gmn.zoo.importing.layouts.folder import CheckpointFolder
from gmn.zoo.importing.layouts.model_zoos import ModelZoos
from gmn.zoo.importing.layouts.nfn import NfnSirens
from gmn.zoo.importing.layouts.small_cnn import SmallCnnZoo
from gmn.zoo.importing.layouts.transformer import SmallTransformerZoo
from gmn.zoo.importing.layouts.wild_park import CnnWildPark

LAYOUTS: dict[str, Callable[..., Layout]] = {
    layout.name: layout
    for layout in (
        SmallCnnZoo,
        DwsInrs,
        NfnSirens,
        SmallTransformerZoo,
        ModelZoos,
        CnnWildPark,
        NeuralFieldArena,
        CheckpointFolder,
    )
}


def named_layout(name: str, source: str | Path, options: Mapping[str, Any]) -> Layout:
    """A published zoo on disk.

    Args:
        name: A key of ``LAYOUTS``, such as ``"small-cnn-zoo"``.
        source: the folder of the published files.
        options: further arguments of the layout; those that are None or False count as not given.

    Raises:
        ValueError: If no layout has this name, it has not one of the options, or lacks one that it
            needs.
    """
    require_type("options", options, Mapping, "a dictionary of values by name")
    if not isinstance(name, str) or name not in LAYOUTS:
        raise ValueError(f"no layout is called {name!r}; known: {', '.join(LAYOUTS)}")
    # An epoch of 0 is given: `in (None, False)` would drop it.
    given = {k: value for k, value in options.items() if value is not None and value is not False}
    known = {o: p for o, p in signature(LAYOUTS[name]).parameters.items() if o != "source"}
    for option in given:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; it has: {', '.join(known)}")
    lacking = [o for o, p in known.items() if p.default is Parameter.empty and o not in given]
    if lacking:
        raise ValueError(f"{name} needs the options {', '.join(lacking)}")
    return LAYOUTS[name](source, **given)
