"""What the tests share: S3 stores, Dagster instances, an environment without this machine's AWS settings."""

from __future__ import annotations

import gc
import inspect
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import botocore.hooks
import botocore.session
import dagster as dg
import pytest
import sqlalchemy
import stores
from alembic.script import ScriptDirectory
from botocore.hooks import EventAliaser
from botocore.loaders import create_loader
from dagster._core.storage.event_log import in_memory as events_in_memory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs import in_memory as runs_in_memory
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from deliveries import MARK, ROWS
from hypothesis import settings
from postgres import postgres_server
from sqlalchemy.pool import QueuePool
from starts import starts_a_server
from stores import Key, Store
from werkzeug.routing import Rule

from m3ter_dagster import definitions
from m3ter_dagster.dagster_internals import open_instance_for_a_terminal
from m3ter_sandbox import SandboxS3

# Of each property a few examples, for the person who is working; `make test` looks at all.
settings.register_profile("fast", max_examples=20, deadline=None)

NewInstance = Callable[[Path], AbstractContextManager[dg.DagsterInstance]]
STARTUP = Path(__file__).parent / "startup"
MEMORY = Path("/dev/shm")
ENOUGH_MEMORY = 4_000_000_000
LONGEST = ("test_schedules_daemon.py", "test_ui.py", "test_faults.py", "test_kills.py")
"""Files that wait for a clock, a browser, a fault or a process; the others use the time."""
HEAVIEST = (
    "test_reuse.py",
    "test_changes_files.py",
    "test_verification.py",
    "test_formats.py",
    "test_export.py",
    "test_usage_export.py",
    "test_deleted_rows.py",
    "test_checks.py",
)
"""Files that take longest after those."""
SAME_DEFINITIONS = (
    "source_assets",
    "operational_assets",
    "export_manifest",
    "usage_assets",
    "usage_manifest",
    "cross_entity_checks",
    "usage_asset_checks",
)
FIRST_WORKER = "gw0"
"""It has the first of them, which lasts as long as all others: whoever works for it is never kept waiting by them."""


# Where it is installed, jsonschema makes 39 grammars of IRIs at its import, a second of CPU time; nobody checks an IRI.
sys.modules.setdefault("rfc3987_syntax", cast(ModuleType, None))


def pytest_configure() -> None:
    """Temporary files are kept in memory where there is room: Dagster's SQLite waits for the disk at each event.

    What is imported lives until the end, so to look for garbage there would only cost time, a tenth of all.
    """
    gc.disable()
    if os.environ.get("PYTEST_XDIST_WORKER", FIRST_WORKER) != FIRST_WORKER:
        os.nice(5)
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_MEMORY:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server or another program; put long files first, so that no process ends alone with one."""
    for item in items:
        if starts_a_server(item):
            item.add_marker("servers")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    order = {name: place for place, name in enumerate((*LONGEST, *HEAVIEST))}
    items.sort(key=lambda item: (order.get(item.path.name, len(order)), item.path not in slow))


def pytest_collection_finish() -> None:
    """Programs that the tests start find startup/sitecustomize.py; pytest's own processes were started before."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(STARTUP), os.environ.get("PYTHONPATH"))))
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def pytest_sessionfinish() -> None:
    """At its end pytest looks for garbage five times, a second of CPU time in each of its processes."""
    gc.collect()
    gc.freeze()
    gc.disable()


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[None]:
    """What libraries would read again for each of the many clients and databases of a session, and never changes.

    Each session of botocore parses the megabyte of JSON that describes AWS, unless it is given a loader. Dagster has a
    database for each run and loads its 90 migrations for each, a tenth of the CPU time of a small export. Werkzeug
    compiles for each route of a sandbox how its address would be written, four fifths of its start; nobody asks that.
    Of the definitions, which tests build for destinations and schedules of their own, assets and checks are mostly the
    same.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        for part in SAME_DEFINITIONS:
            monkeypatch.setattr(definitions, part, built_once(getattr(definitions, part)))
        share_clients_hooks(monkeypatch)
        monkeypatch.setattr(Rule, "_compile_builder", lambda *_: _addresses_are_not_written)
        monkeypatch.setattr(botocore.session, "create_loader", cache(create_loader))
        monkeypatch.setattr(ScriptDirectory, "from_config", cache(ScriptDirectory.from_config))
        share_engines(monkeypatch)
        keep_memory_open(monkeypatch)
        yield


def share_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster makes an engine for each look into a file of SQLite, and each would compile every statement anew.

    That is a third of the CPU time of a small run. They keep no connection, so one of a file may be used again, and
    those of all files have the statements of the first.
    """
    first = sqlalchemy.create_engine("sqlite://")
    first.connect().close()  # then its dialect knows SQLite's version
    engines: dict[str, sqlalchemy.Engine] = {}
    init = sqlalchemy.Engine.__init__

    def share(engine: sqlalchemy.Engine, pool: Any, dialect: Any, *arguments: Any, **options: Any) -> None:
        is_same = type(dialect) is type(first.dialect)
        init(engine, pool, first.dialect if is_same else dialect, *arguments, **options)
        if is_same:
            engine._compiled_cache = first._compiled_cache

    def engine_of(url: str, **options: Any) -> sqlalchemy.Engine:
        if url not in engines:
            engines[url] = sqlalchemy.create_engine(url, **options)
        return engines[url]

    monkeypatch.setattr(sqlalchemy.Engine, "__init__", share)
    for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        monkeypatch.setattr(module, "create_engine", engine_of)


