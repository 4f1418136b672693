"""The sensor that keeps the queue of exports moving: it ends dead runs, and cancels exports that waited too long."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from m3ter_dagster.config import AnySchedule, ExportSchedule
from m3ter_dagster.config.names import STUCK_EXPORTS
from m3ter_dagster.dagster_internals import cancel_queued, report_abandoned, repository_of
from m3ter_dagster.history.heartbeat import BEAT_SECONDS, SILENCE, dead_steps
from m3ter_dagster.history.log import DUE_TAG, ROOT_TAG, SCHEDULE_TAG

LOOK_EVERY_SECONDS = 90
"""Longer than between two heartbeats: a machine that slept has one before it is looked at again."""
assert LOOK_EVERY_SECONDS > BEAT_SECONDS


def stuck_exports(
    schedules: Sequence[AnySchedule], steps: Collection[str], *, clock: Callable[[], datetime] | None = None
) -> dg.SensorDefinition:
    """`steps` are those of exports, by which runs are known to be exports. A run is dead that is so at two looks.

    Of the exports of an operational schedule that wait, only the latest remains. Exports of measurements all run: each
    has a window of its own.
    """
    read_clock = clock or partial(datetime.now, UTC)
    operational = {one.code for one in schedules if isinstance(one, ExportSchedule)}

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance, suspects = context.instance, set(json.loads(context.cursor or "[]"))
        overtaken = list(_overtaken(instance, operational))
        # First: where a dead run is what they wait for, the queue moves as soon as it is ended.
        for run, due in overtaken:
            cancel_queued(instance, run, _overtaken_words(run, due))
        started = _runs(instance, dg.DagsterRunStatus.STARTED)
        silent = {run.run_id: found for run in started if (found := dead_steps(instance, run, steps, read_clock()))}
        dead = [run for run in started if run.run_id in silent and run.run_id in suspects]
        for run in dead:
            report_abandoned(instance, run, _dead_words(run, silent[run.run_id]))
        return dg.SensorResult(
            skip_reason=f"dead: {len(dead)} runs, overtaken: {len(overtaken)} exports.",
            cursor=json.dumps(sorted(silent.keys() - {run.run_id for run in dead})),
        )

    return dg.SensorDefinition(
        name=STUCK_EXPORTS,
        evaluation_fn=evaluate,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process has died, and cancels exports that waited until their schedule was due "
        "again.",
    )


def _overtaken(instance: dg.DagsterInstance, codes: Collection[str]) -> Iterator[tuple[dg.DagsterRun, datetime]]:
    """Scheduled exports in the queue, each with the due time of the last one of its schedule that is there as well.

    Re-executions stay, since they complete an export, and so do runs that a person launched.
    """
    waiting: dict[tuple[str, str], list[tuple[dg.DagsterRun, datetime]]] = defaultdict(list)
    for run in _runs(instance, dg.DagsterRunStatus.QUEUED):
        code, due = run.tags.get(SCHEDULE_TAG, ""), run.tags.get(DUE_TAG)
        if code in codes and due and ROOT_TAG not in run.tags:
            # Another code location may have a schedule of the same code, for another Organization.
            waiting[code, repository_of(run)].append((run, datetime.fromisoformat(due)))
    for exports in waiting.values():
        latest = max(due for _, due in exports)
        yield from ((run, latest) for run, due in exports if due < latest)


def _runs(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
    return [record.dagster_run for record in instance.get_run_records(dg.RunsFilter(statuses=[status]))]


def _overtaken_words(run: dg.DagsterRun, later: datetime) -> str:
    return (
        f"Not exported: schedule {run.tags[SCHEDULE_TAG]!r} was due again at {later:%Y-%m-%d %H:%M} UTC while this "
        "export waited. The later export has the same data, under the later time."
    )


def _dead_words(run: dg.DagsterRun, steps: Sequence[str]) -> str:
    minutes = int(SILENCE.total_seconds() // 60)
    return (
        f"The process of this run has died: no event for {minutes} minutes while {', '.join(steps)} was under way. "
        f"Re-execute it from failure, or run m3ter-dagster export --resume {run.run_id}, to complete the export."
    )
