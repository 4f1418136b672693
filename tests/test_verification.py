"""A delivered export that is tampered with: each fault is named by the check that finds it, and the others go on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from deliveries import destination
from memory import PEAK
from stores import Key, Store

from m3ter_dagster.cli import main
from m3ter_dagster.delivery.destinations import store_of
from m3ter_dagster.delivery.s3 import S3Store
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.format import Format
from m3ter_dagster.frames.jsonl import JsonLines
from m3ter_dagster.frames.parquet import Parquet
from m3ter_dagster.model.entities import entities
from m3ter_dagster.verification.data_package import NotAManifest, read_data_package
from m3ter_dagster.verification.verify import unnamed_objects
from m3ter_sandbox import Sandbox, SandboxS3

NAMES = ("account", "bill", "meter", "product")
WAREHOUSE = "sandbox-warehouse"
NO_ID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Original:
    """An export as it was delivered."""

    s3: SandboxS3
    exports: Path
    key: str
    """Of the manifest."""
    objects: dict[str, bytes]


@dataclass
class Copy:
    """A copy of the export in a bucket of the test's own, to be tampered with."""

    s3: SandboxS3
    bucket: str
    key: str
    manifest: dict[str, Any]

    def resource(self, entity: str) -> dict[str, Any]:
        return next(one for one in self.manifest["resources"] if one["m3ter:type"] == entity)

    def content(self, entity: str) -> bytes:
        return self.s3.client().get_object(Bucket=self.bucket, Key=self._key(entity))["Body"].read()

    def put(self, entity: str, content: bytes) -> None:
        self.s3.client().put_object(Bucket=self.bucket, Key=self._key(entity), Body=content)

    def put_sealed(self, entity: str, content: bytes) -> None:
        """As if it had been delivered like this: size and sha256 agree."""
        self.put(entity, content)
        self.resource(entity).update(bytes=len(content), hash=f"sha256:{hashlib.sha256(content).hexdigest()}")
        self.put_manifest(json.dumps(self.manifest).encode())

    def put_manifest(self, content: bytes) -> None:
        self.s3.client().put_object(Bucket=self.bucket, Key=self.key, Body=content)

    def remove(self, entity: str) -> None:
        self.s3.client().delete_object(Bucket=self.bucket, Key=self._key(entity))

    def verify(self, *options: str) -> Result:
        return verify(f"s3://{self.bucket}/{self.key}", "--endpoint-url", self.s3.endpoint_url, *options)

    def _key(self, entity: str) -> str:
        return self.resource(entity)["path"].removeprefix(f"s3://{self.bucket}/")


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["verify", *arguments])


def findings(result: Result) -> list[str]:
    """The lines of what was found, without ids and sums."""
    lines = [line for line in result.stdout.splitlines() if line.startswith(("error: ", "warning: ", "note: "))]
    return [re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", re.sub(r"[0-9a-f]{64}", "SHA", line)) for line in lines]


def results(result: Result) -> dict[str, str]:
    """The last column of the table at the end, by entity."""
    table = result.stdout.split("entity ", 1)[1].splitlines()[1:-1]
    return {line.split()[0]: re.split(r"\s{2,}", line.strip())[-1] for line in table}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    folder = tmp_path_factory.mktemp("export")
    with Sandbox(4, folder=folder, requests_per_second=None) as sandbox:
        others = dict.fromkeys(name for name in os.environ if name.startswith(("M3TER_", "AWS_")))
        environment = {**others, **sandbox.environment, "DAGSTER_HOME": str(folder / "home")}
        command = ["export", "--entities", ",".join(NAMES), "--destinations", "warehouse"]
        exported = CliRunner().invoke(main, command, env=environment)
        assert exported.exit_code == 0, exported.output
        objects = sandbox.s3.objects(WAREHOUSE)
        key = next(key for key in objects if key.endswith("_manifest.json"))
        yield Original(sandbox.s3, sandbox.exports, key, objects)


@pytest.fixture
def copy(original: Original, aws_key: Callable[[Key], None]) -> Copy:
    bucket = f"copy-{uuid.uuid4().hex[:12]}"
    client = original.s3.client()
    client.create_bucket(Bucket=bucket)
    for key, content in original.objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=content)
    text = original.objects[original.key].replace(f"s3://{WAREHOUSE}/".encode(), f"s3://{bucket}/".encode())
    client.put_object(Bucket=bucket, Key=original.key, Body=text)
    aws_key(Key(original.s3.root.access_key_id, original.s3.root.secret_access_key))
    return Copy(original.s3, bucket, original.key, json.loads(text))


