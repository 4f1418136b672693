"""The bucket of an Export Destination at Google Cloud Storage, through Google's own client (extra `gcs`)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from m3ter_dagster.delivery.fingerprints import PART_SIZE, Fingerprint
from m3ter_dagster.delivery.store import (
    NotRemoved,
    NotStored,
    ObjectMissing,
    ObjectTooLarge,
    ObjectUnreadable,
    Refusal,
    Stat,
    Stored,
    StoreFailed,
    parts_of,
)

if TYPE_CHECKING:
    from m3ter_dagster.config import GcsDestination

SCHEME = "gs://"
GOOGLE = "https://storage.googleapis.com"
CONSOLE = "https://console.cloud.google.com/storage/browser/_details"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and without a byte of an answer."""
SECONDS_PER_ATTEMPT = 3.0
"""Google's client tries a request again for a time, and not so often."""
DELAYS = {"initial": 0.25, "maximum": 5.0}
"""Seconds between attempts."""
LIBRARIES = ("google", "requests", "urllib3")
"""Whose errors are those of the store."""
LONGEST_WORDS = 300
CHUNK_BYTES = 1 << 20

EXTRA = "install what destinations at Google Cloud Storage need: pip install 'm3ter-dagster[gcs]'"
CREDENTIALS = (
    "no Google credentials were found, or they are not accepted: run 'gcloud auth application-default login', set "
    "GOOGLE_APPLICATION_CREDENTIALS, or run where Google gives a service account"
)
NO_BUCKET = "create the bucket {bucket!r}, or correct bucketName of the destination"
MISSING = "there is no such object"
LATER = "the store is failing or overloaded: run the export again later"
ADVICE = {
    400: "the store does not understand the request: correct bucketName and prefix of the destination",
    401: CREDENTIALS,
    403: "allow the credentials in use storage.objects.create, get, list and delete in the bucket {bucket!r}",
    404: MISSING,
    412: "another delivery of the same file came in between: run the export again",
}
"""By the status of the store's answer."""
PASSING = (408, 412, 429)
ADVICE_BY_CLASS = {
    "ModuleNotFoundError": EXTRA,
    "DataCorruption": "the object was altered in the store or on the way from it: deliver it again",
    "Timeout": "the store does not answer: see to the network, and run the export again later",
    "ConnectionError": "the store cannot be reached: see to the network, its proxy and TLS, and run the export later",
    "TransportError": "Google's token service cannot be reached: see to the network, and run the export again later",
    "GoogleAuthError": CREDENTIALS,
}
"""By the nearest class of the error."""
PERMANENT = (EXTRA, CREDENTIALS)


