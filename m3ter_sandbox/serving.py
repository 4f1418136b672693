"""The sandbox for a person: until stopped, or for as long as a command runs in its environment."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from m3ter_sandbox import Sandbox
from m3ter_sandbox.webhook import WebhookInbox

SCHEDULES = """\
schedules:
  - code: finance
    name: Finance, every five days
    operationalDataTypes: [ACCOUNTS, ACCOUNT_PLANS, COMMITMENTS]
    destinations: [warehouse]
    scheduleType: DAY
    period: 5
    dtCreated: 2024-06-01T10:00:00Z
  - code: usage
    name: Usage of the day before
    sourceType: USAGE
    timePeriod: YESTERDAY
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T02:00:00Z
"""
"""Something to look at: Dagster launches their first exports at once."""
NOTIFICATIONS = """\
notifications:
  webhookUrl: {url}
  onSuccess: true
"""


def serve(accounts: int, command: Sequence[str]) -> int:
    """The command's exit code; 0 when there is none and the person stops it.

    Dagster's home is new each time, since the stores are: records of what they no longer hold would only mislead.
    """
    with (
        TemporaryDirectory(prefix="sandbox-dagster-", ignore_cleanup_errors=True) as home,
        Sandbox(accounts=accounts) as sandbox,
        WebhookInbox(sandbox.api) as inbox,
    ):
        with sandbox.exports.open("a", encoding="utf-8") as exports:
            exports.write(SCHEDULES + NOTIFICATIONS.format(url=inbox.url))
        print(f"What a webhook is sent, and how to make an export fail: {inbox.page}", file=sys.stderr, flush=True)
        environment = {**sandbox.environment, "DAGSTER_HOME": home}
        if command:
            return _run(command, environment)
        for name, value in environment.items():
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
