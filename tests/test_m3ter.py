"""The API client over real sockets: complete lists, one token, patience with a limit, and words for every refusal."""

from __future__ import annotations

import gzip
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from raw_http import RawHandler, RawServer
from scripted_api import KEY, ORGANIZATION, SECRET, Answer, Request, Script, ScriptedApi, page, refusal, token_answer

from m3ter_dagster.config import M3terSettings
from m3ter_dagster.m3ter.client import M3terClient, open_client
from m3ter_dagster.m3ter.errors import (
    CredentialsRefused,
    CursorExpired,
    CursorStuck,
    Interrupted,
    M3terError,
    Refused,
    Unavailable,
    Untrusted,
)
from m3ter_dagster.m3ter.http import Http
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Listing

METERS = Listing("/meters", 100)
PRODUCTS = Listing("/products", 200)
ROW = {"id": "a"}
LONG = 10.0
"""Seconds: far more than anything here takes, far less than the waits that are interrupted."""
THE_FIRST_PAUSE = 0.75
"""Seconds at most; the next pauses are longer."""
ROUNDING = 0.005
UNLIMITED = Limits(requests_per_second=10_000)
IMPATIENT = replace(UNLIMITED, patience_seconds=0.0, outage_patience_seconds=0.0, rate_limit_patience_seconds=0.0)
ONE_PAUSE = replace(UNLIMITED, patience_seconds=THE_FIRST_PAUSE, outage_patience_seconds=THE_FIRST_PAUSE + 0.5)

Serve = Callable[..., ScriptedApi]


@pytest.fixture
def serve(no_proxy: None) -> Iterator[Serve]:  # noqa: ARG001
    """Starts a scripted API: `serve({"/meters": [page(...)]})`."""
    with ExitStack() as stack:
        yield lambda lists, **options: stack.enter_context(ScriptedApi(lists, **options))


def client_of(api: ScriptedApi, limits: Limits = UNLIMITED, *, stop: threading.Event | None = None) -> M3terClient:
    credentials = Credentials(KEY, SECRET)
    return M3terClient(api.base_url, ORGANIZATION, credentials, limits=limits, stop=stop or threading.Event())


def ids(client: M3terClient, listing: Listing = METERS, **parameters: str) -> list[str]:
    return [row["id"] for one in client.pages(listing, **parameters) for row in json.loads(one.rows)]


def endless(request: Request) -> Answer:
    """A list of a thousand pages."""
    number = int(request.query.get("nextToken", 0)) + 1
    return page({"id": f"{number}"}, next_token=str(number) if number < 1000 else None)


# Lists


def test_all_pages_are_read_in_their_order(serve: Serve) -> None:
    api = serve({"/meters": [page({"id": "a"}, {"id": "b"}, next_token="t 1/&"), page({"id": "c"})]})
    assert ids(client_of(api)) == ["a", "b", "c"]
    assert [one.query for one in api.asked("/meters")] == [
        {"pageSize": "100"},
        {"pageSize": "100", "nextToken": "t 1/&"},
    ]


@pytest.mark.parametrize("end", [{}, {"next_token": ""}, {"nextToken": None}])
def test_a_list_ends_with_an_empty_or_absent_next_token(serve: Serve, end: dict[str, Any]) -> None:
    api = serve({"/meters": [page(ROW, **end)]})
    assert ids(client_of(api)) == ["a"]
    assert len(api.asked("/meters")) == 1


def test_an_empty_page_with_a_next_token_is_not_the_end(serve: Serve) -> None:
    answers = [page({"id": "a"}, next_token="1"), page(next_token="2"), page(next_token="3"), page({"id": "b"})]
    assert ids(client_of(serve({"/meters": answers}))) == ["a", "b"]


def test_a_page_is_passed_on_byte_for_byte(serve: Serve) -> None:
    rows = b'[ {"id": "a", "n": 0.12345678901234567890123, "t": "\xc3\xa9\\u00e9\\/"} ]'
    api = serve({"/meters": [Answer(b'{"more": {}, "data": ' + rows + b"}")]})
    assert [one.rows for one in client_of(api).pages(METERS)] == [rows]


