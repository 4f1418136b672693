"""The m3ter API client of one Organization: a listing's pages, each complete and whole, one after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from m3ter_dagster.config import M3terSettings
from m3ter_dagster.frames import raw_json
from m3ter_dagster.m3ter.errors import CursorExpired, CursorStuck, Later, Refused, quoted
from m3ter_dagster.m3ter.http import Http
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.pace import SharedTimes, times_file
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.m3ter.traffic import Traffic
from m3ter_dagster.model.entity import Listing

T = TypeVar("T")

_CURSOR_REFUSALS = (400, 404, 410, 422)


@dataclass(frozen=True)
class Page:
    rows: bytes
    """The JSON array of the page's records, as m3ter sent it; `ForEach.field` is added by whoever reads them."""
    is_last: bool = False
    seconds: float = 0.0
    """How long m3ter took for it."""
    parent: str | None = None
    """Of a list of one parent's records: the parent's id."""


class M3terClient:
    """Sends requests below one Organization's path, with one token and at one pace. Thread-safe."""

    def __init__(
        self,
        base_url: str,
        org_id: str,
        credentials: Credentials,
        *,
        stop: threading.Event,
        limits: Limits = Limits(),
        times: SharedTimes | None = None,
    ) -> None:
        self.org_id = org_id
        self.limits = limits
        self._organization = f"/organizations/{quote(org_id, safe='')}"
        self._http = Http(base_url, credentials, stop=stop, limits=limits, times=times)
        self._page_sizes: dict[str, int] = {}

    @property
    def traffic(self) -> Traffic:
        """What was asked so far."""
        return self._http.traffic

    @property
    def silent_seconds(self) -> float | None:
        """How long m3ter has answered nobody; None: it answers."""
        return self._http.silent_seconds

    def get(self, path: str, check: Callable[[bytes], T], *, gives_way: bool = False) -> T:
        """See `Http.get`."""
        return self._http.get(self._organization + path, check, gives_way=gives_way)

    def query(self, path: str, content: bytes, check: Callable[[bytes], T]) -> T:
        """See `Http.query`."""
        return self._http.query(self._organization + path, content, check)

    def post(self, path: str, content: bytes, check: Callable[[bytes], T]) -> T:
        """See `Http.post`."""
        return self._http.post(self._organization + path, content, check)

    def wait(self, seconds: float) -> None:
        """Wait; raises Interrupted once the client's `stop` is set."""
        self._http.wait(seconds)

    def pages(self, listing: Listing, *, gives_way: bool = False, **parameters: str) -> Iterator[Page]:
        """Every page of the list, empty ones included, until there is no nextToken.

        A list that is one of many, read side by side, `gives_way` to all other requests (see `Pace`).
        What is one record and no list is a page of one. CursorExpired: m3ter refuses to go on; what was read must be
        dropped and the list read again.
        """
        if listing.is_one_record:
            record = self.get(listing.path, record_answer, gives_way=gives_way)
            yield Page(b"[%b]" % record, is_last=True, seconds=self._http.seconds)
            return
        cursor: str | None = None
        followed: set[str] = set()
        while True:
            rows, cursor = self._page(listing, parameters, cursor, gives_way=gives_way)
            yield Page(rows, is_last=not cursor, seconds=self._http.seconds)
            if not cursor:
                return
            if cursor in followed:
                request = self._path(listing, parameters, None, listing.page_size)
                raise CursorStuck(f"GET {self._organization}{request}")
            followed.add(cursor)

    def _page(
        self, listing: Listing, parameters: dict[str, str], cursor: str | None, *, gives_way: bool
    ) -> tuple[bytes, str | None]:
        size = self._page_sizes.get(listing.path, listing.page_size)
        try:
            return self.get(self._path(listing, parameters, cursor, size), _list_answer, gives_way=gives_way)
        except Refused as refusal:
            if refusal.status == 413 and size > 1:
                # This page size now holds for the whole list; another thread may already have set a smaller one.
                self._page_sizes[listing.path] = min(size // 2, self._page_sizes.get(listing.path, size))
                return self._page(listing, parameters, cursor, gives_way=gives_way)
            if cursor and refusal.status in _CURSOR_REFUSALS:
                raise CursorExpired(refusal) from None
            raise

    def _path(self, listing: Listing, parameters: dict[str, str], cursor: str | None, size: int) -> str:
        query = [("pageSize", str(size)), *listing.parameters, *parameters.items()]
        if cursor:
            query.append(("nextToken", cursor))
        return f"{listing.path}?{urlencode(query)}"


def open_client(settings: M3terSettings, *, stop: threading.Event, pace_folder: Path | None = None) -> M3terClient:
    """The client of the Organization that the environment names. `stop` ends every wait.

    With a folder, all processes that have it share one pace per Organization.
    """
    limits = Limits(
        requests_per_second=settings.requests_per_second,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        read_timeout_seconds=settings.read_timeout_seconds,
        patience_seconds=min(settings.patience_seconds, Limits.patience_seconds),
        outage_patience_seconds=settings.patience_seconds,
        rate_limit_patience_seconds=settings.rate_limit_patience_seconds,
        job_pause_seconds=settings.job_pause_seconds,
    )
    credentials = Credentials(settings.api_key.get_secret_value(), settings.api_secret.get_secret_value())
    file = times_file(pace_folder, base_url=settings.base_url, org_id=settings.org_id) if pace_folder else None
    times = SharedTimes(file)
    return M3terClient(settings.base_url, settings.org_id, credentials, stop=stop, limits=limits, times=times)


class _ListAnswer(msgspec.Struct):
    data: msgspec.Raw
    nextToken: str | None = None


def _list_answer(body: bytes) -> tuple[bytes, str | None]:
    """The rows of a page, and the cursor to the next.

    Later: a body that is cut off, not JSON or without rows comes from a proxy or a crash.
    """
    try:
        if not body.isascii():
            body.decode("utf-8")
        answer = msgspec.json.decode(body, type=_ListAnswer)
    except UnicodeDecodeError as error:
        raise Later(f"the answer is not UTF-8 at byte {error.start} of {len(body)}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        answer = _odd_answer(body) or _not_a_list(body, str(error))
    rows = bytes(answer.data)
    if not rows.startswith(b"["):
        return _not_a_list(body, "its data is no array")
    # Of two arrays of rows only the last was read.
    if repeated := raw_json.repeated(_members_around(body, rows) or raw_json.members(body)):
        return _not_a_list(body, f"it has {' and '.join(repeated)} twice")
    return rows, answer.nextToken


def _members_around(body: bytes, rows: bytes) -> list[tuple[str, bytes]] | None:
    """The members without a look at the rows, if the first array is theirs.

    Where it is that of another "data", either no JSON is left when so many bytes are taken out, or both are.
    """
    before = body[: body.index(b"[")]
    if not before.rstrip(b": \t\r\n").endswith(b'"data"'):
        return None
    try:
        return raw_json.members(before + b"0" + body[len(before) + len(rows) :])
    except ValueError:
        return None


def record_answer(body: bytes) -> bytes:
    """Check what is one record, and no list; its cells are looked at by whoever reads them."""
    try:
        raw_json.members(body)
    except ValueError as error:
        raise Later(f"the answer is not a record ({error}); it starts with {quoted(body)[:60]!r}") from None
    return body


def _odd_answer(body: bytes) -> _ListAnswer | None:
    """Read a complete answer with half a surrogate pair or deep nesting in it, for its cell to be named later."""
    try:
        answer = dict(raw_json.members(body))
        return _ListAnswer(msgspec.Raw(answer["data"]), json.loads(answer.get("nextToken", b"null")))
    except (ValueError, KeyError):
        return None


def _not_a_list(body: bytes, reason: str) -> NoReturn:
    raise Later(f"the answer is not a list ({reason}); it starts with {quoted(body)[:60]!r}")
