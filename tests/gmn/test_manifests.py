"""What describes a folder is read against a schema, and names files of the folder alone."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import converters
from gmn import zoo
from gmn.errors import ZooError
from gmn.foundation import manifest
from gmn.foundation.manifest import ManifestError
from gmn.tasks import InrClassification, LabelError
from tests.gmn.lines import lines


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["shards"], "x", "shards is 'x'; expected array, got str"),
        (["shards"], 5, "shards is 5; expected array"),
        (["shards"], [], "index.networks: '12', not 0"),
        (["shards", 1, "file"], 5, r"shards\[1\]\.file is 5; expected str, got int"),
        (["shards", 1, "file"], "../shard-00001.safetensors", r"shards\[1\]\.file: '\.\./shard"),
        (["shards", 0, "bytes"], -1, r"shards\[0\]\.bytes is -1; expected int >= 0"),
        (["shards", 0, "networks"], 10**9, r"networks: 1,000,000,000 networks in"),
        (["shards", 0, "sha256"], "x", r"shards\[0\]\.sha256 is 'x'"),
        (["shards", 2, "architecture"], "y", r"shards\[2\]\.architecture: 'y' is none of its"),
        (["index"], None, "index is None; expected object"),
        (["index", "file"], "../victim", r"index\.file: '\.\./victim', not 'index\.parquet'"),
        (["index", "file"], "/etc/passwd", r"index\.file: '/etc/passwd'"),
        (["index", "file"], "zoo.json", r"index\.file: 'zoo\.json'"),
        (["index", "networks"], 5, r"index\.networks: '5', not 12"),
        (["name"], {}, "name is an object; expected str"),
        (["seed"], "0", "seed is '0'; expected int"),
        (["card"], [], "card is a list; expected object"),
        (["generation"], -1, "generation is -1"),
    ],
)
def test_a_tampered_zoo_is_refused_by_file_field_and_value(
    path: list[Any], value: object, message: str, tmp_path: Path
) -> None:
    lines(tmp_path / "zoo")
    (tmp_path / "victim").write_text("mine")
    change(tmp_path / "zoo" / "zoo.json", path, value)
    uses: list[Callable[..., Any]] = [zoo.open, zoo.reindex]
    uses.append(lambda folder: zoo.append(folder, [folder], ["x"], progress=False))
    for use in uses:
        with pytest.raises(ZooError, match=message) as caught:
            use(tmp_path / "zoo")
        assert f"{tmp_path}/zoo/zoo.json is damaged: " in str(caught.value)
    assert not zoo.verify(tmp_path / "zoo", progress=False).ok
    assert (tmp_path / "victim").read_text() == "mine"


def change(file: Path, path: list[Any], value: object) -> None:
    content = json.loads(file.read_bytes())
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    file.write_text(json.dumps(content))


def test_what_the_first_versions_left_out_may_be_absent(tmp_path: Path) -> None:
    lines(tmp_path / "zoo")
    file = tmp_path / "zoo" / "zoo.json"
    content = json.loads(file.read_bytes())
    del content["generation"]
    for shard in content["shards"]:
        del shard["extras"]
    file.write_text(json.dumps(content))
    assert zoo.open(tmp_path / "zoo").extras == []
    zoo.append(tmp_path / "zoo", [lines(tmp_path / "other").folder], ["x"], progress=False)
    assert len(zoo.open(tmp_path / "zoo")) == 24


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"version": "\\ud800"}', "no JSON"),
        ("", "no JSON"),
        ("{}", "version is missing"),
        ("[]", "it is a list; expected object"),
        ('{"version": true}', "version is True; expected int, got bool"),
    ],
)
def test_other_content_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text(content)
    with pytest.raises(ZooError, match=message):
        zoo.open(tmp_path)


def test_large_manifests_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "zoo.json").open("wb") as file:
        file.truncate(manifest.LARGEST + 1)
    with pytest.raises(ManifestError, match="more than 67,108,864"):
        manifest.read(tmp_path / "zoo.json")


# --- the index ----------------------------------------------------------------------------------


def reindexed(folder: Path, table: pa.Table) -> None:
    """Puts another index into a zoo, with its checksum."""
    pq.write_table(table, folder / "index.parquet", compression="zstd")
    content = (folder / "index.parquet").read_bytes()
    change(folder / "zoo.json", ["index", "sha256"], hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("shard", [99] * 12, "in row 0 of shard 99, which does not exist"),
        ("shard", [-1] * 12, "shard -1, which does not exist"),
        ("row", [999] * 12, "in row 999 of shard 0"),
        ("row", ["a"] * 12, "no column row of the kind"),
        ("id", [None] * 12, "no column id of the kind"),
        ("id", [None, *"abcdefghijk"], "rows without id"),
        ("architecture", ["other"] * 12, "networks of 'other', of which no shard is"),
        ("shard", None, "no column shard"),
    ],
)
def test_an_index_of_places_that_do_not_exist(
    column: str, values: list[Any] | None, message: str, tmp_path: Path
) -> None:
    table = lines(tmp_path).index
    place = table.column_names.index(column)
    changed = table.remove_column(place)
    if values is not None:
        changed = changed.add_column(place, column, pa.array(values))
    reindexed(tmp_path, changed)
    with pytest.raises(ZooError, match=message):
        zoo.open(tmp_path)
    assert len(zoo.reindex(tmp_path)) == 12


def test_an_index_that_would_fill_the_memory(tmp_path: Path) -> None:
    table = lines(tmp_path).index
    rows = 30_000_000
    reindexed(tmp_path, pa.table({"id": pa.DictionaryArray.from_arrays(
        pa.array(bytearray(rows), pa.int8()), ["x"]
    )}))  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ZooError, match="bytes claim 240,000,000 in memory"):
        zoo.open(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert len(table) == 12


# --- labels -------------------------------------------------------------------------------------


def test_a_label_of_millions_is_a_mistake_unless_told(tmp_path: Path) -> None:
    spec = converters.trace(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
    states = {"weight": torch.randn(4, 3, 2), "bias": torch.zeros(4, 3)}
    labels = [0, 1, 5_000, 2]
    rows = [{"id": f"{i}", "split": "train", "label": label} for i, label in enumerate(labels)]
    with zoo.ZooWriter(tmp_path, "classes", 4, 0, {}) as writer:
        writer.write_shard(0, "linear", spec, states, rows)
        writer.finish(1, {})
    population = zoo.open(tmp_path)
    with pytest.raises(LabelError, match=r"label of network 2 is 5000, no class: .* end at 999"):
        InrClassification(population)
    assert InrClassification(population, classes=5_001).outputs == 5_001
    with pytest.raises(LabelError, match=r"as many as were given, so they end at 2"):
        InrClassification(population, classes=3)