def test_half_a_surrogate_pair_is_passed_on_for_the_row_to_be_named(serve: Serve) -> None:
    api = serve({"/meters": [Answer(rb'{"data":[{"id":"a","name":"\ud800"}],"nextToken":"1"}'), page({"id": "b"})]})
    first, second = client_of(api).pages(METERS)
    assert json.loads(first.rows) == [{"id": "a", "name": "\ud800"}]
    assert json.loads(second.rows) == [{"id": "b"}]


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"data":[{"id":"a","n":0.12345678901234567890123}]}',
        rb'{"hint":"\ud800","data":[{"id":"a","n":0.12345678901234567890123}]}',
    ],
)
def test_no_answer_that_is_read_loses_digits(serve: Serve, body: bytes) -> None:
    try:
        (only,) = client_of(serve({"/meters": [Answer(body)]}), IMPATIENT).pages(METERS)
    except Unavailable:
        return
    assert b"0.12345678901234567890123" in only.rows


@pytest.mark.parametrize("depth", [990, 1000, 100_000])
def test_a_row_that_is_nested_deeply_is_passed_on_for_its_cell_to_be_named(serve: Serve, depth: int) -> None:
    rows = b'[{"id":"a","name":' + b"[" * depth + b"]" * depth + b"}]"
    api = serve({"/meters": [Answer(b'{"data":' + rows + b',"nextToken":"1"}'), page({"id": "b"})]})
    assert [one.rows for one in client_of(api).pages(METERS)] == [rows, b'[{"id": "b"}]']


def test_an_answer_of_another_kind_that_is_nested_too_deeply_is_told(serve: Serve) -> None:
    api = serve({"/x": [Answer(b"[" * 100_000)]})
    with pytest.raises(M3terError, match="/x was answered with JSON that is nested too deeply to be read; report it"):
        client_of(api).get("/x", json.loads)


def test_a_compressed_page_is_read(serve: Serve) -> None:
    body = gzip.compress(page(ROW).body)
    api = serve({"/meters": [Answer(body, headers={"content-encoding": "gzip"})]})
    assert ids(client_of(api)) == ["a"]
    assert api.asked("/meters")[0].headers["accept-encoding"] == "gzip"


def test_parameters_of_the_list_and_of_the_call_are_sent(serve: Serve) -> None:
    listing = entities()["account_plan"].listing
    api = serve({"/accountplans": [page(ROW)]})
    assert ids(client_of(api), listing, account="x&y") == ["a"]
    assert api.asked("/accountplans")[0].query == {"pageSize": "100", "includeall": "true", "account": "x&y"}


def test_what_is_one_record_and_no_list_is_a_page_of_one(serve: Serve) -> None:
    listing = entities()["organization_config"].listing
    record = b' {"id": "o", "rate": 1.50, "of": "\\ud800"} '
    api = serve({"/organizationconfig": [Answer(b'["a"]'), Answer(record[:-5]), Answer(record)]})
    (found,) = client_of(api).pages(listing)
    assert (found.rows, found.is_last) == (b"[%b]" % record, True)
    assert [one.query for one in api.asked("/organizationconfig")] == [{}] * 3


@pytest.mark.parametrize("cursors", [["1", "1"], ["1", "2", "1"], ["1", "2", "3", "2"]])
def test_a_cursor_that_leads_back_is_refused(serve: Serve, cursors: list[str]) -> None:
    api = serve({"/meters": [page({"id": cursor}, next_token=cursor) for cursor in cursors]})
    with pytest.raises(CursorStuck) as stuck:
        ids(client_of(api))
    assert str(stuck.value) == (
        f"GET /organizations/{ORGANIZATION}/meters?pageSize=100 answered a nextToken that was followed already, so the "
        "list would never end. Nothing of it is exported; report it to m3ter's support with this message."
    )
    assert len(api.asked("/meters")) == len(cursors)


def test_too_large_an_answer_halves_the_page_size_of_that_list_from_then_on(serve: Serve) -> None:
    large = refusal(413, "Response too large")
    answers = [page({"id": "a"}, next_token="1"), large, large, page({"id": "b"}, next_token="2"), page({"id": "c"})]
    api = serve({"/meters": answers, "/products": [page(ROW)]})
    client = client_of(api)
    assert ids(client) == ["a", "b", "c"]
    assert ids(client) == ["c"]
    assert ids(client, PRODUCTS) == ["a"]
    asked = [(one.query["pageSize"], one.query.get("nextToken")) for one in api.asked("/meters")]
    assert asked == [("100", None), ("100", "1"), ("50", "1"), ("25", "1"), ("25", "2"), ("25", None)]
    assert api.asked("/products")[0].query["pageSize"] == "200"


