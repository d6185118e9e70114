"""Zoos out of zoos, and what is left of a damaged one."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gmn import zoo
from gmn.zoo.upkeep import copying
from tests.gmn.commands import run
from tests.gmn.lines import contents, lines


def biases(population: zoo.Zoo, name: str = "linear-2") -> list[int]:
    found = population.stacked(population.indices(architecture=name))
    return [int(value) for value in found["bias"][:, 0]]


def damage(path: Path, position: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_merging_keeps_weights_labels_and_further_tensors(tmp_path: Path) -> None:
    first, second = lines(tmp_path / "a"), lines(tmp_path / "b", first=100)
    other = lines(tmp_path / "c", first=200, inputs=4)
    folders = [tmp_path / name for name in "abc"]
    both = zoo.merge(folders, tmp_path / "out", name="all", progress=False)
    assert both.architectures == ["linear-2", "linear-4"]
    assert biases(both) == [*range(12), *range(100, 112)]
    assert biases(both, "linear-4") == list(range(200, 212))
    assert len(both.manifest["shards"]) == 2  # packed: 24 networks of one kind, 12 of another
    for population in (first, second, other):
        for number, row in enumerate(population.rows):
            place = both.index["id"].to_pylist().index(row["id"])
            kept = {key: row[key] for key in ("id", "split", "loss", "kind", "spec")}
            assert kept.items() <= both.rows[place].items()
            assert torch.equal(both.state(place)["weight"], population.state(number)["weight"])
            mask = both.extra("mask", [place])["weight"]
            assert torch.equal(mask, population.extra("mask", [number])["weight"])
    assert both.manifest["card"]["splits"] == {"train": 18, "test": 9, "val": 9}
    assert [entry["name"] for entry in both.manifest["card"]["merged_from"]] == ["lines"] * 3


def test_one_id_in_two_zoos_needs_prefixes(tmp_path: Path) -> None:
    lines(tmp_path / "a"), lines(tmp_path / "b")
    folders = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(zoo.ZooError, match=r"both have a network with the id '000000'.*--prefix"):
        zoo.merge(folders, tmp_path / "out", progress=False)
    both = zoo.merge(folders, tmp_path / "out", prefixes=["a/", "b/"], progress=False)
    assert both.rows[0]["id"] == "a/000000"
    assert both.rows[12]["id"] == "b/000000"
    with pytest.raises(ValueError, match="1 prefixes for 2 zoos"):
        zoo.merge(folders, tmp_path / "out2", prefixes=["a/"], progress=False)


def test_one_name_for_two_architectures_is_refused(tmp_path: Path) -> None:
    from tests.gmn.lines import rows, spec, states

    for inputs in (2, 4):
        part = range(inputs * 10, inputs * 10 + 3)
        with zoo.ZooWriter(tmp_path / str(inputs), "lines", 3, 0, {}) as writer:
            writer.write_shard(0, "linear", spec(inputs), states(part, inputs), rows(part))
            writer.finish(1, {})
    with pytest.raises(
        zoo.ZooError, match=r"architecture 'linear' is one network in .* another in"
    ):
        zoo.merge([tmp_path / "2", tmp_path / "4"], tmp_path / "out", progress=False)


def test_a_merge_that_was_stopped_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "SHARD_SIZE", 5)
    lines(tmp_path / "a"), lines(tmp_path / "b", first=100)
    folders = [tmp_path / "a", tmp_path / "b"]
    whole = zoo.merge(folders, tmp_path / "whole", progress=False)
    assert [shard["networks"] for shard in whole.manifest["shards"]] == [5, 5, 5, 5, 4]

    write = copying.Copy.write

    def stopped(copy: copying.Copy, folder: Path, number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt
        write(copy, folder, number)

    with monkeypatch.context() as patch:
        patch.setattr(copying.Copy, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            zoo.merge(folders, tmp_path / "out", progress=False)
    with pytest.raises(zoo.ZooError, match="unfinished"):
        zoo.open(tmp_path / "out")
    before = (tmp_path / "out" / "shard-00001.safetensors").stat().st_mtime_ns
    zoo.merge(folders, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "shard-00001.safetensors").stat().st_mtime_ns == before
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_large_networks_lie_few_in_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "SHARD_BYTES", 3000)
    lines(tmp_path / "a", shards=4, per_shard=7)
    packed = zoo.merge([tmp_path / "a"], tmp_path / "out", progress=False)
    assert biases(packed) == list(range(28))
    assert len(packed.manifest["shards"]) > 4


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (["loss>=1"], list(range(8, 12))),
        (["loss < 0.5", "kind==b"], [1, 3]),
        (["split!=train"], [2, 3, 6, 7, 10, 11]),
        (["id==000007"], [7]),
        (["kind=='a'", "loss<=0.25"], [0, 2]),
    ],
)
def test_conditions(tmp_path: Path, where: list[str], wanted: list[int]) -> None:
    assert zoo.select(lines(tmp_path), where).tolist() == wanted


def test_conditions_that_cannot_be_met_are_explained(tmp_path: Path) -> None:
    population = lines(tmp_path / "a")
    for where, message in (
        ("loss=1", "operators are =="),
        ("accuracy>1", "no column is called 'accuracy'; known: id, architecture"),
        ("loss>low", "holds numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            zoo.select(population, [where])
    with pytest.raises(ValueError, match="no network has the id 77"):
        zoo.select(population, ids=["77"])
    with pytest.raises(zoo.ZooError, match="loosen the conditions"):
        zoo.filtered(population, zoo.select(population, ["loss>99"]), tmp_path / "out")


def test_filtering_keeps_the_chosen(tmp_path: Path) -> None:
    population = lines(tmp_path / "a")
    chosen = zoo.select(population, ["kind==b"], split="train", ids=None)
    few = zoo.filtered(population, chosen, tmp_path / "out", ["kind==b"], progress=False)
    assert biases(few) == [1, 5, 9]
    assert few.manifest["card"]["criteria"] == ["kind==b"]
    assert few.manifest["card"]["filtered_from"]["networks"] == 12


def test_appending_adds_and_leaves_the_old_shards_alone(tmp_path: Path) -> None:
    old = lines(tmp_path / "a", first=50)
    before = {f: b for f, b in contents(old.folder).items() if f.startswith("shard")}
    lines(tmp_path / "b", shards=1)
    more = zoo.append(tmp_path / "a", [tmp_path / "b"], progress=False)
    assert biases(more) == [*range(4), *range(50, 62)]
    after = contents(tmp_path / "a")
    assert before.items() <= after.items()
    assert "index.parquet" not in after
    assert more.manifest["card"]["networks"] == 16
    # The zoo that was open before still reads its networks.
    assert biases(old) == list(range(50, 62))
    again = zoo.append(tmp_path / "a", [tmp_path / "b"], prefixes=["again/"], progress=False)
    assert len(again) == 20
    assert zoo.verify(tmp_path / "a", progress=False).ok


@pytest.mark.parametrize("moment", ["write_shards", "publish"])
def test_an_append_that_was_stopped_has_added_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    lines(tmp_path / "a"), lines(tmp_path / "b", first=100)
    with monkeypatch.context() as patch:
        patch.setattr(f"gmn.zoo.upkeep.merging.{moment}", None)
        with pytest.raises(TypeError):
            zoo.append(tmp_path / "a", [tmp_path / "b"], progress=False)
    assert len(zoo.open(tmp_path / "a")) == 12
    assert len(zoo.append(tmp_path / "a", [tmp_path / "b"], progress=False)) == 24


def test_damage_in_a_zoo_that_grows_is_not_signed_anew(tmp_path: Path) -> None:
    lines(tmp_path / "a"), lines(tmp_path / "b", first=100)
    damage(tmp_path / "a" / "shard-00001.safetensors")
    zoo.append(tmp_path / "a", [tmp_path / "b"], progress=False)
    found = zoo.verify(tmp_path / "a", progress=False)
    assert [shard.file for shard in found.damaged] == ["shard-00001.safetensors"]
    with pytest.raises(zoo.ZooError, match="which building it again would lose"):
        zoo.ZooWriter(tmp_path / "a", "lines", 12, 0, {})


def test_a_damaged_zoo_says_what_is_lost_and_the_rest_is_rescued(tmp_path: Path) -> None:
    population = lines(tmp_path / "a")
    damage(tmp_path / "a" / "shard-00001.safetensors")
    (tmp_path / "a" / "shard-00002.safetensors").unlink()
    found = zoo.verify(tmp_path / "a", progress=False)
    assert not found.ok
    assert found.lost == 8
    assert [shard.ids for shard in found.damaged] == [
        tuple(f"{i:06d}" for i in part) for part in (range(4, 8), range(8, 12))
    ]
    assert "shard-00002.safetensors is missing: 4 networks are lost" in str(found)
    rescued = zoo.rescue(tmp_path / "a", tmp_path / "out", progress=False)
    assert biases(rescued) == [0, 1, 2, 3]
    assert torch.equal(rescued.state(2)["weight"], population.state(2)["weight"])
    card = rescued.manifest["card"]
    assert (card["lost"], [shard["file"] for shard in card["lost_shards"]]) == (
        8,
        ["shard-00001.safetensors", "shard-00002.safetensors"],
    )
    assert card["card_before"] == {"remark": "random"}
    assert zoo.verify(tmp_path / "out", progress=False).ok


@pytest.mark.parametrize("loss", ["missing", "flipped", "fewer rows"])
def test_an_index_is_made_again_from_the_shards(tmp_path: Path, loss: str) -> None:
    lines(tmp_path)
    whole = contents(tmp_path)
    path = tmp_path / "index.parquet"
    if loss == "missing":
        path.unlink()
    elif loss == "flipped":
        damage(path)
    else:
        path.write_bytes(zoo.store.index.table_bytes(zoo.open(tmp_path).index[:7]))
    with pytest.raises(zoo.ZooError, match=r"index.parquet.*--reindex"):
        zoo.open(tmp_path)
    found = zoo.verify(tmp_path, progress=False)
    assert found.lost == 0
    assert found.index is not None
    assert "nothing is lost" in str(found)
    assert len(zoo.reindex(tmp_path)) == 12
    assert contents(tmp_path) == whole


def test_a_zoo_without_manifest_is_rescued_from_its_shards(tmp_path: Path) -> None:
    lines(tmp_path / "a")
    (tmp_path / "a" / "zoo.json").write_text("{")
    damage(tmp_path / "a" / "index.parquet")
    path = tmp_path / "a" / "shard-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert not zoo.verify(tmp_path / "a", progress=False).ok
    rescued = zoo.rescue(tmp_path / "a", tmp_path / "out", progress=False)
    assert biases(rescued) == list(range(4, 12))
    assert rescued.graph([0]).spec.num_parameters == 9


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(zoo.ZooError, match="is not a zoo"):
        zoo.verify(tmp_path)
    lines(tmp_path / "a", shards=1)
    damage(tmp_path / "a" / "shard-00000.safetensors")
    with pytest.raises(zoo.ZooError, match="no network is left"):
        zoo.rescue(tmp_path / "a", tmp_path / "out", progress=False)
    with (
        zoo.ZooWriter(tmp_path / "b", "lines", 12, 0, {}),
        pytest.raises(zoo.ZooError, match="unfinished"),
    ):
        zoo.verify(tmp_path / "b")


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_exported_files_need_no_library(tmp_path: Path, format: str) -> None:
    population = lines(tmp_path / "a")
    table = zoo.export(population, tmp_path / "out", torch.tensor([7, 2]), format, progress=False)
    with table.open() as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == ["000007", "000002"]
    for row in found:
        path = tmp_path / "out" / row["file"]
        state = load_file(path) if format == "safetensors" else torch.load(path)
        assert state["bias"].tolist() == [float(row["id"])] * 3
        assert float(row["loss"]) == float(row["id"]) / 8
    with pytest.raises(zoo.ZooError, match="another export"):
        zoo.export(population, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="known: safetensors, pt"):
        zoo.export(population, tmp_path / "out", format="npz")


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, out = (str(tmp_path / name) for name in ("a", "b", "out"))
    lines(tmp_path / "a"), lines(tmp_path / "b", first=100)

    def printed(code: int, *arguments: str) -> str:
        assert run(monkeypatch, "zoo", *arguments) == code
        return capsys.readouterr().out

    assert "12 networks of 9 parameters" in printed(0, "show", a)
    facts = json.loads(printed(0, "show", a, "--json"))
    assert facts["splits"] == {"train": 6, "test": 3, "val": 3}
    assert facts["labels"]["loss"]["max"] == 11 / 8
    assert facts["extras"] == ["mask"]
    merged = json.loads(printed(0, "merge", a, b, "--out", out, "--json"))
    assert merged["networks"] == 24
    printed(0, "filter", out, "--where", "loss>=13", "--out", f"{out}-few")
    assert len(zoo.open(f"{out}-few")) == 8
    assert run(monkeypatch, "zoo", "filter", out, "--out", f"{out}-all") == 2
    assert "wrote 3 networks" in printed(0, "export", a, "--split", "val", "--out", f"{out}-files")
    assert "24 networks" in printed(0, "append", a, b)
    assert "are as they were written" in printed(0, "verify", a)
    damage(tmp_path / "a" / "shard-00000.safetensors")
    assert json.loads(printed(1, "verify", a, "--json"))["lost"] == 4
    assert "20 networks" in printed(1, "verify", a, "--rescue", f"{out}-rescued")
    for command in ("show", "verify", "merge", "append", "filter", "export"):
        assert "Example:" in printed(0, command, "--help")


def test_the_page_on_zoos_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "zoos.md"
    block = page.read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    names: dict[str, object] = {}
    exec(block, names)
    mine, masks = names["mine"], names["masks"]
    assert isinstance(mine, zoo.Zoo)
    assert isinstance(masks, dict)
    assert mine.extra("mask", [3, 7]).keys() == masks.keys()
    assert len(zoo.open(tmp_path / "sharp")) > 5
