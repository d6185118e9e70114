"""Shared settings: one thread, so that parallel workers do not fight for cores."""

import functools
import gc
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
import typer.main

from tests.torchvision_operators import declare_operators

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, kernels of notebooks
collect_ignore = ["extending"]  # a rule among them is registered when doctests are looked for
declare_operators()  # before any module of tests imports torchvision, directly or not

if not torch.accelerator.is_available():
    # Else each call notes the stack for devices that may come: 5 ms, as stacks of pytest are deep.
    torch.random._manual_seed_impl = torch.default_generator.manual_seed


# Else every run of the command builds it anew, which takes longer than most of what tests run.
typer.main.get_command = functools.cache(typer.main.get_command)


@pytest.fixture(autouse=True, scope="session")
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers find the cases that another has traced beside their folders."""
    from tests.traced import SHARED

    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    folder = tmp_path_factory.getbasetemp().parent / "traced"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SHARED, str(folder))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing to find while modules are imported, but it takes a sixth of the time to look."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="module")
def quick_costs() -> Iterator[None]:
    """Comparisons in this process time one training step of each model, on four networks."""
    from gmn.comparison import cost

    measure = cost.measure

    def quick(model: Any, task: Any, batch_size: int) -> cost.Cost:
        return measure(model, task, min(batch_size, 4), repeats=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "measure", quick)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
