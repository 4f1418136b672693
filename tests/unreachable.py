"""What Dagster's daemon sees while the code server is restarted."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

LOCATION = "m3ter_dagster"


@contextmanager
def unreachable_workspace(instance: dg.DagsterInstance) -> Generator[WorkspaceProcessContext]:
    """Its code location is at a port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        target = GrpcServerTarget(host="127.0.0.1", port=taken.getsockname()[1], socket=None, location_name=LOCATION)
        with (
            pytest.warns(UserWarning, match="Error loading repository location"),
            WorkspaceProcessContext(instance, target) as workspace,
        ):
            yield workspace
