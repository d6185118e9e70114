"""The one door for writing: output folders with an owner, a lock and a list of their files.

A folder that the library writes into holds a marker, which says what kind of folder it is and lists
every file that was written there. Nothing else in it is ever replaced or deleted, and a folder with
other files and no marker is refused. Files are replaced in one rename, so that a reader, or a run
after a crash, sees all of a file or nothing.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from gmn.errors import OutputError

OWNER = "graph-metanetworks"
MARKER = f".{OWNER}"
LOCK = f".{OWNER}.lock"
CLEARED = ""  # kind of a folder whose files of ours were deleted
PART = re.compile(r"\..+\.\d+\.gmn-part")  # named by write_atomically alone
MARKER_PART = re.compile(rf"\.{re.escape(MARKER)}\.\d+\.gmn-part")  # of a run killed as it began

Content = bytes | Callable[[Path], object]


class OutputFolder:
    """The right to write into a folder: one process has it, until it ends or is killed.

    Use it in a ``with`` statement, or call :meth:`close`.

    Args:
        folder: made if absent; empty, or of the same kind.
        kind: what the library writes there, such as ``"zoo"``.
        inputs: files and folders that are read; none may be the folder, or lie in it.
        earlier: for a folder without marker, of versions that wrote none: the names of their files,
            or None if it is not of this kind.
        error: class of the errors raised.

    Raises:
        OutputError: if the folder holds what is not ours or of another kind, is in use by another
            process, or cannot be written; ``error`` instead, if given.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        kind: str,
        *,
        inputs: Iterable[str | os.PathLike[str]] = (),
        earlier: Callable[[Path], set[str] | None] | None = None,
        error: type[Exception] = OutputError,
    ) -> None:
        self.path, self.kind, self._error = Path(folder), kind, error
        self._earlier = earlier
        require_apart(self.path, inputs, error)
        self._new, self._files = not os.path.lexists(self.path), set[str]()
        self._owned()  # before a lock is made in a folder that is not ours
        self._lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise error(
                f"{self.path} is being written by another process. Wait for it, stop it, or choose "
                "another folder; reading is possible all the time"
            ) from None
        except OSError as reason:
            raise cannot_write(self.path, reason, error) from reason
        try:
            self._files = self._owned()
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write; a folder that was made here and stayed empty is removed."""
        unused = self._new and not self._files
        if unused:  # while nobody else can hold the lock
            for name in (MARKER, LOCK):
                (self.path / name).unlink(missing_ok=True)
        self._lock.release()
        if unused:
            with suppress(OSError):
                self.path.rmdir()

    @property
    def files(self) -> frozenset[str]:
        """Names of the files that were written here, or were to be."""
        return frozenset(self._files)

    def claim(self, *names: str) -> None:
        """Lists files as ours, before they are written by other means than :meth:`write`.

        Args:
            names: plain names in the folder.

        Raises:
            OutputError: if one is there that is not ours.
        """
        new = [name for name in dict.fromkeys(names) if name not in self._files]
        for name in new:
            if not is_plain(name):
                raise self._error(f"{name!r} is no plain file name in the folder {self.path}")
            if os.path.lexists(self.path / name):
                raise self._error(
                    f"{self.path / name} is there already and was not written by this library. "
                    "Move it away, or choose another folder"
                )
        if new:
            # A break before each: the last line of a killed run may be torn.
            self._append(MARKER, "".join(f"\n{json.dumps(name)}" for name in new))
            self._files.update(new)

    def write(self, name: str, content: Content) -> Path:
        """Writes a file, all or nothing.

        Args:
            name: its name in the folder.
            content: what it shall hold, or a function that writes it to a path.

        Returns:
            Its path.

        Raises:
            OutputError: if there is one of this name that is not ours, or it cannot be written.
        """
        self.claim(name)
        write_file(self.path / name, content, self._error)
        return self.path / name

    def append(self, name: str, text: str) -> None:
        """Adds text to the end of a file.

        Raises:
            OutputError: as :meth:`write`.
        """
        self.claim(name)
        self._append(name, text)

    def remove(self, name: str) -> None:
        """Deletes a file that was written here; others, and absent ones, are left alone."""
        if name in self._files:
            (self.path / name).unlink(missing_ok=True)

    def clear(self) -> list[str]:
        """Deletes all files that were written here; any kind may be written then.

        Returns:
            Names of those that were there.
        """
        gone = sorted(name for name in self._files if os.path.lexists(self.path / name))
        for name in gone:
            _delete(self.path / name)
        self.kind, self._files = CLEARED, set()
        self._mark()
        return gone

    def _owned(self) -> set[str]:
        """The files that are ours; refuses folders of others."""
        if not os.path.lexists(self.path):
            return set()
        if not self.path.is_dir():
            raise self._error(f"{self.path} is a file; choose a folder to write to")
        try:
            names = {path.name for path in self.path.iterdir()} - {MARKER, LOCK}
            others = {name for name in names if not MARKER_PART.fullmatch(name)}
        except OSError as reason:
            raise cannot_write(self.path, reason, self._error) from reason
        found = read_marker(self.path)
        if found is not None and found[0] in (self.kind, CLEARED):
            return found[1]
        if found is not None and others:
            raise self._error(
                f"{self.path} holds a {found[0]} of {OWNER}, not a {self.kind}; choose another "
                "folder, or --overwrite it"
            )
        earlier = self._earlier(self.path) if self._earlier is not None else None
        if earlier is None and others:
            some = ", ".join(sorted(others)[:3]) + (", ..." if len(others) > 3 else "")
            raise self._error(
                f"{self.path} holds files that are not a {self.kind} of {OWNER} ({some}); choose "
                "another folder"
            )
        return earlier or set()

    def _begin(self) -> None:
        if read_marker(self.path) is None or not self._files:
            self._mark()
        for path in self.path.iterdir():
            if PART.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _mark(self) -> None:
        facts = json.dumps({"owner": OWNER, "kind": self.kind})
        lines = [json.dumps(name) for name in sorted(self._files)]
        write_file(self.path / MARKER, "\n".join([facts, *lines]).encode(), self._error)

    def _append(self, name: str, text: str) -> None:
        try:
            with open(self.path / name, "a", opener=_no_link) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as reason:
            raise cannot_write(self.path / name, reason, self._error) from reason


def _no_link(path: str, flags: int) -> int:
    """Opens a file, but not one elsewhere that a link in a stranger's folder leads to."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def require_apart(
    folder: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]],
    error: type[Exception] = OutputError,
) -> None:
    """Refuses to write into a folder that something is read from.

    Args:
        folder: the folder to write to.
        inputs: files and folders that are read.
        error: class of the error raised.

    Raises:
        OutputError: if one of these is the folder, or lies in it; ``error`` instead, if given.
    """
    own = Path(folder).resolve()
    for given in inputs:
        path = Path(given).resolve()
        if path == own or own in path.parents:
            raise error(f"{given} is read, so {folder} is not written to; choose another folder")


