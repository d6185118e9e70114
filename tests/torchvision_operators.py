"""Makes `torchvision` importable beside a torch for which it was not compiled.

Its wheels hold operators compiled for CUDA. Where those cannot be loaded, importing it fails at the
first mention of one of them, and so does importing `transformers` or `timm`, which look for it.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import torch


@cache
def declare_operators() -> torch.library.Library | None:
    """Declares the operators that the import mentions, without bodies, if they cannot be loaded.

    Returns:
        What keeps the declarations alive; None if nothing was to be done.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    try:
        for compiled in Path(found.origin).parent.glob("_C*"):
            torch.ops.load_library(compiled)
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None
