"""Shared settings: one thread, so that parallel workers do not fight for cores."""

import pytest
import torch

from tests.torchvision_operators import declare_operators

declare_operators()  # before any module of tests imports torchvision, directly or not


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
