"""A proxy between an export and one of its servers, which does to requests what a test plans."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection
from threading import Condition, Event
from urllib.parse import urlsplit

from faults import Exchange, Fault, Reply, unharmed
from raw_http import RawHandler, RawServer

from m3ter_sandbox.loopback import Startable

OF_ONE_CONNECTION = {"connection", "expect", "accept-encoding", "transfer-encoding", "content-length"}
PIECES = 16


class FaultyProxy(Startable):
    """Passes requests on to `endpoint` from inside its `with`, except where a fault is planned."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.lines: list[str] = []
        self.closing = Event()
        self._once: list[tuple[str, Fault]] = []
        self._always: list[tuple[str, Fault]] = []
        self._changed = Condition()
        self._busy = 0
        self._server = RawServer(self, _Handler)
        self.url = self._server.url

    def plan(self, where: str, *faults: Fault) -> None:
        """Each happens to one of the next requests whose line `where` is found in."""
        self._once += [(where, fault) for fault in faults]

    def always(self, where: str, fault: Fault) -> None:
        self._always.append((where, fault))

    def heal(self) -> None:
        self._once, self._always = [], []

    @property
    def left(self) -> list[str]:
        """Where the faults were planned that have not happened."""
        return [where for where, _ in self._once]

    def settle(self) -> None:
        """Returns when nothing of a client that has died is still on its way to the server."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._busy == 0, 30)

    def answer(self, exchange: Exchange) -> Reply:
        with self._changed:
            self._busy += 1
            self.lines.append(exchange.line)
            fault = self._fault(exchange.line)
        try:
            return fault(exchange)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _fault(self, line: str) -> Fault:
        planned = next((one for one in self._once if re.search(one[0], line)), None)
        if planned:
            self._once.remove(planned)
            return planned[1]
        return next((fault for where, fault in self._always if re.search(where, line)), unharmed)

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self.closing.set()
        self._server.close()


class _Handler(RawHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, RawServer)
        proxy: FaultyProxy = self.server.owner
        self._endpoint = urlsplit(proxy.endpoint)
        self._left = int(self.headers.get("content-length", 0))
        exchange = Exchange(f"{self.command} {self.path}", self._read, self._pass_on, proxy.closing.wait)
        reply = proxy.answer(exchange)
        with suppress(OSError):
            self._send(reply)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _read(self, part: float) -> bytes:
        size = int(self._left * part)
        self._left -= size
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionResetError("the client has gone")
        return body

    def _pass_on(self) -> Reply:
        """A whole request or none, and the answer; each over a connection of its own."""
        body = self._read(1)
        connection = HTTPConnection(str(self._endpoint.hostname), self._endpoint.port)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in _passed(self.headers):
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            with connection.getresponse() as answer:
                return Reply(answer.read(), answer.status, _answered(answer.headers, is_head=self.command == "HEAD"))
        finally:
            connection.close()

    def _send(self, reply: Reply) -> None:
        if reply.sent >= 0:
            self.send_response_only(reply.status)
            lengths = [] if self.command == "HEAD" else [("content-length", str(len(reply.body)))]
            for name, value in (*reply.headers, *lengths):
                self.send_header(name, value)
            self.end_headers()
            self._send_body(reply)
        if reply.sent != 1 or reply.resets or self._left:
            self.end_connection(reset=reply.resets)

    def _send_body(self, reply: Reply) -> None:
        body = reply.body[: int(len(reply.body) * reply.sent)]
        size = max(len(body) // PIECES, 1)
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            reply.waits()


def _passed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in OF_ONE_CONNECTION]


def _answered(headers: Mapping[str, str], *, is_head: bool) -> list[tuple[str, str]]:
    """The answer to a HEAD has the length of a body that is not there."""
    lengths = [("content-length", value) for name, value in headers.items() if name.lower() == "content-length"]
    return _passed(headers) + (lengths if is_head else [])
