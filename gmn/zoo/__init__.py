"""Populations of trained networks: building, importing, storing and reading them."""

from gmn.errors import ZooError
from gmn.zoo.architectures.widen import widen
from gmn.zoo.building.build import build
from gmn.zoo.building.builders import Options
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
from gmn.zoo.population import Zoo
from gmn.zoo.population import Zoo as open
from gmn.zoo.selecting import select
from gmn.zoo.store.writer import ZooWriter
from gmn.zoo.upkeep.describing import describe
from gmn.zoo.upkeep.exporting import export
from gmn.zoo.upkeep.merging import append, filtered, merge
from gmn.zoo.upkeep.repairing import reindex, rescue
from gmn.zoo.upkeep.verifying import verify

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
    "widen",
]