def test_a_single_row_that_is_too_large_is_refused(serve: Serve) -> None:
    api = serve({"/meters": [refusal(413, "Response too large")]})
    with pytest.raises(Refused) as refused:
        ids(client_of(api))
    assert [one.query["pageSize"] for one in api.asked("/meters")] == ["100", "50", "25", "12", "6", "3", "1"]
    assert str(refused.value).endswith(
        "pageSize=1 was refused with status 413: Response too large. "
        "A single row is larger than m3ter can answer; ask m3ter's support."
    )


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_a_refused_cursor_is_an_expired_one(serve: Serve, status: int) -> None:
    api = serve({"/meters": [page(ROW, next_token="old"), refusal(status, "bad nextToken")]})
    with pytest.raises(CursorExpired, match=f"^The list cannot be continued: GET .* status {status}: bad nextToken"):
        ids(client_of(api))


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_a_refusal_of_the_first_page_is_no_expired_cursor(serve: Serve, status: int) -> None:
    with pytest.raises(Refused) as refused:
        ids(client_of(serve({"/meters": [refusal(status)]})))
    assert refused.value.status == status


# Tokens


def test_one_token_serves_many_requests_of_many_threads(serve: Serve) -> None:
    api = serve({"/meters": [page(ROW)]})
    client = client_of(api)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: ids(client), range(40))) == [["a"]] * 40
    (token,) = api.token_requests
    assert token.basic == f"{KEY}:{SECRET}"
    assert json.loads(token.body) == {"grant_type": "client_credentials"}
    assert {one.bearer for one in api.asked("/meters")} == {"token-1"}


def test_a_token_without_any_lifetime_is_used_once(serve: Serve) -> None:
    api = serve({"/meters": [page(ROW, next_token="1"), page(ROW, next_token="2"), page(ROW)]}, lifetime=0)
    assert ids(client_of(api)) == ["a", "a", "a"]
    assert [one.bearer for one in api.asked("/meters")] == ["token-1", "token-2", "token-3"]


def test_when_a_token_is_renewed_follows_from_the_limits(serve: Serve) -> None:
    """Long after its end, so that nobody has to wait."""
    api = serve({"/meters": [page(ROW, next_token="1"), page(ROW)]}, lifetime=0)
    assert ids(client_of(api, replace(UNLIMITED, renew_before_seconds=-LONG))) == ["a", "a"]
    assert len(api.token_requests) == 1


def test_a_token_whose_lifetime_is_not_said_lives_for_hours(serve: Serve) -> None:
    tokens = [Answer(b'{"access_token":"x"}')]
    api = serve({"/meters": [page(ROW, next_token="1"), page(ROW)]}, tokens=tokens)
    assert ids(client_of(api)) == ["a", "a"]
    assert len(api.token_requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_renewed_once(serve: Serve, status: int) -> None:
    api = serve({"/meters": [page({"id": "a"}, next_token="1"), refusal(status), page({"id": "b"})]})
    assert ids(client_of(api)) == ["a", "b"]
    assert [one.bearer for one in api.asked("/meters")] == ["token-1", "token-1", "token-2"]


def test_many_threads_renew_a_refused_token_once(serve: Serve) -> None:
    def only_the_second(request: Request) -> Answer:
        return page(ROW) if request.bearer == "token-2" else refusal(403)

    api = serve({"/meters": only_the_second})
    client = client_of(api)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: ids(client), range(24))) == [["a"]] * 24
    assert len(api.token_requests) == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "Check M3TER_API_KEY and M3TER_API_SECRET."),
        (403, "Give the service user of M3TER_API_KEY permission to read it, and check M3TER_ORG_ID."),
    ],
)
def test_a_second_refusal_is_believed(serve: Serve, status: int, advice: str) -> None:
    api = serve({"/meters": [refusal(status, "Forbidden")]})
    with pytest.raises(Refused) as refused:
        ids(client_of(api, IMPATIENT))
    assert str(refused.value) == (
        f"GET {api.base_url}/organizations/{ORGANIZATION}/meters?pageSize=100 was refused with status {status}: "
        f"Forbidden. {advice}"
    )
    assert len(api.asked("/meters")) == len(api.token_requests) == 2


