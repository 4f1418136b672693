"""The folder of an Export Destination, on this machine or on a drive that is mounted here."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote_to_bytes

from m3ter_dagster.delivery.fingerprints import Fingerprint
from m3ter_dagster.delivery.store import (
    FILE,
    NotRemoved,
    NotStored,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnreadable,
    Refusal,
    Stat,
    Stored,
    StoreFailed,
)

if TYPE_CHECKING:
    from m3ter_dagster.config import LocalDestination

PART = ".part"
"""The end of the names of files that are not whole; their names begin with a dot."""
CHUNK_BYTES = 1 << 20
UNQUOTED = "/=:@!$&'()*+,;~"
"""What may stand in the path of an address as it is, so that object keys do."""

NO_FOLDER = "create the folder {folder}, or mount the drive that has it, or correct the destination's path"
MAY_NOT = "allow the user that runs this (uid {user}) to read and write below {folder}"
NOT_A_FOLDER = "a file stands where a folder should be, or a folder in the place of the file: move it away"
FULL = "the drive is full, or the user's quota is: make room or remove old exports"
ADVICE = {
    errno.ENOENT: "there is no such object",
    errno.ENOTDIR: NOT_A_FOLDER,
    errno.EISDIR: NOT_A_FOLDER,
    errno.EACCES: MAY_NOT,
    errno.EPERM: MAY_NOT,
    errno.EROFS: "the drive may only be read: mount it for writing, or correct the destination's path",
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "the drive takes no file of this size: choose another, or a schedule of fewer entities",
    errno.ENAMETOOLONG: "the drive takes no path of this length: shorten the destination's path",
}
"""What somebody must change; any other error of a drive may pass."""
LATER = "{says}: see whether the drive is well, and run the export again later"


class LocalStore:
    """A folder as a bucket: an object's key is its path below. Other files may stand there, too."""

    def __init__(self, destination: LocalDestination) -> None:
        self._destination = destination
        self._folder = destination.path

    def __repr__(self) -> str:
        return f"LocalStore({self._folder})"

    def put(self, file: Path, key: str, *, sent: Fingerprint, content_type: str) -> Stored:  # noqa: ARG002
        """A copy beside it is flushed to the drive, read back and renamed. It has the rights that the umask gives."""
        path = self._folder / key
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
        with file.open("rb") as content, self._failing(NotStored, key):
            self._make_folder(path.parent)
            try:
                difference = _copy(content, part, sent)
                if difference:
                    raise NotStored(Refusal(self._destination.code, self._uri(key), "Altered", difference))
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            _sync_folder(path.parent)
            _remove_left_behind(path)
            return Stored(self._uri(key), sent.bytes, sent.sha256, _etag(path.stat()))

    def probe(self, key: str) -> None:
        """A file without a name is written in the nearest folder there is."""
        with self._failing(NotStored, key):
            self._folder.stat()
            nearest = next(one for one in (self._folder / key).parents if one.exists())
            with TemporaryFile(dir=nearest) as file:
                file.write(b"\n")

    def fetch(self, where: str, to: Path) -> None:
        part = to.with_name(f".{to.name}{PART}")
        try:
            with self._opened(where) as content, part.open("wb") as copy:
                while chunk := self._read(content, where):
                    copy.write(chunk)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    def read(self, where: str, *, at_most: int) -> bytes:
        size = self.stat(where).bytes
        if size > at_most:
            raise ObjectTooLarge(self._destination.code, self._uri(where), size, at_most=at_most)
        with self._opened(where) as content:
            return self._read(content, where, at_most)

    def stat(self, where: str) -> Stat:
        with self._failing(ObjectUnreadable, where):
            found = self._object(where).stat()
        return Stat(found.st_size, _etag(found))

    def uris(self, prefix: str) -> list[str]:
        start = self._path_text(prefix)
        with self._failing(ObjectUnreadable, prefix):
            if not prefix.startswith(FILE):
                self._folder.stat()
            return sorted(address_of(path) for path in _files(start))

    def folders(self, prefix: str) -> list[str]:
        """Those as well that have no object."""
        top, name = os.path.split(self._path_text(prefix))
        with self._failing(ObjectUnreadable, prefix):
            if not prefix.startswith(FILE):
                self._folder.stat()
            with suppress(FileNotFoundError), os.scandir(top) as found:
                return sorted(f"{address_of(one.path)}/" for one in found if one.name.startswith(name) and one.is_dir())
            return []

    def remove(self, where: str) -> None:
        """Folders stay, even empty ones: another export may be about to write there."""
        with self._failing(NotRemoved, where):
            if not where.startswith(FILE):
                self._folder.stat()
            Path(self._path_text(where)).unlink(missing_ok=True)

    def page(self, where: str) -> None:
        """A folder has no web page."""

    def explain(self, error: Exception, where: str) -> Refusal:
        number = error.errno if isinstance(error, OSError) else None
        if number is None:
            return Refusal(self._destination.code, self._uri(where), type(error).__name__, str(error).rstrip("."))
        code, advice = errno.errorcode.get(number, str(number)), ADVICE.get(number, LATER)
        if self._is_of_the_folder(error):
            code, advice = "NoSuchFolder", NO_FOLDER
        folder = Path(self._path_text(where)).parent if where.startswith(FILE) else self._folder
        worded = advice.format(folder=folder, user=os.getuid(), says=os.strerror(number))
        return Refusal(self._destination.code, self._uri(where), code, worded, is_permanent=number in ADVICE)

    def _make_folder(self, folder: Path) -> None:
        """Make the folder, but for the destination's own: without it, the drive may not be mounted."""
        self._folder.stat()
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            _sync_folder(one.parent)

    def _object(self, where: str) -> Path:
        """The path of an object. What is no ordinary file, and may have no end, is none."""
        if not where.startswith(FILE):
            self._folder.stat()
        path = Path(self._path_text(where))
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path

    def _opened(self, where: str) -> BinaryIO:
        with self._failing(ObjectUnreadable, where):
            return self._object(where).open("rb")

    def _read(self, content: BinaryIO, where: str, size: int = CHUNK_BYTES) -> bytes:
        with self._failing(ObjectUnreadable, where):
            return content.read(size)

    def _path_text(self, where: str) -> str:
        if where.startswith(FILE):
            return os.fsdecode(unquote_to_bytes(where.removeprefix(FILE)))
        return f"{self._folder}/{where}"

    def _uri(self, where: str) -> str:
        return where if where.startswith(FILE) else address_of(self._path_text(where))

    def _is_of_the_folder(self, error: Exception) -> bool:
        return isinstance(error, FileNotFoundError) and error.filename in (self._folder, str(self._folder))

    @contextmanager
    def _failing(self, failure: type[StoreFailed], where: str) -> Generator[None]:
        """What the drive refuses, as the failure of the store."""
        try:
            yield
        except OSError as error:
            why = self.explain(error, where)
            if failure is not ObjectUnreadable:
                raise failure(why) from error
            if isinstance(error, (FileNotFoundError, NotADirectoryError)) and not self._is_of_the_folder(error):
                raise ObjectMissing(why, f"there is no object {why.uri}") from error
            raise ObjectUnreadable(why, f"{why.uri}: {why.code}: {why.advice}") from error


