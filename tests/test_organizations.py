"""Two Organizations side by side in one project and on one instance: nothing of one is taken for the other's."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import RemoteJobOrigin
from dagster._core.scheduler.instigation import InstigatorStatus, ScheduleInstigatorData
from many_exports import set_began
from receiver import Receiver
from toggles import state_of, switch

from m3ter_dagster.alarms.late_exports import late_exports, runs_due
from m3ter_dagster.config import Exports, LocalDestination, Notifications, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.due_exports import DagsterRecords
from m3ter_dagster.history.jobs import ExportJob, read_export_jobs, runs_of_others
from m3ter_dagster.history.log import DUE_TAG, MANIFEST, ORGANIZATION_TAG, SCHEDULE_TAG, deliveries_of, previous_export
from m3ter_dagster.history.pruning import old_exports
from m3ter_dagster.names import Names
from m3ter_sandbox import SandboxApi

NIGHTLY = {
    **{"code": "nightly", "operational_data_types": ["ACCOUNTS"], "destinations": ["folder"]},
    **{"schedule_type": "DAY", "period": 1, "dt_created": "2024-06-01T10:00:00Z"},
}
"""Both have it."""
DUE = datetime(2024, 6, 6, 10, tzinfo=UTC)


def account(id: str) -> dict[str, Any]:
    return {"id": id, "version": 1, "name": id, "dtCreated": "2026-01-01T00:00:00.000Z"}


@dataclass
class House:
    """One Organization, its exports, and what they deliver."""

    names: Names
    api: SandboxApi
    receiver: Receiver
    instance: dg.DagsterInstance
    folder: Path

    @property
    def org_id(self) -> str:
        return self.api.organization_id

    @cached_property
    def exports(self) -> Exports:
        return Exports(
            destinations=(LocalDestination(code="folder", destination_type="LOCAL", path=self.folder),),
            schedules=[NIGHTLY],
            notifications={"webhook_url": self.receiver.url, "on_success": True},
        )

    @cached_property
    def definitions(self) -> dg.Definitions:
        settings = load_settings({**self.api.environment, "DAGSTER_HOME": str(self.folder.parent / "home")})
        return build_definitions(self.exports, settings, names=self.names)

    @property
    def keys(self) -> list[dg.AssetKey]:
        return [self.names.key("account"), self.names.key(MANIFEST)]

    @property
    def jobs(self) -> list[ExportJob]:
        return read_export_jobs(self.instance, org_id=self.org_id, limit=20, names=self.names)

    def files(self, export_id: str) -> dict[str, bytes]:
        there = self.folder.glob(f"orgId={self.org_id}/**/{export_id}_*")
        return {file.name.removeprefix(f"{export_id}_"): file.read_bytes() for file in there}

    def difference(self, export_id: str) -> dict[str, Any]:
        return dict(deliveries_of(self.instance, export_id, names=self.names)["account"].difference)


Houses = tuple[House, House]


@pytest.fixture
def houses(request: pytest.FixtureRequest, instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[Houses]:
    """They share the destination. The prefix of the first is a parameter."""
    (tmp_path / "files").mkdir()
    with ExitStack() as stack:

        def house(prefix: tuple[str, ...], org_id: str, *accounts: str) -> House:
            records = [("account", account(one)) for one in accounts]
            api = SandboxApi(records, organization_id=org_id, requests_per_second=None)
            return House(
                Names(prefix),
                stack.enter_context(api),
                stack.enter_context(Receiver()),
                instance,
                tmp_path / "files",
            )

        yield (
            house(getattr(request, "param", ("eu",)), "org-eu", "one", "two", "three"),
            house(("us",), "org-us", "four"),
        )


def merged(*houses: House) -> dg.Definitions:
    definitions = dg.Definitions.merge(*(one.definitions for one in houses))
    dg.Definitions.validate_loadable(definitions)
    return definitions


def export(house: House, definitions: dg.Definitions) -> str:
    """The id of an export of the schedule that both have."""
    job = definitions.resolve_job_def(house.names.own("export_nightly"))
    done = job.execute_in_process(instance=house.instance, tags={DUE_TAG: DUE.isoformat()})
    return done.run_id


def export_both(definitions: dg.Definitions, *houses: House, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    """One run of both, as "Materialize all" makes it."""
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=houses[0].instance,
        asset_selection=[key for house in houses for key in house.keys],
        raise_on_error=raise_on_error,
    )


def tell(definitions: dg.Definitions, house: House, run: dg.ExecuteInProcessResult) -> list[str]:
    """What is sent to the Organization's webhook about the run."""
    before = len(house.receiver.texts)
    name = house.names.own("delivered_exports" if run.success else "failed_exports")
    event = run.get_run_success_event() if run.success else run.get_run_failure_event()
    dagster_run = house.instance.get_run_by_id(run.run_id) or run.dagster_run
    with dg.build_run_status_sensor_context(name, event, house.instance, dagster_run) as context:
        definitions.resolve_sensor_def(name)(context if run.success else context.for_run_failure())
    return house.receiver.texts[before:]


