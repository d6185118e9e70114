"""Errors of reading checkpoint files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gmn.errors import DataError


class CheckpointError(DataError, ValueError):
    """A checkpoint cannot be read, or holds no weights that can be used.

    The message names the file, the reason and the way out.
    """


@contextmanager
def damage(what: str) -> Iterator[None]:
    """Turns the errors of a parser into one :class:`CheckpointError` that says ``what`` is damaged.

    Raises:
        CheckpointError: for every error of the code within.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # bytes that make no sense lead parsers into anything
        first = str(error).strip().splitlines()[:1]
        reason = f"{type(error).__name__}: {first[0][:200] if first else ''}".rstrip(": ")
        raise CheckpointError(
            f"{what} is truncated or damaged ({reason}); fetch or save the file again"
        ) from error
