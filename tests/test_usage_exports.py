"""m3ter's export service as it can be: slow, limited, with answers in doubt. The end is right or named."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_api import KEY, ORGANIZATION, SECRET, Answer, Request, Script, ScriptedApi, refusal, stored

from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.errors import (
    DownloadFailed,
    ExportFileEmpty,
    ExportJobFailed,
    Refused,
    Unavailable,
    UsageExportInvalid,
    UsageExportRefused,
)
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.usage.jobs import UsageExports
from m3ter_dagster.usage.meters import Meter, MeterField, MeterRecords, UnreadableMeter
from m3ter_sandbox.access import RequestLimit

ADHOC, JOB, ADDRESS = "/dataexports/adhoc", "/dataexports/jobs/j1", "/dataexports/jobs/j1/getdownloadurl"
SECOND_JOB, SECOND_ADDRESS = "/dataexports/jobs/j2", "/dataexports/jobs/j2/getdownloadurl"
QUERY = "/usage/query"
FILE, OTHER_FILE = "/file", "/other-file"
TEXT = b"meter_id,timestamp\n" + b"".join(b"m%d,2024-02-29T00:00:00Z\n" % number for number in range(5000))
BODY = {"sourceType": "USAGE"}
EMPTY_FILES = {"no byte": b"", "gzip of no byte": gzip.compress(b""), "a mark and a line end": b"\xef\xbb\xbf\r\n"}


def answer(**fields: Any) -> Answer:
    return Answer(json.dumps(fields).encode())


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class Service(ScriptedApi):
    """m3ter with one job; the address of its file is `path` of this server."""

    def __init__(self, scripts: Mapping[str, Script], *, path: str = FILE) -> None:
        def address(_request: Request) -> Answer:
            asked = len(self.asked(ADDRESS))
            where = path if asked == 1 else OTHER_FILE
            return answer(url=f"{self.base_url}/organizations/{ORGANIZATION}{where}?signature=hunter2")

        usual: dict[str, Script] = {
            ADHOC: [answer(jobId="j1")],
            JOB: [answer(status="PENDING"), answer(status="RUNNING"), answer(status="SUCCEEDED")],
            ADDRESS: address,
            FILE: stored(TEXT),
            OTHER_FILE: stored(TEXT),
        }
        super().__init__({**usual, **scripts})


def export(api: ScriptedApi, tmp_path: Path, *, per_second: float = 50, clock: Clock | None = None) -> bytes:
    file, clock = tmp_path / "usage.csv", clock or Clock()
    exports = UsageExports(client_of(api, requests_per_second=per_second), wait=clock.wait, clock=clock)
    told: list[str] = []
    assert exports.export(BODY, file, tell=told.append) == "j1"
    assert told[-1] == "m3ter's export job j1 has succeeded; downloading its file."
    assert [one.name for one in tmp_path.iterdir()] == ["usage.csv"]
    return file.read_bytes()


def client_of(api: ScriptedApi, **limits: Any) -> M3terClient:
    credentials, chosen = Credentials(KEY, SECRET), Limits(**{"requests_per_second": 50, **limits})
    return M3terClient(api.base_url, ORGANIZATION, credentials, limits=chosen, stop=threading.Event())


@pytest.mark.parametrize("content", [TEXT, gzip.compress(TEXT)])
def test_the_file_of_a_job(tmp_path: Path, content: bytes) -> None:
    with Service({FILE: stored(content)}) as api:
        assert export(api, tmp_path) == TEXT
        (asked,) = api.asked(ADHOC)
        assert (json.loads(asked.body), asked.headers["content-type"]) == (BODY, "application/json")
        assert len(api.asked(JOB)) == 3
        assert api.asked(QUERY) == []


def found(*rows: Any, more: bool = False) -> Answer:
    """m3ter's answer to a usage query."""
    return answer(data=list(rows), hasMoreData=more)


