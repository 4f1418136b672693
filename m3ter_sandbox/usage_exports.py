"""The sample organization's ad-hoc usage exports: jobs that take a while, and files behind addresses that expire."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import BadRequest, Conflict, Forbidden, NotFound

from m3ter_sandbox import catalog
from m3ter_sandbox.access import Clock
from m3ter_sandbox.answers import json_answer
from m3ter_sandbox.organization import SampleOrganization
from m3ter_sandbox.usage import SampleUsage, aggregated_rows, fields_of, raw_rows
from m3ter_sandbox.values import Record, Seed

FILES = "/export-files"
FIXED = ("meter_id", "timestamp", "uid", "ets", "received_at", "account_id")
PARTS = {"MONTH": 1, "WEEK": 2, "DAY": 3, "HOUR": 4}
MOST_QUERIED = 20_000
QUERIED = {
    *("startDate", "endDate", "meterIds", "accountIds", "dimensionFilters"),
    *("aggregations", "groups", "limit"),
}
"""What a usage query takes."""
LIFETIME = 15 * 60.0
"""Of an address, in seconds."""


@dataclass
class Behaviour:
    """What a test may change while the sandbox runs."""

    looks_until_done: int = 2
    """How often a job is looked at before it has succeeded."""
    fails: bool = False
    is_gzip: bool = True
    expired_addresses: int = 0
    """So many of the next addresses have expired before they are used."""
    empty_files: int = 0
    """So many of the next downloads have no byte, or are gzip of none."""


@dataclass
class _Job:
    id: str
    asked: Mapping[str, Any]
    created: str
    looks: int = 0


@dataclass
class UsageExportJobs:
    """To be given to SandboxApi as `further_routes=[jobs.routes()]`."""

    usage: SampleUsage
    meters: Mapping[str, Record]
    clock: Clock
    behaviour: Behaviour = field(default_factory=Behaviour)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _addresses: dict[str, tuple[str, float]] = field(default_factory=dict)

    def routes(self) -> Blueprint:
        routes = Blueprint("usage_exports", __name__)
        routes.add_url_rule("/dataexports/adhoc", "adhoc", self._create, methods=["POST"])
        routes.add_url_rule("/dataexports/jobs/<id>", "export_job", self._look, methods=["GET"])
        routes.add_url_rule("/dataexports/jobs/<id>/getdownloadurl", "address", self._address, methods=["GET"])
        routes.add_url_rule("/usage/query", "usage_query", self._query, methods=["POST"])
        routes.record_once(self._add_files)
        return routes

    def asked(self) -> list[Mapping[str, Any]]:
        """What every job so far was asked for."""
        return [job.asked for job in self._jobs.values()]

    def _add_files(self, state: BlueprintSetupState) -> None:
        """Files are in a store of m3ter's, which asks for no token."""
        state.app.add_url_rule(f"{FILES}/<token>", "export_file", self._file, methods=["GET"])

    def _create(self) -> Response:
        asked = request.get_json()
        if not isinstance(asked, dict) or asked.get("sourceType") != "USAGE":
            raise BadRequest("The sandbox exports sourceType USAGE only.")
        self._check(asked)
        job = _Job(f"job-{len(self._jobs) + 1}", asked, self._now().isoformat())
        self._jobs[job.id] = job
        return json_answer({"jobId": job.id})

    def _query(self) -> Response:
        """The documents do not say how the keys of a row are called; here they are an export's columns."""
        asked = request.get_json()
        if not isinstance(asked, dict):
            raise BadRequest("A usage query is an object.")
        if unknown := sorted(asked.keys() - QUERIED):
            raise BadRequest(f"A usage query takes no {', '.join(unknown)}.")
        self._check(asked)
        limit = asked.get("limit", MOST_QUERIED)
        if type(limit) is not int or not 1 <= limit <= MOST_QUERIED:
            raise BadRequest(f"limit must be an integer from 1 to {MOST_QUERIED}.")
        if asked.get("aggregations") and not any(one["groupType"] == "TIME" for one in asked.get("groups", [])):
            raise BadRequest("The sandbox aggregates over a group of time only.")
        latest = list(self._rows(asked))[::-1]
        return json_answer({"data": latest[:limit], "hasMoreData": len(latest) > limit})

    def _check(self, asked: Mapping[str, Any]) -> None:
        self._check_window(asked)
        if asked.get("groups") and not asked.get("aggregations"):
            raise BadRequest("groups need aggregations.")
        for one in asked.get("meterIds", []):
            if one not in self.meters:
                raise NotFound(f"There is no meter {one}.")

    def _check_window(self, asked: Mapping[str, Any]) -> None:
        try:
            start, end = (datetime.fromisoformat(asked[name]) for name in ("startDate", "endDate"))
        except (KeyError, ValueError, TypeError):
            raise BadRequest("startDate and endDate are both required, as date-times.") from None
        tomorrow = self._now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        if end <= start or end > tomorrow:
            raise BadRequest("endDate must be after startDate, and not after tomorrow at midnight UTC.")

    def _look(self, id: str) -> Response:
        job = self._job(id)
        job.looks += 1
        answer = {"id": id, "version": 1, "sourceType": "USAGE", "dateCreated": job.created}
        return json_answer(answer | {"status": self._status(job)})

    def _status(self, job: _Job) -> str:
        if job.looks <= self.behaviour.looks_until_done:
            return "PENDING" if job.looks == 1 else "RUNNING"
        return "FAILED" if self.behaviour.fails else "SUCCEEDED"

    def _address(self, id: str) -> Response:
        job = self._job(id)
        if self._status(job) != "SUCCEEDED":
            raise Conflict("The job has not succeeded.")
        token, expires = f"file-{len(self._addresses) + 1}", self.clock() + LIFETIME
        if self.behaviour.expired_addresses:
            self.behaviour.expired_addresses -= 1
            expires = self.clock()
        self._addresses[token] = (id, expires)
        expiration = datetime.fromtimestamp(expires, UTC).isoformat()
        return json_answer({"url": f"{request.host_url.rstrip('/')}{FILES}/{token}", "expirationTime": expiration})

    def _file(self, token: str) -> Response:
        id, expires = self._addresses.get(token, ("", 0.0))
        if self.clock() >= expires:
            raise Forbidden("Request has expired")
        is_empty = self.behaviour.empty_files > 0
        self.behaviour.empty_files -= is_empty
        content = b"" if is_empty else self._content(self._jobs[id].asked).encode()
        response = Response(gzip.compress(content, mtime=0) if self.behaviour.is_gzip else content)
        response.set_etag(id)
        response.make_conditional(request, accept_ranges=True, complete_length=len(response.get_data()))
        return response

    def _content(self, asked: Mapping[str, Any]) -> str:
        columns = self._aggregated_columns(asked) if asked.get("aggregations") else self._raw_columns(asked)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows(asked))
        return text.getvalue()

    def _rows(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        measurements = self.usage.measurements(asked)
        if asked.get("aggregations"):
            return aggregated_rows(measurements, asked, self.meters)
        return raw_rows(measurements, self.meters)

    def _raw_columns(self, asked: Mapping[str, Any]) -> list[str]:
        meters = [self.meters[id] for id in asked.get("meterIds") or self.meters]
        fields = [f"{one['name']} (ORIGINAL)" for meter in meters for one in fields_of(meter)]
        return list(dict.fromkeys([*FIXED, *fields]))

    def _aggregated_columns(self, asked: Mapping[str, Any]) -> list[str]:
        kinds = {group["groupType"]: group for group in asked["groups"]}
        names = {(id, one["code"]): one["name"] for id, meter in self.meters.items() for one in fields_of(meter)}
        fields = [f"{names[one['meterId'], one['fieldCode']]} ({one['function']})" for one in asked["aggregations"]]
        accounts = ["account_id"] if "ACCOUNT" in kinds else []
        parts = ["month", "week", "day", "hour"][: PARTS[kinds["TIME"]["frequency"]]]
        return list(dict.fromkeys(["meter_id", "timestamp", "year", *accounts, *fields, *parts]))

    def _job(self, id: str) -> _Job:
        if id not in self._jobs:
            raise NotFound(f"There is no export job {id}.")
        return self._jobs[id]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)


def sample_usage_exports(organization: SampleOrganization, clock: Clock) -> UsageExportJobs:
    seed = Seed(organization.seed)
    meters = [catalog.meter(seed, number) for number in range(catalog.METERS)]
    accounts = [seed.id("account", number) for number in range(organization.accounts)]
    return UsageExportJobs(SampleUsage(seed, meters, accounts), {meter["id"]: meter for meter in meters}, clock)
