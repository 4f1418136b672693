"""What happens while a run is executed, as chance has it: nothing, what passes, what does not, or a sudden death."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from dagster import DagsterEventType

from simulation import faults
from simulation.faults import Effect, Fault

LISTS = {name: rf"^GET .*/{name}s\?" for name in ("meter", "product", "account", "accountplan", "bill", "lineitem")}
TOKEN = "^POST /oauth/token"
JOB, LOOK_AT_JOB, MEASUREMENTS = "^POST .*/adhoc$", "^GET .*/dataexports/jobs/", "^GET /export-files/"
A_FILE, A_MANIFEST = r"^PUT .*\.csv$", r"^PUT .*_manifest\.json$"
UPLOAD, PART, WHOLE = r"^POST .*\?uploads", r"^PUT .*partNumber=", r"^POST .*\?uploadId="
LOOK = r"^HEAD .*\.csv$"
"""S3: an object at once, or in parts, and a look at it."""
EVENTS = 60
"""About how many events a run logs."""
BETWEEN_STEPS = (
    DagsterEventType.RUN_START,
    DagsterEventType.ENGINE_EVENT,
    DagsterEventType.RESOURCE_INIT_SUCCESS,
    DagsterEventType.RUN_SUCCESS,
)
"""Events at which no step is under way. What the executor logs first is an engine event."""


@dataclass(frozen=True)
class Fate:
    api: tuple[Fault, ...] = ()
    s3: tuple[Fault, ...] = ()
    dies_at_event: int | DagsterEventType | None = None
    """The process dies when it logs this event, from 1, or the first of this type."""
    is_survived: bool = True
    """Whether the run must succeed, unless its process dies."""


NOTHING = Fate()


def fate(random: Random, change: Callable[[], str]) -> Fate:
    """`change` changes a record of the Organization."""
    moving = _changes(random, change) if random.random() < 0.5 else ()
    draw = random.random()
    if draw < 0.35:
        return Fate(moving)
    if draw < 0.55:
        return Fate((*moving, *_passing_api_faults(random)))
    if draw < 0.7:
        return Fate(moving, _passing_s3_faults(random))
    if draw < 0.8:
        return Fate(moving, _refusals(random), is_survived=False)
    return _death(random, moving)


def _changes(random: Random, change: Callable[[], str]) -> tuple[Fault, ...]:
    """Records change just before a page is answered."""

    def change_some() -> None:
        for _ in range(random.randint(1, 4)):
            change()

    name, number = random.choice(sorted(LISTS)), random.randint(1, 3)
    return (Fault(LISTS[name], number, faults.after(change_some), f"records change before answer {number} of {name}s"),)


def _passing_api_faults(random: Random) -> Sequence[Fault]:
    asked = [*sorted(LISTS.values()), TOKEN, JOB, LOOK_AT_JOB, MEASUREMENTS]
    where, first = random.choice(asked), random.randint(1, 2)
    effects: dict[str, Effect] = {
        "503": faults.unavailable,
        "429": faults.too_many,
        "a reset": faults.reset,
        "a lost reply": faults.lost_reply,
        "half an answer": faults.cut_off,
        "a slow answer": faults.slow,
    }
    # A job that may have been made is asked for once more only.
    words, count = random.choice(sorted(effects)), 1 if where == JOB else random.randint(1, 3)
    return [Fault(where, first + n, effects[words], f"{words} to {where}") for n in range(count)]


def _passing_s3_faults(random: Random) -> tuple[Fault, ...]:
    where, number = random.choice([A_FILE, A_MANIFEST, UPLOAD, PART, WHOLE, LOOK]), random.randint(1, 3)
    effects: dict[str, Effect] = {
        "503": faults.slow_down,
        "a reset": faults.reset,
        "a lost reply": faults.lost_reply,
    }
    words = random.choice(sorted(effects))
    return (Fault(where, number, effects[words], f"{words} to {where} {number}"),)


def _refusals(random: Random) -> tuple[Fault, ...]:
    """The store refuses one object in one place."""
    where, number = random.choice([A_FILE, A_MANIFEST, PART, WHOLE]), random.randint(1, 3)
    return (Fault(where, number, faults.denied, f"403 to {where} {number}"),)


def _death(random: Random, moving: tuple[Fault, ...]) -> Fate:
    if random.random() < 0.15:
        return Fate(moving, dies_at_event=random.choice(BETWEEN_STEPS))
    if random.random() < 0.3:
        return Fate(moving, dies_at_event=random.randint(1, EVENTS))
    effect, when = random.choice([(faults.dies_before, "before"), (faults.dies_after, "after")])
    if random.random() < 0.3:
        where, number = random.choice([TOKEN, JOB, MEASUREMENTS, *sorted(LISTS.values())]), random.randint(1, 2)
        return Fate((*moving, Fault(where, number, effect, f"dies {when} {where} {number}")))
    where, number = random.choice([A_FILE, A_MANIFEST, UPLOAD, PART, WHOLE, LOOK]), random.randint(1, 3)
    return Fate(moving, (Fault(where, number, effect, f"dies {when} {where} {number}"),))