def read_marker(folder: Path) -> tuple[str, set[str]] | None:
    """Kind and files of a folder that this library writes into; None for any other folder."""
    try:
        first, *lines = (folder / MARKER).read_text().splitlines()
        facts = json.loads(first)
        if facts["owner"] != OWNER:
            return None
        kind = str(facts["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kind, set(_names(lines))


def _names(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        try:
            name = json.loads(line)
        except ValueError:
            continue  # torn as a run was killed, before its file was written
        if isinstance(name, str) and is_plain(name):
            yield name


def is_plain(name: object) -> bool:
    """Whether this is the name of a file in a folder, rather than a path to elsewhere."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..", MARKER, LOCK)
        and not any(character in name for character in "/\\\0")
    )


def overwrite(
    folder: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()
) -> list[str]:
    """Deletes what this library wrote into a folder, whatever it is; nothing else.

    Args:
        folder: any folder.
        inputs: files and folders that are read afterwards; none may be the folder, or lie in it.

    Returns:
        Names of the files that were deleted.

    Raises:
        OutputError: if an input lies there, another process writes to it, or a file cannot be
            deleted.
    """
    found = read_marker(Path(folder))
    if found is None:
        return []
    with OutputFolder(folder, found[0], inputs=inputs) as own:
        try:
            return own.clear()
        except OSError as reason:
            raise cannot_write(own.path, reason) from reason


def _delete(path: Path) -> None:
    """Deletes a file, or a folder that was made for the files of another library."""
    if path.is_dir() and not path.is_symlink():
        for inside in path.iterdir():
            _delete(inside)
        path.rmdir()
    else:
        path.unlink()


def write_file(path: Path, content: Content, error: type[Exception] = OutputError) -> None:
    """Writes a file, all or nothing; an error names it, and says why.

    Raises:
        OutputError: if it cannot be written: no space, no permission; ``error`` instead, if given.
    """
    try:
        write_atomically(path, content)
    except OSError as reason:
        raise cannot_write(path, reason, error) from reason


def write_single(path: Path, content: bytes, own: bytes) -> None:
    """Writes a single file that the user named, unless there is one that is not ours.

    Args:
        path: where; its folder is made if absent.
        content: what it shall hold.
        own: what every file of this kind holds, by which former ones are known.

    Raises:
        OutputError: if there is another file, or it cannot be written.
    """
    assert own in content
    try:
        if path.is_dir() or (path.exists() and own not in path.read_bytes()):
            raise OutputError(
                f"{path} is there already and was not written by this command; choose another "
                "name, or move it away"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as reason:
        raise cannot_write(path, reason) from reason


def cannot_write(path: Path, reason: OSError, error: type[Exception] = OutputError) -> Exception:
    """What to tell of a file that could not be written."""
    full = reason.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = " Make room and run the same again: it goes on where it stopped." if full else ""
    return error(f"{path} cannot be written: {reason.strerror or reason}.{advice}")


def write_atomically(path: Path, content: Content) -> None:
    """Writes a file so that a reader, or a run after a crash, sees all of it or nothing.

    Args:
        path: where the file shall be.
        content: what it shall hold, or a function that writes it to a path.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.gmn-part")
    part.unlink(missing_ok=True)  # a link of this name would lead elsewhere
    try:
        if isinstance(content, bytes):
            part.write_bytes(content)
        else:
            content(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
