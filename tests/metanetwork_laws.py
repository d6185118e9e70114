"""The shipped laws of metanetworks, on the networks of the tests as well."""

from __future__ import annotations

import pytest

from gmn.graph import ParameterGraph
from gmn.testing import MetanetworkLaws
from gmn.testing.networks import NETWORKS
from tests.traced import BY_NAME, graph_of

FEW = frozenset({"gated-attention"})  # where all laws are tried by default
WIDE = {  # laws about what is computed: by default on all shipped networks and covering cases
    "test_answers_are_invariant",
    "test_every_parameter_matters",
    "test_one_sided_permutations_are_noticed",
}


class Laws(MetanetworkLaws):
    """On the shipped networks and all cases; most of them are slow tests."""

    names = (*NETWORKS, *BY_NAME)
    covering: frozenset[str] = frozenset()
    few = FEW

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "name" in metafunc.fixturenames:
            wide = metafunc.function.__name__ in WIDE
            often = {*NETWORKS, *self.covering} if wide and self.covering else self.few
            marks = {name: () if name in often else pytest.mark.slow for name in self.names}
            metafunc.parametrize("name", [pytest.param(n, marks=m) for n, m in marks.items()])

    def graph(self, name: str, networks: int = 2) -> ParameterGraph:
        own = name in NETWORKS
        return super().graph(name, networks) if own else graph_of(BY_NAME[name], networks)
