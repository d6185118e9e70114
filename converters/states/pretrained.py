"""Builds modules from transformers configurations and timm names, without reading weights.

Models are built on the meta device: neither their weights nor the inputs take memory. Code that
lies beside a configuration is never run.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gmn.foundation.arguments import require_path
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec

from ..conversion import trace
from .checkpoint import Checkpoint, CheckpointError, read_checkpoint
from .fit import fit_state
from .hub_config import bounded, first_line, model_class, offline, read_config

Built = tuple[nn.Module, tuple[Tensor | None, ...]]


def from_config(folder: str | os.PathLike[str]) -> Built:
    """Builds the transformers model that a folder's ``config.json`` describes.

    Its forward takes positional inputs and gives the first output (logits, or hidden states).

    Args:
        folder: with a ``config.json``, as ``save_pretrained`` writes it; weights are not needed.

    Returns:
        The model on the meta device, and example inputs for :func:`converters.trace`. The names of
        its state dict are those of the checkpoint.

    Raises:
        CheckpointError: if there is no such file, transformers is not installed, the model needs
            code of its own, or its inputs are of an unknown kind.
    """
    path = require_path("folder", folder)
    config = read_config(path)
    build = model_class(config, path)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # what a text has been so far is no output of the network
    config._experts_implementation = "batched_mm"  # the form that is made of known operations
    try:
        with torch.device("meta"), offline(), bounded():
            model: Any = build(config)
        inputs = _inputs(model, config, path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except Exception as error:  # a model's constructor may raise anything if it is given nonsense
        raise CheckpointError(
            f"{path}: no model can be built of its config.json: {first_line(error)}"
        ) from error
    return _first_output(model.eval(), tuple(inputs)), tuple(inputs.values())


def from_pretrained(folder: str | os.PathLike[str]) -> ParameterGraph:
    """The parameter graph of a transformers model that lies in a folder, by its configuration.

    The module is built without weights, traced, and the folder's weights are put on its graph;
    where names are as in the file they stay mapped from it.

    Args:
        folder: with a ``config.json`` and weights, as ``save_pretrained`` writes it.

    Raises:
        CheckpointError: as :func:`from_config`, or if the weights cannot be read.
        TraceError: if ``torch.export`` cannot follow the model.
        gmn.StateDictError: if the weights are not those of the model.
    """
    model, inputs = from_config(folder)
    spec = trace(model, inputs)
    states = [rename_state(spec, model, read_checkpoint(folder))]
    return ParameterGraph.from_state_dicts(spec, states)


def rename_state(spec: GraphSpec, model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names of a model that :func:`from_config` built.

    Where renaming is not enough (packed experts, parts that newer versions of transformers
    reorganised), transformers itself converts the tensors.

    Args:
        spec: of the model.
        model: on the meta device.
        checkpoint: its weights.

    Raises:
        CheckpointError: if transformers finds tensors missing, too.
    """
    base = getattr(model, "base_model_prefix", "")
    state = fit_state(spec, checkpoint.state, [checkpoint.prefix, f"{base}." if base else ""])
    if state.keys() == {entry.name for entry in spec.entries} or not isinstance(
        model, _FirstOutput
    ):
        return state
    with offline():
        loaded, info = type(model).original.from_pretrained(
            None, config=model.config, state_dict=dict(checkpoint.state), output_loading_info=True
        )
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"not the weights of a {type(model).__name__}: {len(missing)} are missing, such as "
            f"{', '.join(missing[:3])}"
        )
    converted: dict[str, Tensor] = loaded.state_dict()
    return fit_state(spec, converted)


def _inputs(model: Any, config: Any, folder: Path) -> dict[str, Tensor]:
    """Small inputs of the kinds that the model needs, on the meta device."""
    accepted = inspect.signature(model.forward).parameters
    names = [model.main_input_name]
    names += ["pixel_values"] if "pixel_values" in accepted else []
    names += ["decoder_input_ids"] if getattr(config, "is_encoder_decoder", False) else []
    return {name: _input(name, config, folder) for name in dict.fromkeys(names)}


def _input(name: str, config: Any, folder: Path) -> Tensor:
    with torch.device("meta"):
        if name in ("input_ids", "decoder_input_ids"):
            return torch.zeros(2, 7, dtype=torch.int64)
        if name == "pixel_values":
            vision = getattr(config, "vision_config", config)
            side = getattr(vision, "image_size", None) or 224
            height, width = side if isinstance(side, (list, tuple)) else (side, side)
            return torch.zeros(2, getattr(vision, "num_channels", 3), height, width)
        if name == "input_features" and hasattr(config, "num_mel_bins"):
            return torch.zeros(
                2, config.num_mel_bins, 2 * getattr(config, "max_source_positions", 50)
            )
        if name == "input_values":
            return torch.zeros(2, 16_000)
    raise CheckpointError(
        f"{folder}: no example of its input {name!r} is known; pass the module yourself "
        "(--model package.module:factory --input SHAPE)"
    )


class _FirstOutput(nn.Module):
    """Marks models whose forward takes positional inputs and gives the first output."""

    original: Any


def _first_output(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The same module with another forward: a wrapper would change the names of its weights."""
    original: Any = type(model)

    class FirstOutput(original, _FirstOutput):
        def forward(self, *values: Tensor) -> Tensor:
            named = dict(zip(names, values, strict=True))
            result: Tensor = super().forward(**named, return_dict=False)[0]
            return result

    FirstOutput.__name__ = original.__name__
    FirstOutput.original = original
    model.__class__ = FirstOutput
    return model


def from_timm(name: str) -> Built:
    """Builds a model of timm.

    Args:
        name: as ``timm.list_models()`` gives it.

    Returns:
        The model on the meta device, and an example image for :func:`converters.trace`.

    Raises:
        CheckpointError: if timm is not installed, or knows no such model.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise CheckpointError(
            f"{name}: timm cannot be imported ({error}): pip install timm, with a torchvision that "
            "fits the installed PyTorch"
        ) from error
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False).eval()
    except RuntimeError as error:
        raise CheckpointError(
            f"timm knows no model {name!r} ({str(error)[:200]}); see timm.list_models()"
        ) from error
    shape = model.pretrained_cfg.get("input_size", (3, 224, 224))
    return model, (torch.zeros(2, *shape, device="meta"),)
