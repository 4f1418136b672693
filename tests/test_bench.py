import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.organization import Data, Organization
from bench.rounds import MEASURE, BenchmarkFailed, Run, Used, measure
from bench.servers import Servers, running_servers
from bench.stages import OF_IT, profile
from bench.subjects import fixed_subjects, subjects
from bench.tables import comparison, growth_curve, stage_table

HERE = Path(sys.executable)
"""The script also runs without orjson, which only the benchmark's venv has."""
ODD = Data("odd", bills=7, line_items=130, accounts=3)
BURN = "import time\nwhile time.process_time() < 0.3: pass"
LEAVE_A_CHILD = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {BURN!r}])"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with running_servers(tmp_path_factory.mktemp("bench")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours", "script"])
def test_every_line_item_is_written(servers: Servers, name: str) -> None:
    used = measure(Run(subjects()[name], ODD), servers, HERE)
    assert used.cpu_seconds > 0
    assert used.peak_megabytes > 10


@pytest.mark.slow
def test_a_subject_that_loses_a_line_item_ends_the_benchmark(servers: Servers) -> None:
    loses = replace(subjects()["fetch"], line_items=lambda _: 129)
    with pytest.raises(BenchmarkFailed, match="wrote 129 distinct line items of odd-7-130-3, whose API holds 130"):
        measure(Run(loses, ODD), servers, HERE)


@pytest.mark.slow
def test_a_subject_that_ends_with_an_error_ends_the_benchmark(servers: Servers) -> None:
    fails = replace(subjects()["fetch"], command=lambda _: [sys.executable, "-c", "exit('no such thing')"])
    with pytest.raises(BenchmarkFailed, match=r"fetch ended with 1:\nno such thing"):
        measure(Run(fails, ODD), servers, HERE)


@pytest.mark.slow
def test_every_stage_is_timed(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in servers.store_environment.items():
        monkeypatch.setenv(name, value)
    seconds = profile(ODD, servers, tmp_path)
    first, *_, last = seconds
    assert (first, last) == ("bodies fetched", "bill totals")
    assert seconds["of it decoded to frames"] > 0


def test_what_a_command_leaves_running_counts(tmp_path: Path) -> None:
    result = tmp_path / "used.json"
    subprocess.run([sys.executable, "-I", "-S", MEASURE, result, sys.executable, "-c", LEAVE_A_CHILD], check=True)
    assert json.loads(result.read_text())["cpu_seconds"] > 0.3


def test_pages_hold_every_line_item_of_every_bill_once_and_bills_their_totals() -> None:
    organization = Organization(ODD)
    bills = _rows(organization, "/bills")
    items = _rows(organization, "/lineitems")
    assert len({row["id"] for row in items}) == 130
    assert Counter(row["billId"] for row in items).keys() == {bill["id"] for bill in bills}
    for bill in bills:
        assert bill["billTotal"] == pytest.approx(sum(i["subtotal"] for i in items if i["billId"] == bill["id"]))
        assert _rows(organization, f"/bills/{bill['id']}/lineitems") == [i for i in items if i["billId"] == bill["id"]]


@pytest.mark.parametrize(("kind", "odd"), [("documented", 0), ("odd", 7)])
def test_one_line_item_of_twenty_is_odd(kind: str, odd: int) -> None:
    content = b"".join(_pages(Organization(replace(ODD, kind=kind)), "/lineitems"))
    assert content.count(b'"sequenceNumber":10.0') + content.count(b'"quantity":-0,') == odd


def test_the_comparison_divides_ours_by_each() -> None:
    ours, script = subjects()["ours"], subjects()["script"]
    small = replace(ODD, line_items=30)
    used = {
        Run(ours, ODD): Used(3.0, 200.4),
        Run(script, ODD): Used(4.0, 20),
        Run(ours, small): Used(2.9998, 1),
        Run(script, small): Used(3.9996, 1),
        **{Run(one, ODD): Used(6.0 if one.name == "empty" else 1.5, 100) for one in fixed_subjects().values()},
    }
    text = comparison(
        used,
        whole=[Run(ours, ODD), Run(script, ODD)],
        fixed=[Run(one, ODD) for one in fixed_subjects().values()],
        fewer=30,
    )
    assert "| ours, three entities | odd | 3.0 | 1.00 | 2.0 | 1.00 | 200 |" in text
    assert "| a script (http.client, orjson, csv) | odd | 4.0 | 0.75 | 4.0 | 0.50 | 20 |" in text
    assert "| ours, all 20 entities of an empty organization | 6.0 | 4.0 | 100 |" in text


def test_the_growth_curve_shows_what_a_further_row_costs() -> None:
    text = growth_curve({ODD: Used(1.4, 50), replace(ODD, line_items=1130): Used(1.5, 60)})
    assert text.splitlines()[2:] == ["| 130 | 1.4 |  | 50 |", "| 1,130 | 1.5 | 100 | 60 |"]


def test_a_part_of_a_stage_does_not_count_twice() -> None:
    text = stage_table(
        {"odd": {"decoded": 3.0, "of it JSON": 1.0, "rules": 0.5}}, is_part=lambda n: n.startswith(OF_IT)
    )
    assert text.splitlines()[-1] == "| all stages | 3.5 |"


def _pages(organization: Organization, path: str) -> Iterator[bytes]:
    cursor = "0"
    while cursor:
        page = organization.page(path, f"pageSize=100&nextToken={cursor}")
        yield page
        cursor = json.loads(page)["nextToken"]


def _rows(organization: Organization, path: str) -> list[dict]:
    return [row for page in _pages(organization, path) for row in json.loads(page)["data"]]
