"""A PostgreSQL server of the tests' own, on a socket in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A connection to it; the test is skipped where there is none."""
    programs = postgres_programs()
    with tempfile.TemporaryDirectory(prefix="m3ter-postgres-") as folder:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        data = f"{folder}/data"
        run_as_postgres([programs / "initdb", "-D", data, "-U", "reader", "-A", "trust", "-E", "UTF8", "-N"], folder)
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        start = [programs / "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start"]
        run_as_postgres(start, folder)
        try:
            with closing(psycopg2.connect(host=folder, user="reader", dbname="postgres")) as connection:
                yield connection
        finally:
            run_as_postgres([programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"], folder)


def new_database(server: Any) -> str:
    """The address, for Dagster, of an empty database beside that of the connection."""
    at, name = server.info, f"d{uuid.uuid4().hex}"
    address = f"postgresql+psycopg2://{at.user}@/{{}}?host={at.host}"
    admin = sqlalchemy.create_engine(address.format(at.dbname), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return address.format(name)


def postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("there is no PostgreSQL server in /usr/lib/postgresql; install Debian's postgresql to run this")
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no system user postgres")
    return found[-1].parent


def run_as_postgres(command: Sequence[Path | str], folder: str) -> None:
    """PostgreSQL refuses root."""
    user = "postgres" if os.getuid() == 0 else None
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, user=user, group=user, cwd=folder, stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{arguments[0]} ended with {done.returncode}"
