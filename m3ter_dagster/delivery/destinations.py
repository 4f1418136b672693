"""Export Destinations: the buckets that a file of an export is delivered to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from m3ter_dagster.delivery.fingerprints import Fingerprint, fingerprint
from m3ter_dagster.delivery.s3_clients import s3_client
from m3ter_dagster.delivery.s3_objects import ObjectDiffers, download, put
from m3ter_dagster.delivery.s3_refusals import Refusal, refusal
from m3ter_dagster.model.exports import Export, object_key

if TYPE_CHECKING:
    from m3ter_dagster.config import Destination

# Botocore spreads them over 10 to 25 seconds, which outlives a bad moment of a store.
MAX_ATTEMPTS = 10
CONTENT_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}


@dataclass(frozen=True)
class Delivered:
    """A file that stands whole in a destination."""

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


class FetchFailed(Exception):
    """A destination did not give an object."""

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


class Destinations:
    """The destinations by code. Safe to share between threads."""

    def __init__(self, destinations: Mapping[str, Destination], *, max_attempts: int = MAX_ATTEMPTS) -> None:
        self._destinations = dict(destinations)
        self._max_attempts = max_attempts
        self._clients: dict[tuple[str, int], Any] = {}
        self._failing: set[str] = set()
        self._building = Lock()

    def __repr__(self) -> str:
        return f"Destinations({', '.join(self._destinations)})"

    def deliver(
        self, file: Path, export: Export, type: str, *, to: Sequence[str], suffix: str = "csv", name: str | None = None
    ) -> list[Delivered]:
        """The file stands whole in every destination, or DeliveryFailed says where it does not and why."""
        destinations = [self._destination(code) for code in to]
        sent = fingerprint(file)
        delivered: list[Delivered] = []
        failures: list[Refusal] = []
        for destination in destinations:
            key = object_key(
                export,
                type,
                prefix=destination.prefix,
                partition_order=destination.partition_order,
                suffix=suffix,
                name=name,
            )
            try:
                delivered.append(self._deliver_to(destination, file, sent, key, suffix))
                self._failing.discard(destination.code)
            except (BotoCoreError, ClientError, ObjectDiffers) as error:
                failures.append(refusal(error, destination, bucket=destination.bucket_name, key=key))
                self._failing.add(destination.code)
        if failures:
            raise DeliveryFailed(file.name, delivered, failures)
        return delivered

    def fetch(self, destination_code: str, uri_or_key: str, to: Path) -> None:
        """Download an object of the destination: a key of its bucket, or the uri of a delivery."""
        destination = self._destination(destination_code)
        bucket, key = destination.bucket_name, uri_or_key
        if uri_or_key.startswith("s3://"):
            bucket, key = uri_or_key.removeprefix("s3://").split("/", 1)
        try:
            download(self._client(destination), bucket=bucket, key=key, to=to)
        except (BotoCoreError, ClientError) as error:
            raise FetchFailed(refusal(error, destination, bucket=bucket, key=key)) from error

    def fetch_any(self, objects: Sequence[Mapping[str, Any]], to: Path) -> None:
        """Download a file that was delivered to several destinations from the first that still gives it."""
        for number, one in enumerate(objects, 1):
            try:
                self.fetch(one["destination"], one["uri"], to)
            except (FetchFailed, UnknownDestination):
                if number == len(objects):
                    raise
            else:
                return

    def _deliver_to(self, destination: Destination, file: Path, sent: Fingerprint, key: str, suffix: str) -> Delivered:
        bucket = destination.bucket_name
        extra = {"ContentType": CONTENT_TYPES[suffix], **_encryption(destination)}
        etag = put(self._client(destination), file, sent, bucket=bucket, key=key, extra=extra)
        return Delivered(destination.code, f"s3://{bucket}/{key}", sent.bytes, sent.sha256, etag)

    def _destination(self, code: str) -> Destination:
        if code not in self._destinations:
            raise UnknownDestination(code, list(self._destinations))
        return self._destinations[code]

    def _client(self, destination: Destination) -> Any:
        """Built once: a client is safe between threads, the session that makes it is not.

        A destination that failed the last file is not waited for as long with the next: 17 files would take 17 times
        as long to say that a store is down.
        """
        attempts = min(2, self._max_attempts) if destination.code in self._failing else self._max_attempts
        with self._building:
            client = self._clients.get((destination.code, attempts))
            if client is None:
                client = s3_client(destination, max_attempts=attempts)
                self._clients[destination.code, attempts] = client
            return client


def _encryption(destination: Destination) -> dict[str, str]:
    asked = {"ServerSideEncryption": destination.server_side_encryption, "SSEKMSKeyId": destination.kms_key_id}
    return {name: value for name, value in asked.items() if value}
