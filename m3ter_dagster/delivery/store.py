"""Stores: where files of exports are kept as objects. A new kind is a file beside this and a line in `store_of`.

StoreFailed             an object was not stored, returned or removed; `refusal` says why and what to do
├── NotStored           put, probe: there is no whole object under its key
├── ObjectUnreadable    fetch, read, stat, uris, folders
│   ├── ObjectMissing   there is no such object
│   └── ObjectTooLarge  read: it has more bytes than were asked for
└── NotRemoved          remove: the object may still be there
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from m3ter_dagster.delivery.fingerprints import Fingerprint


@dataclass(frozen=True)
class Refusal:
    """A destination that did not store, or did not return, an object."""

    destination: str
    uri: str
    code: str
    """The store's own code, or the kind of failure."""
    advice: str
    store_says: str = ""
    is_permanent: bool = False
    """Whether the same request would be refused again until somebody changes something."""

    def __str__(self) -> str:
        quoted = f" The store says: {self.store_says!r}" if self.store_says else ""
        return f"destination {self.destination!r}, {self.uri}: {self.code}: {self.advice}.{quoted}"


class StoreFailed(Exception):
    """A store failed. Worded for somebody who knows the object's address; the refusal also names the destination."""

    def __init__(self, refusal: Refusal, says: str | None = None) -> None:
        self.refusal = refusal
        super().__init__(says or str(refusal))


class NotStored(StoreFailed):
    """There is no whole object under the key. One that was there before may still be there."""


class ObjectUnreadable(StoreFailed):
    """The store does not return an object, or may not say whether there is one."""


class ObjectMissing(ObjectUnreadable):
    """The store says that there is no such object."""


class ObjectTooLarge(ObjectUnreadable):
    """An object has more bytes than are read at once."""

    def __init__(self, destination: str, uri: str, size: int, *, at_most: int) -> None:
        advice = f"it has {size:,} bytes, and no more than {at_most:,} are read at once"
        super().__init__(Refusal(destination, uri, "TooLarge", advice, is_permanent=True), f"{uri}: {advice}")


class NotRemoved(StoreFailed):
    """The object may still be there."""


@dataclass(frozen=True)
class Stored:
    """A file that is whole in a store."""

    uri: str
    bytes: int
    sha256: str
    etag: str


@dataclass(frozen=True)
class Stat:
    """What the store says about an object without returning it."""

    bytes: int
    etag: str


class Store(Protocol):
    """One bucket of a store, or one folder. tests/test_stores.py holds every kind to what is promised here.

    Nothing is asked before the first call, and every call may come from any thread. `where` is the key of an object in
    the bucket, or the uri of any object that the store's credentials may read. Whatever goes wrong with the store is a
    StoreFailed; an OSError is about the local file.
    """

    def put(self, file: Path, key: str, *, sent: Fingerprint, content_type: str) -> Stored:
        """Store the file whole under the key and read it back; NotStored if that fails.

        `sent` is the file's fingerprint. At no time is part of the file visible under the key: an earlier object is
        replaced in one step, and an object that arrived altered is removed or reported. A failed upload leaves
        nothing behind.
        """
        ...

    def probe(self, key: str) -> None:
        """Ask for what storing an object under the key needs, and store none; NotStored says why it would be refused.

        Nothing ever stands under the key, and what stands there stays.
        """
        ...

    def fetch(self, where: str, to: Path) -> None:
        """Download the object to a file, which appears when it is whole; if not, ObjectUnreadable and no file."""
        ...

    def read(self, where: str, *, at_most: int) -> bytes:
        """The content of a small object; ObjectUnreadable also if it has more bytes, none of which is read then."""
        ...

    def stat(self, where: str) -> Stat:
        """Size and ETag of an object; ObjectMissing if there is none."""
        ...

    def uris(self, prefix: str) -> list[str]:
        """The objects whose addresses start with this: a uri or a key whose end is left out."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """The folders with objects whose addresses start with this, up to the next slash, each once."""
        ...

    def remove(self, where: str) -> None:
        """Remove the object, if it is there. Where the bucket keeps versions, it hides the object."""
        ...

    def page(self, where: str) -> str | None:
        """The address of a web page on which a person who may do so sees the object; None if there is none."""
        ...

    def explain(self, error: Exception, where: str) -> Refusal:
        """Why the store refused, and what to do, for any error of its client. No secret is repeated."""
        ...


FILE = "file://"
"""How the addresses of files begin."""


def parts_of(uri: str) -> tuple[str, str]:
    """The bucket and the key of an address. A file's bucket is the folder that has exports of the Organization."""
    if uri.startswith(FILE):
        folder, found, below = uri.removeprefix(FILE).rpartition("/orgId=")
        return (folder, f"orgId={below}") if found else ("", below)
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key
