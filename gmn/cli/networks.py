"""Commands on one network: inspect, verify, convert, draw."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import converters
import gmn
from gmn.cli.choices import ACTIVATIONS
from gmn.cli.errors import UserError
from gmn.cli.options import Complete, Input, Key, Model, Overwrite, Weights, make_room
from gmn.foundation import files
from gmn.foundation.arguments import require_seed

if TYPE_CHECKING:
    from gmn.cli.sources import Named

app = typer.Typer()


@app.command()
def inspect(
    model: Model,
    input_shapes: Input = None,
    checkpoint: Weights = None,
    key: Key = None,
    complete: Complete = False,
    json: Annotated[bool, typer.Option("--json", help="Print the spec as JSON.")] = False,
) -> None:
    """Print node sets, edge sets, symmetries and the certificate of a network.

    Example: `gmn inspect resnet`, `gmn inspect mypackage.models:make -i 1x3x32x32 -c last.ckpt`,
    `gmn inspect mypackage.models:make -i "ids=2x7:int64<100" -i mask=2x7:bool`
    """
    named, spec = _load(model, input_shapes, checkpoint, key)
    if json:
        print(spec.to_json())
        return
    print(spec)
    print()
    print(_verified(named, spec, complete=complete))


@app.command()
def verify(
    model: Model,
    input_shapes: Input = None,
    checkpoint: Weights = None,
    key: Key = None,
    trials: Annotated[int, typer.Option(help="Random elements of the whole group.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random elements.")] = 0,
    complete: Complete = False,
    json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Check by experiment that a network's symmetries preserve its function; exit code 1 if not.

    What the rules claim is checked as it is; `gmn inspect` leaves out what does not hold.

    Example: `gmn verify mypackage.models:make -i 1x3x32x32 -c last.ckpt --trials 32`
    """
    named, spec = _load(model, input_shapes, checkpoint, key, experiment=False)
    certificate = _verified(named, spec, trials, seed, complete)
    print(certificate.to_json() if json else certificate)
    if not certificate.ok:
        raise typer.Exit(1)


@app.command()
def convert(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders of weights, all of one architecture."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The network: as for `gmn inspect`.")
    ] = None,
    hf: Annotated[
        Path | None,
        typer.Option("--hf", help="Folder of transformers: config.json, and weights if none else."),
    ] = None,
    timm: Annotated[str | None, typer.Option("--timm", help="Name of a timm model.")] = None,
    input_shapes: Input = None,
    key: Key = None,
    activation: Annotated[
        str | None,
        typer.Option(help=f"Of a chain without a model: {', '.join(ACTIVATIONS)}. [relu]"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write checkpoints as one parameter graph: spec.json and weights.safetensors.

    Files that cannot be used are named with the reason; the others are converted, and the exit
    code is 1.

    Code in the checkpoints never runs. Without a model, a plain chain of linear layers and
    convolutions is guessed from the shapes, and what was assumed is printed.

    Example: `gmn convert a.pt b.pt --model mypackage.models:make -i 1x3x32x32 --out graph`,
    `gmn convert --hf folder --out graph`, `gmn convert mlp.safetensors --out graph`
    """
    from gmn.cli import sources

    make_room(out, [*(checkpoints or []), *([hf] if hf else [])], overwrite)
    report, bad = sources.convert(
        checkpoints or [], out, model, hf, timm, input_shapes, key, activation
    )
    lines = [*report, *(f"left out {line}" for line in bad), str(gmn.load(out))]
    print("\n".join([*lines, f"wrote {out}; gmn.load({str(out)!r}) reads it again"]))
    if bad:
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
    _, spec = _load(model, input_shapes)
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"{out}: pictures are written as .png, .svg or .pdf")
    picture, creator = io.BytesIO(), "graph-metanetworks"
    figure = gmn.draw.draw(spec)
    figure.savefig(picture, dpi=160, format=out.suffix[1:], metadata={"Creator": creator})
    files.write_single(out, picture.getvalue(), own=creator.encode())
    print(f"wrote {out}")


def _load(
    model: str,
    shapes: list[str] | None,
    checkpoint: Path | None = None,
    key: str | None = None,
    experiment: bool = True,
) -> tuple[Named, gmn.GraphSpec]:
    """The module with the weights that the user means, example inputs, and its spec."""
    from gmn.cli import sources

    named = sources.named_module(model, shapes)
    spec = converters.trace(named.module, named.inputs, named.keywords, experiment=experiment)
    if checkpoint is not None:
        sources.load_weights(named.module, spec, checkpoint, key)
    return named, spec


def _verified(
    named: Named,
    spec: gmn.GraphSpec,
    trials: int = 8,
    seed: int | None = None,
    complete: bool = False,
) -> converters.Certificate:
    import torch

    generator = None if seed is None else torch.Generator().manual_seed(require_seed("seed", seed))
    return converters.verify(
        named.module,
        named.inputs,
        spec,
        trials,
        generator,
        example_kwargs=named.keywords,
        complete=complete,
    )
