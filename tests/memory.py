"""How much memory a function asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")


def allocated(function: Callable[[], T]) -> tuple[T, int]:
    """The function's result, and the bytes of all CPU tensors it makes, temporary ones too.

    The sum bounds the peak from above. Views, meta tensors and file mappings count nothing.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        result = function()
    return result, sum(max(0, event.self_cpu_memory_usage) for event in record.events() or ())
