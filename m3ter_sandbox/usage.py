"""The sample organization's measurements: any window of them, always the same, without keeping any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from m3ter_sandbox.values import Record, Seed, date_time

DAY = timedelta(days=1)
REGIONS = ("EU", "US, east", 'the "rest"', "")
NUMERIC = ("MEASURE", "INCOME", "COST")
Key = tuple[Any, ...]
FUNCTIONS: Mapping[str, Callable[[list[Any]], Any]] = {
    "SUM": sum,
    "MIN": min,
    "MAX": max,
    "COUNT": len,
    "LATEST": lambda values: values[-1],
    "MEAN": lambda values: sum(values) / len(values),
    "UNIQUE": lambda values: len(set(values)),
}
BUCKETS: Mapping[str, Callable[[datetime], datetime]] = {
    "HOUR": lambda moment: moment.replace(minute=0, second=0, microsecond=0),
    "DAY": lambda moment: _midnight(moment),
    "WEEK": lambda moment: _midnight(moment) - moment.weekday() * DAY,
    "MONTH": lambda moment: _midnight(moment).replace(day=1),
}


class SampleUsage:
    """Measurements of these meters and accounts; the last meter never has any."""

    def __init__(self, seed: Seed, meters: Sequence[Record], accounts: Sequence[str], *, per_day: int = 12) -> None:
        self._seed = seed
        self._meters = list(meters)
        self._accounts = list(accounts)
        self._per_day = per_day

    def measurements(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What m3ter's request for an ad-hoc export selects, in the order of time."""
        start, end = (datetime.fromisoformat(asked[name]) for name in ("startDate", "endDate"))
        day = _midnight(start.astimezone(UTC))
        while day < end:
            for one in sorted(self._of_day(day), key=lambda one: (one["timestamp"], one["uid"])):
                if start <= one["timestamp"] < end and _is_selected(one, asked):
                    yield one
            day += DAY

    def _of_day(self, day: datetime) -> Iterator[dict[str, Any]]:
        for number, meter in enumerate(self._meters[:-1]):
            random = self._seed.random("usage", day.toordinal(), number)
            for index in range(self._per_day):
                moment = day + timedelta(milliseconds=int(random.random() * 86_400_000))
                yield {
                    "meter_id": meter["id"],
                    "timestamp": moment,
                    "uid": self._seed.id("measurement", day.toordinal(), number, index),
                    "ets": date_time(moment + timedelta(minutes=5)) if index % 3 else "",
                    "received_at": date_time(moment + timedelta(seconds=2)),
                    "account_id": self._accounts[int(random.random() * len(self._accounts))],
                    "fields": {field["code"]: _value(field, random.random()) for field in fields_of(meter)},
                }


def fields_of(meter: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*meter["dataFields"], *meter["derivedFields"]]


def raw_rows(measurements: Iterator[dict[str, Any]], meters: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """As m3ter's file has them: a column per field of the meters."""
    for one in measurements:
        names = {field["code"]: f"{field['name']} (ORIGINAL)" for field in fields_of(meters[one["meter_id"]])}
        fixed = {name: value for name, value in one.items() if name != "fields"}
        fields = {names[code]: value for code, value in one["fields"].items()}
        yield {**fixed, "timestamp": date_time(one["timestamp"]), **fields}


def aggregated_rows(
    measurements: Iterator[dict[str, Any]], asked: Mapping[str, Any], meters: Mapping[str, Record]
) -> Iterator[dict[str, Any]]:
    """The same, aggregated over time."""
    kinds = {group["groupType"]: group for group in asked.get("groups", [])}
    bucket_of, has_accounts = BUCKETS[kinds["TIME"]["frequency"]], "ACCOUNT" in kinds
    buckets: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for one in measurements:
        account = one["account_id"] if has_accounts else None
        buckets[(one["meter_id"], bucket_of(one["timestamp"]), account)].append(one)
    for (meter_id, bucket, account), members in buckets.items():
        row = {"meter_id": meter_id, "timestamp": date_time(bucket), "year": f"{bucket:%Y}"}
        row |= {"account_id": account} if has_accounts else {}
        for aggregation in asked["aggregations"]:
            if aggregation["meterId"] == meter_id:
                row |= _aggregated(aggregation, members, meters[meter_id])
        yield row | {"month": f"{bucket:%m}", "week": f"{bucket:%V}", "day": f"{bucket:%d}", "hour": f"{bucket:%H}"}


def _aggregated(aggregation: Mapping[str, Any], members: list[dict[str, Any]], meter: Record) -> dict[str, Any]:
    code, function = aggregation["fieldCode"], aggregation["function"]
    name = next(field["name"] for field in fields_of(meter) if field["code"] == code)
    return {f"{name} ({function})": FUNCTIONS[function]([one["fields"][code] for one in members])}


def _is_selected(one: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    for name, key in (("meterIds", "meter_id"), ("accountIds", "account_id")):
        if asked.get(name) and one[key] not in asked[name]:
            return False
    filters = [one_ for one_ in asked.get("dimensionFilters", []) if one_["meterId"] == one["meter_id"]]
    return all(one["fields"][each["fieldCode"]] in each["values"] for each in filters)


def _value(field: Mapping[str, Any], draw: float) -> Any:
    return round(draw * 1000, 3) if field["category"] in NUMERIC else REGIONS[int(draw * len(REGIONS))]


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
