"""Writes what an asset has read as one file and delivers it to every Export Destination of the run; manifests too."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, NoReturn

import dagster as dg
import msgspec
import polars as pl
from pydantic import AfterValidator, Field, PrivateAttr, create_model

from m3ter_dagster.config import AnySchedule, Exports, ExportSchedule, Settings
from m3ter_dagster.config.usage import AGGREGATED, RAW, RAW_BY_DAY
from m3ter_dagster.dagster_internals import add_tags, attempts_before
from m3ter_dagster.delivery.destinations import JSON, SIGNATURE, Delivered, DeliveryFailed, Destinations
from m3ter_dagster.delivery.differences import Compared, Previous, compare
from m3ter_dagster.delivery.signatures import Signer, signer_of
from m3ter_dagster.frames.format import Format, RowsLost, Unreadable
from m3ter_dagster.frames.formats import format_for
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.history import captions, record
from m3ter_dagster.history.delivered_frames import DeliveredFrames, last_delivered
from m3ter_dagster.history.earlier import past_of
from m3ter_dagster.history.failures import NOTIFICATION
from m3ter_dagster.history.heartbeat import Heartbeat
from m3ter_dagster.history.log import (
    DEFINITION_TAG,
    DESTINATIONS_TAG,
    ORGANIZATION_TAG,
    USAGE_MANIFEST,
    chosen_entities,
    export_of,
    planned_assets,
    previous_of_each,
    root_id,
    schedule_of,
)
from m3ter_dagster.history.retries import never_retry, retry_after_death, retry_after_failure
from m3ter_dagster.model import manifest
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.exports import Export
from m3ter_dagster.model.manifest import Manifest
from m3ter_dagster.names import Names
from m3ter_dagster.reading.past import Past
from m3ter_dagster.reading.reading import Reading
from m3ter_dagster.resources.readings import Read, recorded
from m3ter_dagster.temporary_folder import TemporaryFolder
from m3ter_dagster.usage.columns import TYPE
from m3ter_dagster.usage.reader import UsageReading

MOST_STEP_RETRIES, RETRY_AFTER_SECONDS = 1, 5


class ExportIOManager(dg.ConfigurableIOManager):
    """One file per entity. Objects are named after the root run, so re-executions complete the same export."""

    destinations: list[str]
    exports: dg.ResourceDependency[Exports]
    settings: dg.ResourceDependency[Settings]
    names: dg.ResourceDependency[Names]
    _destinations: Destinations = PrivateAttr()
    _format: Format = PrivateAttr()
    _folder: TemporaryFolder = PrivateAttr()
    _heartbeat: Heartbeat = PrivateAttr()
    _run: dg.DagsterRun = PrivateAttr()
    _instance: dg.DagsterInstance = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses a wrong signing key, destinations that all refuse, or a disk with too little room.

        Before anything is read: of five million rows it would be known too late.
        """
        assert context.run
        assert context.instance
        assert context.log
        self._destinations = Destinations({one.code: one for one in self.exports.destinations})
        self._run, self._instance = context.run, context.instance
        try:
            self._prepare(context.log)
        except Exception:
            never_retry(self._instance, self._run)  # a person must correct it
            raise
        self._heartbeat = Heartbeat(context.instance, context.run)
        retry_after_death(self._instance, self._run)

    def _prepare(self, log: dg.DagsterLogManager) -> None:
        self._format = format_for(self._any_schedule() or self.exports, self.exports)
        self._add_tags()
        if self.settings.org_id and self.destinations and chosen_entities(self._instance, self._run, self.names):
            self._signer  # noqa: B018 (it refuses a key with which nothing can be signed)
            for refusal in self._destinations.probe(self.destinations, self._export_now()):
                log.warning(f"Nothing will be delivered to one of the destinations: {refusal}")
        self._folder = TemporaryFolder(least_free=self.settings.least_free)

    def _add_tags(self) -> None:
        """Whatever started the run: those of schedules and of the terminal have some of these already.

        A run may export several Organizations that a project has; its tags then name what each of them does.
        """
        run = self._instance.get_run_by_id(self._run.run_id) or self._run
        organizations, destinations = (run.tags.get(one, "").split(",") for one in (ORGANIZATION_TAG, DESTINATIONS_TAG))
        organizations = list(dict.fromkeys(filter(None, [*organizations, self.settings.org_id])))
        of_others = filter(None, destinations if len(organizations) > 1 else ())
        destinations = dict.fromkeys([*of_others, *self.destinations])
        tags = {DESTINATIONS_TAG: ",".join(destinations), ORGANIZATION_TAG: ",".join(organizations)}
        if new := {name: value for name, value in tags.items() if value and run.tags.get(name) != value}:
            add_tags(self._instance, run, new)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        self._heartbeat.stop()
        self._folder.close()

    def handle_output(self, context: dg.OutputContext, obj: Read | Manifest) -> None:
        run = self._instance.get_run_by_id(self._run.run_id)
        if run and run.is_finished:
            # A broker gives what a dead worker had reserved to another one after an hour, when all may be completed.
            raise dg.Failure(f"Run {run.run_id} has ended: nothing is delivered for it.", allow_retries=False)
        try:
            if isinstance(obj, Manifest):
                whole = self._deliver_manifest(obj, self.names.asset(context.asset_key))
                metadata = {
                    **captions.manifest_captions(obj, whole.objects, self._destinations.page),
                    **record.as_metadata(whole),
                }
            else:
                metadata = self._deliver(obj)
        except DeliveryFailed as failed:
            if failed.is_permanent:
                raise dg.Failure(str(failed), allow_retries=False) from None
            if attempts_before(context) == MOST_STEP_RETRIES:
                retry_after_failure(self._instance, self._run)
            _try_again(str(failed))
        except SchemaBreached as breached:
            words = {NOTIFICATION: breached.notification}
            raise dg.Failure(str(breached), metadata=words, allow_retries=False) from None
        except (RowsLost, Unreadable, OSError) as error:
            _try_again(f"{context.asset_key.to_user_string()} could not be written: {error}")
        else:
            context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        return last_delivered(context, self.settings.org_id, self._destinations, self._folder.path, self.names)

    def delivered_frames(self, export_id: str) -> DeliveredFrames:
        """What the runs of an export have delivered so far."""
        return DeliveredFrames(
            self._instance, export_id, destinations=self._destinations, folder=self._folder.path, names=self.names
        )

    @cached_property
    def previous(self) -> Mapping[str, record.WholeExport]:
        """Per entity the last whole export of it by the run's schedule, looked for once."""
        return previous_of_each(
            self._instance,
            self._chosen,
            org_id=self.settings.connection().org_id,
            schedule=schedule_of(self._run, self.names),
            export_id=self._root.run_id,
            names=self.names,
        )

    @property
    def _chosen(self) -> list[str]:
        """The entities of the export."""
        return [name for name in chosen_entities(self._instance, self._root, self.names) if name in entities()]

    @property
    def rows_before(self) -> Mapping[str, int]:
        """The rows of each entity in the previous whole export by the same schedule, as far as there is one."""
        return {name: whole.entities[name].rows for name, whole in self.previous.items()}

    def past(self) -> Past:
        """What the exports before this one had, and what the run's schedule wants to be done with that."""
        schedule, folder = self._schedule(), self._folder.path
        past = past_of(
            *(self._instance, self._export, self._chosen, self.previous, schedule, self._destinations, folder),
            names=self.names,
        )
        return replace(past, two_passes=self.exports.two_passes(schedule))

    def _schedule(self) -> ExportSchedule | None:
        """The run's schedule of entities, if it has one."""
        schedule = self._any_schedule()
        return schedule if isinstance(schedule, ExportSchedule) else None

    def _any_schedule(self) -> AnySchedule | None:
        """The run's schedule as exports.yaml has it, or, where it is gone, as it was when the run was launched."""
        code = schedule_of(self._run, self.names)
        try:
            return self.exports.schedule(code, self._run.tags.get(DEFINITION_TAG)) if code else None
        except ValueError as error:
            raise dg.Failure(
                f"Schedule {code!r} is not in exports.yaml, and the run's tag {DEFINITION_TAG} does not say how it "
                f"exports ({str(error).splitlines()[0]}). Write the schedule again.",
                allow_retries=False,
            ) from None

    def _deliver(self, read: Read) -> dict[str, Any]:
        export, table = self._export, read.table
        if table.name == RAW_BY_DAY and isinstance(read, UsageReading):
            # A day's file has a key of its own, which the next export of that day writes again.
            export = Export(RAW_BY_DAY, export.org_id, read.window.start)
        started = time.monotonic()
        rows, objects = self._write_and_deliver(read, export)
        seconds = time.monotonic() - started
        compared = self._compare(read) if isinstance(read, Reading) else Compared({}, ())
        delivery = record.Delivery(
            asset=table.name,
            export=export.id,
            org_id=export.org_id,
            rows=rows,
            objects=_stored(objects),
            reading=recorded(read),
            seconds_to_deliver=seconds,
            difference=dict(compared.difference),
            keys=_stored(compared.keys),
            changes=msgspec.convert(compared.changes, record.Changes | None, from_attributes=True),
            table_schema=json.loads(table.table_schema) if isinstance(read, UsageReading) else None,
            excluded=read.excluded if isinstance(read, Reading) else (),
        )
        previews = {"preview": captions.preview(read.frame, table)} if self.exports.previews else {}
        return {
            **captions.delivery_captions(delivery, self._destinations.page),
            **previews,
            **record.as_metadata(delivery),
        }

    def _write_and_deliver(self, read: Read, export: Export) -> tuple[int, list[Delivered]]:
        table = read.table
        file = self._folder.path / f"{table.name}.{self._format.suffix}"
        type, name = (TYPE, self._usage_file(table.name)) if isinstance(read, UsageReading) else (table.name, None)
        try:
            rows = self._format.write(read.delivered, table, file)
            return rows, self._destinations.deliver(
                file, export, type, to=self.destinations, kind=self._format, name=name
            )
        finally:
            file.unlink(missing_ok=True)

    def _compare(self, read: Reading) -> Compared:
        export, schedule, whole = self._export, self._schedule(), self.previous.get(read.entity.name)
        keys = whole.entities[read.entity.name].keys if whole else ()
        return compare(
            read.all_keys,
            read.entity,
            previous=Previous(whole.export, msgspec.to_builtins(keys)) if whole and keys else None,
            destinations=self._destinations,
            export=export,
            to=self.destinations,
            folder=self._folder.path,
            format=self._format,
            parts=read.delivered if schedule and schedule.changes else None,
        )

    def _deliver_manifest(self, whole: Manifest, asset: str) -> record.WholeExport:
        objects: list[Delivered] = []
        name = USAGE_MANIFEST if asset == USAGE_MANIFEST and self._goes_with(*entities()) else manifest.TYPE
        signed_by = self._signer.fingerprint if self._signer else None
        for code in whole.destinations:
            file = self._folder.path / "manifest.json"
            package = whole.data_package(code, signed_by=signed_by)
            file.write_text(json.dumps(package, indent=2, ensure_ascii=False), encoding="utf-8")
            if self._signer:
                signature = file.with_suffix(f".{SIGNATURE.suffix}")
                signature.write_bytes(self._signer.sign(file.read_bytes()))
                # Before the manifest, so that whoever finds that finds its signature, too.
                self._destinations.deliver(signature, whole.export, manifest.TYPE, to=[code], kind=SIGNATURE, name=name)
            objects += self._destinations.deliver(file, whole.export, manifest.TYPE, to=[code], kind=JSON, name=name)
        return record.WholeExport(
            asset=asset,
            export=whole.export.id,
            org_id=whole.export.org_id,
            schedule=whole.schedule,
            objects=_stored(objects),
            entities={
                one.entity.name: msgspec.convert({"rows": one.rows, "keys": one.keys}, record.Part)
                for one in whole.entities
            },
            previous=whole.previous,
        )

    def _usage_file(self, asset: str) -> str:
        """Raw and aggregated measurements of one export must not have one key."""
        return f"{TYPE}_aggregated" if asset == AGGREGATED and self._goes_with(RAW) else TYPE

    def _goes_with(self, *assets: str) -> bool:
        """Whether the export has one of these assets, too."""
        return not planned_assets(self._instance, self._root, self.names).isdisjoint(assets)

    @cached_property
    def _signer(self) -> Signer | None:
        return signer_of(self.settings)

    @cached_property
    def _root(self) -> dg.DagsterRun:
        """The first run of the export."""
        return self._instance.get_run_by_id(root_id(self._run)) or self._run

    @cached_property
    def _export(self) -> Export:
        return self._export_now()

    def _export_now(self) -> Export:
        """For an export that was not due, the time is that of its start, which is not known before the first step."""
        return export_of(self._run, self._instance, self.settings.connection().org_id)


def io_manager_for(exports: Exports) -> type[ExportIOManager]:
    """The IO manager whose config takes the codes of these destinations and no others.

    Dagster's launchpad completes them, and a typo is refused before a run starts.
    """
    codes = [one.code for one in exports.destinations]
    # Messages show the name; and Dagster takes two types of one name for the same, whatever their values.
    name = f"Destination ({', '.join(codes)})"
    code: Any = StrEnum(name, [(one, one) for one in codes])
    about = Field(description="Where to deliver to: codes of the Export Destinations of exports.yaml.")
    field = (list[Annotated[code, AfterValidator(str)]], about)
    return create_model(ExportIOManager.__name__, __base__=ExportIOManager, destinations=field)


def _stored(objects: Any) -> tuple[record.StoredObject, ...]:
    return msgspec.convert(objects, tuple[record.StoredObject, ...], from_attributes=True)


def _try_again(words: str) -> NoReturn:
    """Retry the step. An asset's retry policy would too, but Dagster applies that even after a signal to end."""
    raise dg.RetryRequested(max_retries=MOST_STEP_RETRIES, seconds_to_wait=RETRY_AFTER_SECONDS) from dg.Failure(words)
