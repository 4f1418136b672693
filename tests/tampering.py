"""A proxy between a client and a store on the loopback interface, which alters, breaks off, or listens."""

from __future__ import annotations

import socket
import socketserver
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from threading import Thread
from urllib.parse import urlsplit

Tamper = Callable[[bytes], bytes]
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class BreakOff(Exception):
    """Raised by a tamper function: the connection is reset."""


def unchanged(data: bytes) -> bytes:
    return data


@contextmanager
def proxy(endpoint: str, *, to_store: Tamper = unchanged, to_client: Tamper = unchanged) -> Generator[str]:
    """The address of a proxy before `endpoint`; bytes pass through the two functions as they arrive."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            target = urlsplit(endpoint)
            with socket.create_connection((target.hostname, target.port)) as store:
                back = Thread(target=_pump, args=(store, self.request, to_client), daemon=True)
                back.start()
                _pump(self.request, store, to_store)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Connection) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()


def _pump(source: socket.socket, target: socket.socket, tamper: Tamper) -> None:
    """Pass bytes on until one side ends, and then end both."""
    with suppress(OSError):
        try:
            while data := source.recv(65536):
                target.sendall(tamper(data))
        except BreakOff:
            for side in (source, target):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