def keep_memory_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance in memory would connect anew for each of the 600 statements of a small run."""

    def engine_of(url: str, **_: Any) -> sqlalchemy.Engine:
        return sqlalchemy.create_engine(url, poolclass=QueuePool, connect_args={"check_same_thread": False})

    for module in (events_in_memory, runs_in_memory):
        monkeypatch.setattr(module, "create_engine", engine_of)


def share_clients_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client of boto3 has 130 hooks, and looks for aliases of their events and at their signatures."""
    shared: dict[str, str] = {}
    init = EventAliaser.__init__

    def share(aliaser: EventAliaser, *arguments: Any, **options: Any) -> None:
        init(aliaser, *arguments, **options)
        aliaser._alias_name_cache = shared

    def accepts_kwargs(hook: Any) -> bool:
        has_code = hasattr(hook, "__code__")
        return bool(hook.__code__.co_flags & inspect.CO_VARKEYWORDS if has_code else inspect.getfullargspec(hook)[2])

    monkeypatch.setattr(EventAliaser, "__init__", share)
    monkeypatch.setattr(botocore.hooks, "accepts_kwargs", accepts_kwargs)


def built_once(build: Callable[..., Any]) -> Callable[..., Any]:
    """What it has built for the same arguments, which are kept, so that what is written of one is of no other."""
    built: dict[str, tuple[object, Any]] = {}

    def found(*arguments: Any, **options: Any) -> Any:
        given = repr((arguments, options))
        if given not in built:
            built[given] = ((arguments, options), build(*arguments, **options))
        return built[given][1]

    return found


def _addresses_are_not_written(*_: object, **_values: object) -> tuple[str, str]:
    raise NotImplementedError


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME with its tables, for copies: to make them takes ten times as long."""
    empty = tmp_path_factory.mktemp("empty_home")
    (empty / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with open_instance_for_a_terminal(empty):
        pass
    return empty


@pytest.fixture(scope="session")
def new_instance(empty_home: Path) -> NewInstance:
    """Opens an instance as a terminal does, in a new folder of the one that it is given."""

    @contextmanager
    def opened(folder: Path) -> Generator[dg.DagsterInstance]:
        home = shutil.copytree(empty_home, folder / "dagster")
        with pytest.MonkeyPatch.context() as monkeypatch, open_instance_for_a_terminal(home) as instance:
            monkeypatch.setenv("DAGSTER_HOME", str(home))
            yield instance

    return opened


@pytest.fixture
def instance(new_instance: NewInstance, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance of the test's own, on disk, so that one run finds another."""
    with new_instance(tmp_path) as instance:
        yield instance


@pytest.fixture(scope="session")
def moto_store() -> Iterator[Store]:
    """Moto's S3, IAM and STS with authentication on."""
    with stores.moto_store() as store:
        yield store


@pytest.fixture(scope="session")
def rclone_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Rclone's S3 over a folder, with strict signatures."""
    with stores.rclone_store(tmp_path_factory.mktemp("rclone")) as store:
        yield store


@pytest.fixture(scope="session")
def gcs_address() -> Iterator[str]:
    with stores.gcs_store() as address:
        yield address


@pytest.fixture
def gcs(gcs_address: str, monkeypatch: pytest.MonkeyPatch, no_proxy: None) -> Any:  # noqa: ARG001
    """A client that may do everything at an empty Google Cloud Storage, where the environment's clients go, too."""
    from google.cloud.storage import Client

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_address)
    return Client(project="none")


@pytest.fixture(params=["moto", "rclone"])
def s3_store(request: pytest.FixtureRequest) -> Store:
    """Each store in turn: what holds for one must hold for all."""
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def no_aws_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's AWS environment is seen, neither variables, files nor an instance's role."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def aws_key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Key], None]:
    """Puts a key of a store into the environment, where boto3 finds it, and nothing else of AWS."""
    request.getfixturevalue("no_aws_settings")

    def set_key(key: Key) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret)

    return set_key


@pytest.fixture
def s3_bucket(s3_store: Store, aws_key: Callable[[Key], None]) -> str:
    """An empty bucket of each store in turn, with the exporter's key in the environment."""
    aws_key(s3_store.exporter)
    return s3_store.new_bucket()


@pytest.fixture
def moto_bucket(moto_store: Store, aws_key: Callable[[Key], None]) -> str:
    """An empty bucket of moto, with the exporter's key in the environment."""
    aws_key(moto_store.exporter)
    return moto_store.new_bucket()


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that hypothesis runs many times."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def bill_file(tmp_path: Path) -> Path:
    path = tmp_path / "bill.csv"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def large_bill_file(tmp_path: Path) -> Path:
    """34 MB, which are three parts."""
    path = tmp_path / "bill.csv"
    path.write_bytes(MARK + random.Random(7).randbytes(34_000_000))
    return path


@pytest.fixture(scope="module")
def s3() -> Iterator[SandboxS3]:
    with SandboxS3() as s3:
        yield s3


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    """A connection to a PostgreSQL server of the module's own."""
    with postgres_server() as connection:
        yield connection


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
