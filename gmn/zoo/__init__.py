"""Populations of trained networks: built by name, kept in checked files, opened in a moment."""

from gmn.zoo.building import build
from gmn.zoo.importing import (
    CheckpointFolder,
    CnnWildPark,
    DwsInrs,
    ModelZoos,
    NfnSirens,
    SmallCnnZoo,
    SmallTransformerZoo,
    import_zoo,
)
from gmn.zoo.population import Zoo
from gmn.zoo.population import Zoo as open
from gmn.zoo.store import ZooError
from gmn.zoo.stream import Stream, StreamBatch
from gmn.zoo.writer import ZooWriter

__all__ = [
    "CheckpointFolder",
    "CnnWildPark",
    "DwsInrs",
    "ModelZoos",
    "NfnSirens",
    "SmallCnnZoo",
    "SmallTransformerZoo",
    "Stream",
    "StreamBatch",
    "Zoo",
    "ZooError",
    "ZooWriter",
    "build",
    "import_zoo",
    "open",
]
