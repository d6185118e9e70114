"""Commands that write: foreign files stay as they are, whatever happens."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import converters
import gmn
from gmn import zoo
from gmn.foundation import files
from gmn.foundation.files import LOCK, MARKER, OutputError, OutputFolder
from tests.gmn.commands import run
from tests.gmn.population import small_zoo
from tests.traced import slow_but

pytestmark = pytest.mark.usefixtures("quick_costs")

TRAIN = ("-m", "flat-mlp", "--epochs", "1", "--batch-size", "64")
COMPARE = ("-m", "layer-statistics", "--seeds", "1", "--epochs", "1", "--workers", "1")
# What is written where: by the folder of inputs and the output folder.
COMMANDS: dict[str, Callable[[Path, Path], tuple[str, ...]]] = {
    "train": lambda at, out: ("train", f"{at}/zoo", *TRAIN, "--out", f"{out}"),
    "compare": lambda at, out: ("compare", f"{at}/zoo", *COMPARE, "--out", f"{out}"),
    "convert": lambda at, out: ("convert", f"{at}/mlp.safetensors", "--out", f"{out}"),
    "filter": lambda at, out: ("zoo", "filter", f"{at}/zoo", "--split", "val", "--out", f"{out}"),
    "merge": lambda at, out: (
        *("zoo", "merge", f"{at}/zoo", f"{at}/zoo", "--prefix", "a", "--prefix", "b"),
        *("--out", f"{out}"),
    ),
    "rescue": lambda at, out: ("zoo", "verify", f"{at}/zoo", "--rescue", f"{out}"),
    "export": lambda at, out: ("zoo", "export", f"{at}/zoo", "--split", "val", "--out", f"{out}"),
    "import": lambda at, out: (
        *("zoo", "import", "folder", f"{at}/files", "--labels", f"{at}/files/index.csv"),
        *("--model", "cnn-relu", "--workers", "1", "--out", f"{out}"),
    ),
}
BRIEF = ("convert", "filter")  # the other commands write through the same doors
by_command = pytest.mark.parametrize("command", slow_but(COMMANDS, BRIEF))
by_command_and_training = pytest.mark.parametrize("command", slow_but(COMMANDS, (*BRIEF, "train")))
# Names that some command writes, and names that look like ours.
FOREIGN = (
    *("model.safetensors", "model.json", "log.csv", "run.pt", "runs.jsonl", "comparison.png"),
    *("weights.safetensors", "spec.json", "zoo.json", "index.parquet", "index.csv"),
    *("shard-00000.safetensors", "shard-backup.safetensors", "0-3.safetensors", "build.jsonl"),
    *(".model.json.7.part", ".lock", "notes.txt"),
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("inputs")
    population = small_zoo(at / "zoo")
    relu = population.indices(architecture="cnn-relu")
    zoo.export(population, at / "files", relu, progress=False)
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    save_file(dict(state.state_dict()), at / "mlp.safetensors")
    return at


def hashes(folder: Path) -> dict[str, str]:
    """Everything below a folder, locks aside: they are left by whoever asked."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def decoys(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True)
    for name in FOREIGN:
        (folder / name).write_text(f"the user's {name}")
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events").write_text("the user's")
    return hashes(folder)


@by_command
def test_a_folder_of_the_user_is_refused_and_stays(
    command: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, read = decoys(tmp_path / "out"), hashes(inputs)
    for extra in ((), ("--overwrite",)):
        assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path / "out"), *extra) == 1
        assert hashes(tmp_path / "out") == before
        assert not (tmp_path / "out" / LOCK).exists()
        printed = " ".join(capsys.readouterr().err.split())
        assert "choose another folder" in printed or "zoo.json is damaged" in printed
    assert hashes(inputs) == read


@by_command
def test_one_file_of_the_user_is_enough(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path)) == 1
    assert hashes(tmp_path).keys() == {"notes.txt"}


@by_command
def test_a_file_is_no_folder(
    command: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "out").write_text("mine")
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path / "out")) == 1
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path / "out" / "below")) == 1
    assert hashes(tmp_path).keys() == {"out"}
    printed = capsys.readouterr().err
    assert "is a file" in printed
    assert "out/below" in printed


