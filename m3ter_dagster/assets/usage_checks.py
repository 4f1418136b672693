"""The checks of exported measurements."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import dagster as dg

from m3ter_dagster.assets.entity_checks import Result, breach_metadata, not_checked
from m3ter_dagster.config.usage import AGGREGATED, RAW
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.history.log import last_deliveries
from m3ter_dagster.history.record import Delivery
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.usage.columns import TIME, UID
from m3ter_dagster.usage.reader import UsageReading

SCHEMA, UNIQUE, WINDOW, SUMS = "schema", "uid", "window", "sums_equal_raw"
METERS, ACCOUNTS, COLUMNS = "meters", "accounts", "columns"
_BLOCKING = {
    SCHEMA: "Every cell fits the type of its column.",
    UNIQUE: "Every measurement has a uid, and no other has it.",
    WINDOW: "Every timestamp lies in the window of the export.",
}
_WARNING = {
    METERS: "The Organization has every meter that the rows name.",
    ACCOUNTS: "The Organization has every account that the rows name.",
    COLUMNS: "m3ter's file has no columns but those of its document and of fields that the meters have.",
}
Sums = Mapping[str, Mapping[str, float]]
"""Sums by meter and column."""
_RAW_EXPORTS_LOOKED_AT = 50
_SHOWN = 20
_TOLERANCE = 1e-9


def usage_check_specs(asset: dg.AssetKey, name: str) -> list[dg.AssetCheckSpec]:
    return [
        *(dg.AssetCheckSpec(one, asset=asset, description=text, blocking=True) for one, text in _stopping(name)),
        *(dg.AssetCheckSpec(one, asset=asset, description=text) for one, text in _WARNING.items()),
    ]


def usage_checks(asset: dg.AssetKey, reading: UsageReading) -> Iterator[Result]:
    rows = {"rows": reading.usage.rows}
    for name, _ in _stopping(reading.table.name):
        yield dg.AssetCheckResult(passed=True, check_name=name, metadata=rows)
    yield _known(asset, METERS, reading.unknown_meters)
    yield _known(asset, ACCOUNTS, reading.unknown_accounts)
    yield _known(asset, COLUMNS, reading.usage.unknown_columns)


def failed_usage_checks(asset: str, breached: SchemaBreached) -> Iterator[dg.AssetCheckResult]:
    """The results for measurements that break their schema: a breach belongs to its column's check, or to `schema`."""
    names = [name for name, _ in _stopping(asset)]
    owners = {column: name for name, column in ((UNIQUE, UID), (WINDOW, TIME)) if name in names}
    for name in names:
        mine = [one for one in breached.breaches if owners.get(one.column, SCHEMA) == name]
        metadata = breach_metadata(breached, mine) if mine else {}
        yield dg.AssetCheckResult(passed=not mine, check_name=name, metadata=metadata)


def sums_check(names: Names = DEFAULT) -> dg.AssetChecksDefinition:
    aggregated = names.key(AGGREGATED)
    spec = dg.AssetCheckSpec(
        SUMS,
        asset=aggregated,
        additional_deps=[names.key(RAW)],
        description="The sums are those of the raw measurements, where both are exported for one window.",
    )

    @dg.multi_asset_check(name=names.own(f"{AGGREGATED}_{SUMS}"), specs=[spec])
    def sums_equal_raw(context: dg.AssetCheckExecutionContext) -> Iterator[Result]:
        yield _sums_result(context.instance, names) or not_checked(
            aggregated, SUMS, "the raw measurements of this window are not exported"
        )

    return sums_equal_raw


def _sums_result(instance: dg.DagsterInstance, names: Names) -> dg.AssetCheckResult | None:
    last = next(_with_sums(instance, AGGREGATED, None, names), None)
    aggregated = last.reading.sums if last else {}
    raws = (one.reading.sums for one in _with_sums(instance, RAW, last.org_id if last else None, names))
    raw = next((one for one in raws if _is_comparable(one, aggregated)), None)
    if raw is None:
        return None
    differences = list(_differences(aggregated["sums"], raw["sums"]))
    return dg.AssetCheckResult(
        passed=not differences,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(differences)} sums differ." if differences else "Every sum is that of the raw measurements.",
        metadata={"differences": differences[:_SHOWN]} if differences else {},
    )


def _stopping(asset: str) -> Sequence[tuple[str, str]]:
    """The blocking checks of an asset: without that of the uid for aggregated measurements, which have none."""
    return [(name, text) for name, text in _BLOCKING.items() if name != UNIQUE or asset != AGGREGATED]


def _known(asset: dg.AssetKey, check: str, unknown: Sequence[str] | None) -> Result:
    if unknown is None:
        return not_checked(asset, check, f"the Organization's {check} could not be read")
    return dg.AssetCheckResult(
        passed=not unknown,
        check_name=check,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(unknown)} unknown." if unknown else None,
        metadata={"unknown": list(unknown[:_SHOWN])} if unknown else {},
    )


def _with_sums(instance: dg.DagsterInstance, asset: str, org_id: str | None, names: Names) -> Iterator[Delivery]:
    """The last exports that recorded sums, newest first."""
    deliveries = islice(last_deliveries(instance, asset, org_id, names=names), _RAW_EXPORTS_LOOKED_AT)
    return (one for one in deliveries if one.reading.sums)


def _is_comparable(raw: Mapping[str, Any], aggregated: Mapping[str, Any]) -> bool:
    is_same = all(raw[name] == aggregated.get(name) for name in ("window", "accounts", "filters"))
    return is_same and (not raw["meters"] or set(aggregated["sums"]) <= set(raw["meters"]))


def _differences(aggregated: Sums, raw: Sums) -> Iterator[str]:
    for meter, sums in aggregated.items():
        for column, found in sums.items():
            field, _, function = column.rpartition(" (")
            if function != "SUM)":
                continue
            expected = raw.get(meter, {}).get(f"{field} (ORIGINAL)", 0.0)
            if abs(found - expected) > _TOLERANCE * max(abs(found), abs(expected), 1.0):
                yield f"{field} of meter {meter}: {found!r}, and {expected!r} in the raw measurements"
