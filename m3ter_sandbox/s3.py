"""A loopback S3 with IAM and STS: moto behind real HTTP, lenient until its authentication is turned on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen
from uuid import uuid4

import boto3
from moto.backends import get_backend
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

from m3ter_sandbox.loopback import LoopbackServer, QuietHandler, Startable

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    Around = Callable[[WSGIApplication], WSGIApplication]

REGION = "us-east-1"
ACCOUNT = "123456789012"
"""The AWS account that moto pretends to be."""
ANYONE = "anyone"
"""Keys that moto takes as long as its authentication is off."""


@dataclass(frozen=True)
class Keys:
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class User:
    """An IAM user and the policy statements it has (`allow` makes them)."""

    name: str
    statements: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Role:
    """An IAM role: the statements it has, the users that may assume it, and with which external id."""

    name: str
    statements: Sequence[Mapping[str, Any]] = ()
    trusted_users: Sequence[str] = ()
    external_id: str | None = None

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{ACCOUNT}:role/{self.name}"


def allow(action: str, resource: str) -> dict[str, str]:
    """A policy statement, for instance `allow("s3:PutObject", "arn:aws:s3:::bucket/prefix/*")`."""
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def deny(action: str, resource: str) -> dict[str, str]:
    return {**allow(action, resource), "Effect": "Deny"}


class SandboxS3(Startable):
    """Buckets behind `endpoint_url`, from `start` to `close` or inside a `with`.

    Moto keeps its buckets once per process: they are gone when the last open sandbox of the process closes.
    """

    _open = 0
    _lock = Lock()

    def __init__(self, buckets: Sequence[str] = (), *, port: int = 0, around: Around | None = None) -> None:
        """`around` stands between the server and the store, for example to refuse requests."""
        self.buckets = tuple(buckets)
        application = DomainDispatcherApplication(create_backend_app)
        application = around(application) if around else application
        self._server = LoopbackServer(application, port=port, handler=_QuietMotoHandler)
        self.endpoint_url = self._server.url
        self.root = Keys(ANYONE, ANYONE)
        self._client = cache(self._new_client)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.root.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.root.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str = "s3", keys: Keys | None = None) -> Any:
        """A boto3 client of the sandbox, always the same; without `keys` it may do everything."""
        return self._client(service, keys or self.root)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """The whole bucket: contents by key, as moto has them: a request for each would take long."""
        stored = get_backend("s3")[ACCOUNT]["aws"].get_bucket(bucket).keys
        return {key: stored[key].value for key in sorted(stored.keys())}

    def enforce_authentication(self, users: Iterable[User] = (), roles: Iterable[Role] = ()) -> dict[str, Keys]:
        """From now on only these users, these roles and root may do something; returns the users' keys."""
        keys = {user.name: self._add_user(user) for user in users}
        for role in roles:
            self._add_role(role)
        self._set_requests_before_authentication("0")
        return keys

    def start(self) -> None:
        self._server.start()
        with SandboxS3._lock:
            SandboxS3._open += 1
        self.root = self._add_user(User(f"root-{uuid4()}", [allow("*", "*")]))
        for bucket in self.buckets:
            self.client().create_bucket(Bucket=bucket)

    def close(self) -> None:
        if self._server.is_running:
            self._forget()
        self._server.close()

    def _forget(self) -> None:
        with SandboxS3._lock:
            SandboxS3._open -= 1
            if SandboxS3._open == 0:
                self._set_requests_before_authentication("inf")
                self._post("/moto-api/reset")

    def _new_client(self, service: str, keys: Keys) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
        )

    def _add_user(self, user: User) -> Keys:
        iam = self.client("iam")
        iam.create_user(UserName=user.name)
        if user.statements:
            document = _document(user.statements)
            iam.put_user_policy(UserName=user.name, PolicyName="sandbox", PolicyDocument=document)
        key = iam.create_access_key(UserName=user.name)["AccessKey"]
        return Keys(key["AccessKeyId"], key["SecretAccessKey"])

    def _add_role(self, role: Role) -> None:
        iam = self.client("iam")
        trusted = [f"arn:aws:iam::{ACCOUNT}:user/{name}" for name in role.trusted_users]
        trust: dict[str, Any] = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": trusted}}
        if role.external_id is not None:
            trust["Condition"] = {"StringEquals": {"sts:ExternalId": role.external_id}}
        iam.create_role(RoleName=role.name, AssumeRolePolicyDocument=_document([trust]))
        if role.statements:
            document = _document(role.statements)
            iam.put_role_policy(RoleName=role.name, PolicyName="sandbox", PolicyDocument=document)

    def _set_requests_before_authentication(self, count: str) -> None:
        """How many requests moto still answers without looking at who asks."""
        self._post("/moto-api/reset-auth", count)

    def _post(self, path: str, text: str = "") -> None:
        request = Request(self.endpoint_url + path, text.encode(), {"Content-Type": "text/plain"}, method="POST")
        with urlopen(request) as answer:
            answer.read()


class _QuietMotoHandler(QuietHandler, MotoRequestHandler):
    """Moto's own handler, which keeps the case of metadata headers."""


def _document(statements: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
