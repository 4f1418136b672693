"""The system that a story happens to: servers, exports.yaml, Dagster's records, its daemon, and processes of runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import dagster as dg
import time_machine

from m3ter_dagster.dagster_internals import open_instance_for_a_terminal
from m3ter_dagster.history.log import SCHEDULE_TAG, root_id
from m3ter_dagster.temporary_folder import PREFIX
from m3ter_sandbox import SandboxS3
from m3ter_sandbox.loopback import LoopbackServer
from simulation import processes, store
from simulation.daemon import Daemon
from simulation.due_times import DueTimes, Schedule
from simulation.fates import Fate
from simulation.faults import Gate
from simulation.invariants import Invariants, Violated, Window
from simulation.organization import Organization
from simulation.processes import Launcher, Work
from simulation.speed import quick_records

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BEGIN = datetime(2024, 5, 6, 7, 30, tzinfo=UTC)
"""In the past, since SQLite notes by the machine's own clock when a run was made."""
BUCKETS = {"warehouse": "simulated-warehouse", "archive": "simulated-archive"}
PROJECT = Path(__file__).parents[1]
LAUNCHER = f"""
run_launcher:
  module: {Launcher.__module__}
  class: {Launcher.__name__}
"""
EXPORTS = """\
destinations:
  - code: warehouse
    bucketName: {warehouse}
    prefix: m3ter
    endpointUrl: {store}
  - code: archive
    bucketName: {archive}
    partitionOrder: TYPE_FIRST
    endpointUrl: {store}
notifications:
  webhookUrl: {webhook}
schedules:"""
BROKEN = "  - code: [\n"
SECONDS_BETWEEN_STEPS = 95
"""So many, and each sensor looks again."""


class Webhook:
    """Keeps the messages that are sent to it, those as well that it does not take while it is down."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.is_down = False
        self.server = LoopbackServer(self._take)

    def _take(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.texts.append(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode())
        start("410 Gone" if self.is_down else "200 OK", [("Content-Length", "2")])
        return [b"ok"]


@dataclass
class System:
    home: Path
    clock: time_machine.Traveller
    organization: Organization
    api: Gate
    store: Gate
    store_url: str
    webhook: Webhook
    instance: dg.DagsterInstance
    daemon: Daemon | None = None
    schedules: Sequence[Schedule] = ()
    is_broken: bool = False
    """Whether exports.yaml is; then the schedules are those that were loaded last."""
    is_loaded: bool = False
    """Whether a daemon has loaded these schedules: what no one has loaded is not gone on with."""
    off: set[str] = field(default_factory=set)
    """The codes of the schedules that are switched off."""
    due_times: DueTimes = field(default_factory=DueTimes)

    def __post_init__(self) -> None:
        self._known: dict[str, Schedule] = {}
        """Each schedule that there ever was, as it was last, by its code."""
        self.invariants = Invariants(self.instance, self.organization, self.due_times, BUCKETS)

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def find_runs(self) -> list[dg.DagsterRun]:
        """Oldest first."""
        runs = [record.dagster_run for record in self.instance.get_run_records(ascending=True)]
        for run in runs:
            # By the file as it is when the run is first seen.
            self.invariants.expect(self._known[run.tags[SCHEDULE_TAG]], root_id(run))
        return runs

    def why(self, run_id: str) -> str:
        """The failures that the run's log tells of."""
        events = (entry.dagster_event for entry in self.instance.all_logs(run_id))
        return "; ".join(
            str(event.event_specific_data or event.message) for event in events if event and event.is_failure
        )

    def move_to(self, moment: datetime) -> None:
        self.clock.move_to(max(moment, self.now + timedelta(seconds=SECONDS_BETWEEN_STEPS)))

    def write_exports(self, schedules: Sequence[Schedule], *, broken: bool = False) -> None:
        """The daemon, if there is one, sees it at once."""
        self.schedules, self.is_broken = schedules, broken
        self._known |= {one.code: one for one in schedules}
        head = EXPORTS.format(store=self.store_url, webhook=self.webhook.server.url, **BUCKETS)
        text = "".join((head, *(one.yaml() for one in schedules), BROKEN if broken else ""))
        (self.home / "exports.yaml").write_text(text, encoding="utf-8")
        self.is_loaded = broken or self.daemon is not None
        if self.daemon:
            self.daemon.reload()

    def start_daemon(self) -> None:
        self.daemon = self.daemon or Daemon(self.instance)
        self.is_loaded = True

    def stop_daemon(self) -> None:
        if self.daemon:
            self.daemon.close()
        self.daemon = None

    def switch(self, code: str, *, on: bool) -> bool:
        """Whether there is such a schedule to be switched, and a daemon."""
        if not self.daemon or code not in {one.code for one in self.schedules}:
            return False
        self.daemon.switch(code, on=on)
        (self.off.discard if on else self.off.add)(code)
        return True

    def repair(self) -> None:
        """Nothing is down, broken or switched off any more."""
        self.api.down = self.store.down = None
        self.webhook.is_down = False
        if self.is_broken:
            self.write_exports(self.schedules)
        self.start_daemon()
        for code in sorted(self.off):
            self.switch(code, on=True)

    def look(self, *, is_restarted: bool = False) -> list[str]:
        """One look of the daemon; returns the runs that it has launched, none while the code server is restarted."""
        if self.daemon is None:
            return []
        if not self.daemon.has_loaded:
            raise Violated("the daemon does not go on with the last exports.yaml that could be loaded")
        self.due_times.look(self.schedules, self.now, self.off)
        self.daemon.look(is_restarted=is_restarted)
        launcher = self.instance.run_launcher
        assert isinstance(launcher, Launcher)
        return launcher.take()

    def execute(self, work: Work, export: str, fate: Fate) -> bool:
        """Whether the process died. It is one of this export."""
        self.api.plan(fate.api)
        self.store.plan(fate.s3)
        first = self.organization.moment
        log = self.home / "processes.log"
        process = processes.start(work, self.home, self.clock, dies_at_event=fate.dies_at_event, log=log)
        self.api.process = self.store.process = process
        has_died = processes.ended(process)
        self.invariants.process_ended(export, Window(first, self.organization.moment))
        if not has_died and self.api.requests and (left := self._temporary_folders()):
            raise Violated(f"{left} were left behind by processes that have ended")
        return has_died

    def untold(self, runs: Sequence[dg.DagsterRun]) -> list[str]:
        """The exports of whose failures the daemon has still to tell."""
        return self.invariants.untold(runs, self.webhook.texts) if self.daemon else []

    def check(self) -> None:
        if self.daemon:
            self.invariants.step_ended(self.webhook.texts, self.daemon.jobs(), self.now)
            self.invariants.next_due_times_are_right(self.schedules, self.daemon.descriptions())

    def _temporary_folders(self) -> list[str]:
        return [path.name for path in (self.home / "tmp").iterdir() if path.name.startswith(PREFIX)]


