"""Commands on populations of trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gmn import zoo
from gmn.cli.configuration import Config
from gmn.cli.options import Input, Key, RayAddress, Workers, engine
from gmn.cli.sources import named_module
from gmn.zoo.catalogue import BUILDERS
from gmn.zoo.importing import LAYOUTS, named_layout

app = typer.Typer(no_args_is_help=True, help="Populations of trained networks.")
console = Console()


@app.command("build")
def build_zoo(
    name: Annotated[str, typer.Argument(help=f"Population: {', '.join(BUILDERS)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    size: Annotated[int, typer.Option(min=1, help="Number of networks.")] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    workers: Workers = 2,
    ray: RayAddress = None,
    config: Config = None,
) -> None:
    """Train a population of networks; a stopped run goes on where it was.

    Example: `gmn zoo build cnn-mnist --size 1200 --seed 0 --out runs/cnn-mnist`,
    `gmn zoo build inr-mnist --size 5000 --seed 0 --ray auto --out runs/inr-mnist`
    """
    population = zoo.build(name, size=size, seed=seed, out=out, engine=engine(workers, ray))
    console.print(f"{population} in {out}")
    for topic, value in population.manifest["card"].items():
        console.print(f"  {topic}: {value}", highlight=False)


@app.command("import")
def import_zoo(
    layout: Annotated[str, typer.Argument(help=f"Layout of the files: {', '.join(LAYOUTS)}.")],
    source: Annotated[Path, typer.Argument(help="Folder of the files, unpacked.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    splits: Annotated[
        Path | None, typer.Option(help="Published file of splits; else the layout's own rule.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Of small-cnn-zoo: only networks with relu or tanh.")
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Of nfn-sirens: further networks of training images.")
    ] = False,
    metadata: Annotated[
        Path | None, typer.Option(help="Of small-transformer-zoo: metadata/mnist.csv.")
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            help="Which checkpoint of a run: of small-transformer-zoo [75], of model-zoos [last]."
        ),
    ] = None,
    every_epoch: Annotated[
        bool, typer.Option("--every-epoch", help="Of model-zoos: all checkpoints of each run.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(help="Of folder: CSV table with a column file, and labels in the others."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Of folder: the architecture, a built-in example or module:factory."),
    ] = None,
    input_shapes: Input = None,
    key: Key = None,
) -> None:
    """Convert a published zoo, or a folder of checkpoints, and name what was skipped.

    Example: `gmn zoo import small-cnn-zoo svhn_cropped --splits svhn_split.csv --out runs/svhn`,
    `gmn zoo import dws-inrs mnist-inrs --splits mnist_splits.json --out runs/mnist-inrs`,
    `gmn zoo import folder runs --labels runs.csv --model my.models:make -i 1x3x32x32 --out runs/my`
    """
    module, inputs = (None, None) if model is None else named_module(model, input_shapes)
    options: dict[str, Any] = {
        "splits": splits,
        "activation": activation,
        "copies": copies,
        "metadata": metadata,
        "epoch": epoch,
        "every_epoch": every_epoch,
        "labels": labels,
        "model": module,
        "inputs": inputs,
        "key": key,
    }
    population = zoo.import_zoo(named_layout(layout, source, options), out)
    console.print(f"{population} in {out}")
    card = dict(population.manifest["card"])
    skipped = card.pop("skipped")
    for topic, value in card.items():
        console.print(f"  {topic}: {value}", highlight=False)
    for name in skipped:
        console.print(f"  skipped {name}", highlight=False, markup=False)
