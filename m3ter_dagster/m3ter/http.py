"""One request to m3ter: paced, authorized, tried again while the answer says "later"."""

from __future__ import annotations

import http.client
import itertools
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
import urllib3

from m3ter_dagster.m3ter.connections import open_pool, paced, retry_after, unpacked
from m3ter_dagster.m3ter.errors import (
    CredentialsRefused,
    Interrupted,
    Later,
    M3terError,
    Refused,
    Unavailable,
    Untrusted,
    quoted,
)
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.outage import Outage
from m3ter_dagster.m3ter.pace import Pace, SharedTimes
from m3ter_dagster.m3ter.token import Credentials, Token, token_in
from m3ter_dagster.m3ter.traffic import Traffic
from m3ter_dagster.m3ter.watch import Watch

T = TypeVar("T")

_QUOTING = (http.client.BadStatusLine, http.client.UnknownProtocol)


@dataclass(frozen=True)
class Answer:
    """An answer that has arrived whole."""

    status: int
    data: bytes
    retry_after: float | None


class Http:
    """Requests with a bearer token. Thread-safe; `stop` ends every wait."""

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        stop: threading.Event,
        limits: Limits = Limits(),
        times: SharedTimes | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._limits = limits
        pool = open_pool(self._base_url, timeout=limits.timeout, connections=limits.connections)
        host = pool.connection_from_url(self._base_url)
        # A pool of many hosts looks for its host anew with each request, and only a proxy needs that: which may want to
        # be told the whole address.
        self._urlopen: Callable[..., urllib3.BaseHTTPResponse] = (pool if pool.proxy else host).urlopen
        self._before_path = self._base_url if pool.proxy else urlsplit(self._base_url).path
        self._pace = Pace(limits.requests_per_second, times=times)
        self._watch = Watch(stop, seconds=limits.request_seconds, stop_seconds=limits.stop_seconds)
        host.ConnectionCls = paced(host.ConnectionCls, self._pace, self.wait, sending=self._watch.sending)
        self._stop = stop
        self._outage = Outage(longest_pause=limits.longest_pause_seconds)
        self.traffic = Traffic()
        self._last = threading.local()
        self._token = Token(credentials, self._ask_for_token, renew_before=limits.renew_before_seconds)

    @property
    def _spent(self) -> float:
        """How long all requests of this thread took so far."""
        return getattr(self._last, "spent", 0.0)

    @property
    def seconds(self) -> float:
        """How long m3ter took for the last answer that this thread got, from its turn on."""
        return self._last.seconds

    @property
    def silent_seconds(self) -> float | None:
        """How long m3ter has been down as a whole; None: it is not."""
        return self._outage.seconds

    def get(self, path: str, check: Callable[[bytes], T], *, gives_way: bool = False) -> T:
        """The answer's body as `check` reads it; `check` raises Later for a body that is worth another try."""
        request = f"GET {self._base_url}{path}"
        return self._persist(request, lambda: check(self._authorized(request, path, gives_way=gives_way)))

    def query(self, path: str, content: bytes, check: Callable[[bytes], T]) -> T:
        """Like `get`, for a POST that only reads and may be sent as often as a GET."""
        request = f"POST {self._base_url}{path}"
        return self._persist(request, lambda: check(self._authorized(request, path, content)))

    def post(self, path: str, content: bytes, check: Callable[[bytes], T]) -> T:
        """Like `get`, for a POST that changes something, which may have been done although no answer says so.

        It is repeated whenever m3ter answers 429, which promises that nothing was done, but after silence or a 5xx only
        once: callers must tolerate that the request takes effect twice.
        """
        request = f"POST {self._base_url}{path}"
        doubts: list[str] = []

        def once() -> T:
            try:
                return check(self._authorized(request, path, content))
            except Later as later:
                if later.status != 429:
                    doubts.append(str(later))
                if len(doubts) > 1:
                    raise Unavailable(request, tries=len(doubts), reason=doubts[-1]) from None
                raise

        return self._persist(request, once)

    def _authorized(self, request: str, path: str, content: bytes | None = None, *, gives_way: bool = False) -> bytes:
        """An expired token is answered with 403 like a missing permission: a refusal is believed with a new token."""
        method = "GET" if content is None else "POST"
        token, is_new = self._token.value(), False
        answer = self._send(method, path, {"authorization": f"Bearer {token}"}, content, gives_way=gives_way)
        while answer.status in (401, 403) and not is_new:
            token, is_new = self._token.renewed(instead_of=token)
            answer = self._send(method, path, {"authorization": f"Bearer {token}"}, content, gives_way=gives_way)
        return _body(request, answer)

    def _ask_for_token(self, credentials: Credentials) -> tuple[str, float]:
        request = f"POST {self._base_url}/oauth/token"
        headers = urllib3.make_headers(basic_auth=f"{credentials.key}:{credentials.secret}")

        def ask() -> tuple[str, float]:
            self.traffic.add(tokens=1)
            answer = self._send("POST", "/oauth/token", headers, b'{"grant_type":"client_credentials"}')
            return token_in(_body(request, answer))

        try:
            return self._persist(request, ask, waits_for_others=False)  # they may be waiting for the token
        except Refused as refusal:
            raise CredentialsRefused(request, status=refusal.status, message=refusal.message) from None

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None, *, gives_way: bool = False
    ) -> Answer:
        headers = {"accept": "application/json", "accept-encoding": "gzip", **headers}
        if body is not None:
            headers["content-type"] = "application/json"
        seconds_for_turns = self._pace.take_turn(self.wait, gives_way=gives_way)
        started, status, content = time.monotonic(), 0, b""
        with self._watch.over() as watched:
            try:
                answer = self._urlopen(
                    method, self._before_path + path, body=body, headers=headers, redirect=False, preload_content=False
                )
                status, content = answer.status, answer.read(decode_content=False)
            except urllib3.exceptions.HTTPError as error:
                if isinstance(cause := error.args[0] if error.args else None, ssl.SSLCertVerificationError):
                    raise Untrusted(f"{method} {self._base_url}{path}", cause.verify_message.rstrip(".")) from None
                if not watched.is_over:
                    raise Later(_reason(error)) from None
            finally:
                self._last.seconds = time.monotonic() - started
                self._last.spent = self._spent + self._last.seconds
                self.traffic.add(
                    requests=1,
                    too_many=status == 429,
                    bytes=len(content),
                    seconds_for_answers=self._last.seconds,
                    seconds_for_turns=seconds_for_turns,
                )
        if watched.is_over:
            self.wait(0)
            raise Later(f"it took more than {self._limits.request_seconds:g} seconds")
        if answer.headers.get("content-encoding", "").lower() == "gzip":
            content = unpacked(content, at_most=self._limits.most_unpacked(len(content)))
        return Answer(answer.status, content, retry_after(answer))

    def _persist(self, request: str, once: Callable[[], T], *, waits_for_others: bool = True) -> T:
        def entered() -> T:
            """One try. Only an answer of m3ter itself ends an outage; a 429 is one, and a token is none."""
            moment = self._outage.enter(self.wait) if waits_for_others else time.monotonic()
            try:
                answer = once()
            except (Later, Unavailable) as failure:
                if isinstance(failure, Later) and failure.status in (408, 429):
                    self._outage.answered()
                else:
                    self._outage.failed(moment)
                raise
            except Exception:  # whatever it was that m3ter answered
                self._outage.answered()
                raise
            if waits_for_others:
                self._outage.answered()
            return answer

        # By hand: tenacity executes 180 lines of Python for a request that succeeds at once, as nearly all do.
        latest, waited = self._spent + self._limits.page_seconds, 0.0
        for number in itertools.count(1):
            try:
                return entered()
            except Later as later:
                pause = self._pause(later, number)
                if self._spent >= latest or self._is_out_of_patience(later, waited + pause, pause):
                    raise Unavailable(request, tries=number, reason=str(later)) from None
                self._before_another_try(later)
                self.wait(pause)
                waited += pause
            except RecursionError:
                says = "was answered with JSON that is nested too deeply to be read"
                raise M3terError(f"{request} {says}; report it to m3ter's support with this message.") from None
        raise AssertionError

    def _pause(self, later: Later, number: int) -> float:
        """The pause before the next try: at least what m3ter asks for, and longer each time, since it may ask for 0."""
        backoff = min(0.5 * 2.0 ** min(number - 1, 30), self._limits.longest_pause_seconds)
        return max(later.retry_after or 0.0, backoff + SystemRandom().uniform(0, 0.25))

    def _is_out_of_patience(self, later: Later, waits: float, pause: float) -> bool:
        """`waits` are all of this request, the next one, which is `pause`, included."""
        if later.status == 429:
            return waits > self._limits.rate_limit_patience_seconds
        down = self._outage.seconds
        if down is not None:
            return down + pause > self._limits.outage_patience_seconds
        return waits > self._limits.patience_seconds

    def _before_another_try(self, later: Later) -> None:
        """Count it. After a 429 all threads pause: it is about the whole Organization."""
        self.traffic.add(tried_again=1)
        if later.status == 429 and later.retry_after is not None:
            self._pace.hold(later.retry_after)

    def wait(self, seconds: float) -> None:
        """Wait; raises Interrupted once `stop` is set."""
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Interrupted


class _ErrorAnswer(msgspec.Struct):
    message: str = ""


def _body(request: str, answer: Answer) -> bytes:
    """The body of a success; 408, 429 and 5xx are Later, anything else is Refused."""
    if 200 <= answer.status < 300:
        return answer.data
    try:
        message = msgspec.json.decode(answer.data, type=_ErrorAnswer).message
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        # A proxy in front of m3ter may answer differently.
        message = quoted(answer.data)
    if answer.status in (408, 429) or answer.status >= 500:
        reason = f"of status {answer.status}: {message or 'no message'}"
        raise Later(reason, status=answer.status, retry_after=answer.retry_after)
    raise Refused(request, status=answer.status, message=message)


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """What went wrong, from the error's class and cause: urllib3's texts contain object addresses.

    For an answer that does not start like HTTP, the cause quotes what came instead, which may be a row.
    """
    quoting = [cause for cause in error.args if isinstance(cause, _QUOTING)]
    if quoting:
        return f"of {type(error).__name__}: {type(quoting[0]).__name__}"
    text = str(error).split("object at 0x")[-1].split("): ", 1)[-1]
    return f"of {type(error).__name__}: {text}"
