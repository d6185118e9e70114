"""Reads ``config.json`` of transformers: no network, no code, and no sizes that only harm."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules import module as registration

from .checkpoint import CheckpointError

_LARGEST = 16 << 20  # bytes
_COUNT = re.compile(r"(n|num)_.*|.*layers|depths?")
_REPEATED = re.compile(r"(n|num)_(\w+_)?(layer|block|expert|head|group|stage)s?|.*layers|depths?")
_MOST_REPEATED = 1_000  # layers, blocks, experts: each is made by Python
_MOST_COUNTED = 1 << 20
_MOST = 1 << 31
_MOST_PARAMETERS = 30_000  # tensors; models of hundreds of layers have some thousands
_MOST_SECONDS = 60.0


def read_config(folder: Path) -> Any:
    """The configuration in a folder, as transformers reads it.

    Raises:
        CheckpointError: if there is none, transformers is not installed or does not know it, or a
            size in it is beyond those of all models.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json: not a folder of transformers")
    content = _json(path)
    _check_sizes(content, "", path)
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise CheckpointError(
            f"{folder}: needs transformers: pip install 'graph-metanetworks[models]'"
        ) from error
    try:
        with offline():
            config = AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # configurations are code of many authors
        code = " It names code of its own, which is never run." if "auto_map" in content else ""
        raise CheckpointError(
            f"{path} is no configuration that transformers knows: {first_line(error)}.{code} Pass "
            "the module yourself (--model package.module:factory)"
        ) from error
    # It may name a repository of kernels; models choose their own if there is nothing.
    config._attn_implementation = None
    return config


def model_class(config: Any, folder: Path) -> Any:
    """The class of models that a configuration names, which has to be one of transformers.

    Raises:
        CheckpointError: if it is none.
    """
    import transformers

    names = getattr(config, "architectures", None) or ()
    if not names:
        return partial(transformers.AutoModel.from_config, trust_remote_code=False)
    name = names[0] if isinstance(names, list | tuple) else names
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    base = transformers.PreTrainedModel
    if not (isinstance(found, type) and issubclass(found, base) and found.config_class):
        raise CheckpointError(
            f"{folder}: transformers has no model {str(name)[:80]}; code beside the weights is "
            "never run. Pass the module yourself (--model package.module:factory)"
        )
    return found


@contextmanager
def offline() -> Iterator[None]:
    """Keeps huggingface_hub from asking the network, whatever a configuration names."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def bounded() -> Iterator[None]:
    """Stops the making of a module that has far more parameters than models have.

    Raises:
        CheckpointError: if there are too many, or making them takes too long.
    """
    made, end = 0, time.thread_time() + _MOST_SECONDS

    def count(owner: nn.Module, name: str, part: Any) -> None:
        nonlocal made
        made += 1
        if made > _MOST_PARAMETERS or time.thread_time() > end:
            raise CheckpointError(f"its model has more than {made:,} tensors and modules")

    hooks = [
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def first_line(error: Exception) -> str:
    """What an error says first, in short."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(f"{path} is larger than {_LARGEST:,} bytes: no configuration")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no configuration that transformers knows: {first_line(error)}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no configuration that transformers knows")
    return content


def _check_sizes(value: Any, key: str, path: Path) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_sizes(part, name, path)
    elif isinstance(value, list):
        for part in value:
            _check_sizes(part, key, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        counted = _MOST_COUNTED if _COUNT.fullmatch(key) else _MOST
        repeated = _REPEATED.fullmatch(key) is not None
        least, most = (0, _MOST_REPEATED) if repeated else (-_MOST, counted)
        if isinstance(value, int) and not least <= value <= most:
            raise CheckpointError(
                f"{path}: {key} is {str(value)[:40]}, which no model has: at most {most:,}"
            )
