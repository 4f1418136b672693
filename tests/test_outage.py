"""While m3ter is down one request asks whether it is back, and everyone waits longer than for a single bad answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
from scripted_api import KEY, ORGANIZATION, SECRET, Answer, Request, ScriptedApi, page, refusal

from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.errors import Unavailable
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.outage import Outage
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.model.entity import Listing

LISTS = [f"/list{number}" for number in range(12)]
LIMITS = Limits(requests_per_second=100_000, patience_seconds=0.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock) -> Outage:
    return Outage(longest_pause=15.0, clock=clock)


def test_it_begins_where_nobody_was_answered_since_and_ends_with_an_answer(clock: Clock, outage: Outage) -> None:
    entered = outage.enter(clock.wait)
    clock.now += 5
    outage.failed(entered)
    assert outage.seconds == 5
    outage.answered()
    assert outage.seconds is None


def test_a_failure_while_others_are_answered_is_none(clock: Clock, outage: Outage) -> None:
    entered = outage.enter(clock.wait)
    clock.now += 5
    outage.answered()
    outage.failed(entered)
    assert outage.seconds is None


def test_the_pauses_between_two_questions_grow(clock: Clock, outage: Outage) -> None:
    moments = []
    for _ in range(8):
        outage.failed(outage.enter(clock.wait))
        moments.append(clock.now)
    pauses = [then - now for now, then in pairwise(moments)]
    assert pauses == [0.5, 1, 2, 4, 8, 15, 15]


def client_of(api: ScriptedApi, limits: Limits, stop: threading.Event | None = None) -> M3terClient:
    credentials = Credentials(KEY, SECRET)
    return M3terClient(api.base_url, ORGANIZATION, credentials, limits=limits, stop=stop or threading.Event())


def read(client: M3terClient, path: str) -> bytes:
    return next(client.pages(Listing(path, 100))).rows


def test_one_request_at_a_time_asks_and_all_go_on_when_m3ter_is_back(no_proxy: None) -> None:  # noqa: ARG001
    asked: list[str] = []
    all_are_on_their_way = threading.Event()

    def answer(request: Request) -> Answer:
        asked.append(request.path)
        if len(asked) == len(LISTS):
            all_are_on_their_way.set()
        if len(asked) > len(LISTS) + 2:
            return page({"id": request.path})
        return replace(refusal(503, "down"), waits_for=all_are_on_their_way)

    with ScriptedApi(dict.fromkeys(LISTS, answer)) as api:
        client = client_of(api, LIMITS)
        with ThreadPoolExecutor(len(LISTS)) as threads:
            found = list(threads.map(lambda path: read(client, path), LISTS))
    assert len(set(found)) == len(LISTS)
    assert len(asked) == len(LISTS) + 2 + len(LISTS)


def test_a_list_that_fails_while_others_are_answered_is_given_up_after_the_shorter_patience(
    no_proxy: None,  # noqa: ARG001
) -> None:
    is_asked, other_is_answered = threading.Event(), threading.Event()

    def answer(request: Request) -> Answer:  # noqa: ARG001
        is_asked.set()
        return replace(refusal(500, "this list is broken"), waits_for=other_is_answered)

    with ScriptedApi({LISTS[0]: answer, LISTS[1]: [page({"id": "a"})]}) as api, ThreadPoolExecutor(1) as thread:
        client = client_of(api, LIMITS)
        broken = thread.submit(read, client, LISTS[0])
        assert is_asked.wait(60)
        read(client, LISTS[1])
        other_is_answered.set()
        with pytest.raises(Unavailable, match="failed 1 times, last because of status 500: this list is broken"):
            broken.result(60)


def test_the_longer_patience_ends(no_proxy: None) -> None:  # noqa: ARG001
    with ScriptedApi({LISTS[0]: [refusal(503, "down")]}) as api:
        client = client_of(api, replace(LIMITS, patience_seconds=1_000.0, outage_patience_seconds=1.0))
        with pytest.raises(Unavailable, match="last because of status 503: down"):
            read(client, LISTS[0])


def test_a_post_that_is_given_up_lets_others_ask_whether_m3ter_is_back(no_proxy: None) -> None:  # noqa: ARG001
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.method)
        return refusal(503, "down") if len(asked) <= 2 else page({"id": "a"})

    stop = threading.Event()
    with ScriptedApi({LISTS[0]: answer}) as api, ThreadPoolExecutor(1) as thread:
        client = client_of(api, LIMITS, stop)
        with pytest.raises(Unavailable, match="failed 2 times"):
            client.post(LISTS[0], b"{}", bytes)
        try:
            thread.submit(read, client, LISTS[0]).result(20)
        finally:
            stop.set()
    assert asked == ["POST", "POST", "GET"]
