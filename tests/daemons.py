"""A real dagster-daemon for the tests, and Dagster's command line beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from processes import PROJECT, end, plain_environment, start

WORKSPACE = ("--workspace", "workspace.yaml")


class Daemon:
    """The daemon of an instance and, below it, its code location and its runs."""

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        self._environment = {**environment, "DAGSTER_HOME": str(home)}
        self._log = home / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = start("dagster._daemon", "run", *WORKSPACE, environment=self._environment, output=log)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process:
            end(process)

    def dagster(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command of Dagster's own command line beside the daemon."""
        command = [sys.executable, "-m", "dagster", *arguments, *WORKSPACE]
        environment = {**plain_environment(), **self._environment}
        return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")
