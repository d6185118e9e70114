"""Saves a trained model with all that it needs to be applied without its population.

``model.safetensors`` holds the best weights, ``model.json`` all that tells what they are: the
model's name, the architectures it was trained on, the task, the recipe, the results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from gmn import registry
from gmn.errors import ConsentError, DataError
from gmn.foundation import manifest
from gmn.foundation.arguments import require_path, require_seed, require_type
from gmn.foundation.consent import Consent
from gmn.foundation.devices import require_device
from gmn.foundation.files import OutputFolder
from gmn.foundation.manifest import ManifestError, Sha256
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.spec import GraphSpec, SpecError
from gmn.tasks.choice import describe, rebuilt, task_of
from gmn.tasks.task import Task
from gmn.train.distributed import ranks
from gmn.train.evaluate import answer
from gmn.train.finite import require_finite_answers, require_finite_weights, require_telling_answers
from gmn.train.journal import CARD, WEIGHTS, epochs_logged
from gmn.train.loop import Result, opened, train_in
from gmn.train.progress import progress_bar
from gmn.train.recipe import Recipe, require_recipe

FORMAT_VERSION = 2
MOST_POINTS = 1 << 24  # pixels of 4096 × 4096
BEYOND = "the weights lie far from those it was trained on, or are too large to compute with"


class TrainedFileError(DataError, ValueError):
    """A folder holds no trained model, or a damaged one."""


class _CardVersion(TypedDict):
    version: int


class _TaskFacts(TypedDict):
    task: str
    settings: dict[str, Any]


class _Card(_CardVersion):
    """What a card needs to be loaded; what else it holds is for people."""

    model: str
    task: _TaskFacts
    metrics: dict[str, float]
    architectures: Annotated[dict[str, dict[str, Any]], msgspec.Meta(min_length=1)]
    weights_sha256: Sha256


@dataclass(frozen=True)
class Trained:
    """A trained model with its task, architectures and results.

    Attributes:
        name: of the model, as in ``gmn models``.
        model: the module with its best weights, in evaluation mode.
        specs: the architectures it was trained on, by name; the model was made for the first.
        task: what it was trained for; without the task's data.
        card: the content of ``model.json``: recipe, seed, best epoch, metrics on the test split.
    """

    name: str
    model: nn.Module
    specs: dict[str, GraphSpec]
    task: Task
    card: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics on the test split of the population."""
        metrics: dict[str, float] = self.card["metrics"]
        return metrics

    def predict(self, graph: ParameterGraph, *, elements: int = 0, seed: int = 0) -> Tensor:
        """Predictions (B, ...) for the networks of a graph.

        Args:
            graph: B networks; their type becomes that of the model.
            elements: random elements of the certified group to average over; see
                :func:`gmn.train.answer`.
            seed: seed of these elements.

        Raises:
            NotFiniteError: if an answer is NaN or infinite.
        """
        require_graph("graph", graph)
        with torch.no_grad():
            found = answer(
                self.model,
                self.task,
                self._moved(graph),
                elements,
                torch.Generator().manual_seed(require_seed("seed", seed)),
            )
        require_finite_answers(self.name, found, BEYOND)
        return found

    def networks(self, graph: ParameterGraph) -> list[ParameterGraph]:
        """The edited networks that the model returns: k graphs of B networks each.

        Args:
            graph: B networks; those that come back have its types and device.

        Raises:
            ValueError: if the model answers with numbers.
            NotFiniteError: if a network would have weights that are NaN or infinite.
        """
        require_graph("graph", graph)
        with torch.no_grad():
            output = self.model(self._moved(graph))
        if not isinstance(output, ParameterGraph):
            raise ValueError(
                f"{self.name} was trained for {self.task.name} and answers with numbers, not with "
                "networks"
            )
        for name in dict.fromkeys(edges.parameter for edges in output.spec.edge_sets):
            require_finite_answers(f"{self.name}, {name}", output.numbers(name), BEYOND)
        pieces = [output[i : i + len(graph)] for i in range(0, len(output), len(graph))]
        return [
            graph.replace({n: v.to(graph.values[n]) for n, v in piece.values.items()})
            for piece in pieces
        ]

    def _moved(self, graph: ParameterGraph) -> ParameterGraph:
        own = next(self.model.parameters())
        return graph.to(own.device, own.dtype)


