"""The run config of usage exports: what the launchpad asks for, in the field names of m3ter and exports.yaml."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from m3ter_dagster.config import UsageSchedule, UsageSelection
from m3ter_dagster.config.usage import FREQUENCIES
from m3ter_dagster.config.wording import refusals, sentence
from m3ter_dagster.model.time_periods import Window, window_of
from m3ter_dagster.names import DEFAULT, Names

Filters = list[dict[str, Any]]


class MeasurementsConfig(dg.Config):
    """Which measurements to export; by default, those of all meters and accounts."""

    meterIds: list[str] = Field(default=[], description="Left out: all meters.")
    accountIds: list[str] = Field(default=[], description="Left out: all accounts.")
    dimensionFilters: Filters = Field(default=[], description="Each with meterId, fieldCode and values.")


class RawConfig(MeasurementsConfig):
    timePeriod: str = Field(default="YESTERDAY", description="Relative to the moment the export is due, UTC.")
    startDate: str | None = Field(default=None, description="Instead of the time period's start, such as 2024-06-01.")
    endDate: str | None = Field(default=None, description="Instead of the time period's end; it is not in the export.")


class AggregatedConfig(RawConfig):
    aggregationFrequency: str = Field(default="DAY", description=f"{', '.join(FREQUENCIES)}.")
    aggregations: Filters = Field(
        default=[], description="Each with meterId, fieldCode and function. Left out: the SUM of every measure."
    )
    groups: Filters = Field(default=[], description="Such as {groupType: ACCOUNT}.")


class UnusableConfig(dg.Failure):
    def __init__(self, reason: str) -> None:
        super().__init__(sentence(f"the config of the run {reason}"), allow_retries=False)


def usage_ops(
    schedule: UsageSchedule, window: Mapping[str, str] = MappingProxyType({}), names: Names = DEFAULT
) -> dict[str, Any]:
    """The config of the schedule's asset; its window is relative to the run's due time unless it is given."""
    (asset,) = schedule.asset_names
    chosen = schedule.selection
    if schedule.is_raw:
        del chosen["aggregationFrequency"]
    return {names.step(asset): {"config": {**chosen, **window}}}


def selection_of(config: MeasurementsConfig) -> UsageSelection:
    """The selection in a run's config. UnusableConfig says what is wrong with it, as errors in exports.yaml would."""
    given = {"timePeriod": "YESTERDAY", **config.model_dump()}
    chosen = {name: value for name, value in given.items() if name not in ("startDate", "endDate") and value != []}
    try:
        return UsageSelection.model_validate(chosen, by_alias=True, by_name=False)
    except ValidationError as error:
        raise UnusableConfig("; ".join(one.words for one in refusals(error, UsageSelection))) from None


def window_in(config: RawConfig, due: datetime) -> Window:
    """The window from startDate to endDate; the time period stands in for one that is left out."""
    try:
        usual = window_of(selection_of(config).time_period, due)
        start, end = _moment(config.startDate, usual.start), _moment(config.endDate, usual.end)
        return Window(start, end)
    except (OverflowError, ValueError) as error:
        raise UnusableConfig(f"has no window: {error}") from None


def _moment(text: str | None, usual: datetime) -> datetime:
    """The time that `text` gives, or the usual one. A date means midnight, and a time without a zone is in UTC."""
    if not text:
        return usual
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