class Empty(Service):
    """m3ter whose first job has an empty file, at both of its addresses; that of the second has rows."""

    def __init__(self, scripts: Mapping[str, Script], *, content: bytes = b"") -> None:
        def second_address(_request: Request) -> Answer:
            return answer(url=f"{self.base_url}/organizations/{ORGANIZATION}/second-file")

        usual: dict[str, Script] = {
            ADHOC: [answer(jobId="j1"), answer(jobId="j2")],
            FILE: stored(content),
            OTHER_FILE: stored(content),
            SECOND_JOB: [answer(status="SUCCEEDED")],
            SECOND_ADDRESS: second_address,
            "/second-file": stored(TEXT),
            QUERY: [found({"m": "1"}, more=True)],
        }
        super().__init__({**usual, **scripts})


def export_empty(
    api: ScriptedApi, tmp_path: Path, *, body: Mapping[str, Any] = BODY, again_after: Sequence[float] = (2, 10, 30)
) -> tuple[str, bytes, list[str], float]:
    """The job, its file, what was told, and the seconds that passed."""
    clock, told, file = Clock(), list[str](), tmp_path / "usage.csv"
    exports = UsageExports(client_of(api, again_after=again_after), wait=clock.wait, clock=clock)
    return exports.export(body, file, tell=told.append), file.read_bytes(), told, clock.now


@pytest.mark.parametrize("content", EMPTY_FILES.values(), ids=EMPTY_FILES)
def test_an_empty_file_is_believed_if_the_usage_query_finds_nothing(tmp_path: Path, content: bytes) -> None:
    with Empty({QUERY: [found()]}, content=content) as api:
        job_id, file, told, _ = export_empty(api, tmp_path)
        assert (job_id, file.strip(b"\xef\xbb\xbf\r\n")) == ("j1", b"")
        assert (len(api.asked(FILE)), len(api.asked(OTHER_FILE)), len(api.asked(ADHOC))) == (1, 0, 1)
    assert told[-1] == "The file of m3ter's export job j1 is empty, and m3ter has no measurements there."


@pytest.mark.parametrize("content", EMPTY_FILES.values(), ids=EMPTY_FILES)
def test_an_empty_file_is_asked_for_at_a_new_address(tmp_path: Path, content: bytes) -> None:
    with Empty({OTHER_FILE: stored(TEXT)}, content=content) as api:
        job_id, file, told, _ = export_empty(api, tmp_path)
        assert (job_id, file) == ("j1", TEXT)
        assert (len(api.asked(ADHOC)), len(api.asked(ADDRESS)), len(api.asked(QUERY))) == (1, 2, 1)
    assert "The file of m3ter's export job j1 is empty, which may be wrong; asking for it again." in told


def test_and_then_of_a_new_job_after_the_pauses_that_were_handed_in(tmp_path: Path) -> None:
    with Empty({JOB: [answer(status="SUCCEEDED")]}) as api:
        job_id, file, _, seconds = export_empty(api, tmp_path, again_after=(100, 1000))
        assert (job_id, file, seconds) == ("j2", TEXT, 1100)
        assert [json.loads(one.body) for one in api.asked(ADHOC)] == [BODY, BODY]


@pytest.mark.parametrize(("again_after", "downloads", "jobs"), [((), 1, "job j1"), ((1, 1, 1), 4, "jobs j1 and j2")])
def test_a_file_that_stays_empty_although_there_are_measurements_is_named(
    tmp_path: Path, again_after: Sequence[float], downloads: int, jobs: str
) -> None:
    with Empty({"/second-file": stored(b"")}) as api, pytest.raises(ExportFileEmpty) as raised:
        export_empty(api, tmp_path, again_after=again_after)
    assert str(raised.value) == (
        f"m3ter's export {jobs} succeeded with an empty file, without even a header (downloads: {downloads}), although "
        "m3ter's usage query finds measurements for the same window, meters, accounts and filters. Nothing is "
        "delivered, since rows would be missing. Re-execute from failure, which starts a new job; if its file is empty "
        "too, report it to m3ter's support with this message."
    )
    assert sum(len(api.asked(path)) for path in (FILE, OTHER_FILE, "/second-file")) == downloads


