"""m3ter's export service as it can be: slow, limited, with downloads that break. The end is right or named."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from scripted_api import KEY, ORGANIZATION, SECRET, Answer, Request, Script, ScriptedApi, page, refusal

from m3ter_dagster.config import M3terSettings
from m3ter_dagster.frames.usage_tables import Meter, MeterField
from m3ter_dagster.resources import downloads
from m3ter_dagster.resources.m3ter_errors import (
    DownloadFailed,
    ExportJobFailed,
    Refused,
    Unavailable,
    UsageExportInvalid,
    UsageExportRefused,
)
from m3ter_dagster.resources.usage_exports import UsageExports
from m3ter_dagster.sandbox.access import RequestLimit

ADHOC, JOB, ADDRESS = "/dataexports/adhoc", "/dataexports/jobs/j1", "/dataexports/jobs/j1/getdownloadurl"
FILE, OTHER_FILE = "/file", "/other-file"
TEXT = b"meter_id,timestamp\n" + b"".join(b"m%d,2024-02-29T00:00:00Z\n" % number for number in range(5000))
BODY = {"sourceType": "USAGE"}


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


def stored(content: bytes, *broken: Mapping[str, Any]) -> Callable[[Request], Answer]:
    """A store that keeps one file and knows ranges; its first answers are `broken`."""
    left = list(broken)

    def get(request: Request) -> Answer:
        assert "authorization" not in request.headers
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"etag": '"v1"'}
        if start:
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        found = Answer(content[start:], 206 if start else 200, headers)
        return Answer(**{**found.__dict__, **left.pop(0)}) if left else found

    return get


def export(api: ScriptedApi, tmp_path: Path, *, per_second: float = 50, clock: Clock | None = None) -> bytes:
    file, clock = tmp_path / "usage.csv", clock or Clock()
    exports = UsageExports(settings(api, per_second), stop=threading.Event(), wait=clock.wait, clock=clock)
    told: list[str] = []
    assert exports.export(BODY, file, tell=told.append) == "j1"
    assert told[-1] == "m3ter's export job j1 has succeeded; downloading its file."
    assert [one.name for one in tmp_path.iterdir()] == ["usage.csv"]
    return file.read_bytes()


def settings(api: ScriptedApi, per_second: float = 50) -> M3terSettings:
    return M3terSettings(
        api_key=KEY, api_secret=SECRET, org_id=ORGANIZATION, base_url=api.base_url, requests_per_second=per_second
    )


@pytest.mark.parametrize("content", [TEXT, gzip.compress(TEXT), b""])
def test_the_file_of_a_job(tmp_path: Path, content: bytes) -> None:
    with Service({FILE: stored(content)}) as api:
        assert export(api, tmp_path) == (TEXT if content else b"")
        (asked,) = api.asked(ADHOC)
        assert (json.loads(asked.body), asked.headers["content-type"]) == (BODY, "application/json")
        assert len(api.asked(JOB)) == 3


@pytest.mark.parametrize("resets", [True, False])
def test_a_download_goes_on_where_it_broke(tmp_path: Path, resets: bool) -> None:
    content = gzip.compress(TEXT, compresslevel=0)
    with Service({FILE: stored(content, {"sent": 0.5, "resets": resets}, {"sent": 0.5, "resets": resets})}) as api:
        assert export(api, tmp_path) == TEXT
        ranges = [one.headers.get("range") for one in api.asked(FILE)]
    assert ranges[0] is None
    assert len(ranges) == 3


def test_an_expired_address_is_asked_for_again_and_the_download_goes_on(tmp_path: Path) -> None:
    expired = {"status": 403, "body": b"<Error>Request has expired</Error>", "headers": {}}
    with Service({FILE: stored(TEXT, {"sent": 0.5}, expired)}) as api:
        assert export(api, tmp_path) == TEXT
        assert len(api.asked(ADDRESS)) == 2
        (rest,) = api.asked(OTHER_FILE)
    assert rest.headers["range"] != "bytes=0-"
    assert rest.headers["if-range"] == '"v1"'


def test_another_file_under_the_same_address_begins_anew(tmp_path: Path) -> None:
    changed = {"headers": {"etag": '"v2"', "content-range": "bytes 9-10/11"}}
    with Service({FILE: stored(TEXT, {"sent": 0.5}, changed)}) as api:
        assert export(api, tmp_path) == TEXT


def test_a_file_without_a_version_begins_anew(tmp_path: Path) -> None:
    """What comes later may be of another file, of as many bytes."""
    with Service({FILE: stored(TEXT, {"sent": 0.5, "headers": {}})}) as api:
        assert export(api, tmp_path) == TEXT
        assert [one.headers.get("range") for one in api.asked(FILE)] == [None, None]


def test_what_an_earlier_download_has_left_is_not_taken_for_a_part_of_this(tmp_path: Path) -> None:
    (tmp_path / "usage.csv.part").write_bytes(b"x" * 100)
    with Service({}) as api:
        assert export(api, tmp_path) == TEXT


def test_damaged_gzip_is_fetched_again(tmp_path: Path) -> None:
    content = gzip.compress(TEXT)
    damaged = {"body": content[:-9], "headers": {"content-length": str(len(content) - 9)}}
    with Service({FILE: stored(content, damaged)}) as api:
        assert export(api, tmp_path) == TEXT


def test_a_download_that_goes_nowhere_is_named_without_its_address(tmp_path: Path) -> None:
    with Service({FILE: [refusal(403)], OTHER_FILE: [refusal(403)]}) as api, pytest.raises(DownloadFailed) as raised:
        export(api, tmp_path)
    assert "the file of m3ter's export job j1 could not be downloaded, 6 times" in str(raised.value)
    assert "status 403: its address has expired" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert len(api.asked(FILE)) + len(api.asked(OTHER_FILE)) == downloads.TRIES


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
    with ScriptedApi({"/meters": [page(new, next_token="t"), page(old)], "/accounts": [page({"id": "1"})]}) as api:
        exports = UsageExports(settings(api), stop=threading.Event())
        assert exports.meters() == [
            Meter("a", (MeterField("gb", "GB", "MEASURE"), MeterField("x", "X", "OTHER"))),
            Meter("b", ()),
        ]
        assert exports.account_ids() == {"1"}
