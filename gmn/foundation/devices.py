"""Devices to compute on, checked before anything is moved there."""

from __future__ import annotations

import torch

from gmn.errors import ArgumentError


def require_device(name: str, device: torch.device | str) -> torch.device:
    """The device, if numbers can be computed on it here and now.

    Args:
        name: of the argument, for the message.
        device: a device of PyTorch, or its name.

    Raises:
        ArgumentError: if there is none of this name, or it holds no values.
    """
    try:
        chosen = torch.device(device)
        value = torch.ones((), device=chosen).add(1)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ArgumentError(f"{name} {device}: {str(error).splitlines()[0]}") from error
    if value.is_meta:
        raise ArgumentError(f"{name} {device}: it holds no values; give cpu, cuda or cuda:1")
    return chosen
