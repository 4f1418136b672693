"""m3ter-dagster plan: what an export would take, from Dagster's records alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from m3ter_dagster.cli import main
from m3ter_dagster.history.record import Delivery, Reading, StoredObject, as_metadata
from m3ter_dagster.model.entities import entities

PROJECT = Path(__file__).parents[1]
FILE = """\
destinations:
  - {code: warehouse, bucketName: acme-exports, prefix: m3ter}
  - {code: archive, bucketName: acme-archive, partitionOrder: TYPE_FIRST}
schedules:
  - code: lines
    operationalDataTypes: [BILLS, BILL_LINE_ITEMS, PRICING, PRICING_BANDS, ACCOUNT_PLANS]
    destinations: [warehouse, archive]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T10:00:00Z
    reuse: unchangedBills
    fullEvery: 3
    changes: true
  - code: usage
    sourceType: USAGE
    timePeriod: YESTERDAY
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T10:00:00Z
"""
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

Report = Callable[..., None]
Plan = Callable[..., Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("dagster")
    shutil.copy(PROJECT / "dagster.yaml", home)
    (home / "exports.yaml").write_text(FILE)
    return home


@pytest.fixture
def deliver(home: Path) -> Iterator[Report]:
    """Puts a delivery into the records, the next one on the day after."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        days = iter(range(100))

        def report(asset: str, rows: int, requests: int | None, *, reused: int = 0, org_id: str = "org-1") -> None:
            started = NOON + timedelta(days=next(days))
            finished = started + timedelta(seconds=2)
            stored = StoredObject("warehouse", f"s3://acme-exports/{asset}.csv", rows * 1000, "ab", "")
            reading = Reading(started, finished, requests=requests, reused_in_a_row=reused)
            one = Delivery(asset, "e", org_id, rows, (stored, stored), reading, seconds_to_deliver=0.5)
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=as_metadata(one)))

        yield report
        for name in (*entities(), "usage_raw"):
            instance.wipe_assets([dg.AssetKey(name)])


@pytest.fixture
def plan(home: Path) -> Plan:
    """Runs the command; there are no credentials, and nothing to ask."""

    def run(*options: str) -> Result:
        environment = {"M3TER_EXPORTS": str(home / "exports.yaml"), "DAGSTER_HOME": str(home), "M3TER_ORG_ID": "org-1"}
        result = CliRunner().invoke(main, ["plan", *options], env=environment, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return run


def test_a_plan_by_the_last_exports_of_the_organization(deliver: Report, plan: Plan) -> None:
    deliver("bill", 100, 1)
    deliver("bill", 250, 6)
    deliver("bill", 9999, 99, org_id="another")
    deliver("pricing", 10, 4)
    deliver("pricing_band", 500, 4)
    deliver("account_plan", 7, 30)
    deliver("account", 30, 2)
    found = json.loads(plan("--schedule", "lines", "--json").stdout)
    bill, line_item = (
        next(one for one in found["entities"] if one["entity"] == name) for name in ("bill", "bill_line_item")
    )
    assert bill == {
        "entity": "bill",
        "lastExported": "2026-01-03T12:00:02Z",
        "rows": 250,
        "pages": 3,
        "requests": 6,
        "bytes": 250_000,
        "seconds": 2.5,
        "savedByReuse": None,
    }
    assert set(line_item.values()) == {"bill_line_item", None}
    assert {one["entity"]: one["pages"] for one in found["entities"]} == {
        "account_plan": None,
        "bill": 3,
        "bill_line_item": None,
        "pricing": 1,
        "pricing_band": None,
    }
    assert [one["entity"] for one in found["readBesides"]] == ["account"]
    assert json.loads(plan("--json").stdout)["readBesides"] == []
    # Pricing and its bands come with the same pages; accounts are read for the plans of each.
    assert (found["requests"], found["requestsPerSecond"], found["secondsAtThePace"]) == (6 + 4 + 30 + 2, 40, 1.1)
    assert (found["bytes"], found["unknown"]) == (2 * 767_000, ["bill_line_item"])


def test_a_signature_stands_before_its_manifest(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3TER_SIGNING_KEY", "any")
    objects = json.loads(plan("--schedule", "lines", "--json").stdout)["objects"]
    assert [one.partition("{exportId}_")[2] for one in objects if "/type=manifest/" in one] == 2 * [
        "manifest.json.sig",
        "manifest.json",
    ]


def test_where_its_files_will_be(plan: Plan) -> None:
    found = json.loads(plan("--schedule", "lines", "--json").stdout)
    due = datetime.fromisoformat(found["due"])
    assert (due.hour, found["schedule"], found["destinations"]) == (10, "lines", ["warehouse", "archive"])
    assert due > datetime.now(UTC)
    day = f"date={due:%Y-%m-%d}/hour=10"
    assert len(found["objects"]) == 2 * (5 + 5 + 1)
    assert f"s3://acme-exports/m3ter/orgId=org-1/{day}/type=bill/{{exportId}}_bill.csv" in found["objects"]
    assert f"s3://acme-archive/orgId=org-1/type=manifest/{day}/{{exportId}}_manifest.json" in found["objects"]
    changes = f"s3://acme-exports/m3ter/orgId=org-1/{day}/type=bill_changes/{{exportId}}_bill_changes.csv"
    assert changes in found["objects"]
    usage = json.loads(plan("--schedule", "usage", "--json").stdout)["objects"]
    assert usage[0].endswith("/type=measurements/{exportId}_measurements.csv")


def test_what_reuse_saves(deliver: Report, plan: Plan) -> None:
    def line_items(*options: str) -> tuple[int, int | None]:
        found = json.loads(plan("--json", *options).stdout)["entities"]
        return next((one["requests"], one["savedByReuse"]) for one in found if one["entity"] == "bill_line_item")

    deliver("bill_line_item", 5000, 400)
    assert line_items("--schedule", "lines") == (400, None)
    deliver("bill_line_item", 5001, 30, reused=1)
    assert line_items("--schedule", "lines") == (30, 370)
    assert "reuse: saves 370 requests of bill_line_item" in plan("--schedule", "lines").stdout
    assert line_items() == (400, None)
    deliver("bill_line_item", 5002, 31, reused=2)  # after two of them comes a full one
    assert line_items("--schedule", "lines") == (400, 369)


def test_what_is_not_known_is_said(deliver: Report, plan: Plan) -> None:
    deliver("bill", 2500, None)
    lines = plan("--entities", "BILLS,meter").stdout.splitlines()
    assert [re.split(r"  +", line.strip()) for line in lines[:3]] == [
        ["entity", "rows", "pages", "requests", "size", "seconds", "last exported (UTC)"],
        ["bill", "2,500", "25", "2.5 MB", "2.5", "2026-01-02 12:00:02"],
        ["meter", "unknown"],
    ]
    assert lines[4:] == [
        "an export now: at least 0 requests, 0.0 s at 40 a second, 2.5 MB to warehouse",
        "never exported, so unknown: meter",
        lines[-1],
    ]
    assert lines[-1].endswith("_manifest.json")
    assert len(plan("--entities", "BILLS,meter", "--objects").stdout.splitlines()) == len(lines) + 2


def test_it_is_of_a_schedule_or_of_entities(home: Path) -> None:
    environment = {"M3TER_EXPORTS": str(home / "exports.yaml"), "DAGSTER_HOME": str(home)}
    result = CliRunner().invoke(main, ["plan", "--schedule", "lines", "--entities", "BILLS"], env=environment)
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: --schedule brings its own entities; leave out --entities.\n")
