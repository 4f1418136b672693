"""A Redis server of the tests' own, on a socket in a temporary folder, and Celery workers that work for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import poll, start

SECONDS_TO_START = 60
AT_ONCE = 4
"""Steps of a worker."""


@contextmanager
def redis_server() -> Generator[str]:
    """Its address; the test is skipped where there is none."""
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("there is no redis-server; `make broker` installs Debian's")
    with tempfile.TemporaryDirectory(prefix="m3ter-redis-") as folder:
        socket = f"{folder}/socket"
        options = ("--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no")
        with subprocess.Popen([program, *options], cwd=folder, stdout=subprocess.DEVNULL) as server:
            try:
                poll(Path(socket).exists, "redis-server", SECONDS_TO_START)
                yield f"redis+socket://{socket}"
            finally:
                server.terminate()


def start_worker(name: str, *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """As docs/deploying.md does."""
    with log.open("wb") as output:
        command = ("celery", "--app", "dagster_celery.app", "worker", "--include", "m3ter_dagster.definitions")
        options = ("--concurrency", str(AT_ONCE), "--hostname", f"{name}@%h")
        return start(sys.executable, "-m", *command, *options, environment=environment, output=output)
