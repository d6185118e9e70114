"""What a zoo's files hold, and what happens when they are wrong, in use, or cannot be written."""

import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from gmn import zoo
from gmn.zoo.store import files as store
from gmn.zoo.store import provenance
from gmn.zoo.store.index import read_index
from gmn.zoo.store.shards import write_shard
from gmn.zoo.store.writer import ZooWriter
from gmn.zoo.store.writing import zoo_folder
from tests.gmn.lines import contents, lines, rows, spec, states


def write(folder: Path, row: list[store.Row], state: dict[str, torch.Tensor] | None = None) -> None:
    with ZooWriter(folder, "lines", len(row), 0, {}) as writer:
        values = states(range(len(row))) if state is None else state
        writer.write_shard(0, "linear", spec(), values, row)
        writer.finish(1, {})


def test_networks_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    population = lines(tmp_path)
    chosen = [11, 0, 5, 5, -1]
    assert population.stacked(chosen)["bias"][:, 0].tolist() == [11, 0, 5, 5, 11]
    assert population.graph(torch.tensor(chosen)).values["bias"][:, 0].tolist() == [11, 0, 5, 5, 11]
    assert population.state(7)["bias"].tolist() == [7.0, 7.0, 7.0]
    with pytest.raises(IndexError, match="network 12 asked for, but there are 12"):
        population.stacked([3, 12])
    with pytest.raises(ValueError, match="one architecture"):
        population.stacked([])


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    population = lines(tmp_path)
    population.stacked([0, 1])["bias"].zero_()
    population.state(0)["bias"].fill_(9.0)
    assert population.state(1)["bias"].tolist() == [1.0, 1.0, 1.0]
    assert population.state(0)["bias"].tolist() == [0.0, 0.0, 0.0]


def test_further_tensors_lie_beside_the_states(tmp_path: Path) -> None:
    population = lines(tmp_path)
    assert population.extras == ["mask"]
    masks = population.extra("mask", [4, 0, 8])["weight"]
    assert masks.dtype == torch.bool
    assert masks.flatten(1).all(1).tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"no tensors 'gradient' .* known there: mask"):
        population.extra("gradient", [0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_type_keeps_its_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    wanted = {name: value.to(dtype) for name, value in states(range(4)).items()}
    write(tmp_path, rows(range(4)), wanted)
    found = zoo.open(tmp_path).stacked([2, 0])
    assert torch.equal(found["weight"], wanted["weight"][[2, 0]])


def test_the_index_is_columns_and_rows(tmp_path: Path) -> None:
    population = lines(tmp_path)
    row = population.rows[5]
    assert (row["id"], row["shard"], row["row"], row["loss"]) == ("000005", 1, 1, 5 / 8)
    assert row["spec"] == spec().fingerprint
    assert population.columns[:6] == ["id", "architecture", "spec", "shard", "row", "split"]
    assert population.labels("loss").tolist() == [i / 8 for i in range(12)]
    assert population.labels("loss", [3, 1]).tolist() == [3 / 8, 1 / 8]
    assert population.indices("val").tolist() == [2, 6, 10]
    assert len(population.indices()) == 12


def test_whole_numbers_and_fractions_in_two_shards_are_one_column(tmp_path: Path) -> None:
    with ZooWriter(tmp_path, "lines", 8, 0, {}) as writer:
        for number, value in enumerate([1, 0.5]):
            part = range(4 * number, 4 * number + 4)
            own = [{"id": row["id"], "value": value} for row in rows(part)]
            writer.write_shard(number, "linear", spec(), states(part), own)
        writer.finish(2, {})
    population = zoo.open(tmp_path)
    assert population.labels("value").tolist() == [1.0] * 4 + [0.5] * 4
    assert population.rows[0]["split"] is None
    assert len(population.indices("train")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "row 1 has the id None"),
        ({"id": "000000"}, "id '000000' is there twice"),
        ({"split": "training"}, "network 000001: split is 'training', not one of train, val, test"),
        ({"loss": "low"}, "network 000001: loss is 'low', of other networks values like 0.0"),
        ({"loss": [1.0]}, "network 000001: loss is a list"),
        ({"shard": 3}, "may not have a column 'shard'"),
    ],
)
def test_rows_that_cannot_be_indexed_are_refused(
    tmp_path: Path, change: store.Row, message: str
) -> None:
    wrong = rows(range(4))
    wrong[1] |= change
    with pytest.raises(zoo.ZooError, match=message):
        write(tmp_path, wrong)
    assert not list(tmp_path.glob("shard-*"))


