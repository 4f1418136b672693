"""m3ter-dagster check --connect: whether m3ter, every destination and the webhook do what an export asks of them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import click
import msgspec

from m3ter_dagster.alarms.webhook import NotTaken, Webhook
from m3ter_dagster.cli.terminal import print_table, printable
from m3ter_dagster.config import Destination, Exports, ExportSchedule, M3terSettings, Notifications, UsageSchedule
from m3ter_dagster.delivery.destinations import store_of
from m3ter_dagster.delivery.fingerprints import fingerprint
from m3ter_dagster.delivery.store import NotRemoved, StoreFailed
from m3ter_dagster.m3ter.client import M3terClient, open_client
from m3ter_dagster.m3ter.data_exports import SCHEDULES, DataExportUnavailable
from m3ter_dagster.m3ter.errors import CredentialsRefused, M3terError, Refused, Unavailable
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Listing
from m3ter_dagster.model.exports import probe_key
from m3ter_dagster.temporary_folder import TemporaryFolder

WORKS, FAILS, NOT_ASKED = "works", "FAILS", "not asked"
PATIENCE_SECONDS = 5.0
MAX_ATTEMPTS = 3
"""Few, because a person is waiting."""
CONTENT = b"Written by m3ter-dagster check --connect, which removes it again. No part of any export.\n"
MESSAGE = "m3ter-dagster check --notify: a test. Notifications of exports come here."


@dataclass(frozen=True)
class Connection:
    """What was tried, and what came of it."""

    what: str
    result: str
    words: str = ""
    """What a person should know about it or do; none where all is well."""

    @property
    def fails(self) -> bool:
        return self.result == FAILS


def connections(settings: M3terSettings, exports: Exports, *, notify: bool) -> list[Connection]:
    """Try everything."""
    if notify and exports.notifications is None:
        raise click.UsageError("--notify: exports.yaml has no notifications.")
    return [
        *_of_m3ter(settings, exports),
        *(_of_destination(one, settings.org_id) for one in exports.destinations),
        *(_of_webhook(exports.notifications) if notify and exports.notifications else ()),
    ]


def print_connections(found: Sequence[Connection]) -> None:
    print_table(("connection", "result"), ((one.what, one.result) for one in found))
    for one in found:
        if one.words:
            click.echo(f"\n{one.what}: {printable(' '.join(one.words.split()))}")


def _of_m3ter(settings: M3terSettings, exports: Exports) -> Iterator[Connection]:
    """Each list; after a refusal of the credentials, or without an answer, no other."""
    hasty = {"patience_seconds": PATIENCE_SECONDS, "rate_limit_patience_seconds": PATIENCE_SECONDS}
    client = open_client(settings.model_copy(update=hasty), stop=threading.Event())
    asks = [(f"m3ter, {', '.join(names)}", listing) for listing, names in _lists(exports).items()]
    if any(isinstance(one, UsageSchedule) for one in exports.schedules):
        asks.append(("m3ter, its export service", SCHEDULES))
    for what, listing in asks:
        try:
            of_parent = _of_a_parent(client, listing)
            if of_parent is None:
                yield Connection(what, NOT_ASKED, f"the Organization has no {listing.parent} to ask for.")
                continue
            _first_id(client, of_parent)
            yield Connection(what, WORKS)
        except (CredentialsRefused, Unavailable) as error:
            yield Connection("m3ter", FAILS, str(error))
            return
        except M3terError as error:
            is_service = isinstance(error, Refused) and listing is SCHEDULES
            yield Connection(what, FAILS, str(DataExportUnavailable(client.org_id, error) if is_service else error))


def _lists(exports: Exports) -> dict[Listing, list[str]]:
    """The lists that the schedules read, each with its entities; without schedules, those of ALL."""
    names = {name for one in exports.schedules if isinstance(one, ExportSchedule) for name in one.asset_names}
    if any(isinstance(one, UsageSchedule) for one in exports.schedules):
        names |= {"account", "meter"}  # by which measurements are checked
    found: dict[Listing, list[str]] = defaultdict(list)
    for name, entity in entities().items():
        if name in names or not (exports.schedules or entity.is_reference):
            found[entity.listing].append(name)
    return found


def _of_a_parent(client: M3terClient, listing: Listing) -> Listing | None:
    """The list itself or, where there is one per parent, that of the first parent."""
    if not listing.for_each:
        return listing
    parent = _first_id(client, entities()[listing.for_each.entity].listing)
    return listing.of_parent(parent) if parent else None


def _first_id(client: M3terClient, listing: Listing) -> str | None:
    """The id of the first record of a list, of which no more is asked for."""
    page = next(client.pages(replace(listing, page_size=1)))
    try:
        records = msgspec.json.decode(page.rows, type=list[dict[str, object]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise M3terError(f"{listing.path} lists what is no record ({error}); ask m3ter's support about it.") from None
    return str(records[0]["id"]) if records and "id" in records[0] else None


def _of_destination(destination: Destination, org_id: str) -> Connection:
    what = f"destination {destination.code}"
    store, key = store_of(destination, max_attempts=MAX_ATTEMPTS), probe_key(org_id, destination.prefix)
    with TemporaryFolder() as folder:
        file = folder / "check.txt"
        file.write_bytes(CONTENT)
        try:
            uri = store.put(file, key, sent=fingerprint(file), content_type="text/plain; charset=utf-8").uri
            store.read(uri, at_most=len(CONTENT))
            store.remove(uri)
        except NotRemoved as error:
            return Connection(
                what, WORKS, f"{uri} stays there, harmlessly. To have it removed, {error.refusal.advice}."
            )
        except StoreFailed as error:
            return Connection(what, FAILS, str(error.refusal))
    return Connection(what, WORKS)


def _of_webhook(notifications: Notifications) -> Iterator[Connection]:
    try:
        Webhook(notifications.webhook_url).post(MESSAGE)
        yield Connection("webhook", WORKS, "it took a message")
    except NotTaken as error:
        yield Connection("webhook", FAILS, str(error))
