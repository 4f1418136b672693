"""What a person does in Dagster's UI, in a real browser: dagster dev exports the sandbox's organization to its S3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from playwright.sync_api import Browser, expect
from ui_page import CHROMIUM, UI, chromium, ui_page
from ui_server import dagster_dev

from m3ter_dagster.entities import entities
from m3ter_dagster.sandbox import BUCKETS, Sandbox

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ui"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs a browser at {CHROMIUM}: apt-get install chromium"),
]

ARCHIVE = BUCKETS[1]
OPERATIONAL_EXPORTS = "/locations/m3ter_dagster/asset-groups/operational_exports/list"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(accounts=10) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def address(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dagster_dev(sandbox.environment, tmp_path_factory.mktemp("dagster_home")) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def ui(browser: Browser, address: str) -> Iterator[UI]:
    with ui_page(browser, address) as ui:
        yield ui


def objects(sandbox: Sandbox) -> set[tuple[str, str]]:
    """All objects so far: the bucket and the key's last part."""
    return {(bucket, key.rsplit("/", 1)[1]) for bucket in BUCKETS for key in sandbox.s3.objects(bucket)}


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
        name, kind, description = row.locator("td").all_inner_texts()
        assert (name.strip(), description.strip()) == (column.name, column.description)
        assert column.type in kind


def test_materialize_exports_the_selected_entities_and_nothing_else(ui: UI, sandbox: Sandbox) -> None:
    chosen, before = ["account", "meter", "plan"], objects(sandbox)
    ui.open(OPERATIONAL_EXPORTS)
    ui.select(*chosen)
    expect(ui.materialize()).to_contain_text("(3)")
    ui.materialize().click()
    ui.view_launched_run()
    run_id, materialized = ui.ended_run()
    assert materialized == chosen
    assert objects(sandbox) - before == {(bucket, f"{run_id}_{name}.csv") for bucket in BUCKETS for name in chosen}


def test_shift_click_asks_for_the_destinations(ui: UI, sandbox: Sandbox) -> None:
    before = objects(sandbox)
    ui.open("/assets/product")
    ui.materialize().click(modifiers=["Shift"])
    editor = ui.page.locator(".CodeMirror").first
    expect(editor).to_contain_text("warehouse")
    config = yaml.safe_load(editor.evaluate("element => element.CodeMirror.getValue()"))
    assert config["resources"]["csv_io_manager"]["config"] == {"destinations": ["warehouse", "archive"]}
    config["resources"]["csv_io_manager"]["config"] = {"destinations": ["archive"]}
    editor.click()
    ui.page.keyboard.press("ControlOrMeta+A")
    ui.page.keyboard.insert_text(yaml.safe_dump(config))
    ui.page.locator(".dagster-dialog").get_by_role("button", name="Materialize").click()
    run_id, materialized = ui.ended_run()
    assert materialized == ["product"]
    assert objects(sandbox) - before == {(ARCHIVE, f"{run_id}_product.csv")}


def test_materialize_of_one_asset_asks_nothing(ui: UI) -> None:
    ui.open("/assets/bill_line_item")
    ui.materialize().click()
    ui.view_launched_run()
    _, materialized = ui.ended_run()
    assert materialized == ["bill_line_item"]
