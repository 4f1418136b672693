"""The Dagster resource that reads the m3ter Organization: entities and measurements, by one client."""

import threading
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace

import dagster as dg
from pydantic import PrivateAttr

from m3ter_dagster import telemetry
from m3ter_dagster.config import Settings, UsageSelection
from m3ter_dagster.config.usage import USAGE_ASSETS
from m3ter_dagster.frames.ledgers import Summary
from m3ter_dagster.history.progress import UnderWay
from m3ter_dagster.m3ter.client import M3terClient, open_client
from m3ter_dagster.m3ter.errors import M3terError
from m3ter_dagster.m3ter.traffic import Traffic
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.model.time_periods import Window
from m3ter_dagster.reading.past import Past
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.reading.reading import Reading
from m3ter_dagster.reading.summaries import summaries
from m3ter_dagster.temporary_folder import TemporaryFolder
from m3ter_dagster.usage.reader import UsageReader, UsageReading


@dataclass(frozen=True)
class _Session:
    """What is open from the first request of a process to its last."""

    client: M3terClient
    folder: TemporaryFolder
    reader: OrganizationReader
    usage: UsageReader
    past: Past
    steps: Set[str]

    def close(self) -> None:
        self.reader.close()
        self.folder.close()


class Organization(dg.ConfigurableResource):
    """Reads one m3ter Organization with one token and at one pace, whatever is requested.

    `steps` are those that run in this process, by the names of their assets. The first call begins to read what they
    all need, side by side, so each list is read once per process; under an executor with a process per step that is
    one step's.
    """

    settings: dg.ResourceDependency[Settings]
    _session: _Session | None = PrivateAttr(None)

    @property
    def id(self) -> str:
        return self.settings.connection().org_id

    def read(
        self,
        entity: Entity,
        *,
        steps: Set[str],
        waiting: Callable[[str], None],
        find_past: Callable[[], Past] = Past,
    ) -> Reading:
        """The whole entity. ConfigError, SchemaBreached, EntityUnreadable say why there is none.

        The first call finds the exports before this one.
        """
        session = self._open(steps, find_past)
        return session.reader.read(session.past.read(entity), waiting=waiting)

    def already_read(self, entity: Entity) -> Reading | None:
        """The entity as this process has read it for an export, and not only to compare; starts no reading."""
        session = self._session
        return session.reader.already_read(entity) if session and entity.name in session.steps else None

    def under_way(self) -> UnderWay:
        """How far this process is with what it reads."""
        session = self._session
        if session is None:
            return UnderWay()
        found = session.reader.so_far()
        return UnderWay(
            rows={name: rows for name, (rows, _) in found.items()},
            requests={name: requests for name, (_, requests) in found.items()},
            silent_seconds=session.client.silent_seconds,
        )

    def traffic(self) -> Traffic:
        """What this process has asked m3ter for the run so far."""
        return self._session.client.traffic if self._session else Traffic()

    def has(self, name: str, ids: Sequence[str]) -> Collection[str] | None:
        """Which records of an entity m3ter has; None if this process has not read from it, or it does not say."""
        session = self._session
        try:
            return session.reader.has(entities()[name], ids) if session else None
        except M3terError:
            return None

    def summaries(self, balances: Iterable[str]) -> Mapping[str, Summary]:
        """m3ter's summaries of the transactions of these balances, a request each. M3terError, ConfigError."""
        return summaries(self._open(frozenset(), Past).client, balances)

    def measure(
        self,
        asset: str,
        selection: UsageSelection,
        window: Window,
        *,
        steps: Set[str],
        tell: Callable[[str], None],
        find_past: Callable[[], Past] = Past,
    ) -> UsageReading:
        """The measurements of a window. ConfigError, M3terError and SchemaBreached say why there are none.

        The first call finds the exports before this one, for the entities of the same run.
        """
        return self._open(steps, find_past).usage.read(asset, selection, window, tell=tell)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["Organization"]:
        """Around all steps of a process, which run in the thread of this resource: they are within its span."""
        run = context.run.run_id if context.run else None
        with telemetry.span("m3ter.export", organization=self.settings.org_id, run=run) as span:
            with super().yield_for_execution(context) as resource:
                yield resource
            asked = self.traffic()
            span.set(requests=asked.requests, retries=asked.tried_again, bytes=asked.bytes)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._session:
            if context.log:
                context.log.info(str(self._session.client.traffic))
            self._session.close()

    def _open(self, steps: Set[str], find_past: Callable[[], Past]) -> _Session:
        """The session, opened when the first entity is requested: before that, another resource may refuse the run."""
        if self._session is None:
            stop = threading.Event()
            client = open_client(self.settings.connection(), stop=stop, pace_folder=self.settings.pace_folder)
            past = find_past()
            past = replace(past, reused={name: one for name, one in past.reused.items() if name in steps})
            folder = TemporaryFolder()
            reader = OrganizationReader(client, folder.path, stop=stop)
            self._session = _Session(client, folder, reader, UsageReader(client, reader, folder.path), past, steps)
            parents = {entities()[name].listing.parent for name in past.reused}
            chosen = [past.read(one) for name, one in entities().items() if name in steps or name in parents]
            measured = bool(steps & {*USAGE_ASSETS})
            reader.start(chosen, UsageReader.needs(chosen) if measured else (), past=past)
        return self._session
