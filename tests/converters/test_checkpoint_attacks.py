"""Files made to harm: nothing in them runs, and they take neither the time nor the memory."""

from __future__ import annotations

import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converters import CheckpointError, load_checkpoint
from converters.states.checkpoint import meter
from tests.converters import formats
from tests.converters.formats import FORMATS, network


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Stateful:
    """A class of the file's own, whose ``__setstate__`` runs on loading."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["path"]).touch()


def payloads(sentinel: Path) -> dict[str, Any]:
    """Objects whose loading with ``pickle`` would make the sentinel."""
    command = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w').close()"
    inner = pickle.dumps(Calls(os.system, command))
    return {
        "os.system": Calls(os.system, command),
        "nested": {"a": [({"b": Calls(os.system, command)},)]},
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(sentinel), "w"),
        "subprocess": Calls(subprocess.getoutput, command),
        "pickle in pickle": Calls(pickle.loads, inner),
        "torch.load": Calls(torch.load, io.BytesIO(inner)),
        "as state": Calls(dict, state={"x": Calls(os.system, command)}),
        "as argument": Calls(list, (Calls(os.system, command),)),
    }


NAMES = list(payloads(Path("x")))
SAVE = {
    "torch zip": formats.save_zip,
    "torch stream": formats.save_stream,
    "pickle": lambda value, path: path.write_bytes(pickle.dumps(value)),
    "pickle 2": lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)),
}


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("save", SAVE)
@pytest.mark.parametrize("name", NAMES)
def test_code_in_a_pickle_does_not_run(name: str, save: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    SAVE[save]({"weights": torch.randn(3), "x": payloads(sentinel)[name]}, tmp_path / "a")
    message = refused(tmp_path / "a")
    assert "to be run on loading, as an attack would; nothing was run" in message
    assert not sentinel.exists()


def test_the_payloads_are_live(tmp_path: Path) -> None:
    """Python's own unpickler runs them: the tests above would notice."""
    torch.save(payloads(tmp_path / "ran")["os.system"], tmp_path / "a")
    torch.load(tmp_path / "a", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_code_in_numpy_archives_does_not_run(tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    evil = np.array([payloads(sentinel)["os.system"]], dtype=object)
    with (tmp_path / "a").open("wb") as file:
        np.savez(file, w=np.ones(3), evil=evil)
    assert "pickled Python objects, which are never unpickled" in refused(tmp_path / "a")
    assert not sentinel.exists()


@pytest.mark.parametrize("member", ["pickle", "storages", "tensors"])
def test_code_in_tar_archives_does_not_run(member: str, tmp_path: Path) -> None:
    import tarfile

    sentinel = tmp_path / "ran"
    formats.save_tar(network().state_dict(), tmp_path / "good")
    evil = pickle.dumps(payloads(sentinel)["os.system"], protocol=2)
    with tarfile.open(tmp_path / "good") as old, tarfile.open(tmp_path / "a", "w:") as new:
        for info in old.getmembers():
            stream = old.extractfile(info)
            assert stream is not None
            content = evil if info.name == member else stream.read()
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    assert "posix.system" in refused(tmp_path / "a")
    assert not sentinel.exists()


def test_links_in_tar_archives_lead_nowhere(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a", "w:") as tar:
        for name in ("pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    refused(tmp_path / "a")


@pytest.mark.parametrize("save", SAVE)
def test_classes_of_the_file_are_stand_ins(save: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    value = np.ones(3, np.float32) if save.startswith("pickle") else torch.ones(3)
    SAVE[save]({"w": value, "x": Stateful(str(sentinel))}, tmp_path / "a")
    assert torch.equal(load_checkpoint(tmp_path / "a")["w"], torch.ones(3))
    assert not sentinel.exists()


def raw(*instructions: bytes) -> bytes:
    return b"\x80\x02" + b"".join(instructions) + b"."


@pytest.mark.parametrize(
    "content",
    [
        raw(b"cos\nsystem\n", b"X\x06\x00\x00\x00touch ", b"\x85R"),
        raw(b"ctorch.serialization\nos.system\n", b"X\x01\x00\x00\x00a", b"\x85R"),
        raw(b"(X\x06\x00\x00\x00touch ios\nsystem\n"),
        raw(b"(cposix\nsystem\nX\x06\x00\x00\x00touch o"),
        raw(b"c__builtin__\neval\n", b"X\x01\x00\x00\x00a", b"\x85R"),
        raw(b"\x8c\x02os\x8c\x06system\x93", b"X\x01\x00\x00\x00a", b"\x85R"),
        raw(b"cos\nsystem\n0N"),
    ],
)
def test_every_instruction_that_names_a_function(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert "as an attack would" in refused(tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [
        raw(b"\x82\x01"),  # the extension registry
        raw(b"}(X\x01\x00\x00\x00a\x97u"),  # buffers out of band
        raw(b"}X\x01\x00\x00\x00ab"),  # the state of a dict: could name __setstate__
        raw(b"cx\ny\nN\x81"),  # a class made with no tuple
        raw(b"K\x01)R"),  # a call of a number
        raw(b"K\x01a"),
        raw(b"(((("),
        raw(b"tR"),
        raw(b"0"),
        raw(b"u"),
        raw(b"h\x05"),
        raw(b"X\x01\x00\x00\x00xQ"),  # a reference to nothing
        raw(b"p99999999999999999999\n"),
        raw(b"Nr\xff\xff\xff\xff"),  # Python's own reader makes a memo of 2^32 places
        raw(b"\x8b\xff\xff\xff\x7f"),  # an integer of 2 GiB
        raw(b"\x96\xff\xff\xff\xff\xff\x00\x00\x00"),  # a bytearray of 1 TiB
        raw(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff"),  # bytes of a negative length
        raw(b"I" + b"9" * 100_000 + b"\n"),
        raw(b"V" + b"x" * 100_000),
        raw(b"c" + b"x\n"),
    ],
)
def test_pickles_that_make_no_sense(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with limits(seconds=2, kilobytes=100_000):
        refused(tmp_path / "a")


class limits:
    """Fails where the code within takes more time or memory."""

    def __init__(self, seconds: float, kilobytes: int) -> None:
        self.seconds, self.kilobytes = seconds, kilobytes

    def __enter__(self) -> None:
        self.start = time.process_time()
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __exit__(self, *_: object) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert time.process_time() - self.start < self.seconds
        assert peak - self.before < self.kilobytes


def doubling(levels: int, first: bytes, pair: bytes) -> bytes:
    """A value of 2^levels parts that refers to the same half twice at every level."""
    steps = [first + b"q\x00"]
    for level in range(levels):
        steps.append(pair.replace(b"?", b"h" + bytes([level])) + b"q" + bytes([level + 1]))
    return raw(*steps)


@pytest.mark.parametrize("key", [None, pytest.param("", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "content",
    [
        doubling(200, b"N", b"??\x86"),  # tuples: as a key, hashing alone would take for ever
        doubling(200, b"]", b"](??e"),
        doubling(200, b"}", b"}(X\x01\x00\x00\x00a?X\x01\x00\x00\x00b?u"),
        raw(b"}q\x00", b"X\x01\x00\x00\x00ah\x00s"),  # a dict within itself
        raw(b"]q\x00", b"h\x00a"),
        raw(b"]" * 200_000, b"a" * 199_999),  # nested as deep
        raw(b"N" + b"\x85" * 200_000),
        raw(b"}(", b"".join(b"\x8a\x0c" + (k * ((1 << 61) - 1)).to_bytes(12, "little") + b"N"
                            for k in range(1, 20_000)), b"u"),  # equal hashes
    ],
)  # fmt: skip
def test_bombs_of_references(content: bytes, key: str | None, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with limits(seconds=20, kilobytes=400_000), pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "a", key=key)


@pytest.mark.slow
def test_modules_that_hold_one_another(tmp_path: Path) -> None:
    """2^40 submodules of forty: a whole module's names are limited, too."""
    module: nn.Module = nn.Linear(2, 2)
    for _ in range(40):
        outer = nn.Module()
        outer.a, outer.b = module, module
        module = outer
    with (tmp_path / "a").open("wb") as file:
        torch.save(module, file)
    with limits(seconds=60, kilobytes=1_000_000):
        assert "stand for more than" in refused(tmp_path / "a")


def test_too_many_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_MOST_OBJECTS", 40_000)
    (tmp_path / "a").write_bytes(b"\x80\x02" + b"N0" * 21_000 + b".")
    assert "stand for more than 40,000 objects" in refused(tmp_path / "a")


# --- tensors that are not what they claim -------------------------------------------------------


def edited(path: Path, change: Callable[[bytes], bytes], entry: str = "data.pkl") -> None:
    """Rewrites an entry of a file that ``torch.save`` wrote."""
    source = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(entry) else content)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert content.count(old) >= 1
        return content.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replaced(b"K\x05K\x07\x86", b"J\xff\xff\xff\x7fK\x07\x86"), "needs"),  # shape
        (replaced(b"K\x05K\x07\x86", b"J\xff\xff\xff\xffK\x07\x86"), "not a number"),  # negative
        (replaced(b"K\x05K\x07\x86", b"G" + b"\0" * 8 + b"K\x07\x86"), "not a number"),
        (replaced(b"K\x05K\x07\x86", b"NK\x07\x86"), "not a number"),
        (replaced(b"K\x05K\x07\x86", b"\x8a\x09" + b"\xff" * 8 + b"\x00K\x07\x86"), "not a number"),
        (replaced(b"K\x07K\x01\x86", b"K\x09K\x01\x86"), "needs"),  # strides
        (replaced(b"K\x07K\x01\x86", b"K\x01\x85"), "one stride for every dimension"),
        (replaced(b"K#tq", b"J\xff\xff\xff\x00tq"), "truncated: storage"),  # storage size
        (replaced(b"FloatStorage", b"DonutStorage"), "unknown kind 'DonutStorage'"),
        (replaced(b"FloatStorage", b"DoubleStorage"), "truncated: storage"),
        (replaced(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009"), "has no entry"),
        (replaced(b"X\x07\x00\x00\x00storage", b"X\x07\x00\x00\x00storbge"), "not described"),
    ],
)
def test_tensors_beyond_their_storage(
    change: Callable[[bytes], bytes], reason: str, tmp_path: Path
) -> None:
    torch.save({"w": torch.randn(5, 7)}, tmp_path / "a")
    assert len(load_checkpoint(tmp_path / "a")) == 1
    edited(tmp_path / "a", change)
    assert reason in refused(tmp_path / "a")


def test_stretched_tensors_that_claim_terabytes(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "a")
    assert "claim 4,398,046,511,104 bytes" in refused(tmp_path / "a")


def test_storages_that_are_too_short(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(5, 7)}, tmp_path / "a")
    edited(tmp_path / "a", lambda content: content[:-4], entry="data/0")
    assert "storage '0' has 136 bytes, its tensors need 140" in refused(tmp_path / "a")


@pytest.mark.parametrize("suffix", ["archive/data/0", "w.npy", "archive/data.pkl"])
def test_zip_bombs(suffix: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open(suffix, "w", force_zip64=True) as entry:
            for _ in range(120):
                entry.write(bytes(1 << 20))
        if suffix.endswith("0"):
            file.writestr("archive/data.pkl", pickle.dumps({}))
    with limits(seconds=2, kilobytes=50_000):
        assert "claim to unpack to 1" in refused(tmp_path / "a")


def test_zip_bombs_that_lie_about_their_size(tmp_path: Path) -> None:
    """The directory says 1,000 bytes, the stream goes on: only so many are unpacked."""
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(100 << 20))
    content = (tmp_path / "a").read_bytes()
    lie = content.replace(struct.pack("<I", 100 << 20), struct.pack("<I", 1000))
    assert lie != content
    (tmp_path / "a").write_bytes(lie)
    with limits(seconds=2, kilobytes=50_000):
        assert "truncated or damaged" in refused(tmp_path / "a")


def test_encrypted_archives(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(3)}, tmp_path / "a")
    content = bytearray((tmp_path / "a").read_bytes())
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = content.find(magic)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(magic, at + 4)
    (tmp_path / "a").write_bytes(content)
    assert "truncated or damaged (RuntimeError: File" in refused(tmp_path / "a")


@pytest.mark.parametrize("shape", [(1 << 40,), (-1,), (1 << 31, 1 << 31), (3, 4)])
def test_arrays_of_absurd_shapes(shape: tuple[int, ...], tmp_path: Path) -> None:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr("w.npy", stream.getvalue() + bytes(12))
    with limits(seconds=2, kilobytes=50_000):
        assert "damaged: an array" in refused(tmp_path / "a")


def test_byte_order_of_other_machines(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(3)}, tmp_path / "a")
    edited(tmp_path / "a", lambda _: b"big", entry="byteorder")
    assert "most significant byte first" in refused(tmp_path / "a")


@pytest.mark.filterwarnings("ignore")
def test_pickled_graph_modules(tmp_path: Path) -> None:
    """Their code is text that runs on loading."""
    module = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2)))
    for save in (formats.save_zip, formats.save_stream):
        save(module, tmp_path / "a")
        assert "a torch.fx GraphModule, which carries its code" in refused(tmp_path / "a")


# --- damage -------------------------------------------------------------------------------------

FUZZED = [name for name in FORMATS if name != "hdf5"]  # HDF5's own library is not hardened


@pytest.mark.parametrize("name", FUZZED)
def test_truncated_files(name: str, tmp_path: Path) -> None:
    FORMATS[name](network().state_dict(), tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    # A tar archive ends in zeros; all else is used up to the last byte.
    last = len(content.rstrip(b"\0")) if name == "torch tar" else len(content)
    for size in sorted({*range(0, min(last, 100)), *range(0, last, max(1, last // 100))}):
        (tmp_path / "a").write_bytes(content[:size])
        if name == "several files" and content[:size].rstrip() == content.rstrip():
            continue
        refused(tmp_path / "a")


def mutations(content: bytes, source: random.Random) -> Iterator[bytes]:
    """Endless damaged copies: bits, bytes, pieces removed, doubled, exchanged, cut short."""
    interesting = [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f", b"\x80", b".", b"(", b"R", b"b"]
    while True:
        data = bytearray(content)
        for _ in range(source.choice([1, 1, 1, 2, 4, 16])):
            at, kind = source.randrange(len(data)), source.randrange(7)
            end = min(len(data), at + source.choice([1, 2, 4, 8, 64, 1024]))
            if kind == 0:
                data[at] ^= 1 << source.randrange(8)
            elif kind == 1:
                data[at] = source.randrange(256)
            elif kind == 2:
                data[at:end] = b""
            elif kind == 3:
                data[at:at] = data[at:end]
            elif kind == 4:
                piece = source.choice(interesting)
                data[at : at + len(piece)] = piece
            elif kind == 5:
                other = source.randrange(len(data))
                data[at:end] = data[other : other + end - at]
            else:
                data[at:at] = source.choice(interesting)
            data = data or bytearray(b"\0")
        if source.random() < 0.1:
            data = data[: source.randrange(len(data)) + 1]
        yield bytes(data)


def mend(data: bytes) -> bytes:
    """Corrects the checksum of a zip's data.pkl, so that damage reaches the pickle reader."""
    result = bytearray(data)
    at = result.find(b"data.pkl")
    central = result.rfind(b"PK\x01\x02", 0, max(result.rfind(b"data.pkl"), 0))
    if at < 30 or central < 0:
        return data
    header = result.rfind(b"PK\x03\x04", 0, at)
    if header < 0 or header + 30 > len(result):
        return data
    name, extra = struct.unpack_from("<HH", result, header + 26)
    size = struct.unpack_from("<I", result, central + 24)[0]
    start = header + 30 + name + extra
    checksum = struct.pack("<I", zlib.crc32(bytes(result[start : start + size])))
    result[central + 16 : central + 20] = checksum
    return bytes(result)


def fuzz(name: str, folder: Path, seed: int, rounds: int) -> tuple[int, float]:
    """Reads damaged files; returns how many still gave tensors, and the longest time of one."""
    FORMATS[name](network().state_dict(), folder / "a")
    source = random.Random(seed)
    read, longest = 0, 0.0
    endless = mutations((folder / "a").read_bytes(), source)
    for _ in range(rounds):
        data = next(endless)
        (folder / "a").write_bytes(mend(data) if source.random() < 0.7 else data)
        start = time.process_time()
        try:
            state = load_checkpoint(folder / "a", key="" if source.random() < 0.3 else None)
        except CheckpointError as error:
            assert str(error).startswith(f"{folder / 'a'}: ")  # noqa: PT017
        else:
            read += 1
            for key, value in state.items():
                assert isinstance(key, str)
                assert isinstance(value, torch.Tensor)
                value.contiguous().view(-1).clone()  # every element can be read
        longest = max(longest, time.process_time() - start)
    return read, longest


@pytest.mark.parametrize("name", FUZZED)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    read, longest = fuzz(name, tmp_path, seed=0, rounds=150)
    assert longest < 2
    assert read < 150


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FUZZED)
def test_many_damaged_files_in_little_memory(name: str, seed: int, tmp_path: Path) -> None:
    """In a process of its own: a crash is seen, and memory beyond 1 GiB more is an error."""
    code = (
        "import resource, sys, pathlib, torch\n"
        "from tests.converters.test_checkpoint_attacks import fuzz\n"
        "torch.set_num_threads(1)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (600, 600))\n"
        f"print(*fuzz({name!r}, pathlib.Path({str(tmp_path)!r}), {seed + 1}, 5000))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[1]) < 5
