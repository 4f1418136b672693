"""The bearer token of m3ter's API (OAuth client credentials)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from m3ter_dagster.m3ter.errors import CredentialsRefused, Later, Unavailable


@dataclass(frozen=True)
class Credentials:
    key: str
    secret: str = field(repr=False)


class Token:
    """The bearer token: requested once and renewed before it expires, by one thread for all."""

    def __init__(
        self,
        credentials: Credentials,
        ask: Callable[[Credentials], tuple[str, float]],
        *,
        renew_before: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` returns a token and its lifetime; `renew_before` is in seconds, at most a tenth of the lifetime."""
        self._credentials = credentials
        self._ask = ask
        self._renew_before = renew_before
        self._clock = clock
        self._lock = threading.Lock()
        self._value: str | None = None
        self._renew_at = 0.0
        self._refusal: CredentialsRefused | None = None
        self._failure: Unavailable | None = None
        self._failed_at = 0.0

    def value(self) -> str:
        wanted = self._clock()
        with self._lock:
            if self._value is None or self._clock() >= self._renew_at:
                self._renew(wanted)
            assert self._value is not None
            return self._value

    def renewed(self, *, instead_of: str) -> tuple[str, bool]:
        """Another token, and whether it was requested just now rather than earlier by another thread."""
        wanted = self._clock()
        with self._lock:
            is_new = self._value is None or self._value == instead_of
            if is_new:
                self._renew(wanted)
            assert self._value is not None
            return self._value, is_new

    def _renew(self, wanted: float) -> None:
        """Raise again what failed while the caller waited for another thread's request."""
        if self._refusal:
            raise self._refusal
        if self._failure and self._failed_at >= wanted:
            raise self._failure
        asked = self._clock()
        try:
            self._value, lifetime = self._ask(self._credentials)
        except CredentialsRefused as refusal:
            self._refusal = refusal
            raise
        except Unavailable as failure:
            self._failure, self._failed_at = failure, self._clock()
            raise
        self._renew_at = asked + lifetime - min(self._renew_before, lifetime / 10)


def token_in(body: bytes) -> tuple[str, float]:
    try:
        answer = msgspec.json.decode(body, type=_TokenAnswer)
    except msgspec.MsgspecError as error:
        raise Later(f"the answer holds no token ({error})") from None
    return answer.access_token, answer.expires_in


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float = 18000
