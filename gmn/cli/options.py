"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

import gmn
from gmn.foundation import files

Model = Annotated[
    str,
    typer.Argument(
        help="A built-in example (cnn-relu, cnn-tanh, mlp, resnet) or module:factory, where "
        "calling factory() gives a torch.nn.Module, or a pair: the module, and a tuple of inputs "
        "or a dictionary of inputs by name."
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        help="An example input: 1x3x32x32, whole numbers below 100 2x7:int64<100, by name "
        "mask=2x7:bool; repeatable.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--checkpoint", "-c", help="File or folder of weights to put into the network."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Where in the file the state dict lies, such as model.state_dict."),
]
Complete = Annotated[
    bool,
    typer.Option(
        "--complete",
        help="Count the continuous symmetries that the spec misses (up to 2,000 parameters).",
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="First delete what this library wrote into the folder, and say what; nothing else.",
    ),
]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes of one thread; with --ray, the cluster's processors.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Work on a Ray cluster: auto (that of this machine), ray://HOST:10001, or local.",
    ),
]


def make_room(out: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    """Refuses an output folder that is read from, and clears it if the user says so."""
    files.require_apart(out, inputs)
    for name in files.overwrite(out, inputs) if overwrite else ():
        print(f"deleted {out / name}", file=sys.stderr)


def engine(workers: int, ray: str | None) -> gmn.engines.Engine:
    """The engine that the options name."""
    return gmn.engines.Processes(workers) if ray is None else gmn.engines.Ray(ray)
