"""Exports that run in this process: a new one, or the rest of one that failed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg

from m3ter_dagster.assets.usage_config import usage_ops
from m3ter_dagster.config import UsageSchedule
from m3ter_dagster.config.usage import RAW_BY_DAY
from m3ter_dagster.dagster_internals import ReconstructableJob, have_all_succeeded, planned_steps, reconstructable_job
from m3ter_dagster.history.heartbeat import report_dead
from m3ter_dagster.history.log import (
    DESTINATIONS_TAG,
    EXPORT_JOB,
    MANIFEST,
    ORGANIZATION_TAG,
    REFERENCES_JOB,
    ROOT_TAG,
    USAGE_MANIFEST,
    NoSuchRun,
    chosen_entities,
    deliveries_of,
    exported,
    is_of,
    planned_assets,
    root_id,
    run_named,
    runs_of,
)
from m3ter_dagster.history.progress import Changed, EntityResult, RunResult, follow
from m3ter_dagster.history.retries import never_retry
from m3ter_dagster.model.entities import operational_entities
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.resources import IO_MANAGER

_REQUEST_TAG = "m3ter/request"
_OWN_TAGS = ("m3ter/", "dagster/partition")


@dataclass(frozen=True)
class UsageRun:
    """The job of a usage schedule, and the config of its asset."""

    job: str
    ops: Mapping[str, Any]


class NothingToResume(Exception):
    """There is nothing to resume; the text says why."""


def export_now(
    instance: dg.DagsterInstance,
    entities: Sequence[str],
    destinations: Sequence[str],
    *,
    verbose: bool,
    changed: Changed,
    tags: Mapping[str, str] | None = None,
    usage: UsageRun | None = None,
    names: Names = DEFAULT,
) -> RunResult:
    """Run the export job for these entities, or the job of a usage schedule, until it ends."""
    result = RunResult({name: EntityResult(name) for name in entities})
    config = _run_config(destinations, verbose=verbose, names=names)
    with _followed(instance, result, changed, names) as request:
        dg.execute_job(
            job_named(usage.job if usage else names.own(_job_of(entities))),
            instance,
            run_config={**config, **({"ops": usage.ops} if usage else {})},
            tags={**(tags or {}), **request, DESTINATIONS_TAG: ",".join(destinations)},
            asset_selection=[*map(names.key, (*entities, USAGE_MANIFEST if usage else MANIFEST))],
        )
    return result


def _job_of(entities: Collection[str]) -> str:
    """The job that has all of these."""
    return EXPORT_JOB if operational_entities().keys() >= set(entities) else REFERENCES_JOB


def usage_run(schedule: UsageSchedule, window: Mapping[str, str], names: Names = DEFAULT) -> UsageRun:
    """The run of a usage schedule; startDate and endDate in `window` replace those of its time period."""
    return UsageRun(names.own(schedule.job_name), usage_ops(schedule, window, names))


def resume(
    instance: dg.DagsterInstance,
    run_id: str,
    *,
    org_id: str | None = None,
    abandoned: bool,
    changed: Changed,
    names: Names = DEFAULT,
) -> RunResult:
    """Run what is missing from the export that `run_id` belongs to, as Dagster's "re-execute from failure" does.

    The export must be one of the Organization (None: of any). `abandoned` says that the process of a run has died
    although Dagster believes it to be running.
    """
    last = _last_run(instance, run_id, org_id, names, abandoned=abandoned)
    root = runs_of(instance, root_id(last))[0].dagster_run
    missing = set(chosen_entities(instance, root, names)) - set(deliveries_of(instance, root.run_id, names=names))
    # Dagster passes tags on only to re-executions that are started from the UI.
    inherited = {name: value for name, value in last.tags.items() if name.startswith(_OWN_TAGS)}
    result = RunResult({name: EntityResult(name) for name in sorted(missing)})
    try:
        with _followed(instance, result, changed, names) as request:
            dg.execute_job(
                # The job of a schedule is gone when that was renamed or removed.
                job_named(last.job_name, otherwise=_assets(instance, root, names)),
                instance,
                run_config={**last.run_config, "loggers": _loggers(verbose=False)},
                tags={**inherited, ROOT_TAG: root_id(last), "dagster/parent_run_id": last.run_id, **request},
                reexecution_options=dg.ReexecutionOptions.from_failure(last.run_id, instance),
            )
    except (dg.DagsterInvalidSubsetError, dg.DagsterExecutionStepNotFoundError):
        raise NothingToResume(
            f"exports.yaml no longer has all that run {last.run_id} exports ({', '.join(sorted(missing))}); "
            f"{RAW_BY_DAY} needs usageRawByDay there."
        ) from None
    except dg.DagsterInvalidConfigError:
        raise NothingToResume(
            f"run {last.run_id} delivers to {last.tags.get(DESTINATIONS_TAG)}, and exports.yaml no longer has all of "
            "these destinations."
        ) from None
    return result


def _last_run(
    instance: dg.DagsterInstance, run_id: str, org_id: str | None, names: Names, *, abandoned: bool
) -> dg.DagsterRun:
    """The last run of the export, which must have failed."""
    try:
        run = run_named(instance, run_id)
    except NoSuchRun as error:
        raise NothingToResume(str(error)) from None
    last = runs_of(instance, root_id(run))[-1].dagster_run
    if not is_of(last, org_id):
        raise NothingToResume(
            f"run {last.run_id} exports the Organization {last.tags[ORGANIZATION_TAG]}, and not {org_id}: name the "
            "right one by --organization or M3TER_ORG_ID."
        )
    if planned_steps(instance, last) and not _assets(instance, last, names):
        raise NothingToResume(
            f"run {last.run_id} exports nothing that exports.yaml has: organizations were written into it, or taken "
            "out, since then. Export again."
        )
    if last.status == dg.DagsterRunStatus.SUCCESS:
        raise NothingToResume(f"run {last.run_id} succeeded, so nothing is missing from this export.")
    if not last.is_finished and abandoned:
        never_retry(instance, last)
        report_dead(instance, last, "The process of this run had died.", "It was abandoned when it was resumed.")
    elif not last.is_finished:
        raise NothingToResume(
            f"run {last.run_id} is still {last.status.value.lower()} as far as Dagster knows. Wait for it, or add "
            "--abandoned if its process has died."
        )
    if have_all_succeeded(instance, last):
        raise NothingToResume(f"all steps of run {last.run_id} succeeded, so nothing is missing from this export.")
    return instance.get_run_by_id(last.run_id) or last


@contextmanager
def _followed(
    instance: dg.DagsterInstance, result: RunResult, changed: Changed, names: Names
) -> Generator[dict[str, str]]:
    """A tag for the run that is executed inside the `with`; by it the run is found and followed to its end."""
    request = {_REQUEST_TAG: str(uuid.uuid4())}
    ended = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="follow") as threads:
        following = threads.submit(follow, instance, request, result, changed, ended, names)
        try:
            yield request
        finally:
            ended.set()
    following.result()  # raises what ended it; whatever ended the run itself comes first


def job_named(name: str, *, otherwise: Collection[dg.AssetKey] = ()) -> ReconstructableJob:
    """A job of this project, or Dagster's own job behind the Materialize button, for a process that executes it.

    `otherwise` are the assets of one that this project may no longer have.
    """
    return reconstructable_job("m3ter_dagster.definitions", "definitions", name, otherwise=otherwise)


def _assets(instance: dg.DagsterInstance, run: dg.DagsterRun, names: Names) -> Collection[dg.AssetKey]:
    return [*map(names.key, planned_assets(instance, run, names) & {*exported(), MANIFEST, USAGE_MANIFEST})]


def _run_config(destinations: Sequence[str], *, verbose: bool, names: Names) -> Mapping[str, Any]:
    return {
        "resources": {names.own(IO_MANAGER): {"config": {"destinations": list(destinations)}}},
        "loggers": _loggers(verbose=verbose),
    }


def _loggers(*, verbose: bool) -> Mapping[str, Any]:
    return {"console": {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}}