def test_json_is_all_that_stands_on_stdout(copy: Copy) -> None:
    copy.s3.client().delete_object(Bucket=copy.bucket, Key=copy._key("meter"))
    result = copy.verify("--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["manifest"]) == (1, f"s3://{copy.bucket}/{copy.key}")
    assert [(one["entity"], one["severity"]) for one in found["findings"]] == [("meter", "error")]
    assert {one["entity"] for one in found["entities"]} == set(NAMES)
    assert result.stderr.splitlines()[-1].startswith("error: meter: object: ")


def test_a_whole_export_is_all_right(copy: Copy) -> None:
    result = copy.verify("--strict")
    assert (result.exit_code, findings(result)) == (0, [])
    assert results(result) == dict.fromkeys(NAMES, "all right")
    assert re.search(r"^bill\.accountId +account +holds *$", result.stdout, re.MULTILINE)
    rows = copy.resource("bill")["m3ter:rows"]
    assert re.search(rf"^bill +{rows} +{len(copy.content('bill')):,} +all right$", result.stdout, re.MULTILINE)
    assert result.stdout.endswith("0 errors, 0 warnings\n")


def test_a_destination_of_exports_yaml_says_how_to_read(
    original: Original, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M3TER_EXPORTS", str(original.exports))
    assert verify(f"s3://{copy.bucket}/{copy.key}", "--destination", "archive").exit_code == 0


def test_an_altered_byte_is_found_by_the_sha256(copy: Copy) -> None:
    content = copy.content("meter")
    copy.put("meter", content[:-2].replace(b"Z,", b"Y,", 1) + content[-2:])
    result = copy.verify()
    assert result.exit_code == 1
    assert findings(result) == ["error: meter: sha256: the object has SHA, and the manifest says SHA"]
    assert results(result) == {**dict.fromkeys(NAMES, "all right"), "meter": "1 error"}


def test_a_removed_row_is_found_by_sha256_size_and_rows(copy: Copy) -> None:
    content = copy.content("meter")
    without = content[: content.rstrip(b"\n").rindex(b"\n") + 1]
    copy.put("meter", without)
    rows = copy.resource("meter")["m3ter:rows"]
    assert findings(copy.verify()) == [
        "error: meter: sha256: the object has SHA, and the manifest says SHA",
        f"error: meter: size: the object has {len(without):,} bytes and the manifest says {len(content):,}",
        f"error: meter: rows: the file has {rows - 1} rows and the manifest says {rows}",
    ]


def test_a_missing_file_is_named_and_the_others_are_checked(copy: Copy) -> None:
    copy.remove("account")
    copy.put("meter", copy.content("meter") + b"\n")
    result = copy.verify()
    assert result.exit_code == 1
    assert findings(result)[0].startswith(f"error: account: object: there is no object s3://{copy.bucket}/m3ter/")
    assert findings(result)[1].startswith("error: meter: size: ")
    assert re.search(r"^bill\.accountId +account +not checked *$", result.stdout, re.MULTILINE)
    assert results(result)["product"] == "all right"


def test_an_object_that_is_too_large_is_not_downloaded(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    content, fetched = copy.content("meter"), list[str]()
    monkeypatch.setattr(S3Store, "fetch", noting(S3Store.fetch, fetched))
    copy.put("meter", content * 100)
    result = copy.verify()
    assert result.exit_code == 1
    assert findings(result) == [
        f"error: meter: size: the object has {len(content) * 100:,} bytes and the manifest says {len(content):,}; it "
        "is not downloaded"
    ]
    assert len(fetched) == len(NAMES) - 1
    assert not any("type=meter" in one for one in fetched)


def noting(fetch: Callable[..., None], fetched: list[str]) -> Callable[..., None]:
    def noted(store: S3Store, where: str, to: Path) -> None:
        fetched.append(where)
        fetch(store, where, to)

    return noted


def test_an_object_without_the_end_of_a_line_is_no_csv(copy: Copy) -> None:
    copy.put_sealed("meter", b"x" * 300_000)
    result = copy.verify()
    assert result.exit_code == 1
    assert findings(result) == [
        "error: meter: rows: the file cannot be read as CSV: its header has a name of more than 131,072 characters"
    ]


def test_a_manifest_that_is_nested_too_deeply_is_none(copy: Copy) -> None:
    copy.put_manifest(b'{"profile":"data-package","more":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    result = copy.verify()
    assert result.exit_code == 1
    assert result.output == "error: manifest: this is not the manifest of an export: it is nested too deeply.\n"


def test_what_would_colour_or_clear_the_terminal_is_shown_as_text(copy: Copy) -> None:
    copy.resource("meter")["m3ter:type"] = "meter\x1b[2J"
    copy.manifest["m3ter:export"]["id"] += "\x1b[31m\r"
    copy.put_manifest(json.dumps(copy.manifest).encode())
    result = copy.verify()
    assert result.exit_code == 1
    assert r"\x1b[31m\r, due " in result.stdout.splitlines()[0]
    assert r"error: meter\x1b[2J: object: the manifest is of export" in result.stdout
    assert re.search(r"^meter\\x1b\[2J +\d+ ", result.stdout, re.MULTILINE)
    assert not {"\x1b", "\r"} & set(result.stdout)


def test_a_swapped_file_is_named_with_its_owner(copy: Copy) -> None:
    copy.put("meter", copy.content("product"))
    found = findings(copy.verify())
    assert found[0] == (
        "error: meter: sha256: the object has SHA, which is the file of product, and the manifest says SHA"
    )
    assert found[1].startswith("error: meter: size: ")
    assert found[-1] == (
        "error: meter: header: column 5 is named 'customFields' and should be 'productId'; its cells are not checked"
    )
    assert all(line.startswith("error: meter: ") for line in found)


def test_a_file_that_is_no_csv_is_an_error_of_its_own(copy: Copy) -> None:
    header = copy.content("meter").split(b"\n")[0]
    copy.put_sealed("meter", header + b"\na,1" + b",x" * 40 + b"\n")
    copy.put("product", b"")
    result = copy.verify()
    assert result.exit_code == 1
    found = findings(result)
    assert any(line.startswith("error: meter: rows: the file cannot be read as CSV: ") for line in found)
    assert "error: product: header: it has 0 columns and should have 10; its cells are not checked" in found


def test_an_entity_without_rows_is_all_right(copy: Copy) -> None:
    copy.resource("bill")["m3ter:rows"] = 0
    copy.put_sealed("bill", copy.content("bill").split(b"\n")[0] + b"\n")
    result = copy.verify("--strict")
    assert (result.exit_code, findings(result)) == (0, [])


def test_a_row_that_ends_early_is_no_csv(copy: Copy) -> None:
    copy.put_sealed("bill", copy.content("bill") + b"short,1\n")
    (found,) = findings(copy.verify())
    assert found.startswith("error: bill: rows: the file cannot be read as CSV: ")
    assert "got 2: short,1" in found


@pytest.mark.parametrize(("rows", "values"), [("", []), ('1,"x\ny"\n', ["x\ny"])])
def test_the_header_may_have_line_breaks(tmp_path: Path, rows: str, values: list[str]) -> None:
    file = tmp_path / "measurements.csv"
    file.write_text(f'"uid","Calls\nmade (ORIGINAL)"\n{rows}', newline="")
    names = Csv().names(file)
    assert names == ["uid", "Calls\nmade (ORIGINAL)"]
    found = Csv().texts(file, dict.fromkeys(names, "string"))
    assert [cell for batch in found for cell in batch[names[1]]] == values


OTHERS: list[Format] = [Csv(is_compressed=True), JsonLines(), JsonLines(is_compressed=True), Parquet()]
other_formats = pytest.mark.parametrize("format", OTHERS, ids=lambda format: format.suffix)


def deliver_as(copy: Copy, format: Format, folder: Path, **cells: pl.Expr) -> None:
    """The meters as if they had been delivered in another format, with other `cells`."""
    file, meter, resource = folder / "meter.csv", entities()["meter"], copy.resource("meter")
    file.write_bytes(copy.content("meter"))
    format.write([Csv().read(file, meter).with_columns(**cells)], meter, folder / "meter")
    copy.remove("meter")
    suffixes = format.suffix.split(".")
    resource |= {"format": suffixes[0], "path": resource["path"].removesuffix("csv") + format.suffix}
    resource |= {"compression": suffixes[1]} if len(suffixes) > 1 else {}
    copy.put_sealed("meter", (folder / "meter").read_bytes())


@other_formats
def test_a_file_is_verified_in_any_format(copy: Copy, format: Format, tmp_path: Path) -> None:
    deliver_as(copy, format, tmp_path)
    result = copy.verify("--strict")
    assert (result.exit_code, findings(result)) == (0, [])


@other_formats
def test_what_is_wrong_is_named_in_any_format(copy: Copy, format: Format, tmp_path: Path) -> None:
    product = pl.lit("00000000-0000-4000-8000-000000000000")
    deliver_as(copy, format, tmp_path, productId=product, customFields=pl.lit("[1]"), code=pl.lit(None, pl.String))
    rows = copy.resource("meter")["m3ter:rows"]
    copy.resource("meter")["m3ter:rows"] += 1
    copy.put_manifest(json.dumps(copy.manifest).encode())
    found = findings(copy.verify())
    assert f"error: meter: rows: the file has {rows} rows and the manifest says {rows + 1}" in found
    assert any("customFields is '[1]' and must be a JSON object" in line for line in found)
    assert any(line.startswith("warning: meter: foreign key productId -> product: ") for line in found)


def test_a_column_that_leads_to_one_of_several_or_not_in_all_rows_is_verified(copy: Copy) -> None:
    field = next(one for one in copy.resource("bill")["schema"]["fields"] if one["name"] == "accountId")
    field["m3ter:references"] = [
        {"entities": ["product", "account"]},
        {"entities": ["product", "meter"], "where": {"currency": "JPY"}},
        {"entities": ["account", "contract"]},
    ]
    copy.put_manifest(json.dumps(copy.manifest).encode())
    result = copy.verify()
    bills = list(csv.DictReader(io.StringIO(copy.content("bill").decode())))
    in_yen = [one for one in bills if one["currency"] == "JPY"]
    (found,) = findings(result)
    assert len(in_yen) > 1
    assert found.startswith(
        "warning: bill: foreign key accountId where currency is JPY -> product or meter: "
        f"{len(in_yen)} rows refer to what the export does not have: "
    )
    shown = [line for line in result.stdout.splitlines() if line.startswith("bill.accountId")]
    assert [" ".join(line.split()) for line in shown][:2] == [
        "bill.accountId account holds",
        "bill.accountId product or account holds",
    ]
    assert len(shown) == 3  # the last note is not of this export
    field["m3ter:references"] = "statement definition"  # as older manifests have it
    copy.put_manifest(json.dumps(copy.manifest).encode())
    assert copy.verify("--strict").exit_code == 0
    field["m3ter:references"] = [{"entities": ["account"], "where": {"kind": "ACCOUNT"}}]
    copy.put_manifest(json.dumps(copy.manifest).encode())
    assert "resource 'bill' has references by a column 'kind', which it has not" in copy.verify().output


@other_formats
def test_a_file_that_is_not_of_its_format_or_damaged_is_named(copy: Copy, format: Format, tmp_path: Path) -> None:
    deliver_as(copy, format, tmp_path)
    whole = copy.content("meter")
    for content in (b"no such file\n", whole[: len(whole) // 2], b""):
        copy.put_sealed("meter", content)
        result = copy.verify()
        assert result.exit_code == 1
        assert any(line.startswith("error: meter: rows: the file ") for line in findings(result))


def test_a_repeated_id_is_found_by_the_primary_key(copy: Copy) -> None:
    content = copy.content("meter")
    first = content.split(b"\n")[1] + b"\n"
    copy.put_sealed("meter", content + first)
    result = copy.verify()
    rows = copy.resource("meter")["m3ter:rows"]
    assert findings(result) == [
        f"error: meter: rows: the file has {rows + 1} rows and the manifest says {rows}",
        "error: meter, row ID: primary key: id must be unique and stands in 2 rows",
    ]
    assert first.split(b",")[0].decode() in result.stdout


def test_of_many_repeated_ids_the_first_are_named(copy: Copy) -> None:
    header, rows = copy.content("bill").split(b"\n", 1)
    copy.put_sealed("bill", header + b"\n" + rows + rows)
    found = [line for line in findings(copy.verify()) if "primary key" in line]
    assert len(found) == 6
    count = copy.resource("bill")["m3ter:rows"]
    assert found[-1] == (
        f"error: bill: primary key: id must be unique; ID and {count - 1} more stand in more than one row"
    )


def row_of(entity: str, **cells: str) -> bytes:
    """A row of the entity's CSV, without commas or quotes in its cells."""
    return ",".join(cells.get(column.name, "") for column in entities()[entity].columns).encode() + b"\n"


@pytest.mark.parametrize(
    ("cells", "finding"),
    [
        ({"id": ""}, "error: product: primary key: id is missing and must not be missing"),
        ({"id": '""'}, "error: product: primary key: id is '' and must not be empty"),
        ({"version": "2.5"}, "error: product, row n: cells: version is '2.5' and must be a whole number of 64 bits"),
        ({"version": '""'}, "error: product, row n: cells: version is '' and must be a whole number of 64 bits"),
        ({"deleted": "yes"}, "error: product, row n: cells: deleted is 'yes' and must be true or false"),
        ({"customFields": "{"}, "error: product, row n: cells: customFields is '{' and must be a JSON object"),
        ({"customFields": "[]"}, "error: product, row n: cells: customFields is '[]' and must be a JSON object"),
    ],
)
def test_a_cell_that_does_not_read_as_its_type_is_named(copy: Copy, cells: dict[str, str], finding: str) -> None:
    copy.put_sealed("product", copy.content("product") + row_of("product", **{"id": "n", **cells}))
    assert finding in findings(copy.verify())


def test_json_cells_hold_numbers_of_any_size(copy: Copy) -> None:
    numbers = row_of("product", id="n", customFields='{"n":1e400}') + row_of("product", id="m", customFields='{"n":%s}')
    copy.resource("product")["m3ter:rows"] += 2
    copy.put_sealed("product", copy.content("product") + numbers % (b"9" * 5000))
    assert findings(copy.verify()) == []


def test_a_changed_header_is_named(copy: Copy) -> None:
    content = copy.content("product")
    copy.put_sealed("product", content.replace(b'"name","code"', b'"code","name"', 1))
    result = copy.verify()
    assert findings(result) == [
        "error: product: header: column 3 is named 'code' and should be 'name'; its cells are not checked"
    ]
    assert re.search(r"^meter\.productId +product +not checked *$", result.stdout, re.MULTILINE)
    assert result.exit_code == 1


def test_a_reference_to_nothing_is_a_warning_unless_strict(copy: Copy) -> None:
    old = row_of("bill", id="old", accountId=NO_ID, dtCreated="2020-01-01T00:00:00.000Z")
    empty = row_of("bill", id="empty", accountId='""') + row_of("bill", id="null")
    copy.resource("bill")["m3ter:rows"] += 3
    copy.put_sealed("bill", copy.content("bill") + old + empty)
    result = copy.verify()
    assert findings(result)[-1:] == [
        "warning: bill: foreign key accountId -> account: 1 row refers to what the export does not have: row old to ID"
    ]
    assert re.search(r"^bill\.accountId +account +1 row: old *$", result.stdout, re.MULTILINE)


def test_only_strict_makes_a_warning_fail(copy: Copy) -> None:
    copy.resource("meter")["m3ter:rows"] += 1
    new = row_of("meter", id="m", productId=NO_ID, dtCreated="2020-01-01T00:00:00.000Z")
    copy.put_sealed("meter", copy.content("meter") + new)
    assert copy.verify().exit_code == 0
    assert results(copy.verify())["meter"] == "1 warning"
    assert copy.verify("--strict").exit_code == 1


def test_a_row_that_changed_while_the_export_ran_may_refer_to_nothing(copy: Copy) -> None:
    copy.resource("meter")["m3ter:rows"] += 1
    started = copy.resource("product")["m3ter:reading"]["from"]
    new = row_of("meter", id="m", productId=NO_ID, dtCreated="2020-01-01T00:00:00.000Z", dtLastModified=started)
    copy.put_sealed("meter", copy.content("meter") + new)
    result = copy.verify("--strict")
    assert result.exit_code == 0
    assert findings(result) == [
        "note: meter: foreign key productId -> product: 1 row refers to what the export does not have: "
        "row m to ID; they changed after product was read"
    ]


def test_a_manifest_that_names_another_bucket_is_a_warning(original: Original, copy: Copy) -> None:
    copy.put_manifest(original.objects[original.key])
    result = copy.verify()
    assert result.exit_code == 0
    assert findings(result)[0].startswith(f"warning: account: object: the manifest names s3://{WAREHOUSE}/m3ter/")


def test_a_manifest_of_another_export_than_its_files_is_named(copy: Copy) -> None:
    copy.manifest["m3ter:export"]["id"] = NO_ID
    copy.put_manifest(json.dumps(copy.manifest).encode())
    result = copy.verify()
    assert result.exit_code == 1
    found = [line for line in findings(result) if "which does not bear that id" in line]
    assert [line.split(": ")[1] for line in found] == list(NAMES)


def test_an_object_that_the_manifest_does_not_name_is_named(copy: Copy) -> None:
    """Such as that of an entity which somebody took out of the manifest."""
    rest = [one for one in copy.manifest["resources"] if one["m3ter:type"] != "meter"]
    copy.put_manifest(json.dumps(copy.manifest | {"resources": rest}).encode())
    result = copy.verify()
    assert result.exit_code == 1
    (found,) = findings(result)
    assert found.startswith(f"error: meter: object: the manifest does not name s3://{copy.bucket}/m3ter/orgId=")
    assert found.endswith("/type=meter/ID_meter.csv, which bears the export's id")


def test_an_object_of_another_export_beside_it_is_none_of_its_own(copy: Copy) -> None:
    other = copy.resource("meter")["path"].removeprefix(f"s3://{copy.bucket}/").replace("/type=meter/", "/type=meter/0")
    copy.s3.client().put_object(Bucket=copy.bucket, Key=other, Body=b"")
    assert findings(copy.verify()) == []


def test_measurements_of_the_same_run_are_for_their_own_manifest(copy: Copy) -> None:
    measurements = copy.key.replace("/type=manifest/", "/type=measurements/").replace(
        "manifest.json", "measurements.csv"
    )
    copy.s3.client().put_object(Bucket=copy.bucket, Key=measurements, Body=b"")
    assert findings(copy.verify()) == []


def test_objects_that_may_not_be_listed_are_a_note(
    copy: Copy, moto_store: Store, aws_key: Callable[[Key], None]
) -> None:
    assert moto_store.writer
    aws_key(moto_store.writer)
    bucket = moto_store.new_bucket()
    store = store_of(destination(moto_store, bucket), max_attempts=1)
    package = read_data_package(json.dumps(copy.manifest).encode())
    (found,) = unnamed_objects(package, f"s3://{bucket}/{copy.key}", store)
    assert str(found).startswith("note: export: object: whether there are more than the manifest names is not known: ")


def test_no_manifest_is_an_unfinished_export(copy: Copy) -> None:
    copy.s3.client().delete_object(Bucket=copy.bucket, Key=copy.key)
    result = copy.verify()
    assert result.exit_code == 1
    assert result.stdout == (
        f"error: manifest: there is no object s3://{copy.bucket}/{copy.key}: "
        "the export is not finished, or the address is wrong.\n"
    )


def spoil(copy: Copy, **changes: Any) -> bytes:
    manifest = copy.manifest
    manifest["resources"][0] |= changes
    return json.dumps(manifest).encode()


GARBAGE: list[tuple[Callable[[Copy], bytes], str]] = [
    (lambda _: b"\x00\xff garbage", "JSON is malformed"),
    (lambda _: b"", "Input data was truncated"),
    (lambda _: b"[]", "Expected `object`, got `array`"),
    (lambda _: b'{"profile": "data-package"}', "Object missing required field `m3ter:export`"),
    (lambda copy: json.dumps(copy.manifest | {"resources": []}).encode(), "`$.resources`"),
    (lambda copy: spoil(copy, hash="md5:0"), "`$.resources[0].hash`"),
    (lambda copy: spoil(copy, path="/etc/passwd"), "`$.resources[0].path`"),
    (lambda copy: spoil(copy, name="../x"), "`$.resources[0].name`"),
    (lambda copy: spoil(copy, name="bill"), "it has 2 resources 'bill'"),
    (lambda copy: spoil(copy, schema={"fields": [], "primaryKey": "id"}), "no column 'id', which is its primary key"),
    (lambda copy: spoil(copy, name="other"), "resource 'bill' has a foreign key 'accountId' that is no column"),
]


@pytest.mark.parametrize(("content", "words"), GARBAGE)
def test_what_is_no_manifest_says_why(copy: Copy, content: Callable[[Copy], bytes], words: str) -> None:
    copy.put_manifest(content(copy))
    result = copy.verify()
    assert result.exit_code == 1
    assert result.stdout.startswith("error: manifest: this is not the manifest of an export: ")
    assert words in result.stdout


def test_an_unknown_type_of_column_is_no_manifest(copy: Copy) -> None:
    copy.manifest["resources"][0]["schema"]["fields"][0]["type"] = "date"
    with pytest.raises(NotAManifest, match=r"has a column of the type 'date'; known are array, boolean"):
        read_data_package(json.dumps(copy.manifest).encode())


WRONG_USE = [
    (["bill.csv"], "'bill.csv' is not the address of a manifest; write s3://bucket/.../<export id>_manifest.json, or"),
    (["s3://bucket"], "'s3://bucket' is not the address of a manifest"),
    (["s3://Bad_Bucket/x"], "the command has the bucketName 'Bad_Bucket'; write the name of an S3 bucket"),
    (["s3://bucket/x", "--endpoint-url", "nowhere"], "the command has the endpointUrl 'nowhere'; write an address"),
    (["s3://bucket/x", "--region", "a b"], "the command has the region 'a b'; write a region such as eu-west-1."),
    (["s3://bucket/x", "--destination", "x"], "--destination: there is no destination 'x'; known are archive, warehou"),
    (["s3://bucket/x", "--endpoint-url", "http://127.0.0.1:9"], "no AWS credentials were found"),
]


@pytest.mark.usefixtures("no_aws_settings")
@pytest.mark.parametrize(("arguments", "words"), WRONG_USE)
def test_wrong_use_ends_with_2(
    original: Original, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setenv("M3TER_EXPORTS", str(original.exports))
    result = verify(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_a_wrong_bucket_ends_with_2(copy: Copy) -> None:
    result = verify(f"s3://no-such-bucket-here/{copy.key}", "--endpoint-url", copy.s3.endpoint_url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: there is no bucket 'no-such-bucket-here'; check the address and the endpoint\n"


def test_a_refusal_says_that_the_object_may_be_absent(moto_store: Store, aws_key: Callable[[Key], None]) -> None:
    assert moto_store.writer
    aws_key(moto_store.writer)
    result = verify(f"s3://{moto_store.new_bucket()}/x_manifest.json", "--endpoint-url", moto_store.endpoint)
    assert result.exit_code == 2
    assert "AccessDenied on GetObject: allow s3:GetObject on arn:aws:s3:::" in result.stderr
    assert "which a store reveals only to those who are allowed s3:ListBucket." in result.stderr


def test_it_reads_in_the_role_of_a_destination(
    original: Original, moto_store: Store, aws_key: Callable[[Key], None], tmp_path: Path, monkeypatch: Any
) -> None:
    bucket = moto_store.new_bucket()
    for key, content in original.objects.items():
        body = content.replace(f"s3://{WAREHOUSE}/".encode(), f"s3://{bucket}/".encode())
        moto_store.client().put_object(Bucket=bucket, Key=key, Body=body if key == original.key else content)
    role = {"iamRoleArn": moto_store.role_arn, "externalId": "customer-1", "endpointUrl": moto_store.endpoint}
    exports = tmp_path / "exports.yaml"
    exports.write_text(json.dumps({"destinations": [{"code": "r", "bucketName": "other", **role}]}), encoding="utf-8")
    aws_key(moto_store.exporter)
    monkeypatch.setenv("M3TER_EXPORTS", str(exports))
    result = verify(f"s3://{bucket}/{original.key}", "--destination", "r")
    assert (result.exit_code, findings(result)) == (0, [])


MEASURED = f"""
import atexit, sys
{PEAK}
from m3ter_dagster.cli import main
from m3ter_dagster.delivery.destinations import store_of
atexit.register(lambda: print("dagster" in sys.modules, peak_megabytes()))
main()
"""


def measured(*arguments: str) -> tuple[int, str, bool, int]:
    """Exit code, output, whether Dagster was imported, and the peak of memory in MB."""
    command = [sys.executable, "-c", MEASURED, "verify", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stderr == ""
    dagster, megabytes = done.stdout.splitlines()[-1].split()
    return done.returncode, done.stdout, dagster == "True", int(megabytes)


def test_dagster_is_not_imported(copy: Copy) -> None:
    code, _, dagster, _ = measured(f"s3://{copy.bucket}/{copy.key}", "--endpoint-url", copy.s3.endpoint_url)
    assert (code, dagster) == (0, False)


NO_ROOM = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))" + MEASURED


def test_no_room_for_the_files_ends_with_2(copy: Copy) -> None:
    address = [f"s3://{copy.bucket}/{copy.key}", "--endpoint-url", copy.s3.endpoint_url]
    command = [sys.executable, "-c", NO_ROOM, "verify", *address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.endswith("File too large: set TMPDIR to a folder with room for the largest file.\n")


def write_line_items(file: Path, *, megabytes: int) -> int:
    """Rows of some 1,500 bytes; their number."""
    names = [column.name for column in entities()["bill_line_item"].columns]
    cells = {"id": "%032d", "name": "x" * 700, "billId": str(uuid.UUID(int=1)), "description": "x" * 700}
    row = row_of("bill_line_item", quantity="1.5", **cells)
    rows = megabytes * 1_000_000 // len(row)
    with file.open("wb") as out:
        out.write(",".join(f'"{name}"' for name in names).encode() + b"\n")
        out.writelines(row % number for number in range(rows))
    return rows


@pytest.mark.slow
def test_a_large_file_needs_little_memory(
    copy: Copy, rclone_store: Store, aws_key: Callable[[Key], None], tmp_path: Path
) -> None:
    file = tmp_path / "bill_line_item.csv"
    rows = write_line_items(file, megabytes=200)
    bucket = rclone_store.new_bucket()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    schema = json.loads(entities()["bill_line_item"].table_schema) | {"foreignKeys": []}
    resource = copy.resource("bill") | {"name": "bill-line-item", "m3ter:type": "bill_line_item", "schema": schema}
    key = f"{copy.manifest['m3ter:export']['id']}_large.csv"
    resource |= {"path": f"s3://{bucket}/{key}", "bytes": file.stat().st_size, "hash": f"sha256:{digest}"}
    manifest = copy.manifest | {"resources": [resource | {"m3ter:rows": rows}]}
    rclone_store.client().upload_file(str(file), bucket, key)
    rclone_store.client().put_object(Bucket=bucket, Key="m.json", Body=json.dumps(manifest).encode())
    aws_key(rclone_store.exporter)
    code, output, _, megabytes = measured(f"s3://{bucket}/m.json", "--endpoint-url", rclone_store.endpoint)
    assert code == 0, output
    assert megabytes < 450
