"""Shared settings: one thread, so that parallel workers do not fight for cores."""

import os

import pytest
import torch

from tests.torchvision_operators import declare_operators

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, kernels of notebooks
declare_operators()  # before any module of tests imports torchvision, directly or not


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
