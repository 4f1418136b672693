"""A real dagster-daemon for the tests: started in a session of its own, ended with everything that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

PROJECT = Path(__file__).parents[1]
SECONDS_TO_END = 60
LOOK_EVERY = 0.5

# A SIGINT that a shell ignores for its background jobs stays ignored, and the daemon would then not end on SIGTERM.
PROGRAM = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
"""
DAEMON = ("dagster._daemon", "run", "--workspace", "workspace.yaml")
Found = TypeVar("Found")


class Daemon:
    """The daemon of an instance and, below it, its code location and its runs."""

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        self._environment = {**plain_environment(), **environment, "DAGSTER_HOME": str(home)}
        self._log = home / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *DAEMON],
                cwd=PROJECT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """SIGTERM takes everything down; what it leaves behind is ended by its id, and is an error."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(SECONDS_TO_END)
            poll(lambda: not self._left(), f"the processes of the daemon to end: {self._left()}", SECONDS_TO_END)
        finally:
            for pid in self._left():
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def dagster(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command of Dagster's own command line beside the daemon."""
        command = [sys.executable, "-m", "dagster", *arguments, "--workspace", "workspace.yaml"]
        return subprocess.Popen(command, cwd=PROJECT, env=self._environment, stdout=subprocess.DEVNULL)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _left(self) -> dict[int, str]:
        assert self._process
        return processes_of(session=self._process.pid)


def poll(look: Callable[[], Found | None], what: str, seconds: float) -> Found:
    """What `look` finds, as soon as it finds it."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:.0f} seconds for {what}"
        time.sleep(LOOK_EVERY)


def plain_environment() -> dict[str, str]:
    """This machine's, without what would lead an export elsewhere."""
    others = ("AWS_", "DAGSTER_", "M3TER_")
    kept = (name for name in os.environ if not name.startswith(others) and not name.lower().endswith("_proxy"))
    return {name: os.environ[name] for name in kept}


def processes_of(*, session: int) -> dict[int, str]:
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
