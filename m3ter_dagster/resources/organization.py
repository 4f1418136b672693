"""The Dagster resource that reads entities of the Organization."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from m3ter_dagster.config import M3terSettings, executor, load_m3ter_settings
from m3ter_dagster.entities import Entity, entities
from m3ter_dagster.resources.m3ter import M3terClient
from m3ter_dagster.resources.m3ter_http import Credentials
from m3ter_dagster.resources.organization_reader import OrganizationReader
from m3ter_dagster.resources.reading import Reading


class Organization(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Reads the m3ter Organization of the M3TER_* environment variables.

    Where all steps run in one process, the first entity that is asked for starts the reading of all that the run
    exports.
    """

    _chosen: list[Entity] = PrivateAttr(default_factory=list)
    _reader: OrganizationReader | None = PrivateAttr(None)
    _folder: Path | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        steps = context.run.step_keys_to_execute if context.run else None
        reads_ahead = executor() == "in_process"
        self._chosen = [entities()[step] for step in steps or [] if step in entities()] if reads_ahead else []

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

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        if self._reader:
            self._reader.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._reader = self._folder = None


def _reader(settings: M3terSettings, folder: Path) -> OrganizationReader:
    stop = threading.Event()
    credentials = Credentials(settings.api_key.get_secret_value(), settings.api_secret.get_secret_value())
    pace = settings.requests_per_second
    client = M3terClient(settings.base_url, settings.org_id, credentials, per_second=pace, stop=stop)
    return OrganizationReader(client, folder, stop=stop)
