"""What a person does in Dagster's UI, in a real browser: dagster dev exports the sandbox's organization to its S3."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from click.testing import CliRunner
from playwright.sync_api import Page, expect
from processes import poll
from ui_page import CHROMIUM, LONGEST_RUN, UI, VIEWPORT, chromium_page
from ui_server import dagster_ui

from m3ter_dagster.cli import main
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_sandbox import BUCKETS, Sandbox, deny
from m3ter_sandbox.serving import NOTIFICATIONS, SCHEDULES
from m3ter_sandbox.webhook import WebhookInbox

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium-headless-shell"),
]

ARCHIVE = BUCKETS[1]
LOCATION = "/locations/m3ter_dagster"
OPERATIONAL_EXPORTS = f"{LOCATION}/asset-groups/operational_exports"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(accounts=10) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def inbox(sandbox: Sandbox) -> Iterator[WebhookInbox]:
    with WebhookInbox(sandbox.api) as inbox:
        yield inbox


@pytest.fixture(scope="module")
def start(
    sandbox: Sandbox, inbox: WebhookInbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """Starts Dagster's UI, always over the same home, when the one before has ended."""
    home = tmp_path_factory.mktemp("dagster_home")
    with sandbox.exports.open("a", encoding="utf-8") as exports:
        exports.write(f"usageRawByDay: {{firstDay: 2024-01-01}}\n{SCHEDULES}{NOTIFICATIONS.format(url=inbox.url)}")
    with ExitStack() as stack:

        def start() -> str:
            stack.close()
            return stack.enter_context(dagster_ui(sandbox.environment, home))

        yield start


@pytest.fixture(scope="module")
def address(start: Callable[[], str]) -> str:
    return start()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium_page() as page:
        yield page


@pytest.fixture
def ui(page: Page, address: str) -> UI:
    page.set_viewport_size(VIEWPORT)
    return UI(page, address)


def files(sandbox: Sandbox, export_id: str) -> set[tuple[str, str]]:
    """The objects of an export but for its keys, once its manifest is there: each bucket with the key's last part."""

    def found() -> set[tuple[str, str]] | None:
        names = {(bucket, key.rsplit("/", 1)[1]) for bucket in BUCKETS for key in sandbox.s3.objects(bucket)}
        names = {one for one in names if one[1].startswith(export_id) and not one[1].endswith("_keys.parquet")}
        manifests = {bucket for bucket, name in names if name == f"{export_id}_manifest.json"}
        return names if manifests == {bucket for bucket, _ in names} else None

    return poll(found, "the manifest", LONGEST_RUN)


