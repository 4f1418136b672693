"""The loopback API and the loopback S3 that the subjects use, each in a process whose CPU nobody counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

BUCKET = "bench"
REGION = "us-east-1"
# Each list once, as a script and dlt read it.
EXPORTS = """\
completeness: onePass
destinations:
  - code: bench
    bucketName: {bucket}
    endpointUrl: {endpoint_url}
"""
STORE = """\
import sys
from m3ter_sandbox.s3 import SandboxS3
with SandboxS3(sys.argv[1:]) as store:
    print(store.endpoint_url, store.root.access_key_id, store.root.secret_access_key, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Servers:
    api_url: str
    store: Any
    """A boto3 client of the S3."""
    store_environment: Mapping[str, str]
    exports: Path
    used_home: Path
    """A Dagster home that an export has used before, from the first export on."""

    def empty_the_store(self) -> None:
        for found in self.store.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.store.delete_object(Bucket=BUCKET, Key=found["Key"])


@contextmanager
def running_servers(folder: Path, *, latency: float = 0.0) -> Generator[Servers]:
    with ExitStack() as stack:
        (api_url,) = stack.enter_context(_server("-m", "bench.api", str(latency)))
        endpoint_url, key, secret = stack.enter_context(_server("-c", STORE, BUCKET))
        exports = folder / "exports.yaml"
        exports.write_text(EXPORTS.format(bucket=BUCKET, endpoint_url=endpoint_url))
        yield Servers(
            api_url,
            boto3.client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=REGION,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
            ),
            {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": REGION},
            exports,
            folder / "used-home",
        )


@contextmanager
def _server(*arguments: str) -> Generator[list[str]]:
    """The words of the line that a server prints once it answers."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()
        finally:
            process.terminate()
