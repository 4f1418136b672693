"""A schedule's files of changes, applied one after the other, give its last whole file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result
from dagster._core.errors import DagsterResourceFunctionError
from faults import s3_error
from faulty_proxy import FaultyProxy
from rich.console import Console

from m3ter_dagster.cli import main
from m3ter_dagster.cli.progress import Progress
from m3ter_dagster.config import Exports, load_exports, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.history.failures import NOTIFICATION
from m3ter_dagster.history.log import DEFINITION_TAG, EXPORT_JOB, MANIFEST, SCHEDULE_TAG, deliveries_of
from m3ter_dagster.history.record import Changes
from m3ter_dagster.model.changes import changes_table
from m3ter_dagster.model.entities import find_entity
from m3ter_dagster.runs import job_named, resume
from m3ter_dagster.schedules import tags_of
from m3ter_sandbox import SandboxApi, SandboxS3

DOCS = Path(__file__).parents[1] / "docs"
EMPTY = {"added": 0, "changed": 0, "deleted": 0, "removed": 0}
Record = dict[str, Any]


def product(number: int, **more: Any) -> Record:
    """Its cells are awkward: a text with a line end and quotes, an empty one, and no code at all."""
    texts = (f'say "{number}",\n', "", "株式会社", "NA")
    return {
        "id": f"product-{number}",
        "version": 1,
        "name": texts[number % len(texts)],
        "customFields": {"n": number, "text": texts[number % len(texts)]},
        "dtCreated": f"2026-01-01T00:00:{number:02}.000Z",
        **more,
    }


@dataclass
class House:
    """Products that change between the exports of a schedule."""

    api: SandboxApi
    s3: SandboxS3
    proxy: FaultyProxy
    bucket: str
    exports: Exports
    instance: dg.DagsterInstance
    tags: Mapping[str, str] = field(default_factory=lambda: {SCHEDULE_TAG: "nightly"})
    run_id: str = ""
    runs: list[str] = field(default_factory=list)

    def export(self) -> None:
        result = self.job.execute_in_process(
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=[dg.AssetKey("product"), dg.AssetKey(MANIFEST)],
            tags=self.tags,
        )
        self.run_id = result.run_id
        self.runs.append(result.run_id)

    @cached_property
    def job(self) -> dg.JobDefinition:
        return build_definitions(self.exports, load_settings()).resolve_job_def(EXPORT_JOB)

    def set(self, **changes: Any) -> None:
        """Change the schedule, in ways too that exports.yaml does not allow."""
        vars(self).pop("job", None)
        (schedule,) = self.exports.schedules
        self.exports = self.exports.model_copy(update={"schedules": (schedule.model_copy(update=changes),)})

    @property
    def changes(self) -> Changes:
        found = deliveries_of(self.instance, self.run_id)["product"].changes
        assert found
        return found

    def objects(self) -> dict[str, bytes]:
        """Those of the last export by type, and the manifest."""
        found = self.s3.objects(self.bucket).items()
        return {
            "manifest" if key.endswith(".json") else key.split("type=")[1].split("/")[0]: content
            for key, content in found
            if self.run_id in key and not key.endswith("_keys.parquet")
        }

    def resource(self, name: str) -> dict[str, Any]:
        resources = json.loads(self.objects()["manifest"])["resources"]
        return next(one for one in resources if one["m3ter:type"] == name)

    def verify(self) -> Result:
        key = next(key for key in self.s3.objects(self.bucket) if key.endswith(f"{self.run_id}_manifest.json"))
        return CliRunner().invoke(main, ["verify", f"s3://{self.bucket}/{key}", "--endpoint-url", self.s3.endpoint_url])


@pytest.fixture
def house(s3: SandboxS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    bucket = f"changes-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    s3.client().create_bucket(Bucket=bucket)
    api = SandboxApi([("product", product(number)) for number in range(5)], requests_per_second=None)
    with api, FaultyProxy(s3.endpoint_url) as proxy, dg.DagsterInstance.ephemeral() as instance:
        schedule = {
            **{"code": "nightly", "operationalDataTypes": ["PRODUCTS"], "destinations": ["warehouse"]},
            **{"scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z", "changes": True},
        }
        destination = {"code": "warehouse", "bucketName": bucket, "endpointUrl": proxy.url}
        exports = tmp_path / "exports.yaml"
        exports.write_text(json.dumps({"destinations": [destination], "schedules": [schedule]}), encoding="utf-8")
        for name, value in {**s3.environment, **api.environment, "M3TER_EXPORTS": str(exports)}.items():
            monkeypatch.setenv(name, value)
        yield House(api, s3, proxy, bucket, load_exports(), instance)


def statements(name: str) -> str:
    found = re.search(rf"^```sql\n-- {re.escape(name)}\n(.*?)^```", (DOCS / "changes.md").read_text(), re.M | re.S)
    assert found, name
    return found[1]


class DuckDb:
    """The table as the document has it in DuckDB."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Imported before a test runs, it would be frozen with the rest (conftest), and say at the end that it leaked.
        import duckdb

        self._connection = duckdb.connect()
        read = re.search(r"columns = \{(.*?), 'change'", statements("DuckDB"), re.S)
        assert read
        self._columns = f"{{{read[1]}}}"
        columns = (
            self._columns.strip("{}").replace("'", "").replace(":", "").replace("id VARCHAR", "id VARCHAR PRIMARY KEY")
        )
        self._connection.execute(f"CREATE TABLE product ({columns}); CREATE TABLE whole ({columns})")

    def apply(self, changes: bytes) -> None:
        file = self._folder / "product_changes.csv"
        file.write_bytes(changes)
        self._connection.execute(statements("DuckDB").replace("product_changes.csv", str(file)))

    def rows(self) -> list[tuple[Any, ...]]:
        return self._connection.sql("FROM product ORDER BY id").fetchall()

    def whole(self, content: bytes) -> list[tuple[Any, ...]]:
        file = self._folder / "product.csv"
        file.write_bytes(content)
        options = "header = true, delim = ',', quote = '\"', escape = '\"'"
        return self._connection.sql(
            f"FROM read_csv('{file}', {options}, columns = {self._columns}) ORDER BY id"
        ).fetchall()

    def close(self) -> None:
        self._connection.close()


