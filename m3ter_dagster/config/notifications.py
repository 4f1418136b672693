"""Whom to notify of exports that failed, are late or were delivered, and who owns them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from m3ter_dagster.config.fields import (
    URL,
    FileModel,
    TrueOrFalse,
    Url,
    is_address_of_a_host,
    rule,
    without_password,
    written_as,
)

LONGEST_GRACE_HOURS = 168
SHORTEST, LONGEST = timedelta(minutes=30), timedelta(hours=6)
"""Limits of the grace period derived from a schedule's period."""


def _webhook_url(url: SecretStr) -> SecretStr:
    """The address of a webhook. Whoever knows it may post to it, so messages do not repeat a wrong one."""
    text = url.get_secret_value()
    without_query = re.sub(r"\?[^#]*", "", text)
    if not is_address_of_a_host(without_query) or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("has a webhookUrl that is no http or https address; write the one that the chat tool shows")
    without_password(urlsplit(text).netloc)
    return url


Owner = Annotated[
    str,
    rule(
        "write a team or an e-mail, such as team:finance, data@acme.com",
        pattern=r"^(team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$",
        title="owner",
    ),
]
"""What Dagster takes as an owner."""
GraceHours = Annotated[
    float,
    rule(f"write a number of hours above 0 and at most {LONGEST_GRACE_HOURS}, such as 2", gt=0, le=LONGEST_GRACE_HOURS),
    written_as(r"[0-9]{1,3}(\.[0-9]{1,3})?"),
]


class Notifications(FileModel):
    """What to notify people of, and where."""

    webhook_url: Annotated[SecretStr, AfterValidator(_webhook_url)] = Field(
        description="The address of an incoming webhook of Slack, or of a tool that takes the same messages. "
        "It is a secret: keep it in the environment.",
        examples=["${M3TER_WEBHOOK_URL}"],
        json_schema_extra={"pattern": URL},
    )
    on_success: TrueOrFalse = Field(default=False, description="Whether exports that were delivered are told as well.")
    grace_hours: GraceHours | None = Field(
        default=None,
        description="How many hours after its due time an export that is still not delivered is late; left out: a "
        "quarter of the schedule's shortest period, at least 30 minutes and at most 6 hours.",
        examples=[2],
    )
    dagster_url: Url | None = Field(
        default=None,
        description="The address of Dagster's UI, for links to runs; left out: messages have no links.",
        examples=["https://dagster.acme.com"],
    )


def grace(period: timedelta, notifications: Notifications | None) -> timedelta:
    """How long after its due time an export may take before it counts as late."""
    if notifications and notifications.grace_hours:
        return timedelta(hours=notifications.grace_hours)
    return min(max(period / 4, SHORTEST), LONGEST)