@pytest.mark.parametrize("houses", [("eu",), ()], indirect=True, ids=["both with a prefix", "one without"])
def test_each_is_compared_with_its_own_exports(houses: Houses) -> None:
    eu, us = houses
    definitions = merged(eu, us)
    first, other = export(eu, definitions), export(us, definitions)
    eu.api.records.insert("account", account("five"))
    second = export(eu, definitions)

    assert "notCompared" in eu.difference(first)
    assert "notCompared" in us.difference(other)
    found = eu.difference(second)
    assert (found["previous"], found["added"], found["removed"]) == (first, 1, 0)
    previous = previous_export(eu.instance, org_id="org-us", schedule="nightly", export_id="another", names=us.names)
    assert previous
    assert previous.export == other

    # What the records say of each is about its own.
    assert [(job.id, job.schedule, job.delivered) for job in us.jobs] == [(other, "nightly", ("account",))]
    assert [job.id for job in eu.jobs] == [second, first]
    assert [run.run_id for run in runs_due(us.instance, "org-us", "nightly", DUE, us.names)] == [other]
    assert {run.run_id for run in runs_due(eu.instance, "org-eu", "nightly", DUE, eu.names)} == {first, second}
    runs = filter(None, map(us.instance.get_run_by_id, (first, other)))
    assert [(run.tags[SCHEDULE_TAG], run.tags[ORGANIZATION_TAG]) for run in runs] == [
        ("/".join((*eu.names.prefix, "nightly")), "org-eu"),
        ("us/nightly", "org-us"),
    ]
    assert runs_of_others(us.instance, "org-us") == 2

    # Each keeps a pace of its own.
    assert len(list((eu.folder.parent / "home").glob("*pace*/*"))) == 2


def test_an_export_that_is_due_is_launched_for_the_one_that_has_none(houses: Houses) -> None:
    eu, us = houses
    export(eu, merged(eu, us))
    context = dg.build_sensor_context(instance=eu.instance)
    (schedule,) = eu.exports.schedules
    assert [DagsterRecords(context, one.names).had_run(schedule, DUE) for one in houses] == [True, False]


@pytest.mark.parametrize("houses", [()], indirect=True, ids=["one without a prefix"])
def test_one_run_of_both_is_an_export_of_each(houses: Houses) -> None:
    eu, us = houses
    definitions = merged(eu, us)
    alone = {house.org_id: house.files(export(house, definitions)) for house in houses}
    both = export_both(definitions, eu, us)
    for house in houses:
        files = house.files(both.run_id)
        assert files["account.csv"] == alone[house.org_id]["account.csv"]
        assert files.keys() == alone[house.org_id].keys() >= {"manifest.json"}
        assert house.jobs[0].id == both.run_id
        (text,) = tell(definitions, house, both)
        assert text.splitlines()[-1] == f"1 files, {3 if house is eu else 1} rows: account"
    run = eu.instance.get_run_by_id(both.run_id)
    assert run
    assert set(run.tags[ORGANIZATION_TAG].split(",")) == {"org-eu", "org-us"}


