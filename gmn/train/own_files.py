"""Applies a trained model to checkpoint files of the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save as save_tensors
from torch import Tensor

import converters
from gmn.errors import NotFiniteError, UnsupportedArchitecture
from gmn.foundation.arguments import require_path, require_several, require_type, require_whole
from gmn.foundation.files import OutputFolder
from gmn.graph import ParameterGraph, StateDictError
from gmn.spec import GraphSpec
from gmn.train.trained import Trained


@dataclass(frozen=True)
class Answer:
    """The prediction for one file, or the error.

    Attributes:
        file: path of the checkpoint.
        architecture: which of those the model was trained on; None if there is no prediction.
        prediction: a number (), probabilities of classes (classes,), or what the networks that the
            model answers with have for outputs; None if there is none.
        error: why there is no prediction; None if there is one.
        written: files of the networks that the model answers with.
    """

    file: Path
    architecture: str | None = None
    prediction: Tensor | None = None
    error: str | None = None
    written: tuple[Path, ...] = ()


def predict_files(
    trained: Trained,
    files: Sequence[Path],
    *,
    architecture: str | None = None,
    key: str | None = None,
    elements: int = 0,
    seed: int = 0,
    out: Path | None = None,
) -> list[Answer]:
    """Predictions for checkpoint files; one that cannot be used does not stop the others.

    Args:
        trained: a trained model.
        files: checkpoints, of architectures that the model was trained on. Code in them never runs.
        architecture: the name of theirs; None to find it by the names and shapes of the entries.
        key: where in the files the state dicts lie; None to find them.
        elements: random elements of the certified group to average over; see
            :func:`gmn.train.answer`.
        seed: of these elements, the same for each file.
        out: folder for the networks that the model answers with: ``NAME.safetensors`` of each file,
            or ``NAME-1-of-4.safetensors`` and so on if there are several, whose outputs are to be
            averaged. None to write none.

    Returns:
        One answer per file, in order.

    Raises:
        KeyError: if the model was trained on no architecture of this name.
        ValueError: if there is a folder but the model answers with numbers, or two files have one
            name.
        OutputError: if the folder holds anything but such networks, or one of the files, or cannot
            be written to.
    """
    require_type("trained", trained, Trained, "what gmn.train.load(folder) returns")
    require_several("files", files, "paths of checkpoints")
    require_whole("elements", elements, 0)
    files = [require_path("a file", file) for file in files]
    if architecture is not None and architecture not in trained.specs:
        raise KeyError(
            f"{trained.name} was trained on no architecture called {architecture!r}; known: "
            f"{', '.join(trained.specs)}"
        )
    specs = trained.specs if architecture is None else {architecture: trained.specs[architecture]}
    if out is None:
        return [_answer(trained, file, specs, key, elements, seed, None) for file in files]
    _require_networks(trained)
    _require_own_names(files)
    with OutputFolder(out, "set of edited networks", inputs=files) as output:
        return [_answer(trained, file, specs, key, elements, seed, output) for file in files]


def _answer(
    trained: Trained,
    file: Path,
    specs: dict[str, GraphSpec],
    key: str | None,
    elements: int,
    seed: int,
    output: OutputFolder | None,
) -> Answer:
    try:
        name, graph = _read(file, specs, key)
        prediction = trained.predict(graph, elements=elements, seed=seed)[0]
        networks = [] if output is None else trained.networks(graph)
        written = () if output is None else _write(networks, output, _stem(file))
        return Answer(file, name, prediction.cpu(), written=written)
    except (
        converters.CheckpointError,
        StateDictError,
        UnsupportedArchitecture,
        NotFiniteError,
    ) as error:
        return Answer(file, error=str(error).removeprefix(f"{file}: "))


def _require_networks(trained: Trained) -> None:
    if not trained.task.answers_networks:
        raise ValueError(
            f"{trained.name} was trained for {trained.task.name} and answers with numbers: there "
            "are no networks to write into a folder"
        )


def _require_own_names(files: Sequence[Path]) -> None:
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(_stem(file), file)
        if other != file:
            raise ValueError(f"{other} and {file} would both be written as {_stem(file)}")


def _stem(file: Path) -> str:
    return file.name if file.is_dir() else file.stem


def _write(networks: list[ParameterGraph], output: OutputFolder, stem: str) -> tuple[Path, ...]:
    """Writes one network as ``stem.safetensors``, or each of several under numbered names."""
    count, written = len(networks), []
    for index, network in enumerate(networks, start=1):
        name = stem if count == 1 else f"{stem}-{index}-of-{count}"
        # Cloned, as safetensors refuses tensors that share memory.
        state = {n: v.contiguous().clone() for n, v in network.to_state_dict().items()}
        written.append(output.write(f"{name}.safetensors", save_tensors(state)))
    return tuple(written)


def _read(file: Path, specs: dict[str, GraphSpec], key: str | None) -> tuple[str, ParameterGraph]:
    checkpoint = converters.read_checkpoint(file, key=key)
    states = {
        name: converters.fit_state(spec, checkpoint.state, [checkpoint.prefix])
        for name, spec in specs.items()
    }
    fitting = [name for name, state in states.items() if not _difference(specs[name], state)]
    if not fitting:
        nearest = max(specs, key=lambda name: _alike(specs[name], states[name]))
        where = _difference(specs[nearest], states[nearest])
        raise StateDictError(f"of another architecture than {nearest}: {where}")
    if len(fitting) > 1:
        raise StateDictError(
            f"its entries fit {' and '.join(fitting)} alike; say which architecture it is"
        )
    name = fitting[0]
    try:
        return name, ParameterGraph.from_state_dicts(specs[name], [states[name]])
    except StateDictError as error:
        raise StateDictError(str(error).removeprefix("network 0: ")) from error


def _difference(spec: GraphSpec, state: dict[str, Tensor]) -> str | None:
    """The first entry in which a state dict differs from an architecture; None if none does."""
    for entry in spec.entries:
        if entry.name not in state:
            return f"{entry.name} is missing"
        if (shape := tuple(state[entry.name].shape)) != entry.shape:
            return f"{entry.name} has shape {shape}, not {entry.shape}"
    known = {entry.name for entry in spec.entries}
    extra = next((name for name in state if name not in known), None)
    return None if extra is None else f"{extra} is an entry too many"


def _alike(spec: GraphSpec, state: dict[str, Tensor]) -> int:
    """The number of entries that fit."""
    return sum(e.name in state and tuple(state[e.name].shape) == e.shape for e in spec.entries)
