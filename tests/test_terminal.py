"""What the terminal shows of a run: at 80 columns, and in a log."""

import io
import re
import threading
from collections.abc import Iterator
from itertools import pairwise

import dagster as dg
import pytest
from rich.console import Console

from m3ter_dagster.cli.progress import Progress, print_result, progress, result_table, under_way
from m3ter_dagster.history.progress import (
    CheckResult,
    EntityResult,
    RunResult,
    UnderWay,
    follow,
    log_under_way,
)
from m3ter_dagster.history.record import StoredObject
from m3ter_dagster.model.entities import entities, operational_entities

RUN = "1a2b3c4d-0000-4000-a000-000000000002"
ORGANIZATION = "orgId=5a7d0c0e-0000-4000-a000-000000000001"
FOLDERS = {
    "warehouse": f"s3://acme-warehouse/m3ter/{ORGANIZATION}/date=2026-11-28/hour=22/",
    "archive": f"s3://acme-archive/{ORGANIZATION}/",
}
PASSED = CheckResult(True, "")
REASON = "is not exported because its list could not be read: m3ter gives no token."


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def stored(destination: str, type: str) -> StoredObject:
    return StoredObject(destination, f"{FOLDERS[destination]}type={type}/{RUN}_{type}.csv", 1_234_567, "", "")


def delivered(name: str, *destinations: str) -> EntityResult:
    objects = [stored(one, name) for one in destinations or FOLDERS]
    return EntityResult(
        name, "delivered", requests=12, rows=1_234_567, bytes=1_234_567, seconds=1234.5, objects=objects
    )


def failed(name: str, error: str = f"{{}} {REASON}") -> EntityResult:
    return EntityResult(name, "failed", error=error.format(name))


def result(*found: EntityResult) -> RunResult:
    return RunResult({one.entity: one for one in found}, RUN)


def printed(result: RunResult, *, with_objects: bool = False, width: int = 80) -> list[str]:
    """The lines of a terminal of so many columns, which breaks those that are longer."""
    file = io.StringIO()
    print_result(Console(file=file, width=width, markup=False), result, with_objects=with_objects)
    lines = file.getvalue().splitlines()
    return [line[start : start + width] for line in lines for start in range(0, max(len(line), 1), width)]


def everything() -> RunResult:
    found = result(*map(delivered, operational_entities()))
    for one in found.entities.values():
        one.checks = dict.fromkeys(("schema", "row_count", "complete", "foreign_keys"), PASSED)
    found.manifests, found.has_succeeded = [stored(one, "manifest") for one in FOLDERS], True
    return found


def test_an_export_of_everything_fits_60_lines_of_80_columns() -> None:
    lines = printed(everything())
    assert len(lines) < 35
    assert len([line for line in lines if "s3://" in line]) == len(FOLDERS) + 2
    (row,) = [line for line in lines if line.startswith("compound_aggregation")]
    assert row.split("  ")[-4:] == ["1,234,567", "1.2 MB", " 1234.5", "4 of 4"]
    assert lines[-1] == "20 of 20 entities delivered, 24,691,340 rows, run 1a2b3c4d"


def test_folders_are_what_all_files_of_a_destination_have_in_common() -> None:
    lines = printed(result(delivered("bill"), delivered("balance")), width=400)
    assert [line for line in lines if "s3://" in line] == [f"{code}: {uri}" for code, uri in FOLDERS.items()]
    (line,) = [line for line in printed(result(delivered("bill", "archive")), width=400) if "s3://" in line]
    assert line == f"archive: {FOLDERS['archive']}type=bill/{RUN}_bill.csv"


def test_objects_are_listed_where_that_is_wanted() -> None:
    found = everything()
    lines = printed(found, with_objects=True, width=400)
    uris = [stored.uri for one in found.entities.values() for stored in one.objects]
    assert [line for line in lines if line.startswith("s3://")] == uris


def test_checks_that_did_not_pass_are_named_below_the_table() -> None:
    bill, plan = delivered("bill"), delivered("plan")
    bill.checks = {"schema": PASSED, "row_count": CheckResult(False, "2 rows, 5 in the \x1b[31mprevious export.")}
    lines = printed(result(bill, plan), width=400)
    assert next(line for line in lines if line.startswith("bill")).endswith("1 of 2")
    assert "bill: row_count: 2 rows, 5 in the \\x1b[31mprevious export." in lines
    assert next(line for line in lines if line.startswith("plan ")).endswith(" 1234.5        ")


def test_a_reason_that_several_have_stands_there_once() -> None:
    lines = printed(result(*map(failed, ("account", "bill", "meter")), failed("plan", "{} is odd.")), width=400)
    assert [line for line in lines if "failed" in line and "  failed" not in line] == [
        f"account failed: account {REASON}",
        "For the same reason failed: bill, meter",
        "plan failed: plan is odd.",
    ]
    assert "Once the cause is gone, `m3ter-dagster export --resume 1a2b3c4d` completes this export." in lines


