"""Connections to m3ter and to other hosts: through the proxy of the environment, and what arrives over them."""

from __future__ import annotations

import urllib.request
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import InvalidHeader

from m3ter_dagster.m3ter.errors import Later
from m3ter_dagster.m3ter.pace import Pace

GZIP = zlib.MAX_WBITS | 16

_NONE = urllib3.Retry(False)


def open_pool(url: str, *, timeout: urllib3.Timeout, connections: int = 1) -> urllib3.PoolManager:
    """Connections to the host of `url`, through the proxy of the environment, as other HTTP tools make them.

    Nothing is retried: callers know what may be repeated.
    """
    address = urlsplit(url)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        return urllib3.ProxyManager(proxy, maxsize=connections, timeout=timeout, retries=_NONE)
    return urllib3.PoolManager(maxsize=connections, timeout=timeout, retries=_NONE)


def paced(kind: Any, pace: Pace, wait: Callable[[float], None], *, sending: Callable[[Any], None] | None = None) -> Any:
    """The class of connection whose requests are counted when they are written, which may be long after their turn: a
    new connection first has to be made. `sending` is told the socket of each."""

    class Paced(kind):
        def endheaders(self, *arguments: Any, **options: Any) -> None:
            if self.is_closed:
                self.connect()
            if sending:
                sending(self.sock)
            with pace.sending(wait):
                super().endheaders(*arguments, **options)

    return Paced


def unpacked(content: bytes, *, at_most: int) -> bytes:
    """What gzip holds. A few bytes can stand for more than fits into memory, so it is Later if there are too many."""
    unpacking = zlib.decompressobj(GZIP)
    try:
        data = unpacking.decompress(content, at_most)
    except zlib.error:
        raise Later("the answer is gzip that is damaged") from None
    if unpacking.unconsumed_tail:
        raise Later(f"the answer is gzip that unpacks to more than {at_most:,} bytes")
    if not unpacking.eof:
        raise Later("the answer is gzip that breaks off")
    return data


def retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    """How many seconds to wait, six hours at most; what is neither whole seconds nor a date is ignored (RFC 9110)."""
    after = answer.headers.get("retry-after")
    if after is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(after)
    except (InvalidHeader, ValueError, OverflowError):  # the last two are for numbers and years of thousands of digits
        return None
