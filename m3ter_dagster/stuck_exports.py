"""The sensor that keeps the queue of exports moving: past dead runs, and past what waited behind them for too long."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from m3ter_dagster.config import AnySchedule
from m3ter_dagster.config.names import STUCK_EXPORTS, job_name
from m3ter_dagster.dagster_internals import (
    cancel_queued,
    has_job,
    is_of_location,
    location_of,
    planned_steps,
    steps_under_way,
)
from m3ter_dagster.history.heartbeat import SILENCE, is_dead, report_dead
from m3ter_dagster.history.log import (
    DUE_TAG,
    MANIFEST,
    ROOT_TAG,
    SCHEDULE_TAG,
    USAGE_MANIFEST,
    exported,
    planned_assets,
    schedule_of,
)
from m3ter_dagster.history.retries import RETRIED_ONCE, ask_again, retry_after_death, runs_to_ask_for
from m3ter_dagster.names import DEFAULT, Names

LOOK_EVERY_SECONDS = 90
"""Longer than between two heartbeats: a machine that slept has one before it is looked at again."""
ASKED_FOR = timedelta(days=7)
"""How long ago a run may have failed that is asked for: the code location may be down for a long weekend."""
_EXPORTED = (*exported(), MANIFEST, USAGE_MANIFEST)


def stuck_exports(
    schedules: Sequence[AnySchedule],
    steps: Collection[str],
    *,
    clock: Callable[[], datetime] | None = None,
    names: Names = DEFAULT,
) -> dg.SensorDefinition:
    """`steps` are those of exports, by which runs are known to be exports. A run is dead that is so at two looks."""
    read_clock = clock or partial(datetime.now, UTC)
    jobs = {names.own(one.job_name) for one in schedules}
    assets = [name for name in _EXPORTED if name in names.of_steps(steps)]

    def is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
        return is_of_location(context, run) and not planned_steps(context.instance, run).isdisjoint(steps)

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance, suspects = context.instance, set(json.loads(context.cursor or "[]"))
        overtaken = list(_overtaken(instance, names))
        # First: where a dead run is what they wait for, the queue moves as soon as it is ended.
        for run, due in overtaken:
            cancel_queued(instance, run, _overtaken_words(run, due))
        waiting = [run for run in _waiting(instance, names) if is_of_location(context, run)]
        renamed = [run for run in waiting if run.job_name not in jobs]
        for run in renamed:
            cancel_queued(instance, run, _renamed_words(run))
        not_retried = [run for run in runs_to_ask_for(instance, read_clock() - ASKED_FOR) if is_ours(context, run)]
        for run in not_retried:
            ask_again(instance, run, has_job=has_job(context, run.job_name))
        started = _runs(instance, dg.DagsterRunStatus.STARTED)
        silent = [run for run in started if is_dead(instance, run, steps, read_clock())]
        dead = [run for run in silent if run.run_id in suspects]
        for run in dead:
            _end(instance, run, steps)
        nothing_new = f"dead: {len(dead)} runs, overtaken: {len(overtaken)} exports, not retried: {len(not_retried)}."
        return dg.SensorResult(
            run_requests=[_request_anew(instance, run, assets, names) for run in renamed],
            skip_reason=None if renamed else nothing_new,
            cursor=json.dumps(sorted(run.run_id for run in silent if run not in dead)),
        )

    return dg.SensorDefinition(
        name=names.own(STUCK_EXPORTS),
        evaluation_fn=evaluate,
        asset_selection=dg.AssetSelection.assets(*map(names.key, assets)),
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Ends runs whose process has died, cancels exports that waited until their schedule was due "
        "again, launches those anew whose schedule was renamed meanwhile, and asks Dagster for retries that it could "
        "not launch.",
    )


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: Collection[str]) -> None:
    minutes = int(SILENCE.total_seconds() // 60)
    under_way = ", ".join(sorted(steps_under_way(instance, run.run_id) & set(steps)))
    during = f" while {under_way} was under way" if under_way else ""
    # A process that died before it had set up its resources has not allowed a retry.
    retry_after_death(instance, run)
    report_dead(
        instance,
        run,
        f"The process of this run has died: no event for {minutes} minutes{during}.",
        f"Unless Dagster retries it, m3ter-dagster export --resume {run.run_id} completes the export.",
    )


def _overtaken(instance: dg.DagsterInstance, names: Names) -> Iterator[tuple[dg.DagsterRun, datetime]]:
    """Operational exports in the queue, each with the due time of the last one of its schedule that is there as well.

    Exports of measurements stay, since each has a window of its own, and so do runs that a person launched.
    """
    waiting: dict[tuple[str, str], list[tuple[dg.DagsterRun, datetime]]] = defaultdict(list)
    for run in _waiting(instance, names):
        due = run.tags.get(DUE_TAG)
        if due and MANIFEST in planned_assets(instance, run, names):
            # Another code location may have a schedule of the same code, for another Organization.
            waiting[run.tags[SCHEDULE_TAG], location_of(run)].append((run, datetime.fromisoformat(due)))
    for exports in waiting.values():
        latest = max(due for _, due in exports)
        yield from ((run, latest) for run, due in exports if due < latest)


def _waiting(instance: dg.DagsterInstance, names: Names) -> list[dg.DagsterRun]:
    """The runs of schedules' own jobs in the queue. Re-executions are none, since they complete an export."""
    queued = _runs(instance, dg.DagsterRunStatus.QUEUED)
    return [
        run
        for run in queued
        if ROOT_TAG not in run.tags
        and (code := schedule_of(run, names)) is not None
        and run.job_name == names.own(job_name(code))
    ]


def _request_anew(
    instance: dg.DagsterInstance, run: dg.DagsterRun, assets: Sequence[str], names: Names
) -> dg.RunRequest:
    """The same export, of those `assets` that there are, under Dagster's own job: that of its schedule is gone."""
    planned = planned_assets(instance, run, names)
    return dg.RunRequest(
        run_key=run.run_id,
        run_config=run.run_config,
        tags=RETRIED_ONCE | {name: value for name, value in run.tags.items() if name.startswith("m3ter/")},
        asset_selection=[names.key(name) for name in assets if name in planned],
    )


def _runs(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
    return [record.dagster_run for record in instance.get_run_records(dg.RunsFilter(statuses=[status]))]


def _overtaken_words(run: dg.DagsterRun, later: datetime) -> str:
    return (
        f"Not exported: schedule {run.tags[SCHEDULE_TAG]!r} was due again at {later:%Y-%m-%d %H:%M} UTC while this "
        "export waited. The later export has the same data, under the later time."
    )


def _renamed_words(run: dg.DagsterRun) -> str:
    return (
        f"Schedule {run.tags[SCHEDULE_TAG]!r} was renamed or removed while this export waited, and its job with it; "
        "another run makes the same export."
    )
