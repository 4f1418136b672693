"""The report of the rows that break a schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from m3ter_dagster.frames.schema import Breach, SchemaBreached
from m3ter_dagster.history.failures import NOTIFICATION
from m3ter_dagster.usage.rows import UsageBreached

_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name) for name in ("row id", "column", "value", "rule")])


def breach_metadata(
    breached: SchemaBreached | UsageBreached, breaches: Sequence[Breach] | None = None
) -> dict[str, Any]:
    shown = breached.breaches if breaches is None else breaches
    return {
        NOTIFICATION: breached.notification,
        "cells that break the schema": breached.total,
        "report": dg.MetadataValue.table([_record(breach) for breach in shown], schema=_SCHEMA),
    }


def _record(breach: Breach) -> dg.TableRecord:
    return dg.TableRecord(
        {"row id": breach.row_id or "", "column": breach.column, "value": breach.value, "rule": breach.rule}
    )
