"""Small files that ask for far more time or memory than their size; each with what refuses it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

Bomb = Callable[[Path], None]
MB = 1 << 20


def raw(*instructions: bytes) -> bytes:
    return b"\x80\x02" + b"".join(instructions) + b"."


def text(value: str | bytes) -> bytes:
    """Pushes text, and memoizes nothing."""
    value = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(value)) + value


def doubled(levels: int) -> bytes:
    """A list of 2^levels parts, which refers to the same half twice at every level."""
    steps = [b"]q\x00"]
    for level in range(levels):
        steps.append(b"](h%ch%ceq%c" % (level, level, level + 1))
    return b"".join(steps)


# --- pickles ------------------------------------------------------------------------------------


def pickled(content: bytes) -> Bomb:
    return lambda path: path.write_bytes(content) and None


def entries(count: int) -> bytes:
    """Entries for SETITEMS."""
    return b"".join(text(f"{i:06d}") + b"N" for i in range(count))


LONG = text(b"x" * MB) + b"q\x05"
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\nq\x00c_codecs\nencode\nq\x01cnumpy\ndtype\nq\x02"
    + text("f4")
    + b"K\x00K\x01\x87Rq\x03"
)
STATE = b"(K\x01K\x01\x85h\x03\x89h\x01" + b"h\x04" + text("latin1") + b"\x86Rtb"


PICKLES = {
    "a shared list in every call": raw(
        b"cx\ny\nq\x00](" + b"N" * 100_000 + b"eq\x01(", b"h\x00h\x01R" * 20_000, b"l"
    ),
    "a shared state in every object": raw(
        b"cx\ny\nq\x00}(", entries(10_000), b"uq\x01](", b"h\x00)Rh\x01b" * 20_000, b"e"
    ),
    "two shared states in every object": raw(
        *(
            b"cx\ny\nq\x00}(",
            entries(5_000),
            b"uq\x01}(X\x01\x00\x00\x00aNuq\x02h\x01h\x02\x86q\x03",
        ),
        *(b"](", b"h\x00)Rh\x03b" * 20_000, b"e"),
    ),
    "shared pairs in every ordered dict": raw(
        b"ccollections\nOrderedDict\nq\x00](",
        b"".join(text(f"{i:06d}") + b"N\x86" for i in range(10_000)),
        *(b"e\x85q\x01](", b"h\x00h\x01R" * 20_000, b"e"),
    ),
    "shared bytes in every array": raw(
        ARRAY, text(b"y" * 4 * MB) + b"q\x040](", (b"h\x00)R" + STATE) * 20_000, b"e"
    ),
    "long names of classes": raw(LONG, b"0](", b"h\x05h\x05\x93" * 20_000, b"e"),
    "long names of weights": raw(LONG, b"0](", b"}h\x05Ns" * 50_000, b"e"),
    "long names within long names": raw(
        LONG, b"0]q\x06", b"".join(b"}h\x05h\x06sq\x06" for _ in range(40)), b"0h\x06"
    ),
    "a list of itself twice, 200 times": raw(doubled(200)),
    "empty dicts": raw(b"}" * 1_500_000),
    "dicts in a list": raw(b"](", b"}" * 900_000, b"e"),
    "calls in a list": raw(b"cx\ny\nq\x00](", b"h\x00)R" * 400_000, b"e"),
    "objects in a dict": raw(
        b"cx\ny\nq\x00}(", b"".join(text(f"{i}") + b"h\x00)R" for i in range(80_000)), b"u"
    ),
    "numbers of a million digits": raw(b"I" + b"9" * 60_000 + b"\n", b"\x8b\xff\xff\x0f\x00"),
    "modules that share their parts": raw(
        *(b"cx\nY\nq\x00}(", entries(20_000), b"uq\x01}("),
        *(text("_parameters") + b"h\x01" + text("_modules") + b"}uq\x02](",),
        *(b"h\x00)Rh\x02b" * 5_000, b"e"),
    ),
}


def stream(keys: bytes) -> bytes:
    """PyTorch's older stream, with a list of storages."""
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}, {})]
    return b"".join(head) + keys


def tar(members: dict[str, bytes]) -> Bomb:
    def write(path: Path) -> None:
        with tarfile.open(path, "w:") as file:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))

    return write


def in_zip(content: bytes) -> Bomb:
    """As ``torch.save`` writes it."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", content)

    return write


# --- archives -----------------------------------------------------------------------------------


def zipped(method: int, lie: bool, name: str = "archive/data.pkl") -> Bomb:
    """100 MB of zeros in one entry; the directory says so, or that there are 1,000 bytes."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as file, file.open(name, "w") as entry:
            for _ in range(100):
                entry.write(bytes(MB))
        if lie:
            content = path.read_bytes()
            path.write_bytes(content.replace(struct.pack("<I", 100 * MB), struct.pack("<I", 1000)))

    return write


