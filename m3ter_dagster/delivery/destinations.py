"""Export Destinations: the buckets and folders that a file of an export is delivered to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from m3ter_dagster import telemetry
from m3ter_dagster.config import Destination, GcsDestination, LocalDestination, S3Destination
from m3ter_dagster.delivery import signatures
from m3ter_dagster.delivery.fingerprints import fingerprint
from m3ter_dagster.delivery.gcs import GcsStore
from m3ter_dagster.delivery.local import LocalStore
from m3ter_dagster.delivery.s3 import S3Store
from m3ter_dagster.delivery.store import NotStored, ObjectUnreadable, Refusal, Store
from m3ter_dagster.model import manifest
from m3ter_dagster.model.exports import Export, object_key

if TYPE_CHECKING:
    from m3ter_dagster.frames.format import Format

# Botocore spreads these over 10 to 25 seconds, which outlasts a bad moment of a store.
MAX_ATTEMPTS = 10


@dataclass(frozen=True)
class FileType:
    """What a delivery must know about a file that is not a frame in one of the formats."""

    suffix: str
    content_type: str


JSON = FileType("json", "application/json")
SIGNATURE = FileType(f"{JSON.suffix}{signatures.SUFFIX}", "application/octet-stream")
PARQUET = FileType("parquet", "application/vnd.apache.parquet")


@dataclass(frozen=True)
class Delivered:
    """A file that is whole in a destination."""

    destination: str
    uri: str
    bytes: int
    sha256: str
    etag: str


class DeliveryFailed(Exception):
    """Some destinations did not take a file; the others have it."""

    def __init__(self, file: str, delivered: Sequence[Delivered], failures: Sequence[Refusal]) -> None:
        self.delivered = list(delivered)
        self.failures = list(failures)
        self.is_permanent = all(one.is_permanent for one in failures)
        others = ", ".join(one.destination for one in delivered)
        there = f" It was delivered to: {others}." if delivered else ""
        super().__init__(f"{file} was not delivered everywhere.{there}\n" + "\n".join(f"  {one}" for one in failures))


class EveryDestinationRefuses(Exception):
    """None of a run's destinations would take anything, until somebody changes something."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        refused = "\n".join(f"  {one}" for one in refusals)
        super().__init__(f"nothing was read, since no destination of this export would take it.\n{refused}")


class FetchFailed(Exception):
    """A destination did not return an object."""

    def __init__(self, failure: Refusal) -> None:
        self.failure = failure
        super().__init__(str(failure))


class UnknownDestination(KeyError):
    """A code that exports.yaml does not define."""

    def __init__(self, code: str, known: Sequence[str]) -> None:
        self.code = code
        self.known = sorted(known)
        super().__init__(code)

    def __str__(self) -> str:
        return f"there is no destination {self.code!r}; known are {', '.join(self.known)}."


def store_of(destination: Destination, *, max_attempts: int = MAX_ATTEMPTS) -> Store:
    """The store of a destination. A request is tried so often where the store is a network away."""
    match destination:
        case S3Destination():
            return S3Store(destination, max_attempts=max_attempts)
        case GcsDestination():
            return GcsStore(destination, max_attempts=max_attempts)
        case LocalDestination():
            return LocalStore(destination)


