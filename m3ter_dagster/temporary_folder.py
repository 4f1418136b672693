"""A folder for temporary files that is locked by its process; those whose processes have died are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PREFIX = "m3ter-temporary-"
LOCK = ".lock"


class NoRoom(Exception):
    def __init__(self, place: Path, free: int, least_free: int) -> None:
        super().__init__(
            f"{place}, the folder for temporary files, has {free // 1_000_000:,} MB free, and an export needs at least "
            f"{least_free // 1_000_000:,} MB; make room there, or set TMPDIR to a folder with more "
            "(M3TER_LEAST_FREE_MB is how much must be free)."
        )


class TemporaryFolder:
    """A new folder below TMPDIR, its own until `close` removes it.

    The kernel gives the lock back when the process ends, however it ends, and the next folder that anybody makes there
    removes this one.
    """

    def __init__(self, *, least_free: int = 0) -> None:
        """NoRoom if less than `least_free` bytes are, once what dead processes left behind is gone."""
        place = Path(tempfile.gettempdir())
        for entry in os.scandir(place):
            if entry.name.startswith(PREFIX):
                _remove_if_abandoned(entry)
        free = shutil.disk_usage(place).free
        if free < least_free:
            raise NoRoom(place, free, least_free)
        self.path, self._lock = _locked_folder()

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _locked_folder() -> tuple[Path, int]:
    """A new folder and its lock. Another process may take it for abandoned before it is locked; then one more is made.

    Whoever removes a folder has locked it, so once this process has the lock, the folder is gone already or stays.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), (folder / LOCK).stat()):
                    return folder, lock
            os.close(lock)


def _remove_if_abandoned(entry: os.DirEntry[str]) -> None:
    with suppress(OSError):  # its process lives and has the lock, or another process has just removed it
        if not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid != os.getuid():
            return
        # A process may have died before it made its lock.
        lock = os.open(Path(entry.path, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry.path, ignore_errors=True)
        finally:
            os.close(lock)
