"""An organization, its API and its buckets, a faulty proxy before each server, and what exports came to there."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import pytest
from faulty_proxy import FaultyProxy
from processes import plain_environment
from stores import Key, Store

from m3ter_dagster.config import S3Destination
from m3ter_dagster.delivery.destinations import store_of
from m3ter_dagster.model.entities import entities
from m3ter_dagster.verification.data_package import read_data_package
from m3ter_dagster.verification.verify import verify
from m3ter_sandbox import SampleOrganization, SandboxApi

NAMES = ("account", "account_plan", "meter", "product")
"""One that is asked for per account, one of several pages, two of a single page."""
TOKEN_LIFETIME = 18_000.0

Objects = dict[tuple[str, str], bytes]
"""By bucket and key."""
Records = list[tuple[str, dict[str, Any]]]


class JumpingClock:
    """A server's; tokens expire by it."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds

    def jump(self) -> None:
        self.seconds += 2 * TOKEN_LIFETIME


@dataclass(frozen=True)
class House:
    store: Store
    key: Key
    """That deliveries use."""
    buckets: dict[str, str]
    """By the codes of their destinations."""
    server: SandboxApi
    clock: JumpingClock
    api: FaultyProxy
    s3: FaultyProxy
    exports: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.server.environment,
            "M3TER_BASE_URL": self.api.url,
            "M3TER_REQUESTS_PER_SECOND": "50",
            "M3TER_EXPORTS": str(self.exports),
            "AWS_ACCESS_KEY_ID": self.key.id,
            "AWS_SECRET_ACCESS_KEY": self.key.secret,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def move_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on the environment names this house and nothing else of AWS, m3ter or a proxy."""
        for name in os.environ.keys() - plain_environment().keys():
            monkeypatch.delenv(name)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def heal(self) -> None:
        self.api.heal()
        self.s3.heal()

    def objects(self) -> Objects:
        """Everything that stands in a bucket, under whatever name."""
        return {(bucket, key): self.store.content(bucket, key) for bucket, key in self.places()}

    def places(self) -> list[tuple[str, str]]:
        """Bucket and key of everything that stands in a bucket, under whatever name."""
        return [(bucket, key) for bucket in self.buckets.values() for key in self.store.keys(bucket)]

    def delivered(self) -> dict[tuple[str, str], bytes]:
        """The CSVs by destination and type; there is one of each."""
        codes = {bucket: code for code, bucket in self.buckets.items()}
        found = [((codes[bucket], type_of(key)), content) for (bucket, key), content in self.objects().items()]
        csvs = [(where, content) for where, content in found if where[1] in entities()]
        assert len(dict(csvs)) == len(csvs)
        return dict(csvs)

    def manifests(self) -> list[str]:
        return [f"s3://{bucket}/{key}" for bucket, key in self.places() if key.endswith("_manifest.json")]

    def open_uploads(self) -> list[Any]:
        return [one for bucket in self.buckets.values() for one in self.store.open_uploads(bucket)]

    def findings(self) -> list[str]:
        """What a verification of every manifest finds."""
        return [str(one) for manifest in self.manifests() for one in self._verify(manifest)]

    def _verify(self, manifest: str) -> Sequence[object]:
        bucket = manifest.split("/")[2]
        store = store_of(S3Destination(code="any", bucket_name=bucket, endpoint_url=self.store.endpoint))
        package = read_data_package(store.read(manifest, at_most=1_000_000))
        with TemporaryDirectory() as folder:
            report = verify(package, manifest, store=store, folder=Path(folder), found=lambda _: None)
        assert {one.entity for one in report.entities} == {type_of(key) for _, key in self.places()} & entities().keys()
        return report.findings


@contextmanager
def open_house(
    store: Store,
    folder: Path,
    records: Records,
    *,
    codes: Sequence[str] = ("warehouse", "archive"),
    key: Key | None = None,
    prefixes: Mapping[str, str] = MappingProxyType({}),
) -> Generator[House]:
    """Buckets of its own, and no fault planned yet."""
    clock = JumpingClock()
    server = SandboxApi(records, requests_per_second=None, token_lifetime=TOKEN_LIFETIME, clock=clock)
    with server, FaultyProxy(server.base_url) as api, FaultyProxy(store.endpoint) as s3:
        buckets = {code: store.new_bucket() for code in codes}
        exports = folder / "exports.yaml"
        destinations = [
            {"code": code, "bucketName": bucket, "prefix": prefixes.get(code, "m3ter"), "endpointUrl": s3.url}
            for code, bucket in buckets.items()
        ]
        exports.write_text(json.dumps({"destinations": destinations}), encoding="utf-8")
        yield House(store, key or store.exporter, buckets, server, clock, api, s3, exports)


def type_of(key: str) -> str:
    found = re.search(r"/type=(\w+)/", key)
    return found[1] if found else ""


@cache
def small_organization() -> Records:
    """Of the sample the chosen entities, and meters for three pages."""
    sample = [(name, record) for name, record in SampleOrganization(6).records() if name in NAMES]
    return [*sample, *(("meter", {"id": f"meter-{number}", "name": "x" * 50}) for number in range(250))]


@cache
def large_meters() -> Records:
    """17.5 MB, so that their CSV travels in two parts."""
    letters = random.Random(7)
    return [("meter", {"id": f"large-{number}", "name": letters.randbytes(50_000).hex()}) for number in range(175)]
