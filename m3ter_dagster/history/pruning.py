"""Old exports: which may go, and how their runs are removed from Dagster and their keys files from destinations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import dagster as dg
import msgspec

from m3ter_dagster.config.names import PRUNE_HISTORY
from m3ter_dagster.config.usage import RAW_BY_DAY
from m3ter_dagster.dagster_internals import delete_run, log_files
from m3ter_dagster.delivery.destinations import Destinations, UnknownDestination
from m3ter_dagster.delivery.store import NotRemoved
from m3ter_dagster.history.log import (
    MANIFEST,
    ORGANIZATION_TAG,
    USAGE_MANIFEST,
    chosen_entities,
    deliveries_of,
    exported,
    is_of,
    last_delivery,
    manifests,
    root_id,
    run_records,
    schedule_of,
)
from m3ter_dagster.history.record import StoredObject
from m3ter_dagster.names import DEFAULT, Names

_REQUESTS_AT_ONCE = 16

Keys = tuple[StoredObject, ...]


class OldExport(msgspec.Struct, frozen=True, rename="camel"):
    """An export that nothing needs any more."""

    id: str
    schedule: str | None
    """PRUNE_HISTORY for an earlier run of the job that removes them."""
    runs: tuple[str, ...]
    began: datetime
    log_bytes: int
    """Of the files on this machine that hold only its logs."""
    keys: Keys
    """Its keys files: all that it delivered and that is no data."""


class Old(msgspec.Struct, frozen=True, rename="camel"):
    exports: Sequence[OldExport]
    needed: int
    """The number of exports that are as old and must stay."""


class Left(msgspec.Struct, frozen=True, rename="camel"):
    """A keys file that is still there."""

    reason: tuple[str, str]
    """The same for all files of which the same must be done."""
    words: str
    is_final: bool
    """Whether it stays for good: exports.yaml no longer has its destination."""


class Removed(msgspec.Struct, frozen=True, rename="camel"):
    """What was removed: keys files, and the runs of the exports whose keys files all destinations removed."""

    exports: int
    runs: int
    keys: int
    stay: int
    """The number of exports that were not removed."""
    left: Sequence[str]
    """What is to be done about keys files that are still there: one line for each thing, not for each file."""


def old_exports(
    instance: dg.DagsterInstance,
    before: datetime,
    *,
    org_id: str | None = None,
    with_keys: bool = True,
    names: Names = DEFAULT,
) -> Old:
    """The exports of the Organization (None: of any) that began before this moment, if all their runs did.

    Needed are: the last whole export of each schedule, and by hand; the last with keys of each entity; the last
    delivery of each asset, which `load_input` reads; and what has not ended. Runs of other assets are left alone, and
    those of `usage_raw_by_day`: only from them is it known that a day was delivered.
    """
    runs: dict[str, list[dg.DagsterRun]] = defaultdict(list)
    began: dict[str, datetime] = {}
    for record in run_records(instance, dg.RunsFilter(created_before=before)):
        if not is_of(record.dagster_run, org_id) or _is_of_several(record.dagster_run):
            continue
        runs[root_id(record.dagster_run)].append(record.dagster_run)
        began[root_id(record.dagster_run)] = record.create_timestamp
    keys, needed = _keys_and_needed(instance, names)
    needed |= {one.export for name in exported() if (one := last_delivery(instance, name, org_id, names=names))}
    needed |= {root_id(one.dagster_run) for one in run_records(instance, dg.RunsFilter(created_after=before))}
    found, stay = [], 0
    for id, of_export in runs.items():
        if not _is_export(instance, of_export, names):
            continue
        if id in needed or not all(run.is_finished for run in of_export):
            stay += 1
            continue
        files = (keys[id] if id in keys else _delivered_keys(instance, id, of_export[0], names)) if with_keys else ()
        found.append(
            OldExport(
                id=id,
                schedule=_schedule(of_export, names),
                runs=tuple(run.run_id for run in of_export),
                began=began[id],
                log_bytes=sum(file.stat().st_size for run in of_export for file in log_files(instance, run.run_id)),
                keys=files,
            )
        )
    return Old(found, stay)


def remove(instance: dg.DagsterInstance, exports: Sequence[OldExport], destinations: Destinations) -> Removed:
    """Remove the keys files of each export, then its runs.

    When a destination refuses, that export and those after it stay for the next attempt: what is refused once would be
    refused thousands of times.
    """
    gone, keys, left = list[OldExport](), 0, list[Left]()
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        for export in exports:
            answers = list(pool.map(lambda one: _remove_file(one, destinations), export.keys))
            kept = [answer for answer in answers if answer]
            keys += len(answers) - len(kept)
            left += kept
            if not all(one.is_final for one in kept):
                break
            for run_id in export.runs:
                delete_run(instance, run_id)
            gone.append(export)
    return Removed(
        exports=sum(one.schedule != PRUNE_HISTORY for one in gone),
        runs=sum(len(one.runs) for one in gone),
        keys=keys,
        stay=len(exports) - len(gone),
        left=tuple({one.reason: one.words for one in left}.values()),
    )


def _keys_and_needed(instance: dg.DagsterInstance, names: Names) -> tuple[Mapping[str, Keys], set[str]]:
    """The keys files of each whole export, and the ids of the exports that the next ones are compared with."""
    keys: dict[str, Keys] = defaultdict(tuple)
    last: dict[tuple[str, ...], str] = {}
    for manifest in (MANIFEST, USAGE_MANIFEST):
        for whole in manifests(instance, manifest, names=names):
            last.setdefault((manifest, whole.org_id, "schedule", whole.schedule or ""), whole.export)
            for name, part in whole.entities.items():
                keys[whole.export] += part.keys
                if part.keys:
                    last.setdefault((manifest, whole.org_id, "entity", name), whole.export)
    return {id: tuple(dict.fromkeys(found)) for id, found in keys.items()}, set(last.values())


def _delivered_keys(instance: dg.DagsterInstance, id: str, last: dg.DagsterRun, names: Names) -> Keys:
    return tuple(one for delivery in deliveries_of(instance, id, last, names).values() for one in delivery.keys)


def _is_of_several(run: dg.DagsterRun) -> bool:
    """Whether the run exports several Organizations: none of them knows what the others still need of it."""
    return "," in run.tags.get(ORGANIZATION_TAG, "")


def _is_export(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun], names: Names) -> bool:
    if _schedule(runs, names) == PRUNE_HISTORY:
        return True
    chosen = {name for run in runs for name in chosen_entities(instance, run, names)}
    return bool(chosen) and RAW_BY_DAY not in chosen


def _schedule(runs: Sequence[dg.DagsterRun], names: Names) -> str | None:
    tagged = (schedule_of(run, names) for run in runs)
    return next(filter(None, tagged), PRUNE_HISTORY if runs[0].job_name == names.own(PRUNE_HISTORY) else None)


def _remove_file(one: StoredObject, destinations: Destinations) -> Left | None:
    try:
        destinations.remove(one.destination, one.uri)
    except NotRemoved as error:
        return Left((one.destination, error.refusal.code), str(error), is_final=False)
    except UnknownDestination as error:
        return Left((one.destination, ""), f"keys files stay in {one.destination!r}: {error}", is_final=True)
    return None
