"""What can go wrong with the requests of a run: a gate before each server, and what it lets happen."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass(frozen=True)
class Exchange:
    """One request, which the server may or may not hear of."""

    gate: Gate
    environ: WSGIEnvironment
    start: StartResponse

    def pass_on(self) -> Iterable[bytes]:
        return self.gate.application(self.environ, self.start)

    def answer(self, status: str, body: bytes, content_type: str) -> Iterable[bytes]:
        """An answer that is not the server's. The connection ends, as the request's body is not read."""
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Connection", "close")]
        self.environ["wsgi.input"].read(int(self.environ.get("CONTENT_LENGTH") or 0))
        self.start(status, headers)
        return [body]


Effect = Callable[[Exchange], Iterable[bytes]]


@dataclass(frozen=True)
class Fault:
    """Happens to one request of a run."""

    where: str
    """A pattern of its method and path with query."""
    number: int
    """Which of those that match, from 1."""
    effect: Effect
    words: str


class Gate:
    """Stands before a server. One request after the other passes through where something may be planned for it."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.process = 0
        """The process whose requests these are."""
        self.happened: list[str] = []
        self.requests = 0
        """Of the process."""
        self.down: Effect | None = None
        """What happens to all requests."""
        self._planned: Sequence[Fault] = ()
        self._counts: dict[str, int] = {}
        self._lock = Lock()

    def plan(self, faults: Sequence[Fault]) -> None:
        """For the next run, instead of all that was planned before."""
        self._planned, self._counts, self.happened, self.requests = faults, {}, [], 0

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING")
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}" + (f"?{query}" if query else "")
        with self._lock:
            self.requests += 1
            effect = self.down or self._effect(line)
            return effect(Exchange(self, environ, start))

    def _effect(self, line: str) -> Effect:
        found: Effect = Exchange.pass_on
        for where in dict.fromkeys(fault.where for fault in self._planned):
            if re.search(where, line):
                number = self._counts[where] = self._counts.get(where, 0) + 1
                for fault in self._planned:
                    if (fault.where, fault.number) == (where, number):
                        self.happened.append(fault.words)
                        found = fault.effect
        return found


# Effects


def unavailable(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer("503 Service Unavailable", b'{"message":"down"}', "application/json")


def too_many(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer("429 Too Many Requests", b'{"message":"too many"}', "application/json")


def slow_down(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer("503 Slow Down", _s3_error("SlowDown"), "text/xml")


def denied(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer("403 Forbidden", _s3_error("AccessDenied"), "text/xml")


def _s3_error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def slow(exchange: Exchange) -> Iterable[bytes]:
    """Others wait as well."""
    time.sleep(0.1)
    return exchange.pass_on()


def reset(exchange: Exchange) -> Iterable[bytes]:
    """The connection ends without an answer."""
    exchange.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def lost_reply(exchange: Exchange) -> Iterable[bytes]:
    """The server does what it was asked for, and nobody hears of it."""
    _whole_answer(exchange)
    return reset(exchange)


def cut_off(exchange: Exchange) -> Iterable[bytes]:
    """Half of the answer, and then the connection ends."""
    (status, headers), body = _whole_answer(exchange)
    exchange.start(status, [*headers, ("Connection", "close")])
    return [body[: len(body) // 2]]


def dies_before(exchange: Exchange) -> Iterable[bytes]:
    """The process dies before the server hears of its request."""
    os.kill(exchange.gate.process, signal.SIGKILL)
    return reset(exchange)


def dies_after(exchange: Exchange) -> Iterable[bytes]:
    """The process dies when the server has done what it was asked for."""
    _whole_answer(exchange)
    return dies_before(exchange)


def after(happening: Callable[[], Any]) -> Effect:
    """Something happens just before the server hears of the request."""

    def passed_on(exchange: Exchange) -> Iterable[bytes]:
        happening()
        return exchange.pass_on()

    return passed_on


def _whole_answer(exchange: Exchange) -> tuple[tuple[str, list[tuple[str, str]]], bytes]:
    answered: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
        answered.append((status, headers))
        return lambda _: None

    body = b"".join(exchange.gate.application(exchange.environ, start))
    return answered[-1], body
