"""One request to m3ter: paced, authorized, tried again while the answer says "later"."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import tenacity
import urllib3

from m3ter_dagster.m3ter.connections import open_pool, paced, retry_after, unpacked
from m3ter_dagster.m3ter.errors import CredentialsRefused, Interrupted, Later, M3terError, Refused, Unavailable, quoted
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
        self._pool = open_pool(self._base_url, timeout=limits.timeout, connections=limits.connections)
        self._pace = Pace(limits.requests_per_second, times=times)
        host = self._pool.connection_from_url(self._base_url)
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
        with self.traffic.timed("seconds_for_turns"):
            self._pace.take_turn(self.wait, gives_way=gives_way)
        started, url = time.monotonic(), self._base_url + path
        with self._watch.over() as watched:
            try:
                answer = self._pool.request(
                    method, url, headers=headers, body=body, redirect=False, preload_content=False
                )
                content = answer.read(decode_content=False)
            except urllib3.exceptions.HTTPError as error:
                if not watched.is_over:
                    raise Later(_reason(error)) from None
            finally:
                self._last.seconds = time.monotonic() - started
                self._last.spent = self._spent + self._last.seconds
                self.traffic.add(requests=1, seconds_for_answers=self._last.seconds)
        if watched.is_over:
            self.wait(0)
            raise Later(f"it took more than {self._limits.request_seconds:g} seconds")
        self.traffic.add(bytes=len(content), too_many=answer.status == 429)
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

        latest = self._spent + self._limits.page_seconds
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Later),
            wait=self._pause,
            stop=lambda state: self._spent >= latest or self._is_out_of_patience(state),
            sleep=self.wait,
            before_sleep=self._before_another_try,
        )
        try:
            return tries(entered)
        except tenacity.RetryError as error:
            last = error.last_attempt
            raise Unavailable(request, tries=last.attempt_number, reason=str(last.exception())) from None
        except RecursionError:
            says = "was answered with JSON that is nested too deeply to be read"
            raise M3terError(f"{request} {says}; report it to m3ter's support with this message.") from None

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """The pause before the next try: at least what m3ter asks for, and longer each time, since it may ask for 0."""
        longest = self._limits.longest_pause_seconds
        backoff = tenacity.wait_exponential(multiplier=0.5, max=longest) + tenacity.wait_random(0, 0.25)
        return max(_later(state).retry_after or 0.0, backoff(state))

    def _is_out_of_patience(self, state: tenacity.RetryCallState) -> bool:
        if _later(state).status == 429:
            return state.idle_for + state.upcoming_sleep > self._limits.rate_limit_patience_seconds
        down = self._outage.seconds
        if down is not None:
            return down + state.upcoming_sleep > self._limits.outage_patience_seconds
        return state.idle_for + state.upcoming_sleep > self._limits.patience_seconds

    def _before_another_try(self, state: tenacity.RetryCallState) -> None:
        """Count it. After a 429 all threads pause: it is about the whole Organization."""
        self.traffic.add(tried_again=1)
        later = _later(state)
        if later.status == 429 and later.retry_after is not None:
            self._pace.hold(later.retry_after)

    def wait(self, seconds: float) -> None:
        """Wait; raises Interrupted once `stop` is set."""
        if self._stop.wait(max(seconds, 0)):
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


def _later(state: tenacity.RetryCallState) -> Later:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, Later)
    return error
