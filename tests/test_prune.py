"""What `m3ter-dagster prune` removes of old exports, and what it never does."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from many_exports import set_began
from stores import Store
from test_record import METERS, WHOLE, changed

from m3ter_dagster.alarms import messages
from m3ter_dagster.cli import main
from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.dagster_internals import log_files
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.jobs import read_export_jobs
from m3ter_dagster.history.log import MANIFEST, SCHEDULE_TAG, previous_export
from m3ter_dagster.history.record import Part, StoredObject, as_metadata

OLD, YOUNG = 100, 10
"""Days."""


@dataclass
class House:
    """An instance whose exports have objects in a bucket."""

    instance: dg.DagsterInstance
    store: Store
    bucket: str
    names: dict[str, str] = field(default_factory=dict)
    """Those that the test gives to the runs, by id."""

    def export(
        self,
        name: str,
        days: int,
        *,
        schedule: str | None = "nightly",
        whole: bool = True,
        root: str | None = None,
        entity: str = "meter",
        destination: str = "warehouse",
    ) -> str:
        """The id of an export of one entity that began so many days ago."""

        @dg.asset(name=entity)
        def delivered(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
            id = root or context.run.run_id
            keys = self._put(f"{id}_{entity}_keys.parquet", destination)
            delivery = changed(
                METERS, asset=entity, export=id, objects=(self._put(f"{id}_{entity}.csv"),), keys=(keys,)
            )
            return dg.MaterializeResult(metadata=as_metadata(delivery))

        @dg.asset(name=MANIFEST, deps=[delivered])
        def manifest(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
            if not whole:
                raise dg.Failure("not today")
            id = root or context.run.run_id
            keys = StoredObject(destination, f"s3://{self.bucket}/m3ter/{id}_{entity}_keys.parquet", 7, "", "")
            self._put(f"{id}_manifest.json")
            record = changed(WHOLE, export=id, schedule=schedule, entities={entity: Part(3, (keys,))})
            return dg.MaterializeResult(metadata=as_metadata(record))

        tags = {SCHEDULE_TAG: schedule} if schedule else {}
        group = {"dagster/root_run_id": root, "dagster/parent_run_id": root} if root else {}
        made = dg.materialize([delivered, manifest], instance=self.instance, tags=tags | group, raise_on_error=False)
        set_began(self.instance, made.run_id, datetime.now(UTC) - timedelta(days=days))
        self.names[made.run_id] = name
        return made.run_id

    def prune(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["prune", *arguments])

    def prune_by_job(self) -> dg.ExecuteInProcessResult:
        """A run of the job that Dagster launches each day, called "job"."""
        definitions = build_definitions(load_exports(), load_settings({}))
        done = definitions.resolve_job_def("prune_history").execute_in_process(
            instance=self.instance, raise_on_error=False
        )
        self.names[done.run_id] = "job"
        return done

    @property
    def runs(self) -> list[str]:
        return sorted(self.names[one.dagster_run.run_id] for one in self.instance.get_run_records())

    @property
    def files(self) -> list[str]:
        """The objects, by the name of their export."""
        keys = [key.removeprefix("m3ter/") for key in self.store.keys(self.bucket)]
        return sorted(f"{self.names[key[:36]]}{key[36:]}" for key in keys)

    def _put(self, name: str, destination: str = "warehouse") -> StoredObject:
        self.store.client().put_object(Bucket=self.bucket, Key=f"m3ter/{name}", Body=b"content")
        return StoredObject(destination, f"s3://{self.bucket}/m3ter/{name}", 7, "", "")


@pytest.fixture
def house(
    instance: dg.DagsterInstance, moto_store: Store, moto_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    exports = tmp_path / "exports.yaml"
    exports.write_text(
        "destinations: [{code: warehouse, prefix: m3ter, region: us-east-1, "
        f"bucketName: {moto_bucket}, endpointUrl: {moto_store.endpoint}}}]\nkeepHistory: 90d\n"
    )
    monkeypatch.setenv("M3TER_EXPORTS", str(exports))
    return House(instance, moto_store, moto_bucket)


def table_row(printed: str, first: str) -> list[str]:
    return next(re.split(r"  +", line.strip()) for line in printed.splitlines() if line.startswith(first))


def test_what_would_go_is_listed_and_stays(house: House) -> None:
    first = house.export("first", OLD + 2)
    house.export("second", OLD, schedule=None)
    house.export("third", OLD + 1)
    house.export("last by hand", YOUNG, schedule=None)
    house.export("last", YOUNG)
    log_bytes = sum(file.stat().st_size for run in house.names for file in log_files(house.instance, run)[:1])
    assert log_bytes
    before = house.runs, house.files
    done = house.prune()
    assert done.exit_code == 0, done.output
    nightly, by_hand = table_row(done.output, "nightly"), table_row(done.output, "(by hand)")
    assert (nightly[1:3], by_hand[1:3]) == (["2", "2"], ["1", "1"])
    began = datetime.now(UTC) - timedelta(days=OLD + 2)
    assert nightly[3].startswith(f"{began:%Y-%m-%d}")
    assert int(nightly[5].replace(",", "")) >= sum(one.stat().st_size for one in log_files(house.instance, first))
    assert table_row(done.output, "warehouse") == ["warehouse", "3", "21"]
    assert "Nothing was removed; --yes removes this." in done.output
    assert (house.runs, house.files) == before


def test_old_exports_go_with_all_that_is_known_of_them_but_no_data(house: House) -> None:
    old = house.export("old", OLD)
    house.export("last", YOUNG)
    files = log_files(house.instance, old)
    assert files
    done = house.prune("--yes")
    assert done.exit_code == 0, done.output
    assert "1 exports were removed: 1 runs with their logs, 1 keys files." in done.output
    assert house.runs == ["last"]
    assert house.files == [
        "last_manifest.json",
        "last_meter.csv",
        "last_meter_keys.parquet",
        "old_manifest.json",
        "old_meter.csv",
    ]
    assert not [file for file in files if file.exists()]
    assert [house.names[job.id] for job in read_export_jobs(house.instance, limit=9)] == ["last"]
    assert "There is nothing to remove." in house.prune("--yes").output


def test_as_json_it_says_what_goes_and_what_is_gone(house: House) -> None:
    old = house.export("old", OLD)
    house.export("last", YOUNG)
    listed = json.loads(house.prune("--json").stdout)
    assert ([one["id"] for one in listed["exports"]], listed["removed"]) == ([old], None)
    assert json.loads(house.prune("--json", "--yes").stdout)["removed"] == {
        "exports": 1,
        "runs": 1,
        "keys": 1,
        "stay": 0,
        "left": [],
    }
    assert house.runs == ["last"]


def test_the_last_whole_export_of_each_schedule_stays_however_old(house: House) -> None:
    for schedule in ("nightly", "yearly", None):
        house.export(f"before {schedule}", OLD + 10, schedule=schedule)
        house.export(f"last {schedule}", OLD + 9, schedule=schedule)
        house.export(f"failed {schedule}", OLD + 8, schedule=schedule, whole=False)
    house.export("last delivery", OLD, schedule="monthly", whole=False)
    done = house.prune("--yes")
    assert done.exit_code == 0, done.output
    assert house.runs == ["last None", "last delivery", "last nightly", "last yearly"]
    for schedule in ("nightly", "yearly", None):
        found = previous_export(house.instance, org_id="org-1", schedule=schedule, export_id="this")
        assert found
        assert house.names[found.export] == f"last {schedule}"
    assert "4 as old must stay" in done.output


def test_the_last_keys_of_an_entity_stay(house: House) -> None:
    """Whatever exports the entity next is compared with them, although the schedule has dropped it."""
    house.export("bills", OLD + 1, entity="bill")
    house.export("before", OLD)
    house.export("last", YOUNG)
    house.export("bills failed", YOUNG, entity="bill", whole=False)
    assert house.prune("--yes").exit_code == 0
    assert house.runs == ["bills", "bills failed", "last"]


def test_what_may_still_be_resumed_or_runs_stays(house: House) -> None:
    root = house.export("began long ago", OLD, whole=False)
    house.export("resumed", YOUNG, whole=False, root=root)
    running = dg.DagsterRun(job_name="export", status=dg.DagsterRunStatus.STARTED, tags={SCHEDULE_TAG: "nightly"})
    house.instance.add_run(running)
    set_began(house.instance, running.run_id, datetime.now(UTC) - timedelta(days=OLD))
    house.names[running.run_id] = "never ended"
    house.export("last", YOUNG)
    assert house.prune("--yes").exit_code == 0
    assert house.runs == ["began long ago", "last", "never ended", "resumed"]


@pytest.mark.parametrize("name", ["report", "usage_raw_by_day"])
def test_runs_of_others_and_of_days_stay(house: House, name: str) -> None:
    @dg.asset(name=name)
    def other() -> None: ...

    id = dg.materialize([other], instance=house.instance).run_id
    house.names[id] = name
    set_began(house.instance, id, datetime.now(UTC) - timedelta(days=OLD))
    assert "There is nothing to remove." in house.prune("--yes").output
    assert house.runs == [name]


def test_an_export_stays_until_its_keys_files_may_be_removed(house: House, aws_key: Any) -> None:
    assert house.store.keeper
    house.export("old", OLD)
    house.export("last", YOUNG)
    before = house.runs, house.files
    aws_key(house.store.keeper)
    done = house.prune("--yes")
    assert done.exit_code == 1
    assert f"allow s3:DeleteObject on arn:aws:s3:::{house.bucket}/m3ter/* to the credentials in use" in done.output
    assert "1 exports stay until their keys files can be removed; with --leave-files those stay instead." in done.output
    assert (house.runs, house.files) == before
    assert house.prune("--yes", "--leave-files").exit_code == 0
    assert (house.runs, house.files) == (["last"], before[1])


def test_keys_files_in_a_destination_that_is_gone_stay_for_good(house: House) -> None:
    house.export("old", OLD, destination="archive")
    house.export("last", YOUNG)
    before = house.files
    done = house.prune("--yes")
    assert done.exit_code == 0, done.output
    assert "keys files stay in 'archive': there is no destination 'archive'; known are warehouse." in done.output
    assert (house.runs, house.files) == (["last"], before)


@pytest.mark.parametrize(("keep", "left"), [("9d", ["last"]), ("11d", ["last", "young"]), ("2w", ["last", "young"])])
def test_how_long_to_keep_is_said_in_days_or_weeks(house: House, keep: str, left: list[str]) -> None:
    house.export("young", YOUNG)
    house.export("last", 1)
    assert house.prune("--keep", keep, "--yes").exit_code == 0
    assert house.runs == left


@pytest.mark.parametrize("keep", ["0d", "90", "d", "-1d", "1y", "99999w", "٣d", ""])
def test_an_age_that_is_none_is_refused(keep: str) -> None:
    done = CliRunner().invoke(main, ["prune", f"--keep={keep}"])
    assert done.exit_code == 2
    assert "is no age; write days or weeks, such as 90d or 12w, up to 36500d." in done.output


def test_the_daily_job_removes_the_same_and_its_own_old_runs(house: House) -> None:
    set_began(house.instance, house.prune_by_job().run_id, datetime.now(UTC) - timedelta(days=OLD))
    house.export("last yearly", OLD + 1, schedule="yearly")
    house.export("old", OLD)
    house.export("young", YOUNG)
    done = house.prune_by_job()
    assert done.success
    assert house.runs == ["job", "last yearly", "young"]
    assert house.instance.get_run_by_id(done.run_id)
    assert [file for file in house.files if "keys" in file] == [
        "last yearly_meter_keys.parquet",
        "young_meter_keys.parquet",
    ]
    (output,) = done.filter_events(lambda event: event.is_successful_output)
    found = output.step_output_data.metadata
    assert {name: value.value for name, value in found.items()} == {
        "exports": 1,
        "runs": 2,
        "keys_files": 1,
        "needed": 1,
    }


def test_the_daily_job_fails_where_keys_files_may_not_be_removed(house: House, aws_key: Any) -> None:
    assert house.store.keeper
    house.export("old", OLD)
    house.export("last", YOUNG)
    aws_key(house.store.keeper)
    done = house.prune_by_job()
    assert house.runs == ["job", "last", "old"]
    failures = done.get_step_failure_events()
    title, page, reason = messages.failed(
        done.dagster_run, failures, "https://dagster.acme.com", prunes=True
    ).splitlines()
    assert (title, page) == ("m3ter: old exports were not removed", f"https://dagster.acme.com/runs/{done.run_id}")
    assert reason.startswith("remove_old_exports: 1 old exports stay: ")
    assert f"allow s3:DeleteObject on arn:aws:s3:::{house.bucket}/m3ter/*" in reason


def test_the_job_is_launched_once_a_day(house: House) -> None:
    schedule = build_definitions(load_exports(), load_settings({})).resolve_schedule_def("prune_history")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 3 * * *", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    with dg.build_schedule_context(house.instance, datetime(2024, 6, 1, 3, 30, tzinfo=UTC)) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    assert request.run_config == {}


@pytest.mark.usefixtures("house")
def test_without_keep_history_there_is_no_job() -> None:
    exports = load_exports().model_copy(update={"keep_history": None})
    definitions = build_definitions(exports, load_settings({}))
    assert "prune_history" not in [job.name for job in definitions.resolve_all_job_defs()]
