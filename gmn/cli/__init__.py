"""The ``gmn`` command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn

import converters
from gmn import files, registry, zoo
from gmn import train as training
from gmn.augment import SampledSymmetry
from gmn.cli.sources import ACTIVATIONS, UserError, load_weights, named_module
from gmn.cli.sources import convert as convert_checkpoints
from gmn.comparison import compare as run_comparison
from gmn.comparison import save
from gmn.draw import draw as draw_spec
from gmn.spec import GraphSpec
from gmn.tasks import task_of
from gmn.train import Recipe
from gmn.zoo.catalogue import BUILDERS
from gmn.zoo.importing import LAYOUTS, named_layout

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
Weights = Annotated[
    Path | None,
    typer.Option("--checkpoint", "-c", help="File or folder of weights to put into the network."),
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Where in the file the state dict lies, such as model.state_dict."),
]


@app.command()
def inspect(
    model: Model,
    input_shapes: Input = None,
    checkpoint: Weights = None,
    key: Key = None,
    json: Annotated[bool, typer.Option("--json", help="Print the spec as JSON.")] = False,
) -> None:
    """Print node sets, edge sets, symmetries and the certificate of a network.

    Example: `gmn inspect resnet`, `gmn inspect mypackage.models:make -i 1x3x32x32 -c last.ckpt`
    """
    module, inputs, spec = _load(model, input_shapes, checkpoint, key)
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
    checkpoint: Weights = None,
    key: Key = None,
    trials: Annotated[int, typer.Option(help="Random elements of the whole group.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random elements.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Check by experiment that a network's symmetries preserve its function; exit code 1 if not.

    Example: `gmn verify mypackage.models:make -i 1x3x32x32 -c last.ckpt --trials 32`
    """
    module, inputs, spec = _load(model, input_shapes, checkpoint, key)
    generator = torch.Generator().manual_seed(seed)
    certificate = converters.verify(module, inputs, spec, trials, generator)
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
) -> None:
    """Write checkpoints as one parameter graph: spec.json and weights.safetensors.

    Code in the checkpoints never runs. Without a model, a plain chain of linear layers and
    convolutions is guessed from the shapes, and what was assumed is printed.

    Example: `gmn convert a.pt b.pt --model mypackage.models:make -i 1x3x32x32 --out graph`,
    `gmn convert --hf folder --out graph`, `gmn convert mlp.safetensors --out graph`
    """
    graph, report = convert_checkpoints(
        checkpoints or [], model, hf, timm, input_shapes, key, activation
    )
    files.save(graph, out)
    print("\n".join([*report, str(graph), f"wrote {out}; gmn.load({str(out)!r}) reads it again"]))


@app.command()
def draw(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .png, .svg or .pdf.")],
    input_shapes: Input = None,
) -> None:
    """Draw the layer-level graph of a network.

    Example: `gmn draw resnet -o resnet.svg`
    """
    _, _, spec = _load(model, input_shapes)
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"{out}: pictures are written as .png, .svg or .pdf")
    out.parent.mkdir(parents=True, exist_ok=True)
    draw_spec(spec).savefig(out, dpi=160)
    console.print(f"wrote {out}")


@app.command()
def models() -> None:
    """List the models that `gmn compare` knows."""
    for name in registry.names():
        print(name)


@zoo_app.command("build")
def build_zoo(
    name: Annotated[str, typer.Argument(help=f"Population: {', '.join(BUILDERS)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    size: Annotated[int, typer.Option(min=1, help="Number of networks.")] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread.")] = 2,
) -> None:
    """Train a population of networks; a stopped run goes on where it was.

    Example: `gmn zoo build cnn-mnist --size 1200 --seed 0 --out runs/cnn-mnist`,
    `gmn zoo build inr-mnist --size 5000 --seed 0 --out runs/inr-mnist`
    """
    population = zoo.build(name, size=size, seed=seed, out=out, workers=workers)
    console.print(f"{population} in {out}")
    for topic, value in population.manifest["card"].items():
        console.print(f"  {topic}: {value}", highlight=False)