def address_of(path: str | Path) -> str:
    """The address of a file, as the records of an export have it."""
    return FILE + quote(os.fsencode(path), safe=UNQUOTED)


def _copy(content: BinaryIO, part: Path, sent: Fingerprint) -> str | None:
    """Copy to a new file on the drive, and read it back; how it differs from what was sent, if it does."""
    with part.open("xb") as copy:
        with suppress(OSError):  # not every drive has locks; then what killed runs left is not known to be theirs
            fcntl.flock(copy, fcntl.LOCK_EX)
        while chunk := content.read(CHUNK_BYTES):
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
        if hasattr(os, "posix_fadvise"):  # so that the drive is read, and not this machine's memory of it
            os.posix_fadvise(copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with part.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    if sha256 == sent.sha256:
        return None
    return (
        f"the copy has the sha256 {sha256} and the file {sent.sha256}; it was removed; look for a drive that alters "
        "what it is sent"
    )


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the drive."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # network drives may have this for files alone
            raise
    finally:
        os.close(opened)


def _remove_left_behind(path: Path) -> None:
    """Remove what killed runs left of this object. Whoever still writes has a lock."""
    for left in path.parent.glob(f".*{PART}"):
        if left.name.startswith(f".{path.name}."):
            with suppress(OSError), left.open("r+b") as content:
                fcntl.flock(content, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def _files(start: str) -> Iterator[str]:
    """The whole files whose paths start with this; folders that begin otherwise are not looked into."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    top, name = os.path.split(start)
    for folder, folders, files in os.walk(top, onerror=refuse):
        if folder == top:
            folders[:] = [one for one in folders if one.startswith(name)]
        paths = (f"{folder}/{one}" for one in files if not (one.startswith(".") and one.endswith(PART)))
        yield from (path for path in paths if path.startswith(start))


def _etag(found: os.stat_result) -> str:
    """What changes whenever an object is replaced, without reading it, as web servers have it."""
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"
