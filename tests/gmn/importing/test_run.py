"""What is common to all layouts: resuming, tasks, the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gmn import zoo
from gmn.tasks import task_of
from gmn.zoo import DwsInrs, NfnSirens, SmallCnnZoo, ZooError
from gmn.zoo.importing import named_layout, run
from tests.gmn.importing.replicas import (
    NAMES,
    NETWORKS,
    cnn_replica,
    command,
    dws_replica,
    dws_splits,
    import_,
    nfn_replica,
    shorten,
)


def test_an_import_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "mnist-inrs"
    dws_replica(source, NAMES)
    broken = source / NAMES[0] / "checkpoints" / "model_final.pth"
    broken.write_bytes(broken.read_bytes()[:300])
    monkeypatch.setattr(run, "SHARD_SIZE", 3)
    whole = import_(DwsInrs(source), tmp_path / "whole")
    read, reads = DwsInrs.read, []

    def stopping(self: DwsInrs, entry: object) -> object:
        reads.append(entry)
        if len(reads) == 8:
            raise KeyboardInterrupt
        return read(self, entry)

    monkeypatch.setattr(DwsInrs, "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_(DwsInrs(source), tmp_path / "out")
    with pytest.raises(ZooError, match="unfinished"):
        zoo.open(tmp_path / "out")
    reads.clear()
    reads += [None] * 100
    again = import_(DwsInrs(source), tmp_path / "out")
    assert len(reads) - 100 == 4 + 1  # two shards were there; one network is read to say why not
    assert again.rows == whole.rows
    assert again.manifest["card"] == whole.manifest["card"]
    for index in range(len(whole)):
        for name, value in whole.state(index).items():
            assert torch.equal(again.state(index)[name], value)
    reads.clear()
    reads += [None] * 100
    assert import_(DwsInrs(source), tmp_path / "out").rows == whole.rows
    assert len(reads) == 100


def test_an_import_does_not_go_on_with_another_source(tmp_path: Path) -> None:
    nfn_replica(tmp_path / "wts")
    import_(NfnSirens(tmp_path / "wts"), tmp_path / "out")
    with pytest.raises(ZooError, match="already holds a zoo"):
        import_(NfnSirens(tmp_path / "wts", copies=True), tmp_path / "out")
    shorten(tmp_path / "wts" / "randinit_smaller_2s" / "net7.pth")
    with pytest.raises(ZooError, match="already holds a zoo"):
        import_(NfnSirens(tmp_path / "wts"), tmp_path / "out")


def test_a_source_without_a_good_network_is_refused(tmp_path: Path) -> None:
    dws_replica(tmp_path / "data", NAMES[:1])
    (tmp_path / "data" / NAMES[0] / "checkpoints" / "model_final.pth").write_bytes(b"")
    with pytest.raises(ZooError, match=r"no network can be used: .*the file is empty"):
        import_(DwsInrs(tmp_path / "data"), tmp_path / "out")


def test_tasks_on_imported_zoos(tmp_path: Path) -> None:
    cnn_replica(tmp_path / "cifar")
    import_(SmallCnnZoo(tmp_path / "cifar"), tmp_path / "cnns")
    accuracy = task_of(tmp_path / "cnns")
    assert accuracy.name == "accuracy prediction"
    assert sum(len(b) for s in ("train", "val", "test") for b in accuracy.split(s)) == NETWORKS
    dws_replica(tmp_path / "mnist-inrs", NAMES)
    import_(DwsInrs(tmp_path / "mnist-inrs"), tmp_path / "inrs")
    classes = task_of(tmp_path / "inrs")
    assert (classes.name, classes.outputs) == ("INR classification", 3)
    assert classes.split("test")[0].target.tolist() == [0, 1, 2]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "mnist-inrs", str(tmp_path / "out")
    dws_replica(source, NAMES)
    (source / NAMES[0] / "checkpoints" / "model_final.pth").write_bytes(b"")
    splits = str(dws_splits(tmp_path / "splits.json", "objects"))
    assert command(monkeypatch, "dws-inrs", str(source), "--splits", splits, "--out", out) == 0
    printed = capsys.readouterr().out.replace("\n", "")
    assert f"skipped {NAMES[0]}/checkpoints/model_final.pth" in printed
    assert "the file is empty" in printed
    assert len(zoo.open(out)) == len(NAMES) - 1
    assert command(monkeypatch, "dws-inrs", str(source), "--copies", "--out", out) == 2
    assert "dws-inrs has no option 'copies'" in capsys.readouterr().err
    assert command(monkeypatch, "nothing", str(source), "--out", out) == 2
    assert (
        "known: small-cnn-zoo, dws-inrs, nfn-sirens, small-transformer-zoo"
        in capsys.readouterr().err
    )


def test_named_layouts_take_their_own_options(tmp_path: Path) -> None:
    layout = named_layout("nfn-sirens", tmp_path, {"copies": True, "splits": None})
    assert isinstance(layout, NfnSirens)
    assert layout.copies
    with pytest.raises(ValueError, match="nfn-sirens has no option 'splits'; it has: copies"):
        named_layout("nfn-sirens", tmp_path, {"splits": "a.json"})
    zeroth = named_layout("small-transformer-zoo", tmp_path, {"epoch": 0, "copies": False})
    assert zeroth.configuration()["epoch"] == 0
