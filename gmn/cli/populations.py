"""Commands that build and import populations of trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import gmn
from gmn.cli import upkeep
from gmn.cli.choices import LAYOUTS, POPULATIONS
from gmn.cli.configuration import Config
from gmn.cli.errors import UserError
from gmn.cli.options import Input, Key, Overwrite, RayAddress, Workers, engine, make_room

app = typer.Typer(no_args_is_help=True, help="Populations of trained networks.")
app.add_typer(upkeep.app)


@app.command("build")
def build_zoo(
    name: Annotated[str, typer.Argument(help=f"Population: {', '.join(POPULATIONS)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    size: Annotated[int, typer.Option(min=1, help="Number of networks.")] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    workers: Workers = 2,
    ray: RayAddress = None,
    checkpoints: Annotated[
        int, typer.Option(min=1, help="Of classifiers: states kept of each run.")
    ] = 1,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="Of classifiers: store gradients beside weights.")
    ] = False,
    views: Annotated[
        int, typer.Option(min=1, help="Of INRs: networks in a row that hold one image.")
    ] = 1,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Train a population of networks; a stopped run goes on where it was.

    Example: `gmn zoo build cnn-mnist --size 1200 --seed 0 --out runs/cnn-mnist`,
    `gmn zoo build inr-mnist --size 5000 --seed 0 --ray auto --out runs/inr-mnist`,
    `gmn zoo build cnn-mnist --size 1000 --checkpoints 5 --gradients --out runs/trajectories`
    """
    make_room(out, [], overwrite)
    options = gmn.zoo.Options(checkpoints=checkpoints, gradients=gradients, views=views)
    on = engine(workers, ray)
    population = gmn.zoo.build(name, size=size, seed=seed, out=out, engine=on, options=options)
    print(f"{population} in {out}")
    upkeep.print_card(population)


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
    frequency: Annotated[
        float | None, typer.Option(help="Of neural-field-arena: factor in the sines of its fields.")
    ] = None,
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
    workers: Workers = 2,
    ray: RayAddress = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a published zoo, or a folder of checkpoints, and name what was skipped.

    Example: `gmn zoo import small-cnn-zoo svhn_cropped --splits svhn_split.csv --out runs/svhn`,
    `gmn zoo import dws-inrs mnist-inrs --splits mnist_splits.json --out runs/mnist-inrs`,
    `gmn zoo import folder runs --labels runs.csv --model my.models:make -i 1x3x32x32 --out runs/my`
    """
    from gmn.cli.sources import named_module

    make_room(out, [source], overwrite)
    named = None if model is None else named_module(model, input_shapes)
    if named is not None and named.keywords:
        raise UserError("a zoo is imported with positional inputs only")
    options: dict[str, Any] = {
        "splits": splits,
        "activation": activation,
        "copies": copies,
        "metadata": metadata,
        "epoch": epoch,
        "every_epoch": every_epoch,
        "frequency": frequency,
        "labels": labels,
        "model": named and named.module,
        "inputs": named and named.inputs,
        "key": key,
    }
    named_layout = gmn.zoo.importing.named_layout(layout, source, options)
    on = None if ray is None else engine(workers, ray)
    population = gmn.zoo.import_zoo(named_layout, out, workers=workers, engine=on)
    print(f"{population} in {out}")
    card = dict(population.manifest["card"])
    skipped = card.pop("skipped")
    for topic, value in card.items():
        print(f"  {topic}: {value}")
    for name in skipped:
        print(f"  skipped {name}")
