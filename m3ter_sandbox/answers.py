"""How every answer looks: JSON, pages with a cursor, errors as `{"message": ...}`, gzip for clients that take it."""

from __future__ import annotations

import gzip
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, HTTPException

from m3ter_sandbox.lists import InvalidParameter
from m3ter_sandbox.records import Row

WORTH_COMPRESSING = 1_400
DEFAULT_PAGE_SIZE = 10


def json_answer(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, content_type="application/json")


def error_answer(error: HTTPException) -> Response:
    return json_answer({"message": error.description or error.name}, error.code or 500)


def add_error_answers(app: Flask) -> None:
    app.register_error_handler(HTTPException, error_answer)
    app.register_error_handler(InvalidParameter, lambda error: error_answer(BadRequest(str(error))))


def compressed(response: Response) -> Response:
    content = response.get_data()
    if "gzip" in request.accept_encodings and len(content) >= WORTH_COMPRESSING:
        response.set_data(gzip.compress(content, compresslevel=1, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
    return response


def page_size(text: str | None, *, maximum: int) -> int:
    if text is None:
        return DEFAULT_PAGE_SIZE
    if not text.isdecimal() or not 1 <= int(text) <= maximum:
        raise InvalidParameter(f"pageSize {text!r} is not a number from 1 to {maximum}.")
    return int(text)


@dataclass(frozen=True)
class Cursor:
    """How a list finds the beginning of the next page again."""

    place: Callable[[Sequence[Row], int], str]
    """What a token keeps of the page that ends before the row of this number."""
    start: Callable[[Sequence[Row], str], int]
    """The number of the row with which the next page begins."""


OFFSET = Cursor(place=lambda _, end: str(end), start=lambda _, place: int(place))
"""Counts rows: after a deletion among those of earlier pages, the next page leaves out a row that is still there."""

KEYSET = Cursor(
    place=lambda rows, end: rows[end - 1].place,
    start=lambda rows, place: sum(row.place >= place for row in rows),
)
"""Continues after the last row of the page before: what comes or goes elsewhere moves nothing."""


def place_of(token: str, question: str) -> str:
    """Where the next page of this list with these filters begins."""
    try:
        place = urlsafe_b64decode(token).rsplit(b".", 1)[0].decode()
    except ValueError:
        raise InvalidParameter("nextToken is not a token of this service.") from None
    if token != token_for(place, question):
        raise InvalidParameter("nextToken is not a token of this service, or belongs to another list or other filters.")
    return place


def token_for(place: str, question: str) -> str:
    bound_to = blake2b(f"{place} {question}".encode(), digest_size=9).hexdigest()
    return urlsafe_b64encode(f"{place}.{bound_to}".encode()).decode()


def page(contents: Iterable[bytes], next_token: str | None) -> bytes:
    """The answer's JSON, joined from records that are JSON already."""
    end = f'],"nextToken":"{next_token}"}}' if next_token else "]}"
    return b'{"data":[' + b",".join(contents) + end.encode()
