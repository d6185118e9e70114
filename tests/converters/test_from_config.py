"""Folders of transformers: built without weights, traced, and their weights put in place."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import torch

import converters
import gmn
from converters import CheckpointError
from converters.states.hub_config import bounded
from tests.families import FAMILIES, build
from tests.traced import slow_but

OFTEN = ("mixtral",)  # tokens, stored under other names


@pytest.mark.parametrize("family", slow_but(FAMILIES, OFTEN))
@pytest.mark.filterwarnings("ignore")
def test_saved_models_come_back_bit_for_bit(family: str, tmp_path: Path) -> None:
    model = build(family)[0].model
    model.save_pretrained(tmp_path)
    graph = converters.from_pretrained(tmp_path)
    state, found = model.state_dict(), graph.to_state_dict()
    assert list(found) == list(state)
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert len(graph.spec.symmetries.permutations) > 0


def test_nothing_is_allocated(tmp_path: Path) -> None:
    build("llama")[0].model.save_pretrained(tmp_path)
    model, inputs = converters.from_config(tmp_path)
    assert all(p.is_meta for p in (*model.parameters(), *model.buffers(), *inputs))


def test_code_beside_a_model_never_runs(tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    (tmp_path / "model.py").write_text(f"open({str(sentinel)!r}, 'w')\n")
    config = {
        "model_type": "mine",
        "architectures": ["Mine"],
        "auto_map": {"AutoConfig": "model.Config", "AutoModel": "model.Mine"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"code of its own, which is never run\. Pass the mod"
    ):
        converters.from_config(tmp_path)
    config |= {"model_type": "bert"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=r"transformers has no model Mine; code beside the weights"
    ):
        converters.from_config(tmp_path)
    assert not sentinel.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_type": 3}', "\xff", "{" * 9999])
def test_configurations_that_make_no_sense(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config.json is no configuration"):
        converters.from_config(tmp_path)


SMALL = {
    **{"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8, "vocab_size": 11},
    **{"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8},
}
HARMFUL: list[dict[str, object]] = [
    *({"architectures": names} for names in (
        ["pipeline"], ["Trainer"], [5], ["utils"], ["AutoModel"], ["GPT2Model"], "Trainer",
        ["BertTokenizer"], ["PreTrainedModel"], ["BertConfig"], [["BertModel"]],
    )),
    *({"num_hidden_layers": size} for size in (10**9, 20_000, 10**30, -1, "a", [1], None)),
    *({"hidden_size": value} for value in ("a", None, -5, 0, 10**12)),
    {"num_labels": 10**9},
    {"text_config": {"num_hidden_layers": 10**9}},
    {"hidden_act": "exec"},
    {"hidden_act": 5},
    {"dtype": "attacker"},
    {"model_type": "dpt", "architectures": ["DPTModel"], "backbone": "attacker/resnet"},
    {"model_type": "dpt", "architectures": ["DPTModel"], "backbone": "attacker/resnet",
     "use_pretrained_backbone": True},
    {"model_type": "detr", "architectures": ["DetrModel"], "backbone": "attacker/resnet",
     "use_timm_backbone": True},
    {"a": {"b": [{"c": [[[[10**40]]]]}]}},
]  # fmt: skip


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Whom the code asked."""
    asked: list[object] = []

    def ask(*where: object, **_: object) -> None:
        asked.append(where)
        raise OSError("there is no network")

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    monkeypatch.setattr(socket.socket, "connect", ask)
    return asked


@pytest.mark.parametrize("change", HARMFUL, ids=lambda change: str(change)[:60])
@pytest.mark.filterwarnings("ignore")
def test_configurations_made_to_harm(
    change: dict[str, object], tmp_path: Path, no_network: list[object]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, **change}))
    start = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        converters.from_config(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert time.process_time() - start < 10
    assert not no_network


@pytest.mark.parametrize("name", ["attacker/kernel", "flash_attention_2", "sdpa"])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_that_a_configuration_names_are_not_loaded(
    key: str, name: str, tmp_path: Path, no_network: list[object]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, key: name}))
    model, _ = converters.from_config(tmp_path)
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert not no_network


def test_modules_without_end_are_stopped(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensors and modules"), bounded():
        torch.nn.ModuleList(torch.nn.Identity() for _ in range(10**9))
    assert len(torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(9))) == 9


@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_model(tmp_path: Path) -> None:
    build("gpt2")[0].model.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    build("bert")[0].model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=r"not the weights of a GPT2LMHeadModel: .* missing"):
        converters.from_pretrained(tmp_path)


def test_old_files_without_counters_and_with_positions() -> None:
    """Before 0.4 batch norms counted nothing; old text models store their positions."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    spec = converters.trace(model, (torch.zeros(2, 2),))
    state = dict(model.state_dict())
    del state["1.num_batches_tracked"]
    state["position_ids"] = torch.arange(3)
    fitted = converters.fit_state(spec, {f"m.{k}": v for k, v in state.items()}, ["m."])
    assert gmn.ParameterGraph.from_state_dicts(spec, [fitted])
    state["extra"] = torch.zeros(3)
    with pytest.raises(gmn.StateDictError, match="unexpected extra"):
        gmn.ParameterGraph.from_state_dicts(spec, [converters.fit_state(spec, state)])
