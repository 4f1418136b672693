"""The text of an exports.yaml from m3ter's own destinations and schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from m3ter_dagster.cli.carried_over import Item

HEAD = """\
# yaml-language-server: $schema=docs/exports.schema.json
# The Export Destinations and Export Schedules of Organization {org_id}, read from m3ter's Data Export API.
# - A role in iamRoleArn trusts m3ter: let it trust the AWS identity of this project too, or leave iamRoleArn out.
# - Each schedule exports once as soon as Dagster loads this file, and then when it is due in m3ter.
#   Delete the schedules in m3ter when these exports have taken over.
"""


def exports_yaml(org_id: str, destinations: Iterable[Item], schedules: Iterable[Item]) -> str:
    """What cannot be used here is written as a comment."""
    lines = [
        *_section("destinations", "destination", list(destinations)),
        *_section("schedules", "schedule", list(schedules)),
    ]
    return HEAD.format(org_id=org_id) + "\n".join(lines) + "\n"


def _section(key: str, noun: str, items: list[Item]) -> Iterator[str]:
    yield ""
    yield f"{key}:" if any(item.is_usable for item in items) else f"{key}: []"
    for item in items:
        for text in _comments(noun, item):
            yield f"  # {_on_one_line(text)}"
        margin = "  " if item.is_usable else "  # "
        for line in _fields(item):
            yield f"{margin}{line}".rstrip()


def _comments(noun: str, item: Item) -> Iterator[str]:
    if not item.is_usable:
        yield f"{noun} {item.fields['code']!r} is not carried over: {'; '.join(item.reasons)}."
    for note in item.notes:
        yield f"{note}."


def _fields(item: Item) -> Iterator[str]:
    bullet = "- "
    for name, value in item.fields.items():
        yield from f"{bullet}{inline(name)}: {inline(value)}".splitlines()
        bullet = "  "


def inline(value: Any) -> str:
    """A value in YAML's flow style, quoted where that is needed."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def _on_one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