def fit(
    population: str | Path,
    model: str,
    out: str | Path,
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: bool = True,
    *,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> Trained:
    """Trains a model by name on a population, and writes it into a folder.

    Called again with equal arguments after it was stopped, by whatever means, it goes on from the
    last epoch that it finished, and on a CPU ends with the same bits as an undisturbed run.

    Under ``torchrun`` the processes share the work, see :func:`train`; each needs to see the
    population, and the first writes the folder.

    Args:
        population: folder of a zoo.
        model: name of an installed model, or ``module:factory``.
        out: folder for ``model.safetensors``, ``model.json``, ``log.csv`` and the run's state.
        recipe: optimisation settings; the defaults if None.
        seed: seed of weights, minibatches and augmentation.
        progress: whether to show a bar, with the loss so far in each epoch.
        task: name of the task, or ``module:Class``; None for the one that the labels are for.
        options: of the task, by name.
        device: where to train. A run may go on on another, but then not to the same bits.

    Raises:
        KeyError: if there is no model or no task of this name.
        LabelError: if labels or weights cannot be used; the message names the networks.
        NotFiniteError: if the run diverged; no model is written then.
        UnsupportedArchitecture: if the model cannot read these networks, or not answer the task.
        ValueError: if the model takes no gradient steps, the folder holds another run, or the task
            has no such option.
        ZooError: if there is no finished zoo.
    """
    require_type("model", model, str, "the name of a model, such as 'gmn', or module:factory")
    require_recipe(recipe)
    require_seed("seed", seed)
    out, device = require_path("out", out), require_device("device", device)
    together = ranks()  # first of all, as it chooses the device of this process
    recipe, factory = recipe or Recipe(), registry.find(model)
    problem = task_of(population, task, options)
    specs = {
        name: problem.zoo.spec(name)
        for name in problem.zoo.architectures
        if len(problem.zoo.indices("train", name))
    }
    with opened(out, problem) as output, torch.random.fork_rng():
        torch.manual_seed(seed)
        net = problem.build(factory, problem.split("train")[0].graph.spec)
        if not isinstance(net, nn.Module):
            raise ValueError(
                f"{model} is fitted at once instead of by gradient steps, so there are no weights "
                "to save; gmn compare runs it"
            )
        bar = progress_bar(
            model, problem.metric, recipe.epochs, epochs_logged(out), progress and together.first
        )
        with bar as (report, running):
            result = train_in(output, net.to(device), problem, recipe, seed, report, running)
        require_telling_answers(
            model, problem.metric, result.metrics[problem.metric], result.prediction, result.target
        )
        card = _card(model, specs, problem, recipe, seed, result)
        if output is not None:
            _save(net, card, output)
    together.wait()
    # The others may be on machines that do not see the folder.
    if not together.first:
        return Trained(model, net.eval(), specs, problem, card)
    return load(out, trust=_modules(model, card["task"]["task"]))


def _modules(*names: str) -> list[str]:
    """Modules of the user's own that he trained with."""
    return [name.partition(":")[0] for name in names if ":" in name]


def _card(
    model: str,
    specs: dict[str, GraphSpec],
    task: Task,
    recipe: Recipe,
    seed: int,
    result: Result,
) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "model": model,
        "task": describe(task),
        "recipe": {**recipe.in_words(), "learning_rate": result.learning_rate},
        "seed": seed,
        "epoch": result.epoch,
        "metrics": result.metrics,
        "baselines": _baselines(task),
        "torch": str(torch.__version__),
        "architectures": {name: json.loads(spec.to_json()) for name, spec in specs.items()},
    }


def _baselines(task: Task) -> dict[str, dict[str, float]]:
    """Metrics on the test split of what needs no model, by name."""
    target = torch.cat([part.target for part in task.split("test")])
    return {
        name: task.test_metrics(prediction, target) for name, prediction in task.baselines().items()
    }


