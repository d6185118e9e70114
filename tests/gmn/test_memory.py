"""What a step takes is known before it is taken, and said when there is not enough."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import registry
from gmn.nn import GMN, memory
from gmn.nn.memory import DoesNotFit, check_fits, estimate, saved_bytes
from gmn.tasks import AccuracyPrediction
from gmn.train import Recipe, train
from tests.gmn.population import small_zoo
from tests.traced import BY_NAME, graph_of, read_by, slow_but

CPU = torch.device("cpu")
# Of layers that others are made of by default.
SIBLINGS = ("scale-gmn-bidirectional", "dual-gmn-weights", "nfn-np", "dws", "transformer-nfn")


@pytest.mark.parametrize("name", slow_but(registry.names(), set(registry.names()) - set(SIBLINGS)))
def test_estimates_are_what_is_kept(name: str) -> None:
    torch.manual_seed(0)
    graph = graph_of(read_by(name), networks=12).to(dtype=torch.float32)
    model = registry.find(name)(graph.spec, 1)
    if not isinstance(model, nn.Module):
        return
    found = estimate(model, graph)
    with saved_bytes(model) as saved:
        model(graph)
    moments = 3 * 4 * sum(p.numel() for p in model.parameters())
    assert found.of(12) == pytest.approx(sum(saved.values()) + moments, rel=0.02)


class Noisy(nn.Module):
    """A net with random numbers and a buffer that counts calls."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.layer = nn.Linear(1, 1)

    def forward(self, graph: gmn.ParameterGraph) -> Tensor:
        self.calls += 1
        return self.layer(torch.randn(len(graph), 1))


def test_estimating_changes_nothing() -> None:
    model, graph = Noisy(), graph_of(BY_NAME["mlp-relu"])
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    estimate(model, graph)
    assert torch.equal(torch.rand(4), expected)
    assert model.calls == 0


def test_what_does_not_fit_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph = GMN(hidden=16, depth=2), graph_of(BY_NAME["cnn"]).to(dtype=torch.float32)
    found = estimate(model, graph)
    monkeypatch.setattr(memory, "available_bytes", lambda device: found.of(20))
    check_fits(model, graph, 20)
    with pytest.raises(DoesNotFit, match=r"GMN needs .* step of 21 networks .* a batch of 20 fits"):
        check_fits(model, graph, 21)
    monkeypatch.setattr(memory, "available_bytes", lambda device: found.fixed + found.each / 2)
    with pytest.raises(DoesNotFit, match=r"not even one network fits|keeps more than"):
        check_fits(model, graph, 1)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000.0)
    with pytest.raises(DoesNotFit, match=r"GMN keeps more than 0\.0 GiB, all that is available"):
        check_fits(model, graph, 1)


def test_training_and_comparing_say_so_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small_zoo(tmp_path)
    make = partial(AccuracyPrediction.open, tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2e5)
    with pytest.raises(DoesNotFit, match="GMN"):
        train(GMN(hidden=8, depth=1), make(), Recipe(epochs=1))
    with pytest.raises(DoesNotFit, match="GMN"):
        gmn.compare(make, ["gmn"], seeds=1, workers=1, progress=False)


def test_available_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert memory.available_bytes(CPU) > 0
    info, group = tmp_path / "meminfo", tmp_path / "group"
    info.write_text("MemTotal: 4000 kB\nMemAvailable:    3000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", info)
    monkeypatch.setattr(memory, "CGROUP", group)
    assert memory.available_bytes(CPU) == 3000 * 1024
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("900000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 100000\n")
    assert memory.available_bytes(CPU) == 3000 * 1024
    (group / "memory.max").write_text("1000000\n")
    assert memory.available_bytes(CPU) == 200000
    assert memory.available_bytes(torch.device("meta")) == float("inf")