def test_a_wrong_secret_is_tried_once_by_many_threads(serve: Serve) -> None:
    api = serve({"/meters": [page(ROW)]}, tokens=[refusal(401, "Unauthorized."), token_answer("late")])
    client = client_of(api)

    def failure(_: int) -> str:
        with pytest.raises(CredentialsRefused) as refused:
            ids(client)
        return str(refused.value)

    with ThreadPoolExecutor(8) as threads:
        messages = set(threads.map(failure, range(24)))
    assert messages == {
        f"POST {api.base_url}/oauth/token was refused with status 401: Unauthorized. m3ter gives no token for "
        "M3TER_API_KEY and M3TER_API_SECRET: check both, and that the key is still active."
    }
    assert len(api.token_requests) == 1
    assert api.asked("/meters") == []


NO_TOKEN_YET = {
    "status 503": refusal(503),
    "status 429": refusal(429, retry_after="0"),
    "HTML": Answer(b"<html>"),
    "no token": Answer(b"{}"),
    "a token that is no text": Answer(b'{"access_token":1}'),
}


def test_a_token_is_asked_for_again_when_the_answer_says_later(serve: Serve) -> None:
    def bearer(bad: Answer) -> str:
        api = serve({"/meters": [page(ROW)]}, tokens=[bad, token_answer("good")])
        assert ids(client_of(api)) == ["a"]
        return api.asked("/meters")[0].bearer

    with ThreadPoolExecutor(len(NO_TOKEN_YET)) as threads:
        found = dict(zip(NO_TOKEN_YET, threads.map(bearer, NO_TOKEN_YET.values()), strict=True))
    assert found == dict.fromkeys(NO_TOKEN_YET, "good")


# Patience


@pytest.mark.parametrize("value", ["21", " 21 ", "9" * 30, "the date"])
@pytest.mark.parametrize(
    ("status", "patience"), [(503, "outage_patience_seconds"), (429, "rate_limit_patience_seconds")]
)
def test_a_retry_after_beyond_all_patience_is_not_waited_for(
    serve: Serve, status: int, patience: str, value: str
) -> None:
    limits = replace(
        UNLIMITED, **{"outage_patience_seconds": 25.0, "rate_limit_patience_seconds": 25.0, patience: 20.0}
    )
    retry_after = formatdate(time.time() + 30, usegmt=True) if value == "the date" else value
    api = serve({"/meters": [refusal(status, retry_after=retry_after)]})
    started = time.monotonic()
    with pytest.raises(Unavailable, match="failed 1 times"):
        ids(client_of(api, limits))
    assert time.monotonic() - started < LONG


def test_a_retry_after_is_kept(serve: Serve) -> None:
    api = serve({"/meters": [refusal(503, retry_after="2"), page(ROW)]})
    assert ids(client_of(api)) == ["a"]
    first, second = api.asked("/meters")
    assert second.at - first.at >= 2 - ROUNDING


PAST = formatdate(0, usegmt=True)


NOTHING_TO_WAIT_FOR = ("0", PAST, "soon", "nan")
"""All that is ignored stands in test_http."""


def test_without_a_time_to_wait_for_the_pause_is_short(serve: Serve) -> None:
    scripts = {value: [refusal(503, retry_after=value), page(ROW)] for value in NOTHING_TO_WAIT_FOR}
    found = read_at_once(serve, scripts, ONE_PAUSE)
    assert {value: rows for value, (rows, _) in found.items()} == {value: ["a"] for value in NOTHING_TO_WAIT_FOR}


def read_at_once(
    serve: Serve, scripts: Mapping[str, Script], limits: Limits = UNLIMITED
) -> dict[str, tuple[list[str], list[Request]]]:
    """Lists that are read side by side, since each has to pause: the ids and the requests of each."""
    lists = {name: Listing(f"/{number}", 100) for number, name in enumerate(scripts)}
    api = serve({listing.path: scripts[name] for name, listing in lists.items()})
    with ThreadPoolExecutor(len(lists)) as threads:
        found = {name: threads.submit(ids, client_of(api, limits), listing) for name, listing in lists.items()}
        return {name: (reading.result(), api.asked(lists[name].path)) for name, reading in found.items()}


