"""exports.yaml as it is at first, and what a person makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

from simulation.due_times import MEASUREMENTS, Cron, Schedule

SHORT, LONG = (24, 25, 30, 36, 48), (72, 96, 120, 168)
"""Hours from one export to the next."""
PLAIN, OFFSET, CRON = "plain", "offset", "cron"
VERY_SHORT = 6
"""For a day or two, so that several due times wait behind a run that has died."""
METERS, CATALOG, BILLS = ("meter",), ("meter", "product"), ("bill", "bill_line_item")
BOTH = ("warehouse", "archive")
KINDS = ("cadence", "cadence", "very short", "renamed", "entity", "broken", "broken")


def first_schedules(random: Random, now: datetime) -> list[Schedule]:
    """One that began before, one that will begin, one of old."""
    minute, day = timedelta(minutes=1), timedelta(days=1)
    often, plain = random.choice((METERS, BILLS)), random.choice((CATALOG, MEASUREMENTS))
    schedules = (
        Schedule(
            "often", often, BOTH[:1], random.choice(SHORT), now - random.randint(0, 900) * minute, reuse=often is BILLS
        ),
        Schedule("plain", plain, BOTH, random.choice(LONG), now + random.randint(1, 99) * minute),
        Schedule("weekly", ("account", "account_plan", "product"), BOTH, 168, now - 400 * day),
    )
    choices = ("previous", "twoPasses", "onePass")
    return [
        replace(
            _with_cadence(random, one, one.hours),
            changes=random.random() < 0.3,
            completeness=random.choice(choices),
        )
        for one in schedules
    ]


def _with_cadence(random: Random, one: Schedule, hours: int) -> Schedule:
    """Due every so many hours, or about as often by cron."""
    plain = replace(one, hours=hours, offset=0, cron=None)
    kind = random.choice((PLAIN, PLAIN, OFFSET, CRON))
    if kind == OFFSET:
        return replace(plain, offset=random.randint(1, 23 if hours % 24 == 0 else 59))
    if kind == CRON:
        some = random.sample(range(7), 5 if hours in SHORT else 2)
        return replace(plain, cron=Cron(random.randint(0, 59), (random.randint(0, 23),), tuple(sorted(some))))
    return plain


def edited(random: Random, kind: str, schedules: Sequence[Schedule], number: int) -> tuple[list[Schedule], str]:
    """The file after an edit of this kind, and what it was in words."""
    after, place = list(schedules), random.randrange(len(schedules))
    one = after[place]
    if kind == "renamed":
        after[place] = replace(one, code=f"{one.code}_{number}")
        return after, f"schedule {one.code} is renamed to {after[place].code}"
    if kind == "entity" and one.entities != MEASUREMENTS:
        after[place] = replace(one, entities=tuple(dict.fromkeys((*one.entities, "product"))))
        return after, f"schedule {one.code} exports {', '.join(after[place].entities)}"
    others = [hours for hours in (SHORT if one.hours in SHORT else LONG) if hours != one.hours]
    if kind == "very short":
        after[place] = replace(one, hours=VERY_SHORT, offset=0, cron=None)
    else:
        after[place] = _with_cadence(random, one, random.choice(others))
    return after, f"schedule {one.code} has another cadence: {' '.join(after[place].when.split())}"


def slowed(random: Random, schedules: Sequence[Schedule]) -> list[Schedule]:
    """Those that were due very often are so no more."""
    return [replace(one, hours=random.choice(SHORT)) if one.hours == VERY_SHORT else one for one in schedules]
