"""The S3 bucket of an Export Destination, at AWS or at a store that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError

from m3ter_dagster.delivery.fingerprints import Fingerprint
from m3ter_dagster.delivery.s3_clients import is_aws, s3_client
from m3ter_dagster.delivery.s3_objects import ObjectDiffers, download, probe, put
from m3ter_dagster.delivery.s3_refusals import DENIED, refusal
from m3ter_dagster.delivery.store import (
    NotRemoved,
    NotStored,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnreadable,
    Refusal,
    Stat,
    Stored,
    parts_of,
)

if TYPE_CHECKING:
    from m3ter_dagster.config import S3Destination

REFUSED = (BotoCoreError, ClientError)
ABSENT = {"404", "NoSuchKey"}
CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
"""The host of the console in each of AWS's partitions, behind the region."""
ANY_REGION = "https://s3.amazonaws.com"
"""Where botocore sends requests if no region is configured."""
MAY_BE_ABSENT = " Or it does not exist, which a store reveals only to those who are allowed s3:ListBucket."


class S3Store:
    """A bucket at S3. Botocore spreads the `max_attempts` of a request over some seconds."""

    def __init__(self, destination: S3Destination, *, max_attempts: int) -> None:
        self._destination = destination
        self._max_attempts = max_attempts
        self._client: Any = None
        self._building = Lock()

    def __repr__(self) -> str:
        return f"S3Store({self._destination.bucket_name})"

    def put(self, file: Path, key: str, *, sent: Fingerprint, content_type: str) -> Stored:
        bucket, extra = self._destination.bucket_name, {"ContentType": content_type, **self._encryption}
        try:
            etag = put(self._open(), file, sent, bucket=bucket, key=key, extra=extra)
        except (*REFUSED, ObjectDiffers) as error:
            raise NotStored(self.explain(error, key)) from error
        return Stored(self._uri(key), sent.bytes, sent.sha256, etag)

    def probe(self, key: str) -> None:
        try:
            probe(self._open(), bucket=self._destination.bucket_name, key=key, extra=self._encryption)
        except REFUSED as error:
            raise NotStored(self.explain(error, key)) from error

    def fetch(self, where: str, to: Path) -> None:
        """Download an object in parts; a part that breaks off is fetched again."""
        bucket, key = self._parts(where)
        try:
            download(self._open(), bucket=bucket, key=key, to=to)
        except REFUSED as error:
            raise self._unreadable(error, where) from error

    def read(self, where: str, *, at_most: int) -> bytes:
        bucket, key = self._parts(where)
        try:
            answer = self._open().get_object(Bucket=bucket, Key=key)
            if answer["ContentLength"] <= at_most:
                return answer["Body"].read()
        except REFUSED as error:
            raise self._unreadable(error, where) from error
        answer["Body"].close()
        size = answer["ContentLength"]
        raise ObjectTooLarge(self._destination.code, self._uri(where), size, at_most=at_most)

    def stat(self, where: str) -> Stat:
        bucket, key = self._parts(where)
        try:
            head = self._open().head_object(Bucket=bucket, Key=key)
        except REFUSED as error:
            raise self._unreadable(error, where) from error
        return Stat(head["ContentLength"], head.get("ETag", "").strip('" '))

    def uris(self, prefix: str) -> list[str]:
        bucket, _ = self._parts(prefix)
        return [f"s3://{bucket}/{one['Key']}" for page in self._pages(prefix) for one in page.get("Contents", [])]

    def folders(self, prefix: str) -> list[str]:
        bucket, _ = self._parts(prefix)
        pages = self._pages(prefix, Delimiter="/")
        return [f"s3://{bucket}/{one['Prefix']}" for page in pages for one in page.get("CommonPrefixes", [])]

    def remove(self, where: str) -> None:
        bucket, key = self._parts(where)
        try:
            self._open().delete_object(Bucket=bucket, Key=key)
        except REFUSED as error:
            raise NotRemoved(self.explain(error, where)) from error

    def page(self, where: str) -> str | None:
        """Its page in AWS's console; other stores that speak S3 have none that is known."""
        about = self._open().meta
        if about.endpoint_url == ANY_REGION or not is_aws(about.endpoint_url) or about.partition not in CONSOLES:
            return None
        (bucket, key), region = self._parts(where), about.region_name
        host = f"{region}.{CONSOLES[about.partition]}"
        return f"https://{host}/s3/object/{bucket}?region={region}&prefix={quote(key, safe='')}"

    def explain(self, error: Exception, where: str) -> Refusal:
        return refusal(error, self._destination, self._uri(where))

    @property
    def _encryption(self) -> dict[str, str]:
        destination = self._destination
        asked = {"ServerSideEncryption": destination.server_side_encryption, "SSEKMSKeyId": destination.kms_key_id}
        return {name: value for name, value in asked.items() if value}

    def _open(self) -> Any:
        """The client, built once: it is safe between threads, and the session that makes it is not."""
        with self._building:
            if self._client is None:
                self._client = s3_client(self._destination, max_attempts=self._max_attempts)
            return self._client

    def _pages(self, prefix: str, **how: str) -> Iterator[Any]:
        bucket, key = self._parts(prefix)
        try:
            yield from self._open().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, **how)
        except REFUSED as error:
            raise self._unreadable(error, prefix) from error

    def _parts(self, where: str) -> tuple[str, str]:
        return parts_of(self._uri(where))

    def _uri(self, where: str) -> str:
        return where if where.startswith("s3://") else f"s3://{self._destination.bucket_name}/{where}"

    def _unreadable(self, error: Exception, where: str) -> ObjectUnreadable:
        why = self.explain(error, where)
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
        if code in ABSENT:
            return ObjectMissing(why, f"there is no object {why.uri}")
        if code == "NoSuchBucket":
            bucket, _ = parts_of(why.uri)
            return ObjectUnreadable(why, f"there is no bucket {bucket!r}; check the address and the endpoint")
        said = f" The store says: {why.store_says!r}" if why.store_says else ""
        absent = MAY_BE_ABSENT if code in DENIED else ""
        return ObjectUnreadable(why, f"{why.uri}: {why.code}: {why.advice}.{absent}{said}")