WHOLE = page(ROW).body
GZIP = {"content-encoding": "gzip"}
ASKED_AGAIN = {
    **{f"status {status}": refusal(status) for status in (408, 429, 500, 502, 503, 504, 599)},
    "reset before the answer": Answer(WHOLE, sent=-1, resets=True),
    "closed before the answer": Answer(WHOLE, sent=-1),
    "reset within the body": Answer(WHOLE, sent=0.5, resets=True),
    "closed within the body": Answer(WHOLE, sent=0.5),
    "cut off JSON": Answer(WHOLE[:-4]),
    "nothing": Answer(b""),
    "HTML": Answer(b"<html><body>Please log in</body></html>", headers={"content-type": "text/html"}),
    "no data": Answer(b'{"message":"ok"}'),
    "data null": Answer(b'{"data":null}'),
    "data object": Answer(b'{"data":{}}'),
    "an array": Answer(b'[{"id":"a"}]'),
    "null": Answer(b"null"),
    "text behind the end": Answer(WHOLE + b"x"),
    "two answers": Answer(WHOLE + WHOLE),
    "a trailing comma": Answer(WHOLE[:-1] + b",}"),
    "a name that is no text": Answer(b'{"data":[{"id":"a"}],1:2}'),
    "half a pair and text behind the end": Answer(rb'{"data":[{"id":"a"}],"hint":"\ud800"}]'),
    "a hundred thousand [": Answer(b"[" * 100_000),
    "a hundred thousand [ in a list": Answer(b'{"data":' + b"[" * 100_000),
    "a refusal of a hundred thousand [": Answer(b'{"more":' + b"[" * 100_000, 500),
    "NaN": Answer(b'{"data":[{"id":"a","n":NaN}]}'),
    "not UTF-8": Answer(b'{"data":[{"id":"a","name":"\xff"}]}'),
    "no content": Answer(b"", 204),
    "not JSON in a row": Answer(b'{"data":[{"id":"a","n":00}]}'),
    "a control character in a text": Answer(b'{"data":[{"id":"a","name":"\x01"}]}'),
    "gzip of half an answer": Answer(gzip.compress(WHOLE)[:-9], headers=GZIP),
    "broken gzip": Answer(gzip.compress(WHOLE)[:-8] + bytes(8), headers=GZIP),
}


def test_what_says_later_and_what_is_damaged_is_asked_for_again(serve: Serve) -> None:
    first, last = page({"id": "a"}, next_token="1"), page({"id": "b"})
    found = read_at_once(serve, {name: [first, bad, last] for name, bad in ASKED_AGAIN.items()})
    assert {name: rows for name, (rows, _) in found.items()} == {name: ["a", "b"] for name in ASKED_AGAIN}
    for _, requests in found.values():
        assert [one.query.get("nextToken") for one in requests] == [None, "1", "1"]