def test_in_a_log_there_is_a_line_every_ten_seconds(clock: Clock) -> None:
    file = io.StringIO()
    show = Progress(Console(file=file, width=400), None, clock=clock)
    found = result(EntityResult("account", "running"), EntityResult("bill"))
    moments: list[float] = []
    for _ in range(60):
        clock.now += 1
        before = file.tell()
        if clock.now == 125:
            found.entities["account"] = delivered("account")
            show(found, "account")
        show(found, None)
        moments += [clock.now] if file.tell() > before else []
    assert moments == [110, 120, 125, 135, 145, 155]
    assert {after - before for before, after in pairwise(moments)} <= {5, 10}
    assert file.getvalue().splitlines()[:3] == [
        "0:00:10: 0 of 2 delivered",
        "0:00:20: 0 of 2 delivered",
        "[1/2] account delivered: 1,234,567 rows, 1.2 MB",
    ]


def test_in_a_log_a_reason_stands_once(clock: Clock) -> None:
    file = io.StringIO()
    show = Progress(Console(file=file, width=400), None, clock=clock)
    found = result(failed("account"), failed("bill"))
    for name in ("account", "bill", "bill"):
        show(found, name)
    assert file.getvalue().splitlines() == [f"[1/2] account failed: account {REASON}", "[2/2] bill failed, as before"]


def test_how_far_it_is() -> None:
    bill = EntityResult("bill", "running", rows_read=2_000, requests=20, rows_before=10_000)
    line = EntityResult("bill_line_item", rows_read=1_000, requests=11)
    found = result(bill, line)
    shown = "0:01:00: 0 of 2 delivered, 3,000 rows in 31 requests, 50 rows a second"
    assert under_way(found, 60) == shown
    line.rows_before = 3_000
    assert under_way(found, 60) == f"{shown}, about 0:03:20 left"
    found.silent_seconds, found.waits_for = 12.4, "m3ter's export job j1 has been running for 20 s."
    words = "about 0:03:20 left, m3ter has not answered for 12 s; m3ter's export job j1 has been running for 20 s."
    assert under_way(found, 60) == f"{shown}, {words}"


def test_a_terminal_of_24_lines_shows_every_entity_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # one without a cursor shows nothing while it runs
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True, markup=False)
    found = everything()
    for one in found.entities.values():
        one.status, one.rows_read, one.rows_before, one.rows = "running", 1_234_567, 2_000_000, None
    found.silent_seconds = 100
    with progress(console) as show:
        show(found, None)
        file.seek(0)
        file.truncate()
    shown = file.getvalue()
    assert [name for name in operational_entities() if name not in shown] == []
    assert "has not answered for 100 s" in " ".join(shown.split())
    assert shown.count("\n") <= 24
    assert console.measure(result_table(found.entities.values())).maximum <= 80


@pytest.mark.parametrize(("height", "shown"), [(24, 20), (40, 32), (3, 1)])
def test_a_terminal_of_few_lines_shows_what_is_still_to_come(
    height: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    console = Console(file=file, width=80, height=height, force_terminal=True, markup=False)
    names = list(entities())
    waiting = [EntityResult(name) for name in names[10:30]]
    found = result(*map(delivered, names[:10]), *waiting, EntityResult(names[30], "running"), failed(names[31]))
    with progress(console) as show:
        show(found, None)
        file.seek(0)
        file.truncate()
    assert re.findall(r"(\w+) +(?:delivered|waiting|running|failed) ", file.getvalue()) == names[-shown:]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_the_values_of_the_log_are_those_of_the_progress(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def account(context: dg.AssetExecutionContext) -> None:
        found = UnderWay(rows={"account": 1, "bill": 20}, requests={"bill": 3}, silent_seconds=2.5)
        log_under_way(context, "1 row so far", found, {"bill": 30, "plan": 4})
        log_under_way(context, "waiting", UnderWay(rows={"account": 5}, waits_for="the moon"))

    dg.materialize([account], instance=instance, tags={"request": "mine"})
    found, ended, changes = result(EntityResult("account"), EntityResult("bill")), threading.Event(), list[str | None]()
    found.run_id = ""
    ended.set()
    follow(instance, {"request": "mine"}, found, lambda _, name: changes.append(name), ended)
    account_, bill = found.entities.values()
    assert (account_.rows_read, account_.rows_before, account_.requests) == (5, None, None)
    assert (bill.rows_read, bill.rows_before, bill.requests) == (20, 30, 3)
    assert (found.silent_seconds, found.waits_for) == (None, "the moon")
    assert changes[-1] is None
