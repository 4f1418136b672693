"""What can go wrong between this project and m3ter's API, worded for the person who reads it.

M3terError
├── Later                 the answer says "later"; retried, and raised only inside this package
├── Unavailable           m3ter said "later" for too long
├── Refused               a permanent answer: bad request, no permission, not found
├── Untrusted             whoever answers has no certificate that is trusted here
├── CredentialsRefused    no token for this key and secret
├── CursorExpired         a list cannot be continued from where it was; it can be read again
├── CursorStuck           a list leads back to a page that was read already
├── UnknownMeters         measurements of meters that the Organization does not have
├── UsageExportRefused    m3ter's export service is not there for this Organization or service user
├── UsageExportInvalid    what a usage export asks for is not what m3ter can give
├── ExportJobFailed       m3ter could not make a requested export, or not in time
├── ExportFileEmpty       m3ter's file has neither header nor rows, and it is not certain that there are none
├── DownloadFailed        the file of an export could not be fetched whole
└── Interrupted           the run is being stopped
"""

from __future__ import annotations

from collections.abc import Sequence

_ADVICE = {
    400: "m3ter changed what this list accepts, or M3TER_BASE_URL is not m3ter's; report it with this message.",
    401: "Check M3TER_API_KEY and M3TER_API_SECRET.",
    403: "Give the service user of M3TER_API_KEY permission to read it, and check M3TER_ORG_ID.",
    404: "Check M3TER_BASE_URL and M3TER_ORG_ID.",
    413: "A single row is larger than m3ter can answer; ask m3ter's support.",
}


_QUOTED = 200


def quoted(answer: bytes) -> str:
    """The start of an answer that m3ter does not document. Anything like JSON may be rows, and is not quoted."""
    text = answer[:_QUOTED].decode("utf-8", "replace").strip()
    if not text.startswith("<") and any(mark in text for mark in '{["'):
        return f"{len(answer)} bytes that look like JSON"
    return text


class M3terError(Exception):
    """Reading from m3ter failed."""

    passes = False
    """Whether the same may succeed later although nobody corrects anything."""


class Later(M3terError):
    """The request is worth repeating, after `retry_after` seconds if the answer says so."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


class Unavailable(M3terError):
    passes = True

    def __init__(self, request: str, *, tries: int, reason: str) -> None:
        super().__init__(
            f"{request} failed {tries} times, last because {reason}. "
            "m3ter or the network between is unavailable; re-execute from failure when it is back."
        )


class Untrusted(M3terError):
    def __init__(self, request: str, why: str) -> None:
        super().__init__(
            f"{request} was not sent, because the certificate of its host is not trusted: {why}. Check M3TER_BASE_URL. "
            "Where your network has a proxy that looks into TLS, set SSL_CERT_FILE to a file with its certificate, too."
        )


class Refused(M3terError):
    def __init__(self, request: str, *, status: int, message: str) -> None:
        self.status = status
        self.message = message
        advice = _ADVICE.get(status, "m3ter does not accept this request; report it with this message.")
        super().__init__(f"{_refused(request, status, message)} {advice}")


class CredentialsRefused(M3terError):
    def __init__(self, request: str, *, status: int, message: str) -> None:
        super().__init__(
            f"{_refused(request, status, message)} "
            "m3ter gives no token for M3TER_API_KEY and M3TER_API_SECRET: check both, and that the key is still active."
        )


class CursorExpired(M3terError):
    def __init__(self, refusal: Refused) -> None:
        super().__init__(f"The list cannot be continued: {refusal}")


class CursorStuck(M3terError):
    def __init__(self, request: str) -> None:
        super().__init__(
            f"{request} answered a nextToken that was followed already, so the list would never end. "
            "Nothing of it is exported; report it to m3ter's support with this message."
        )


class UnknownMeters(M3terError):
    def __init__(self, what: str, ids: Sequence[str]) -> None:
        super().__init__(
            f"The Organization has no {what} {', '.join(map(repr, ids))}; correct the usage schedule (or the run's "
            "config): the meters of the Organization and their fields are in the export of METERS."
        )


class UsageExportRefused(M3terError):
    def __init__(self, refusal: Refused) -> None:
        super().__init__(
            "m3ter accepts no usage export: its Data Export service is not enabled for this Organization, or the "
            f"service user of M3TER_API_KEY may not use it. Ask m3ter's support to enable it.\n{refusal}"
        )


class UsageExportInvalid(M3terError):
    def __init__(self, refusal: Refused) -> None:
        super().__init__(
            f"m3ter does not accept this usage export: {refusal.message or f'status {refusal.status}'}. Correct the "
            "usage schedule (or the run's config): its accounts must be those of the Organization, filters and groups "
            "name fields of text, aggregations the right fieldType, and the window ends by tomorrow 00:00 UTC."
        )


class ExportJobFailed(M3terError):
    passes = True

    def __init__(self, job_id: str, what: str) -> None:
        super().__init__(
            f"m3ter's export job {job_id} {what}. m3ter says no more about it (Data exports > Export jobs in the "
            "Console); re-execute from failure, which starts a new job, or ask m3ter's support."
        )


class ExportFileEmpty(M3terError):
    """m3ter's file is empty, and a usage query contradicts it or, if there is a `refusal`, could not be made."""

    def __init__(self, job_ids: Sequence[str], *, downloads: int, refusal: Refused | None = None) -> None:
        jobs = f"job{'s' if len(job_ids) > 1 else ''} {' and '.join(job_ids)}"
        self.passes = refusal is None
        found = f"m3ter's export {jobs} succeeded with an empty file, without even a header (downloads: {downloads})"
        if refusal:
            super().__init__(
                f"{found}, and whether the window really has no measurements cannot be confirmed: {refusal} Nothing "
                "is delivered, since rows could be missing. Re-execute from failure once m3ter answers that query."
            )
        else:
            super().__init__(
                f"{found}, although m3ter's usage query finds measurements for the same window, meters, accounts and "
                "filters. Nothing is delivered, since rows would be missing. Re-execute from failure, which starts a "
                "new job; if its file is empty too, report it to m3ter's support with this message."
            )


class DownloadFailed(M3terError):
    """A file could not be fetched. Addresses of files are secrets, so none is shown."""

    passes = True

    def __init__(self, what: str, *, tries: int, reason: str) -> None:
        super().__init__(
            f"{what} could not be downloaded, {tries} times without getting any further, last because {reason}. "
            "Re-execute from failure, which asks m3ter for a new one."
        )


class Interrupted(M3terError):
    def __init__(self) -> None:
        super().__init__("Reading was stopped because the run is ending.")


def _refused(request: str, status: int, message: str) -> str:
    """A sentence, whether or not m3ter's message is one."""
    return f"{request} was refused with status {status}: {message.rstrip('.') or 'no message'}."
