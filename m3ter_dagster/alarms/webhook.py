"""Messages to an incoming webhook of Slack, or of a tool that takes the same JSON. The address is a secret."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import tenacity
import urllib3
from pydantic import SecretStr

from m3ter_dagster.m3ter.connections import open_pool, retry_after

TRIES = 4
LAST_TRY_SECONDS = 22.0
"""No try starts later than this after the first, so that everything is over within 30 seconds."""
TRY_SECONDS = 8.0
LONGEST_TEXT = 4000
"""What Slack recommends for one message."""

Notify = Callable[[logging.Logger, str], str | None]
"""Sends a text; returns why that failed, or None. Takes at most 30 seconds."""

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_URLLIB3 = logging.getLogger("urllib3.connectionpool")


class NotTaken(Exception):
    """The webhook did not take a message. The text says why and holds nothing of the address."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the webhook did not take the message: {reason}; check notifications.webhookUrl in exports.yaml."
        )


class _Later(Exception):
    """The webhook did not take a message, and another try may help."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(reason)


@dataclass(frozen=True)
class Webhook:
    """Posts texts. Its repr does not show the address."""

    url: SecretStr
    sleep: Callable[[float], None] = time.sleep
    try_seconds: float = TRY_SECONDS

    def post(self, text: str) -> None:
        """Returns once the webhook has taken the text; raises NotTaken if it has not within 30 seconds."""
        cut = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."
        body = json.dumps({"text": cut.translate(_HTML)}).encode()
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Later),
            wait=_pause,
            stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_before_delay(LAST_TRY_SECONDS),
            sleep=self.sleep,
        )
        try:
            tries(self._try, body)
        except tenacity.RetryError as error:
            last = error.last_attempt
            raise NotTaken(f"{last.exception()}, {last.attempt_number} tries") from None

    def _try(self, body: bytes) -> None:
        url, headers = self.url.get_secret_value(), {"content-type": "application/json"}
        timeout = urllib3.Timeout(total=self.try_seconds)
        try:
            with _no_address_in_the_log(), open_pool(url, timeout=timeout) as pool:
                answer = pool.request("POST", url, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            # urllib3's own texts hold the address.
            raise _Later(f"no answer ({type(error).__name__})") from None
        _judge(answer)


def notify(webhook: Webhook, log: logging.Logger, text: str) -> str | None:
    """Send a text from a sensor. A webhook that fails is reported in the log and in the answer, and stops nothing."""
    title = text.splitlines()[0]
    try:
        webhook.post(text)
    except NotTaken as failure:
        log.error("%s Not sent: %s", failure, title)
        return str(failure)
    log.info("Sent to the webhook: %s", title)
    return None


def _judge(answer: urllib3.BaseHTTPResponse) -> None:
    if 200 <= answer.status < 300:
        return
    # Slack says why in one word, such as no_service; anything longer may repeat the address.
    word = answer.data[:100].decode("utf-8", "replace").strip()
    reason = f"status {answer.status} {word}" if re.fullmatch(r"[a-z]+(_[a-z]+)+", word) else f"status {answer.status}"
    if answer.status in (408, 429) or answer.status >= 500:
        raise _Later(reason, retry_after(answer))
    raise NotTaken(reason)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Later) and error.retry_after is not None:
        return error.retry_after
    return tenacity.wait_exponential(multiplier=1, max=8)(state)


@contextmanager
def _no_address_in_the_log() -> Generator[None]:
    """At DEBUG urllib3 logs the path of each request, which is the secret."""

    def is_about_no_request(record: logging.LogRecord) -> bool:
        return "POST" not in record.getMessage()

    _URLLIB3.addFilter(is_about_no_request)
    try:
        yield
    finally:
        _URLLIB3.removeFilter(is_about_no_request)
