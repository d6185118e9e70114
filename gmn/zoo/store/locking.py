"""A lock file, so that one process at a time writes a zoo."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from gmn.errors import ZooError
from gmn.zoo.store.files import cannot_write

LOCK = ".lock"


class WriterLock:
    """An exclusive lock for writing to a folder, held until the process ends or is killed.

    Args:
        folder: folder of the zoo; made if absent.

    Raises:
        ZooError: If another writer has it, or the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = FileLock(folder / LOCK)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ZooError(
                f"{folder} is being written by another process. Wait for it, stop it, or choose "
                "another folder; reading is possible all the time"
            ) from None
        except OSError as error:
            raise cannot_write(folder, error) from error

    def release(self) -> None:
        """Releases the lock: other processes can write."""
        self._lock.release()
