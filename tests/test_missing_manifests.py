"""Exports that were started without their manifest get it, and are compared with those before them."""

from collections.abc import Iterator

import dagster as dg
import pytest
from test_deleted_rows import House, first_of, house
from test_record import METERS, WHOLE, changed

from m3ter_dagster.config.usage import AGGREGATED, RAW, RAW_BY_DAY
from m3ter_dagster.dagster_internals import planned_steps
from m3ter_dagster.history.log import MANIFEST, USAGE_MANIFEST, root_id, runs_of
from m3ter_dagster.history.record import Part, as_metadata
from m3ter_dagster.missing_manifests import missing_manifests
from m3ter_dagster.resources import IO_MANAGER
from m3ter_dagster.runs import job_named

__all__ = ["house"]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def entity_asset(name: str, *, fails: bool = False) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def entity(context: dg.AssetExecutionContext) -> None:
        if fails:
            raise dg.Failure("not today", allow_retries=False)
        delivery = changed(METERS, asset=name, export=root_id(context.run))
        context.add_output_metadata(as_metadata(delivery))

    return entity


@dg.asset(name=MANIFEST)
def manifest_asset(context: dg.AssetExecutionContext) -> None:
    context.add_output_metadata(as_metadata(changed(WHOLE, entities={"meter": Part(3)})))


def run(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, **tags: str) -> dg.DagsterRun:
    named = {name.replace("_", "/", 1): value for name, value in tags.items()}
    return dg.materialize([*assets], instance=instance, tags=named, raise_on_error=False).dagster_run


def look(instance: dg.DagsterInstance, cursor: str | None = None, *, org_id: str | None = None) -> dg.SensorResult:
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        found = missing_manifests(["warehouse"], org_id)(context)
    assert isinstance(found, dg.SensorResult)
    return found


def requested(instance: dg.DagsterInstance, cursor: str | None = None) -> list[tuple[str, list[str]]]:
    """The exports that a look makes manifests of, each with the manifest."""
    return [
        (one.tags["dagster/root_run_id"], [key.to_user_string() for key in one.asset_selection or ()])
        for one in look(instance, cursor).run_requests or ()
    ]


def test_an_export_without_a_manifest_gets_it(instance: dg.DagsterInstance) -> None:
    chosen = run(instance, entity_asset("meter"), entity_asset("bill"), m3ter_request="r", foreign_tag="f")
    (request,) = look(instance).run_requests or ()
    assert request.asset_selection == [dg.AssetKey(MANIFEST)]
    assert request.tags == {
        "m3ter/request": "r",
        "m3ter/export": chosen.run_id,
        "dagster/root_run_id": chosen.run_id,
        "dagster/parent_run_id": chosen.run_id,
    }


@pytest.mark.parametrize(
    ("names", "manifests"),
    [
        (["meter", RAW], [MANIFEST, USAGE_MANIFEST]),
        ([AGGREGATED], [USAGE_MANIFEST]),
        ([RAW_BY_DAY], []),
        (["other"], []),
    ],
)
def test_each_kind_of_data_has_its_own(instance: dg.DagsterInstance, names: list[str], manifests: list[str]) -> None:
    export = run(instance, *map(entity_asset, names)).run_id
    assert requested(instance) == [(export, [one]) for one in manifests]


def test_what_has_its_manifest_or_is_not_whole_gets_none(instance: dg.DagsterInstance) -> None:
    run(instance, entity_asset("meter"), manifest_asset)
    failed = run(instance, entity_asset("meter"), entity_asset("bill", fails=True))
    assert requested(instance) == []
    of_it = {"dagster_root_run_id": failed.run_id, "dagster_parent_run_id": failed.run_id}
    run(instance, entity_asset("product"), **of_it)
    assert requested(instance) == []
    run(instance, entity_asset("bill"), **of_it)
    assert requested(instance) == [(failed.run_id, [MANIFEST])]
    run(instance, manifest_asset, **of_it)
    assert requested(instance) == []
    run(instance, entity_asset("bill"), **of_it)
    assert requested(instance) == [(failed.run_id, [MANIFEST])], "for the files are others now"


def test_an_export_of_another_organization_is_none_of_ours(instance: dg.DagsterInstance) -> None:
    run(instance, entity_asset("meter"), m3ter_organization="org-2")
    assert not look(instance, org_id="org-1").run_requests
    assert len(look(instance, org_id="org-2").run_requests or ()) == 1


def test_an_export_to_a_destination_that_is_no_more_keeps_no_other_from_its_manifest(
    instance: dg.DagsterInstance,
) -> None:
    config = {"resources": {IO_MANAGER: {"config": {"destinations": ["archive"]}}}}
    io_manager = dg.IOManagerDefinition(dg.mem_io_manager.resource_fn, config_schema=dg.Permissive())
    dg.materialize([entity_asset("meter")], instance=instance, resources={IO_MANAGER: io_manager}, run_config=config)
    other = run(instance, entity_asset("meter")).run_id
    assert requested(instance) == [(other, [MANIFEST])]


def test_a_manifest_that_was_made_afterwards_stays_its_export_s_when_it_is_re_executed(
    instance: dg.DagsterInstance,
) -> None:
    export = run(instance, entity_asset("meter")).run_id
    (request,) = look(instance).run_requests or ()
    made = dg.materialize([manifest_asset], instance=instance, tags=request.tags).dagster_run
    # Dagster takes the first of them for the root, and passes tags on.
    of_it = {**made.tags, "dagster/root_run_id": made.run_id, "dagster/parent_run_id": made.run_id}
    again = dg.materialize([manifest_asset], instance=instance, tags=of_it).dagster_run
    assert root_id(again) == export
    assert [one.dagster_run.run_id for one in runs_of(instance, export)] == [export, made.run_id, again.run_id]


def test_a_later_look_starts_where_the_last_ended(instance: dg.DagsterInstance) -> None:
    export = run(instance, entity_asset("meter")).run_id
    found = look(instance)
    assert requested(instance, found.cursor) == [(export, [MANIFEST])]
    assert requested(instance, "2999-01-01T00:00:00+00:00") == []


def materialize(house: House, instance: dg.DagsterInstance, *names: str) -> str:
    """The id of an export as the button Materialize starts it, with what the sensor makes of it."""
    with dg.execute_job(
        job_named("__ASSET_JOB"), instance, run_config=QUIET, asset_selection=[dg.AssetKey(name) for name in names]
    ) as done:
        assert done.success
    (request,) = [one for one in look(instance).run_requests or () if one.tags["dagster/root_run_id"] == done.run_id]
    with dg.execute_job(
        job_named("__ASSET_JOB"),
        instance,
        run_config={**QUIET, **request.run_config},
        asset_selection=request.asset_selection,
        tags=request.tags,
    ) as made:
        assert made.success
        assert planned_steps(instance, made.dagster_run) == {MANIFEST}
    house.run_id = done.run_id
    return done.run_id


def test_entities_that_were_chosen_in_the_ui_become_an_export_like_any_other(
    house: House, instance: dg.DagsterInstance
) -> None:
    first = materialize(house, instance, "account", "bill")
    assert sorted(house.manifest) == ["account", "bill"]
    assert "notCompared" in house.manifest["account"]["m3ter:difference"]
    house.verify()
    materialize(house, instance, "contract")
    house.api.records.insert("account", {**first_of("account"), "id": "new"})
    materialize(house, instance, "account")
    assert house.manifest["account"]["m3ter:difference"] == {
        **{"previous": first, "added": 1, "removed": 0, "changed": 0, "deleted": 0}
    }