@contextmanager
def open_system() -> Generator[System]:
    """A new one at the beginning of the month, whose daemon is not running yet."""
    with ExitStack() as stack:
        stack.enter_context(quick_records())
        stack.enter_context(store.small_parts())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="m3ter-simulation-", dir=_memory())))
        (home / "tmp").mkdir()
        (home / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text(encoding="utf-8") + LAUNCHER)
        clock = stack.enter_context(time_machine.travel(BEGIN, tick=True))
        organization, webhook = Organization(BEGIN - timedelta(days=30)), Webhook()
        api = Gate(organization.api.app.wsgi_app)
        stack.enter_context(patch.object(organization.api.app, "wsgi_app", api))
        gates: list[Gate] = []
        s3 = SandboxS3(tuple(BUCKETS.values()), around=lambda application: gates.append(Gate(application)) or gates[0])
        for server in (organization.api, s3, webhook.server):
            stack.enter_context(server)
        _set_environment(home, {**organization.api.environment, **s3.environment})
        instance = stack.enter_context(open_instance_for_a_terminal(home))
        system = System(home, clock, organization, api, gates[0], s3.endpoint_url, webhook, instance)
        try:
            yield system
        finally:
            system.api.down = system.store.down = None
            system.stop_daemon()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _set_environment(home: Path, servers: dict[str, str]) -> None:
    os.environ |= {
        **servers,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "DAGSTER_HOME": str(home),
        "M3TER_EXPORTS": str(home / "exports.yaml"),
        "M3TER_PATIENCE_SECONDS": "10",
        "M3TER_REQUESTS_PER_SECOND": "50",
        "TMPDIR": str(home / "tmp"),
    }
    tempfile.tempdir = str(home / "tmp")