def test_measurements_beyond_an_answer_without_any_are_measurements(tmp_path: Path) -> None:
    with Empty({QUERY: [found(more=True)]}) as api, pytest.raises(ExportFileEmpty):
        export_empty(api, tmp_path, again_after=())


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_an_empty_file_that_nothing_can_confirm_is_named(tmp_path: Path, status: int) -> None:
    scripts = {"/second-file": stored(b""), QUERY: [refusal(status, "not for you")]}
    with Empty(scripts) as api, pytest.raises(ExportFileEmpty) as raised:
        export_empty(api, tmp_path)
    assert "jobs j1 and j2 succeeded with an empty file, without even a header (downloads: 4), and" in str(raised.value)
    assert "whether the window really has no measurements cannot be confirmed: POST" in str(raised.value)
    assert f"/usage/query was refused with status {status}: not for you." in str(raised.value)
    assert "Nothing is delivered, since rows could be missing." in str(raised.value)


def test_the_last_answer_counts(tmp_path: Path) -> None:
    with (
        Empty({QUERY: [refusal(404), found({"m": "1"})]}) as api,
        pytest.raises(ExportFileEmpty, match="although m3ter"),
    ):
        export_empty(api, tmp_path, again_after=(1,))


def test_an_empty_file_that_nothing_can_confirm_may_still_have_rows_the_next_time(tmp_path: Path) -> None:
    with Empty({OTHER_FILE: stored(TEXT), QUERY: [refusal(403)]}) as api:
        assert export_empty(api, tmp_path)[1] == TEXT


def test_the_usage_query_asks_what_the_export_asked_for(tmp_path: Path) -> None:
    """Aggregations as well: measurements without the aggregated field are nothing to such an export."""
    same = {
        "startDate": "2024-03-31T00:00:00.000Z",
        "endDate": "2024-04-01T00:00:00.000Z",
        "meterIds": ["m"],
        "accountIds": ["a"],
        "dimensionFilters": [{"meterId": "m", "fieldCode": "region", "values": ["EU"]}],
        "aggregations": [{"meterId": "m", "fieldCode": "gb", "fieldType": "MEASURE", "function": "SUM"}],
        "groups": [{"groupType": "TIME", "frequency": "DAY"}],
    }
    with Empty({QUERY: [found()]}) as api:
        export_empty(api, tmp_path, body={"sourceType": "USAGE", "exportFileFormat": "CSV", **same})
        (asked,) = api.asked(QUERY)
    assert json.loads(asked.body) == {**same, "limit": 1}


def test_a_usage_query_without_a_readable_answer_is_sent_again(tmp_path: Path) -> None:
    """It only reads, so it may be sent as often as a GET."""
    with Empty({QUERY: [refusal(500), Answer(b"{}"), found()]}) as api:
        assert export_empty(api, tmp_path)[0] == "j1"
        assert len(api.asked(QUERY)) == 3


def test_a_file_that_cannot_be_downloaded_is_named_by_its_job_and_without_its_address(tmp_path: Path) -> None:
    with Service({FILE: [refusal(403)], OTHER_FILE: [refusal(403)]}) as api, pytest.raises(DownloadFailed) as raised:
        export(api, tmp_path)
    assert "the file of m3ter's export job j1 could not be downloaded, 6 times" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert len(api.asked(FILE)) == 1


def test_a_failed_job_is_named(tmp_path: Path) -> None:
    failing = {JOB: [answer(status="RUNNING"), answer(status="FAILED")]}
    with Service(failing) as api, pytest.raises(ExportJobFailed, match="export job j1 has failed after 1 s"):
        export(api, tmp_path)


