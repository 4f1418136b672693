"""A server that sends a byte now and then, or nothing: each request and each page has an end, and so has a stop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from raw_http import RawHandler, RawServer

from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.downloads import download
from m3ter_dagster.m3ter.errors import DownloadFailed, Interrupted, Unavailable
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.m3ter.watch import Watch

TOKEN = json.dumps({"access_token": "x", "expires_in": 18_000}).encode()
UNHURRIED = Limits(requests_per_second=10_000)
BRIEF = replace(UNHURRIED, request_seconds=0.3, patience_seconds=0.0, outage_patience_seconds=0.0)
LONG = 10.0
"""Seconds: far more than anything here takes, far less than the limits that are not in question."""
STARTS = {
    "headers": b"HTTP/1.1 200 OK\r\nx-more: ",
    "a body": b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
    "a body that was whole": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[]",
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n",
    "nothing": b"",
}


class Dripping:
    """Answers a GET with `start` and then with a blank now and then, until it is closed."""

    def __init__(self, start: bytes) -> None:
        self.start = start
        self.arrived, self.closed = threading.Event(), threading.Event()


class _Handler(RawHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(TOKEN)))
        self.end_headers()
        self.wfile.write(TOKEN)

    def do_GET(self) -> None:
        assert isinstance(self.server, RawServer)
        dripping: Dripping = self.server.owner
        self.wfile.write(dripping.start)
        dripping.arrived.set()
        while not dripping.closed.wait(0.02):
            if dripping.start:
                self.wfile.write(b"1\r\n \r\n" if b"chunked" in dripping.start else b" ")
        self.close_connection = True


Serve = Callable[[bytes], tuple[Dripping, str]]


@pytest.fixture
def serve(no_proxy: None) -> Iterator[Serve]:  # noqa: ARG001
    servers: list[RawServer] = []

    def start(first: bytes) -> tuple[Dripping, str]:
        servers.append(RawServer(Dripping(first), _Handler))
        servers[-1].start()
        return servers[-1].owner, servers[-1].url

    yield start
    for server in servers:
        server.owner.closed.set()
        server.close()


def client_of(url: str, limits: Limits, stop: threading.Event | None = None) -> M3terClient:
    return M3terClient(url, "org", Credentials("key", "secret"), limits=limits, stop=stop or threading.Event())


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_request_has_an_end(serve: Serve, start: bytes) -> None:
    _, url = serve(start)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"failed 1 times, last because it took more than 0\.3 seconds\."):
        client_of(url, BRIEF).get("/x", json.loads)
    assert 0.3 <= time.monotonic() - began < LONG


def test_so_have_all_tries_of_a_page_together(serve: Serve) -> None:
    _, url = serve(STARTS["a body"])
    limits = replace(UNHURRIED, request_seconds=0.2, page_seconds=0.3)
    with pytest.raises(Unavailable, match=r"failed 2 times, last because it took more than 0\.2 seconds\."):
        client_of(url, limits).get("/x", json.loads)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_stop_waits_for_nobody(serve: Serve, start: bytes) -> None:
    stop = threading.Event()
    dripping, url = serve(start)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(client_of(url, replace(UNHURRIED, stop_seconds=0.1), stop).get, "/x", json.loads)
        assert dripping.arrived.wait(LONG)
        stop.set()
        with pytest.raises(Interrupted):
            reading.result(LONG)


def test_an_answer_that_is_on_its_way_at_the_stop_still_arrives(serve: Serve) -> None:
    stop = threading.Event()
    dripping, url = serve(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[]")
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(client_of(url, replace(UNHURRIED, stop_seconds=LONG), stop).get, "/x", json.loads)
        assert dripping.arrived.wait(LONG)
        stop.set()
        dripping.closed.set()
        assert reading.result(LONG) == []


DRIPS = [name for name in STARTS if name not in ("headers", "nothing")]


@pytest.mark.parametrize("name", DRIPS)
def test_a_download_has_an_end(serve: Serve, tmp_path: Path, name: str) -> None:
    _, url = serve(STARTS[name])
    limits = replace(UNHURRIED, download_seconds=0.2)
    with pytest.raises(DownloadFailed, match=r"last because it took more than 0\.2 seconds\."):
        download("the file", lambda: url, tmp_path / "file", wait=time.sleep, limits=limits)


@pytest.mark.parametrize("name", DRIPS)
def test_a_stop_waits_for_no_download(serve: Serve, tmp_path: Path, name: str) -> None:
    dripping, url = serve(STARTS[name])

    def wait(_: float) -> None:
        if dripping.arrived.is_set():
            raise Interrupted

    with ThreadPoolExecutor(1) as thread, pytest.raises(Interrupted):
        thread.submit(download, "the file", lambda: url, tmp_path / "file", wait=wait).result(LONG)


def test_its_thread_ends_when_there_is_nothing_to_watch() -> None:
    before = set(threading.enumerate())
    watch = Watch(threading.Event(), seconds=0.1, stop_seconds=0.1)
    for _ in range(2):
        with watch.over():
            (thread,) = set(threading.enumerate()) - before
        thread.join(LONG)
        assert not thread.is_alive()