def test_a_column_of_two_kinds_in_two_shards_is_named(tmp_path: Path) -> None:
    with ZooWriter(tmp_path, "lines", 8, 0, {}) as writer:
        for number, value in enumerate(["low", 0.5]):
            part = range(4 * number, 4 * number + 4)
            own = [{**row, "loss": value} for row in rows(part)]
            writer.write_shard(number, "linear", spec(), states(part), own)
        with pytest.raises(zoo.ZooError, match=r"column loss holds string .* 000000, but double"):
            writer.finish(2, {})


def test_an_id_in_two_shards_is_named(tmp_path: Path) -> None:
    with ZooWriter(tmp_path, "lines", 8, 0, {}) as writer:
        for number in range(2):
            writer.write_shard(number, "linear", spec(), states(range(4)), rows(range(4)))
        with pytest.raises(zoo.ZooError, match=r"id '000000', in shard-00000.* and shard-00001"):
            writer.finish(2, {})


def test_weights_that_are_not_finite_or_not_enough_are_refused(tmp_path: Path) -> None:
    broken = states(range(4))
    broken["weight"][2, 0, 0] = torch.nan
    with pytest.raises(zoo.ZooError, match="weight has NaN or infinite values in 000002"):
        write(tmp_path, rows(range(4)), broken)
    with pytest.raises(zoo.ZooError, match="there are 4 rows"):
        write(tmp_path, rows(range(4)), states(range(3)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, None, 1.0, None], "'y' has no value for network 000001, nor do 1 others"),
        ([0.5, 1.0, float("nan"), 2.0], "'y' is nan for network 000002;"),
        (["a", "b", "c", "d"], "'y' holds string, not numbers; known labels: loss"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(
    tmp_path: Path, values: list[object], message: str
) -> None:
    own = [{**row, "y": value} for row, value in zip(rows(range(4)), values, strict=True)]
    write(tmp_path, own)
    population = zoo.open(tmp_path)
    with pytest.raises(ValueError, match=message):
        population.labels("y")
    if not isinstance(values[0], str):
        assert population.labels("y", [0]).tolist() == [0.5]


def test_a_whole_number_beyond_the_fractions_is_a_label_too(tmp_path: Path) -> None:
    write(tmp_path, [{**row, "seed": 2**62 + i} for i, row in enumerate(rows(range(4)))])
    assert zoo.open(tmp_path).labels("seed").tolist() == [2.0**62] * 4
    assert zoo.open(tmp_path).rows[1]["seed"] == 2**62 + 1


def test_a_zoo_of_the_first_format_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text(json.dumps({"version": 1, "name": "old"}))
    with pytest.raises(zoo.ZooError, match=r"version 1; this library reads 2. Build or import it"):
        zoo.open(tmp_path)


def test_a_zoo_can_be_sent_to_another_process(tmp_path: Path) -> None:
    population = lines(tmp_path)
    population.state(0)
    sent = pickle.dumps(population)
    assert len(sent) < 1000
    assert torch.equal(
        pickle.loads(sent).stacked([3, 9])["weight"], population.stacked([3, 9])["weight"]
    )


def test_opening_reads_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(tmp_path)
    monkeypatch.setattr("gmn.zoo.store.reader.open_shard", None)
    monkeypatch.setattr("gmn.zoo.store.reader.file_sha256", None)
    assert zoo.open(tmp_path).labels("loss").sum() == sum(range(12)) / 8


def test_a_shard_is_compared_with_its_checksum_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines(tmp_path)
    seen: list[str] = []

    def counted(path: Path) -> str:
        seen.append(path.name)
        return store.file_sha256(path)

    monkeypatch.setattr("gmn.zoo.store.reader.file_sha256", counted)
    population = zoo.open(tmp_path)
    for _ in range(3):
        population.stacked([0, 5])
    assert seen == ["shard-00000.safetensors", "shard-00001.safetensors"]


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    population = lines(tmp_path)
    with ZooWriter(tmp_path, "lines", 12, 0, {}):
        with pytest.raises(zoo.ZooError, match="is being written by another process"):
            ZooWriter(tmp_path, "lines", 12, 0, {})
        with pytest.raises(zoo.ZooError, match=str(tmp_path)):
            zoo.append(tmp_path, [tmp_path], progress=False)
        assert len(zoo.open(tmp_path)) == len(population)
    with ZooWriter(tmp_path, "lines", 12, 0, {}):  # the right is free again
        pass


WRITER = """
import sys, time
from pathlib import Path
from gmn.zoo.store.writer import ZooWriter
with ZooWriter(Path(sys.argv[1]), "lines", 12, 0, {}):
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow  # test_zoo_kills kills one that writes
def test_a_writer_that_is_killed_gives_its_right_up(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    with pytest.raises(zoo.ZooError, match="by another process"):
        ZooWriter(tmp_path, "lines", 12, 0, {})
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(lines(tmp_path)) == 12


def test_a_full_disk_leaves_no_half_file_and_the_zoo_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(lines(tmp_path / "whole").folder)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    with ZooWriter(out, "lines", 12, 0, {}) as writer:
        writer.write_shard(0, "linear-2", spec(), states(range(4)), rows(range(4)))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(zoo.ZooError, match=r"No space left on device. Make room and run"):
                writer.write_shard(1, "linear-2", spec(), states(range(4)), rows(range(4)))
        assert sorted(contents(out)) == ["shard-00000.safetensors", "zoo.json"]
    (out / "shard-00000.safetensors").unlink()
    lines(out)
    assert contents(out) == whole


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system writes no larger ones."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_the_system_cuts_off_is_not_left_behind(tmp_path: Path) -> None:
    small, large = (
        {"weight": torch.zeros(size, 3, 2), "bias": torch.zeros(size, 3)} for size in (4, 4000)
    )
    with files_up_to(20_000):
        write_shard(tmp_path, 0, "linear", spec(), small, rows(range(4)))
        with pytest.raises(
            zoo.ZooError,
            match=r"shard-00001\.safetensors cannot be written: File too large\. Make room",
        ):
            write_shard(tmp_path, 1, "linear", spec(), large, rows(range(4000)))
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.safetensors"]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    lines(tmp_path)
    part = tmp_path / ".shard-00001.safetensors.77.gmn-part"
    part.write_bytes(b"half")
    lines(tmp_path)
    assert not part.exists()


def test_a_journal_that_was_torn_is_read(tmp_path: Path) -> None:
    folder = lines(tmp_path).folder
    with (folder / provenance.JOURNAL).open("a") as file:
        file.write('\n{"event": "shard", "sec')
    with zoo_folder(folder) as output:
        for seconds in (2.0, 3.0):
            provenance.note(output, "shard", {"shard": 0, "seconds": seconds})
    assert [event["event"] for event in provenance.read_journal(folder)] == ["finish"] + [
        "shard"
    ] * 2
    assert provenance.duration(folder)["processor_seconds"] == 3.0
    assert len(zoo.open(folder)) == 12
    (folder / provenance.JOURNAL).unlink()
    assert provenance.duration(folder) == {}
    assert len(zoo.open(folder)) == 12


def test_a_reader_that_an_append_overtakes_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines(tmp_path / "zoo")
    lines(tmp_path / "more", first=100)

    def slow(path: Path, sha256: str) -> object:
        if path.name == "index.parquet":
            zoo.append(tmp_path / "zoo", [tmp_path / "more"], progress=False)
        return read_index(path, sha256)

    appended = threading.Event()

    def once(path: Path, sha256: str) -> object:
        if appended.is_set():
            return read_index(path, sha256)
        appended.set()
        return slow(path, sha256)

    monkeypatch.setattr("gmn.zoo.store.opening.read_index", once)
    assert len(zoo.open(tmp_path / "zoo")) == 24


@pytest.mark.slow
def test_a_hundred_thousand_networks_are_opened(tmp_path: Path) -> None:
    lines(tmp_path, shards=100, per_shard=1000)
    population = zoo.open(tmp_path)
    assert population.labels("loss").shape == (100_000,)
