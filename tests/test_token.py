"""The bearer token by a clock that stands still: one for all, renewed in time, and no key tried twice in vain."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from m3ter_dagster.m3ter.errors import CredentialsRefused, Later, Unavailable
from m3ter_dagster.m3ter.token import Credentials, Token, token_in

CREDENTIALS = Credentials("the-key", "the-secret")
UNAVAILABLE = Unavailable("POST /oauth/token", tries=1, reason="of status 503: no")
REFUSED = CredentialsRefused("POST /oauth/token", status=401, message="no")
LONG = 10.0


class Issuer:
    """Gives `token-1`, `token-2` and so on, or raises what it is told to, by a clock that a test sets."""

    def __init__(self, *failures: Exception | None, lifetime: float = 18_000.0) -> None:
        self.asked = 0
        self.now = 1000.0
        self._failures = list(failures)
        self._lifetime = lifetime

    def __call__(self, credentials: Credentials) -> tuple[str, float]:
        assert credentials == CREDENTIALS
        self.asked += 1
        failure = self._failures.pop(0) if self._failures else None
        if failure:
            raise failure
        return f"token-{self.asked}", self._lifetime

    def token(self) -> Token:
        return Token(CREDENTIALS, self, renew_before=300.0, clock=lambda: self.now)


@pytest.mark.parametrize(("lifetime", "used_for"), [(18_000.0, 17_700.0), (3000.0, 2700.0), (100.0, 90.0), (1.0, 0.9)])
def test_a_token_is_renewed_before_it_expires(lifetime: float, used_for: float) -> None:
    issuer = Issuer(lifetime=lifetime)
    token = issuer.token()
    assert token.value() == "token-1"
    issuer.now += used_for * 0.999
    assert token.value() == "token-1"
    issuer.now = 1000.0 + used_for * 1.001
    assert (token.value(), token.value()) == ("token-2", "token-2")


def test_a_life_is_counted_from_before_the_token_was_asked_for() -> None:
    """The answer may be long on its way."""
    issuer = Issuer()

    def slow(credentials: Credentials) -> tuple[str, float]:
        issuer.now += 60.0
        return issuer(credentials)

    token = Token(CREDENTIALS, slow, renew_before=300.0, clock=lambda: issuer.now)
    token.value()
    issuer.now = 1000.0 + 17_700.0
    assert token.value() == "token-2"


def test_a_refused_key_is_not_tried_again() -> None:
    issuer = Issuer(REFUSED)
    token = issuer.token()
    for seconds in (0.0, 1.0, 100_000.0):
        issuer.now += seconds
        with pytest.raises(CredentialsRefused) as refused:
            token.value()
        assert refused.value is REFUSED
    with pytest.raises(CredentialsRefused):
        token.renewed(instead_of="another")
    assert issuer.asked == 1


def test_a_key_that_is_refused_at_the_renewal_is_not_tried_again() -> None:
    issuer = Issuer(None, REFUSED)
    token = issuer.token()
    first = token.value()
    for _ in range(2):
        with pytest.raises(CredentialsRefused):
            token.renewed(instead_of=first)
    assert issuer.asked == 2


def test_only_the_token_that_was_refused_is_renewed() -> None:
    issuer = Issuer()
    token = issuer.token()
    first = token.value()
    assert token.renewed(instead_of=first) == ("token-2", True)
    assert token.renewed(instead_of=first) == ("token-2", False)
    assert issuer.asked == 2


def test_a_renewal_that_failed_is_tried_again_by_whoever_asks_later() -> None:
    issuer = Issuer(None, UNAVAILABLE)
    token = issuer.token()
    first = token.value()
    with pytest.raises(Unavailable):
        token.renewed(instead_of=first)
    issuer.now += 1.0
    assert token.renewed(instead_of=first) == ("token-3", True)


def test_what_failed_while_others_waited_has_failed_for_them_and_for_no_one_later() -> None:
    asking, second_wants_it, times, asked = threading.Event(), threading.Event(), itertools.count(), []

    def clock() -> float:
        now = float(next(times))
        if threading.current_thread() is not threading.main_thread() and asking.is_set():
            second_wants_it.set()
        return now

    def ask(_: Credentials) -> tuple[str, float]:
        asked.append(threading.current_thread())
        if len(asked) == 1:
            asking.set()
            assert second_wants_it.wait(LONG)
            raise UNAVAILABLE
        return "token", 18_000.0

    token = Token(CREDENTIALS, ask, renew_before=300.0, clock=clock)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(token.value)
        assert asking.wait(LONG)
        second = threads.submit(token.value)
        assert first.exception(LONG) is UNAVAILABLE
        assert second.exception(LONG) is UNAVAILABLE
    assert len(asked) == 1
    assert token.value() == "token"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b""])
def test_an_answer_without_a_token_says_so(body: bytes) -> None:
    with pytest.raises(Later, match=r"^the answer holds no token"):
        token_in(body)
