"""POST /oauth/token, and the door of every organization path: bearer token, organization, request limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest

from flask import Blueprint, Response, request
from werkzeug.exceptions import BadRequest, Forbidden, TooManyRequests, Unauthorized

from m3ter_sandbox.access import RequestLimit, Tokens
from m3ter_sandbox.answers import json_answer

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
