"""The names in exports.yaml: each once, each known where it is used, none that Dagster would refuse."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

from m3ter_dagster.config.wording import Loc
from m3ter_dagster.model.suggestions import known_names

NameMistake = tuple[Loc, str]

ALL, ALL_AND_REFERENCES = "ALL", "ALL_AND_REFERENCES"
OPERATIONAL, USAGE = "OPERATIONAL", "USAGE"

DUE_EXPORTS = "due_exports"
FAILED_EXPORTS, DELIVERED_EXPORTS, LATE_EXPORTS = "failed_exports", "delivered_exports", "late_exports"
UNSAFE_REUSE, BROKEN_CONFIGURATION = "unsafe_reuse", "broken_configuration"
STUCK_EXPORTS, MISSING_MANIFESTS = "stuck_exports", "missing_manifests"
PRUNE_HISTORY = "prune_history"
OWN = (
    *(DUE_EXPORTS, STUCK_EXPORTS, MISSING_MANIFESTS, PRUNE_HISTORY),
    *(FAILED_EXPORTS, DELIVERED_EXPORTS, LATE_EXPORTS, UNSAFE_REUSE, BROKEN_CONFIGURATION),
)
"""The names of our own sensors and schedule: in Dagster those of Export Schedules must differ from them."""
NO_CHOICE = re.compile("_.*_|mro")
"""What Python does not take as a member of an enum, which Dagster makes a list of codes to choose from of."""

RESERVED = {
    *("context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict"),
    *("int", "str", "float", "bool", "input", "output", "type"),
    *keyword.kwlist,
    *OWN,
}


def dagster_name(code: str) -> str:
    """`code` as Dagster takes names: letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", code)


def job_name(code: str) -> str:
    """The name in Dagster of the job of the schedule with this code."""
    return f"export_{dagster_name(code)}"


def name_mistakes(value: Any) -> Iterator[NameMistake]:
    """Mistakes in names, which no single value shows. Takes the plain file, whose other parts may be wrong too."""
    if not isinstance(value, Mapping):
        return
    known = [code for _, code in _texts(value, "destinations", "code")]
    yield from _destination_codes(value)
    yield from _organizations(value)
    yield from _schedule_codes(value)
    for index, schedule in enumerate(_list(value, "schedules")):
        yield from _uses(schedule, "destinations", known, ("schedules", index))
        yield from _uses_of_organizations(value, schedule, ("schedules", index))
    yield from _uses(value, "defaultDestinations", known, ())


def _destination_codes(value: Mapping[str, Any]) -> Iterator[NameMistake]:
    seen: set[str] = set()
    for loc, code in _texts(value, "destinations", "code"):
        if code in seen:
            yield loc, "has the code of an earlier destination; write another code"
        if NO_CHOICE.fullmatch(code):
            yield loc, "has a code that Python keeps for itself; write another code"
        seen.add(code)


def _organizations(value: Mapping[str, Any]) -> Iterator[NameMistake]:
    for field in ("code", "orgId"):
        seen: set[str] = set()
        for loc, text in _texts(value, "organizations", field):
            if text in seen:
                yield loc, f"has the {field} of an earlier organization; write another {field}"
            seen.add(text)


def _uses_of_organizations(value: Mapping[str, Any], schedule: Any, loc: Loc) -> Iterator[NameMistake]:
    """Where there are several, each schedule names its own: one that is added later gets no exports by itself."""
    known = [code for _, code in _texts(value, "organizations", "code")]
    if _list(schedule, "organizations") and not value.get("organizations"):
        yield (*loc, "organizations"), "names organizations, and the file lists none; list them, or leave it out"
    elif len(known) > 1 and isinstance(schedule, Mapping) and not schedule.get("organizations"):
        yield loc, f"has no 'organizations'; write which it exports, such as organizations: [{', '.join(known)}]"
    yield from _uses(schedule, "organizations", known, loc, noun="organization")


def _schedule_codes(value: Mapping[str, Any]) -> Iterator[NameMistake]:
    seen: dict[str, str] = {}
    for loc, code in _texts(value, "schedules", "code"):
        name = dagster_name(code)
        if name in RESERVED:
            yield loc, f"has a code that Dagster keeps for itself; write another code, such as '{name}_export'"
        if code in seen:
            yield loc, "has the code of an earlier schedule; write another code"
        elif name in seen.values():
            earlier = next(other for other in seen if seen[other] == name)
            yield loc, f"is called {name!r} in Dagster, as schedule {earlier!r} is; write another code"
        seen[code] = name


def _uses(owner: Any, field: str, known: list[str], loc: Loc, *, noun: str = "destination") -> Iterator[NameMistake]:
    """Mistakes in the uses of destinations, or organizations: a code that none has, or one used twice."""
    codes = _list(owner, field)
    for index, code in enumerate(codes):
        if not isinstance(code, str):
            continue
        if known and code not in known:
            yield (*loc, field, index), f"names the {noun} {code!r}; {known_names(code, set(known))}"
        elif code in codes[:index]:
            yield (*loc, field, index), f"names the {noun} {code!r} twice; name it once"


def _texts(value: Mapping[str, Any], section: str, field: str) -> list[tuple[Loc, str]]:
    """The field of each item of a section that has it, and where it stands."""
    items = enumerate(_list(value, section))
    found = ((index, item.get(field)) for index, item in items if isinstance(item, Mapping))
    return [((section, index, field), text) for index, text in found if isinstance(text, str)]


def _list(value: Any, field: str) -> list[Any]:
    items = value.get(field) if isinstance(value, Mapping) else None
    return list(items) if isinstance(items, (list, tuple)) else []
