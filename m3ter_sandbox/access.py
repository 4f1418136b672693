"""Who may ask, and how often: credentials, bearer tokens that expire, and the organization's request limit."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hmac import compare_digest
from threading import Lock

from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest, Forbidden, TooManyRequests, Unauthorized

from m3ter_sandbox.answers import json_answer

Clock = Callable[[], float]
"""Seconds since the epoch."""


class Tokens:
    def __init__(self, clock: Clock, *, lifetime: float) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self._expiries: dict[str, float] = {}

    def issue(self) -> str:
        token = secrets.token_urlsafe(24)
        self._expiries[token] = self._clock() + self.lifetime
        return token

    def is_valid(self, token: str) -> bool:
        return self._clock() < self._expiries.get(token, 0)

    def revoke_all(self) -> None:
        self._expiries.clear()


class RequestLimit:
    """At most `per_second` requests in any second; a refused request does not count. None: no limit."""

    def __init__(self, clock: Clock, *, per_second: int | None) -> None:
        self._clock = clock
        self._per_second = per_second
        self._admitted: deque[float] = deque()
        self._lock = Lock()

    def admits(self) -> bool:
        if self._per_second is None:
            return True
        with self._lock:
            now = self._clock()
            while self._admitted and self._admitted[0] <= now - 1:
                self._admitted.popleft()
            if len(self._admitted) >= self._per_second:
                return False
            self._admitted.append(now)
            return True


TOKEN_PATH = "/oauth/token"


@dataclass(frozen=True)
class Credentials:
    key: str
    secret: str = field(repr=False)


def authentication(credentials: Credentials, organization_id: str, tokens: Tokens, limit: RequestLimit) -> Blueprint:
    routes = Blueprint("authentication", __name__)

    @routes.post(TOKEN_PATH)
    def token() -> Response:
        check_client(credentials)
        check_grant_type()
        answer = {"access_token": tokens.issue(), "token_type": "Bearer", "expires_in": int(tokens.lifetime)}
        return json_answer(answer)

    @routes.before_app_request
    def admit() -> None:
        """Runs for unknown paths too: without a token m3ter does not tell which paths exist."""
        if not request.path.startswith("/organizations/"):
            return
        check_bearer(tokens)
        if request.path.split("/")[2] != organization_id:
            raise Forbidden("The organization does not exist, or you have no access to it.")
        if not limit.admits():
            raise TooManyRequests("Too many requests for this organization.")

    return routes


def check_client(credentials: Credentials) -> None:
    given = request.authorization
    if given is None or given.type != "basic":
        raise Unauthorized("Authenticate with HTTP Basic: access key id and API secret.")
    key, secret = (given.username or "").encode(), (given.password or "").encode()
    if not (compare_digest(key, credentials.key.encode()) and compare_digest(secret, credentials.secret.encode())):
        raise Unauthorized("Wrong access key id or API secret.")


def check_grant_type() -> None:
    body = request.get_json() if request.is_json else request.form
    grant_type = body.get("grant_type") if hasattr(body, "get") else None
    if grant_type != "client_credentials":
        raise BadRequest(f"grant_type is {grant_type!r}; it has to be client_credentials.")


def check_bearer(tokens: Tokens) -> None:
    """An expired or unknown token is 403, not 401, as m3ter documents."""
    given = request.authorization
    if given is None or given.type != "bearer" or not tokens.is_valid(given.token or ""):
        raise Forbidden("The bearer token is missing, unknown or expired.")
