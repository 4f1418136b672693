"""Export Schedules that tests have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from m3ter_dagster.config import ExportSchedule

JUNE_1 = datetime(2024, 6, 1, 10, tzinfo=UTC)
NOW = datetime(2024, 7, 15, 8, 30, tzinfo=UTC)


def schedule_of(code: str = "finance", **values: Any) -> ExportSchedule:
    usual: dict[str, Any] = {
        "operational_data_types": ["ACCOUNTS", "BILLS"],
        "destinations": ["warehouse", "archive"],
        "schedule_type": "DAY",
        "period": 5,
        "dt_created": JUNE_1,
    }
    return ExportSchedule(code=code, **usual | values)


FINANCE = schedule_of(name="Finance")
HOURLY = schedule_of("hour-ly", schedule_type="HOUR", period=1, operational_data_types="ALL")