def test_a_server_that_says_nothing_is_asked_again(serve: Serve) -> None:
    never = threading.Event()
    api = serve({"/meters": [Answer(WHOLE, waits_for=never), page({"id": "b"})]})
    assert ids(client_of(api, replace(UNLIMITED, read_timeout_seconds=0.3))) == ["b"]
    never.set()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (refusal(503, "busy"), "of status 503: busy"),
        (Answer(b"<html>Bad gateway</html>", 502), "of status 502: <html>Bad gateway</html>"),
        (Answer(b"", 500), "of status 500: no message"),
        (refusal(429, "Too many requests"), "of status 429: Too many requests"),
        (Answer(WHOLE, sent=-1, resets=True), "of ProtocolError: .*reset by peer"),
        (Answer(WHOLE, sent=0.5), "of ProtocolError: .*IncompleteRead"),
        (Answer(b'{"data":[{"id":"a","name":"\xff"}]}'), "the answer is not UTF-8 at byte 27 of 32"),
        (Answer(b"<html>"), "the answer is not a list .*; it starts with '<html>'"),
        (Answer(b'[{"name":"Quux"}]'), "the answer is not a list .*; it starts with '17 bytes that look like JSON'"),
        (Answer(b'Quux","code":"q"}]}'), "the answer is not a list .*; it starts with '19 bytes that look like JSON'"),
        (Answer(b'[{"name":"Quux"}]', 502), "of status 502: 17 bytes that look like JSON"),
        (Answer(b"upstream timed out", 504), "of status 504: upstream timed out"),
        (Answer(b"no gzip", headers=GZIP), "the answer is gzip that is damaged"),
        (Answer(gzip.compress(WHOLE)[:-9], headers=GZIP), "the answer is gzip that breaks off"),
        (Answer(gzip.compress(bytes(20_000_000)), headers=GZIP), "gzip that unpacks to more than 16,777,216 bytes"),
        (Answer(gzip.compress(bytes(99_000_000)), headers=GZIP), "gzip that unpacks to more than [12].,...,... bytes"),
        (Answer(b'{"data":null}'), r"the answer is not a list \(its data is no array\)"),
        (Answer(b'{"data":[{"name":"Quux"}],"data":[]}'), r"not a list \(it has data twice\)"),
        (Answer(b'{"data":[{}],"a":"bcd","data":[{"name":"Quux"}]}'), r"not a list \(it has data twice\)"),
        (Answer(b'{"data":[],"a":[],"data":[{"name":"Quux"}],"b":[]}'), r"not a list \(it has data twice\)"),
        (Answer(b'{"x":[],"data":"01","data":null,"data":[{"id":"1","name":"abcd"}]}'), r"it has data twice\)"),
        (Answer(b'{"data":[],"n":%b,"data":[]}' % (b"9" * 5000)), r"not a list \(it has data twice\)"),
        (Answer(b'{"data":[{"a":1,"b":2}],"data":[]}'), r"not a list \(it has data twice\)"),
        (Answer(b'{"data":[], "dat\\u0061" : [{"name":"Quux"}]}'), r"not a list \(it has data twice\)"),
        (Answer(b'{"x":[[]],"nextToken":"1","data":[{}],"nextToken":null}'), r"not a list \(it has nextToken twice\)"),
    ],
)
def test_patience_has_an_end(serve: Serve, bad: Answer, reason: str) -> None:
    api = serve({"/meters": [bad]})
    with pytest.raises(Unavailable) as unavailable:
        ids(client_of(api, IMPATIENT))
    request = f"GET {api.base_url}/organizations/{ORGANIZATION}/meters?pageSize=100"
    assert str(unavailable.value).startswith(f"{request} failed 1 times, last because ")
    assert unavailable.match(reason)
    assert "Quux" not in str(unavailable.value)
    assert unavailable.match("m3ter or the network between is unavailable; re-execute from failure when it is back.$")


class _RowInsteadOfAnAnswer(RawHandler):
    def do_POST(self) -> None:
        self.wfile.write(b'{"name":"Quux"}\r\n')
        self.end_connection(reset=False)


@pytest.mark.usefixtures("no_proxy")
def test_what_is_no_http_is_not_quoted() -> None:
    server = RawServer(None, _RowInsteadOfAnAnswer)
    server.start()
    credentials = Credentials(KEY, SECRET)
    client = M3terClient(server.url, ORGANIZATION, credentials, limits=IMPATIENT, stop=threading.Event())
    with pytest.raises(Unavailable, match="because of ProtocolError: BadStatusLine") as unavailable:
        ids(client)
    assert "Quux" not in str(unavailable.value)
    server.close()


@pytest.mark.usefixtures("no_proxy")
def test_nobody_at_the_address_is_unavailable() -> None:
    with ScriptedApi({}) as closed:
        pass
    with pytest.raises(Unavailable, match=r"token failed 1 times, last because of NewConnectionError: .*refused"):
        ids(client_of(closed, IMPATIENT))


@pytest.mark.parametrize("value", ["0", PAST])
def test_patience_ends_where_the_server_always_says_at_once(serve: Serve, value: str) -> None:
    api = serve({"/meters": [refusal(503, retry_after=value)]})
    with pytest.raises(Unavailable, match="failed 2 times, last because of status 503: no"):
        ids(client_of(api, ONE_PAUSE))
    assert len(api.asked("/meters")) == 2


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "m3ter changed what this list accepts, or M3TER_BASE_URL is not m3ter's; report it with this message."),
        (404, "Check M3TER_BASE_URL and M3TER_ORG_ID."),
        (409, "m3ter does not accept this request; report it with this message."),
        (302, "m3ter does not accept this request; report it with this message."),
    ],
)
def test_a_permanent_answer_is_not_asked_for_again(serve: Serve, status: int, advice: str) -> None:
    api = serve({"/meters": [Answer(b'{"message":"no."}', status, {"location": "/elsewhere"})]})
    with pytest.raises(Refused) as refused:
        ids(client_of(api, IMPATIENT))
    assert str(refused.value).endswith(f"was refused with status {status}: no. {advice}")
    assert len(api.requests) == 2


