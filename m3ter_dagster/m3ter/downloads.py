"""A file from a presigned address, whole: continued after a break, from a new address once the old one has expired."""

from __future__ import annotations

import gzip
import re
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import urllib3

from m3ter_dagster.m3ter.connections import open_pool
from m3ter_dagster.m3ter.errors import DownloadFailed, Later
from m3ter_dagster.m3ter.limits import Limits

CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"


@dataclass
class _Part:
    """The part of a file that has arrived, and how to recognize the rest of the same file."""

    path: Path
    version: str | None = None
    total: int | None = None

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def restart(self) -> None:
        self.path.unlink(missing_ok=True)
        self.version = self.total = None


class _Expired(Later):
    """The address is no longer valid; there may be another."""


def download(
    what: str, ask_for_url: Callable[[], str], to: Path, *, wait: Callable[[float], None], limits: Limits = Limits()
) -> None:
    """Fetch the file, decompressed if it is gzip. DownloadFailed, naming it as `what`, if no more bytes come."""
    part, url, tries, furthest = _Part(to.with_name(f"{to.name}.part")), ask_for_url(), 0, 0
    part.restart()  # what is left of an earlier download may be of another file
    latest = time.monotonic() + limits.download_seconds

    def go_on() -> None:
        wait(0)
        if time.monotonic() > latest:
            raise Later(f"it took more than {limits.download_seconds:g} seconds")

    while True:
        try:
            _continue(part, url, limits.timeout, go_on)
            _decompress(part.path, to, at_most=limits.most_unpacked(part.size))
            return
        except Later as later:
            tries = 1 if part.size > furthest else tries + 1
            furthest = max(furthest, part.size)
            if tries == limits.download_tries or time.monotonic() > latest:
                raise DownloadFailed(what, tries=tries, reason=later.reason) from None
            wait(min(0.5 * 2**tries, limits.longest_pause_seconds))
            url = ask_for_url() if isinstance(later, _Expired) else url


def _continue(part: _Part, url: str, timeout: urllib3.Timeout, go_on: Callable[[], None]) -> None:
    """Read to the end of the file, or raise Later and keep what is there. The store gets no header of m3ter's API.

    `go_on` is called whenever something has come, and may raise.
    """
    headers = {"accept-encoding": "identity"}
    if part.version is None:
        part.restart()  # nothing would show that the rest is of the same file
    elif part.size:
        headers |= {"range": f"bytes={part.size}-", "if-range": part.version}
    try:
        with (
            open_pool(url, timeout=timeout) as pool,
            closing(pool.request("GET", url, headers=headers, preload_content=False, retries=False)) as answer,
        ):
            _take(part, answer, go_on)
    except urllib3.exceptions.HTTPError as error:
        raise Later(f"of {type(error).__name__} after {part.size:,} bytes") from None
    if part.total is not None and part.size != part.total:
        wrong = part.size
        part.restart()
        raise Later(f"the file has {wrong:,} bytes and was announced with another size")


def _take(part: _Part, answer: urllib3.BaseHTTPResponse, go_on: Callable[[], None]) -> None:
    match answer.status:
        case 206 if _continues(part, answer):
            pass
        case 206 | 416:
            part.restart()
            raise Later(f"of status {answer.status}: the rest does not fit what is there, so it begins anew")
        case 200:
            part.restart()
            part.version = _version(answer)
            length = answer.headers.get("content-length")
            part.total = int(length) if length else None
        case 400 | 401 | 403 | 404 | 410:
            raise _Expired(f"of status {answer.status}: its address has expired, or there is no such file")
        case _:
            raise Later(f"of status {answer.status}")
    with part.path.open("ab") as file:
        # As it comes: to wait for a whole chunk of a drip would take for ever.
        while chunk := answer.read1(CHUNK, decode_content=False):
            file.write(chunk)
            go_on()


def _continues(part: _Part, answer: urllib3.BaseHTTPResponse) -> bool:
    """Whether the answer is the rest of the same file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", ""))
    if found is None or int(found[1]) != part.size or part.version != _version(answer):
        return False
    total = None if found[2] == "*" else int(found[2])
    if None not in (total, part.total) and total != part.total:
        return False
    part.total = part.total or total
    return True


def _version(answer: urllib3.BaseHTTPResponse) -> str | None:
    """The answer's ETag; a weak one promises too little."""
    tag = answer.headers.get("etag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("last-modified")


def _decompress(part: Path, to: Path, *, at_most: int) -> None:
    """Decompress a gzip file, recognized by its content: neither name nor headers are documented."""
    if not part.exists():
        part.touch()
    with part.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
    if not is_gzip:
        part.replace(to)
        return
    try:
        with gzip.open(part) as compressed, to.open("wb") as plain:
            while chunk := compressed.read(CHUNK):
                plain.write(chunk)
                if plain.tell() > at_most:  # it would fill the disk
                    raise gzip.BadGzipFile(f"it unpacks to more than {at_most:,} bytes")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        to.unlink()
        raise Later(f"it is gzip that breaks off or is damaged ({error})") from None
    finally:
        part.unlink()
