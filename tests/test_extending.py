"""Extensions, each as a user would write it: one file of 25 lines at most, on public names."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from converters.exporting import leaves
from converters.rules import RULES
from gmn.train import Recipe
from gmn.zoo import Zoo
from tests.extending import baseline, feature, head, layer
from tests.extending.task import Size
from tests.gmn.population import small_zoo
from tests.metanetwork_laws import Laws
from tests.traced import slow_but

FILES = sorted(path for path in (Path(__file__).parent / "extending").glob("[!_]*.py"))
PUBLIC = {"gmn", "gmn.nn", "gmn.tasks", "converters", "converters.writing", "torch"}


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return small_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_extension_is_one_short_file_on_public_names(path: Path) -> None:
    text = path.read_text()
    code = [line for line in text.splitlines()[1:] if line.strip()]
    assert len(code) <= 25
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module in PUBLIC
            assert not any(name.name.startswith("_") for name in node.names)
        elif isinstance(node, ast.Import):
            assert {name.name for name in node.names} <= PUBLIC
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr == "__init__"


@pytest.mark.usefixtures("quick_costs")
@pytest.mark.parametrize(
    "name",
    slow_but(
        ["layer", "head", "feature", "description", "baseline"],
        ["layer", "description", "baseline"],
    ),
)
def test_models_of_extensions_are_compared_by_name(name: str, population: Zoo) -> None:
    model = f"tests.extending.{name}:model"
    table = gmn.compare(
        population, [model], seeds=1, recipe=Recipe(epochs=1), workers=1, progress=False
    )
    assert [row.model for row in table.rows] == [model]
    assert not table.refused


@pytest.mark.usefixtures("quick_costs")
def test_a_task_of_ones_own_is_trained(population: Zoo) -> None:
    recipe = Recipe(epochs=1)
    table = gmn.compare(
        Size(population), ["layer-statistics", "flat-mlp"], seeds=1, recipe=recipe, workers=1,
        progress=False,
    )  # fmt: skip
    assert {row.model for row in table.rows} == {"layer-statistics", "flat-mlp"}


@pytest.fixture
def own_rule() -> Iterator[None]:
    with patch.dict(RULES), patch.dict(leaves.CLASSES):
        from tests.extending import rule

        assert rule.action
        yield


class Columns(nn.Module):
    """Two products of the new operation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 6))
        self.second = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        operation = torch.ops.extending.columns
        return operation(torch.relu(operation(x, self.first)), self.second)


@pytest.mark.usefixtures("own_rule")
def test_an_operation_with_weights_has_its_symmetries() -> None:
    torch.manual_seed(0)
    spec = converters.trace(Columns(), (torch.zeros(2, 4),))
    assert [(scaling.domain, scaling.shape) for scaling in spec.scalings] == [("positive", (6,))]
    assert [edges.kind for edges in spec.edge_sets] == ["weight", "weight"]


class OwnLaws(Laws):
    names = ("perceptron", "gated-attention")
    model: Callable[..., Any]

    def build(self, spec: gmn.GraphSpec, head: Any) -> Any:
        return type(self).model(spec, head)


class TestLayer(OwnLaws):
    model = staticmethod(layer.model)


class TestFeature(OwnLaws):
    model = staticmethod(feature.model)


class TestHead(OwnLaws):
    model = staticmethod(head.model)
    edits = False


class TestBaseline(OwnLaws):
    """Sets see neither which neurons are which, nor what is done with the weights."""

    model = staticmethod(baseline.model)
    notices = ("parameters",)
    edits = False
