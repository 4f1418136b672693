"""The sandbox for a person: until stopped, or for as long as a command runs in its environment."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from m3ter_dagster.sandbox import Sandbox


def serve(accounts: int, command: Sequence[str]) -> int:
    """The command's exit code; 0 when there is none and the person stops it."""
    with Sandbox(accounts=accounts) as sandbox:
        if command:
            return _run(command, sandbox.environment)
        for name, value in sandbox.environment.items():
            print(f"export {name}={shlex.quote(value)}")
        print("# The sandbox runs until you stop it with Ctrl-C.", file=sys.stderr, flush=True)
        sys.stdout.flush()
        _wait_for_stop()
    return 0


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Ctrl-C reaches the command by itself; a SIGTERM for the sandbox is passed on to it."""
    with subprocess.Popen(command, env={**os.environ, **environment}) as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()


def _wait_for_stop() -> None:
    stopped = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stopped.set())
    stopped.wait()