class GcsStore:
    """A bucket at Google Cloud Storage, where an object appears once it is whole."""

    def __init__(self, destination: GcsDestination, *, max_attempts: int) -> None:
        self._destination = destination
        self._max_attempts = max_attempts
        self._client: Any = None
        self._building = Lock()

    def __repr__(self) -> str:
        return f"GcsStore({self._destination.bucket_name})"

    def put(self, file: Path, key: str, *, sent: Fingerprint, content_type: str) -> Stored:
        """The store also compares the CRC32C that it is sent; here it is read back."""
        with self._failing(NotStored, key):
            self._open()
            sha256, crc32c = _sums(file)
            if sha256 != sent.sha256:
                raise self._altered(key, f"the file now has the sha256 {sha256} and had {sent.sha256} before")
            found = self._upload(file, key, crc32c, content_type)
            if (found.size, found.crc32c) != (sent.bytes, crc32c):
                found.delete(if_generation_match=found.generation, **self._options)
                difference = f"the object has the CRC32C {found.crc32c} and the file {crc32c}; it was removed"
                raise self._altered(key, f"{difference}; look for a proxy that alters what it is sent")
            return Stored(self._uri(key), sent.bytes, sent.sha256, found.etag)

    def probe(self, key: str) -> None:
        """An upload is begun, which needs what a whole one needs. The store forgets it after a week, at no cost."""
        with self._failing(NotStored, key):
            self._blob(key).create_resumable_upload_session(content_type="text/plain", size=1, **self._options)

    def fetch(self, where: str, to: Path) -> None:
        """Google's client compares the CRC32C; a download that breaks off is continued."""
        part = to.with_name(f".{to.name}.part")
        try:
            with self._failing(ObjectUnreadable, where):
                self._blob(where).download_to_filename(str(part), **self._options)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)

    def read(self, where: str, *, at_most: int) -> bytes:
        size = self.stat(where).bytes
        if size > at_most:
            raise ObjectTooLarge(self._destination.code, self._uri(where), size, at_most=at_most)
        with self._failing(ObjectUnreadable, where):
            return self._blob(where).download_as_bytes(**self._options)

    def stat(self, where: str) -> Stat:
        with self._failing(ObjectUnreadable, where):
            blob = self._blob(where)
            blob.reload(**self._options)
        return Stat(blob.size, blob.etag)

    def uris(self, prefix: str) -> list[str]:
        bucket, key = parts_of(self._uri(prefix))
        with self._failing(ObjectUnreadable, prefix):
            listed = self._open().list_blobs(bucket, prefix=key, fields="items(name),nextPageToken", **self._options)
            return [f"{SCHEME}{bucket}/{one.name}" for one in listed]

    def folders(self, prefix: str) -> list[str]:
        bucket, key = parts_of(self._uri(prefix))
        with self._failing(ObjectUnreadable, prefix):
            pages = self._open().list_blobs(bucket, prefix=key, delimiter="/", **self._options).pages
            return [f"{SCHEME}{bucket}/{one}" for page in pages for one in page.prefixes]

    def remove(self, where: str) -> None:
        with self._failing(NotRemoved, where):
            blob = self._blob(where)
            from google.api_core.exceptions import NotFound

            try:
                blob.delete(**self._options)
            except NotFound:
                if self._has_no_bucket(where):
                    raise

    def page(self, where: str) -> str | None:
        """Its page in Google's console; an emulator has none."""
        bucket, key = parts_of(self._uri(where))
        return f"{CONSOLE}/{bucket}/{quote(key)}" if self._open().api_endpoint == GOOGLE else None

    def explain(self, error: Exception, where: str) -> Refusal:
        error, uri = _answered(error), self._uri(where)
        status = getattr(error, "code", None)
        names = [one.__name__ for one in type(error).__mro__]
        advice = next((ADVICE_BY_CLASS[name] for name in names if name in ADVICE_BY_CLASS), "")
        if isinstance(status, int):
            advice = NO_BUCKET if status == 404 and self._has_no_bucket(where) else ADVICE.get(status, LATER)
            is_permanent = 400 <= status < 500 and status not in PASSING
        else:
            is_permanent = advice in PERMANENT and not getattr(error, "retryable", False)
        said = _words(error)
        if not advice:
            advice, said = (LATER, said) if _is_of_the_store(error) else (said.rstrip("."), "")
        worded = advice.replace("{bucket!r}", repr(parts_of(uri)[0]))
        return Refusal(self._destination.code, uri, type(error).__name__, worded, said, is_permanent)

    def _upload(self, file: Path, key: str, crc32c: str, content_type: str) -> Any:
        """Upload as a new object or, where one stands already, in the place of that one alone; what then stands there.

        An object that is the file already stays: the reply to an earlier attempt was lost, or it was delivered before,
        perhaps to a bucket that keeps what it has.
        """
        from google.api_core.exceptions import PreconditionFailed

        generation = 0
        while True:
            blob = self._blob(key)
            blob.chunk_size, blob.crc32c = PART_SIZE, crc32c
            try:
                blob.upload_from_filename(
                    str(file),
                    content_type=content_type,
                    checksum=None,  # the one of the fingerprinted file is sent, not of what is read now
                    if_generation_match=generation,
                    **self._options,
                )
                blob.reload(**self._options)
                return blob
            except PreconditionFailed:
                there = blob.bucket.get_blob(blob.name, **self._options)
                if there and there.crc32c == crc32c:
                    return there
                if generation or not there:
                    raise
                generation = there.generation

    def _altered(self, key: str, difference: str) -> NotStored:
        return NotStored(Refusal(self._destination.code, self._uri(key), "Altered", difference))

    @property
    def _options(self) -> dict[str, Any]:
        """How long each request may take, and for how long it is tried again."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        retry = DEFAULT_RETRY.with_delay(**DELAYS).with_timeout(SECONDS_PER_ATTEMPT * self._max_attempts)
        return {"timeout": TIMEOUT, "retry": retry if self._max_attempts > 1 else None}

    def _open(self) -> Any:
        """The client, built once. Its import takes a second, so only a process that talks to the store pays for it."""
        with self._building:
            if self._client is None:
                from google.cloud.storage import Client

                self._client = Client(project=None, credentials=self._credentials())
            return self._client

    def _credentials(self) -> Any:
        """Those of the service account to act as; None: those that the client finds by itself."""
        email = self._destination.service_account_email
        if email is None:
            return None
        import google.auth
        from google.auth.impersonated_credentials import Credentials

        source, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        return Credentials(source_credentials=source, target_principal=email, target_scopes=[SCOPE])

    def _blob(self, where: str) -> Any:
        bucket, key = parts_of(self._uri(where))
        return self._open().bucket(bucket).blob(key)

    def _uri(self, where: str) -> str:
        return where if where.startswith(SCHEME) else f"{SCHEME}{self._destination.bucket_name}/{where}"

    def _has_no_bucket(self, where: str) -> bool:
        """The store's status is the same for an object and for a bucket that it does not find."""
        try:
            next(iter(self._open().list_blobs(parts_of(self._uri(where))[0], max_results=1, **self._options)), None)
        except Exception as error:
            return getattr(error, "code", None) == 404
        return False

    @contextmanager
    def _failing(self, failure: type[StoreFailed], where: str) -> Generator[None]:
        """What the store's client raises, as the failure of the store."""
        try:
            yield
        except Exception as error:
            if not _is_of_the_store(error):
                raise
            why = self.explain(error, where)
            if failure is not ObjectUnreadable:
                raise failure(why) from error
            if why.advice == MISSING:
                raise ObjectMissing(why, f"there is no object {why.uri}") from error
            said = f" The store says: {why.store_says!r}" if why.store_says else ""
            raise ObjectUnreadable(why, f"{why.uri}: {why.code}: {why.advice}.{said}") from error


def _is_of_the_store(error: Exception) -> bool:
    return isinstance(error, ModuleNotFoundError) or type(error).__module__.partition(".")[0] in LIBRARIES


def _answered(error: Any) -> Any:
    """The error that says what the store answered, where a request was tried until the time was up."""
    error = getattr(error, "cause", None) or error
    if type(error).__name__ != "InvalidResponse":
        return error
    from google.api_core.exceptions import from_http_response

    return from_http_response(error.response)


def _words(error: Exception) -> str:
    """What the store's answer says, rather than what the client makes of it: that has the address of the upload."""
    words = str(error)
    if isinstance(getattr(error, "code", None), int) and (answer := getattr(error, "response", None)) is not None:
        try:
            words = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            words = answer.text
    return " ".join(words.split())[:LONGEST_WORDS]


def _sums(file: Path) -> tuple[str, str]:
    """The sha256 and, as the store writes it, the CRC32C of the file."""
    from google_crc32c import Checksum

    sha256, crc32c = hashlib.sha256(), Checksum()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            sha256.update(chunk)
            crc32c.update(chunk)
    return sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode()
