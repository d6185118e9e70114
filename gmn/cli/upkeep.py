"""Commands on existing zoos: show, verify, merge, append, filter, export."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

import gmn
from gmn.cli.choices import FORMATS
from gmn.cli.errors import UserError
from gmn.cli.options import Json, Overwrite, make_room

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(help="Folder of a zoo.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="Condition such as 'test_accuracy>=0.5'; repeatable."),
]
Split = Annotated[str | None, typer.Option(help="Only train, val or test.")]
Architecture = Annotated[str | None, typer.Option(help="Only networks of this architecture.")]
Ids = Annotated[
    list[str] | None, typer.Option("--id", help="Only the network of this id; repeatable.")
]
Prefix = Annotated[
    list[str] | None,
    typer.Option("--prefix", help="Before the ids of a zoo's networks; once for each zoo."),
]


def print_card(population: gmn.zoo.Zoo) -> None:
    """Prints the data card of a zoo, and how long it took to build."""
    from gmn.zoo.store.provenance import duration

    for facts in (population.manifest["card"], duration(population.folder)):
        for topic, value in facts.items():
            print(f"  {topic}: {value}")


@app.command()
def show(folder: Folder, json: Json = False) -> None:
    """Print what is in a zoo: data card, counts, ranges of labels, sizes, duration.

    Example: `gmn zoo show runs/cnn-mnist`, `gmn zoo show runs/cnn-mnist --json`
    """
    from gmn.zoo.upkeep.describing import lines

    facts = gmn.zoo.describe(gmn.zoo.open(folder))
    print(jsonlib.dumps(facts, indent=1) if json else "\n".join(lines(facts)))


@app.command()
def verify(
    folder: Folder,
    rescue: Annotated[
        Path | None, typer.Option(help="Write a new zoo of all that is whole to this folder.")
    ] = None,
    overwrite: Overwrite = False,
    reindex: Annotated[
        bool, typer.Option("--reindex", help="Make a lost index again, from the shards.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare every file of a zoo with its checksum, and name what is lost; exit code 1 then.

    Example: `gmn zoo verify runs/cnn-mnist`, `gmn zoo verify runs/cnn-mnist --rescue runs/rescued`
    """
    if rescue is not None:
        make_room(rescue, [folder], overwrite)
    if reindex:
        gmn.zoo.reindex(folder)
    verdict = gmn.zoo.verify(folder, progress=not json)
    print(verdict.to_json() if json else verdict)
    if rescue is not None:
        rescued = gmn.zoo.rescue(folder, rescue, progress=not json)
        if not json:
            print(f"wrote {rescued} to {rescue}")
    if not verdict.ok:
        raise typer.Exit(1)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of zoos.")],
    out: Out,
    name: Annotated[str, typer.Option(help="Name of the new population.")] = "merged",
    prefix: Prefix = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Copy all networks of several zoos into one; a stopped run goes on where it was.

    Example: `gmn zoo merge runs/a runs/b --prefix a/ --prefix b/ --out runs/both`
    """
    make_room(out, folders, overwrite)
    _tell(gmn.zoo.merge(folders, out, name, prefix, progress=not json), json)


@app.command()
def append(
    folder: Folder,
    added: Annotated[list[Path], typer.Argument(help="Folders of zoos whose networks are added.")],
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Add all networks of other zoos to a zoo; readers see it as it was until all are there.

    Example: `gmn zoo append runs/all runs/new --prefix new/`
    """
    _tell(gmn.zoo.append(folder, added, prefix, progress=not json), json)


@app.command("filter")
def filter_zoo(
    folder: Folder,
    out: Out,
    where: Where = None,
    split: Split = None,
    architecture: Architecture = None,
    id: Ids = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Copy the networks that meet all conditions into a new zoo.

    Conditions compare a column with ==, !=, >=, <=, > or <; a network without a value meets none.

    Example: `gmn zoo filter runs/cnn-mnist --where 'test_accuracy>=0.5' --split train -o good`
    """
    population = gmn.zoo.open(folder)
    criteria = [
        *(where or []),
        *(f"{topic} is {value}" for topic, value in _given(split, architecture)),
        *([f"ids {', '.join(id)}"] if id else []),
    ]
    if not criteria:
        raise UserError("give a condition: --where, --split, --architecture or --id")
    make_room(out, [folder], overwrite)
    chosen = gmn.zoo.select(population, where or (), split, architecture, id)
    _tell(gmn.zoo.filtered(population, chosen, out, criteria, progress=not json), json)


@app.command()
def export(
    folder: Folder,
    out: Out,
    format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")] = FORMATS[0],
    where: Where = None,
    split: Split = None,
    architecture: Architecture = None,
    id: Ids = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write one file per network and a table index.csv, for those without this library.

    Example: `gmn zoo export runs/cnn-mnist --split test --format pt --out runs/files`
    """
    population = gmn.zoo.open(folder)
    chosen = gmn.zoo.select(population, where or (), split, architecture, id)
    make_room(out, [folder], overwrite)
    table = gmn.zoo.export(population, out, chosen, format, progress=not json)
    if json:
        print(jsonlib.dumps({"networks": len(chosen), "table": str(table)}))
    else:
        print(f"wrote {len(chosen)} networks and {table}")


def _given(split: str | None, architecture: str | None) -> list[tuple[str, str]]:
    topics = (("split", split), ("architecture", architecture))
    return [(topic, value) for topic, value in topics if value is not None]


def _tell(population: gmn.zoo.Zoo, json: bool) -> None:
    if json:
        print(jsonlib.dumps(gmn.zoo.describe(population), indent=1))
    else:
        print(f"{population} in {population.folder}")