@zoo_app.command("import")
def import_zoo(
    layout: Annotated[str, typer.Argument(help=f"Published layout: {', '.join(LAYOUTS)}.")],
    source: Annotated[Path, typer.Argument(help="Folder of the published files, unpacked.")],
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
        int | None, typer.Option(help="Of small-transformer-zoo: which checkpoints. [75]")
    ] = None,
) -> None:
    """Convert a published zoo into one of this library, and name what was skipped.

    Example: `gmn zoo import small-cnn-zoo svhn_cropped --splits svhn_split.csv --out runs/svhn`,
    `gmn zoo import dws-inrs mnist-inrs --splits mnist_splits.json --out runs/mnist-inrs`
    """
    options: dict[str, Any] = {
        "splits": splits,
        "activation": activation,
        "copies": copies,
        "metadata": metadata,
        "epoch": epoch,
    }
    population = zoo.import_zoo(named_layout(layout, source, options), out)
    console.print(f"{population} in {out}")
    card = dict(population.manifest["card"])
    skipped = card.pop("skipped")
    for topic, value in card.items():
        console.print(f"  {topic}: {value}", highlight=False)
    for name in skipped:
        console.print(f"  skipped {name}", highlight=False, markup=False)


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
    """Compare models on what a population is for: test accuracies of CNNs, classes of INRs.

    Example: `gmn compare runs/cnn-mnist -m gmn -m nfn-hnp --out runs/compare`,
    `gmn compare runs/inr-mnist -m dual-gmn --epochs 100 --out runs/compare-inr`
    """
    result = run_comparison(
        partial(task_of, population),
        model or registry.names(),
        seeds=seeds,
        recipe=Recipe(epochs=epochs),
        workers=workers,
    )
    print(result)
    save(result, out)
    console.print(f"wrote {out}/comparison.json, comparison.txt and comparison.png")


@app.command()
def train(
    population: Annotated[Path, typer.Argument(help="Folder of a zoo.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model by name: see gmn models.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model and its log.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 25,
    batch_size: Annotated[int, typer.Option(min=1, help="Networks per step.")] = 32,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [the model's own]")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many epochs without a better validation metric."),
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="Decay of a moving average of the weights, such as 0.99.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Steps under autocast to bfloat16.")] = False,
    augment: Annotated[
        bool, typer.Option("--augment", help="Move training networks by their symmetries.")
    ] = False,
) -> None:
    """Train a model on what a population is for; a stopped run goes on where it was.

    Example: `gmn train runs/cnn-mnist -m dual-gmn --out runs/model --patience 5 --ema 0.99`
    """
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=lr,
        augment=SampledSymmetry() if augment else None,
        patience=patience,
        ema=ema,
        bf16=bf16,
    )
    trained = training.fit(population, model, out, recipe, seed)
    results = ", ".join(f"{name} {value:.4f}" for name, value in trained.metrics.items())
    print(f"test split, weights of epoch {trained.card['epoch']}: {results}")
    print(f"wrote {out}; gmn predict {out} CHECKPOINT... applies it to files")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder that gmn train wrote.")],
    checkpoints: Annotated[list[Path], typer.Argument(help="Files or folders of weights.")],
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write a CSV file.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Which of those the model was trained on. [found by shapes]")
    ] = None,
    elements: Annotated[
        int, typer.Option(min=0, help="Average over so many random elements of the group.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of these elements.")] = 0,
    key: Key = None,
) -> None:
    """Apply a trained model to checkpoints; exit code 1 if one of them cannot be used.

    Example: `gmn predict runs/model a.pt b.safetensors --csv answers.csv`
    """
    trained = training.load(model)
    found = training.predict_files(
        trained, checkpoints, architecture=architecture, key=key, elements=elements, seed=seed
    )
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        csv.write_text(training.csv_text(trained, found))
    print(training.text_table(trained, found))
    if any(answer.error is not None for answer in found):
        raise typer.Exit(1)


def _load(
    model: str, shapes: list[str] | None, checkpoint: Path | None = None, key: str | None = None
) -> tuple[nn.Module, tuple[Any, ...], GraphSpec]:
    """The module with the weights that the user means, example inputs, and its spec."""
    module, inputs = named_module(model, shapes)
    spec = converters.trace(module, inputs)
    if checkpoint is not None:
        load_weights(module, spec, checkpoint, key)
    return module, inputs, spec


def main() -> None:
    """Runs the command; errors that a user can mend are one line."""
    try:
        app()
    except (
        UserError,
        converters.TraceError,
        zoo.ZooError,
        KeyError,
        ValueError,
        FloatingPointError,
    ) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
