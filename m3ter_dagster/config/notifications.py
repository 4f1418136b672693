"""Whom to tell about exports that failed, are late or were delivered, and who owns them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema

from m3ter_dagster.config.file_model import FileModel
from m3ter_dagster.config.values import URL, TrueOrFalse, a_text, http_url, is_address_of_a_host

EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}"
OWNER = rf"(team:\S+|{EMAIL})"
"""What Dagster takes as an owner."""
LONGEST_GRACE_HOURS = 168
SHORTEST, LONGEST = timedelta(minutes=30), timedelta(hours=6)
"""Of the grace that is derived from a schedule's period."""


def _webhook_url(value: Any) -> SecretStr:
    """Who knows the address may post to it, so a wrong one is not repeated."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else a_text("webhookUrl", value)
    without_query = re.sub(r"\?[^#]*", "", text)
    if not is_address_of_a_host(without_query) or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("has a webhookUrl that is no http or https address; write the one that the chat tool shows")
    if "@" in urlsplit(text).netloc:
        raise ValueError("has a user or password in webhookUrl; write the address without them")
    return SecretStr(text)


def _dagster_url(value: Any) -> str:
    return http_url("dagsterUrl", value)


def _grace_hours(value: Any) -> float:
    is_number = not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", str(value))
    if not is_number or not 0 < float(value) <= LONGEST_GRACE_HOURS:
        raise ValueError(
            f"has the graceHours {value!r}; write a number of hours above 0 and at most {LONGEST_GRACE_HOURS}, "
            "such as 2"
        )
    return float(value)


def _owner(value: Any) -> str:
    text = a_text("owner", value)
    if not re.fullmatch(OWNER, text):
        raise ValueError(f"names the owner {text!r}; write a team or an e-mail, such as team:finance, data@acme.com")
    return text


def _keys_and_values(value: Any) -> Any:
    """Text in this place may be the secret address, written without its key."""
    if not isinstance(value, (Mapping, Notifications)):
        kind = "a list" if isinstance(value, (list, tuple)) else "a text"
        raise ValueError(
            f"has {kind} as notifications; write keys and values, such as webhookUrl: ${{M3TER_WEBHOOK_URL}}"
        )
    return value


Owner = Annotated[str, BeforeValidator(_owner), WithJsonSchema({"type": "string", "pattern": f"^{OWNER}$"})]


class Notifications(FileModel):
    """What is told, and where."""

    webhook_url: Annotated[
        SecretStr, BeforeValidator(_webhook_url), WithJsonSchema({"type": "string", "pattern": f"^{URL}$"})
    ] = Field(
        description="The address of an incoming webhook of Slack, or of a tool that takes the same messages. "
        "It is a secret: keep it in the environment.",
        examples=["${M3TER_WEBHOOK_URL}"],
    )
    on_success: TrueOrFalse = Field(default=False, description="Whether exports that were delivered are told as well.")
    grace_hours: (
        Annotated[
            float,
            BeforeValidator(_grace_hours),
            WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_GRACE_HOURS}),
        ]
        | None
    ) = Field(
        default=None,
        description="How many hours after its due time an export that is still not delivered is late; left out: a "
        "quarter of the schedule's period, at least 30 minutes and at most 6 hours.",
        examples=[2],
    )
    dagster_url: (
        Annotated[str, BeforeValidator(_dagster_url), WithJsonSchema({"type": "string", "pattern": f"^{URL}$"})] | None
    ) = Field(
        default=None,
        description="The address of Dagster's UI, for links to runs; left out: messages have no links.",
        examples=["https://dagster.acme.com"],
    )


OptionalNotifications = Annotated[Notifications | None, BeforeValidator(_keys_and_values)]


def grace(period: timedelta, notifications: Notifications | None) -> timedelta:
    """How long after its due time an export counts as on its way."""
    if notifications and notifications.grace_hours:
        return timedelta(hours=notifications.grace_hours)
    return min(max(period / 4, SHORTEST), LONGEST)
