"""A `dagster dev` of this project for the tests: started on a free port, ended with everything that it started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from select import select
from threading import Event, Thread

from urllib3 import PoolManager, Retry

PROJECT = Path(__file__).parents[1]
SERVING = "Serving dagster-webserver on"
SECONDS_TO_END = 60
"""Longer than a code server lives on without its dagster dev, which is 45."""

# A SIGINT that a shell ignores for its background jobs stays ignored, and dagster dev would then not end on SIGTERM.
PROGRAM = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execv(sys.executable, [sys.executable, "-m", "dagster", *sys.argv[1:]])
"""
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
def dagster_dev(environment: Mapping[str, str], home: Path) -> Iterator[str]:
    """The address of the UI; `home` is the DAGSTER_HOME. At the end nothing of it may be left running."""
    shutil.copy(PROJECT / "dagster.yaml", home)
    port = _free_port()
    process = _start({**environment, "DAGSTER_HOME": str(home)}, port)
    log: list[str] = []
    serves_or_ended = Event()
    assert process.stdout
    reader = Thread(target=_read, args=(process.stdout, log, serves_or_ended), daemon=True)
    reader.start()
    try:
        assert serves_or_ended.wait(120), "".join(log)
        assert SERVING in "".join(log), "".join(log)
        _assert_loaded(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(process, reader)


def _start(environment: Mapping[str, str], port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "dev", "-h", "127.0.0.1", "-p", str(port)],
        cwd=PROJECT,
        env={**_plain_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _plain_environment() -> dict[str, str]:
    """This machine's, without what would lead an export elsewhere."""
    others = ("AWS_", "DAGSTER_", "M3TER_")
    kept = (name for name in os.environ if not name.startswith(others) and not name.lower().endswith("_proxy"))
    return {name: os.environ[name] for name in kept}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _read(lines: Iterable[str], log: list[str], serves_or_ended: Event) -> None:
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


def _end(process: subprocess.Popen[str], reader: Thread) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    finally:
        left = {pid: command for pid, command in _running(session=process.pid).items() if not _ends(pid)}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.wait()
        reader.join()
        assert process.stdout
        process.stdout.close()
    assert left == {}, f"dagster dev left processes behind: {left}"


def _ends(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select([descriptor], [], [], SECONDS_TO_END)[0])
    finally:
        os.close(descriptor)


def _running(*, session: int) -> dict[int, str]:
    """The command lines of the session's processes by their ids; those that ended and wait for a parent are none."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
    return found
