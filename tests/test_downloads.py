"""A file from an address that expires, over connections that break: whole, or a named failure."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from scripted_api import ORGANIZATION, Answer, Request, Script, ScriptedApi, refusal, stored

from m3ter_dagster.m3ter.downloads import download
from m3ter_dagster.m3ter.errors import DownloadFailed
from m3ter_dagster.m3ter.limits import Limits

FILE, OTHER_FILE = "/file", "/other-file"
TEXT = b"meter_id,timestamp\n" + b"".join(b"m%d,2024-02-29T00:00:00Z\n" % number for number in range(5000))
WHOLE = stored(TEXT)


class Store(ScriptedApi):
    """Gives the address of the file once, and of the other whenever it is asked again."""

    def __init__(self, file: Script, other_file: Script = WHOLE) -> None:
        super().__init__({FILE: file, OTHER_FILE: other_file})
        self.addresses = 0
        self.waits: list[float] = []

    def address(self) -> str:
        self.addresses += 1
        path = FILE if self.addresses == 1 else OTHER_FILE
        return f"{self.base_url}/organizations/{ORGANIZATION}{path}?signature=hunter2"

    def wait(self, seconds: float) -> None:
        self.waits += [seconds] if seconds else []

    def fetch(self, folder: Path, limits: Limits = Limits()) -> bytes:
        file = folder / "usage.csv"
        download("the file", self.address, file, wait=self.wait, limits=limits)
        assert [one.name for one in folder.iterdir()] == ["usage.csv"]
        return file.read_bytes()


@pytest.mark.parametrize("content", [TEXT, gzip.compress(TEXT), b""])
def test_a_file_is_decompressed_by_what_it_holds(tmp_path: Path, content: bytes) -> None:
    with Store(stored(content)) as store:
        assert store.fetch(tmp_path) == (TEXT if content else b"")
        assert store.waits == []


@pytest.mark.parametrize("resets", [True, False])
def test_a_download_goes_on_where_it_broke(tmp_path: Path, resets: bool) -> None:
    content = gzip.compress(TEXT, compresslevel=0)
    half = {"sent": 0.5, "resets": resets}
    with Store(stored(content, half, half)) as store:
        assert store.fetch(tmp_path) == TEXT
        ranges = [one.headers.get("range") for one in store.asked(FILE)]
    assert ranges[0] is None
    assert len(ranges) == 3


def test_an_expired_address_is_asked_for_again_and_the_download_goes_on(tmp_path: Path) -> None:
    expired = {"status": 403, "body": b"<Error>Request has expired</Error>", "headers": {}}
    with Store(stored(TEXT, {"sent": 0.5}, expired)) as store:
        assert store.fetch(tmp_path) == TEXT
        assert store.addresses == 2
        (last,) = store.asked(OTHER_FILE)
    assert last.headers["range"] != "bytes=0-"
    assert last.headers["if-range"] == '"v1"'


def rest(request: Request, *, version: str = '"v1"', shift: int = 0, more: int = 0, cut: int = 0) -> Answer:
    """The rest of the file that is asked for, or nearly."""
    start = int(request.headers["range"].removeprefix("bytes=").rstrip("-"))
    where = f"bytes {start + shift}-{len(TEXT) - 1}/{len(TEXT) + more}"
    return Answer(TEXT[start : len(TEXT) - cut], 206, {"etag": version, "content-range": where})


NOT_THE_REST: Mapping[str, Callable[[Request], Answer]] = {
    "of another version": lambda request: rest(request, version='"v2"'),
    "of another place": lambda request: rest(request, shift=-1),
    "of a longer file": lambda request: rest(request, more=1),
    "shorter than it says": lambda request: rest(request, cut=1),
    "without a range": lambda _: Answer(TEXT, 206, {"etag": '"v1"'}),
    "beyond the end": lambda _: Answer(b"", 416),
}


@pytest.mark.parametrize("answer", NOT_THE_REST.values(), ids=NOT_THE_REST)
def test_a_rest_that_does_not_fit_is_fetched_from_the_beginning(
    tmp_path: Path, answer: Callable[[Request], Answer]
) -> None:
    answers = [stored(TEXT, {"sent": 0.5}), answer, WHOLE]
    with Store(lambda request: answers.pop(0)(request)) as store:
        assert store.fetch(tmp_path) == TEXT
        assert [one.headers.get("range") is None for one in store.asked(FILE)] == [True, False, True]


def test_a_rest_that_fits_is_taken(tmp_path: Path) -> None:
    answers = [stored(TEXT, {"sent": 0.5}), rest]
    with Store(lambda request: answers.pop(0)(request)) as store:
        assert store.fetch(tmp_path) == TEXT


@pytest.mark.parametrize("headers", [{}, {"etag": 'W/"v1"'}])
def test_a_file_without_a_version_is_fetched_from_the_beginning(tmp_path: Path, headers: Mapping[str, str]) -> None:
    """What comes later may be of another file, of as many bytes."""
    with Store(stored(TEXT, {"sent": 0.5, "headers": headers})) as store:
        assert store.fetch(tmp_path) == TEXT
        assert [one.headers.get("range") for one in store.asked(FILE)] == [None, None]


def test_what_an_earlier_download_has_left_is_not_taken_for_a_part_of_this(tmp_path: Path) -> None:
    (tmp_path / "usage.csv.part").write_bytes(b"x" * 100)
    with Store(stored(TEXT)) as store:
        assert store.fetch(tmp_path) == TEXT


def test_damaged_gzip_is_fetched_again(tmp_path: Path) -> None:
    content = gzip.compress(TEXT)
    damaged = {"body": content[:-9], "headers": {"content-length": str(len(content) - 9)}}
    with Store(stored(content, damaged)) as store:
        assert store.fetch(tmp_path) == TEXT


def test_a_file_may_unpack_to_many_times_its_size_but_not_to_any(tmp_path: Path) -> None:
    zeros = bytes(4_000_000)
    with Store(stored(gzip.compress(zeros))) as store:
        assert store.fetch(tmp_path) == zeros
    (tmp_path / "usage.csv").unlink()
    says = "it unpacks to more than 1,000,000 bytes"
    with Store(stored(gzip.compress(zeros))) as store, pytest.raises(DownloadFailed, match=says):
        store.fetch(tmp_path, Limits(download_tries=1, unpacked_anyway=1_000_000))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_named_without_its_address(tmp_path: Path) -> None:
    with Store([refusal(403)], [refusal(403)]) as store, pytest.raises(DownloadFailed) as raised:
        store.fetch(tmp_path)
    assert str(raised.value) == (
        "the file could not be downloaded, 6 times without getting any further, last because of status 403: its "
        "address has expired, or there is no such file. Re-execute from failure, which asks m3ter for a new one."
    )
    assert (len(store.asked(FILE)), len(store.asked(OTHER_FILE))) == (1, 5)
    assert store.waits == [1, 2, 4, 8, 15]


def test_tries_count_anew_with_every_byte_that_is_won(tmp_path: Path) -> None:
    busy, half = {"status": 503, "body": b"", "headers": {}}, {"sent": 0.5}
    with Store(stored(TEXT, busy, half, busy, half, busy)) as store:
        assert store.fetch(tmp_path, Limits(download_tries=3)) == TEXT
    with Store([Answer(b"", 503)]) as store, pytest.raises(DownloadFailed, match="3 times"):
        store.fetch(tmp_path, Limits(download_tries=3, longest_pause_seconds=1.5))
    assert store.waits == [1, 1.5]
