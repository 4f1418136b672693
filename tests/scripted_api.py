"""A loopback HTTP server that answers from a script: for each path a list of answers, the last one for ever."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ssl import SSLContext
from threading import Event, Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from raw_http import RawHandler, RawServer

from m3ter_sandbox.loopback import Startable

ORGANIZATION = "org-1"
KEY, SECRET = "the-key", "the-secret"
TOKEN_PATH = "/oauth/token"


@dataclass(frozen=True)
class Answer:
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: float = 1.0
    """Which part of the body is sent before the connection ends; below 0 not even the headers are."""
    resets: bool = False
    """Whether the connection ends with a reset."""
    waits_for: Event | None = None
    """Nothing is sent before this."""


def page(*rows: Any, next_token: str | None = None, **more: Any) -> Answer:
    token = {"nextToken": next_token} if next_token is not None else {}
    return Answer(json.dumps({"data": list(rows), **token, **more}).encode())


def refusal(status: int, message: str = "no", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps({"message": message}).encode(), status, named)


def token_answer(token: str, *, lifetime: float = 18_000) -> Answer:
    return Answer(json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": lifetime}).encode())


def stored(content: bytes, *broken: Mapping[str, Any]) -> Callable[[Request], Answer]:
    """A store that keeps one file and knows ranges; its first answers are changed by `broken`."""
    left = list(broken)

    def get(request: Request) -> Answer:
        assert "authorization" not in request.headers
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"etag": '"v1"'}
        if start:
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        found = Answer(content[start:], 206 if start else 200, headers)
        return replace(found, **left.pop(0)) if left else found

    return get


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def bearer(self) -> str:
        return self.headers["authorization"].removeprefix("Bearer ")

    @property
    def basic(self) -> str:
        return b64decode(self.headers["authorization"].removeprefix("Basic ")).decode()


Script = Sequence[Answer] | Callable[[Request], Answer]


class ScriptedApi(Startable):
    """Lists are scripted by their path after the organization; tokens are `token-1`, `token-2`, unless scripted."""

    def __init__(
        self,
        lists: Mapping[str, Script],
        *,
        tokens: Script | None = None,
        lifetime: float = 18_000,
        tls: SSLContext | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.arrived = Event()
        """Set by the first request for a list."""
        self._scripts: dict[str, Script] = {f"/organizations/{ORGANIZATION}{path}": one for path, one in lists.items()}
        self._scripts[TOKEN_PATH] = tokens or self._next_token
        self._lifetime = lifetime
        self._lock = Lock()
        self._server = RawServer(self, _Handler, tls=tls)
        self.base_url = self._server.url

    def asked(self, path: str) -> list[Request]:
        """The requests for a list so far."""
        return [one for one in self.requests if one.path == f"/organizations/{ORGANIZATION}{path}"]

    @property
    def token_requests(self) -> list[Request]:
        return [one for one in self.requests if one.path == TOKEN_PATH]

    def answer(self, request: Request) -> Answer:
        script = self._scripts.get(request.path)
        if script is None:
            return refusal(404, "no such list")
        with self._lock:
            self.requests.append(request)
            if not isinstance(script, Sequence):
                return script(request)
            number = sum(one.path == request.path for one in self.requests)
            return script[min(number, len(script)) - 1]

    def _next_token(self, _request: Request) -> Answer:
        return token_answer(f"token-{len(self.token_requests)}", lifetime=self._lifetime)

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.close()


class _Handler(RawHandler):
    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        assert isinstance(self.server, RawServer)
        api: ScriptedApi = self.server.owner
        request = Request(self.command, url.path, dict(parse_qsl(url.query)), headers, body, time.monotonic())
        answer = api.answer(request)
        if request.path != TOKEN_PATH:
            api.arrived.set()
        if answer.waits_for:
            answer.waits_for.wait()
        with suppress(OSError):
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        if answer.sent >= 0:
            self.send_response(answer.status)
            for name, value in ({"content-length": str(len(answer.body))} | dict(answer.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body[: int(len(answer.body) * answer.sent)])
            self.wfile.flush()
        if answer.sent != 1 or answer.resets:
            self.end_connection(reset=answer.resets)
