"""m3ter's own ad-hoc exports of measurements: requested, waited for and downloaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.downloads import download
from m3ter_dagster.m3ter.errors import (
    ExportFileEmpty,
    ExportJobFailed,
    Later,
    M3terError,
    Refused,
    UsageExportInvalid,
    UsageExportRefused,
)
from m3ter_dagster.usage.files import is_blank

_QUERIED = ("startDate", "endDate", "meterIds", "accountIds", "dimensionFilters", "aggregations", "groups")
"""The fields of an export request that a usage query takes as well."""

_REFUSALS: Mapping[int, Callable[[Refused], M3terError]] = {
    400: UsageExportInvalid,
    403: UsageExportRefused,
    404: UsageExportRefused,
    422: UsageExportInvalid,
}
"""What m3ter's refusals to create an export mean."""

T = TypeVar("T")
Clock = Callable[[], float]
Tell = Callable[[str], None]


class _Created(msgspec.Struct):
    jobId: str


class _Job(msgspec.Struct):
    status: str


class _Address(msgspec.Struct):
    url: str


class _Found(msgspec.Struct):
    data: list[msgspec.Raw]
    hasMoreData: bool = False


class UsageExports:
    """The measurements of one Organization. The client's `wait` ends when the run does."""

    def __init__(
        self,
        client: M3terClient,
        *,
        wait: Callable[[float], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._wait = wait or client.wait
        self._clock = clock

    def export(self, body: Mapping[str, Any], to: Path, *, tell: Tell) -> str:
        """Write the measurements to `to` as m3ter sends them, uncompressed, and return the id of m3ter's job.

        The file is empty only if m3ter's usage query finds nothing either: a missing row is a wrong invoice.
        Otherwise it is requested again, in turn from a new address and from a new job.
        """
        limits = self._client.limits
        jobs: list[str] = []
        refusal: Refused | None = None
        for number, pause in enumerate((0.0, *limits.again_after)):
            if number:
                tell(f"The file of m3ter's export job {jobs[-1]} is empty, which may be wrong; asking for it again.")
                self._wait(pause * limits.job_pause_seconds)
            if number % 2 == 0:
                jobs.append(self._create(body))
                self._wait_for(jobs[-1], tell)
            job_id = jobs[-1]
            tell(f"m3ter's export job {job_id} has succeeded; downloading its file.")
            what = f"the file of m3ter's export job {job_id}"
            download(what, partial(self._url, job_id), to, wait=self._wait, limits=limits)
            if not is_blank(to):
                return job_id
            try:
                if not self._has_measurements(body):
                    tell(f"The file of m3ter's export job {job_id} is empty, and m3ter has no measurements there.")
                    return job_id
                refusal = None
            except Refused as refused:
                refusal = refused
        raise ExportFileEmpty(jobs, downloads=1 + len(limits.again_after), refusal=refusal)

    def _has_measurements(self, body: Mapping[str, Any]) -> bool:
        """Whether m3ter's usage query finds measurements; those without the aggregated fields count for neither."""
        content = msgspec.json.encode({name: body[name] for name in _QUERIED if name in body} | {"limit": 1})
        found = self._client.query("/usage/query", content, lambda answer: _read(answer, _Found))
        return bool(found.data) or found.hasMoreData

    def _create(self, body: Mapping[str, Any]) -> str:
        """Create a job. If the answer is lost, a second one may be made, which nobody reads: it has no destination, and
        m3ter deletes its file after a day. Adopting a job that looks like ours would be worse: m3ter does not say
        what a job exports.
        """
        content = msgspec.json.encode(body)
        try:
            return self._client.post("/dataexports/adhoc", content, lambda answer: _read(answer, _Created)).jobId
        except Refused as refusal:
            raise _REFUSALS.get(refusal.status, lambda same: same)(refusal) from None

    def _wait_for(self, job_id: str, tell: Tell) -> None:
        limits = self._client.limits
        started, pause = self._clock(), limits.job_pause_seconds
        path = _job_path(job_id)
        while (status := self._client.get(path, lambda answer: _read(answer, _Job)).status) != "SUCCEEDED":
            seconds = self._clock() - started
            if status == "FAILED":
                raise ExportJobFailed(job_id, f"has failed after {seconds:.0f} s")
            if seconds > limits.job_patience_seconds:
                raise ExportJobFailed(job_id, f"is still {status} after {seconds:.0f} s")
            tell(f"m3ter's export job {job_id} has been {status.lower()} for {seconds:.0f} s.")
            self._wait(pause)
            pause = min(pause * 1.5, limits.longest_job_pause_seconds)

    def _url(self, job_id: str) -> str:
        return self._client.get(f"{_job_path(job_id)}/getdownloadurl", lambda answer: _read(answer, _Address)).url


def _job_path(job_id: str) -> str:
    return f"/dataexports/jobs/{quote(job_id, safe='')}"


def _read(answer: bytes, kind: type[T]) -> T:
    """Read an answer. A body that is cut off or not JSON comes from a proxy, so it is Later."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Later(f"the answer is not what m3ter documents ({error})") from None
