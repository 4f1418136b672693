"""A `dagster dev` of this project for the tests: started on a free port, ended with everything that it started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from urllib3 import PoolManager, Retry

PROJECT = Path(__file__).parents[1]
SERVING = "Serving dagster-webserver on"
LOADED = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { ... on PythonError { message } } } } } }"
SECONDS_TO_END = 60

# A SIGINT that a shell ignores for its background jobs stays ignored, and dagster dev would then not end on SIGTERM.
PROGRAM = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execv(sys.executable, [sys.executable, "-m", "dagster", *sys.argv[1:]])
"""


@contextmanager
def dagster_dev(environment: Mapping[str, str], home: Path) -> Iterator[str]:
    """The address of the UI; `home` is the DAGSTER_HOME. At the end nothing of it may be left running."""
    shutil.copy(PROJECT / "dagster.yaml", home)
    address = f"http://127.0.0.1:{_free_port()}"
    process = _start(
        ["dev", "-h", "127.0.0.1", "-p", address.rsplit(":", 1)[1]], {**environment, "DAGSTER_HOME": str(home)}
    )
    log: list[str] = []
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    # Its log is read on, or it would stand still once the pipe is full; the pipe ends with the last process.
    reader = Thread(target=lambda: log.extend(lines), daemon=True)
    try:
        _wait_until_serving(address, lines, log)
        reader.start()
        yield address
    finally:
        _end(process, reader)


def _start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
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


def _wait_until_serving(address: str, lines: Iterator[str], log: list[str]) -> None:
    for line in lines:
        log.append(line)
        if SERVING in line:
            break
    else:
        raise AssertionError("dagster dev did not start:\n" + "".join(log))
    # The line comes just before the port opens.
    with PoolManager(retries=Retry(connect=30, backoff_factor=0.1, backoff_max=1)) as pool:
        answer = pool.request("POST", f"{address}/graphql", json={"query": LOADED}).json()
    (location,) = answer["data"]["workspaceOrError"]["locationEntries"]
    assert location["locationOrLoadError"] == {}, location["locationOrLoadError"]["message"]


def _end(process: subprocess.Popen[str], reader: Thread) -> None:
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
        if reader.ident:
            reader.join(SECONDS_TO_END)
    finally:
        left = _running(session=process.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert process.stdout
    process.stdout.close()
    assert left == {}, f"dagster dev left processes behind: {left}"


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
