"""What Retry-After asks for, and the proxy of the environment: what all requests of the project share."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
import urllib3

from m3ter_dagster.m3ter.connections import open_pool, retry_after

SIX_HOURS = 6 * 3600
TIMEOUT = urllib3.Timeout(1)


def asked_for(value: str | None) -> float | None:
    headers = {} if value is None else {"Retry-After": value}
    return retry_after(urllib3.HTTPResponse(b"", status=429, headers=headers))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("21", 21),
        (" 21 ", 21),
        ("1000000", SIX_HOURS),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 -0000", 0),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(value: str, seconds: float) -> None:
    assert asked_for(value) == seconds


def test_a_date_to_come_is_waited_for() -> None:
    seconds = asked_for(formatdate(time.time() + 100, usegmt=True))
    assert seconds is not None
    assert 90 < seconds <= 100


NONSENSE = ["", "soon", "-1", "1.5", "1e9", "nan", "inf", "-inf", "٣", "Thu, 99 Foo 1970", "9" * 5000]


@pytest.mark.parametrize("value", [None, *NONSENSE, "Thu, 01 Jan 9999999999 00:00:00 GMT"])
def test_anything_else_is_ignored(value: str | None) -> None:
    assert asked_for(value) is None


@pytest.mark.parametrize(
    ("url", "through"),
    [("http://api.test/x", "proxy.test"), ("http://here.test:8080/x", None), ("https://api.test/x", None)],
)
def test_connections_go_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str, through: str | None
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "here.test")
    proxy = open_pool(url, timeout=TIMEOUT).proxy
    assert (proxy and proxy.host) == through
