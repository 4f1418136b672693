"""The receiving end of a webhook: real HTTP on loopback, with answers in a given order, the last one for ever."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from m3ter_dagster.alarms.webhook import Webhook
from m3ter_sandbox.loopback import LoopbackServer, Startable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SECRET = "TheSecretPartOfTheAddress"
PATH = f"/services/T0/B0/{SECRET}"


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    """Nothing is said until the receiver closes."""


class Receiver(Startable):
    def __init__(self, *answers: Answer) -> None:
        self.answers: Sequence[Answer] = answers or (Answer(),)
        self.posts: list[Any] = []
        self.requests: list[Mapping[str, Any]] = []
        self.sleeps: list[float] = []
        """What the webhook would have slept."""
        self._closing = Event()
        self._server = LoopbackServer(self._application)
        self.url = self._server.url + PATH

    @property
    def texts(self) -> list[str]:
        return [post["text"] for post in self.posts]

    def webhook(self, **values: Any) -> Webhook:
        return Webhook(SecretStr(self.url), **{"sleep": self.sleeps.append, **values})

    def _application(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.requests.append(dict(environ))
        self.posts.append(json.loads(body))
        answer = self.answers[min(len(self.posts), len(self.answers)) - 1]
        if answer.hangs:
            self._closing.wait()
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        start_response(f"{answer.status} -", list(headers.items()))
        return [answer.body]

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._closing.set()
        self._server.close()