@by_command
def test_inputs_are_never_outputs(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(inputs, tmp_path / "at")
    before = hashes(tmp_path)
    for out in (tmp_path / "at" / "zoo", tmp_path / "at", tmp_path / "at" / "files"):
        for extra in ((), ("--overwrite",)):
            read = {"convert": "at", "import": "files"}.get(command, "zoo")
            if extra and out.name not in ("at", read):
                continue  # ours, and not read: theirs to overwrite
            assert run(monkeypatch, *COMMANDS[command](tmp_path / "at", out), *extra) == 1
            assert hashes(tmp_path) == before


@by_command_and_training
def test_two_at_once(
    command: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with OutputFolder(out, _kind(command, inputs, tmp_path / "first", monkeypatch)):
        before = hashes(out)
        assert run(monkeypatch, *COMMANDS[command](inputs, out)) == 1
        assert hashes(out) == before
    assert "by another process" in capsys.readouterr().err
    assert run(monkeypatch, *COMMANDS[command](inputs, out)) == 0


def _kind(command: str, inputs: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    assert run(monkeypatch, *COMMANDS[command](inputs, out)) == 0
    found = files.read_marker(out)
    assert found is not None
    written = {path.name for path in out.iterdir()} - {MARKER, LOCK}
    assert written <= found[1]
    return found[0]


@by_command_and_training
def test_foreign_files_beside_ours_stay(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the command runs again, and when its own files are overwritten."""
    out = tmp_path / "out"
    arguments = COMMANDS[command](inputs, out)
    assert run(monkeypatch, *arguments) == 0
    first = hashes(out)
    for name in ("notes.txt", "shard-backup.safetensors", ".mine.part"):
        (out / name).write_text(f"the user's {name}")
    whole = hashes(out)
    assert run(monkeypatch, *arguments) == 0
    assert {name: whole[name] for name in whole if name not in first}.items() <= hashes(out).items()
    assert run(monkeypatch, *arguments, "--overwrite") == 0
    assert {name: whole[name] for name in whole if name not in first}.items() <= hashes(out).items()
    assert first.keys() <= hashes(out).keys()


@by_command
def test_another_kind_of_folder_is_refused(
    command: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = "compare" if command != "compare" else "convert"
    assert run(monkeypatch, *COMMANDS[other](inputs, tmp_path)) == 0
    before = hashes(tmp_path)
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path)) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert hashes(tmp_path) == before
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path), "--overwrite") == 0
    assert "deleted" in capsys.readouterr().err
    assert not before.keys() & hashes(tmp_path).keys() - {MARKER}


@pytest.mark.parametrize(
    ("command", "file"),
    slow_but(list(product(COMMANDS, (1, 3))), [("convert", 1), ("filter", 3), ("train", 3)]),
)
def test_no_space_left(
    command: str,
    file: int,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The disk is full when the n-th file is written; then there is room again."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        _full_after(patch, file)
        assert run(monkeypatch, *COMMANDS[command](inputs, out)) in (1, 2)
    printed = capsys.readouterr().err
    assert "No space left on device" in printed
    assert str(out) in printed
    assert not [path for path in out.rglob("*") if path.name.endswith("part")]
    assert run(monkeypatch, *COMMANDS[command](inputs, out)) == 0
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path / "whole")) == 0
    assert hashes(out).keys() == hashes(tmp_path / "whole").keys()


def _full_after(patch: pytest.MonkeyPatch, count: int) -> None:
    replace, left = os.replace, [count]

    def full(source: str, target: str) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    patch.setattr(os, "replace", full)


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
from gmn import cli
cli.main()
"""
# Further commands that write, and what they write as single files.
ALSO: dict[str, Callable[[Path, Path], tuple[str, ...]]] = {
    "build": lambda at, out: (
        *("zoo", "build", "cnn-digits", "--size", "2", "--workers", "1", "--out", f"{out}"),
    ),
    "draw": lambda at, out: ("draw", "mlp", "--out", f"{out / 'picture.png'}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, *ALSO])
def test_the_system_itself_allows_no_more_bytes(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a quota on the size of files, of which the libraries that write them know nothing."""
    out = tmp_path / "out"
    arguments = {**COMMANDS, **ALSO}[command](inputs, out)
    out.mkdir()
    (tmp_path / "mine").write_text("the user's")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True
    )
    printed = "".join(done.stderr.split())
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Filetoolarge" in printed
    assert str(out) in printed
    assert not [path for path in out.rglob("*") if path.name.endswith("part")]
    assert (tmp_path / "mine").read_text() == "the user's"
    assert run(monkeypatch, *arguments) == 0
    assert run(monkeypatch, *{**COMMANDS, **ALSO}[command](inputs, tmp_path / "whole")) == 0
    # Names alone: safetensors writes the two facts of a graph in any order.
    assert _settled(out).keys() == _settled(tmp_path / "whole").keys()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MiB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place))
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems may not be mounted here")
    yield place
    subprocess.run(("umount", str(place)), check=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, *ALSO])
def test_a_disk_that_is_full(
    command: str,
    inputs: Path,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With more room each time, until it is enough."""
    out = disk / "out"
    arguments = {**COMMANDS, **ALSO}[command](inputs, out)
    out.mkdir()
    (disk / "mine").write_text("the user's")
    (disk / "filler").write_bytes(bytes(_room(disk)))
    for pages in (0, 1, 1, 2, 4, 8, 16, 32, 2**14):
        os.truncate(disk / "filler", max((disk / "filler").stat().st_size - pages * 4096, 0))
        code = run(monkeypatch, *arguments)
        printed = "".join(capsys.readouterr().err.split())
        assert (disk / "mine").read_text() == "the user's"
        assert not [path for path in disk.rglob("*") if path.name.endswith("part")]
        if code == 0:
            break
        assert code == 1
        assert "Nospaceleftondevice" in printed
        assert str(out) in printed
        assert "Traceback" not in printed
    assert code == 0
    assert pages
    assert run(monkeypatch, *{**COMMANDS, **ALSO}[command](inputs, tmp_path / "whole")) == 0
    assert _settled(out).keys() == _settled(tmp_path / "whole").keys()


def _room(disk: Path) -> int:
    free = os.statvfs(disk)
    return free.f_bavail * free.f_frsize


@by_command
def test_a_folder_that_may_not_be_written(
    command: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # All is imported before: another user may not be able to read this Python's own files.
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path / "out")) == 0
    shutil.rmtree(tmp_path / "out")
    for out in (tmp_path / "out", tmp_path / "parent" / "out"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "parent").mkdir(exist_ok=True)
        for folder in (tmp_path / "out", tmp_path / "parent"):
            folder.chmod(0o555)
        with _without_privileges(inputs, tmp_path):
            assert run(monkeypatch, *COMMANDS[command](inputs, out)) in (1, 2)
        printed = "".join(capsys.readouterr().err.split())
        assert f"{out}cannotbewritten:Permissiondenied" in printed
        assert not hashes(tmp_path)


@contextmanager
def _without_privileges(*folders: Path) -> Iterator[None]:
    """As another user, if this one may write everywhere; that one may read the folders."""
    if os.geteuid() != 0:
        yield
        return
    for folder in folders:
        for path in (*folder.rglob("*"), folder, *folder.parents[:-2]):
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


KILLED = """
import os, sys
count, replace = int(sys.argv.pop(1)), os.replace
def replaced(source, target):
    global count
    count -= 1
    if not count:
        os.kill(os.getpid(), 9)
    replace(source, target)
os.replace = replaced
from gmn import cli
cli.main()
"""


@pytest.mark.slow
@by_command
def test_killed_at_any_write_it_ends_with_the_same_bytes(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, *COMMANDS[command](inputs, tmp_path / "whole")) == 0
    out = tmp_path / "out"
    for count in (1, 2, 3, 4, 6):
        arguments = [str(count), *COMMANDS[command](inputs, out)]
        process = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True)
        assert process.returncode in (0, -9)
    assert run(monkeypatch, *COMMANDS[command](inputs, out)) == 0
    assert _settled(out) == _settled(tmp_path / "whole")


def _settled(folder: Path) -> dict[str, str]:
    """Without what depends on the moment: times and costs."""
    moment = ("build.jsonl", "comparison.", "runs.jsonl", "tensorboard", "run.pt")
    return {k: v for k, v in hashes(folder).items() if not k.startswith(moment)}


# --- the door itself ----------------------------------------------------------------------------


def test_a_folder_in_which_a_run_was_killed_as_it_began_is_taken(tmp_path: Path) -> None:
    part = tmp_path / f".{MARKER}.123.gmn-part"
    part.write_bytes(b"torn")
    with OutputFolder(tmp_path, "test") as output:
        output.write("a", b"ours")
    assert not part.exists()
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / ".a.123.gmn-part").write_text("whose?")
    with pytest.raises(OutputError, match="holds files that are not a test"):
        OutputFolder(tmp_path / "another", "test")


def test_only_plain_names(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out", "test") as output:
        for name in ("../victim", "/etc/victim", "a/b", "a\\b", "", ".", "..", "a\0b", MARKER):
            with pytest.raises(OutputError, match="no plain file name"):
                output.write(name, b"mine")
    assert not hashes(tmp_path)


def test_a_file_that_came_since_is_not_replaced(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "test") as output:
        (tmp_path / "a").write_text("the user's")
        with pytest.raises(OutputError, match="was not written by this library"):
            output.write("a", b"ours")
        output.write("b", b"ours")
        output.remove("a")
    with OutputFolder(tmp_path, "test") as output:
        output.write("b", b"ours again")
        assert output.clear() == ["b"]
    assert (tmp_path / "a").read_text() == "the user's"


@pytest.mark.parametrize("name", [LOCK, MARKER, "log"])
def test_links_do_not_lead_out(tmp_path: Path, name: str) -> None:
    """As a folder that was downloaded may hold."""
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    with OutputFolder(out, "test") as output:
        output.append("log", "one")
    (out / name).unlink()
    (out / name).symlink_to(victim)
    with pytest.raises(OutputError), OutputFolder(out, "test") as output:
        output.append("log", "two")
    assert victim.read_text() == "precious"


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f".a.{os.getpid()}.gmn-part").symlink_to(tmp_path / "victim")
    files.write_atomically(tmp_path / "a", b"ours")
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / "a").read_bytes() == b"ours"


def test_a_torn_marker_line_is_no_name(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "test") as output:
        output.write("a", b"ours")
    with (tmp_path / MARKER).open("a") as file:
        file.write('\n"no')  # killed here: notes.txt was not written yet
    with OutputFolder(tmp_path, "test") as output:
        assert output.files == {"a"}
        output.write("b", b"ours")
    with OutputFolder(tmp_path, "test") as output:
        assert output.files == {"a", "b"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"owner": "me", "kind": "test"}', "\0\xff"])
def test_a_marker_of_another_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text)
    (tmp_path / "a").write_text("the user's")
    with pytest.raises(OutputError, match="choose another folder"):
        OutputFolder(tmp_path, "test")


def test_parts_of_killed_runs_go_and_those_of_others_stay(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "test"):
        (tmp_path / ".a.77.gmn-part").write_text("half")
        (tmp_path / ".a.77.part").write_text("the user's")
    OutputFolder(tmp_path, "test").close()
    assert hashes(tmp_path).keys() == {MARKER, ".a.77.part"}


# --- folders of the first version, which had no markers -------------------------------------------


@pytest.fixture(params=slow_but(COMMANDS, (*BRIEF, "train")))
def unmarked(
    request: pytest.FixtureRequest, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path]:
    """The folder that a command wrote, with nothing that 0.1.0 did not write."""
    out = tmp_path / "out"
    assert run(monkeypatch, *COMMANDS[request.param](inputs, out)) == 0
    for name in (MARKER, LOCK):
        (out / name).unlink(missing_ok=True)
    return request.param, out


def test_unmarked_folders_of_ours_are_known(
    unmarked: tuple[str, Path], inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, out = unmarked
    before = hashes(out)
    (out / "notes.txt").write_text("the user's")
    assert run(monkeypatch, *COMMANDS[command](inputs, out)) == 0
    assert before.keys() <= hashes(out).keys()
    assert (out / "notes.txt").read_text() == "the user's"


def test_an_unmarked_zoo_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_zoo(tmp_path / "a")
    small_zoo(tmp_path / "b")
    for name in (MARKER, LOCK):
        (tmp_path / "a" / name).unlink()
    backup = tmp_path / "a" / "shard-backup.safetensors"
    backup.write_text("the user's")
    assert run(monkeypatch, "zoo", "append", str(tmp_path / "a"), str(tmp_path / "b"), "--prefix", "b") == 0  # fmt: skip  # noqa: E501
    assert len(zoo.open(tmp_path / "a")) == 160
    assert backup.read_text() == "the user's"


# --- hostile manifests --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../victim.txt", "{victim}"])
def test_a_manifest_does_not_lead_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_zoo(tmp_path / "a")
    small_zoo(tmp_path / "b")
    victim = tmp_path / "victim.txt"
    # The checksum of the victim is that of the manifest.
    victim.write_bytes((tmp_path / "a" / "index.parquet").read_bytes())
    manifest = json.loads((tmp_path / "a" / "zoo.json").read_text())
    manifest["index"]["file"] = name.format(victim=victim)
    (tmp_path / "a" / "zoo.json").write_text(json.dumps(manifest))
    before = victim.read_bytes()
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert run(monkeypatch, "zoo", "verify", a, "--reindex") != 0
    run(monkeypatch, "zoo", "append", a, b, "--prefix", "b")
    assert victim.read_bytes() == before


# --- single files -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", slow_but(("png", "svg", "pdf"), ["svg"]))
def test_pictures_replace_pictures_only(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"a.{suffix}"
    for _ in range(2):
        assert run(monkeypatch, "draw", "mlp", "--out", str(out)) == 0
    out.write_text("the user's")
    assert run(monkeypatch, "draw", "mlp", "--out", str(out)) == 1
    assert out.read_text() == "the user's"


def test_saving_a_graph_keeps_what_is_not_a_graph(tmp_path: Path) -> None:
    graph = converters.to_graph(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
    gmn.save(graph, tmp_path / "graph")
    gmn.save(graph, tmp_path / "graph")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "weights.safetensors").write_text("the user's")
    with pytest.raises(OutputError, match="parameter graph"):
        gmn.save(graph, tmp_path / "mine")
    assert hashes(tmp_path / "mine").keys() == {"weights.safetensors"}
