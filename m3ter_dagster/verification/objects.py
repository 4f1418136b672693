"""The objects of a delivered export, read with the credentials of a destination or the ordinary ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from m3ter_dagster.delivery.s3_clients import s3_client
from m3ter_dagster.delivery.s3_objects import download
from m3ter_dagster.delivery.s3_refusals import DENIED, refusal

if TYPE_CHECKING:
    from m3ter_dagster.config import Destination

MAX_ATTEMPTS = 5
LARGEST_MANIFEST = 64 * 1024 * 1024
ABSENT = {"404", "NoSuchKey"}
MAY_BE_ABSENT = " Or it is not there, which a store tells only to those who may s3:ListBucket."


class ObjectMissing(Exception):
    def __init__(self, uri: str) -> None:
        super().__init__(f"there is no object {uri}")


class ObjectUnreadable(Exception):
    """The store does not give an object; the text says why and what to do."""


@dataclass(frozen=True)
class Store:
    """The store that an export was delivered to."""

    destination: Destination
    client: Any

    def read(self, uri: str) -> bytes:
        """A small object. Nothing that is large is read."""
        bucket, key = parts_of(uri)
        try:
            answer = self.client.get_object(Bucket=bucket, Key=key)
            if answer["ContentLength"] > LARGEST_MANIFEST:
                raise ObjectUnreadable(f"{uri} has {answer['ContentLength']:,} bytes, which no manifest has")
            return answer["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise self._worded(error, uri) from error

    def fetch(self, uri: str, to: Path) -> None:
        """Download an object: in parts, and a part again when it breaks off."""
        bucket, key = parts_of(uri)
        try:
            download(self.client, bucket=bucket, key=key, to=to)
        except (BotoCoreError, ClientError) as error:
            raise self._worded(error, uri) from error

    def uris(self, prefix: str) -> list[str]:
        """What stands under addresses that begin like this."""
        bucket, key = parts_of(prefix)
        try:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            return [f"s3://{bucket}/{one['Key']}" for page in pages for one in page.get("Contents", [])]
        except (BotoCoreError, ClientError) as error:
            raise self._worded(error, prefix) from error

    def _worded(self, error: Exception, uri: str) -> ObjectMissing | ObjectUnreadable:
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
        if code in ABSENT:
            return ObjectMissing(uri)
        if code == "NoSuchBucket":
            return ObjectUnreadable(f"there is no bucket {parts_of(uri)[0]!r}; check the address and the endpoint")
        bucket, key = parts_of(uri)
        why = refusal(error, self.destination, bucket=bucket, key=key)
        said = f" The store says: {why.store_says!r}" if why.store_says else ""
        return ObjectUnreadable(f"{uri}: {why.code}: {why.advice}.{MAY_BE_ABSENT if code in DENIED else ''}{said}")


def open_store(destination: Destination) -> Store:
    """Nothing is asked before the first object is. ObjectUnreadable if there can be no client."""
    try:
        return Store(destination, _client(destination))
    except BotoCoreError as error:
        why = refusal(error, destination, bucket=destination.bucket_name, key="")
        raise ObjectUnreadable(f"{why.code}: {why.advice}.") from error


def parts_of(uri: str) -> tuple[str, str]:
    """Bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _client(destination: Destination) -> Any:
    if destination.iam_role_arn:
        return s3_client(destination, max_attempts=MAX_ATTEMPTS)
    # As s3_client, without Dagster's resource around it.
    from boto3 import Session
    from botocore.config import Config

    return Session().client(
        "s3",
        region_name=destination.region,
        endpoint_url=destination.endpoint_url,
        config=Config(retries={"mode": "standard", "max_attempts": MAX_ATTEMPTS}),
    )
