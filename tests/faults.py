"""What can go wrong between an export and its servers: each fault is a function from a request to what is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any


@dataclass(frozen=True)
class Reply:
    body: bytes = b""
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    sent: float = 1.0
    """Which part of the body is sent before the connection ends; below 0 not even the headers are."""
    resets: bool = False
    """Whether the connection ends with a reset."""
    waits: Callable[[], Any] = bool
    """Called after each piece of the body."""


@dataclass(frozen=True)
class Exchange:
    """A request whose body is still on its way."""

    line: str
    """Method and path with query."""
    read: Callable[[float], None]
    """Take a part of the body from the client, which is then never passed on."""
    pass_on: Callable[[], Reply]
    """What the server answers."""
    hang: Callable[[], Any]
    """Returns when the client has given up or the proxy ends."""


Fault = Callable[[Exchange], Reply]


@dataclass
class Hold:
    """A fault: the exchange stands still at a moment, until released, and then the connection is reset."""

    moment: str
    """before, within or after the request reaches the server"""
    reached: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)

    def __call__(self, exchange: Exchange) -> Reply:
        if self.moment == "within":
            exchange.read(0.5)
        if self.moment == "after":
            exchange.pass_on()
        self.reached.set()
        self.released.wait()
        return RESET


# Faults


RESET = Reply(sent=-1, resets=True)


def unharmed(exchange: Exchange) -> Reply:
    return exchange.pass_on()


def instead(status: int, body: str = "", **headers: str) -> Fault:
    """The server never hears of the request."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]

    def answered(exchange: Exchange) -> Reply:
        exchange.read(1)
        return Reply(body.encode(), status, named)

    return answered


def s3_error(status: int, code: str) -> Fault:
    return instead(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", content_type="text/xml")


def altered(**changes: Any) -> Fault:
    """The server's answer, sent in another way."""
    return lambda exchange: replace(exchange.pass_on(), **changes)


def cut_off(exchange: Exchange) -> Reply:
    """As if the server had meant only half of it."""
    reply = exchange.pass_on()
    return replace(reply, body=reply.body[: len(reply.body) // 2])


def hanging(exchange: Exchange) -> Reply:
    exchange.hang()
    return RESET


def stalling(exchange: Exchange) -> Reply:
    """Half of the body, and then nothing for ever."""
    return replace(exchange.pass_on(), sent=0.5, waits=exchange.hang)


def slow(exchange: Exchange) -> Reply:
    pause = Event()
    return replace(exchange.pass_on(), waits=lambda: pause.wait(0.05))


def reset(_: Exchange) -> Reply:
    return RESET


def reset_within_request(exchange: Exchange) -> Reply:
    exchange.read(0.5)
    return RESET


def lost_reply(exchange: Exchange) -> Reply:
    """The server has done what it was asked for, and nobody hears of it."""
    exchange.pass_on()
    return RESET


def after(happening: Callable[[], Any]) -> Fault:
    """Something happens at the server just before it is asked."""

    def passed_on(exchange: Exchange) -> Reply:
        happening()
        return exchange.pass_on()

    return passed_on