def test_a_post_is_sent_again_as_often_as_m3ter_says_429_and_once_after_a_doubt(serve: Serve) -> None:
    limited, made = refusal(429, retry_after="0"), Answer(b'{"jobId":"j"}')
    brisk = replace(UNLIMITED, longest_pause_seconds=0.0)
    api = serve({"/jobs": [limited, refusal(500), limited, made]})
    assert client_of(api, brisk).post("/jobs", b"{}", bytes) == made.body
    api = serve({"/jobs": [limited, refusal(500, "first"), limited, refusal(503, "second"), made]})
    with pytest.raises(Unavailable, match=r"^POST .*/jobs failed 2 times, last because of status 503: second"):
        client_of(api, brisk).post("/jobs", b"{}", bytes)
    assert [one.body for one in api.asked("/jobs")] == [b"{}"] * 4


def test_a_429_holds_the_other_threads_too(serve: Serve) -> None:
    api = serve({"/meters": [page(next_token="1"), refusal(429, retry_after="1"), page(ROW)], "/products": endless})
    client = client_of(api)
    products = client.pages(PRODUCTS)
    with ThreadPoolExecutor(1) as thread:
        meters = thread.submit(ids, client)
        while not meters.done():
            next(products)
    _, refused, second = api.asked("/meters")
    meanwhile = [one for one in api.asked("/products") if refused.at + 0.2 < one.at < refused.at + 0.95]
    assert second.at - refused.at >= 1 - ROUNDING
    assert meanwhile == []


def test_what_was_asked_is_counted(serve: Serve) -> None:
    again = [refusal(429, retry_after="1"), refusal(503), page(ROW)]
    api = serve({"/meters": [page(next_token="1"), *again]}, tokens=[token_answer("x")])
    client = client_of(api, replace(UNLIMITED, requests_per_second=4.0))
    started = time.monotonic()
    assert ids(client) == ["a"]
    asked, seconds = client.traffic.counts(), time.monotonic() - started
    assert (asked["requests"], asked["tokens"], asked["tried_again"], asked["too_many"]) == (5, 1, 2, 1)
    assert asked["requests"] == len(api.requests)
    assert asked["bytes"] == sum(len(one.body) for one in [token_answer("x"), page(next_token="1"), *again])
    assert 0.4 < asked["seconds_for_turns"] <= seconds - asked["seconds_for_answers"] + 0.2
    assert asked["seconds_for_answers"] > 0
    assert str(client.traffic).startswith("m3ter was asked 5 times, 1 of them for a token, and sent ")
    assert "2 requests were tried again, 1 had been refused as too many (429)." in str(client.traffic)


# The end


WAITING: dict[str, tuple[Script, float]] = {
    "for a Retry-After": ([refusal(503, retry_after="50")], 10_000),
    "for the limit to drain": ([refusal(429, retry_after="300")], 10_000),
    "for its turn": (endless, 0.02),
}


@pytest.mark.parametrize(("script", "per_second"), WAITING.values(), ids=WAITING)
def test_stop_ends_a_wait_at_once(serve: Serve, script: Script, per_second: float) -> None:
    stop = threading.Event()
    api = serve({"/meters": script}, tokens=[token_answer("x")])
    client = client_of(api, Limits(requests_per_second=per_second), stop=stop)
    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(ids, client)
        if per_second > 1:
            assert api.arrived.wait(LONG)
        started = time.monotonic()
        stop.set()
        with pytest.raises(Interrupted, match=r"^Reading was stopped because the run is ending\.$"):
            reading.result(LONG)
    assert time.monotonic() - started < LONG


def test_nothing_is_sent_after_stop(serve: Serve) -> None:
    stop = threading.Event()
    api = serve({"/meters": endless})
    pages = client_of(api, stop=stop).pages(METERS)
    next(pages)
    stop.set()
    with pytest.raises(Interrupted):
        next(pages)
    assert len(api.requests) == 2


# Secrets


