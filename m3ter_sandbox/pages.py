"""One page of a list: page size, opaque cursor, and the JSON of the answer."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from hashlib import blake2b

from m3ter_sandbox.parameters import InvalidParameter

DEFAULT_PAGE_SIZE = 10


def page_size(text: str | None, *, maximum: int) -> int:
    if text is None:
        return DEFAULT_PAGE_SIZE
    if not text.isdecimal() or not 1 <= int(text) <= maximum:
        raise InvalidParameter(f"pageSize {text!r} is not a number from 1 to {maximum}.")
    return int(text)


def offset_of(token: str | None, question: str) -> int:
    """Where the next page of this list with these filters begins."""
    if not token:
        return 0
    try:
        number, _ = urlsafe_b64decode(token).split(b".", 1)
        offset = int(number)
    except ValueError:
        raise InvalidParameter("nextToken is not a token of this service.") from None
    if token != token_for(offset, question):
        raise InvalidParameter("nextToken belongs to another list, or to other filters.")
    return offset


def token_for(offset: int, question: str) -> str:
    bound_to = blake2b(f"{offset} {question}".encode(), digest_size=9).digest()
    return urlsafe_b64encode(b"%d.%s" % (offset, bound_to)).decode()


def page(contents: Iterable[bytes], next_token: str | None) -> bytes:
    """The answer's JSON, joined from records that are JSON already."""
    end = f'],"nextToken":"{next_token}"}}' if next_token else "]}"
    return b'{"data":[' + b",".join(contents) + end.encode()
