"""Commands that train models on populations, compare them, and apply them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import gmn
from gmn.cli.configuration import Config
from gmn.cli.errors import UserError
from gmn.cli.options import (
    Device,
    Json,
    Key,
    Overwrite,
    RayAddress,
    Workers,
    engine,
    make_room,
)
from gmn.foundation import files

app = typer.Typer()

TaskName = Annotated[
    str | None,
    typer.Option("--task", "-t", help="A task by name, or module:Class. [what the labels are for]"),
]
TaskOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", help="An option of the task, such as copies=4; repeatable."),
]


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that `gmn compare` knows."""
    names = gmn.registry.names()
    print(json.dumps(names) if as_json else "\n".join(names))


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks that `gmn train` and `gmn compare` know, with their options.

    Example: `gmn train runs/inr-mnist --task inr-dilation -O copies=4 -m dual-gmn -o runs/dilate`
    """
    kinds = {name: gmn.tasks.find(name) for name in gmn.tasks.names()}
    about: dict[str, dict[str, Any]] = {
        name: {
            "about": (kind.__doc__ or kind.name).strip().splitlines()[0],
            "options": gmn.tasks.options_of(kind),
        }
        for name, kind in kinds.items()
    }
    if as_json:
        print(json.dumps(about))
        return
    for name, what in about.items():
        print(f"{name:20s} {what['about']}")
        for option, default in what["options"].items():
            print(f"{'':20s}   -O {option}={'...' if default is None else default}")


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
    batch_size: Annotated[int, typer.Option(min=1, help="Networks per step.")] = 32,
    workers: Workers = 2,
    ray: RayAddress = None,
    task: TaskName = None,
    option: TaskOptions = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [each model's own]")] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Compare models on a task: by default what the population's labels are for.

    Finished runs are kept in the folder: a stopped comparison goes on, and so does one of more
    models or seeds.

    Example: `gmn compare runs/cnn-mnist -m gmn -m nfn-hnp --out runs/compare`,
    `gmn compare runs/inr-mnist --task inr-dilation -m dual-gmn --epochs 30 --out runs/dilation`;
    with `--ray auto` on the cluster of this machine
    """
    from gmn.cli import sources

    if ray is not None and device != "cpu":
        raise UserError(f"--device {device}: jobs on a Ray cluster compute on its processors")
    make_room(out, [population], overwrite)
    gmn.engines.keep_freed_memory()
    result = gmn.compare(
        partial(gmn.tasks.task_of, population, task, _options(option)),
        model or gmn.registry.names(),
        seeds=seeds,
        recipe=gmn.train.Recipe(epochs=epochs, batch_size=batch_size, learning_rate=lr),
        engine=engine(workers, ray),
        folder=out,
        device=sources.device(device),
    )
    gmn.comparison.save(result, out)
    if as_json:
        print(result.to_json())
        return
    print(result)
    print(f"wrote {out}/comparison.json, comparison.txt and comparison.png")


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
    task: TaskName = None,
    option: TaskOptions = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Train a model on a population; a stopped run goes on where it was.

    The task is what the population's labels are for, unless one is named: see `gmn tasks`.

    Example: `gmn train runs/cnn-mnist -m dual-gmn --out runs/model --patience 5 --ema 0.99`,
    `gmn train runs/inr-mnist --task inr-dilation -O copies=4 -m dual-gmn --out runs/dilation`;
    on several processes `torchrun --nproc-per-node 2 -m gmn.cli train ...`
    """
    from gmn.cli import sources

    recipe = gmn.train.Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=lr,
        augment=gmn.augment.SampledSymmetry() if augment else None,
        patience=patience,
        ema=ema,
        bf16=bf16,
    )
    if gmn.train.ranks().first:
        make_room(out, [population], overwrite)
    gmn.engines.keep_freed_memory()
    trained = gmn.train.fit(
        population,
        model,
        out,
        recipe,
        seed,
        task=task,
        options=_options(option),
        device=sources.device(device),
    )
    if not gmn.train.ranks().first:
        return
    if as_json:
        fields = ("model", "seed", "epoch", "metrics", "baselines")
        print(json.dumps({name: trained.card[name] for name in fields}))
        return
    print(f"test split, weights of epoch {trained.card['epoch']}: {_in_words(trained.metrics)}")
    for name, metrics in trained.card["baselines"].items():
        print(f"for comparison, {name}: {_in_words(metrics)}")
    print(f"wrote {out}; gmn predict {out} CHECKPOINT... applies it to files")


def _in_words(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _options(given: list[str] | None) -> dict[str, Any]:
    """Options of a task from NAME=VALUE, where values are numbers, true, false or words."""
    options = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--option {text}: give a name and a value, such as copies=4")
        try:
            options[name] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError) as error:
            raise UserError(f"--option {text}: its value is no number, word or list") from error
    return options


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
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for edited networks.")
    ] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            "--trust",
            metavar="MODULE",
            help="A module that the model may import, if you trust its authors; repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Apply a trained model to checkpoints; exit code 1 if one of them cannot be used.

    Models that edit networks write them as safetensors into a folder.

    Example: `gmn predict runs/model a.pt b.safetensors --csv answers.csv`,
    `gmn predict runs/dilation a.pt --out edited`
    """
    from gmn.cli import sources

    if out is not None:
        make_room(out, [model, *checkpoints], overwrite)
    trained = gmn.train.load(model, trust=trust or ())
    trained.model.to(sources.device(device))
    predictions = gmn.train.predict_files(
        trained,
        checkpoints,
        architecture=architecture,
        key=key,
        elements=elements,
        seed=seed,
        out=out,
    )
    if csv is not None:
        table = gmn.train.csv_text(trained, predictions).encode()
        files.write_single(csv, table, own=b"file,architecture,prediction,")
    print(
        gmn.train.json_text(predictions) if as_json else gmn.train.text_table(trained, predictions)
    )
    if any(answer.error is not None for answer in predictions):
        raise typer.Exit(1)
