"""The networks that the shipped laws hold on are those that tracing finds."""

from __future__ import annotations

import json

from gmn.testing import networks
from tests import shipped_networks


def test_the_file_holds_what_tracing_finds() -> None:
    found = json.loads(networks.FILE.read_text())
    assert found == shipped_networks.documents(), "run: python -m tests.shipped_networks"