class Postgres:
    """The table as the documents have it in PostgreSQL; `merges` with the MERGE of PostgreSQL 15."""

    def __init__(self, connection: Any, *, merges: bool) -> None:
        self._connection = connection
        self._merges = merges
        connection.autocommit = True  # transactions are the document's
        self._run("DROP TABLE IF EXISTS product, product_changes")
        (create,) = re.findall(r"^CREATE TABLE product .*?;$", (DOCS / "loading.md").read_text(), re.M | re.S)
        self._run(create)

    def apply(self, changes: bytes) -> None:
        before, copy, after = re.split(r"^\\(copy .*)$", statements("PostgreSQL"), maxsplit=1, flags=re.M)
        self._run(before)
        self._copy(copy, changes)
        self._run(f"{statements('Snowflake, PostgreSQL 15')} COMMIT;" if self._merges else after)

    def rows(self, table: str = "product") -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(f'SELECT * FROM {table} ORDER BY "id"')
            return cursor.fetchall()

    def whole(self, content: bytes) -> list[tuple[Any, ...]]:
        self._run("BEGIN; CREATE TEMPORARY TABLE whole (LIKE product) ON COMMIT DROP")
        self._copy("copy whole FROM 'product.csv' WITH (FORMAT csv, HEADER match)", content)
        rows = self.rows("whole")
        self._run("COMMIT")
        return rows

    def _run(self, sql: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)

    def _copy(self, command: str, content: bytes) -> None:
        with self._connection.cursor() as cursor:
            cursor.copy_expert(re.sub(r"'\w+\.csv'", "STDIN", command), io.BytesIO(content))


