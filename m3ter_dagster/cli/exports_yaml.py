"""The text of an exports.yaml from m3ter's own destinations and schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from m3ter_dagster.cli.hosted_exports import Item

HEAD = """\
# yaml-language-server: $schema=docs/exports.schema.json
# The Export Destinations and Export Schedules of Organization {org_id}, read from m3ter's Data Export API.
# - A role in iamRoleArn trusts m3ter: let it trust the AWS identity of this project too, or leave iamRoleArn out.
# - Each schedule exports once as soon as Dagster loads this file, and then when it is due in m3ter.
#   Delete the schedules in m3ter when these exports have taken over.
"""


def exports_yaml(org_id: str, destinations: Iterable[Item], schedules: Iterable[Item]) -> str:
    """The file's text. Destinations and schedules that cannot be used here are written as comments."""
    lines = [
        *_section("destinations", "destination", list(destinations)),
        *_section("schedules", "schedule", list(schedules)),
    ]
    return HEAD.format(org_id=org_id) + "\n".join(lines) + "\n"


def _section(key: str, noun: str, items: list[Item]) -> Iterator[str]:
    yield ""
    yield f"{key}:" if any(item.is_usable for item in items) else f"{key}: []"
    for item in items:
        reasons = f"{noun} {item.fields['code']!r} is not carried over: {'; '.join(item.reasons)}"
        for text in item.notes if item.is_usable else (reasons, *item.notes):
            yield f"  # {''.join(letter if letter.isprintable() else ' ' for letter in text)}."
        margin, bullet = "  " if item.is_usable else "  # ", "- "
        for name, value in item.fields.items():
            for line in f"{bullet}{inline(name)}: {inline(value)}".splitlines():
                yield f"{margin}{line}".rstrip()
            bullet = "  "


def inline(value: Any) -> str:
    """A value in YAML's flow style, quoted where that is needed."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()