def test_what_fails_is_told_to_the_one_that_it_fails(houses: Houses) -> None:
    eu, us = houses
    definitions = merged(eu, us)
    us.api.records.insert("account", {**account("six"), "version": "x"})
    both = export_both(definitions, eu, us, raise_on_error=False)
    assert not both.success
    assert eu.files(both.run_id).keys() >= {"account.csv", "manifest.json"}
    assert us.files(both.run_id) == {}
    assert tell(definitions, eu, both) == []
    (text,) = tell(definitions, us, both)
    assert text.splitlines()[2].startswith("us__account: ")


@pytest.mark.parametrize("houses", [()], indirect=True, ids=["one without a prefix"])
def test_each_removes_its_own_old_exports(houses: Houses) -> None:
    eu, us = houses
    definitions = merged(eu, us)
    old = {house.org_id: export(house, definitions) for house in houses}
    shared = [export_both(definitions, eu, us).run_id for _ in range(2)]
    last = [export(house, definitions) for house in houses]
    for id in (*old.values(), *shared, *last):
        set_began(eu.instance, id, datetime.now(UTC) - timedelta(days=100))
    before = datetime.now(UTC) - timedelta(days=30)
    for house in houses:
        # Not the first that was shared: it may be what the other needs.
        found = old_exports(house.instance, before, org_id=house.org_id, names=house.names)
        assert [one.id for one in found.exports] == [old[house.org_id]]


def test_the_sensors_of_each_see_to_its_own_exports(houses: Houses) -> None:
    eu, us = houses
    definitions = merged(eu, us)

    def look(sensor: str, house: House) -> Any:
        with dg.build_sensor_context(house.instance, definitions=definitions) as context:
            return definitions.resolve_sensor_def(house.names.own(sensor)).evaluate_tick(context)

    # The button Materialize on one entity makes no manifest.
    config = {"resources": {"us__csv_io_manager": {"config": {"destinations": ["folder"]}}}}
    definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=us.instance, asset_selection=[us.names.key("account")], run_config=config
    )
    (request,) = look("missing_manifests", us).run_requests
    assert (request.asset_selection, request.run_config) == ([us.names.key(MANIFEST)], config)
    assert not look("missing_manifests", eu).run_requests

    # Of each schedule the latest export waits on, although they have one code.
    for house, days in ((us, 0), (us, 1), (eu, 0)):
        tags = {SCHEDULE_TAG: house.names.schedule("nightly"), DUE_TAG: (DUE + timedelta(days=days)).isoformat()}
        job = house.names.own("export_nightly")
        location = state_of(InstigatorStatus.RUNNING, data=ScheduleInstigatorData("0 0 * * *")).origin.repository_origin
        house.instance.add_run(
            dg.DagsterRun(
                job_name=job,
                remote_job_origin=RemoteJobOrigin(location, job),
                status=dg.DagsterRunStatus.QUEUED,
                tags=tags,
                step_keys_to_execute=[key.to_python_identifier() for key in house.keys],
            )
        )
    assert look("stuck_exports", eu).skip_message == "dead: 0 runs, overtaken: 0 exports, not retried: 0."
    assert look("stuck_exports", us).skip_message == "dead: 0 runs, overtaken: 1 exports, not retried: 0."

    # An export whose schedule a person has switched off is not late.
    switch(us.instance, InstigatorStatus.STOPPED, "us__nightly")
    assert [late(house) for house in houses] == ["late: nightly.", "every export is on time."]


def late(house: House) -> str | None:
    """What the sensor says a week after its first look."""
    wanted, cursor, said = Notifications.model_validate({"webhook_url": house.receiver.url}), None, None
    for moment in (DUE, DUE + timedelta(days=7)):
        sensor = late_exports(
            *(house.exports.schedules, wanted, lambda *_: None, house.org_id),
            clock=lambda moment=moment: moment,
            names=house.names,
        )
        with dg.build_sensor_context(house.instance, cursor) as context:
            look = sensor.evaluate_tick(context)
        cursor, said = look.cursor, look.skip_message
    return said
