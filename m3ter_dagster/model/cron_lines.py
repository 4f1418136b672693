"""Due times as few lines of cron. UTC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from functools import reduce
from itertools import permutations

Box = tuple[frozenset[int], ...]
"""Months, days or weekdays, hours and minutes; a box stands for every combination of one of each."""


def lines_of_dates(times: Iterable[datetime]) -> list[str]:
    """Lines that fire at exactly these times, within a year of each other."""
    boxes = _fewest_boxes((t.month, t.day, t.hour, t.minute) for t in times)
    return [_line(minutes, hours, _listed(days), _listed(months), "*") for months, days, hours, minutes in boxes]


def lines_of_weekdays(times: Iterable[datetime]) -> list[str]:
    """Lines that fire at these times of their weekdays, each week."""
    boxes = _fewest_boxes((t.isoweekday() % 7, t.hour, t.minute) for t in times)
    return [
        _line(minutes, hours, "*", "*", "*" if len(weekdays) == 7 else _listed(weekdays))
        for weekdays, hours, minutes in boxes
    ]


def _fewest_boxes(points: Iterable[tuple[int, ...]]) -> list[Box]:
    """Points that differ in one dimension become one box, in the order of dimensions that leaves the fewest.

    Minutes first, since all those of an hour are on one line anyway.
    """
    boxes = {tuple(frozenset({part}) for part in point) for point in points}
    minutes = len(next(iter(boxes))) - 1
    merged = (reduce(_merge, (minutes, *order), boxes) for order in permutations(range(minutes)))
    return sorted(min(merged, key=len), key=lambda box: [sorted(values) for values in box])


def _merge(boxes: Collection[Box], dimension: int) -> set[Box]:
    alike: dict[Box, frozenset[int]] = defaultdict(frozenset)
    for box in boxes:
        alike[box[:dimension] + box[dimension + 1 :]] |= box[dimension]
    return {(*rest[:dimension], values, *rest[dimension:]) for rest, values in alike.items()}


def _line(minutes: frozenset[int], hours: frozenset[int], days: str, months: str, weekdays: str) -> str:
    at = "*" if len(minutes) == 60 else _listed(minutes)
    return f"{at} {'*' if len(hours) == 24 else _listed(hours)} {days} {months} {weekdays}"


def _listed(values: Iterable[int]) -> str:
    return ",".join(map(str, sorted(values)))