FAILURES: dict[str, dict[str, Any]] = {
    "no permission": {"lists": {"/meters": [refusal(403)]}},
    "no token": {"lists": {}, "tokens": [refusal(401)]},
    "unavailable": {"lists": {"/meters": [Answer(b"", sent=-1, resets=True)]}},
    "no token later": {"lists": {}, "tokens": [Answer(b"", sent=-1)]},
    "stuck": {"lists": {"/meters": [page(next_token="1")]}},
    "expired": {"lists": {"/meters": [page(next_token="1"), refusal(400)]}},
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_no_secret_is_in_a_repr_a_message_or_a_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, failure: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")  # packages that others import silence it
    api = serve(**failure)
    client = client_of(api, IMPATIENT)
    with pytest.raises(M3terError) as failed:
        ids(client)
    http = Http(api.base_url, Credentials(KEY, SECRET), stop=threading.Event())
    said = [repr(client), repr(http), repr(http.__dict__), repr(Credentials(KEY, SECRET)), caplog.text]
    said += [str(failed.value), repr(failed.value), str(failed.getrepr(style="long", showlocals=False))]
    assert "urllib3" in caplog.text
    basic = api.token_requests[0].headers["authorization"].removeprefix("Basic ")
    for text in said:
        assert SECRET not in text
        assert basic not in text
        assert "token-1" not in text


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """One that nobody has signed but its owner, with its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, address = datetime.now(UTC), x509.IPAddress(IPv4Address("127.0.0.1"))
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
    made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False).sign(key, SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path / "certificate.pem"
    file.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return file


def test_a_certificate_that_is_not_trusted_is_named_at_once_and_may_be_given(
    serve: Serve, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    api = serve({"/meters": [page(ROW)]}, tls=tls)
    words = r"/oauth/token was not sent, .* not trusted: self-signed certificate\. Check .*, set SSL_CERT_FILE to a"
    with pytest.raises(Untrusted, match=words) as failed:
        ids(client_of(api))
    assert not failed.value.passes
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ids(client_of(api)) == ["a"]


def test_credentials_show_their_key() -> None:
    assert repr(Credentials(KEY, SECRET)) == f"Credentials(key='{KEY}')"


# Pace


def test_a_page_of_a_cursor_is_not_kept_waiting_by_a_fan_out(serve: Serve) -> None:
    api = serve({"/meters": endless, "/products": [page(ROW)]})
    client = client_of(api, Limits(requests_per_second=100))
    meters = client.pages(METERS)
    with ThreadPoolExecutor(16) as threads:
        fan_out = [threads.submit(list, client.pages(PRODUCTS, gives_way=True)) for _ in range(60)]
        for _ in range(10):
            next(meters)
        assert len(api.asked("/products")) < 30
        assert [len(one.result()) for one in fan_out] == [1] * 60


def test_requests_are_sent_at_the_pace(serve: Serve) -> None:
    """Those for a token too; as they arrive, which is somewhat later."""
    api = serve({"/meters": [page(ROW)]}, lifetime=0)
    client = client_of(api, Limits(requests_per_second=20))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: ids(client), range(16)))
    times = [one.at for one in api.requests]
    assert len(times) == 32
    assert max(sum(start <= one < start + 1 for one in times) for start in times) <= 20


def test_a_page_says_how_long_m3ter_took_without_the_wait_for_a_turn(serve: Serve) -> None:
    api = serve({"/meters": [page(ROW, next_token="more"), page(ROW)]})
    client = client_of(api, Limits(requests_per_second=2))
    _, second = client.pages(METERS)
    turns = api.requests[-1].at - api.requests[-2].at
    assert 0 < second.seconds < 0.8 * turns


def test_clients_that_have_a_folder_in_common_share_one_pace(serve: Serve, tmp_path: Path) -> None:
    api = serve({"/meters": [page(ROW)]})
    settings = M3terSettings(
        api_key=KEY, api_secret=SECRET, org_id=ORGANIZATION, base_url=api.base_url, requests_per_second=5
    )
    for folder in (tmp_path, tmp_path, tmp_path / "another"):
        assert ids(open_client(settings, stop=threading.Event(), pace_folder=folder)) == ["a"]
    turns = [one.at for one in api.token_requests]
    assert turns[1] - turns[0] > 1.9 / 5
    assert turns[2] - turns[1] < 1.9 / 5


# Limits


def test_the_limits_of_a_client_are_those_of_the_settings() -> None:
    settings = M3terSettings(api_key=KEY, api_secret=SECRET, org_id=ORGANIZATION)
    assert open_client(settings, stop=threading.Event()).limits == Limits()
    wanted = {
        "requests_per_second": 1.0,
        "patience_seconds": 2.0,
        "rate_limit_patience_seconds": 3.0,
        "connect_timeout_seconds": 4.0,
        "read_timeout_seconds": 5.0,
    }
    client = open_client(settings.model_copy(update=wanted), stop=threading.Event())
    assert client.limits == Limits(**wanted, outage_patience_seconds=2.0)
