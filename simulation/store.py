"""The store as the simulation sees it from behind: objects and unfinished uploads, without a request."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import moto.s3.models
import s3transfer.upload
from moto.s3.models import s3_backends

from m3ter_dagster.delivery import fingerprints, s3_objects
from m3ter_sandbox.s3 import ACCOUNT

PART_SIZE = 4_000
"""Most files are sent in parts."""

Place = tuple[str, str]
"""Bucket and key."""


def objects(buckets: Any) -> dict[Place, Any]:
    """Moto's objects, each with `etag` and `value`."""
    found = s3_backends[ACCOUNT]["aws"].buckets
    return {(bucket, key): one for bucket in buckets for key, one in found[bucket].keys.items()}


def open_uploads(buckets: Any) -> list[Place]:
    found = s3_backends[ACCOUNT]["aws"].buckets
    return [(bucket, one.key_name) for bucket in buckets for one in found[bucket].multiparts.values()]


@contextmanager
def small_parts() -> Generator[None]:
    """Files are sent in small parts by this process and its forks; real stores want 5 MiB at least."""
    with (
        patch.object(fingerprints, "PART_SIZE", PART_SIZE),
        patch.object(s3_objects, "PART_SIZE", PART_SIZE),
        patch.object(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1),
        patch.object(s3transfer.upload, "ChunksizeAdjuster", _AsTheyAre),
    ):
        yield


class _AsTheyAre:
    def adjust_chunksize(self, size: int, file_size: int | None = None) -> int:  # noqa: ARG002
        return size
