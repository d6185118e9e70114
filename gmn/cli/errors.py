"""How the command ends where it cannot do what it was asked: one line, and a code."""

from __future__ import annotations

import errno
from enum import IntEnum

from rich.console import Console
from rich.text import Text

from gmn.errors import DataError


class UserError(Exception):
    """An error that the user can correct; shown without a traceback."""


class ExitCode(IntEnum):
    """What the exit code of the command says."""

    DONE = 0
    DATA = 1
    USAGE = 2
    INTERRUPTED = 130


EXPECTED = (UserError, DataError, OSError, ImportError, KeyError, ValueError, MemoryError)

REASONS = {
    errno.EEXIST: "there is a file of this name, where a folder is needed; choose another name",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another name",
    errno.EISDIR: "it is a folder, where a file is needed; choose another name",
    errno.ENOENT: "there is no such file or folder",
    errno.EACCES: "permission denied; choose another place, or change its permissions",
    errno.EPERM: "permission denied; choose another place, or change its permissions",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOSPC: "no space is left on the device; make room, and run the same again",
    errno.EDQUOT: "the disk quota is exhausted; make room, and run the same again",
    errno.ENAMETOOLONG: "the name is too long; choose another name",
}


def report(error: BaseException) -> ExitCode:
    """Prints an error to the standard error stream, and says how the command ends.

    What the user wrote may look like markup or emoji codes; it is printed as it is.
    """
    line = Text.assemble(("error: ", "bold red"), in_words(error))
    Console(stderr=True).print(line, highlight=False, soft_wrap=True)
    return ExitCode.DATA if isinstance(error, DataError | OSError | MemoryError) else ExitCode.USAGE


def in_words(error: BaseException) -> str:
    """What an error says, without the quotes of a KeyError; of an OSError the path and reason."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.errno is not None:
        reason = REASONS.get(error.errno, error.strerror or "it cannot be used")
        # Of a file that is renamed into place, its own name rather than that of its first bytes.
        path = error.filename2 or error.filename
        return reason if path is None else f"{path}: {reason}"
    return str(error) or f"{type(error).__name__}"