def _save(model: nn.Module, card: dict[str, Any], output: OutputFolder) -> None:
    # Cloned, as safetensors refuses tensors that share memory.
    weights = {n: v.detach().cpu().clone() for n, v in model.state_dict().items()}
    content = save_tensors(weights)
    card = {**card, "weights_sha256": hashlib.sha256(content).hexdigest()}
    output.write(WEIGHTS, content)
    output.write(CARD, (json.dumps(card, indent=1) + "\n").encode())


def load(folder: Path | str, *, trust: Collection[str] = ()) -> Trained:
    """Reads a trained model that :func:`fit` (``gmn train``) wrote.

    Args:
        folder: that was given to it; the population is not needed.
        trust: modules that the model may import, or packages with all that is in them. Without it
            only models and tasks of installed packages are loaded, as any other module would run
            with the rights of the user.

    Raises:
        TrainedFileError: if files are missing, damaged, of another format, or of two runs.
        ConsentError: if the model or its task is of a module that is not trusted.
        NotFiniteError: if weights are NaN or infinite.
        KeyError: if the model's package is not installed.
    """
    path = require_path("folder", folder)
    for name in (CARD, WEIGHTS):
        if not (path / name).is_file():
            raise TrainedFileError(
                f"{path} holds no trained model: it has no {name}. Run gmn train until it is done"
            )
    card, content = _read_card(path / CARD), (path / WEIGHTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != card["weights_sha256"]:
        raise TrainedFileError(
            f"{path / WEIGHTS} is damaged, or not the file that {CARD} beside it tells of. "
            "Run gmn train again with the same arguments"
        )
    consent = Consent(path / CARD, trust)
    specs, task = _specs(card, path), _task(card["task"], consent)
    factory, first = registry.find(card["model"], consent), next(iter(specs.values()))
    try:
        weights = load_tensors(content)
        _require_size(partial(task.build, factory, first), weights)
        with torch.random.fork_rng():
            model = task.build(factory, first)
        if not isinstance(model, nn.Module):
            raise TypeError(f"{type(model).__name__} is no torch.nn.Module")
        model.load_state_dict(weights)
    except Exception as error:  # a factory may raise anything if it is given what it cannot read
        raise TrainedFileError(
            f"{path}: {card['model']} was another model when it was trained; run gmn train again "
            f"with the same arguments. {type(error).__name__}: {error}"
        ) from error
    require_finite_weights(f"{path / WEIGHTS}", model, "train it again, with a lower learning rate")
    return Trained(card["model"], model.eval(), specs, task, card)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = manifest.read(path)
        version = manifest.check(card, _CardVersion, path)["version"]
        if version == FORMAT_VERSION:
            manifest.check(card, _Card, path)
            return card
    except ManifestError as error:
        raise TrainedFileError(str(error)) from error
    raise TrainedFileError(f"{path} has format {version!r}; this version reads {FORMAT_VERSION}")


def _specs(card: dict[str, Any], folder: Path) -> dict[str, GraphSpec]:
    specs = {}
    for name, spec in card["architectures"].items():
        try:
            specs[name] = GraphSpec.from_json(json.dumps(spec))
        except SpecError as error:
            raise TrainedFileError(
                f"{folder / CARD} is damaged: architectures.{name}: {error}"
            ) from error
    return specs


def _require_size(build: Callable[[], Any], weights: Mapping[str, Tensor]) -> None:
    """Refuses a model of more numbers than its file has, before it fills the memory."""
    try:
        with torch.device("meta"), torch.random.fork_rng():
            planned = build().state_dict()
    except (NotImplementedError, RuntimeError):  # one of the user's own may look at values
        return
    wanted, found = (sum(v.numel() for v in state.values()) for state in (planned, weights))
    if wanted > found:
        raise ValueError(f"it has {wanted:,} numbers, its file {found:,}")


def _task(described: dict[str, Any], consent: Consent) -> Task:
    """The task, without data."""
    try:
        task = rebuilt(described, consent)
        if task.points > MOST_POINTS:  # no weights tell whether so many were meant
            raise ValueError(f"it runs networks on {task.points:,} inputs, above {MOST_POINTS:,}")
        return task
    except ConsentError:
        raise
    except Exception as error:  # its constructor may raise anything if it is given other settings
        raise TrainedFileError(
            f"{consent.file.parent}: the task it was trained on cannot be made again: {error}"
        ) from error
