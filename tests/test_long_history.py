"""After years of exports the last ones are found as fast as ever, in each of Dagster's databases."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from many_exports import copies_of
from postgres import new_database
from test_export_jobs import run as run_assets
from test_export_jobs import whole_export
from test_record import METERS, WHOLE, changed
from test_record import run as recorded

from m3ter_dagster.dagster_internals import delete_run, log_files
from m3ter_dagster.history.jobs import export_job, read_export_jobs, with_rows
from m3ter_dagster.history.log import SCHEDULE_TAG, previous_export, run_named, whole_exports

pytestmark = pytest.mark.slow

MANY = 120


@pytest.fixture(params=["sqlite", "postgres"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An empty one in each of the databases."""
    settings = "telemetry: {enabled: false}\n"
    if request.param == "postgres":
        url = new_database(request.getfixturevalue("postgres"))
        settings += f"storage: {{postgres: {{postgres_url: '{url}'}}}}\n"
    (tmp_path / "dagster.yaml").write_text(settings)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def hourly(number: int) -> Sequence[datetime]:
    """After all that the test itself runs."""
    return [datetime.now(UTC) + timedelta(hours=1 + hour) for hour in range(number)]


def test_a_rare_schedule_beside_frequent_ones_finds_its_previous_export(instance: dg.DagsterInstance) -> None:
    recorded(instance, changed(WHOLE, export="yearly's", schedule="yearly"))
    recorded(instance, changed(WHOLE, export="a person's", schedule=None))
    frequent = copies_of(instance, recorded(instance, WHOLE), hourly(MANY))
    assert previous(instance, "yearly") == "yearly's"
    assert previous(instance, None) == "a person's"
    assert previous(instance, "nightly") == WHOLE.export
    assert previous(instance, "new") is None
    runs = [record.dagster_run.run_id for record in instance.get_run_records(limit=MANY)]
    assert set(runs) == set(frequent)
    assert len(list(whole_exports(instance, org_id="org-1", export_id="this"))) == MANY + 3


def previous(instance: dg.DagsterInstance, schedule: str | None, export_id: str = "this") -> str | None:
    whole = previous_export(instance, org_id="org-1", schedule=schedule, export_id=export_id)
    return whole.export if whole else None


@pytest.mark.parametrize("schedule", ["nightly", "yearly"])
def test_the_previous_export_of_a_schedule_takes_as_long_as_ever(instance: dg.DagsterInstance, schedule: str) -> None:
    recorded(instance, changed(WHOLE, export="yearly's", schedule="yearly"))
    copies_of(instance, recorded(instance, WHOLE), hourly(MANY))
    with statements() as asked:
        assert previous(instance, schedule) == {"nightly": WHOLE.export, "yearly": "yearly's"}[schedule]
    assert len([one for one in asked if "FROM event_logs" in one]) == 1


def test_the_manifest_of_a_run_that_never_ended_is_found(instance: dg.DagsterInstance) -> None:
    """Its process was killed after it had delivered everything."""
    recorded(instance, changed(WHOLE, export="first"))
    template = recorded(instance, WHOLE)
    copies_of(instance, template, hourly(1), seconds=None)
    instance.delete_run(template)
    assert previous(instance, "nightly") == WHOLE.export
    assert previous(instance, "nightly", export_id=WHOLE.export) == "first"


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "FAILED"])
def test_the_jobs_of_a_status_take_as_long_as_there_are_of_these(instance: dg.DagsterInstance, status: Any) -> None:
    id = run_assets(instance, "account", "bill", tags={SCHEDULE_TAG: "nightly"})
    failed = run_assets(instance, "account", "bill", fails="bill", tags={SCHEDULE_TAG: "nightly"})

    def asked() -> int:
        with statements() as asked:
            found = read_export_jobs(instance, status=status, limit=20)
        assert [job.id for job in found] == ([failed] if status == "FAILED" else [])
        return len(asked)

    asked()
    before = asked()
    copies_of(instance, id, hourly(MANY))
    assert asked() == before


def test_the_logs_of_exports_that_succeeded_stay_closed(instance: dg.DagsterInstance) -> None:
    copies_of(instance, run_assets(instance, "account", "bill"), hourly(20))
    with statements() as asked:
        assert {job.delivered for job in read_export_jobs(instance, limit=20)} == {("account", "bill")}
    assert not [one for one in asked if "event_logs" in one]


def test_the_rows_of_whole_exports_are_read_from_their_manifests(instance: dg.DagsterInstance) -> None:
    """Those of the copies: the manifest says nine rows, the log of the run says three."""
    id = whole_export(instance, rows=9)
    copies_of(instance, id, hourly(19))
    found = read_export_jobs(instance, limit=20)
    with statements() as asked:
        jobs = with_rows(instance, found)
    assert [(job.rows, job.destinations) for job in jobs] == [(9, ("warehouse",))] * 20
    assert len([one for one in asked if "FROM event_logs" in one]) == 2
    recorded(instance, changed(METERS, rows=4), root=id)
    again, other, *_ = with_rows(instance, read_export_jobs(instance, limit=20))
    assert (again.id, again.runs, again.rows, again.destinations) == (id, 2, 4, ("archive", "warehouse"))
    assert (other.runs, other.rows) == (1, 9)


def test_the_rows_of_an_old_export_are_read_from_its_log(instance: dg.DagsterInstance) -> None:
    id = whole_export(instance, rows=9)
    copies_of(instance, id, hourly(MANY))
    old = export_job(instance, run_named(instance, id))
    assert old
    assert with_rows(instance, [old])[0].rows == METERS.rows


def test_nothing_is_left_of_a_run_that_is_deleted(instance: dg.DagsterInstance) -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("right", asset="bill")])
    def bill() -> Any:
        yield dg.Output(1)
        yield dg.AssetCheckResult(passed=True)

    kept, deleted = (dg.materialize([bill], instance=instance, tags={"a": "b"}).run_id for _ in range(2))
    logs = Path(instance.storage_directory())
    assert {count > 0 for count in rows_of(instance, deleted).values()} == {True}
    assert (logs / deleted).exists()
    before = rows_of(instance, kept)
    delete_run(instance, deleted)
    assert set(rows_of(instance, deleted).values()) == {0}
    assert rows_of(instance, kept) == before
    assert (logs / kept).exists()
    assert not (logs / deleted).exists()
    assert log_files(instance, deleted) == []


def rows_of(instance: dg.DagsterInstance, run_id: str) -> dict[str, int]:
    """The number of rows about a run in each table."""
    runs: Any = instance.run_storage
    events: Any = instance.event_log_storage
    in_runs, in_events = (RunsTable, RunTagsTable), (SqlEventLogStorageTable, AssetCheckExecutionsTable)
    found: dict[str, int] = {}
    for connect, tables in ((runs.connect, in_runs), (events.index_connection, in_events)):
        with connect() as connection:
            for table in tables:
                count = sqlalchemy.select(sqlalchemy.func.count()).where(table.c.run_id == run_id)
                found[table.name] = connection.execute(count.select_from(table)).scalar_one()
    return found


@contextmanager
def statements() -> Generator[list[str]]:
    """What is asked of any database meanwhile."""
    found: list[str] = []

    def asked(connection: Any, cursor: Any, statement: str, *others: Any) -> None:  # noqa: ARG001
        if statement.startswith("SELECT"):
            found.append(statement)

    listened = sqlalchemy.Engine, "before_cursor_execute", asked
    sqlalchemy.event.listen(*listened)
    try:
        yield found
    finally:
        sqlalchemy.event.remove(*listened)
