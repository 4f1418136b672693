"""Stores: where files of exports stand as objects. A new kind is a file beside this and a line in `store_of`.

StoreFailed             an object was not taken, or not given; `refusal` says why and what to do
├── NotStored           put: the object does not stand whole under its key
└── ObjectUnreadable    fetch, read, stat, uris
    └── ObjectMissing   nothing stands there
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from m3ter_dagster.delivery.fingerprints import Fingerprint


@dataclass(frozen=True)
class Refusal:
    """One destination that did not take, or not give, an object."""

    destination: str
    uri: str
    code: str
    """The store's own word for it, or the kind of failure."""
    advice: str
    store_says: str = ""
    is_permanent: bool = False
    """Would the same request be refused again, until somebody changes something?"""

    def __str__(self) -> str:
        quoted = f" The store says: {self.store_says!r}" if self.store_says else ""
        return f"destination {self.destination!r}, {self.uri}: {self.code}: {self.advice}.{quoted}"


class StoreFailed(Exception):
    """Worded for somebody who knows the object's address; the refusal names the destination too."""

    def __init__(self, refusal: Refusal, says: str | None = None) -> None:
        self.refusal = refusal
        super().__init__(says or str(refusal))


class NotStored(StoreFailed):
    """The object does not stand whole under its key. What stood there before may stand there still."""


class ObjectUnreadable(StoreFailed):
    """The store does not give an object, or may not tell whether there is one."""


class ObjectMissing(ObjectUnreadable):
    """The store says that nothing stands there."""


@dataclass(frozen=True)
class Stored:
    """A file that stands whole in a store."""

    uri: str
    bytes: int
    sha256: str
    etag: str


@dataclass(frozen=True)
class Stat:
    """What the store says of an object without giving it."""

    bytes: int
    etag: str


class Store(Protocol):
    """One bucket of a store. tests/test_stores.py holds every kind to what stands here.

    Nothing is asked before the first call, and every call may come from any thread. `where` is the key of an object in
    the bucket, or the uri of any object that the store's credentials may read. Whatever goes wrong with the store is a
    StoreFailed; an OSError is about the local file.
    """

    def put(self, file: Path, key: str, *, sent: Fingerprint, content_type: str) -> Stored:
        """The file stands whole under the key, and was read back; or NotStored.

        `sent` is the file's fingerprint. Nobody sees part of the file under the key at any time, an object of before
        is replaced at once, and what arrived altered is removed or said to stand. Nothing of an upload that failed
        is left behind.
        """
        ...

    def fetch(self, where: str, to: Path) -> None:
        """The object as a file, which appears under its name when it is whole; or ObjectUnreadable, and no file."""
        ...

    def read(self, where: str, *, at_most: int) -> bytes:
        """A small object; ObjectUnreadable too if it has more bytes, of which none is read then."""
        ...

    def stat(self, where: str) -> Stat:
        """ObjectMissing if there is no such object."""
        ...

    def uris(self, prefix: str) -> list[str]:
        """What stands under addresses that begin like this: a uri, or a key, whose end is left out."""
        ...

    def explain(self, error: Exception, where: str) -> Refusal:
        """Why the store refused, and what to do, for any error of its client. Secrets are not repeated."""
        ...


def parts_of(uri: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key
