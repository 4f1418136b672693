"""A sample m3ter organization and an S3 on this machine: everything an export needs, without an account anywhere."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from m3ter_sandbox.access import Clock
from m3ter_sandbox.answers import KEYSET, OFFSET
from m3ter_sandbox.api import LoggedRequest, SandboxApi
from m3ter_sandbox.data_exports import data_export_routes, sample_destinations, sample_schedules
from m3ter_sandbox.loopback import Startable
from m3ter_sandbox.organization import SampleOrganization
from m3ter_sandbox.s3 import Keys, Role, SandboxS3, User, allow, deny
from m3ter_sandbox.usage_exports import sample_usage_exports
from m3ter_sandbox.values import Seed

__all__ = [
    "KEYSET",
    "OFFSET",
    "Keys",
    "LoggedRequest",
    "Role",
    "SampleOrganization",
    "Sandbox",
    "SandboxApi",
    "SandboxS3",
    "User",
    "allow",
    "deny",
]

BUCKETS = ("sandbox-warehouse", "sandbox-archive")
EXPORTS = """\
destinations:
  - code: warehouse
    name: Data warehouse bucket
    bucketName: {warehouse}
    prefix: m3ter
    partitionOrder: TIME_FIRST
    endpointUrl: {endpoint_url}
  - code: archive
    name: Archive bucket
    bucketName: {archive}
    partitionOrder: TYPE_FIRST
    endpointUrl: {endpoint_url}
defaultDestinations: [warehouse, archive]
"""


class Sandbox(Startable):
    """A sample organization's API and an S3 with two destinations, from `start` to `close` or inside a `with`."""

    def __init__(
        self,
        accounts: int = 60,
        *,
        seed: int = 1,
        folder: Path | None = None,
        requests_per_second: int | None = 50,
        token_lifetime: float = 18_000,
        clock: Clock = time.time,
        api_port: int = 0,
        s3_port: int = 0,
    ) -> None:
        self.organization = SampleOrganization(accounts, seed)
        self.usage = sample_usage_exports(self.organization, clock)
        self.api = SandboxApi(
            self.organization.records(),
            requests_per_second=requests_per_second,
            token_lifetime=token_lifetime,
            clock=clock,
            port=api_port,
            further_routes=[
                data_export_routes(sample_destinations(Seed(seed)), sample_schedules(Seed(seed))),
                self.usage.routes(),
            ],
        )
        self.s3 = SandboxS3(BUCKETS, port=s3_port)
        self._folder = folder
        self._stack = ExitStack()
        self.exports: Path
        """The exports.yaml, from `start` on."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which an export finds this sandbox."""
        return {**self.api.environment, **self.s3.environment, "M3TER_EXPORTS": str(self.exports)}

    def start(self) -> None:
        with ExitStack() as stack:
            self.exports = (self._folder or Path(stack.enter_context(TemporaryDirectory()))) / "exports.yaml"
            self.exports.parent.mkdir(parents=True, exist_ok=True)
            warehouse, archive = BUCKETS
            text = EXPORTS.format(warehouse=warehouse, archive=archive, endpoint_url=self.s3.endpoint_url)
            self.exports.write_text(text, encoding="utf-8")
            stack.enter_context(self.api)
            stack.enter_context(self.s3)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()
