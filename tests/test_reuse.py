"""Line items of bills that did not change are taken from the previous export, and the file is that of a full export."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from m3ter_dagster.assets.cross_entity_checks import FOREIGN_KEYS
from m3ter_dagster.assets.entity_checks import REUSE
from m3ter_dagster.config import ExportSchedule, load_exports
from m3ter_dagster.dagster_internals import events_of_run
from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.frames.difference import hashes
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.history.earlier import past_of
from m3ter_dagster.history.log import EXPORT_JOB, MANIFEST, SCHEDULE_TAG, deliveries_of, previous_of_each
from m3ter_dagster.history.record import Delivery
from m3ter_dagster.model.entities import find_entity
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.model.exports import Export
from m3ter_dagster.reading.reading import Reading
from m3ter_dagster.reading.unchanged import CannotReuse, Earlier, EarlierRows, unchanged_since
from m3ter_dagster.runs import job_named
from m3ter_sandbox import SampleOrganization, SandboxApi, SandboxS3

Record = dict[str, Any]
ORGANIZATION = [pair for pair in SampleOrganization(14).records() if pair[0] in ("bill", "bill_line_item")]
ITEMS, FULL_EVERY = "bill_line_item", 2
EXCLUDED = ("description", "segment")
"""The columns that one of the schedules leaves out."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory, where a run costs a third."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@dataclass
class Organization:
    """Bills and line items that change between exports, and those exports."""

    instance: dg.DagsterInstance
    s3: SandboxS3
    bucket: str
    environment: Callable[[dict[str, str]], None]
    records: list[tuple[str, Record]] = field(default_factory=lambda: [(name, dict(one)) for name, one in ORGANIZATION])
    asked: list[str] = field(default_factory=list)
    """The paths of the requests for line items that the last export made."""
    happen: Callable[[SandboxApi, str], None] = lambda *_: None
    """Called before each answer, with its path."""
    run_id: str = ""

    @property
    def bills(self) -> list[Record]:
        return [record for name, record in self.records if name == "bill"]

    def items_of(self, bill: Record) -> list[Record]:
        return [record for name, record in self.records if name == ITEMS and record["billId"] == bill["id"]]

    def export(self, schedule: str = "nightly", names: Sequence[str] = ("bill", ITEMS, MANIFEST)) -> Delivery:
        with SandboxApi(self.records, requests_per_second=None) as api:
            self.environment(api.environment)
            api.before_answer = lambda path, _: self.happen(api, path)
            with dg.execute_job(
                job_named(EXPORT_JOB),
                self.instance,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                asset_selection=[dg.AssetKey(name) for name in names],
                tags={SCHEDULE_TAG: schedule},
            ) as result:
                assert result.success
                self.run_id = result.run_id
            self.asked = [one.path.split("/", 3)[-1] for one in api.requests if one.path.endswith("/lineitems")]
        return deliveries_of(self.instance, self.run_id)[ITEMS]

    def rows(self, delivery: Delivery) -> list[bytes]:
        """The lines of the file, which has no text with a line end in it, sorted."""
        return sorted(self.s3.objects(self.bucket)[key_of(delivery.objects[0].uri)].splitlines())

    def check(self, name: str = REUSE) -> dg.AssetCheckEvaluation:
        """What a check of the last export's line items says."""
        events = events_of_run(self.instance, self.run_id, {dg.DagsterEventType.ASSET_CHECK_EVALUATION})
        found = [event.asset_check_evaluation_data for event, _ in events]
        return next(one for one in found if (one.asset_key.path[-1], one.check_name) == (ITEMS, name))

    @property
    def pages(self) -> int:
        """How many there are of the whole list."""
        return -(-sum(name == ITEMS for name, _ in self.records) // 100)

    def remove(self, *records: Record) -> None:
        self.records = [pair for pair in self.records if not any(pair[1] is one for one in records)]

    def asked_of_bills(self) -> set[str]:
        return {path.split("/")[1] for path in self.asked if path.startswith("bills/")}


def key_of(uri: str) -> str:
    return uri.removeprefix("s3://").partition("/")[2]


@pytest.fixture
def organization(
    s3: SandboxS3, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Organization:
    bucket = f"reuse-{tmp_path.name.replace('_', '-')[-40:].strip('-')}"
    s3.client().create_bucket(Bucket=bucket)
    rest = {"destinations": ["warehouse"], "scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z"}
    plain = {"completeness": "onePass", "deletedRows": "OMIT"}
    schedule = {"operationalDataTypes": ["BILLS", "BILL_LINE_ITEMS"], **plain, **rest}
    typed = {"exportFileFormat": "PARQUET", "typed": True, "excludeColumns": {ITEMS: list(EXCLUDED)}}
    exports = {
        "destinations": [{"code": "warehouse", "bucketName": bucket, "endpointUrl": s3.endpoint_url}],
        "schedules": [
            {"code": "nightly", **schedule, "reuse": "unchangedBills", "fullEvery": FULL_EVERY},
            {"code": "plain", **schedule},
            {"code": "typed", **schedule, "reuse": "unchangedBills", **typed},
        ],
    }
    (tmp_path / "exports.yaml").write_text(json.dumps(exports), encoding="utf-8")

    def environment(values: dict[str, str]) -> None:
        for name, value in {**s3.environment, **values, "M3TER_EXPORTS": str(tmp_path / "exports.yaml")}.items():
            monkeypatch.setenv(name, value)

    return Organization(instance, s3, bucket, environment)


def how(delivery: Delivery) -> str:
    return delivery.reading.how or ""


def test_only_bills_that_changed_are_requested_and_the_file_is_that_of_a_full_export(
    organization: Organization,
) -> None:
    first = organization.export()
    assert how(first).startswith("all, since nothing can be taken from the schedule's previous export: there is none w")
    assert len(organization.asked) == organization.pages
    version, date, calculated, gone, *_ = organization.bills
    version["version"] += 1
    organization.items_of(version)[0]["quantity"] = 0.1 + 0.2
    date["dtLastModified"] = "2026-02-01T00:00:00.000Z"
    organization.items_of(date)[0]["description"] = '"so, "\ttoo'
    calculated["lastCalculatedDate"] = "2026-02-01T00:00:00.000Z"
    organization.remove(organization.items_of(calculated)[0])
    calculated.pop("billTotal")
    organization.remove(gone, *organization.items_of(gone))
    organization.records += [
        ("bill", {**version, "id": "new"}),
        (ITEMS, {**organization.items_of(version)[0], "id": "new/0", "billId": "new"}),
    ]
    second = organization.export()
    changed = {one["id"] for one in (version, date, calculated)} | {"new"}
    assert organization.asked_of_bills() == changed | {gone["id"]}  # which is asked for what is missing now
    assert len(organization.asked) == 4 + 2 + 1  # and a look at the newest before and after
    assert re.fullmatch(
        rf"bill by bill, 4 of 106: the others have not changed, so their \d+ rows are taken from export {first.export}",
        how(second),
    )
    with pytest.raises(StopIteration):  # there is nothing to compare
        organization.check()
    full = organization.export("plain")
    assert (full.reading.how, len(organization.asked)) == (None, organization.pages)
    assert organization.rows(second) == organization.rows(full)
    assert organization.rows(first) != organization.rows(full)


def test_rows_are_taken_from_a_file_of_any_format_and_of_the_columns_that_are_exported(
    organization: Organization, tmp_path: Path
) -> None:
    organization.export("typed")
    changed = organization.bills[0]
    changed["version"] += 1
    organization.items_of(changed)[0]["quantity"] = 7.25
    second, full = organization.export("typed"), organization.export("plain")
    assert second.reading.reused_in_a_row == 1
    frames: list[pl.DataFrame] = []
    for one, excluded in ((second, EXCLUDED), (full, ())):
        file, uri = tmp_path / "items", one.objects[0].uri
        file.write_bytes(organization.s3.objects(organization.bucket)[key_of(uri)])
        frames.append(format_of(uri).read(file, find_entity(ITEMS).without(excluded)).sort("id").collect())
    assert second.objects[0].uri.endswith(".parquet")
    assert frames[0].equals(frames[1].drop(EXCLUDED))


def test_every_nth_export_is_a_full_one_and_shows_what_reuse_would_have_missed(organization: Organization) -> None:
    in_a_row = [organization.export().reading.reused_in_a_row for _ in range(FULL_EVERY + 1)]
    check = organization.check()
    assert (in_a_row, check.passed, check.metadata["unchanged with other rows"].value) == ([0, 1, 0], True, 0)
    fourth = organization.export()
    silent = organization.bills[1]
    organization.items_of(silent)[0]["description"] = "changed, and the bill does not say so"
    fifth = organization.export()
    assert how(fifth) == f"all, as every 2 exports, to compare with {fourth.export}; over one cursor"
    assert (len(organization.asked), fifth.reading.reused_in_a_row) == (organization.pages, 0)
    check = organization.check()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == (
        f"1 of 106 unchanged bill records have other rows than in export {fourth.export}. "
        "Reuse is not safe here: take it out of exports.yaml."
    )
    assert check.metadata["first of them"].value.records == [dg.TableRecord({"bill": silent["id"]})]


def test_bills_that_change_or_go_before_their_lines_are_read_say_nothing_about_reuse(
    organization: Organization,
) -> None:
    for _ in range(FULL_EVERY):
        organization.export()
    silent, newer, calculated, gone = organization.bills[1:5]
    organization.items_of(silent)[0]["description"] = "changed, and the bill does not say so"
    for bill in (newer, calculated, gone):
        organization.remove(organization.items_of(bill)[0])

    def happen(api: SandboxApi, path: str) -> None:
        if path.endswith("/lineitems"):
            organization.happen = lambda *_: None
            api.records.replace("bill", {**newer, "version": 99})
            api.records.replace("bill", {**calculated, "lastCalculatedDate": "2026-02-01T00:00:00.000Z"})
            api.records.delete("bill", gone["id"])

    organization.happen = happen
    organization.export()
    assert organization.check().metadata["first of them"].value.records == [dg.TableRecord({"bill": silent["id"]})]


@pytest.mark.parametrize(("in_a_row", "is_full"), [(0, False), (5, False), (6, True), (7, True)])
def test_the_seventh_export_is_full(in_a_row: int, is_full: bool) -> None:
    assert Earlier(None, full_every=7, reused_in_a_row=in_a_row).is_full == is_full


def test_a_bill_whose_lines_no_longer_add_up_is_read_again(organization: Organization) -> None:
    organization.export()
    bill = organization.bills[5]
    bill["billTotal"] += 1  # and nothing says that it changed
    organization.items_of(bill)[0]["convertedSubtotal"] += 1
    second = organization.export()
    assert organization.asked_of_bills() == {bill["id"]}
    assert organization.rows(second) == organization.rows(organization.export("plain"))


def test_without_the_files_of_the_previous_export_everything_is_read(organization: Organization) -> None:
    first, client = organization.export(), organization.s3.client()
    for name, content in (("bill", None), (ITEMS, b"tampered"), ("keys", b"tampered")):
        delivered = deliveries_of(organization.instance, first.export)
        objects = first.keys if name == "keys" else delivered[name].objects
        where = {"Bucket": organization.bucket, "Key": key_of(objects[0].uri)}
        client.put_object(**where, Body=content) if content else client.delete_object(**where)
        second = organization.export()
        why = "Altered: the object has another sha256" if content else "404 on HeadObject: there is no such object"
        nothing = "all, since nothing can be taken from the schedule's previous export: destination 'w"
        assert how(second).startswith(nothing), name
        assert f"{objects[0].uri}: {why}" in how(second)
        assert (second.rows, second.reading.reused_in_a_row) == (first.rows, 0)
        assert organization.asked_of_bills() == set()
        first = second


def test_rows_that_another_version_of_polars_hashed_are_not_taken_over(
    organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(pl, "__version__", "0.1")
        organization.export()
    assert f"was written with polars 0.1, this one with {pl.__version__}; over one cursor" in how(organization.export())


def test_a_run_that_does_not_export_the_bills_reads_them_to_compare(organization: Organization) -> None:
    """As does each process where every step has its own, and the rest of an export that failed."""
    first = organization.export()
    organization.bills[7]["version"] += 1
    assert organization.rows(organization.export(names=[ITEMS])) == organization.rows(first)
    assert organization.asked_of_bills() == {organization.bills[7]["id"]}
    with pytest.raises(StopIteration):  # the bills are not in this export
        organization.check(FOREIGN_KEYS)


def test_an_export_was_read_from_when_the_first_of_its_lists_was(organization: Organization, tmp_path: Path) -> None:
    first = organization.export()
    exports = load_exports()
    schedule, to = exports.schedules[0], Destinations({one.code: one for one in exports.destinations})
    assert isinstance(schedule, ExportSchedule)

    def earlier(export: str) -> Earlier:
        instance, org_id = organization.instance, first.org_id
        own = previous_of_each(instance, {ITEMS}, org_id=org_id, schedule=schedule.code, export_id=export)
        return past_of(instance, Export(export, org_id, THEN), [ITEMS], own, schedule, to, tmp_path).reused[ITEMS]

    found = earlier("now")
    assert found.fetch
    started = {one.reading.started for one in deliveries_of(organization.instance, first.export).values()}
    assert len(started) == 2
    assert found.fetch(tmp_path).read_from == min(started)
    assert earlier(first.export).fetch is None


def test_where_too_much_changed_the_whole_list_is_read(organization: Organization) -> None:
    organization.export()
    for bill in organization.bills[:8]:
        bill["version"] += 1
    assert "8 changed or are new, which is more requests than the whole list" in how(organization.export())
    assert len(organization.asked) == 1 + organization.pages


# What counts as unchanged

BILL, LINE = find_entity("bill"), find_entity(ITEMS)
THEN = datetime(2026, 3, 1, tzinfo=UTC)
LONG_AGO, LATER = "2026-01-01T00:00:00.000Z", "2026-02-28T23:30:00.000Z"
"""Well before the earlier export was read, and so shortly before that clocks may differ."""


def frame(entity: Entity, *rows: Record) -> pl.LazyFrame:
    return pl.LazyFrame(list(rows), schema=frame_schema(entity))


def bill(name: str, **more: Any) -> Record:
    return {"id": name, "version": 1, "dtLastModified": LONG_AGO, "lastCalculatedDate": None, **more}


def line(of: str | None, **more: Any) -> Record:
    return {"id": f"{of}/0", "billId": of, "subtotal": 5.0, **more}


def earlier(bills: Sequence[Record], lines: Sequence[Record], *, read: Sequence[Record] | None = None) -> EarlierRows:
    """An export that read `read`, whose file gives `lines`."""
    with_hashes = frame(LINE, *lines).with_columns(hashes(LINE))
    before = frame(LINE, *(lines if read is None else read)).select(hashes(LINE))
    return EarlierRows("earlier", frame(BILL, *bills), with_hashes, before, THEN)


def reading(entity: Entity, *rows: Record, started: datetime = THEN + timedelta(days=1)) -> Reading:
    found = frame(entity, *rows)
    return Reading(entity, found, [found], found.select(hashes(entity)), len(rows), 0, {}, (), 1, started, started)


A, B = bill("a"), bill("b")


@pytest.mark.parametrize(
    ("before", "now", "ids"),
    [
        ([A, B], [A, B], ["a", "b"]),
        ([A, B], [A], ["a"]),
        ([A], [A, B], ["a"]),
        ([A], [bill("a", version=2)], []),
        ([A], [bill("a", dtLastModified="2026-01-01T00:00:00.001Z")], []),
        ([A], [bill("a", lastCalculatedDate=LONG_AGO)], []),
        ([bill("a", lastCalculatedDate=LONG_AGO)], [A], []),
        ([bill("a", lastCalculatedDate="")], [A], []),
        ([A], [bill("a", status="APPROVED")], ["a"]),
        ([bill("a", dtLastModified=None)], [bill("a", dtLastModified=None)], []),
        ([bill("a", dtLastModified=LATER)], [bill("a", dtLastModified=LATER)], []),
        ([bill("a", lastCalculatedDate=LATER)], [bill("a", lastCalculatedDate=LATER)], []),
        ([], [], []),
    ],
)
def test_a_bill_is_unchanged_if_nothing_says_otherwise(before: list[Record], now: list[Record], ids: list[str]) -> None:
    found = unchanged_since(earlier(before, []), reading(BILL, *now), LINE)
    assert (sorted(found.ids), found.count) == (ids, 0)


@pytest.mark.parametrize(
    ("lines", "read", "ids"),
    [
        ([line("a"), line("b")], None, ["a", "b"]),
        ([line("a", dtCreated=LATER), line("b")], None, ["b"]),
        ([line("a", description="'=1"), line("b")], [line("a", description="=1"), line("b")], ["b"]),
        ([line("a", subtotal=4.0), line("b")], None, ["b"]),
        ([line("b")], None, ["b"]),
    ],
)
def test_and_if_its_lines_are_as_they_were_read_and_add_up(
    lines: list[Record], read: list[Record] | None, ids: list[str]
) -> None:
    bills = [bill("a", billTotal=5.0, currency="USD"), bill("b", billTotal=5.0, currency="USD")]
    found = unchanged_since(earlier(bills, lines, read=read), reading(BILL, *bills), LINE)
    assert sorted(found.ids) == ids
    rows = pl.concat(list(found.batches())) if ids else pl.DataFrame()
    assert (sorted(rows["billId"]), found.count) == (ids, len(ids))


@pytest.mark.parametrize("owner", [None, "c"])
def test_lines_of_no_bill_cannot_be_kept_in_this_way(owner: str | None) -> None:
    with pytest.raises(CannotReuse, match=r"^1 of the rows of export earlier belong to nothing that it has$"):
        unchanged_since(earlier([A], [line("a"), line(owner)]), reading(BILL, A), LINE)


def test_what_was_written_while_all_was_read_is_not_judged() -> None:
    found = unchanged_since(earlier([A, B], [line("a"), line("b")]), reading(BILL, A, B), LINE)
    now = [line("a", description="new", dtLastModified="2026-03-02T00:00:01Z"), line("b")]
    assert found.compared_with(reading(LINE, *now)).differing == []
    assert found.compared_with(reading(LINE, line("a"))).differing == ["b"]
    assert found.compared_with(reading(LINE, *now, line("b", id="b/1"))).differing == ["b"]
