"""Graphs as files: bit for bit back, mapped, and damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import converters
import gmn
from gmn.foundation.files import LOCK, MARKER
from gmn.graph import streaming
from tests.traced import BY_NAME, covering_cases, graph_of, spec_of


@covering_cases
def test_round_trip(case, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spec = spec_of(case.name)
    states = [case.model(seed).state_dict() for seed in range(2)]
    gmn.save(gmn.ParameterGraph.from_state_dicts(spec, states), tmp_path / "new" / "folder")
    graph = gmn.load(tmp_path / "new" / "folder")
    assert graph.spec == spec
    for number, state in enumerate(states):
        found = graph.to_state_dict(number)
        assert list(found) == list(state)
        assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_graph_replaces_another(tmp_path: Path) -> None:
    for width in (3, 4):
        model = nn.Linear(2, width)
        gmn.save(converters.to_graph(model, (torch.zeros(1, 2),)), tmp_path)
    assert gmn.load(tmp_path).spec.num_parameters == 12
    ours = {"spec.json", "weights.safetensors", MARKER, LOCK}
    assert {path.name for path in tmp_path.iterdir()} == ours


def test_the_same_graph_has_the_same_bytes(tmp_path: Path) -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    for index in range(8):
        gmn.save(graph, tmp_path / str(index))
    for name in ("spec.json", "weights.safetensors"):
        assert len({(tmp_path / str(index) / name).read_bytes() for index in range(8)}) == 1


def test_entries_that_share_memory_without_being_tied(tmp_path: Path) -> None:
    graph = converters.to_graph(nn.Linear(2, 2), (torch.zeros(1, 2),))
    memory = torch.arange(6.0)
    graph = graph.replace({"weight": memory[:4].view(1, 2, 2).mT, "bias": memory[4:].view(1, 2)})
    gmn.save(graph, tmp_path)
    assert gmn.load(tmp_path).to_state_dict()["weight"].tolist() == [[0, 2], [1, 3]]
    assert gmn.load(tmp_path).to_state_dict()["bias"].tolist() == [4, 5]


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-3])


def exchange(folder: Path) -> None:
    other = folder / "other"
    gmn.save(converters.to_graph(nn.Linear(2, 4), (torch.zeros(1, 2),)), other)
    (other / "spec.json").replace(folder / "spec.json")


def foreign(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1, 3, 2)}, folder / "weights.safetensors")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (remove("spec.json"), "it has no spec.json"),
        (remove("weights.safetensors"), "it has no weights.safetensors"),
        (write("spec.json", b"{}"), "not a graph spec"),
        (write("spec.json", b"\xff"), "spec.json: "),
        (write("weights.safetensors", b""), "weights.safetensors is damaged"),
        (cut, "weights.safetensors is damaged"),
        (exchange, "belongs to another spec"),
        (foreign, "has format None; this version reads '1'"),
    ],
)
def test_damage_is_named(harm: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    gmn.save(converters.to_graph(nn.Linear(2, 3), (torch.zeros(1, 2),)), tmp_path)
    harm(tmp_path)
    with pytest.raises(gmn.GraphFileError, match=reason):
        gmn.load(tmp_path)


@pytest.mark.parametrize("kept", [1, 200, 10**9], ids=["each at once", "a few", "all"])
def test_a_graph_that_is_written_network_by_network(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same graph as of :func:`gmn.save`, whatever waits in memory."""
    monkeypatch.setattr(streaming, "KEPT_BYTES", kept)
    for number, case in enumerate(("batch-norm", "overwritten", "mlp-relu")):
        graph = graph_of(BY_NAME[case])
        gmn.save(graph, tmp_path / f"whole-{number}")
        with streaming.GraphWriter(graph.spec, tmp_path / f"parts-{number}") as writer:
            for network in graph:
                writer.add(network)
            writer.finish()
        whole, parts = (gmn.load(tmp_path / f"{kind}-{number}") for kind in ("whole", "parts"))
        assert whole.spec == parts.spec
        assert list(whole.values) == list(parts.values)
        for name, values in whole.values.items():
            assert values.dtype == parts.values[name].dtype
            assert torch.equal(values, parts.values[name])


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    graph, other = (graph_of(BY_NAME[name]) for name in ("mlp-relu", "cnn"))
    folder = tmp_path / "graph"
    with streaming.GraphWriter(graph.spec, folder) as writer:
        with pytest.raises(ValueError, match="no networks"):
            writer.finish()
        with pytest.raises(ValueError, match="another architecture"):
            writer.add(other)
        writer.add(graph)
        with pytest.raises(gmn.StateDictError, match=r"in the networks before in torch\.float64"):
            writer.add(graph.to(dtype=torch.float32))
        assert writer.count == len(graph)
        assert folder.exists()
    assert not folder.exists()