def npz(header: bytes, data: bytes = b"") -> Bomb:
    def write(path: Path) -> None:
        magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("w.npy", magic + data)

    return write


def described(shape: str) -> bytes:
    return f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()


def packed(pack: Callable[[bytes], bytes]) -> Bomb:
    """Zeros, packed twice over."""
    return lambda path: path.write_bytes(pack(pack(bytes(30 * MB)))) and None


# --- HDF5 ---------------------------------------------------------------------------------------


def h5(write: Callable[[object], object]) -> Bomb:
    def make(path: Path) -> None:
        import h5py

        with h5py.File(path, "w") as file:
            write(file)

    return make


def _chunk(file: object, content: bytes, **options: object) -> None:
    data = file.create_dataset("w", (64,), "f4", chunks=(64,), **options)  # type: ignore[attr-defined]
    data.id.write_direct_chunk((0,), content)


def _huge_chunk(file: object) -> None:
    file.create_dataset(  # type: ignore[attr-defined]
        "w", (16,), "f4", chunks=(1 << 29,), maxshape=(None,), compression="gzip"
    )


def _long(file: object) -> None:
    file.create_dataset("w", (1 << 33,), "f4", chunks=(1 << 16,), compression="gzip")  # type: ignore[attr-defined]


def _deep(file: object) -> None:
    for _ in range(3_000):
        file = file.create_group("g")  # type: ignore[attr-defined]


BOMBS: dict[str, Bomb] = {
    **{f"pickle: {name}": pickled(content) for name, content in PICKLES.items()},
    **{f"torch zip: {name}": in_zip(content) for name, content in PICKLES.items()},
    "stream: keys that double": pickled(stream(raw(b"](", doubled(200), b"e"))),
    "tar: names that double": tar(
        {
            "storages": raw(b"K\x01") + raw(doubled(200), b"K\x01K\x01\x87"),
            "tensors": raw(b"K\x00"),
            "pickle": raw(b"N"),
        }
    ),
    "tar: references that double": tar(
        {
            "storages": raw(b"K\x00") + raw(b"]"),
            "tensors": raw(b"K\x00"),
            "pickle": raw(doubled(200), b"Q"),
        }
    ),
    "zip: bzip2": zipped(zipfile.ZIP_BZIP2, lie=False),
    "zip: bzip2 that lies": zipped(zipfile.ZIP_BZIP2, lie=True),
    "zip: lzma": zipped(zipfile.ZIP_LZMA, lie=False),
    "zip: lzma that lies": zipped(zipfile.ZIP_LZMA, lie=True),
    "zip: deflate": zipped(zipfile.ZIP_DEFLATED, lie=False),
    "zip: deflate that lies": zipped(zipfile.ZIP_DEFLATED, lie=True),
    "npz: deflate": zipped(zipfile.ZIP_DEFLATED, lie=False, name="w.npy"),
    "npz: bzip2 that lies": zipped(zipfile.ZIP_BZIP2, lie=True, name="w.npy"),
    "npz: an empty array of 2^70 rows": npz(described(f"(0, {1 << 70})")),
    "npz: an array of 2^40": npz(described(f"({1 << 40},)"), bytes(64)),
    "npz: a shape of brackets": npz(described("(" * 20_000)),
    "gzip in gzip": packed(gzip.compress),
    "bzip2 in bzip2": packed(bz2.compress),
    "xz in xz": packed(lzma.compress),
    "JSON: deep": pickled(b'{"weight_map": ' + b"[" * 2_000_000),
    "JSON: deep in objects": pickled(b'{"a":' * 1_000_000),
    "JSON: many names": pickled(
        json.dumps({"weight_map": {f"{i}": "a/../b" for i in range(100_000)}}).encode()
    ),
    "HDF5: a chunk that unpacks to 2 GB": h5(
        lambda file: _chunk(file, _zeros(2_000), compression="gzip")
    ),
    "HDF5: gzip twice": h5(
        lambda file: _chunk(file, zlib.compress(_zeros(2_000)), compression="gzip", shuffle=True)
    ),
    "HDF5: a chunk of 2 GB": h5(_huge_chunk),
    "HDF5: 32 GB of nothing": h5(_long),
    "HDF5: an unknown filter": h5(
        lambda file: _chunk(file, bytes(64), compression=32_015, allow_unknown_filter=True)
    ),
    "HDF5: 3,000 groups within one another": h5(_deep),
}


def _zeros(megabytes: int) -> bytes:
    """Zeros as gzip packs them, which takes little memory here."""
    packer = zlib.compressobj(1)
    parts = [packer.compress(bytes(MB)) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


def write(name: str, path: Path) -> None:
    BOMBS[name](path)
