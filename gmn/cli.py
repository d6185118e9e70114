"""The ``gmn`` command."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

import converters
from gmn import registry, zoo
from gmn.comparison import compare as run_comparison
from gmn.comparison import save
from gmn.draw import draw as draw_spec
from gmn.tasks import AccuracyPrediction
from gmn.train import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Neural networks that read neural networks.",
)
zoo_app = typer.Typer(no_args_is_help=True, help="Populations of trained networks.")
app.add_typer(zoo_app, name="zoo")

console = Console()

Model = Annotated[
    str,
    typer.Argument(
        help="A built-in example (cnn-relu, cnn-tanh, mlp, resnet) or module:factory, where "
        "calling factory() gives a torch.nn.Module, or a pair (module, tuple of inputs)."
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", help="Shape of an example input, such as 1x3x32x32; repeatable."),
]


class UserError(Exception):
    """Something the user can mend; shown without a traceback."""


@app.command()
def inspect(
    model: Model,
    input_shapes: Input = None,
    json: Annotated[bool, typer.Option("--json", help="Print the spec as JSON.")] = False,
) -> None:
    """Print node sets, edge sets, symmetries and the certificate of a network.

    Example: `gmn inspect resnet`, `gmn inspect mypackage.models:make -i 1x3x32x32`
    """
    module, inputs = _load(model, input_shapes)
    spec = converters.trace(module, inputs)
    if json:
        print(spec.to_json())
        return
    print(spec)
    print()
    print(converters.verify(module, inputs, spec))


@app.command()
def verify(
    model: Model,
    input_shapes: Input = None,
    trials: Annotated[int, typer.Option(help="Random elements of the whole group.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random elements.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Check by experiment that a network's symmetries preserve its function; exit code 1 if not.

    Example: `gmn verify mypackage.models:make -i 1x3x32x32 --trials 32`
    """
    module, inputs = _load(model, input_shapes)
    generator = torch.Generator().manual_seed(seed)
    certificate = converters.verify(module, inputs, trials=trials, generator=generator)
    print(certificate.to_json() if json else certificate)
    if not certificate.ok:
        raise typer.Exit(1)


@app.command()
def draw(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .png, .svg or .pdf.")],
    input_shapes: Input = None,
) -> None:
    """Draw the layer-level graph of a network.

    Example: `gmn draw resnet -o resnet.svg`
    """
    module, inputs = _load(model, input_shapes)
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"{out}: pictures are written as .png, .svg or .pdf")
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_spec(converters.trace(module, inputs)).savefig(out, dpi=160)
    console.print(f"wrote {out}")


@app.command()
def models() -> None:
    """List the models that `gmn compare` knows."""
    for name in registry.names():
        print(name)


@zoo_app.command("build")
def build_zoo(
    name: Annotated[str, typer.Argument(help="Population: cnn-mnist or cnn-digits.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    size: Annotated[int, typer.Option(min=1, help="Number of networks.")] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread.")] = 2,
) -> None:
    """Train a population of networks; a stopped run goes on where it was.

    Example: `gmn zoo build cnn-mnist --size 1200 --seed 0 --out runs/cnn-mnist`
    """
    population = zoo.build(name, size=size, seed=seed, out=out, workers=workers)
    console.print(f"{population} in {out}")


@app.command()
def compare(
    population: Annotated[Path, typer.Argument(help="Folder of a zoo.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for JSON, table and plot.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model by name, repeatable; all if left out."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per model.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 25,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread.")] = 2,
) -> None:
    """Predict test accuracy from weights with several models, and compare them.

    Example: `gmn compare runs/cnn-mnist -m gmn -m nfn-hnp --out runs/compare`
    """
    result = run_comparison(
        partial(AccuracyPrediction.open, population),
        model or registry.names(),
        seeds=seeds,
        recipe=Recipe(epochs=epochs),
        workers=workers,
    )
    print(result)
    save(result, out)
    console.print(f"wrote {out}/comparison.json, comparison.txt and comparison.png")


def _load(name: str, shapes: list[str] | None) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module and example inputs that the user means."""
    from gmn.examples import EXAMPLES

    made = EXAMPLES[name]() if name in EXAMPLES else _call_factory(name)
    module, inputs = made if isinstance(made, tuple) else (made, None)
    if shapes:
        inputs = tuple(torch.randn(_shape(text)) for text in shapes)
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} gave a {type(module).__name__}, not a torch.nn.Module")
    if inputs is None:
        raise UserError(f"{name} gave no example inputs; add --input 1x3x32x32, once per input")
    return module, (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def _call_factory(name: str) -> Any:
    from gmn.examples import EXAMPLES

    place, colon, factory = name.partition(":")
    if not colon:
        raise UserError(
            f"{name} is neither a built-in example ({', '.join(EXAMPLES)}) nor module:factory"
        )
    sys.path.insert(0, "")  # as `python -m` does, so that a module in the current folder is found
    try:
        return getattr(importlib.import_module(place), factory)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name}: {error}") from error


def _shape(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split("x")]
    except ValueError as error:
        raise UserError(f"{text!r} is not a shape such as 1x3x32x32") from error


def main() -> None:
    """Runs the command; errors that a user can mend are one line."""
    try:
        app()
    except (UserError, converters.TraceError, zoo.ZooError, KeyError, ValueError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