def ten_exports(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Exports of products that come, change, go and come back; each yields the changes that it should have."""
    products, omits = house.api.records, house.exports.schedules[0].deleted_rows == "OMIT"
    deleted = "removed" if omits else "deleted"
    house.export()
    yield {"added": 5}
    products.insert("product", product(5))
    products.replace("product", product(2, name="", version=2))
    house.export()
    yield {"added": 1, "changed": 1}
    products.delete("product", "product-1")
    products.delete("product", "product-2")
    house.export()
    yield {deleted: 2}
    house.export()
    yield {}
    products.insert("product", product(1, version=3, customFields={}))
    products.replace("product", product(0, code="new"))
    house.export()
    yield {"changed": 1, "added": 1} if omits else {"changed": 2}
    products.delete("product", "product-5")
    products.insert("product", product(6))
    with monkeypatch.context() as later:
        later.setattr(pl, "__version__", "99")
        house.export()
    yield {"added": 1, deleted: 1, "changed": 4 if omits else 5}
    products.delete("product", "product-1")
    house.export()
    yield {deleted: 1, "changed": 4 if omits else 6}
    house.set(keep_deleted_for=0)
    products.replace("product", product(6, name="=1+1"))
    house.export()
    yield {"changed": 1} if omits else {"changed": 1, "removed": 3}
    products.insert("product", product(7, name=None))
    products.delete("product", "product-6")
    house.export()
    yield {"added": 1, "removed": 1}
    products.insert("product", product(6, version=9))
    house.export()
    yield {"added": 1}


@pytest.mark.parametrize("deleted_rows", ["INCLUDE", "OMIT"])
def test_ten_exports_of_changes_give_the_last_whole_file(
    house: House, postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleted_rows: str
) -> None:
    house.set(deleted_rows=deleted_rows)
    with closing(DuckDb(tmp_path)) as duck:
        stands_at, number = None, 0
        words = {1: "there is no previous export", 6: "the previous export was", 7: "the previous export was"}
        for number, expected in enumerate(ten_exports(house, monkeypatch), 1):
            files, found = house.objects(), house.resource("product_changes")["m3ter:changes"]
            assert {**EMPTY, **expected} == {kind: found[kind] for kind in EMPTY} == house.changes.rows, number
            assert found["previous"] == stands_at
            assert found.get("notCompared", "").startswith(words.get(number, "none")) is (number in words)
            duck.apply(files["product_changes"])
            assert duck.rows() == duck.whole(files["product"]), number
            stands_at = house.run_id
        assert (number, len(duck.rows())) == (10, 5)
    assert house.verify().exit_code == 0
    every = list(house.runs)
    for merges in (False, True):
        server = Postgres(postgres, merges=merges)
        for house.run_id in every:
            server.apply(house.objects()["product_changes"])
            assert server.rows() == server.whole(house.objects()["product"])
        assert len(server.rows()) == 5


FORMATS: list[dict[str, Any]] = [
    {"export_file_format": "CSV", "compression": None},
    {"export_file_format": "PARQUET", "compression": None, "typed": True},
    {"export_file_format": "CSV", "compression": "GZIP", "typed": False},
    {"export_file_format": "PARQUET", "compression": None},
    {"export_file_format": "JSONL", "compression": "GZIP"},
]


def test_a_schedule_may_change_its_format(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed is found all the same, and a deleted row keeps the cells that a file of another format had."""
    whole: dict[str, dict[str, Any]] = {}
    exports = ten_exports(house, monkeypatch)
    for number, chosen in enumerate(FORMATS, 1):
        house.set(**chosen)
        name, compression = chosen["export_file_format"], chosen["compression"]
        expected = next(exports)
        found = house.resource("product_changes")["m3ter:changes"]
        assert {**EMPTY, **expected} == {kind: found[kind] for kind in EMPTY}, name
        assert ("notCompared" in found) == (number == 1)
        for type in ("product", "product_changes"):
            resource, table = house.resource(type), find_entity("product")
            table = changes_table(table) if type == "product_changes" else table
            assert (resource["format"], resource.get("compression")) == (name.lower(), "gz" if compression else None)
            format = format_of(resource["path"])
            (tmp_path / "file").write_bytes(house.objects()[type])
            rows = format.read(tmp_path / "file", table).collect().to_dicts()
            if name == "PARQUET":
                kind = pl.read_parquet_schema(tmp_path / "file")["dtCreated"]
                assert kind == (pl.Datetime("us", "UTC") if chosen.get("typed") else pl.String)
            if type == "product":
                after = {row["id"]: row for row in rows}
            else:
                whole |= {row["id"]: {key: row[key] for key in row if key != "change"} for row in rows}
        assert whole == after, name
        assert house.verify().exit_code == 0, house.verify().output
    assert [row["name"] for row in after.values() if row["deleted"]] == [""]


def test_a_text_that_is_no_time_is_named_and_told_without_its_value(house: House) -> None:
    house.api.records.replace("product", product(3, version=2, dtCreated="2026-01-01"))
    house.set(export_file_format="PARQUET", typed=True)
    with pytest.raises(dg.Failure) as failed:
        house.export()
    why = "product is not exported because exports.yaml says typed: true, and m3ter sent a text that is no time: "
    assert f"{why}row product-3, column dtCreated, value 2026-01-01: must be a date-time such as" in str(failed.value)
    assert not failed.value.allow_retries
    assert "value" not in str(failed.value.metadata[NOTIFICATION].value)
    house.set(typed=False)
    house.export()
    assert house.verify().exit_code == 0


def test_without_the_keys_of_the_export_before_the_target_is_to_be_emptied(house: House) -> None:
    house.export()
    (keys,) = deliveries_of(house.instance, house.run_id)["product"].keys
    house.s3.client().put_object(Bucket=house.bucket, Key=keys.uri.split("/", 3)[3], Body=b"altered")
    house.api.records.delete("product", "product-1")
    house.export()
    assert (house.changes.previous, house.changes.rows) == (None, {**EMPTY, "added": 4})
    assert "the object has another sha256 than the file that was delivered" in (house.changes.not_compared or "")
    assert house.resource("product_changes")["m3ter:changes"]["notCompared"] == house.changes.not_compared


def test_a_schedule_that_does_not_want_changes_has_none(house: House) -> None:
    house.set(changes=False)
    house.export()
    assert house.objects().keys() == {"product", "manifest"}
    assert deliveries_of(house.instance, house.run_id)["product"].changes is None


def test_changes_that_cannot_be_delivered_fail_their_entity_and_a_resume_writes_them(house: House) -> None:
    house.export()
    whole = house.run_id
    house.api.records.replace("product", product(3, version=2))
    house.proxy.always(r"^PUT .*_product_changes.csv", s3_error(403, "AccessDenied"))
    with dg.execute_job(
        job_named(EXPORT_JOB),
        house.instance,
        asset_selection=[dg.AssetKey("product"), dg.AssetKey(MANIFEST)],
        tags={SCHEDULE_TAG: "nightly"},
    ) as failed:
        assert not failed.success
        house.run_id = failed.run_id
    assert house.objects().keys() == {"product"}
    house.proxy.heal()
    lines = io.StringIO()
    shown = Progress(Console(file=lines, width=200), None)
    result = resume(house.instance, failed.run_id, abandoned=False, changed=shown)
    assert result.is_complete
    assert re.fullmatch(r"\[1/1] product delivered: 5 rows, \d+ bytes, 1 change\n", lines.getvalue())
    assert [one.uri.rsplit("_", 1)[-1] for one in result.entities["product"].objects] == ["product.csv", "changes.csv"]
    first = house.objects()
    assert (house.changes.previous, house.changes.rows) == (whole, {**EMPTY, "changed": 1})
    assert [line.split(b",")[-1] for line in first["product_changes"].splitlines()] == [b'"change"', b"changed"]
    assert house.verify().exit_code == 0


def test_what_is_wrong_in_a_file_of_changes_is_found(house: House) -> None:
    house.export()
    house.api.records.replace("product", product(2, version=2))
    house.api.records.delete("product", "product-3")
    house.set(deleted_rows="OMIT")
    house.export()
    result = house.verify()
    assert result.exit_code == 0
    assert re.search(r"^product_changes +2 +\d+ +all right$", result.stdout, re.M), result.stdout
    (uri,) = (one.uri for one in house.changes.objects)
    key = uri.split("/", 3)[3]
    content = house.s3.objects(house.bucket)[key]
    client = house.s3.client()
    client.put_object(Bucket=house.bucket, Key=key, Body=content.replace(b",removed", b",gone"))
    client.put_object(Bucket=house.bucket, Key=key.replace("_changes.csv", "_changes.bak"), Body=b"")
    found = [line for line in house.verify().stdout.splitlines() if line.startswith("error")]
    assert [line.split(": ")[1:3] for line in found] == [
        ["product_changes", "object"],
        ["product_changes", "sha256"],
        ["product_changes", "size"],
        ["product_changes, row product-3", "cells"],
    ]
    assert found[-1].endswith("change is 'gone' and must be one of added, changed, deleted, removed")


@pytest.mark.parametrize("name", ["DuckDB", "PostgreSQL", "Snowflake, PostgreSQL 15", "BigQuery"])
def test_each_statement_names_every_column(name: str) -> None:
    sql, columns = statements(name), [column.name for column in find_entity("product").columns]
    named = re.findall(r"\b(?:excluded|c)\.\"?(\w+)", sql) if name != "DuckDB" else re.findall(r"'(\w+)': '", sql)
    assert set(columns) - {"id"} <= set(named) <= {*columns, "change"}
    for listed in re.findall(r"INSERT\s+\((.*?)\)|SELECT (\"id\".*?)\s+FROM", sql, re.S):
        assert re.findall(r"\w+", "".join(listed)) == columns


PERSONAL = ("name", "customFields")


def test_columns_that_a_schedule_excludes_are_in_none_of_its_objects(house: House, tmp_path: Path) -> None:
    house.export()
    house.set(exclude_columns=(("product", PERSONAL),))
    house.api.records.delete("product", "product-1")
    house.export()
    assert house.resource("product")["m3ter:difference"]["notCompared"].startswith("the columns changed since")
    house.api.records.delete("product", "product-2")
    house.api.records.replace("product", product(3, code="new"))
    house.api.records.insert("product", product(6, name="株式会社 6"))
    house.export()
    resource, changed = house.resource("product"), house.resource("product_changes")
    difference = {name: resource["m3ter:difference"][name] for name in EMPTY}
    assert difference == {"added": 1, "changed": 1, "deleted": 1, "removed": 0}
    assert {name: changed["m3ter:changes"][name] for name in EMPTY} == difference
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(house.objects()["product"].decode()))}
    assert {id for id, row in rows.items() if row["deleted"] == "true"} == {"product-2"}
    assert rows["product-2"]["dtCreated"] == product(2)["dtCreated"]
    for one in (resource, changed):
        assert not {field["name"] for field in one["schema"]["fields"]} & {*PERSONAL}
        assert one["schema"]["m3ter:excluded"] == list(PERSONAL)
        assert one["m3ter:reading"]["unknownFields"] == {}
    assert not rows["product-6"].keys() & {*PERSONAL}
    mine = {key: content for key, content in house.s3.objects(house.bucket).items() if house.runs[-1] in key}
    keys = pl.read_parquet(next(content for key, content in mine.items() if key.endswith("_keys.parquet")))
    assert "dtCreated" in str(keys["last"].to_list())  # of the deleted row
    assert not [key for key, content in mine.items() if "株式会社".encode() in content]
    assert "株式会社" not in str(keys["last"].to_list())
    assert house.verify().exit_code == 0
    read = deliveries_of(house.instance, house.run_id)["product"]
    file = tmp_path / "product.csv"
    file.write_bytes(house.objects()["product"])
    assert format_of(file.name).read(file, read.table).collect().height == len(rows) == 5
    assert read.excluded == PERSONAL


