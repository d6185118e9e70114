"""Published zoos, read from disk and converted into zoos of this library; one file per layout."""

from gmn.zoo.importing.layout import Entry, Layout, Listing
from gmn.zoo.importing.layouts.dws import DwsInrs
from gmn.zoo.importing.layouts.field_arena import NeuralFieldArena
from gmn.zoo.importing.layouts.folder import CheckpointFolder
from gmn.zoo.importing.layouts.model_zoos import ModelZoos
from gmn.zoo.importing.layouts.nfn import NfnSirens
from gmn.zoo.importing.layouts.small_cnn import SmallCnnZoo
from gmn.zoo.importing.layouts.transformer import SmallTransformerZoo
from gmn.zoo.importing.layouts.wild_park import CnnWildPark
from gmn.zoo.importing.named import LAYOUTS, named_layout
from gmn.zoo.importing.run import import_zoo

__all__ = [
    "LAYOUTS",
    "CheckpointFolder",
    "CnnWildPark",
    "DwsInrs",
    "Entry",
    "Layout",
    "Listing",
    "ModelZoos",
    "NeuralFieldArena",
    "NfnSirens",
    "SmallCnnZoo",
    "SmallTransformerZoo",
    "import_zoo",
    "named_layout",
]
