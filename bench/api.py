"""A loopback m3ter API in a process of its own, as cheap per request as it can be: `python -m bench.api`."""

from __future__ import annotations

import asyncio
import re
import sys
from functools import cache

from bench.organization import Data, Organization

TOKEN = b'{"access_token":"benchmark","token_type":"bearer","expires_in":18000}'
CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Answers one request after the other, each after the latency."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            announced = CONTENT_LENGTH.search(head)
            length = int(announced[1]) if announced else 0
            if len(rest) < length:
                return
            self._received = rest[length:]
            self._send(_answer(head))

    def _send(self, answer: bytes) -> None:
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
        else:
            self._transport.write(answer)


def _answer(head: bytes) -> bytes:
    method, target, _ = head.split(b" ", 2)
    status, body = b"200 OK", TOKEN
    if method == b"GET":
        path, _, query = target.decode().partition("?")
        _, _, organization_id, path = path.split("/", 3)
        try:
            body = _organization(organization_id).page(f"/{path}", query)
        except KeyError:
            status, body = b"404 Not Found", b'{"message":"The benchmark has no such list."}'
    headers = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return headers % (status, len(body)) + body


@cache
def _organization(organization_id: str) -> Organization:
    return Organization(Data.of(organization_id))


async def serve(latency: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(latency), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
