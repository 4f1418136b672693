"""Telling the webhook something from a sensor. A webhook that fails is reported, and stops nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from m3ter_dagster.alarms.webhook import NotTold, Webhook

Tell = Callable[[logging.Logger, str], str | None]
"""Why the text could not be told; None once it is. Takes at most half a minute."""


def tell(webhook: Webhook, log: logging.Logger, text: str) -> str | None:
    title = text.splitlines()[0]
    try:
        webhook.post(text)
    except NotTold as failure:
        log.error("%s Not told: %s", failure, title)
        return str(failure)
    log.info("Told the webhook: %s", title)
    return None
