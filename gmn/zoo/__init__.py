"""Populations of trained networks: built by name, kept in checked files, opened in a moment."""

from gmn.errors import ZooError
from gmn.zoo.builders import Options
from gmn.zoo.building import build
from gmn.zoo.describing import describe
from gmn.zoo.exporting import export
from gmn.zoo.importing import (
    CheckpointFolder,
    CnnWildPark,
    DwsInrs,
    ModelZoos,
    NeuralFieldArena,
    NfnSirens,
    SmallCnnZoo,
    SmallTransformerZoo,
    import_zoo,
)
from gmn.zoo.merging import append, filtered, merge
from gmn.zoo.population import Zoo
from gmn.zoo.population import Zoo as open
from gmn.zoo.selecting import select
from gmn.zoo.stream import Stream, StreamBatch
from gmn.zoo.verifying import reindex, rescue, verify
from gmn.zoo.writer import ZooWriter

__all__ = [
    "CheckpointFolder",
    "CnnWildPark",
    "DwsInrs",
    "ModelZoos",
    "NeuralFieldArena",
    "NfnSirens",
    "Options",
    "SmallCnnZoo",
    "SmallTransformerZoo",
    "Stream",
    "StreamBatch",
    "Zoo",
    "ZooError",
    "ZooWriter",
    "append",
    "build",
    "describe",
    "export",
    "filtered",
    "import_zoo",
    "merge",
    "open",
    "reindex",
    "rescue",
    "select",
    "verify",
]
