"""The NFN family runs through a comparison as it is, and what it cannot read is left out."""

from __future__ import annotations

import pytest
import torch

import gmn
from gmn.tasks import AccuracyPrediction, Batch
from gmn.train import Recipe
from tests.traced import BY_NAME, graph_of

pytestmark = pytest.mark.usefixtures("quick_costs")

CHAINS = {"nfn-hnp", "nfn-np", "dws", "nft", "monomial-nfn", "magep-nfn"}
ATTENTION = {"transformer-nfn", "transformer-nfn-certified"}


class Guessing(AccuracyPrediction):
    """Any numbers to be predicted of the networks of a case."""

    def __init__(self, case: str) -> None:
        graph = graph_of(BY_NAME[case], networks=6).to(dtype=torch.float32)
        target = torch.linspace(0.1, 0.9, 6)
        self._splits = {
            name: [Batch(graph[2 * place : 2 * place + 2], target[2 * place : 2 * place + 2])]
            for place, name in enumerate(("train", "val", "test"))
        }


@pytest.mark.parametrize(
    ("case", "readers", "refused"),
    [("cnn", CHAINS, ATTENTION), ("transformer", ATTENTION, CHAINS)],
    ids=["chain", "transformer"],
)
def test_the_family_is_compared(case: str, readers: set[str], refused: set[str]) -> None:
    found = gmn.compare(
        lambda: Guessing(case),
        ["unf", *sorted(CHAINS | ATTENTION)],
        seeds=1,
        recipe=Recipe(epochs=1),
        workers=1,
        progress=False,
    )
    assert {row.model for row in found.rows} == {"unf", *readers}
    assert set(found.refused) == refused
    for name, reason in found.refused.items():
        assert "this method assumes" in reason or "assumes that" in reason, name
        assert "UNF" in reason, name
