"""What must hold after each step, whatever happened."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import RETRY_NUMBER_TAG, RUN_KEY_TAG

from m3ter_dagster.dagster_internals import have_all_succeeded, is_in_one_process, last_event
from m3ter_dagster.history.log import DUE_TAG, SCHEDULE_TAG, deliveries_of, root_id
from m3ter_dagster.history.record import NOT_PROVEN, Delivery
from m3ter_dagster.history.retries import RETRIED_ONCE
from m3ter_dagster.model.entities import entities
from simulation import store
from simulation.due_times import GRACE, MEASUREMENTS, Due, DueTimes, Schedule
from simulation.organization import WORDS, Cells, Organization
from simulation.store import Place

KEY = re.compile(
    r"(?:m3ter/)?orgId=[^/]+/(?:date=(?P<date>[-\d]+)/hour=(?P<hour>\d+)/type=(?P<type>\w+)|"
    r"type=(?P<type2>\w+)/date=(?P<date2>[-\d]+)/hour=(?P<hour2>\d+))/(?P<export>[-0-9a-f]{36})_\w+\.(?P<suffix>\w+)"
)
NEXT_DUE = re.compile(r"Next due when this was loaded \((?P<loaded>[^)]+)\): (?P<times>[-\d :,]+) UTC")
PARQUET = b"PAR1"
DAY = timedelta(days=1)
MEASUREMENTS_TYPE = "measurements"
UNSAFE = "what it reuses is not what m3ter has"
"""Of a message after a comparison of all rows with those that would have been reused."""
UNTIL_DEAD, LOOKS_UNTIL_DEAD = timedelta(minutes=16), 2
"""How long a run is silent, and how often a daemon sees that, before it is ended."""
MOST_RETRIES = 3
"""Of an export, whoever started its runs."""


class Violated(AssertionError):
    """Something does not hold that must."""


@dataclass(frozen=True)
class Window:
    """Between which moments of the Organization a process read from it."""

    first: int
    last: int


@dataclass(frozen=True)
class Object:
    place: Place
    content: bytes
    type: str
    export: str
    suffix: str
    hour: datetime

    @classmethod
    def of(cls, place: Place, content: bytes) -> Object:
        found = KEY.fullmatch(place[1])
        if not found:
            raise Violated(f"{place} is no name that is documented")
        part = found.groupdict()
        hour = datetime.fromisoformat(f"{part['date'] or part['date2']}T{part['hour'] or part['hour2']}:00:00+00:00")
        return cls(place, content, part["type"] or part["type2"] or "", part["export"], part["suffix"], hour)

    @property
    def rows(self) -> list[dict[str, str]]:
        """All of a CSV, whose last line must have ended."""
        text = self.content.decode()
        header, *lines = csv.reader(io.StringIO(text, newline=""))
        if not text.endswith("\n") or any(len(line) != len(header) for line in lines):
            raise Violated(f"{self.place} is not whole")
        return [dict(zip(header, line, strict=True)) for line in lines]


class Invariants:
    def __init__(
        self, instance: dg.DagsterInstance, organization: Organization, due_times: DueTimes, buckets: Mapping[str, str]
    ) -> None:
        self._instance = instance
        self._organization = organization
        self._due_times = due_times
        self._buckets = buckets
        """By the codes of destinations."""
        self._etags: dict[Place, str] = {}
        self._windows: dict[Place, Window] = {}
        self._schedules: dict[str, Schedule] = {}
        """What each export was to export, by its id."""
        self._died: dict[str, datetime] = {}
        """When the processes of runs died, by the runs' ids."""
        self._looks_at_dead = Counter[str]()
        self._ended_by_what_passes: set[str] = set()
        """Runs of the daemon that began to export and died, or failed while a server was down."""

    def died(self, run_id: str, now: datetime) -> None:
        """The process of the run, just now. Its clock may be ahead by what it has waited."""
        self._died[run_id] = max(now, last_event(self._instance, run_id))

    def ended_by_what_passes(self, run_id: str) -> None:
        """Of a run of the daemon whose process has just ended, by a death or an outage.

        Where all of its steps had ended there is nothing to retry. A run that is no first one can be retried only after
        it has begun.
        """
        run = self._instance.get_run_by_id(run_id)
        assert run
        steps = self._instance.get_run_step_stats(run_id)
        has_begun = any(one.start_time for one in steps) or is_in_one_process(self._instance, run_id)
        is_first = RETRIED_ONCE.items() <= run.tags.items() and root_id(run) == run_id
        if (has_begun or is_first) and not self._is_done(run_id):
            self._ended_by_what_passes.add(run_id)

    def _is_done(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        assert run
        return have_all_succeeded(self._instance, run)

    def expect(self, schedule: Schedule, export: str) -> None:
        self._schedules.setdefault(export, schedule)

    # After a process has ended

    def process_ended(self, export: str, window: Window) -> None:
        """Of an export's process; whether it died or not."""
        found = store.objects(self._buckets.values())
        if lost := self._etags.keys() - found.keys():
            raise Violated(f"{lost} were delivered and are gone")
        changed = {place for place, one in found.items() if self._etags.get(place) != one.etag}
        self._etags = {place: one.etag for place, one in found.items()}
        deliveries = deliveries_of(self._instance, export)
        for place in sorted(changed):
            one = Object.of(place, found[place].value)
            if one.export != export:
                raise Violated(f"{place} was written by a process of export {export}")
            self._windows[place] = window
            self._is_whole(one, deliveries.get(one.type))
        of_export = {place: Object.of(place, one.value) for place, one in found.items() if f"/{export}_" in place[1]}
        self._are_as_recorded(of_export, deliveries.values())
        for one in of_export.values():
            if one.suffix == "json":
                self._manifest_implies_whole(one, of_export)

    def _is_whole(self, one: Object, delivery: Delivery | None) -> None:
        due = self._due(one.export)
        if one.hour != due.replace(minute=0, second=0, microsecond=0):
            raise Violated(f"{one.place} does not say that it was due at {due}")
        if one.suffix == "parquet" and not (one.content.startswith(PARQUET) and one.content.endswith(PARQUET)):
            raise Violated(f"{one.place} is no whole Parquet file")
        if one.suffix == "csv" and one.type in entities():
            self._has_no_row_lost(one, delivery)
        elif one.suffix == "csv" and one.type == MEASUREMENTS_TYPE:
            self._has_all_measurements(one, due)
        elif one.suffix == "csv":
            _ = one.rows

    def _has_no_row_lost(self, one: Object, delivery: Delivery | None) -> None:
        """Each row that was there all the time is in the file, as it was at some moment, and no row that never was."""
        window, found = self._windows[one.place], {row["id"]: row for row in one.rows}
        if len(found) != len(one.rows):
            raise Violated(f"{one.place} has a row twice")
        was = self._organization.between(one.type, window.first, window.last)
        completeness = delivery.reading.completeness if delivery else None
        is_proven = completeness is not None and completeness.complete != NOT_PROVEN
        if made_up := found.keys() - was.keys():
            raise Violated(f"{one.place} has {made_up}, which never were")
        for record_id, row in found.items():
            if problem := _problem(row, WORDS[one.type], was[record_id]):
                raise Violated(f"{one.place}: row {record_id} {problem}")
        lost = [record_id for record_id, cells in was.items() if None not in cells and record_id not in found]
        if lost and (is_proven or window.first == window.last):
            raise Violated(f"{one.place} has lost {lost}, which m3ter had all the time")

    def _has_all_measurements(self, one: Object, due: datetime) -> None:
        """Those of the day before the export was due, each once."""
        midnight = due.replace(hour=0, minute=0, second=0, microsecond=0)
        found, expected = [row["uid"] for row in one.rows], self._organization.measured(midnight - DAY, midnight)
        if sorted(found) != sorted(expected):
            raise Violated(f"{one.place} has {len(found)} measurements, and m3ter has {len(expected)}")

    def _are_as_recorded(self, found: Mapping[Place, Object], deliveries: Collection[Delivery]) -> None:
        for delivery in deliveries:
            for stored in (*delivery.objects, *delivery.keys, *(delivery.changes.objects if delivery.changes else ())):
                _same(found, stored.uri, stored.bytes, stored.sha256)
            for stored in delivery.objects:
                rows = len(found[_place(stored.uri)].rows)
                if rows != delivery.rows:
                    raise Violated(f"{stored.uri} has {rows} rows and its record {delivery.rows}")

    def _manifest_implies_whole(self, manifest: Object, found: Mapping[Place, Object]) -> None:
        package = json.loads(manifest.content)
        for resource in package["resources"]:
            _same(found, resource["path"], resource["bytes"], resource["hash"].removeprefix("sha256:"))
            rows = len(found[_place(resource["path"])].rows)
            if rows != resource["m3ter:rows"]:
                raise Violated(f"{resource['path']} has {rows} rows and its manifest says {resource['m3ter:rows']}")
        schedule = self._schedules[manifest.export]
        changes = schedule.entities if schedule.changes and schedule.entities != MEASUREMENTS else ()
        files = {*schedule.entities, *(f"{name}_changes" for name in changes)}
        types = {MEASUREMENTS_TYPE} if schedule.entities == MEASUREMENTS else files
        listed = [one["m3ter:type"] for one in package["resources"]]
        if sorted(listed) != sorted(files):
            raise Violated(f"{manifest.place} lists {listed}, and the schedule has {sorted(files)}")
        for code in schedule.destinations:
            there = {
                one.type for place, one in found.items() if place[0] == self._buckets[code] and one.suffix == "csv"
            }
            if not types <= there:
                raise Violated(f"{manifest.place} is there, and {types - there} are not in {code}")

    # After each step

    def step_ended(self, told: Sequence[str], jobs: Collection[str], now: datetime) -> None:
        """`told` are the messages that the webhook got, `jobs` the names of those that there are."""
        runs = [record.dagster_run for record in self._instance.get_run_records()]
        self._due_times_are_accounted_for(runs, now)
        self._dead_runs_have_ended(runs, now)
        if untold := self.untold(runs, told):
            raise Violated(f"no message tells of the failure of {untold}")
        if wrong := [text for text in told if UNSAFE in text]:
            raise Violated(f"rows were reused that m3ter has no more: {wrong}")
        if lost := self._not_retried(runs, jobs):
            raise Violated(f"what ended runs {lost} passes, and they were not retried")
        uploads = store.open_uploads(self._buckets.values())
        for export in {root_id(run) for run in runs if run.status == dg.DagsterRunStatus.SUCCESS}:
            self._success_means_whole(export)
            if left := [place for place in uploads if f"/{export}_" in place[1]]:
                raise Violated(f"export {export} is whole, and uploads were left open: {left}")

    def missing(self, runs: Sequence[dg.DagsterRun]) -> set[Due]:
        """The due times without an export."""
        return self._due_times.owed.keys() - {_due_of(run) for run in runs}

    def _due_times_are_accounted_for(self, runs: Sequence[dg.DagsterRun], now: datetime) -> None:
        """Each due time has an export; each export has a due time; none has two."""
        roots = [run for run in runs if root_id(run) == run.run_id]
        by_key = defaultdict[str, list[dg.DagsterRun]](list)
        by_due = defaultdict[Due, list[dg.DagsterRun]](list)
        for run in roots:
            by_key[run.tags.get(RUN_KEY_TAG, "")].append(run)
            by_due[_due_of(run)].append(run)
        firsts = {f"{code}:{created.isoformat()}" for code, created in self._due_times.firsts}
        if wrong := [key for key in firsts if len(by_key[key]) != 1]:
            raise Violated(f"there is not one first export of {wrong}")
        expected = self._due_times.owed.keys() | self._due_times.possible.keys()
        expected |= {_due_of(run) for key in firsts for run in by_key[key]}
        if missed := {due for due in self.missing(roots) if due[1] <= now - GRACE}:
            raise Violated(f"there is no export for {_shown(missed)}")
        if wrong := by_due.keys() - expected:
            raise Violated(f"an export was not due: {_shown(wrong)}")
        for due, some in by_due.items():
            kept = [run for run in some if run.status != dg.DagsterRunStatus.CANCELED]
            if len(kept) > 1:
                raise Violated(f"there are {len(kept)} exports for {_shown([due])}")
            if not kept and not any(code == due[0] and later > due[1] for code, later in by_due):
                raise Violated(f"the export for {_shown([due])} was canceled, and none replaces it")

    def next_due_times_are_right(self, schedules: Iterable[Schedule], descriptions: Mapping[str, str]) -> None:
        """Those that the descriptions of the schedules name, as of the moment at which they were loaded."""
        for one in schedules:
            found = NEXT_DUE.search(descriptions[one.code])
            if not found:
                raise Violated(f"the description of {one.code} does not say when it is due next")
            loaded, said = datetime.fromisoformat(f"{found['loaded']}+00:00"), found["times"].split(", ")
            due = [one.created] * (one.created > loaded) + one.due(loaded, loaded + 31 * DAY)
            if said != [f"{moment:%Y-%m-%d %H:%M}" for moment in due[: len(said)]]:
                raise Violated(f"{one.code} says at {loaded} that it is due next at {said}, and is at {due[0]}")

    def _dead_runs_have_ended(self, runs: Sequence[dg.DagsterRun], now: datetime) -> None:
        """After a quarter of an hour, and two looks; as succeeded if nothing was left to do."""
        for run in runs:
            if run.run_id not in self._died or now - self._died[run.run_id] < UNTIL_DEAD:
                continue
            if run.status == dg.DagsterRunStatus.FAILURE and self._is_done(run.run_id):
                raise Violated(f"run {run.run_id} died when it had done everything, and counts as failed")
            self._looks_at_dead[run.run_id] += not run.is_finished
            if self._looks_at_dead[run.run_id] > LOOKS_UNTIL_DEAD:
                raise Violated(f"run {run.run_id} died at {self._died[run.run_id]:%m-%d %H:%M}, and has not ended")

    def untold(self, runs: Sequence[dg.DagsterRun], told: Sequence[str]) -> list[str]:
        """The exports of whose failures fewer messages tell than there were.

        Dagster retries some failures, and the exit code tells of those in a terminal.
        """
        retried = {run.parent_run_id for run in runs if RETRY_NUMBER_TAG in run.tags}
        failed = [run for run in runs if run.status == dg.DagsterRunStatus.FAILURE and run.remote_job_origin]
        counts = Counter(root_id(run) for run in failed if run.run_id not in retried)
        return [one for one, count in counts.items() if sum("failed" in text and one in text for text in told) < count]

    def _not_retried(self, runs: Sequence[dg.DagsterRun], jobs: Collection[str]) -> list[str]:
        """The runs that Dagster had to retry and did not: of each export the first three that have failed.

        Without its job, which goes with the schedule, a run is told of instead.
        """
        retried, counts = {run.parent_run_id for run in runs if RETRY_NUMBER_TAG in run.tags}, Counter[str]()
        lost = []
        for run in reversed(runs):
            counts[root_id(run)] += 1
            is_owed = run.run_id in self._ended_by_what_passes and counts[root_id(run)] <= MOST_RETRIES
            has_failed = run.status == dg.DagsterRunStatus.FAILURE and run.job_name in jobs
            if is_owed and has_failed and run.run_id not in retried:
                lost.append(run.run_id)
        return lost

    def _success_means_whole(self, export: str) -> None:
        for code in self._schedules[export].destinations:
            name = f"{export}_manifest.json"
            if not any(bucket == self._buckets[code] and key.endswith(name) for bucket, key in self._etags):
                raise Violated(f"export {export} succeeded, and {code} has no manifest of it")

    def _due(self, export: str) -> datetime:
        run = self._instance.get_run_by_id(export)
        assert run
        return _due_of(run)[1]


def _due_of(run: dg.DagsterRun) -> Due:
    return run.tags[SCHEDULE_TAG], datetime.fromisoformat(run.tags[DUE_TAG])


def _shown(dues: Iterable[Due]) -> str:
    return ", ".join(f"{code} at {due:%Y-%m-%d %H:%M}" for code, due in sorted(dues))


def _problem(row: Mapping[str, str], words: str, was: set[Cells | None]) -> str | None:
    """Why the row cannot be what its record was."""
    cells = (int(row["version"]), row[words])
    if row["deleted"] == "true":
        return None if None in was else "is deleted, and m3ter had it all the time"
    return None if cells in was else f"has {cells}, and was {was}"


def _same(found: Mapping[Place, Object], uri: str, size: int, sha256: str) -> None:
    one = found.get(_place(uri))
    if one is None:
        raise Violated(f"{uri} was delivered, says a record, and is not there")
    if (len(one.content), hashlib.sha256(one.content).hexdigest()) != (size, sha256):
        raise Violated(f"{uri} is not what its record says")


def _place(uri: str) -> Place:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
