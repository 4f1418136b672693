"""The project's code location, but schedules may be due each minute: days in a test of minutes."""

from __future__ import annotations

import os
from datetime import timedelta

import dagster as dg

from m3ter_dagster.config import exports_text, load_settings, parse_exports
from m3ter_dagster.definitions import build_definitions


@dg.definitions
def definitions() -> dg.Definitions:
    exports = parse_exports(exports_text(), environ=os.environ, shortest_period=timedelta(minutes=1))
    ours = build_definitions(exports, load_settings())
    return dg.Definitions.merge(ours, dg.Definitions(executor=dg.in_process_executor))
