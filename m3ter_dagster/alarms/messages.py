"""What alarms say, in plain text that any chat tool shows as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from m3ter_dagster.config import Unloadable
from m3ter_dagster.history.failures import notification_text
from m3ter_dagster.history.log import DUE_TAG, SCHEDULE_TAG, root_id
from m3ter_dagster.history.record import Delivery
from m3ter_dagster.history.retries import RETRY_NUMBER_TAG

LONGEST_REASON = 300
CANNOT_BE_RETRIED = (
    "Dagster cannot retry it, since its schedule was renamed or removed; m3ter-dagster export --resume {} completes "
    "the export."
)
LOADABLE_AGAIN = "m3ter exports.yaml can be loaded again, and is used."


def failed(
    run: dg.DagsterRun,
    events: Sequence[dg.DagsterEvent],
    dagster_url: str | None,
    *,
    prunes: bool = False,
    has_lost_its_job: bool = False,
) -> str:
    """The text about a failed run. `events` are the failures of its steps, or that of the run where no step failed.

    `has_lost_its_job` says that it would have been retried, and that its job is gone.
    """
    if prunes:
        return "\n".join(["m3ter: old exports were not removed", *_page(run, dagster_url), *map(_reason, events)])
    retries = run.tags.get(RETRY_NUMBER_TAG)
    title = f"m3ter export failed{f' again, retry {retries}' if retries else ''}: {_export(run)}"
    resumed = [CANNOT_BE_RETRIED.format(run.run_id)] if has_lost_its_job else []
    return "\n".join([title, *_places(run, dagster_url), *map(_reason, events), *resumed])


def delivered(run: dg.DagsterRun, deliveries: Mapping[str, Delivery], dagster_url: str | None) -> str:
    rows = sum(one.rows for one in deliveries.values())
    what = f"{len(deliveries)} files, {rows} rows: {', '.join(deliveries)}"
    return "\n".join([f"m3ter export delivered: {_export(run)}", *_places(run, dagster_url), what])


def unsafe_reuse(run: dg.DagsterRun, says: str, dagster_url: str | None) -> str:
    title = f"m3ter export delivered, but what it reuses is not what m3ter has: {_export(run)}"
    return "\n".join([title, *_places(run, dagster_url), says])


def late(code: str, due: datetime, last_run: dg.DagsterRun | None, dagster_url: str | None) -> str:
    title = f"m3ter export late: schedule '{code}', due {_moment(due)}, is not delivered"
    if last_run is None:
        return f"{title}\nNo run was launched for it; look at the schedule's ticks and at the Dagster daemon."
    state = f"The last run: {last_run.status.value.lower()}."
    return "\n".join([title, *_places(last_run, dagster_url), state])


def recovered(code: str, due: datetime, run: dg.DagsterRun, dagster_url: str | None) -> str:
    title = f"m3ter export recovered: schedule '{code}', late since {_moment(due)}, has delivered"
    return "\n".join([title, *_places(run, dagster_url)])


def unloadable(configuration: Unloadable) -> str:
    """The text about an exports.yaml that cannot be loaded, with all its mistakes."""
    return "\n".join([f"m3ter {configuration}", *configuration.mistakes])


def _export(run: dg.DagsterRun) -> str:
    """The export in words, such as "schedule 'finance', due 2024-06-06 10:00 UTC"."""
    schedule, due = run.tags.get(SCHEDULE_TAG), run.tags.get(DUE_TAG)
    cause = f"due {_moment(datetime.fromisoformat(due))}" if due else "started by hand"
    return f"schedule '{schedule}', {cause}" if schedule else cause


def _places(run: dg.DagsterRun, dagster_url: str | None) -> Iterator[str]:
    """Where to find the export in the buckets, and the run in Dagster."""
    yield f"export id {root_id(run)}"
    yield from _page(run, dagster_url)


def _page(run: dg.DagsterRun, dagster_url: str | None) -> Iterator[str]:
    if dagster_url:
        yield f"{dagster_url}/runs/{run.run_id}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _reason(event: dg.DagsterEvent) -> str:
    """Why an entity failed, on one line that starts with its name."""
    line, entity = " ".join(notification_text(event).split()), event.step_key or ""
    whole = line if line.startswith(entity) else f"{entity}: {line}"
    return whole if len(whole) <= LONGEST_REASON else f"{whole[: LONGEST_REASON - 3]}..."