@contextmanager
def archive_that_denies(sandbox: Sandbox, entity: str) -> Generator[None]:
    iam = sandbox.s3.client("iam")
    policy = {"UserName": iam.get_user()["User"]["UserName"], "PolicyName": "denied"}
    statement = deny("s3:PutObject", f"arn:aws:s3:::{ARCHIVE}/*/type={entity}/*")
    iam.put_user_policy(**policy, PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    sandbox.s3.enforce_authentication()
    yield
    iam.delete_user_policy(**policy)


def test_the_lineage_shows_both_groups(ui: UI) -> None:
    ui.open("/asset-groups")
    for group in ("m3ter_organization", "operational_exports"):
        expect(ui.page.get_by_text(group, exact=True).first).to_be_visible()


def test_the_page_of_an_asset_shows_its_columns_before_the_first_run(ui: UI) -> None:
    entity = entities()["pricing_band"]
    ui.open(f"/assets/{entity.name}")
    expect(ui.page.get_by_text("Never materialized", exact=True)).to_be_visible()
    rows = ui.page.locator("table", has_text="Column name").locator("tbody tr")
    expect(rows).to_have_count(len(entity.columns))
    for column, row in zip(entity.columns, rows.all(), strict=True):
        name, kind, description = row.locator("td").all()
        expect(description).to_have_text(column.description)
        expect(name).to_have_text(column.name)
        expect(kind).to_contain_text(column.type)


def test_a_schedule_exports_at_once_and_its_job_shows_that_and_what_it_does(ui: UI) -> None:
    (run_id,) = ui.succeeded_runs("export_finance")
    ui.open(f"{LOCATION}/jobs/export_finance/runs")
    expect(ui.page.get_by_role("link", name=run_id[:8])).to_be_visible()
    expect(ui.page.get_by_text("Success", exact=True)).to_have_count(1)
    ui.open(f"{LOCATION}/jobs/export_finance")
    expect(ui.page.get_by_text("every 5 days since 2024-06-01 10:00 UTC", exact=True)).to_be_visible()
    expect(ui.page.get_by_text("account, account_plan, commitment", exact=True)).to_be_visible()


def test_a_schedule_is_switched_off_and_on(ui: UI) -> None:
    ui.open(f"{LOCATION}/schedules/finance")
    for state in ("STOPPED", "RUNNING"):
        ui.page.get_by_role("checkbox").first.locator("xpath=..").click()
        ui.schedule_is(state, "finance")


def test_materialize_exports_the_selected_entities_and_nothing_else_but_their_manifest(
    ui: UI, sandbox: Sandbox
) -> None:
    chosen = ["account", "bill_line_item", "meter"]
    ui.open(f"{OPERATIONAL_EXPORTS}/list")
    ui.select(*chosen)
    expect(ui.materialize()).to_contain_text("(3)")
    ui.materialize().click()
    ui.view_launched_run()
    run_id, materialized = ui.ended_run()
    assert materialized == chosen
    names = {f"{run_id}_{name}.csv" for name in chosen} | {f"{run_id}_manifest.json"}
    assert files(sandbox, run_id) == {(bucket, name) for bucket in BUCKETS for name in names}
    assert [verified(sandbox, bucket, f"{run_id}_manifest.json") for bucket in BUCKETS] == [0, 0]


def test_shift_click_asks_for_the_destinations(ui: UI, sandbox: Sandbox) -> None:
    ui.open("/assets/product")
    ui.materialize().click(modifiers=["Shift"])
    editor = ui.page.locator(".CodeMirror").first
    expect(editor).to_contain_text("warehouse")
    config = yaml.safe_load(editor.evaluate("element => element.CodeMirror.getValue()"))
    assert config["resources"]["csv_io_manager"]["config"] == {"destinations": ["warehouse", "archive"]}
    launch = ui.page.locator(".dagster-dialog").get_by_role("button", name="Materialize")
    for code in ("archiv", "archive"):
        config["resources"]["csv_io_manager"]["config"] = {"destinations": [code]}
        editor.click()
        ui.page.keyboard.press("ControlOrMeta+A")
        ui.page.keyboard.insert_text(yaml.safe_dump(config))
        if code == "archiv":
            expect(ui.page.get_by_text("not in enum type Destination (warehouse, archive) got archiv")).to_be_visible()
            expect(launch).to_be_disabled()
    launch.click()
    run_id, materialized = ui.ended_run()
    assert materialized == ["product"]
    assert files(sandbox, run_id) == {(ARCHIVE, f"{run_id}_product.csv"), (ARCHIVE, f"{run_id}_manifest.json")}


def test_re_execute_from_failure_completes_what_materialize_all_began(ui: UI, sandbox: Sandbox) -> None:
    ui.open(f"{OPERATIONAL_EXPORTS}/lineage")
    with archive_that_denies(sandbox, "bill"):
        ui.materialize().click()
        ui.view_launched_run()
        export_id, delivered = ui.ended_run("FAILURE")
    assert delivered == sorted(operational_entities().keys() - {"bill"})
    sandbox.api.requests.clear()
    ui.re_execute_from_failure(export_id)
    _, delivered = ui.ended_run()
    assert delivered == ["bill", "export_manifest"]
    assert {one.path.rsplit("/", 1)[1] for one in sandbox.api.requests if one.method == "GET"} == {"bills"}
    names = {f"{export_id}_{name}.csv" for name in operational_entities()} | {f"{export_id}_manifest.json"}
    assert files(sandbox, export_id) == {(bucket, name) for bucket in BUCKETS for name in names}
    assert [verified(sandbox, bucket, f"{export_id}_manifest.json") for bucket in BUCKETS] == [0, 0]


def verified(sandbox: Sandbox, bucket: str, manifest: str) -> int:
    (key,) = [key for key in sandbox.s3.objects(bucket) if key.endswith(manifest)]
    command = ["verify", f"s3://{bucket}/{key}", "--endpoint-url", sandbox.s3.endpoint_url]
    return CliRunner().invoke(main, command, env=sandbox.environment, catch_exceptions=False).exit_code


def test_the_page_of_the_manifest_is_the_report_of_its_export(ui: UI) -> None:
    ui.open("/assets/export_manifest?view=overview")
    report = ui.page.locator("table table").filter(has_text="complete").first
    rows = report.locator("tbody tr")
    expect(rows).to_have_count(len(operational_entities()))
    assert [row.locator("td").first.inner_text() for row in rows.all()] == list(operational_entities())
    ui.picture("report")
    ui.page.set_viewport_size({"width": 1500, "height": 600})  # in whose middle Dagster puts the asset
    ui.open("/assets/bill?view=lineage&lineageScope=neighbors")
    expect(ui.page.get_by_text("export_manifest", exact=True).first).to_be_visible()
    expect(ui.page.get_by_text("Loading...", exact=True)).to_have_count(0)
    ui.picture("lineage")


def test_a_backfill_exports_a_file_of_each_day(ui: UI, sandbox: Sandbox) -> None:
    days = [f"{datetime.now(UTC) - timedelta(days=ago):%Y-%m-%d}" for ago in (3, 2)]
    ui.open("/assets/usage_raw_by_day")
    ui.backfill(*days)
    ui.materialized_partitions("usage_raw_by_day", len(days))
    ui.open("/assets/usage_raw_by_day?view=partitions")
    expect(ui.page.get_by_text("Materialized (2)")).to_be_visible()
    files = {key: rows for key, rows in sandbox.s3.objects(ARCHIVE).items() if "/type=measurements/" in key}
    assert len(files) == len(days)
    for day, key in zip(days, sorted(files), strict=True):
        assert f"/date={day}/hour=00/" in key
        rows = csv.DictReader(io.StringIO(files[key].decode(), newline=""))
        assert {row["timestamp"][:10] for row in rows} == {day}


def test_a_mistake_in_exports_yaml_is_shown_with_its_line(ui: UI, sandbox: Sandbox) -> None:
    right = sandbox.exports.read_text(encoding="utf-8")
    line = right[: right.index("period: 5")].count("\n") + 1
    try:
        sandbox.exports.write_text(right.replace("period: 5", "period: five"), encoding="utf-8")
        ui.reload_definitions()
        ui.open(f"{LOCATION}/jobs/export_finance")
        expect(ui.page.get_by_text(f"exports.yaml:{line}: schedule 'finance'").first).to_be_visible()
    finally:
        sandbox.exports.write_text(right, encoding="utf-8")
        ui.reload_definitions()
    ui.open(f"{LOCATION}/jobs/export_finance")
    expect(ui.page.get_by_text("every 5 days since 2024-06-01 10:00 UTC", exact=True)).to_be_visible()
    expect(ui.page.get_by_text("exports.yaml:")).to_have_count(0)


def test_the_page_of_the_webhook_shows_what_was_delivered_and_what_failed(ui: UI, inbox: WebhookInbox) -> None:
    ui.page.goto(inbox.page)
    for text in ("m3ter export delivered: schedule 'finance'", "m3ter export failed: started by hand"):
        expect(ui.page.get_by_text(text).first).to_be_visible()


def test_a_second_start_finds_what_the_first_has_exported_and_exports_nothing_twice(
    ui: UI, start: Callable[[], str]
) -> None:
    runs = ui.runs()
    moment = datetime.now(UTC)
    again = UI(ui.page, start())
    again.sensor_has_looked("due_exports", moment)
    assert again.runs() == runs
    again.open("/assets/export_manifest?view=overview")
    expect(again.page.locator("table table").filter(has_text="complete").first).to_be_visible()