class Destinations:
    """The Export Destinations by code. Safe to share between threads."""

    def __init__(self, destinations: Mapping[str, Destination], *, max_attempts: int = MAX_ATTEMPTS) -> None:
        self._destinations = dict(destinations)
        self._stores = {code: store_of(one, max_attempts=max_attempts) for code, one in self._destinations.items()}
        # A destination that failed the last file is not waited for as long with the next: 20 files would take 20 times
        # as long to say that a store is down.
        self._hasty_stores = {
            code: store_of(one, max_attempts=min(2, max_attempts)) for code, one in self._destinations.items()
        }
        self._failing: set[str] = set()
        self._fetching = Lock()

    def __repr__(self) -> str:
        return f"Destinations({', '.join(self._destinations)})"

    def probe(self, to: Sequence[str], export: Export) -> list[Refusal]:
        """Ask the destinations, side by side, whether they would take the export's manifest; those that refuse.

        A policy may allow no key but those that exports have. What may pass is no refusal: a store that is down now may
        take the file that is read first.
        EveryDestinationRefuses if no one is left.
        """
        destinations = [self._destination(code) for code in to]
        with ThreadPoolExecutor(len(destinations)) as pool:
            answers = pool.map(lambda one: self._refusal(one, export), destinations)
            refusals = [one for one in answers if one and one.is_permanent]
        if len(refusals) == len(destinations):
            raise EveryDestinationRefuses(refusals)
        return refusals

    def deliver(
        self,
        file: Path,
        export: Export,
        type: str,
        *,
        to: Sequence[str],
        kind: Format | FileType,
        name: str | None = None,
    ) -> list[Delivered]:
        """Deliver the file to every destination. DeliveryFailed says which of them do not have it whole, and why."""
        destinations = [self._destination(code) for code in to]
        sent = fingerprint(file)
        delivered: list[Delivered] = []
        failures: list[Refusal] = []
        for destination in destinations:
            key = _key(destination, export, type, kind, name)
            try:
                with telemetry.span("m3ter.delivery", entity=type, destination=destination.code, bytes=sent.bytes):
                    stored = self._store(destination.code).put(file, key, sent=sent, content_type=kind.content_type)
            except NotStored as error:
                failures.append(error.refusal)
                self._failing.add(destination.code)
            else:
                delivered.append(Delivered(destination.code, stored.uri, stored.bytes, stored.sha256, stored.etag))
                self._failing.discard(destination.code)
        if failures:
            raise DeliveryFailed(file.name, delivered, failures)
        return delivered

    def fetch(self, destination_code: str, uri_or_key: str, to: Path) -> None:
        """Download an object from the destination: a key in its bucket, or the uri of a delivery."""
        destination = self._destination(destination_code)
        try:
            self._store(destination.code).fetch(uri_or_key, to)
        except ObjectUnreadable as error:
            raise FetchFailed(error.refusal) from error

    def fetch_any(self, objects: Sequence[Mapping[str, Any]], to: Path, *, verified: bool = False) -> None:
        """Download a file from the first of the destinations it was delivered to that still returns it.

        With `verified` it must be byte for byte what was delivered.
        """
        for number, one in enumerate(objects, 1):
            try:
                self.fetch(one["destination"], one["uri"], to)
                if verified and fingerprint(to).sha256 != one["sha256"]:
                    advice = "the object has another sha256 than the file that was delivered there"
                    raise FetchFailed(Refusal(one["destination"], one["uri"], "Altered", advice))
            except (FetchFailed, UnknownDestination):
                if number == len(objects):
                    raise
            else:
                return

    def fetch_once(self, objects: Sequence[Mapping[str, Any]], folder: Path) -> Path:
        """The file byte for byte as it was delivered, in a folder where it may be already: there it stays for others.

        FetchFailed, UnknownDestination: no destination returns it.
        """
        kept = folder / str(objects[0]["sha256"])
        with self._fetching:
            if not kept.exists():
                part = kept.with_suffix(".part")
                self.fetch_any(objects, part, verified=True)
                part.rename(kept)
        return kept

    def remove(self, destination_code: str, uri: str) -> None:
        """Remove an object from the destination; NotRemoved says why it may still be there."""
        # Nothing waits for a removal, so a store that is down is not waited for.
        self._hasty_stores[self._destination(destination_code).code].remove(uri)

    def page(self, destination_code: str, uri: str) -> str | None:
        """The web page of an object in its store's console, if there is one."""
        return self._stores[self._destination(destination_code).code].page(uri)

    def _refusal(self, destination: Destination, export: Export) -> Refusal | None:
        try:
            self._hasty_stores[destination.code].probe(_key(destination, export, manifest.TYPE, JSON))
        except NotStored as error:
            return error.refusal
        return None

    def _destination(self, code: str) -> Destination:
        if code not in self._destinations:
            raise UnknownDestination(code, list(self._destinations))
        return self._destinations[code]

    def _store(self, code: str) -> Store:
        return (self._hasty_stores if code in self._failing else self._stores)[code]


def _key(destination: Destination, export: Export, type: str, kind: Format | FileType, name: str | None = None) -> str:
    prefix, order = destination.prefix, destination.partition_order
    return object_key(export, type, prefix=prefix, partition_order=order, suffix=kind.suffix, name=name)
