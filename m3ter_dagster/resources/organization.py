"""The Dagster resource that reads entities of the Organization."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import dagster as dg

from m3ter_dagster.config import M3terSettings, executor, load_m3ter_settings
from m3ter_dagster.dagster_internals import planned_steps
from m3ter_dagster.m3ter.client import open_client
from m3ter_dagster.model.entities import Entity, entities
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.reading.reading import Reading


class Organization:
    """Reads the m3ter Organization of the M3TER_* environment variables, `chosen` ahead of being asked for."""

    def __init__(self, chosen: Sequence[Entity] = ()) -> None:
        self._chosen = chosen
        self._reader: OrganizationReader | None = None
        self._folder: Path | None = None

    def read(self, entity: Entity, *, waiting: Callable[[str], None]) -> Reading:
        """The whole entity. ConfigError, SchemaBreached, EntityUnreadable say why there is none."""
        if self._reader is None:
            settings = load_m3ter_settings()
            self._folder = Path(tempfile.mkdtemp(prefix="m3ter-"))
            self._reader = _reader(settings, self._folder)
            self._reader.start(self._chosen)
        return self._reader.read(entity, waiting=waiting)

    def already_read(self, entity: Entity) -> Reading | None:
        """The entity as this process has read it; starts no reading."""
        return self._reader.already_read(entity) if self._reader else None

    def close(self) -> None:
        if self._reader:
            self._reader.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


@dg.resource(description="Reads the m3ter Organization. Where all steps share a process, all entities are read ahead.")
def organization_resource(context: dg.InitResourceContext) -> Generator[Organization]:
    """Nothing is read before the first entity is asked for: another resource may refuse the run."""
    reads_ahead = executor() == "in_process" and context.run and context.instance
    steps = planned_steps(context.instance, context.run) if reads_ahead else set()
    organization = Organization([entity for name, entity in entities().items() if name in steps])
    try:
        yield organization
    finally:
        organization.close()


def _reader(settings: M3terSettings, folder: Path) -> OrganizationReader:
    stop = threading.Event()
    return OrganizationReader(open_client(settings, stop=stop), folder, stop=stop)
