"""Connections through the proxy of the environment, as other HTTP tools make them, and what an answer asks for."""

from __future__ import annotations

import urllib.request
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import InvalidHeader


def open_pool(url: str, *, timeout: urllib3.Timeout, connections: int = 1) -> urllib3.PoolManager:
    """For requests to the host of `url`. Nothing is retried: callers know what may be repeated."""
    address = urlsplit(url)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        return urllib3.ProxyManager(proxy, maxsize=connections, timeout=timeout, retries=False)
    return urllib3.PoolManager(maxsize=connections, timeout=timeout, retries=False)


def retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    """How many seconds to wait, six hours at most; what is neither whole seconds nor a date is ignored (RFC 9110)."""
    try:
        return urllib3.Retry().parse_retry_after(answer.headers.get("retry-after", ""))
    except (InvalidHeader, ValueError, OverflowError):  # the last two: numbers and years of thousands of digits
        return None