def test_a_job_that_never_ends_is_named(tmp_path: Path) -> None:
    running = {JOB: [answer(status="RUNNING")]}
    with Service(running) as api, pytest.raises(ExportJobFailed, match="is still RUNNING after 25200 s"):
        export(api, tmp_path, clock=Impatient())


class Impatient(Clock):
    """Every wait takes an hour."""

    def wait(self, seconds: float) -> None:
        super().wait(max(seconds, 3600))


@pytest.mark.parametrize("first", [refusal(500), refusal(503), Answer(b"", sent=-1, resets=True)])
def test_a_job_whose_creation_is_in_doubt_is_created_once_more(tmp_path: Path, first: Answer) -> None:
    with Service({ADHOC: [first, answer(jobId="j1")]}) as api:
        assert export(api, tmp_path) == TEXT
        assert len(api.asked(ADHOC)) == 2


def test_but_not_a_third_time(tmp_path: Path) -> None:
    with Service({ADHOC: [refusal(500, "broken")]}) as api, pytest.raises(Unavailable, match="500: broken"):
        export(api, tmp_path)
    assert len(api.asked(ADHOC)) == 2


@pytest.mark.parametrize(("status", "kind"), [(400, UsageExportInvalid), (422, UsageExportInvalid), (413, Refused)])
def test_what_m3ter_does_not_take_is_not_repeated(tmp_path: Path, status: int, kind: type[Exception]) -> None:
    with Service({ADHOC: [refusal(status, "bad dates")]}) as api, pytest.raises(kind, match="bad dates") as raised:
        export(api, tmp_path)
    assert status == 413 or "Correct the usage schedule (or the run's config): its accounts" in str(raised.value)
    assert len(api.asked(ADHOC)) == 1


@pytest.mark.parametrize("status", [403, 404])
def test_an_organization_without_the_service_is_told_so(tmp_path: Path, status: int) -> None:
    with Service({ADHOC: [refusal(status, "no")]}) as api, pytest.raises(UsageExportRefused) as raised:
        export(api, tmp_path)
    assert "its Data Export service is not enabled for this Organization, or the service user" in str(raised.value)
    assert f"refused with status {status}: no" in str(raised.value)


def test_two_requests_a_second_are_enough(tmp_path: Path) -> None:
    limit = RequestLimit(time.monotonic, per_second=2)

    def limited(*answers: Answer) -> Callable[[Request], Answer]:
        left = list(answers)
        return lambda _: (left.pop(0) if len(left) > 1 else left[0]) if limit.admits() else refusal(429, "too many")

    jobs = limited(answer(status="RUNNING"), answer(status="SUCCEEDED"))
    with Service({ADHOC: limited(answer(jobId="j1")), JOB: jobs}) as api:
        assert export(api, tmp_path, per_second=50) == TEXT


def test_the_meters_and_their_fields_in_a_stable_order() -> None:
    new = {"id": "b", "dtCreated": "2024-02-01T00:00:00Z", "dataFields": None}
    field = {"code": "gb", "name": "GB", "category": "MEASURE", "unit": "GBy"}
    derived = {"code": "x", "name": "X", "category": "OTHER", "calculation": "1"}
    old = {"id": "a", "dtCreated": "2024-01-01T00:00:00Z", "dataFields": [field], "derivedFields": [derived]}
    collected = MeterRecords()
    collected.add(json.dumps([new]).encode())
    collected.add(json.dumps([old, new]).encode())
    assert collected.meters() == [
        Meter("a", (MeterField("gb", "GB", "MEASURE"), MeterField("x", "X", "OTHER"))),
        Meter("b", ()),
    ]


@pytest.mark.parametrize(
    "row", ["1", '{"name":"no id"}', r'"\ud800"', '{"id":"a","more":' + "[" * 5000 + "]" * 5000 + "}"]
)
def test_a_meter_that_cannot_be_read_is_told(row: str) -> None:
    with pytest.raises(UnreadableMeter, match="a meter of the Organization cannot be read"):
        MeterRecords().add(f"[{row}]".encode())
