"""The dead man's switch: a sensor that reports exports that should have been delivered and were not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import dagster as dg
import msgspec

from m3ter_dagster.alarms import messages
from m3ter_dagster.alarms.lateness import Watch, owed, watched
from m3ter_dagster.alarms.webhook import Notify
from m3ter_dagster.config import AnySchedule, Notifications, grace
from m3ter_dagster.config.names import LATE_EXPORTS
from m3ter_dagster.dagster_internals import switched_off_schedules
from m3ter_dagster.history.log import SCHEDULE_TAG, export_of, is_of, root_id, runs_of
from m3ter_dagster.names import DEFAULT, Names

LOOK_EVERY_SECONDS = 60
_CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True)
class News:
    """A message about a schedule, and what to remember once it is sent."""

    text: str
    watch: Watch


def late_exports(
    schedules: Sequence[AnySchedule],
    wanted: Notifications,
    notify: Notify,
    org_id: str | None,
    *,
    clock: Callable[[], datetime],
    names: Names = DEFAULT,
) -> dg.SensorDefinition:
    """Reports each due time of a schedule once, and once more when the export has been delivered after all.

    What the webhook did not take is sent at the next tick, and nothing else is tried before: Dagster gives a tick one
    minute.
    """

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now, off = clock(), switched_off_schedules(context.instance)
        before = msgspec.json.decode(context.cursor or "{}", type=dict[str, Watch])
        after: dict[str, Watch] = {}
        failure: str | None = None
        for one in schedules:
            is_on = names.own(one.dagster_name) not in off
            watch = watched(before.get(one.code), one.cadence, is_on=is_on, now=now)
            find = partial(runs_due, context.instance, org_id, one.code, names=names)
            news = _news(find, one, names.schedule(one.code), watch, wanted, now) if is_on and not failure else None
            failure = notify(context.log, news.text) if news else failure
            after[one.code] = news.watch if news and not failure else watch
        late = [code for code, watch in after.items() if watch.reported]
        return dg.SensorResult(
            skip_reason=failure or (f"late: {', '.join(late)}." if late else "every export is on time."),
            cursor=msgspec.json.encode(after).decode(),
        )

    return dg.SensorDefinition(
        name=names.own(LATE_EXPORTS),
        evaluation_fn=evaluate,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of each scheduled export that is not delivered in time, whatever the reason.",
    )


def _news(
    find_runs: Callable[[datetime], Iterator[dg.DagsterRun]],
    schedule: AnySchedule,
    title: str,
    watch: Watch,
    wanted: Notifications,
    now: datetime,
) -> News | None:
    cadence, url = schedule.cadence, wanted.dagster_url
    due = owed(watch, cadence, now=now, grace=grace(cadence.shortest, wanted))
    if watch.reported:
        success = _delivered(find_runs(watch.reported))
        if success:
            text = messages.recovered(title, watch.reported, success, url)
            return News(text, msgspec.structs.replace(watch, reported=None))
    if due is None or due == watch.reported:
        return None
    runs = list(find_runs(due))
    if _delivered(runs):
        return None
    last = runs[0] if runs else None
    return News(messages.late(title, due, last, url), msgspec.structs.replace(watch, reported=due))


def runs_due(
    instance: dg.DagsterInstance, org_id: str | None, code: str, since: datetime, names: Names = DEFAULT
) -> Iterator[dg.DagsterRun]:
    """The runs of the Organization's exports by the schedule, due at `since` or later; of each the newest is first."""
    filters = dg.RunsFilter(tags={SCHEDULE_TAG: names.schedule(code)}, created_after=since - _CLOCKS_DIFFER)
    found = [one.dagster_run for one in instance.get_run_records(filters) if is_of(one.dagster_run, org_id)]
    # A re-execution is found by its root: whoever makes one may have taken the other tags away.
    exports = dict.fromkeys(root_id(run) for run in found if export_of(run, instance, org_id="").due >= since)
    for export_id in exports:
        yield from (record.dagster_run for record in reversed(runs_of(instance, export_id)))


def _delivered(runs: Iterable[dg.DagsterRun]) -> dg.DagsterRun | None:
    return next((run for run in runs if run.status == dg.DagsterRunStatus.SUCCESS), None)
