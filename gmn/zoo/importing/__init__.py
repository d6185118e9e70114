"""Published zoos, read from disk and converted into zoos of this library; one file per layout."""

from gmn.zoo.importing.dws import DwsInrs
from gmn.zoo.importing.folder import CheckpointFolder
from gmn.zoo.importing.layout import Entry, Layout, Listing
from gmn.zoo.importing.model_zoos import ModelZoos
from gmn.zoo.importing.named import LAYOUTS, named_layout
from gmn.zoo.importing.nfn import NfnSirens
from gmn.zoo.importing.run import import_zoo
from gmn.zoo.importing.small_cnn import SmallCnnZoo
from gmn.zoo.importing.transformer import SmallTransformerZoo
from gmn.zoo.importing.wild_park import CnnWildPark

__all__ = [
    "LAYOUTS",
    "CheckpointFolder",
    "CnnWildPark",
    "DwsInrs",
    "Entry",
    "Layout",
    "Listing",
    "ModelZoos",
    "NfnSirens",
    "SmallCnnZoo",
    "SmallTransformerZoo",
    "import_zoo",
    "named_layout",
]
