"""Dagster's UI as a person starts it, on a free port."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from processes import PROGRAM, end, start
from urllib3 import PoolManager, Retry

SERVING = b"Serving dagster-webserver on"
LOAD_ERRORS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries { locationOrLoadError { ... on PythonError { message causes { message } } } }
    }
  }
}
"""


@contextmanager
def dagster_ui(environment: Mapping[str, str], home: Path) -> Iterator[str]:
    """The address of the UI; `home` is the DAGSTER_HOME. At the end nothing of it may be left running."""
    port = str(_free_port())
    environment = {**environment, "DAGSTER_HOME": str(home)}
    process = start(PROGRAM, "ui", "--port", port, environment=environment, output=subprocess.PIPE)
    log: list[bytes] = []
    serves_or_ended = Event()
    assert process.stdout
    reader = Thread(target=_read, args=(process.stdout, log, serves_or_ended), daemon=True)
    reader.start()
    try:
        assert serves_or_ended.wait(120), b"".join(log).decode()
        assert SERVING in b"".join(log), b"".join(log).decode()
        _assert_loaded(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        try:
            end(process)
        finally:
            reader.join()
            process.stdout.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _read(lines: Iterable[bytes], log: list[bytes], serves_or_ended: Event) -> None:
    """Read the log to its end, or dagster dev would stand still once the pipe is full."""
    for line in lines:
        if not serves_or_ended.is_set():
            log.append(line)
        if SERVING in line:
            serves_or_ended.set()
    serves_or_ended.set()


def _assert_loaded(address: str) -> None:
    """The code location has no load error. Waits for the port, which opens just after the line in the log."""
    with PoolManager(retries=Retry(connect=30, backoff_factor=0.1, backoff_max=1)) as pool:
        answer = pool.request("POST", f"{address}/graphql", json={"query": LOAD_ERRORS}).json()
    (location,) = answer["data"]["workspaceOrError"]["locationEntries"]
    assert location["locationOrLoadError"] == {}, location["locationOrLoadError"]