def test_an_export_of_a_schedule_that_is_gone_is_as_when_it_was_launched(house: House) -> None:
    """Renamed or removed while its run waited, or before that was resumed."""
    house.set(export_file_format="JSONL", exclude_columns=(("product", ("name",)),))
    house.tags = tags_of(house.exports.schedules[0])
    house.exports = house.exports.model_copy(update={"schedules": ()})
    house.export()
    assert sorted(house.objects()) == ["manifest", "product", "product_changes"]
    rows = [json.loads(line) for line in house.objects()["product"].splitlines()]
    assert [row.keys() & {"code", "name"} for row in rows] == [{"code"}] * 5


def test_a_definition_that_is_none_delivers_nothing(house: House) -> None:
    house.tags = {**tags_of(house.exports.schedules[0]), DEFINITION_TAG: '{"code": "nightly"}'}
    house.exports = house.exports.model_copy(update={"schedules": ()})
    with pytest.raises(DagsterResourceFunctionError) as raised:
        house.export()
    assert str(raised.value.__cause__) == (
        "Schedule 'nightly' is not in exports.yaml, and the run's tag m3ter/schedule_definition does not say how it "
        "exports (5 validation errors for tagged-union[ExportSchedule,UsageSchedule]). Write the schedule again."
    )
    assert house.objects() == {}
