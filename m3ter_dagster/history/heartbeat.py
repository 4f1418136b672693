"""A heartbeat in the log of each run while its process works, by whose absence the death of the process is known."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta

import dagster as dg

from m3ter_dagster.dagster_internals import (
    has_just_started,
    have_all_succeeded,
    is_in_one_process,
    last_event,
    log_engine_event,
    planned_steps,
    report_failed,
    report_succeeded,
    steps_under_way,
)

BEAT_SECONDS = 60.0
SILENCE = timedelta(minutes=15)
"""Without any event for so long, a process is dead: even a database that is away for ten minutes is survived."""


class Heartbeat:
    """Says each minute that this process works on the run: a large file may be delivered for long without an event."""

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun, *, every: float = BEAT_SECONDS) -> None:
        self._ended = threading.Event()
        words = f"Process {os.getpid()} on {socket.gethostname()} is at work."

        def beat() -> None:
            while not self._ended.wait(every):
                with suppress(Exception):  # what cannot be logged now may be in a minute
                    log_engine_event(instance, run, words)

        self._thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()


def is_dead(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: Collection[str], now: datetime) -> bool:
    """Whether the run fell silent although a process of it has a heartbeat, or had nothing more to do.

    `steps` are those of exports. While one is under way its process has a heartbeat; a process that executes all steps
    has it between them as well. Other runs are silent while steps wait for workers, or do what has no heartbeat; not
    from their start on.
    """
    if now - last_event(instance, run.run_id) < SILENCE:
        return False
    if not steps_under_way(instance, run.run_id).isdisjoint(steps):
        return True
    planned = planned_steps(instance, run)
    if not planned or not planned <= set(steps):
        return False
    return (
        is_in_one_process(instance, run.run_id)
        or has_just_started(instance, run.run_id)
        or have_all_succeeded(instance, run)
    )


def report_dead(instance: dg.DagsterInstance, run: dg.DagsterRun, words: str, advice: str) -> None:
    """End a dead run: as failed with the advice, or as succeeded where nothing is left to do.

    Dagster refuses to retry a run whose steps have all succeeded.
    """
    if have_all_succeeded(instance, run):
        report_succeeded(instance, run, f"{words} All of its steps had succeeded: the export is whole.")
    else:
        report_failed(instance, run, f"{words} {advice}")
