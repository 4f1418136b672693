"""The project's code location, but schedules may be due each minute: days in a test of minutes."""

from __future__ import annotations

import os
from datetime import timedelta
from multiprocessing import set_forkserver_preload
from multiprocessing.context import ForkServerProcess, SpawnProcess

import dagster as dg

from m3ter_dagster.config import exports_text, load_settings, parse_exports
from m3ter_dagster.definitions import build_definitions

# Dagster's code server starts a Python for each run, which would import everything again: most of the CPU time of an
# export of nothing. They are forked from a process that has imported it.
set_forkserver_preload(["dagster._cli", "m3ter_dagster.definitions"])
SpawnProcess._Popen = staticmethod(ForkServerProcess._Popen)  # ty: ignore[invalid-assignment]


@dg.definitions
def definitions() -> dg.Definitions:
    exports = parse_exports(exports_text(), environ=os.environ, shortest_period=timedelta(minutes=1))
    ours = build_definitions(exports, load_settings())
    return dg.Definitions.merge(ours, dg.Definitions(executor=dg.in_process_executor))
